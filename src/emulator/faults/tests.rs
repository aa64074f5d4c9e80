//! Tests of fault plans.

use super::*;

fn plan(json: &str) -> FaultPlan {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_call_is_hit_by_its_number() {
    let faults = Faults::new(
        plan(r#"{"calls": [{"operation": "PutObject", "from": 2, "count": 1, "error": "SlowDown", "status": 503}]}"#),
        1,
    );
    let hits: Vec<bool> = (0..3).map(|_| faults.call("PutObject", "/b/k").is_some()).collect();
    assert_eq!(hits, [false, true, false]);
    assert_eq!(faults.call("GetObject", "/b/k"), None);
}

#[test]
fn a_rule_with_a_path_counts_the_calls_of_the_path() {
    let json = r#"{"calls": [{"operation": "GetObject", "path": "/packs/", "from": 2, "error": "SlowDown"}]}"#;
    let faults = Faults::new(plan(json), 1);
    let hits = ["/b/packs/1", "/b/orders/1", "/b/packs/2", "/b/orders/2"];
    assert_eq!(hits.map(|path| faults.call("GetObject", path).is_some()), [false, false, true, false]);
    assert_eq!(faults.call("PutObject", "/b/packs/3"), None);
}

#[test]
fn capacity_returns_after_the_planned_jobs() {
    let faults =
        Faults::new(plan(r#"{"jobs": [{"instance_type": "ml.g5.xlarge", "count": 1, "trouble": "capacity"}]}"#), 1);
    assert_eq!(faults.job("ml.m5.large", false), None);
    assert_eq!(faults.job("ml.g5.xlarge", true), None);
    assert_eq!(faults.job("ml.g5.xlarge", false), Some(JobTrouble::Capacity));
    assert_eq!(faults.job("ml.g5.xlarge", false), None);
}

#[test]
fn interruptions_come_at_random_times_that_the_seed_decides() {
    let json = r#"{"jobs": [{"trouble": {"spot_interruption": {"after_ms": 100, "spread_ms": 900}}}]}"#;
    let times = |seed| -> Vec<u64> {
        let faults = Faults::new(plan(json), seed);
        let next = || match faults.job("ml.m5.large", false) {
            Some(JobTrouble::SpotInterruption { after_ms, .. }) => after_ms,
            other => panic!("{other:?}"),
        };
        (0..10).map(|_| next()).collect()
    };
    assert_eq!(times(1), times(1));
    assert_ne!(times(1), times(2));
    assert!(times(1).iter().all(|time| (100..1000).contains(time)), "{:?}", times(1));
}

#[test]
fn events_are_lost_doubled_and_reordered_by_plan() {
    let events = |texts: &[&str]| -> Vec<InputLogEvent> {
        texts
            .iter()
            .zip(1..)
            .map(|(text, timestamp)| InputLogEvent { timestamp, message: (*text).to_owned() })
            .collect()
    };
    let faults = Faults::new(plan(r#"{"logs": {"lost": 1000}}"#), 1);
    assert_eq!(faults.events(events(&["a"])).events, []);
    faults.set(plan(r#"{"logs": {"doubled": 1000}}"#));
    assert_eq!(faults.events(events(&["a"])).events.len(), 2);
    faults.set(plan(r#"{"logs": {"shuffled": 1000, "late": 1000, "late_ms": 7}}"#));
    let batch = faults.events(events(&["a", "b"]));
    assert_eq!(batch.events, events(&["b", "a"]));
    assert_eq!(batch.late, Duration::from_millis(7));
}

#[test]
fn a_misspelt_key_is_refused() {
    assert!(serde_json::from_str::<FaultPlan>(r#"{"call": []}"#).is_err());
}

#[test]
fn a_share_of_the_calls_is_hit_as_the_seed_decides() {
    let json = r#"{"calls": [{"operation": "*", "share": 300, "error": "ThrottlingException"}]}"#;
    let hits = |seed| -> Vec<bool> {
        let faults = Faults::new(plan(json), seed);
        (0..1000).map(|_| faults.call("PutObject", "/b/k").is_some()).collect()
    };
    assert_eq!(hits(1), hits(1));
    assert_ne!(hits(1), hits(2));
    let number = hits(1).into_iter().filter(|hit| *hit).count();
    assert!((250..350).contains(&number), "{number} of 1000");
}

#[test]
fn a_call_that_a_share_leaves_out_meets_the_next_rule() {
    let json = r#"{"calls": [{"operation": "*", "share": 0, "error": "A"}, {"operation": "*", "error": "B"}]}"#;
    let hit = Faults::new(plan(json), 1).call("PutObject", "/b/k").unwrap();
    assert_eq!(hit.error.as_deref(), Some("B"));
}
