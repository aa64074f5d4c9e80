//! Reads events: `GetLogEvents` from one stream, `FilterLogEvents` from many.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::groups::{Logs, invalid_token, limit, named_group, named_stream, no_stream, number};
use super::stream::{EventPage, EventPosition, LogStream, PageToken, merged};
use crate::caller::Caller;
use crate::clock;
use crate::protocol::{Answer, ApiError, text};

const PAGE_EVENTS: usize = 10_000;

pub(super) fn get(logs: &Arc<Logs>, request: &Value, _: &Caller) -> Answer {
    let mut groups = logs.groups.lock();
    let stream = named_stream(named_group(&mut groups, request)?, request)?;
    let now = clock::now_ms();
    let start = number(request, "startTime").unwrap_or(0);
    let end = number(request, "endTime").unwrap_or(u64::MAX);
    let limit = limit(request, PAGE_EVENTS);
    let sent = text(request, "nextToken");
    let token = sent.map(|token| PageToken::parse(token).ok_or_else(invalid_token)).transpose()?;
    let head = request.get("startFromHead").and_then(Value::as_bool).unwrap_or(false);
    let forward = token.as_ref().map_or(head, |token| token.forward);
    let seen = stream.between(start, end.saturating_sub(1)).iter().filter(|event| event.place.ingested <= now);
    let page: EventPage<'_> = if forward {
        let after = token.as_ref().map(|token| token.place);
        EventPage::of(stream.after(after, start, end.saturating_sub(1), now), limit)
    } else {
        let before = token.as_ref().map(|token| token.place);
        let seen = seen.rev().skip_while(|event| before.is_some_and(|before| event.place >= before));
        EventPage::of(seen, limit).reversed()
    };
    let page = page.events;
    let rested = token.as_ref().is_some_and(|token| token.rested);
    if forward && !rested && logs.empty_pages && !page.is_empty() && logs.unlucky_page() {
        // An empty page whose token differs from the one sent: more follows.
        let place = token.as_ref().map_or(EventPosition::START, |token| token.place);
        return Ok(Some(json!({
            "events": [],
            "nextForwardToken": PageToken { forward: true, place, rested: true }.to_string(),
            "nextBackwardToken": PageToken { forward: false, place, rested: false }.to_string(),
        })));
    }
    let own = token.as_ref().map_or(EventPosition::START, |token| token.place);
    let first = page.first().map_or(own, |event| event.place);
    let last = page.last().map_or(own, |event| event.place);
    let mut next_forward = PageToken { forward: true, place: last, rested: false }.to_string();
    let mut next_backward = PageToken { forward: false, place: first, rested: false }.to_string();
    if page.is_empty()
        && let Some(sent) = sent
    {
        // The end: the same token comes back.
        if forward { &mut next_forward } else { &mut next_backward }.replace_range(.., sent);
    }
    let events: Vec<Value> = page
        .iter()
        .map(|event| {
            let EventPosition { timestamp, ingested, .. } = event.place;
            json!({"timestamp": timestamp, "message": event.message, "ingestionTime": ingested})
        })
        .collect();
    Ok(Some(json!({"events": events, "nextForwardToken": next_forward, "nextBackwardToken": next_backward})))
}

pub(super) fn filter(logs: &Arc<Logs>, request: &Value, _: &Caller) -> Answer {
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
    let mut groups = logs.groups.lock();
    let group = named_group(&mut groups, request)?;
    if names.iter().flatten().any(|name| !group.streams.contains_key(*name)) {
        return Err(no_stream());
    }
    let now = clock::now_ms();
    let start = number(request, "startTime").unwrap_or(0);
    let end = number(request, "endTime").unwrap_or(u64::MAX);
    let limit = limit(request, PAGE_EVENTS);
    let sent = text(request, "nextToken");
    let token = sent.map(|token| PageToken::parse(token).ok_or_else(invalid_token)).transpose()?;
    let after = token.as_ref().map_or(EventPosition::START, |token| token.place);
    let words = pattern_words(text(request, "filterPattern").unwrap_or_default());
    let chosen: Vec<(&str, &LogStream)> = if let Some(names) = &names {
        names.iter().filter_map(|name| Some((*name, group.streams.get(*name)?))).collect()
    } else {
        let all = group.streams.iter().map(|(name, stream)| (name.as_str(), stream));
        all.filter(|(name, _)| prefix.is_none_or(|prefix| name.starts_with(prefix))).collect()
    };
    let streams = chosen.iter().map(|(_, stream)| {
        let seen = stream.after(Some(after), start, end, now);
        seen.filter(|event| words.iter().all(|word| event.message.contains(word)))
    });
    let EventPage { events: page, sources, more } = merged(streams, limit);
    let rested = token.as_ref().is_some_and(|token| token.rested);
    if !rested && !page.is_empty() && logs.empty_pages && logs.unlucky_page() {
        let token = PageToken { forward: true, place: after, rested: true }.to_string();
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
        if logs.overlapping_pages && page.len() > 1 && logs.unlucky_page() {
            // The next page repeats the last event of this one, with the same id.
            place.arrival -= 1;
        }
        answer["nextToken"] = PageToken { forward: true, place, rested: false }.to_string().into();
    }
    Ok(Some(answer))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_terms_may_be_quoted() {
        assert_eq!(pattern_words(r#"one "two three" four"#), ["one", "two three", "four"]);
    }
}
