//! Properties of texts that others write, for any bytes: the payload, the operator's file, the variables of a job, the messages of the
//! mailbox, and records. What can be read is written and read again as the same; a refusal says something that a person can change.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::OnceLock;

use executor::base::failure::render;
use executor::base::node::NodeId;
use executor::base::seal::{Seal, SealKey};
use executor::config::env::Environment;
use executor::config::job_variables::JobVariables;
use executor::config::operator_file;
use executor::config::policy::{self, Decision, JobIdentity};
use executor::config::settings::Settings;
use executor::gitlab::JobContext;
use executor::iam;
use executor::protocol::keys::SessionKeys;
use executor::protocol::mailbox::{self, MailboxError};
use executor::session::SessionId;
use executor::session::record::{Records, SessionRecord};
use executor::session::state::SessionState;

use super::choices::Choices;

/// Longest text of a refusal whose input may have any length, in bytes.
const LONGEST_REFUSAL: usize = 2000;

/// The payload is read, or the refusal names a place in it and repeats nothing of it. `true` when it was read.
pub(super) fn payload(data: &[u8]) -> bool {
    let job = match JobContext::parse(data) {
        Ok(job) => job,
        Err(error) => {
            let text = render(&error);
            assert!(text.len() < LONGEST_REFUSAL && text.contains("has an unexpected form (line "), "{text}");
            return false;
        }
    };
    let masked = job.masked_values(|name| Some(name.to_owned()));
    assert!(masked.is_sorted() && masked.iter().all(|value| !value.is_empty()));
    assert!(job.token.is_empty() || masked.contains(&job.token), "the job's token is shown");
    for variable in job.variables.iter().filter(|variable| variable.masked && !variable.value.is_empty()) {
        assert!(masked.contains(&variable.value), "a masked value is shown");
    }
    let id = SessionId::derive(&job, "attempt");
    assert_eq!(SessionId::parse(id.as_str()), Some(id), "the id of a session is not one");
    let identity = JobIdentity::of(&job);
    let _ = (identity.is_protected(), job.needs_helper(), job.container_stages());
    assert!(job.container_stages().len() <= job.steps.len());
    // Any job has a decision or a refusal of the operator's rules.
    if let Ok(decision) = policy::decide(&job, &JobVariables::default(), bounded()) {
        is_bounded(&decision);
    }
    true
}

/// The operator's file is read, or the refusal names a line or a key. A file that is accepted has policies, or a reason why not.
pub(super) fn operator(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let settings = match operator_file::parse(&text) {
        Ok(settings) => settings,
        Err(failure) => {
            let text = render(&failure.into());
            assert!(text.contains("line ") || text.contains('`'), "{text}");
            return false;
        }
    };
    let of_default = policy::of_default(&settings);
    assert!(of_default.rule.is_none());
    for rule in &settings.rules {
        assert_eq!(policy::of_rule(rule, &settings).rule.as_ref(), Some(&rule.name));
    }
    if let Ok(policies) = iam::policies(&settings) {
        for policy in policies.values() {
            serde_json::from_str::<serde_json::Value>(&iam::file_text(policy).expect("a policy is JSON"))
                .expect("JSON");
        }
    }
    true
}

/// Bounds of every job of these properties.
const OPERATOR: &str = r#"
[storage]
bucket = "ci"
[job]
role_arn = "arn:aws:iam::000000000000:role/ci"
image = "000000000000.dkr.ecr.eu-west-1.amazonaws.com/base:1"
instance_type = "ml.m5.large"
max_runtime_seconds = 3600
[prices]
"ml.m5.large" = 0.2
"ml.m5.xlarge" = 0.4
"ml.g5.xlarge" = 2.0
[[rules]]
name = "all"
[rules.allow]
instance_types = ["ml.m5.*", "ml.g5.xlarge"]
max_instance_count = 4
max_volume_size_gb = 200
max_runtime_seconds = 7200
max_cost = 20.0
roles = ["arn:aws:iam::000000000000:role/ci", "arn:aws:iam::000000000000:role/other"]
environment = ["CI_*", "HF_*"]
spot = "allow"
checkpoints = "allow"
network_isolation = "allow"
remote_debug = "refuse"
max_retries = 2
max_keep_alive_seconds = 600
max_queue_timeout_seconds = 1200
max_keep_on_failure_seconds = 300
training_plans = ["arn:aws:sagemaker:eu-west-1:000000000000:training-plan/team-*"]
inputs = ["s3://data/public/**"]
model_outputs = ["s3://models/team/**"]
"#;

fn bounded() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| operator_file::parse(OPERATOR).expect("the operator's file of these properties is right"))
}

/// The decision is within the rule, whatever the job asks for.
fn is_bounded(decision: &Decision) {
    assert_eq!(decision.rule.as_deref(), Some("all"));
    assert!((1..=10).contains(&decision.instance_types.len()), "{:?}", decision.instance_types);
    for name in &decision.instance_types {
        assert!(name.starts_with("ml.m5.") || name == "ml.g5.xlarge", "{name}");
    }
    assert!((1..=4).contains(&decision.instance_count), "{}", decision.instance_count);
    let in_groups: u32 = decision.instance_groups.iter().map(|group| group.count).sum();
    assert!(decision.instance_groups.is_empty() || in_groups == decision.instance_count);
    assert!((1..=200).contains(&decision.volume_size_gb), "{}", decision.volume_size_gb);
    assert!((1..=7200).contains(&decision.max_runtime), "{}", decision.max_runtime);
    assert!(["role/ci", "role/other"].iter().any(|name| decision.role_arn.ends_with(name)), "{}", decision.role_arn);
    let capacity = &decision.capacity;
    assert!(capacity.retries <= 2 && capacity.keep_alive <= 600 && capacity.queue_timeout <= 1200, "{capacity:?}");
    assert!(capacity.spot_max_wait.is_none_or(|wait| wait >= decision.max_runtime), "{capacity:?}");
    let team = "arn:aws:sagemaker:eu-west-1:000000000000:training-plan/team-";
    assert!(capacity.training_plan.as_ref().is_none_or(|plan| plan.starts_with(team)), "{capacity:?}");
    assert!(!decision.debug.remote && decision.debug.keep_on_failure <= 300, "{:?}", decision.debug);
    for name in decision.environment.keys() {
        assert!(name.starts_with("CI_") || name.starts_with("HF_"), "{name}");
    }
    for input in &decision.data.inputs {
        let uri = format!("{:?}", input.channel.source);
        assert!(uri.contains("s3://data/public/"), "{uri}");
    }
    let output = decision.data.model_output.as_ref();
    assert!(output.is_none_or(|output| output.folder.starts_with("s3://models/team/")), "{output:?}");
    let seconds = u32::try_from(decision.max_runtime + capacity.keep_alive).expect("within the bounds above");
    let hours = f64::from(seconds) / 3600.0;
    let least = 0.2 * f64::from(decision.instance_count) * hours;
    assert!(least <= 20.0 + 1e-9, "{least}");
}

/// Variables of a job, a line each: a decision within the rule, or a refusal that says what to change.
pub(super) fn variables(data: &[u8]) -> bool {
    let lines = data.split(|byte| *byte == b'\n').filter(|line| !line.contains(&0));
    let pairs = lines.filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b'=')?;
        let name = [b"CUSTOM_ENV_".as_slice(), line.get(..at)?].concat();
        Some((OsString::from_vec(name), OsString::from_vec(line.get(at + 1..)?.to_vec())))
    });
    let env = Environment::from_pairs(pairs);
    for (unknown, nearest) in env.unknown_wishes() {
        assert!(unknown != nearest, "{unknown} is known");
    }
    let payload =
        br#"{"id": 2, "token": "t", "job_info": {"project_id": 1}, "steps": [{"name": "script", "script": ["x"]}]}"#;
    let job = JobContext::parse(payload).expect("the payload of these properties is right");
    let decided = env.job_variables().and_then(|wishes| policy::decide(&job, &wishes, bounded()));
    match decided {
        Ok(decision) => {
            is_bounded(&decision);
            true
        }
        Err(failure) => {
            let text = render(&failure.into());
            assert!(text.contains('`'), "{text}");
            false
        }
    }
}

/// Orders, reports and leases of any writer: without the session's key none is taken; with it, what is read is written and read again
/// as the same, and a changed byte makes it a stranger's.
pub(super) fn messages(data: &[u8]) -> bool {
    let mut choices = Choices(data);
    let (kind, seq, place) = (choices.byte(), u32::from(choices.byte()), choices.byte());
    let text = choices.0;
    let keyed = SessionKeys::new("sessions/s", Seal::Keyed(SealKey::new([7; 32])));
    let open = SessionKeys::new("sessions/s", Seal::Absent);
    let node = NodeId::LEADER;
    let is_forged = |error: &MailboxError| matches!(error, MailboxError::Forged(_) | MailboxError::TooLarge(_));
    assert!(mailbox::decode_order(&keyed, seq, text).is_err_and(|error| is_forged(&error)));
    assert!(mailbox::decode_report(&keyed, node, seq, text).is_err_and(|error| is_forged(&error)));
    assert!(mailbox::decode_lease(&keyed, text).is_none());
    let damaged = |mut sealed: Vec<u8>| {
        let at = usize::from(place) * sealed.len() / 256;
        // A hash is written with letters of either case.
        if let Some(byte) = sealed.get_mut(at) {
            *byte ^= if at < 64 { 1 } else { 0x21 };
        }
        sealed
    };
    match kind % 3 {
        0 => {
            let Ok(order) = mailbox::decode_order(&open, seq, text) else { return false };
            for keys in [&open, &keyed] {
                let written = mailbox::encode_order(keys, seq, &order);
                assert!(mailbox::decode_order(keys, seq, &written).is_ok_and(|again| again == order), "another order");
                let next = seq.wrapping_add(1);
                assert!(mailbox::decode_order(keys, next, &written).is_err(), "the order of another number");
            }
            let written = damaged(mailbox::encode_order(&keyed, seq, &order));
            assert!(mailbox::decode_order(&keyed, seq, &written).is_err(), "a changed order");
        }
        1 => {
            let Ok(report) = mailbox::decode_report(&open, node, seq, text) else { return false };
            for keys in [&open, &keyed] {
                let written = mailbox::encode_report(keys, node, seq, &report);
                assert_eq!(mailbox::decode_report(keys, node, seq, &written).as_ref(), Ok(&report));
            }
            let written = damaged(mailbox::encode_report(&keyed, node, seq, &report));
            assert!(mailbox::decode_report(&keyed, node, seq, &written).is_err(), "a changed report");
        }
        _ => {
            let Some(beat) = mailbox::decode_lease(&open, text) else { return false };
            assert_eq!(mailbox::decode_lease(&keyed, &mailbox::encode_lease(&keyed, beat)), Some(beat));
        }
    }
    true
}

/// The record of a session that any program has left: read, or refused with its path and without its content, which holds the session's
/// key. What is read is written and read again as the same.
pub(super) fn record(data: &[u8]) -> bool {
    thread_local!(static DIR: tempfile::TempDir = tempfile::tempdir().expect("a temporary directory"));
    DIR.with(|dir| {
        let records = Records::open(dir.path()).expect("the directory is new");
        let id = SessionId::parse("gitlab-1-2-abcdef12").expect("an id");
        let path = dir.path().join(format!("sessions/{id}.json"));
        std::fs::write(&path, data).expect("the directory can be written");
        let found = match records.load(&id) {
            Ok(Some(found)) => found,
            Ok(None) => unreachable!("the file is there"),
            Err(error) => {
                let text = render(&error);
                assert!(text.contains("sessions/gitlab-1-2-abcdef12.json") && text.len() < LONGEST_REFUSAL, "{text}");
                return false;
            }
        };
        records.save(&id, &found).expect("the directory can be written");
        let again = records.load(&id).expect("a saved record is readable").expect("it was saved");
        let expected = SessionRecord { version: again.version, session: id.to_string(), ..found };
        assert_eq!(again, expected);
        let state = SessionState::from(again);
        let _ = (state.any_ready(), state.all_left(), state.is_isolated(), state.run(), state.results());
        true
    })
}
