//! Pages, tokens and late events, through the operations.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{JOB_GROUP, Logs};
use crate::caller::Caller;
use crate::event::InputLogEvent;
use crate::protocol::Answer;
use crate::quirks::Quirks;
use crate::service::answer;

fn logs(quirks: &Quirks) -> Arc<Logs> {
    Arc::new(Logs::new(1, quirks))
}

fn call(logs: &Arc<Logs>, operation: &str, request: &Value) -> Answer {
    answer(logs, operation, request, &Caller::administrator())
}

fn events(range: std::ops::Range<u64>) -> Vec<InputLogEvent> {
    range.map(|time| InputLogEvent { timestamp: time, message: format!("m{time}") }).collect()
}

fn walk(logs: &Arc<Logs>, limit: u64) -> (Vec<String>, usize) {
    let (mut seen, mut empty) = (Vec::new(), 0);
    let mut request = json!({"logGroupName": "g", "logStreamName": "s", "startFromHead": true, "limit": limit});
    loop {
        let answer = call(logs, "GetLogEvents", &request).unwrap().unwrap();
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
    let first = call(&logs, "GetLogEvents", &request).unwrap().unwrap();
    logs.append("g", "s", events(4..5), 0);
    let mut next = request.clone();
    next["nextToken"] = first["nextForwardToken"].clone();
    let second = call(&logs, "GetLogEvents", &next).unwrap().unwrap();
    assert_eq!(second["events"], json!([]));
    assert_eq!(second["nextForwardToken"], first["nextForwardToken"]);
    assert_eq!(walk(&logs, 10).0, ["m4", "m5"]);
}

#[test]
fn a_page_holds_one_megabyte() {
    let logs = logs(&Quirks::none());
    let big = (0..5).map(|timestamp| InputLogEvent { timestamp, message: "x".repeat(400_000) }).collect();
    logs.append("g", "s", big, 0);
    let request = json!({"logGroupName": "g", "logStreamName": "s", "startFromHead": true});
    let answer = call(&logs, "GetLogEvents", &request).unwrap().unwrap();
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
        let answer = call(&logs, "FilterLogEvents", &request).unwrap().unwrap();
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
    let answer = call(&logs, "FilterLogEvents", &request).unwrap().unwrap();
    let found: Vec<_> = answer["events"].as_array().unwrap().iter().map(|event| &event["message"]).collect();
    assert_eq!(found, ["m2", "m3"]);
    request["logStreamNames"] = json!(["a", "gone"]);
    assert_eq!(call(&logs, "FilterLogEvents", &request).unwrap_err().code, "ResourceNotFoundException");
    request["logStreamNames"] = (0..101).map(|number| number.to_string()).collect();
    assert_eq!(call(&logs, "FilterLogEvents", &request).unwrap_err().code, "InvalidParameterException");
}

#[test]
fn equal_times_are_ordered_by_ingestion_and_ids_stay_the_same() {
    let logs = logs(&Quirks::none());
    let event = |text: &str| vec![InputLogEvent { timestamp: 5, message: text.to_owned() }];
    logs.append("g", "s", event("late"), 20);
    logs.append("g", "s", event("early"), 10);
    let request = json!({"logGroupName": "g", "logStreamNames": ["s"]});
    let one = call(&logs, "FilterLogEvents", &request).unwrap().unwrap();
    assert_eq!((&one["events"][0]["message"], &one["events"][1]["message"]), (&json!("early"), &json!("late")));
    assert_eq!(one["events"][0]["ingestionTime"], 10);
    logs.append("g", "s", event("earliest"), 5);
    let two = call(&logs, "FilterLogEvents", &request).unwrap().unwrap();
    assert_eq!(two["events"][1]["eventId"], one["events"][0]["eventId"]);
}

#[test]
fn a_group_does_not_exist_before_its_first_event() {
    let logs = logs(&Quirks::none());
    let error = call(&logs, "DescribeLogStreams", &json!({"logGroupName": JOB_GROUP})).unwrap_err();
    assert_eq!(error.code, "ResourceNotFoundException");
}
