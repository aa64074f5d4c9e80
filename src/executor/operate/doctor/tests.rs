//! A sound installation, on which `doctor` finds nothing, and planted mistakes, of which it finds each in its own words.

mod planted;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use self::planted::{PLANTED, Planted};
use self::world::{CREATOR, JOB_ROLE, TRUST, World};
use super::report::{CHECKS, CheckVerdict, DoctorFinding};
use super::service::RunnerService;
use crate::cloud::KeySight;
use crate::cloud::testing::Fault;

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

fn of<'a>(findings: &'a [DoctorFinding], id: &str) -> &'a DoctorFinding {
    findings.iter().find(|finding| finding.id == id).unwrap()
}

/// The runner's unit, as systemd tells it, with these lines beside the user.
fn set_unit(world: &mut World, lines: &str) {
    world.outputs.insert("systemctl show", format!("LoadState=loaded\n{lines}\n"));
}

/// A file with variables of the service may set another `PATH`, or a proxy.
#[tokio::test]
async fn what_cannot_be_read_is_not_taken_for_empty() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::sound(folder.path());
    set_unit(&mut world, "User=gitlab-runner\nEnvironmentFiles=/etc/proxy.env (ignore_errors=no)");
    let findings = world.inspect().await;
    assert_eq!(of(&findings, "host.proxy").verdict, CheckVerdict::Ok, "an absent file sets nothing");
    world.unreadable.insert("/etc/proxy.env".into());
    world.programs.remove("git");
    let findings = world.inspect().await;
    for id in ["host.proxy", "host.git"] {
        let finding = of(&findings, id);
        assert_eq!(finding.verdict, CheckVerdict::Skipped, "{finding:?}");
        assert!(
            format!("{} {}", finding.subject, finding.text).contains("/etc/proxy.env (permission denied)"),
            "{finding:?}"
        );
    }
    assert!(of(&findings, "runner.program").text.contains("/etc/proxy.env"));
    set_unit(&mut world, "User=gitlab-runner\nEnvironmentFiles=/etc/env.d/*.env (ignore_errors=yes)");
    assert!(of(&world.inspect().await, "host.proxy").subject.contains("/etc/env.d/*.env"));
}

/// Users of a directory are not in `/etc/passwd`, and units may name a user by its number.
#[tokio::test]
async fn the_user_of_the_service_is_found_by_its_number_and_by_id() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::sound(folder.path());
    world.operator_owner = 1001;
    set_unit(&mut world, "User=1001");
    let findings = world.inspect().await;
    let (user, mode) = (of(&findings, "runner.user"), of(&findings, "operator.mode"));
    assert_eq!((user.verdict, mode.verdict), (CheckVerdict::Warning, CheckVerdict::Failure), "{user:?} {mode:?}");
    assert!(user.change.as_ref().unwrap().contains("sudo -u '#1001'"), "{user:?}");

    set_unit(&mut world, "User=of-ldap");
    let findings = world.inspect().await;
    let (user, mode) = (of(&findings, "runner.user"), of(&findings, "operator.mode"));
    assert_eq!((user.verdict, mode.verdict), (CheckVerdict::Skipped, CheckVerdict::Warning), "{user:?} {mode:?}");
    assert!(mode.text.contains("may be of-ldap"), "{mode:?}");

    world.outputs.insert("id -u", "1001\n".to_owned());
    let findings = world.inspect().await;
    let (user, mode) = (of(&findings, "runner.user"), of(&findings, "operator.mode"));
    assert_eq!((user.verdict, mode.verdict), (CheckVerdict::Warning, CheckVerdict::Failure), "{user:?} {mode:?}");
}

/// Values of the unit's variables are in no text for programmers.
#[tokio::test]
async fn variables_of_the_service_are_told_by_name_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::sound(folder.path());
    set_unit(&mut world, "User=gitlab-runner\nEnvironment=AWS_SECRET_ACCESS_KEY=hunter2");
    let text = format!("{:?}", RunnerService::ask(&world).await);
    assert!(text.contains("AWS_SECRET_ACCESS_KEY") && !text.contains("hunter2"), "{text}");
}

/// `docs/OPERATING.md` promises 10 seconds.
#[tokio::test(start_paused = true)]
async fn a_host_and_services_that_answer_late_keep_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::sound(folder.path());
    world.note_the_agent().await;
    world.is_slow = true;
    set_unit(&mut world, "User=of-ldap");
    let (late, never) = (Duration::from_millis(3900), Duration::from_hours(1));
    world.memory.account.plan([Fault::slow("arn", late), Fault::slow("denied", never), Fault::slow("find", late)]);
    let begun = Instant::now();
    let findings = world.inspect().await;
    assert!(begun.elapsed() <= Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(of(&findings, "host.metadata").verdict, CheckVerdict::Ok);
    assert_eq!(of(&findings, "aws.actions").verdict, CheckVerdict::Skipped);
}

/// A key of another account may be used, and its policy is that account's secret.
#[tokio::test]
async fn policies_of_keys_of_other_accounts_are_not_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::sound(folder.path());
    let key = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    world.in_operator("[storage]\n", &format!("[storage]\nkms_key_id = {key:?}\n"));
    let sight = KeySight { arn: key.to_owned(), state: "Enabled".to_owned(), is_symmetric: true };
    world.memory.account.change_settings(|settings| drop(settings.keys.insert(key.to_owned(), sight)));
    let findings = world.inspect().await;
    assert_eq!(of(&findings, "kms.key").verdict, CheckVerdict::Ok);
    let policy = of(&findings, "kms.policy");
    assert_eq!(policy.verdict, CheckVerdict::Skipped);
    assert!(policy.text.contains("111122223333"), "{policy:?}");
    assert!(!world.memory.account.calls().iter().any(|call| call.starts_with("key_policy")));
}

/// Conditions that nobody evaluates are told: the creator's trust, and the tags of its session.
#[tokio::test]
async fn a_trust_policy_with_unknown_conditions_is_not_taken_for_sound() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::sound(folder.path());
    world.in_operator("[aws]\n", &format!("[aws]\ncreator_role_arn = {CREATOR:?}\n"));
    let settings = crate::config::operator_file::parse(world.operator.as_ref().unwrap()).unwrap();
    let policies = crate::iam::policies(&settings).unwrap();
    let text = |file: &str| serde_json::to_string(&policies[file]).unwrap();
    world.memory.account.set_role(CREATOR, &text("creator-trust.json"));
    world.memory.account.set_role(JOB_ROLE, &text("training-job-trust.json"));
    let findings = world.inspect().await;
    for id in ["role.creator", "role.trust", "role.tags"] {
        assert_eq!(of(&findings, id).verdict, CheckVerdict::Ok, "generated: {:?}", of(&findings, id));
    }
    let trust = |principal: &str| {
        TRUST
            .replace("\"Service\":\"sagemaker.amazonaws.com\"", principal)
            .replace("\"Action\"", "\"Condition\":{\"StringEquals\":{\"aws:SourceVpce\":\"vpce-1\"}},\"Action\"")
    };
    world.memory.account.set_role(CREATOR, &trust("\"AWS\":\"210987654321\""));
    world.memory.account.set_role(JOB_ROLE, &trust("\"Service\":\"sagemaker.amazonaws.com\""));
    let findings = world.inspect().await;
    for id in ["role.creator", "role.trust", "role.tags"] {
        assert_eq!(of(&findings, id).verdict, CheckVerdict::Skipped, "{:?}", of(&findings, id));
    }
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
