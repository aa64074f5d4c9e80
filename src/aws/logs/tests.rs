//! The log: streams, and events of several streams.

use crate::stub::{Stub, refusal, reply};
use executor::cloud::{CloudErrorKind, FilterPage, LogEvent, StreamPage};

#[tokio::test]
async fn streams_of_all_pages_are_found_and_a_missing_group_has_none() {
    let stub = Stub::start().await;
    stub.push(reply(
        200,
        r#"{"logStreams":[{"logStreamName":"a/algo-1-1"},{"logStreamName":"a/algo-1-1/ssm"}],"nextToken":"n"}"#,
    ));
    stub.push(reply(200, r#"{"logStreams":[{"logStreamName":"a/algo-2-1"}]}"#));
    stub.push(refusal(400, "ResourceNotFoundException", "The specified log group does not exist."));
    assert_eq!(stub.logs.streams("a").await.unwrap(), ["a/algo-1-1", "a/algo-2-1"]);
    assert_eq!(stub.logs.streams("a").await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn events_of_several_streams_come_with_time_id_and_token() {
    let stub = Stub::start().await;
    stub.push(reply(
        200,
        r#"{"events":[{"logStreamName":"a/algo-1-1","timestamp":5,"ingestionTime":9,"eventId":"e1","message":"x\n y"},
            {"logStreamName":"b/algo-1-1","timestamp":6,"ingestionTime":8,"eventId":"e2","message":"z"}],"nextToken":"n"}"#,
    ));
    stub.push(reply(200, r#"{"events":[]}"#));
    let streams = ["a/algo-1-1".to_owned(), "b/algo-1-1".to_owned()];
    let first = stub.logs.filter(&streams, 4, None).await.unwrap();
    let event = |stream: &str, timestamp, id: &str, message: &str| LogEvent {
        stream: stream.to_owned(),
        timestamp,
        id: id.to_owned(),
        message: message.to_owned(),
    };
    assert_eq!(first.events, [event("a/algo-1-1", 5, "e1", "x\n y"), event("b/algo-1-1", 6, "e2", "z")]);
    assert_eq!((first.ingested, first.token.as_deref()), (Some(9), Some("n")));
    assert_eq!(stub.logs.filter(&streams, 4, Some("n")).await.unwrap(), FilterPage::default());
    let seen = stub.seen();
    let sent: serde_json::Value = serde_json::from_slice(&seen[1].body).unwrap();
    assert_eq!(sent["logStreamNames"], serde_json::json!(streams));
    assert_eq!((&sent["startTime"], &sent["nextToken"]), (&4.into(), &"n".into()));
}

#[tokio::test]
async fn a_throttled_read_of_logs_is_one_request() {
    let stub = Stub::start_with_retries().await;
    stub.answer(|_| Some(refusal(400, "ThrottlingException", "Rate exceeded")));
    let streams = ["a/algo-1-1".to_owned()];
    let kinds = [
        stub.logs.filter(&streams, 0, None).await.unwrap_err().kind,
        stub.logs.streams("a").await.unwrap_err().kind,
        stub.logs.newest_streams(None).await.unwrap_err().kind,
    ];
    assert_eq!(kinds, [CloudErrorKind::Throttled; 3]);
    assert_eq!(stub.seen().len(), 3);
}

#[tokio::test]
async fn the_newest_streams_of_all_jobs_are_listed_without_debug_streams() {
    let stub = Stub::start().await;
    stub.push(reply(
        200,
        r#"{"logStreams":[{"logStreamName":"b/algo-1-1"},{"logStreamName":"a/algo-1-1/ssm"}],"nextToken":"n"}"#,
    ));
    stub.push(refusal(400, "ResourceNotFoundException", "The specified log group does not exist."));
    let page = stub.logs.newest_streams(None).await.unwrap();
    assert_eq!((page.streams, page.token.as_deref()), (vec!["b/algo-1-1".to_owned()], Some("n")));
    assert_eq!(stub.logs.newest_streams(Some("n")).await.unwrap(), StreamPage::default());
    assert!(String::from_utf8_lossy(&stub.seen()[0].body).contains("LastEventTime"));
}
