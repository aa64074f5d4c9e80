//! A sound installation, on which `doctor` finds nothing, and planted mistakes, of which it finds each in its own words.

mod planted;
mod world;

use std::collections::BTreeSet;

use self::planted::{PLANTED, Planted};
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
    let mut wrong = Vec::new();
    for planted in PLANTED {
        let mut world = World { agent: agent.clone(), ..World::sound(folder.path()) };
        (planted.plant)(&mut world);
        if let Err(why) = judge(planted, &world.inspect().await) {
            wrong.push(format!("{}: {why}", planted.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The finding is told in its words, with its row, and nothing else is.
fn judge(planted: &Planted, findings: &[DoctorFinding]) -> Result<(), String> {
    let asking = asking(findings);
    let found =
        asking.iter().find(|finding| finding.id == planted.id).ok_or_else(|| format!("not told: {asking:#?}"))?;
    let told = format!("{} {} {}", found.subject, found.text, found.change.as_deref().unwrap_or_default());
    if found.verdict != planted.verdict {
        return Err(format!("{:?}: {told}", found.verdict));
    }
    if let Some(word) = planted.words.iter().find(|word| !told.contains(**word)) {
        return Err(format!("no `{word}` in: {told}"));
    }
    let others: Vec<_> = asking.iter().filter(|finding| finding.id != planted.id).collect();
    let has_row = found.row.as_ref().is_some_and(|row| row.contains(planted.id));
    if others.is_empty() && has_row { Ok(()) } else { Err(format!("besides: {others:#?}")) }
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
