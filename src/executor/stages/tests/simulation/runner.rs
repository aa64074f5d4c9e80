//! Plays GitLab Runner: calls the stages in order, kills their processes as planned, and continues as the runner would.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::agent::age;
use super::judge;
use super::plan::{Cancel, Kill, Moment, Plan, Stage, Then};
use super::world::{LOOK, Left, World, sagemaker};
use super::{Trail, Verdict};
use crate::base::failure::{Kind, kind_of, render};
use crate::base::plain;
use crate::cloud::testing::Memory;
use crate::cloud::{ObjectStore as _, Sha256Hash, StoredHash};
use crate::protocol::keys;
use crate::session::close::{self, Patience};
use crate::session::stamp::Stamp;
use crate::session::{Session, agent_delivery, left_over};
use crate::stages::tests::StageHarness;
use crate::stages::{cleanup, prepare, run};
use crate::ui::Printer;

/// Longer than every session.
const LONGEST: Duration = Duration::from_hours(12);
/// Time between cleanup and sweep: SageMaker reports all ends within it.
const UNTIL_SWEEP: Duration = Duration::from_mins(15);
/// Most sweeps until nothing is left: the first may have to stop a job, and the next sees its end.
const SWEEPS: usize = 3;

/// A shell that cannot be started, because a process takes real time: host stages are played up to its start.
const NO_SHELL: &str = "/no\0shell";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Script(i32),
    Canceled,
    /// Failed in another way.
    Lost,
    Killed,
}

/// One process of the host.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) stage: &'static str,
    pub(super) outcome: Outcome,
    pub(super) why: String,
    /// To stdout.
    pub(super) printed: Vec<u8>,
}

struct Runner<'p> {
    plan: &'p Plan,
    harness: StageHarness,
    world: Arc<World>,
    kills: VecDeque<Kill>,
    calls: Vec<Called>,
}

pub(super) async fn play(plan: &Plan) -> (Trail, Verdict) {
    let harness = harness(plan).await;
    let folder = keys::session_folder(harness.id().as_str());
    let lease = harness.context().settings.lease();
    let world = World::new(plan, harness.memory.clone(), folder, harness.dir.path().join("container"), lease);
    let clock = harness.clock.clone();
    let mut runner =
        Runner { plan, harness, world: world.clone(), kills: plan.kills.iter().copied().collect(), calls: Vec::new() };
    let jumps = async {
        if let Some((after, hours)) = plan.jump {
            sleep(after).await;
            let by = Duration::from_hours(hours.unsigned_abs());
            clock.jump(|day| if hours < 0 { day - by } else { day + by });
        }
        std::future::pending::<()>().await;
    };
    let verdict = tokio::select! {
        biased;
        verdict = tokio::time::timeout(LONGEST, runner.session()) => verdict.unwrap_or_else(|_| Err("it does not end".to_owned())),
        () = sagemaker(world.clone(), plan) => unreachable!(),
        () = jumps => unreachable!(),
    };
    let verdict = verdict.map(|()| runner.calls.iter().filter(|call| call.outcome == Outcome::Killed).count());
    let (id, place) = (runner.harness.id().to_string(), runner.harness.dir.path().display().to_string());
    let told = |line: String| plain::lines(&line.replace(&place, "DIR")).replace(&id, "ID");
    let trail = world.trail().into_iter().map(told).collect();
    (trail, verdict)
}

/// A host with a project, and a bucket that has the agent already, because hashing and uploading this program takes
/// longer than the rest.
async fn harness(plan: &Plan) -> StageHarness {
    static AGENT: OnceLock<(Vec<u8>, BTreeMap<String, Sha256Hash>)> = OnceLock::new();
    let mut steps = vec![serde_json::json!({"name": "script", "script": ["train"]})];
    if plan.has_after_script {
        steps.push(serde_json::json!({"name": "after_script", "script": ["after"]}));
    }
    let mut harness = StageHarness::with_steps(&steps.into());
    harness.variables.insert("SAGEMAKER_INSTANCE_TYPE", "ml.m5.large,ml.m5.xlarge".to_owned());
    harness.variables.insert("SAGEMAKER_INSTANCE_COUNT", plan.nodes.to_string());
    let project = harness.host().project;
    let code = project.join("train.py");
    std::fs::write(&code, "print('training')\n").unwrap();
    age([code, project]);

    let settings = harness.context().settings;
    let note = settings.runner.state_dir.join("agent.json");
    if AGENT.get().is_none() {
        let objects = Memory::new().objects;
        let (printer, until) = (Printer::captured().0, Instant::now() + LONGEST);
        agent_delivery::deliver_until(&*objects, &settings, &printer, until).await.unwrap();
        let mut files = BTreeMap::new();
        for key in objects.keys() {
            let StoredHash::Known(hash) = objects.stored_hash(&key).await.unwrap() else { unreachable!("{key}") };
            files.insert(key, hash);
        }
        drop(AGENT.set((std::fs::read(&note).unwrap(), files)));
    }
    let (text, files) = AGENT.get().unwrap();
    std::fs::write(note, text).unwrap();
    for (key, hash) in files {
        harness.memory.objects.insert_as(key, *hash);
    }
    harness
}

impl Runner<'_> {
    async fn session(&mut self) -> Result<(), String> {
        let project = self.harness.host().project;
        self.job().await;
        // GitLab Runner calls `cleanup` once; after a killed one another job or an operator cleans up.
        self.stage(Stage::Cleanup, "cleanup").await;
        judge::judge(self.plan, &self.world, &self.calls, &project)?;
        self.world.calm_down();
        sleep(UNTIL_SWEEP).await;
        for _ in 0..SWEEPS {
            if !self.sweep().await {
                break;
            }
            sleep(UNTIL_SWEEP).await;
        }
        let sessions: Vec<_> = self.harness.records().sessions().unwrap().iter().map(ToString::to_string).collect();
        let slots = self.harness.dir.path().join("state/slots/1");
        let slots =
            std::fs::read_dir(slots).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "lock").count();
        judge::judge_end(&self.world, &sessions, slots)
    }

    /// Calls all stages before `cleanup`.
    async fn job(&mut self) {
        let Some(Outcome::Done) = self.stage(Stage::Prepare, "prepare").await else { return };
        if self.stage(Stage::Host, "get_sources").await.is_none() {
            return;
        }
        let Some(script) = self.stage(Stage::Container, "build_script").await else { return };
        if self.plan.has_after_script && self.stage(Stage::AfterScript, "after_script").await.is_none() {
            return;
        }
        let upload = match script {
            Outcome::Done => "upload_artifacts_on_success",
            _ => "upload_artifacts_on_failure",
        };
        if self.stage(Stage::Host, upload).await.is_some() {
            self.stage(Stage::Host, "cleanup_file_variables").await;
        }
    }

    /// Calls a stage until it ends or the runner goes on without it; `None` when `cleanup` comes next.
    async fn stage(&mut self, stage: Stage, name: &'static str) -> Option<Outcome> {
        loop {
            // Without results to download, a host stage calls no port.
            let is_due = |kill: &Kill| kill.stage == stage && name != "get_sources";
            let kill = self.kills.iter().position(is_due).and_then(|index| self.kills.remove(index));
            let cancel = self.plan.cancel.filter(|cancel| cancel.stage == stage);
            let outcome = self.process(name, kill.map(|kill| kill.at), cancel).await;
            sleep(self.plan.gap).await;
            if outcome != Outcome::Killed {
                return Some(outcome);
            }
            match kill.map(|kill| kill.then) {
                Some(Then::Again) => {}
                // After a failed `prepare` there is no next stage.
                Some(Then::Next) if stage != Stage::Prepare => return Some(outcome),
                _ => return None,
            }
        }
    }

    async fn process(&mut self, stage: &'static str, kill: Option<Moment>, cancel: Option<Cancel>) -> Outcome {
        let (printer, captured) = Printer::captured();
        self.harness.printer = printer;
        let (mut context, world) = (self.harness.context(), self.world.clone());
        if stage != "prepare" {
            NO_SHELL.clone_into(&mut context.settings.runner.shell);
        }
        let cancellation = context.cancellation.clone();
        let is_after_script = stage == "after_script";
        let script = self.harness.script(if is_after_script { "after\n" } else { "train\n" });
        world.note(&format!("begin {stage}"));
        world.begin_process(match kill {
            Some(Moment::Call(moments)) => Some(Left { moments, writes_alone: false }),
            Some(Moment::Write(moments)) => Some(Left { moments, writes_alone: true }),
            Some(Moment::Time(_) | Moment::Report(..)) | None => None,
        });
        let work = async {
            match stage {
                "prepare" => prepare::run(context).await,
                "cleanup" => cleanup::run(context).await,
                _ => run::run(context, &script, stage).await,
            }
        };
        let signals = async {
            if let Some(cancel) = cancel {
                sleep(cancel.after).await;
                cancellation.raise();
                if cancel.twice {
                    sleep(Duration::from_secs(5)).await;
                    cancellation.raise();
                }
            }
            std::future::pending::<()>().await;
        };
        let killed = async {
            match kill {
                Some(Moment::Time(time)) => sleep(time).await,
                Some(Moment::Report(reports, after)) => {
                    while world.reports() < reports {
                        sleep(LOOK).await;
                    }
                    sleep(after).await;
                }
                Some(Moment::Call(_) | Moment::Write(_)) | None => world.killed().await,
            }
        };
        let ended = {
            // Boxed because the future is large.
            let (work, signals, killed) = (Box::pin(work), pin!(signals), pin!(killed));
            tokio::select! {
                biased;
                () = killed => None,
                () = signals => None,
                ended = work => Some(ended),
            }
        };
        world.end_process();
        // The process's threads end before virtual time advances.
        sleep(Duration::from_millis(1)).await;
        self.wait_for_locks();
        let (outcome, why) = match ended {
            None => (Outcome::Killed, String::new()),
            Some(Ok(())) if cancellation.asked() && stage != "cleanup" => (Outcome::Canceled, String::new()),
            Some(Ok(())) => (Outcome::Done, String::new()),
            Some(Err(error)) => failed(&error),
        };
        self.world.note(&format!("end {stage} {outcome:?} {why}"));
        for line in captured.text().lines() {
            // A transfer's duration is real time, and its compression depends on the timing of threads.
            let line = if line.contains(" sent) in ") || line.contains(" received) in ") {
                line.split(" (").next().unwrap_or_default()
            } else {
                line
            };
            self.world.note(&format!("      {line}"));
        }
        let output = captured.data();
        self.world.note(&format!("      {} bytes of output", output.len()));
        self.calls.push(Called { stage, outcome, why, printed: output });
        outcome
    }

    /// Waits until the dead process's locks are free: a child that another test is just starting inherits its files for
    /// a moment.
    fn wait_for_locks(&self) {
        let (records, id) = (self.harness.records(), self.harness.id());
        while matches!(records.load(&id), Ok(Some(_))) && records.claim(&id).unwrap().is_none() {
            std::thread::yield_now();
        }
    }

    /// Does the work of `sagemaker-executor sweep`; `false` when there was nothing to do.
    async fn sweep(&mut self) -> bool {
        self.wait_for_locks();
        let (printer, _) = Printer::captured();
        self.harness.printer = printer;
        let (context, records) = (self.harness.context(), self.harness.records());
        self.world.note("sweep");
        self.world.begin_process(None);
        let now = Stamp::of(&*self.harness.clock);
        let sessions = records.sessions().unwrap();
        let is_needed = !sessions.is_empty();
        for id in sessions {
            let Some(left) = left_over::of(&records, &id, Duration::ZERO, &now).unwrap() else { continue };
            let (jobs, objects) = (self.harness.memory.jobs.clone(), self.harness.memory.objects.clone());
            let session = Session::to_close(id, jobs, objects, context.host());
            let closed = close::close(session, Patience::Long).await;
            self.world.note(&format!("swept: {:?}", closed.map_err(|error| format!("{error:#}"))));
            drop(left);
        }
        self.world.end_process();
        is_needed
    }
}

fn failed(error: &anyhow::Error) -> (Outcome, String) {
    let why = render(error);
    let outcome = match kind_of(error) {
        Kind::Script { code } => Outcome::Script(code),
        Kind::Canceled => Outcome::Canceled,
        // The host stage has done everything up to the start of its script.
        _ if why.contains(NO_SHELL) => Outcome::Done,
        Kind::User | Kind::System | Kind::Verdict { .. } => Outcome::Lost,
    };
    (outcome, why)
}
