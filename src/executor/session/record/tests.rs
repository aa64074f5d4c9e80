//! Records are written whole, read back, and refused when they are broken, of another session or of a newer program.

use super::*;
use crate::base::seal::SealKey;
use crate::protocol::keys::Token;
use crate::session::event::SessionEvent;
use crate::session::state::SessionState;

#[test]
fn a_record_is_kept_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (records, id) = (Records::open(dir.path()).unwrap(), SessionId::parse("gitlab-1-2-abcdef12").unwrap());
    assert_eq!(records.load(&id).unwrap(), None);
    let place = SessionPlace { token: Token::new([1; Token::BYTES]), key: SealKey::new([7; 32]) };
    for (place, version) in [(None, VERSION_WITHOUT_PLACE), (Some(place), VERSION)] {
        let record = SessionRecord { job_key: "k".into(), place, runs: 1, ..SessionRecord::default() };
        records.save(&id, &record).unwrap();
        let loaded = records.load(&id).unwrap().unwrap();
        assert_eq!(loaded, SessionRecord { version, session: id.to_string(), ..record });
    }
    assert_eq!(records.sessions().unwrap(), std::slice::from_ref(&id));
    // A stage that was killed leaves its packs, and a record that is half written.
    let left = records.staging(&id).unwrap();
    fs::create_dir(&left).unwrap();
    fs::write(records.file(&id, "Xy12.tmp"), "{").unwrap();
    records.remove(&id).unwrap();
    assert!(!left.exists());
    assert_eq!(fs::read_dir(&records.dir).unwrap().count(), 0);
    records.remove(&id).unwrap();
    assert!(records.sessions().unwrap().is_empty());
}

/// The next stage of the job may be one of the program before this one, or after it.
#[test]
fn the_table_of_nodes_stands_in_columns() {
    let text = r#"{"version": 1, "session": "gitlab-1-2-abcdef12", "job_key": "k", "orders": 4, "runs": 1,
        "reports": {"algo-1": 3, "algo-10": 2}, "told": ["algo-1"], "log_floors": {"x/algo-1-17": 5},
        "nodes": ["algo-1", "algo-2", "algo-3", "algo-4", "algo-5", "algo-6", "algo-7", "algo-8", "algo-9", "algo-10"],
        "ready": ["algo-1", "algo-10"], "left": ["algo-10"],
        "current": {"run": 1, "stage": "step_script", "script": "s", "reports": {"algo-1": 1}}}"#;
    let dir = tempfile::tempdir().unwrap();
    let (records, id) = (Records::open(dir.path()).unwrap(), SessionId::parse("gitlab-1-2-abcdef12").unwrap());
    fs::write(records.file(&id, "json"), text).unwrap();
    let record = records.load(&id).unwrap().unwrap();
    let mut state = SessionState::from(record.clone());
    assert_eq!(record.nodes.len(), 10);
    assert_eq!(state.leader(), NodeRecord { ready: true, left: false, told: true, reports: 3 });
    let last = NodeRecord { ready: true, left: true, told: false, reports: 2 };
    assert_eq!(record.nodes.get(NodeId::at(9)), Some(&last));
    assert_eq!(record.nodes.get(NodeId::at(1)), Some(&NodeRecord::default()));
    records.save(&id, &record).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&fs::read(records.file(&id, "json")).unwrap()).unwrap();
    let read: serde_json::Value = serde_json::from_str(text).unwrap();
    for (name, value) in read.as_object().unwrap().iter().filter(|(name, _)| *name != "current") {
        assert_eq!(written[name], *value, "{name}");
    }
    assert_eq!(written["current"]["reports"], read["current"]["reports"]);
    state.apply(SessionEvent::RunTakenOver);
    let reports = node_record::reports(state.nodes());
    assert_eq!(reports, record.current.unwrap().reports);
}

#[test]
fn one_stage_at_a_time_holds_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let (records, id) = (Records::open(dir.path()).unwrap(), SessionId::parse("gitlab-1-2-abcdef12").unwrap());
    let held = records.lock(&id).unwrap();
    assert!(held.is_some());
    assert!(records.lock(&id).unwrap().is_none());
    drop(held);
    assert!(records.lock(&id).unwrap().is_some());
}

#[test]
fn a_record_of_a_newer_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (records, id) = (Records::open(dir.path()).unwrap(), SessionId::parse("gitlab-1-2-abcdef12").unwrap());
    fs::write(records.file(&id, "json"), r#"{"version": 9, "session": "x", "job_key": "k"}"#).unwrap();
    assert!(records.load(&id).unwrap_err().to_string().contains("version 9"));
    // Also when its fields are others.
    fs::write(records.file(&id, "json"), r#"{"version": 9, "session": {"id": "x"}}"#).unwrap();
    assert!(records.load(&id).unwrap_err().to_string().contains("version 9"));
    fs::write(records.file(&id, "json"), "").unwrap();
    assert!(records.load(&id).unwrap_err().to_string().contains("is empty"));
}

/// A pass over all sessions must not end by a number that cannot be added to.
#[test]
fn a_record_with_impossible_numbers_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (records, id) = (Records::open(dir.path()).unwrap(), SessionId::parse("gitlab-1-2-abcdef12").unwrap());
    let bad = [
        SessionRecord { created: u64::MAX, ..SessionRecord::default() },
        SessionRecord { orders: u32::MAX, ..SessionRecord::default() },
        SessionRecord { job_number: u32::MAX, ..SessionRecord::default() },
        SessionRecord {
            nodes: Nodes::new(1, |_| NodeRecord { reports: u32::MAX, ..NodeRecord::default() }),
            ..SessionRecord::default()
        },
    ];
    for record in bad {
        records.save(&id, &record).unwrap();
        assert!(records.load(&id).unwrap_err().to_string().contains("numbers"), "{record:?}");
    }
}
