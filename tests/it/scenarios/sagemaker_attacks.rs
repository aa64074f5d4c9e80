//! Attacks on a job by a container of another project, with calls that the role of training jobs has. The first attacker knows all
//! but the random part of the job's prefix; the second one knows that too, but not the session's key.
//!
//! `docs/THREAT-MODEL.md` names these tests.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use executor::base::node::NodeId;
use executor::base::seal::{Seal, SealKey};
use executor::protocol::keys::{SessionKeys, SessionPlace, Token};
use executor::protocol::mailbox::{self, ByeReason, ExitReport, Order, Report, RunOrder};
use executor::trace::FrameEncoder;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::sagemaker_desk::{BUILD_FAILURE, Desk, Ended, SYSTEM_FAILURE};
use crate::support::job::{Artifacts, Job};
use crate::support::proxy::{Hold, Proxy};
use crate::support::waiting::{pause, poll};

const PREFIX: &str = "sagemaker-executor";
const NODE: NodeId = NodeId::LEADER;
const FORGED: &str = "all tests passed";
/// What the stage says when it finds another writer's message under a number of its own.
const REFUSED: &str = "another writer";

fn job() -> Job {
    Job::new().script(["true"])
}

fn record(desk: &Desk) -> Value {
    let path = desk.root().join(format!("state/sessions/{}.json", desk.session.as_deref().unwrap()));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The attacker's keys: none, as in sessions of the version before, and one of its own.
fn seals() -> [Seal; 2] {
    [Seal::Absent, own_key()]
}

fn own_key() -> Seal {
    Seal::Keyed(SealKey::new([66; 32]))
}

/// What the second attacker knows of the session.
fn known(desk: &Desk, seal: Seal) -> SessionKeys {
    let token = record(desk)["place"]["token"].as_str().unwrap().to_owned();
    SessionKeys::new(format!("sessions/{}/{token}", desk.session.as_deref().unwrap()), seal)
}

/// What the first attacker may write to: the session's folder, with a token of its own or none.
fn beside(desk: &Desk, seal: Seal) -> SessionKeys {
    let place = SessionPlace { token: Token::new([0; Token::BYTES]), key: SealKey::new([66; 32]) };
    let id = desk.session.as_deref().unwrap();
    let keys = SessionKeys::of_session(id, (seal != Seal::Absent).then_some(&place));
    SessionKeys::new(keys.root(), seal)
}

fn put(desk: &Desk, key: &str, body: impl AsRef<[u8]>) {
    desk.emulator.put_object(&format!("{PREFIX}/{key}"), body.as_ref());
}

fn put_report(desk: &Desk, keys: &SessionKeys, seq: u32, report: &Report) {
    put(desk, &keys.report(NODE, seq), mailbox::encode_report(keys, NODE, seq, report));
}

fn exited(run: u32) -> Report {
    let exit = ExitReport {
        has_model: false,
        code: 0,
        bytes: 0,
        hash: String::new(),
        canceled: false,
        at: 1,
        ran: None,
        copy: Some(1),
    };
    Report::Exited { run, exit }
}

/// The reports of a job whose script succeeds.
fn green() -> [Report; 6] {
    [
        Report::Ready { agent: "0".into(), nodes: vec!["algo-1".into()], restarts: 0, after: 0, checkpoints: None },
        Report::Received { summary: "all".into() },
        Report::Started { run: 1, order: 0 },
        exited(1),
        Report::Collected { summary: String::new(), restarts: 0 },
        Report::Bye { reason: ByeReason::Finished },
    ]
}

/// The frames of a run that prints [`FORGED`] and succeeds.
fn frames(seal: &Seal) -> Vec<u8> {
    let (mut encoder, mut lines) = (FrameEncoder::new(1, seal.of_node(NODE)), Vec::new());
    encoder.encode(format!("{FORGED}\n").as_bytes(), &mut lines);
    encoder.end(0, &mut lines);
    lines
}

fn run_order(run: u32, script: &str) -> Order {
    Order::Run(RunOrder {
        run,
        stage: "step_script".into(),
        script: blake3::hash(script.as_bytes()).to_string(),
        masks: Vec::new(),
        mask_prefixes: Vec::new(),
        grace: 1,
        metrics: Vec::new(),
        live_copy: true,
        ..RunOrder::default()
    })
}

/// A script of the attacker; see [`nothing_ran`].
fn evil() -> String {
    format!("echo {FORGED}\n")
}

/// Every script's output is in the container's log.
#[track_caller]
fn nothing_ran(desk: &Desk) {
    assert!(!desk.emulator.log_text().contains(FORGED), "code of the attacker ran");
}

/// The stage fails as the system's failure that names another writer, and nothing forged is in its output.
#[track_caller]
fn is_refused(ended: &Ended) {
    ended.with_code(SYSTEM_FAILURE).one_error().says(REFUSED);
    assert!(!ended.out().contains(FORGED), "{ended}");
}

/// A job whose agent has not read anything yet: its first request waits for [`Proxy::settle`].
fn before_the_agent() -> (Desk, Proxy) {
    let desk = Desk::new(&job());
    let proxy = Proxy::start(&desk.emulator.endpoint);
    proxy.arm(Some((1, Hold::Before)));
    desk.edit_operator_file("[storage]", &format!("container_endpoint_url = \"{}\"\n[storage]", proxy.url));
    (desk.prepared(), proxy)
}

/// Waits until the bucket has an object whose key ends so.
#[track_caller]
fn until_stored(desk: &Desk, end: &str) {
    let stored = || desk.emulator.session_objects().iter().any(|key| key.ends_with(end)).then_some(());
    assert!(poll(Duration::from_mins(1), stored).is_some(), "{end} was never stored");
}

/// Runs `attack` while the victim's script runs; the stage must refuse it, and the script must not go on.
fn while_the_script_runs(seal: Seal, attack: impl Fn(&Desk, &SessionKeys)) {
    let desk = Desk::new(&job()).prepared();
    let mut run = desk.start_run("build_script", "echo running; sleep 300; echo whole");
    run.until("running");
    attack(&desk, &known(&desk, seal));
    is_refused(&run.end());
    nothing_ran(&desk);
    desk.close();
}

/// Runs `attack` after the driver has sent everything and before the agent reads it.
fn before_the_agent_reads(seal: Seal, attack: impl Fn(&Desk, &SessionKeys)) {
    let (desk, proxy) = before_the_agent();
    let run = desk.start_run("build_script", "echo victim");
    until_stored(&desk, "/orders/000002.json");
    attack(&desk, &known(&desk, seal));
    proxy.settle(true);
    is_refused(&run.end());
    nothing_ran(&desk);
    desk.close();
}

fn next_report(desk: &Desk) -> u32 {
    let reports = desk.emulator.session_objects().iter().filter(|key| key.contains("/reports/")).count();
    u32::try_from(reports).unwrap() + 1
}

fn next_order(desk: &Desk) -> u32 {
    u32::try_from(record(desk)["orders"].as_u64().unwrap()).unwrap() + 1
}

#[test]
fn all_reports_of_a_green_job_before_the_agent_boots() {
    for seal in seals() {
        let (desk, proxy) = before_the_agent();
        let keys = known(&desk, seal);
        (1..).zip(green()).for_each(|(seq, report)| put_report(&desk, &keys, seq, &report));
        put(&desk, &keys.trace(NODE, 1, 0), frames(keys.seal()));
        let ended = desk.run("build_script", "echo ran; exit 1");
        is_refused(&ended);
        proxy.settle(true);
        assert_eq!(ended.out(), "");
        desk.close();
    }
}

#[test]
fn a_report_that_the_script_succeeded() {
    for seal in seals() {
        while_the_script_runs(seal, |desk, keys| put_report(desk, keys, next_report(desk), &exited(1)));
    }
}

/// A report, and an order, of the session itself under another number.
#[test]
fn a_message_of_the_session_under_another_number() {
    while_the_script_runs(own_key(), |desk, keys| {
        let own = desk.emulator.get_object(&format!("{PREFIX}/{}", keys.report(NODE, 1))).unwrap();
        put(desk, &keys.report(NODE, next_report(desk)), &own);
    });
    before_the_agent_reads(own_key(), |desk, keys| {
        let own = desk.emulator.get_object(&format!("{PREFIX}/{}", keys.order(1))).unwrap();
        put(desk, &keys.order(2), &own);
    });
}

#[test]
fn an_order_with_a_script_of_the_attacker() {
    while_the_script_runs(own_key(), |desk, keys| {
        let (seq, script) = (next_order(desk), evil());
        put(desk, &keys.script(77), &script);
        put(desk, &keys.order(seq), mailbox::encode_order(keys, seq, &run_order(77, &script)));
    });
    before_the_agent_reads(own_key(), |desk, keys| {
        let script = evil();
        put(desk, &keys.script(1), &script);
        put(desk, &keys.order(2), mailbox::encode_order(keys, 2, &run_order(1, &script)));
    });
}

#[test]
fn a_cancel() {
    while_the_script_runs(own_key(), |desk, keys| {
        let seq = next_order(desk);
        put(desk, &keys.order(seq), mailbox::encode_order(keys, seq, &Order::Cancel { run: 1 }));
    });
}

#[test]
fn a_malformed_order_and_one_that_is_too_large() {
    let bodies = ["{}".to_owned(), "x".repeat((64 << 20) + 1)];
    for body in bodies {
        while_the_script_runs(own_key(), |desk, keys| put(desk, &keys.order(next_order(desk)), &body));
    }
}

#[test]
fn a_script_in_place_of_the_jobs() {
    before_the_agent_reads(own_key(), |desk, keys| put(desk, &keys.script(1), evil()));
}

/// Whoever makes the agent take a key of its own may write orders and reports.
#[test]
fn a_key_in_place_of_the_sessions() {
    let (desk, proxy) = before_the_agent();
    let keys = known(&desk, Seal::Absent);
    put(&desk, &keys.open(), json!({"version": 2, "key": "42".repeat(32)}).to_string());
    proxy.settle(true);
    let ended = desk.run("build_script", "echo victim");
    ended.with_code(SYSTEM_FAILURE).one_error().says("holds another key than the training job was created with");
    assert_eq!(ended.out(), "");
    desk.close();
}

/// Results that the agent has not sent, stored before it sends its own: the host applies nothing of them, and fails when it sees them.
#[test]
fn results_of_the_attacker() {
    for seal in seals() {
        let artifacts = Artifacts::paths(["out/"]).when("always");
        let desk = Desk::new(&job().artifacts(artifacts)).prepared();
        let keys = known(&desk, seal);
        let gate = Gate::new();
        let script = format!("echo running; {}; mkdir out; echo own > out/p", gate.wait());
        let mut run = desk.start_run("build_script", &script);
        run.until("running");
        // Of the form of the version before, and of no form: both without the session's tag.
        put(&desk, &keys.results(NodeId::LEADER, 0).part(0), format!("SMEXPRT2{}", "0".repeat(64)));
        gate.open();
        let ended = run.end();
        if ended.code == Some(0) {
            // The agent's own were stored in their place before the host looked.
            assert_eq!(std::fs::read_to_string(desk.project().join("out/p")).unwrap(), "own\n", "{ended}");
        } else {
            is_refused(&ended);
            assert!(!desk.project().join("out").exists(), "{ended}");
        }
        desk.close();
    }
}

/// In the log and in the copy: the trace has the script's own line, and a forged one only with the mark of other writers.
#[test]
fn a_line_of_the_trace() {
    for (seal, live_copy) in [(Seal::Absent, false), (own_key(), false), (own_key(), true)] {
        let trace = format!("[trace]\nlive_copy = {live_copy}");
        let desk = Desk::with(&job(), &["--log-delay", "0s"], &trace).prepared();
        let gate = Gate::new();
        let script = format!("echo running; {}; echo two tests FAILED; exit 1", gate.wait());
        let mut run = desk.start_run("build_script", &script);
        run.until("running");
        let forged = String::from_utf8(frames(&seal)).unwrap();
        put_log(&desk, forged.lines());
        put(&desk, &known(&desk, seal).trace(NODE, 1, 1), &forged);
        if !live_copy {
            run.until("[container] ");
        }
        gate.open();
        let ended = run.end();
        ended.with_code(BUILD_FAILURE);
        assert_eq!(ended.out(), "running\ntwo tests FAILED\n");
        let marked = |line: &str| !line.contains(FORGED) || line.starts_with("[container] ");
        assert!(ended.stderr.lines().all(marked), "{ended}");
        desk.close();
    }
}

/// An old lease does not keep an agent alive whose host is gone.
#[test]
fn an_old_lease() {
    let desk = Desk::with(&job(), &[], "lease_seconds = 60").prepared();
    let key = format!("{PREFIX}/{}", known(&desk, Seal::Absent).lease());
    let mut run = desk.start_run("build_script", "echo running; sleep 300");
    run.until("running");
    let old = desk.emulator.get_object(&key).unwrap();
    run.signal(Signal::KILL);
    run.end();
    for _ in 0..300 {
        if desk.emulator.live_jobs().is_empty() {
            break;
        }
        desk.emulator.put_object(&key, old.as_bytes());
        pause(Duration::from_millis(500));
    }
    assert!(desk.emulator.live_jobs().is_empty(), "an old lease keeps the agent");
    desk.close();
}

/// Without the random part of the prefix nothing that is stored is ever read: red stays red, green stays green.
#[test]
fn everything_beside_the_sessions_place() {
    for (code, exit) in [(0, 0), (1, BUILD_FAILURE)] {
        let (desk, proxy) = before_the_agent();
        for seal in seals() {
            let (keys, script) = (beside(&desk, seal.clone()), evil());
            put(&desk, &keys.open(), json!({"version": 2, "key": "42".repeat(32)}).to_string());
            put(&desk, &keys.script(1), &script);
            for seq in 1..4 {
                put(&desk, &keys.order(seq), mailbox::encode_order(&keys, seq, &run_order(seq, &script)));
            }
            (1..).zip(green()).for_each(|(seq, report)| put_report(&desk, &keys, seq, &report));
            put(&desk, &keys.trace(NODE, 1, 0), frames(&seal));
            put(&desk, &keys.results(NodeId::LEADER, 0).part(0), "x");
        }
        proxy.settle(true);
        let ended = desk.run("build_script", &format!("echo own; exit {code}"));
        ended.with_code(exit);
        assert_eq!(ended.out(), "own\n");
        nothing_ran(&desk);
        desk.close();
    }
}

/// A `cleanup` that lost its record looks for the session's place: only the one that the training job was created with counts.
#[test]
fn a_place_for_a_cleanup_without_a_record() {
    let desk = Desk::new(&job()).prepared();
    let mut run = desk.start_run("build_script", "echo running; sleep 300");
    run.until("running");
    run.signal(Signal::KILL);
    run.end();
    let keys = beside(&desk, Seal::Keyed(SealKey::new([66; 32])));
    put(&desk, &keys.open(), json!({"version": 2, "key": "42".repeat(32)}).to_string());
    (1..).zip(green()).for_each(|(seq, report)| put_report(&desk, &keys, seq, &report));
    for number in [known(&desk, Seal::Absent).order(u32::MAX), keys.order(u32::MAX)] {
        put(&desk, &number, "x");
    }
    std::fs::remove_dir_all(desk.root().join("state/sessions")).unwrap();
    desk.cleanup().passed().hides("panicked");
    assert!(desk.emulator.live_jobs().is_empty());
    desk.is_left_clean();
}

/// What holds secrets is gone before the script has done anything.
#[test]
fn scripts_and_orders_are_deleted_once_they_are_read() {
    let desk = Desk::new(&job()).prepared();
    let gate = Gate::new();
    let mut run = desk.start_run("build_script", &format!("echo running; {}", gate.wait()));
    run.until("running");
    let gone = || {
        let objects = desk.emulator.session_objects();
        objects.iter().all(|key| !key.contains("/scripts/") && !key.contains("/orders/")).then_some(())
    };
    assert!(poll(Duration::from_mins(1), gone).is_some(), "{:?}", desk.emulator.session_objects());
    gate.open();
    run.end().passed();
    desk.close();
}

/// Batches of the copy without end: a `cleanup` that prints the rest of the output ends all the same.
#[test]
fn more_batches_than_can_be_read() {
    let desk = Desk::new(&job()).prepared();
    let mut run = desk.start_run("build_script", "echo running; sleep 300");
    run.until("running");
    run.signal(Signal::KILL);
    run.end();
    let keys = known(&desk, Seal::Absent);
    for batch in 1..300 {
        put(&desk, &keys.trace(NODE, 1, batch), "x");
    }
    let before = desk.emulator.requests("GetObject");
    desk.cleanup().passed();
    let read = desk.emulator.requests("GetObject") - before;
    assert!(read < 250, "{read} reads");
    desk.is_left_clean();
}

/// No variable of the job chooses its session, its agent's key, or where its messages are.
#[test]
fn variables_of_the_job() {
    let other = format!("sessions/gitlab-231-1-00000000/{}", "0".repeat(32));
    for name in ["ROOT", "KEY_HASH", "BUCKET"] {
        let mut desk = Desk::new(&job());
        desk.set(&format!("SAGEMAKER_ENV_SAGEMAKER_EXECUTOR_{name}"), &other);
        desk.config().passed();
        desk.prepare().with_code(BUILD_FAILURE).one_error().says("does not end in a usable variable name");
        desk.close();
    }
    let mut desk = Desk::new(&job());
    for (name, value) in [
        ("SAGEMAKER_EXECUTOR_ROOT", other.as_str()),
        ("SAGEMAKER_EXECUTOR_KEY_HASH", "00"),
        ("SAGEMAKER_EXECUTOR_SESSION", "gitlab-231-1-00000000"),
        ("CI_JOB_ID", "1"),
    ] {
        desk.set(name, value);
    }
    let desk = desk.prepared();
    let environment = desk.training_job()["Environment"].clone();
    assert_eq!(environment["SAGEMAKER_EXECUTOR_ROOT"], known(&desk, Seal::Absent).root());
    let key: SealKey = serde_json::from_value(record(&desk)["place"]["key"].clone()).unwrap();
    assert_eq!(environment["SAGEMAKER_EXECUTOR_KEY_HASH"], key.commitment().as_str());
    desk.run("build_script", "echo own").passed();
    desk.close();
}

/// Holds a script until the test lets it go on.
struct Gate(TcpListener);

impl Gate {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// Shell lines that wait.
    fn wait(&self) -> String {
        format!("read -r _ < /dev/tcp/{}", self.0.local_addr().unwrap().to_string().replace(':', "/"))
    }

    fn open(self) {
        self.0.accept().unwrap().0.write_all(b"\n").unwrap();
    }
}

/// `PutLogEvents` for the stream of the victim's container, once it is there.
fn put_log<'l>(desk: &Desk, lines: impl Iterator<Item = &'l str>) {
    const GROUP: &str = "/aws/sagemaker/TrainingJobs";
    let stream = poll(Duration::from_mins(1), || {
        let groups = desk.emulator.call("Logs_20140328.DescribeLogGroups", &json!({"logGroupNamePrefix": GROUP}));
        groups["logGroups"].as_array().filter(|groups| !groups.is_empty())?;
        let streams = desk.emulator.call("Logs_20140328.DescribeLogStreams", &json!({"logGroupName": GROUP}));
        streams["logStreams"][0]["logStreamName"].as_str().map(str::to_owned)
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let events: Vec<_> = lines.map(|line| json!({"timestamp": u64::try_from(now).unwrap(), "message": line})).collect();
    let batch = json!({"logGroupName": GROUP, "logStreamName": stream.unwrap(), "logEvents": events});
    desk.emulator.call("Logs_20140328.PutLogEvents", &batch);
}
