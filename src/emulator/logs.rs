//! The `CloudWatch` Logs half: groups, streams, events that become visible late, pages and tokens.
//!
//! Tokens walk by timestamp, as on the real service: an event that becomes visible behind a reader's position is passed
//! over. What a container's bytes become is decided in `ingest.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::clock;
use super::constraints as tables;
use super::ingest::Event;
use super::protocol::{Answer, ApiError, text};
use super::quirks::{Quirks, unlucky};
use super::stream::{PAGE_BYTES, Page, Place, Stream, Token, merged};
use super::validate::{Member, check};

/// Where training jobs log to.
pub(crate) const JOB_GROUP: &str = "/aws/sagemaker/TrainingJobs";
const PAGE_EVENTS: usize = 10_000;

#[derive(Debug, Default)]
struct Group {
    created: u64,
    streams: BTreeMap<String, Stream>,
}

/// All log groups of the account.
#[derive(Debug)]
pub(crate) struct Logs {
    account: String,
    seed: u64,
    empty_pages: bool,
    overlapping_pages: bool,
    groups: Mutex<BTreeMap<String, Group>>,
    arrivals: AtomicU64,
    pages: AtomicU64,
}

impl Logs {
    pub(crate) fn new(account: String, seed: u64, quirks: &Quirks) -> Self {
        Self {
            account,
            seed,
            empty_pages: quirks.empty_pages,
            overlapping_pages: quirks.overlapping_pages,
            groups: Mutex::default(),
            arrivals: AtomicU64::new(0),
            pages: AtomicU64::new(0),
        }
    }

    /// Adds events, creating group and stream as the log agent does. They are ingested, and so visible, at `visible` (epoch ms).
    pub(crate) fn append(&self, group: &str, stream: &str, events: Vec<Event>, visible: u64) {
        let now = clock::now_ms();
        let mut groups = self.lock();
        let group = groups.entry(group.to_owned()).or_insert_with(|| Group { created: now, ..Group::default() });
        let stream = group.streams.entry(stream.to_owned()).or_insert_with(|| Stream::new(now));
        self.insert(stream, events, visible);
    }

    fn insert(&self, stream: &mut Stream, events: Vec<Event>, ingested: u64) {
        for Event { timestamp, message } in events {
            let arrival = self.arrivals.fetch_add(1, Ordering::Relaxed) + 1;
            stream.insert(Place { timestamp, ingested, arrival }, message);
        }
    }

    /// Everything that streams of training jobs with this prefix hold, a JSON object a line, also what is not visible yet.
    pub(crate) fn dump(&self, prefix: &str) -> String {
        let groups = self.lock();
        let streams = groups.get(JOB_GROUP).into_iter().flat_map(|group| &group.streams);
        let mut text = String::new();
        for (name, stream) in streams.filter(|(name, _)| name.starts_with(prefix)) {
            for event in stream.events() {
                let Place { timestamp, ingested, .. } = event.place;
                let line = json!({"stream": name, "timestamp": timestamp, "ingestionTime": ingested, "message": event.message});
                text.push_str(&line.to_string());
                text.push('\n');
            }
        }
        text
    }

    /// Runs one operation of the service.
    pub(crate) fn call(&self, operation: &str, request: &Value, region: &str) -> Answer {
        match operation {
            "GetLogEvents" => checked(request, tables::GET_LOG_EVENTS).and_then(|()| self.get(request)),
            "FilterLogEvents" => checked(request, tables::FILTER_LOG_EVENTS).and_then(|()| self.filter(request)),
            "DescribeLogStreams" => {
                checked(request, tables::DESCRIBE_LOG_STREAMS).and_then(|()| self.describe_streams(request, region))
            }
            "DescribeLogGroups" => {
                checked(request, tables::DESCRIBE_LOG_GROUPS).and_then(|()| self.describe_groups(request, region))
            }
            "CreateLogGroup" => checked(request, tables::ONE_GROUP).and_then(|()| self.create_group(request)),
            "DeleteLogGroup" => checked(request, tables::ONE_GROUP).and_then(|()| self.delete_group(request)),
            "CreateLogStream" => checked(request, tables::ONE_STREAM).and_then(|()| self.create_stream(request)),
            "DeleteLogStream" => checked(request, tables::ONE_STREAM).and_then(|()| self.delete_stream(request)),
            "PutLogEvents" => checked(request, tables::PUT_LOG_EVENTS).and_then(|()| self.put(request)),
            _ => Err(ApiError::new("UnknownOperationException", "")),
        }
    }

    fn get(&self, request: &Value) -> Answer {
        let mut groups = self.lock();
        let stream = named_stream(named_group(&mut groups, request)?, request)?;
        let now = clock::now_ms();
        let start = number(request, "startTime").unwrap_or(0);
        let end = number(request, "endTime").unwrap_or(u64::MAX);
        let limit = limit(request, PAGE_EVENTS);
        let sent = text(request, "nextToken");
        let token = sent.map(|token| Token::parse(token).ok_or_else(invalid_token)).transpose()?;
        let head = request.get("startFromHead").and_then(Value::as_bool).unwrap_or(false);
        let forward = token.as_ref().map_or(head, |token| token.forward);
        let seen = stream.between(start, end.saturating_sub(1)).iter().filter(|event| event.place.ingested <= now);
        let page: Page<'_> = if forward {
            let after = token.as_ref().map(|token| token.place);
            Page::of(stream.after(after, start, end.saturating_sub(1), now), limit)
        } else {
            let before = token.as_ref().map(|token| token.place);
            let seen = seen.rev().skip_while(|event| before.is_some_and(|before| event.place >= before));
            Page::of(seen, limit).reversed()
        };
        let page = page.events;
        let rested = token.as_ref().is_some_and(|token| token.rested);
        if forward && !rested && self.empty_pages && !page.is_empty() && self.unlucky_page() {
            // An empty page whose token differs from the one sent: more follows.
            let place = token.as_ref().map_or(Place::START, |token| token.place);
            return Ok(Some(json!({
                "events": [],
                "nextForwardToken": Token { forward: true, place, rested: true }.to_string(),
                "nextBackwardToken": Token { forward: false, place, rested: false }.to_string(),
            })));
        }
        let own = token.as_ref().map_or(Place::START, |token| token.place);
        let first = page.first().map_or(own, |event| event.place);
        let last = page.last().map_or(own, |event| event.place);
        let mut next_forward = Token { forward: true, place: last, rested: false }.to_string();
        let mut next_backward = Token { forward: false, place: first, rested: false }.to_string();
        if page.is_empty()
            && let Some(sent) = sent
        {
            // The end: the same token comes back.
            if forward { &mut next_forward } else { &mut next_backward }.replace_range(.., sent);
        }
        let events: Vec<Value> = page
            .iter()
            .map(|event| {
                let Place { timestamp, ingested, .. } = event.place;
                json!({"timestamp": timestamp, "message": event.message, "ingestionTime": ingested})
            })
            .collect();
        Ok(Some(json!({"events": events, "nextForwardToken": next_forward, "nextBackwardToken": next_backward})))
    }

    fn filter(&self, request: &Value) -> Answer {
        let prefix = text(request, "logStreamNamePrefix");
        let names: Option<BTreeSet<&str>> = request
            .get("logStreamNames")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect());
        if prefix.is_some() && names.is_some() {
            return Err(ApiError::new(
                "InvalidParameterException",
                "Only one of logStreamNames and logStreamNamePrefix can be specified.",
            ));
        }
        let mut groups = self.lock();
        let group = named_group(&mut groups, request)?;
        if names.iter().flatten().any(|name| !group.streams.contains_key(*name)) {
            return Err(no_stream());
        }
        let now = clock::now_ms();
        let start = number(request, "startTime").unwrap_or(0);
        let end = number(request, "endTime").unwrap_or(u64::MAX);
        let limit = limit(request, PAGE_EVENTS);
        let sent = text(request, "nextToken");
        let token = sent.map(|token| Token::parse(token).ok_or_else(invalid_token)).transpose()?;
        let after = token.as_ref().map_or(Place::START, |token| token.place);
        let words = pattern_words(text(request, "filterPattern").unwrap_or_default());
        let chosen: Vec<(&str, &Stream)> = if let Some(names) = &names {
            names.iter().filter_map(|name| Some((*name, group.streams.get(*name)?))).collect()
        } else {
            let all = group.streams.iter().map(|(name, stream)| (name.as_str(), stream));
            all.filter(|(name, _)| prefix.is_none_or(|prefix| name.starts_with(prefix))).collect()
        };
        let streams = chosen.iter().map(|(_, stream)| {
            let seen = stream.after(Some(after), start, end, now);
            seen.filter(|event| words.iter().all(|word| event.message.contains(word)))
        });
        let Page { events: page, sources, more } = merged(streams, limit);
        let rested = token.as_ref().is_some_and(|token| token.rested);
        if !rested && !page.is_empty() && self.empty_pages && self.unlucky_page() {
            let token = Token { forward: true, place: after, rested: true }.to_string();
            return Ok(Some(json!({"events": [], "searchedLogStreams": [], "nextToken": token})));
        }
        let events: Vec<Value> = page
            .iter()
            .zip(&sources)
            .map(|(event, source)| {
                json!({
                    "logStreamName": chosen.get(*source).map(|(name, _)| *name),
                    "timestamp": event.place.timestamp,
                    "message": event.message,
                    "ingestionTime": event.place.ingested,
                    "eventId": event.place.to_string(),
                })
            })
            .collect();
        let mut answer = json!({"events": events, "searchedLogStreams": []});
        if more && let Some(last) = page.last() {
            let mut place = last.place;
            if self.overlapping_pages && page.len() > 1 && self.unlucky_page() {
                // The last event of this page opens the next one too; its id tells.
                place.arrival -= 1;
            }
            answer["nextToken"] = Token { forward: true, place, rested: false }.to_string().into();
        }
        Ok(Some(answer))
    }

    fn unlucky_page(&self) -> bool {
        unlucky(self.seed, "pages", self.pages.fetch_add(1, Ordering::Relaxed))
    }

    fn describe_streams(&self, request: &Value, region: &str) -> Answer {
        let prefix = text(request, "logStreamNamePrefix");
        let by_time = text(request, "orderBy") == Some("LastEventTime");
        if prefix.is_some() && by_time {
            return Err(ApiError::new(
                "InvalidParameterException",
                "Cannot order by LastEventTime with a logStreamNamePrefix.",
            ));
        }
        let mut groups = self.lock();
        let (group_name, group) = named_group_and_name(&mut groups, request)?;
        let mut streams: Vec<_> =
            group.streams.iter().filter(|(name, _)| prefix.is_none_or(|prefix| name.starts_with(prefix))).collect();
        if by_time {
            streams.sort_by_key(|(_, stream)| stream.events().last().map(|event| event.place));
        }
        if request.get("descending").and_then(Value::as_bool).unwrap_or(false) {
            streams.reverse();
        }
        let offset = offset(request)?;
        let limit = limit(request, 50);
        let page: Vec<Value> = streams
            .iter()
            .skip(offset)
            .take(limit)
            .map(|(name, stream)| {
                let mut entry = json!({
                    "logStreamName": name,
                    "creationTime": stream.created,
                    "arn": format!("{}:log-stream:{name}", self.group_arn(region, group_name)),
                    "storedBytes": 0,
                });
                if let (Some(first), Some(last)) = (stream.events().first(), stream.events().last()) {
                    entry["firstEventTimestamp"] = first.place.timestamp.into();
                    entry["lastEventTimestamp"] = last.place.timestamp.into();
                    entry["lastIngestionTime"] = last.place.ingested.into();
                }
                entry
            })
            .collect();
        let mut answer = json!({"logStreams": page});
        if offset + limit < streams.len() {
            answer["nextToken"] = format!("o/{}", offset + limit).into();
        }
        Ok(Some(answer))
    }

    fn describe_groups(&self, request: &Value, region: &str) -> Answer {
        let prefix = text(request, "logGroupNamePrefix").unwrap_or_default();
        let part = text(request, "logGroupNamePattern").unwrap_or_default();
        let groups = self.lock();
        let chosen: Vec<_> =
            groups.iter().filter(|(name, _)| name.starts_with(prefix) && name.contains(part)).collect();
        let offset = offset(request)?;
        let limit = limit(request, 50);
        let page: Vec<Value> = chosen
            .iter()
            .skip(offset)
            .take(limit)
            .map(|(name, group)| {
                let arn = self.group_arn(region, name);
                json!({
                    "logGroupName": name,
                    "creationTime": group.created,
                    "metricFilterCount": 0,
                    "arn": format!("{arn}:*"),
                    "logGroupArn": arn,
                    "storedBytes": 0,
                    "logGroupClass": "STANDARD",
                })
            })
            .collect();
        let mut answer = json!({"logGroups": page});
        if offset + limit < chosen.len() {
            answer["nextToken"] = format!("o/{}", offset + limit).into();
        }
        Ok(Some(answer))
    }

    fn create_group(&self, request: &Value) -> Answer {
        let name = text(request, "logGroupName").unwrap_or_default();
        let mut groups = self.lock();
        if groups.contains_key(name) {
            return Err(ApiError::new("ResourceAlreadyExistsException", "The specified log group already exists"));
        }
        groups.insert(name.to_owned(), Group { created: clock::now_ms(), ..Group::default() });
        Ok(None)
    }

    fn delete_group(&self, request: &Value) -> Answer {
        let name = text(request, "logGroupName").unwrap_or_default();
        self.lock().remove(name).map(|_| None).ok_or_else(no_group)
    }

    fn create_stream(&self, request: &Value) -> Answer {
        let name = text(request, "logStreamName").unwrap_or_default();
        let mut groups = self.lock();
        let group = named_group(&mut groups, request)?;
        if group.streams.contains_key(name) {
            return Err(ApiError::new("ResourceAlreadyExistsException", "The specified log stream already exists"));
        }
        group.streams.insert(name.to_owned(), Stream::new(clock::now_ms()));
        Ok(None)
    }

    fn delete_stream(&self, request: &Value) -> Answer {
        let name = text(request, "logStreamName").unwrap_or_default();
        let mut groups = self.lock();
        named_group(&mut groups, request)?.streams.remove(name).map(|_| None).ok_or_else(no_stream)
    }

    fn put(&self, request: &Value) -> Answer {
        let events: Vec<Event> = request
            .get("logEvents")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|event| Event {
                timestamp: number(event, "timestamp").unwrap_or_default(),
                message: text(event, "message").unwrap_or_default().to_owned(),
            })
            .collect();
        let invalid = |message: &str| Err(ApiError::new("InvalidParameterException", message));
        if events.iter().zip(events.iter().skip(1)).any(|(one, next)| one.timestamp > next.timestamp) {
            return invalid("Log events in a single PutLogEvents request must be in chronological order.");
        }
        if events.iter().map(|event| event.message.len() + 26).sum::<usize>() > PAGE_BYTES {
            return invalid("Upload too large: the batch exceeds 1048576 bytes");
        }
        let mut groups = self.lock();
        let now = clock::now_ms();
        let stream = named_stream(named_group(&mut groups, request)?, request)?;
        self.insert(stream, events, now);
        Ok(Some(json!({"nextSequenceToken": format!("{:056}", self.arrivals.load(Ordering::Relaxed))})))
    }

    fn group_arn(&self, region: &str, group: &str) -> String {
        format!("arn:aws:logs:{region}:{}:log-group:{group}", self.account)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The terms of a simple filter pattern; a quoted one may contain spaces.
fn pattern_words(pattern: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, piece) in pattern.split('"').enumerate() {
        if index % 2 == 1 {
            words.push(piece.to_owned());
        } else {
            words.extend(piece.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn checked(request: &Value, table: &'static [Member]) -> Result<(), ApiError> {
    // This service has its own name for a broken constraint.
    check(request, table).map_err(|error| match error.code.as_str() {
        "ValidationException" => ApiError { code: "InvalidParameterException".to_owned(), ..error },
        _ => error,
    })
}

fn named_group<'a>(groups: &'a mut BTreeMap<String, Group>, request: &Value) -> Result<&'a mut Group, ApiError> {
    named_group_and_name(groups, request).map(|(_, group)| group)
}

fn named_group_and_name<'a, 'r>(
    groups: &'a mut BTreeMap<String, Group>,
    request: &'r Value,
) -> Result<(&'r str, &'a mut Group), ApiError> {
    let name = match (text(request, "logGroupName"), text(request, "logGroupIdentifier")) {
        (Some(name), None) => name,
        (None, Some(identifier)) => identifier.split(":log-group:").last().unwrap_or(identifier),
        _ => {
            return Err(ApiError::new(
                "InvalidParameterException",
                "Exactly one of logGroupName and logGroupIdentifier must be specified.",
            ));
        }
    };
    groups.get_mut(name).map(|group| (name, group)).ok_or_else(no_group)
}

fn named_stream<'a>(group: &'a mut Group, request: &Value) -> Result<&'a mut Stream, ApiError> {
    group.streams.get_mut(text(request, "logStreamName").unwrap_or_default()).ok_or_else(no_stream)
}

fn no_group() -> ApiError {
    ApiError::new("ResourceNotFoundException", "The specified log group does not exist.")
}

fn no_stream() -> ApiError {
    ApiError::new("ResourceNotFoundException", "The specified log stream does not exist.")
}

fn invalid_token() -> ApiError {
    ApiError::new("InvalidParameterException", "The specified nextToken is invalid.")
}

fn number(request: &Value, name: &str) -> Option<u64> {
    request.get(name).and_then(Value::as_u64)
}

fn limit(request: &Value, most: usize) -> usize {
    number(request, "limit").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(most).min(most)
}

fn offset(request: &Value) -> Result<usize, ApiError> {
    let Some(token) = text(request, "nextToken") else { return Ok(0) };
    token.strip_prefix("o/").and_then(|offset| offset.parse().ok()).ok_or_else(invalid_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(quirks: &Quirks) -> Logs {
        Logs::new("000000000000".into(), 1, quirks)
    }

    fn events(range: std::ops::Range<u64>) -> Vec<Event> {
        range.map(|time| Event { timestamp: time, message: format!("m{time}") }).collect()
    }

    fn walk(logs: &Logs, limit: u64) -> (Vec<String>, usize) {
        let (mut seen, mut empty) = (Vec::new(), 0);
        let mut request = json!({"logGroupName": "g", "logStreamName": "s", "startFromHead": true, "limit": limit});
        loop {
            let answer = logs.call("GetLogEvents", &request, "r").unwrap().unwrap();
            let page = answer["events"].as_array().unwrap();
            empty += usize::from(page.is_empty());
            seen.extend(page.iter().map(|event| event["message"].as_str().unwrap().to_owned()));
            if answer["nextForwardToken"] == request["nextToken"] {
                return (seen, empty);
            }
            request["nextToken"] = answer["nextForwardToken"].clone();
        }
    }

    #[test]
    fn pages_give_every_event_once_and_end_with_the_token_sent() {
        let logs = logs(&Quirks::default());
        logs.append("g", "s", events(1..101), 0);
        let (seen, empty) = walk(&logs, 3);
        assert_eq!(seen, (1..101).map(|time| format!("m{time}")).collect::<Vec<_>>());
        assert!(empty > 1, "some pages in between are empty");
    }

    #[test]
    fn a_late_event_with_an_older_time_is_passed_over() {
        let logs = logs(&Quirks::none());
        logs.append("g", "s", events(5..6), 0);
        let request = json!({"logGroupName": "g", "logStreamName": "s", "startFromHead": true});
        let first = logs.call("GetLogEvents", &request, "r").unwrap().unwrap();
        logs.append("g", "s", events(4..5), 0);
        let mut next = request.clone();
        next["nextToken"] = first["nextForwardToken"].clone();
        let second = logs.call("GetLogEvents", &next, "r").unwrap().unwrap();
        assert_eq!(second["events"], json!([]));
        assert_eq!(second["nextForwardToken"], first["nextForwardToken"]);
        assert_eq!(walk(&logs, 10).0, ["m4", "m5"]);
    }

    #[test]
    fn a_page_holds_one_megabyte() {
        let logs = logs(&Quirks::none());
        let big = (0..5).map(|timestamp| Event { timestamp, message: "x".repeat(400_000) }).collect();
        logs.append("g", "s", big, 0);
        let request = json!({"logGroupName": "g", "logStreamName": "s", "startFromHead": true});
        let answer = logs.call("GetLogEvents", &request, "r").unwrap().unwrap();
        assert_eq!(answer["events"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn events_of_the_future_are_not_visible() {
        let logs = logs(&Quirks::none());
        logs.append("g", "s", events(1..2), u64::MAX);
        assert_eq!(walk(&logs, 10).0, Vec::<String>::new());
    }

    #[test]
    fn a_filter_merges_streams_by_time_and_repeats_only_known_ids() {
        let logs = logs(&Quirks::default());
        for time in 1..60 {
            logs.append("g", if time % 2 == 0 { "p/even" } else { "p/odd" }, events(time..time + 1), 0);
        }
        let mut request = json!({"logGroupName": "g", "logStreamNamePrefix": "p/", "limit": 4});
        let (mut ids, mut seen) = (std::collections::BTreeSet::new(), Vec::new());
        let mut repeated = 0;
        loop {
            let answer = logs.call("FilterLogEvents", &request, "r").unwrap().unwrap();
            for event in answer["events"].as_array().unwrap() {
                if ids.insert(event["eventId"].as_str().unwrap().to_owned()) {
                    seen.push(event["timestamp"].as_u64().unwrap());
                } else {
                    repeated += 1;
                }
            }
            if answer["nextToken"].is_null() {
                break;
            }
            request["nextToken"] = answer["nextToken"].clone();
        }
        assert_eq!(seen, (1..60).collect::<Vec<_>>());
        assert!(repeated > 0, "some pages overlap");
    }

    #[test]
    fn a_filter_of_names_is_refused_as_a_whole_when_one_is_unknown() {
        let logs = logs(&Quirks::none());
        logs.append("g", "a", events(1..3), 0);
        logs.append("g", "b", events(3..4), 0);
        logs.append("g", "c", events(2..3), 0);
        let mut request =
            json!({"logGroupName": "g", "logStreamNames": ["b", "a", "a"], "startTime": 2, "interleaved": false});
        let answer = logs.call("FilterLogEvents", &request, "r").unwrap().unwrap();
        let found: Vec<_> = answer["events"].as_array().unwrap().iter().map(|event| &event["message"]).collect();
        assert_eq!(found, ["m2", "m3"]);
        request["logStreamNames"] = json!(["a", "gone"]);
        assert_eq!(logs.call("FilterLogEvents", &request, "r").unwrap_err().code, "ResourceNotFoundException");
        request["logStreamNames"] = (0..101).map(|number| number.to_string()).collect();
        assert_eq!(logs.call("FilterLogEvents", &request, "r").unwrap_err().code, "InvalidParameterException");
    }

    #[test]
    fn equal_times_are_ordered_by_ingestion_and_ids_stay_the_same() {
        let logs = logs(&Quirks::none());
        let event = |text: &str| vec![Event { timestamp: 5, message: text.to_owned() }];
        logs.append("g", "s", event("late"), 20);
        logs.append("g", "s", event("early"), 10);
        let request = json!({"logGroupName": "g", "logStreamNames": ["s"]});
        let one = logs.call("FilterLogEvents", &request, "r").unwrap().unwrap();
        assert_eq!((&one["events"][0]["message"], &one["events"][1]["message"]), (&json!("early"), &json!("late")));
        assert_eq!(one["events"][0]["ingestionTime"], 10);
        logs.append("g", "s", event("earliest"), 5);
        let two = logs.call("FilterLogEvents", &request, "r").unwrap().unwrap();
        assert_eq!(two["events"][1]["eventId"], one["events"][0]["eventId"]);
    }

    #[test]
    fn a_group_does_not_exist_before_its_first_event() {
        let logs = logs(&Quirks::none());
        let error = logs.call("DescribeLogStreams", &json!({"logGroupName": JOB_GROUP}), "r").unwrap_err();
        assert_eq!(error.code, "ResourceNotFoundException");
    }

    #[test]
    fn filter_terms_may_be_quoted() {
        assert_eq!(pattern_words(r#"one "two three" four"#), ["one", "two three", "four"]);
    }
}
