//! Tests of the ledger over the fake of the object store.

use test_case::test_case;

use super::*;
use crate::cloud::CloudErrorKind;
use crate::cloud::testing::{Fault, MemoryObjects, When};

const NOON: Duration = Duration::from_hours(12);

fn begin(reason: &str) -> LedgerBegin {
    let example = include_str!("example.json").replace("{reason}", reason);
    serde_json::from_str(&example).unwrap()
}

fn end(outcome: LedgerOutcome) -> LedgerEnd {
    LedgerEnd::new(std::time::SystemTime::UNIX_EPOCH + NOON, outcome)
}

fn ledger() -> (Ledger, Arc<MemoryObjects>) {
    let objects = Arc::new(MemoryObjects::default());
    (Ledger::new(objects.clone(), "wine"), objects)
}

/// Later versions read what this one writes.
#[tokio::test]
async fn a_record_is_written_as_the_example() {
    let (ledger, objects) = ledger();
    assert_eq!(ledger.begin(&begin("better")).await.unwrap(), 1);
    let written = String::from_utf8(objects.contents("deployments/wine/00000001.begin.json").unwrap()).unwrap();
    assert_eq!(written, include_str!("example.json").replace("{reason}", "better").trim_end());
    ledger.end(1, &LedgerEnd { config: Some("wine-1".to_owned()), ..end(LedgerOutcome::Succeeded) }).await.unwrap();
    let expected = r#"{
  "format": 1,
  "at": "1970-01-01T12:00:00.000Z",
  "outcome": "succeeded",
  "reason": null,
  "config": "wine-1",
  "test": null
}"#;
    let written = objects.contents("deployments/wine/00000001.end.json").unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), expected);
}

#[tokio::test]
async fn deployments_are_told_newest_first_and_the_newest_open_one_is_found() {
    let (ledger, objects) = ledger();
    assert_eq!(ledger.open().await.unwrap(), None);
    for reason in ["a", "b", "c", "d"] {
        ledger.begin(&begin(reason)).await.unwrap();
    }
    for number in [1, 4] {
        ledger.end(number, &end(LedgerOutcome::Succeeded)).await.unwrap();
    }
    // Of another endpoint, and of nobody.
    objects.insert("deployments/wine-2/00000007.begin.json", "{}");
    for name in ["9.begin.json", "00000000.begin.json", "+0000009.end.json", "00000009.middle.json", "notes.txt"] {
        objects.insert(&format!("deployments/wine/{name}"), "{}");
    }
    let told = ledger.history(3).await.unwrap();
    let told: Vec<_> = told
        .iter()
        .map(|entry| (entry.number, entry.begin.reason.as_deref().unwrap(), entry.has_succeeded()))
        .collect();
    assert_eq!(told, [(4, "d", true), (3, "c", false), (2, "b", false)]);
    assert_eq!(ledger.open().await.unwrap().unwrap().number, 3);
    ledger.end(3, &end(LedgerOutcome::DetachedSuperseded)).await.unwrap();
    assert_eq!(ledger.open().await.unwrap().unwrap().number, 2);
    assert_eq!(ledger.entry(1).await.unwrap().unwrap().begin, begin("a"));
    assert_eq!(ledger.entry(5).await.unwrap(), None);
}

#[tokio::test]
async fn the_newest_open_deployment_is_taken_up_and_the_others_are_ended() {
    let (ledger, _) = ledger();
    let at = std::time::SystemTime::UNIX_EPOCH + NOON;
    for reason in ["a", "b"] {
        ledger.begin(&begin(reason)).await.unwrap();
    }
    let meant = |reason: &'static str| move |begin: &LedgerBegin| begin.reason.as_deref() == Some(reason);
    assert_eq!(ledger.take_up(at, None, meant("b")).await.unwrap().unwrap().number, 2);
    let ends = |history: &[LedgerEntry]| -> Vec<_> {
        history.iter().map(|entry| entry.end.as_ref().map(|end| end.outcome)).collect()
    };
    assert_eq!(ends(&ledger.history(9).await.unwrap()), [None, Some(LedgerOutcome::DetachedSuperseded)]);
    assert_eq!(ledger.take_up(at, None, meant("a")).await.unwrap(), None);
    assert_eq!(ends(&ledger.history(9).await.unwrap()), [Some(LedgerOutcome::DetachedSuperseded); 2]);
}

#[tokio::test]
async fn two_writers_at_once_get_two_numbers() {
    let (one, objects) = ledger();
    let other = Ledger::new(objects.clone(), "wine");
    objects.insert("deployments/wine/00000041.end.json", "{}");
    let (a, b) = (begin("a"), begin("b"));
    let (first, second) = futures::join!(one.begin(&a), other.begin(&b));
    let mut numbers = [first.unwrap(), second.unwrap()];
    numbers.sort_unstable();
    assert_eq!(numbers, [42, 43]);
}

/// The SDK repeats a write whose answer was lost, and finds its own object.
#[tokio::test]
async fn a_write_that_was_repeated_is_its_own() {
    let (ledger, objects) = ledger();
    objects.plan([Fault::new("put_if_absent", 1, When::After, CloudErrorKind::Transient)]);
    assert!(ledger.begin(&begin("a")).await.is_err());
    assert!(ledger.put(1, Half::Begin, &bytes_of(&begin("a")).unwrap()).await.unwrap());
    assert!(!ledger.put(1, Half::Begin, &bytes_of(&begin("b")).unwrap()).await.unwrap());
    assert_eq!(objects.keys().len(), 1);
}

#[tokio::test]
async fn a_deployment_ends_once() {
    let (ledger, _) = ledger();
    ledger.begin(&begin("a")).await.unwrap();
    ledger.end(1, &end(LedgerOutcome::Succeeded)).await.unwrap();
    let later = LedgerEnd { at: "later".to_owned(), ..end(LedgerOutcome::Succeeded) };
    ledger.end(1, &later).await.unwrap();
    let error = ledger.end(1, &end(LedgerOutcome::RolledBack)).await.unwrap_err();
    assert_eq!(error.to_string(), "another command ended deployment 1 as succeeded, and this one as rolled-back");
}

#[test_case("not JSON", "it is no record of this program"; "text")]
#[test_case(r#"{"format": 2}"#, "a newer version of this program wrote it: update `sagemaker-executor` in the job's image"; "newer")]
#[test_case(r#"{"format": 1, "kind": "\u001b[2J"}"#, "unknown variant"; "an escape sequence")]
#[test_case(&"[".repeat(MOST_BYTES + 1), "it has more than 65536 bytes"; "large")]
#[tokio::test]
async fn what_another_program_wrote_is_refused_with_its_key(body: &str, why: &str) {
    let (ledger, objects) = ledger();
    objects.insert("deployments/wine/00000001.begin.json", body);
    let error = ledger.history(50).await.unwrap_err();
    let text = crate::base::failure::render(&error);
    assert!(text.contains(&format!("deployment 1 cannot be used: {why}")), "{text}");
    assert!(text.contains("s3://memory/deployments/wine/00000001.begin.json") && !text.contains('\u{1b}'), "{text}");
    // A begin needs no other record.
    assert_eq!(ledger.begin(&begin("a")).await.unwrap(), 2);
}

#[tokio::test]
async fn the_last_number_is_the_end() {
    let (ledger, objects) = ledger();
    objects.insert("deployments/wine/99999999.begin.json", "{}");
    assert!(ledger.begin(&begin("a")).await.is_err());
    let error = ledger.begin(&begin(&"x".repeat(MOST_BYTES))).await.unwrap_err();
    assert!(crate::base::failure::render(&error).contains("`--reason`"));
}

#[tokio::test]
async fn the_record_of_another_endpoint_is_refused() {
    let (ledger, objects) = ledger();
    let other = LedgerBegin { endpoint: "wine-2".to_owned(), ..begin("a") };
    objects.insert("deployments/wine/00000001.begin.json", bytes_of(&other).unwrap().to_vec());
    assert!(ledger.open().await.unwrap_err().to_string().ends_with("it is of the endpoint `wine-2`"));
}

#[tokio::test]
async fn a_way_back_is_recorded_once() {
    let (ledger, objects) = ledger();
    let number = ledger.begin(&begin("a")).await.unwrap();
    assert_eq!(ledger.back(number).await.unwrap(), None);
    let test = |summary: &str| LedgerTest { is_good: false, summary: summary.to_owned() };
    let at = |seconds| SystemTime::UNIX_EPOCH + NOON + Duration::from_secs(seconds);
    let first = LedgerBack::new(at(2), Some(at(1)), test("first"));
    ledger.begin_back(number, &first).await.unwrap();
    ledger.begin_back(number, &LedgerBack::new(at(3), None, test("second"))).await.unwrap();
    let there = ledger.back(number).await.unwrap().unwrap();
    assert_eq!((there.modified(), there.test.summary.as_str()), (Some(at(1)), "first"));
    // It is no deployment of its own.
    assert_eq!(ledger.history(9).await.unwrap().len(), 1);
    objects.insert("deployments/wine/00000002.back.json", "{}");
    assert!(ledger.back(2).await.is_err());
    assert_eq!(ledger.begin(&begin("b")).await.unwrap(), 3);
}
