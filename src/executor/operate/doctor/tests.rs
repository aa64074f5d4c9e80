//! A sound installation, on which `doctor` finds nothing, and planted mistakes, of which it finds each in its own words.

mod planted;
mod world;

use std::collections::BTreeSet;

use self::planted::PLANTED;
use self::world::World;
use super::report::{CHECKS, CheckVerdict, DoctorFinding};

/// Checks that no row plants: a program on loopback does, in the tests of the whole program.
const ELSEWHERE: [&str; 2] = ["bucket.region", "job.run"];

fn asking(findings: &[DoctorFinding]) -> Vec<&DoctorFinding> {
    findings.iter().filter(|finding| finding.asks_for_a_change()).collect()
}

#[tokio::test]
async fn a_sound_installation_has_no_finding_and_each_planted_mistake_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let sound = World::sound(folder.path());
    let agent = sound.note_the_agent().await;
    let findings = sound.inspect().await;
    assert!(asking(&findings).is_empty(), "{:#?}", asking(&findings));
    let skipped: Vec<_> = findings.iter().filter(|finding| finding.verdict == CheckVerdict::Skipped).collect();
    assert!(skipped.is_empty(), "{skipped:#?}");
    for planted in PLANTED {
        let mut world = World { agent: agent.clone(), ..World::sound(folder.path()) };
        (planted.plant)(&mut world);
        let findings = world.inspect().await;
        let asking = asking(&findings);
        let found = asking.iter().find(|finding| finding.id == planted.id);
        let found = found.unwrap_or_else(|| panic!("{}: {asking:#?}", planted.name));
        assert_eq!(found.verdict, planted.verdict, "{}: {found:#?}", planted.name);
        let told = format!("{} {} {}", found.subject, found.text, found.change.as_deref().unwrap_or_default());
        for word in planted.words {
            assert!(told.contains(word), "{}: no `{word}` in: {told}", planted.name);
        }
        let others: Vec<_> = asking.iter().filter(|finding| finding.id != planted.id).collect();
        assert!(others.is_empty(), "{}: {others:#?}", planted.name);
        assert!(found.row.as_ref().unwrap().contains(planted.id));
    }
}

#[test]
fn every_check_is_planted() {
    assert!(PLANTED.len() >= 40, "{}", PLANTED.len());
    let names: BTreeSet<_> = PLANTED.iter().map(|planted| planted.name).collect();
    assert_eq!(names.len(), PLANTED.len());
    let planted: BTreeSet<_> = PLANTED.iter().map(|planted| planted.id).chain(ELSEWHERE).collect();
    let missing: Vec<_> = CHECKS.iter().filter(|id| !planted.contains(*id)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Without the operator's file, or without credentials, the checks that need them say so.
#[tokio::test]
async fn checks_that_others_stand_in_the_way_of_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::sound(folder.path());
    world.operator = None;
    let findings = world.inspect().await;
    let agent = findings.iter().find(|finding| finding.id == "agent.stored").unwrap();
    assert_eq!((agent.verdict, agent.text.contains("`operator.file`")), (CheckVerdict::Skipped, true));
    assert!(world.memory.made().is_empty());
}

/// No check writes: the fakes record each call.
#[tokio::test]
async fn nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::sound(folder.path());
    world.note_the_agent().await;
    let before = world.memory.objects.keys();
    world.inspect().await;
    assert_eq!(world.memory.objects.keys(), before);
    let calls = [world.memory.objects.calls(), world.memory.account.calls()].concat();
    let writes = ["put", "delete", "create", "add_tag"];
    let written: Vec<_> = calls.iter().filter(|call| writes.iter().any(|write| call.starts_with(write))).collect();
    assert_eq!(written.len(), 3, "the agent that the test stored itself: {written:?}");
}
