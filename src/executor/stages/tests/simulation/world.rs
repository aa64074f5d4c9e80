//! Plays the world outside the host: SageMaker, which creates, advances and ends training jobs, and the faults of calls
//! to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::agent::Agent;
use super::plan::{Dice, Interruption, Leaving, Plan, Trouble};
use crate::base::node::NodeId;
use crate::cloud::testing::{FaultDecision, Memory, Watch, When};
use crate::cloud::{CloudErrorKind, JobStatus, SecondaryStatus};

/// Poll interval of SageMaker and of the agents.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// Record of everything that happened, whether or not the host knows it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Number of interruptions.
    pub(super) interruptions: u32,
    /// Number of times each script began, by node and text.
    pub(super) begun: BTreeMap<(NodeId, Vec<u8>), u32>,
    /// Output and end of each run.
    pub(super) runs: BTreeMap<(u32, NodeId), Written>,
    /// Moments at which more than one training job was alive.
    pub(super) crowds: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    pub(super) ended: Option<Ended>,
    pub(super) is_after_script: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) canceled: bool,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) memory: Memory,
    /// Key prefix of all of the session's objects.
    pub(super) folder: String,
    pub(super) container: PathBuf,
    pub(super) lease: Duration,
    ledger: Mutex<Ledger>,
    calls: Mutex<Calls>,
    killed: Notify,
    created: Notify,
    trouble: Option<Trouble>,
    started: Instant,
}

/// Number of call moments until a process is killed, of all calls or only of those that change something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pub(super) moments: u64,
    pub(super) writes_alone: bool,
}

#[derive(Debug)]
struct Calls {
    dice: Dice,
    /// Call moments until the kill.
    left: Option<Left>,
    /// Number of reports of all agents.
    reports: u64,
    /// No more faults.
    is_quiet: bool,
    is_interrupted: bool,
    /// No process of the host is alive.
    dead: bool,
    trail: Vec<String>,
}

impl World {
    pub(super) fn new(plan: &Plan, memory: Memory, folder: String, container: PathBuf, lease: Duration) -> Arc<Self> {
        let calls = Calls {
            dice: Dice::new(plan.seed ^ 0xca11),
            left: None,
            reports: 0,
            is_quiet: false,
            is_interrupted: false,
            dead: false,
            trail: Vec::new(),
        };
        let world = Arc::new(Self {
            memory,
            folder,
            container,
            lease,
            ledger: Mutex::default(),
            calls: Mutex::new(calls),
            killed: Notify::new(),
            created: Notify::new(),
            trouble: plan.trouble,
            started: Instant::now(),
        });
        world.memory.jobs.watch(Arc::new(Arc::downgrade(&world)));
        world.memory.objects.watch(Arc::new(Arc::downgrade(&world)));
        world
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock()
    }

    /// Begins a process of the host, to be killed at this moment of its calls.
    pub(super) fn begin_process(&self, killed_at: Option<Left>) {
        let mut calls = self.calls();
        (calls.left, calls.dead) = (killed_at, false);
    }

    /// Ends the process: none of its calls takes effect any more.
    pub(super) fn end_process(&self) {
        self.calls().dead = true;
    }

    pub(super) async fn killed(&self) {
        self.killed.notified().await;
    }

    /// The agents are told that their instances are taken away.
    pub(super) fn is_interrupted(&self) -> bool {
        self.calls().is_interrupted
    }

    pub(super) fn reported(&self) {
        self.calls().reports += 1;
    }

    pub(super) fn reports(&self) -> u64 {
        self.calls().reports
    }

    /// Ends all faults.
    pub(super) fn calm_down(&self) {
        self.calls().is_quiet = true;
    }

    pub(super) fn note(&self, text: &str) {
        let at = self.started.elapsed().as_millis();
        self.calls().trail.push(format!("{at:>9} {text}"));
    }

    pub(super) fn trail(&self) -> Vec<String> {
        self.calls().trail.clone()
    }

    /// Status of the training job, without a call.
    pub(super) fn status(&self, job: &str) -> Option<JobStatus> {
        let mut status = None;
        self.memory.jobs.change(job, |job| status = Some(job.status));
        status
    }

    /// Stores an object of a container, if the container still exists.
    pub(super) fn store(&self, job: &str, key: &str, body: Vec<u8>) {
        if self.status(job).is_some_and(|status| !status.is_terminal()) {
            self.memory.objects.insert(key, body);
        }
    }

    pub(super) fn alive(&self) -> Vec<String> {
        let mut names = self.memory.jobs.names();
        names.retain(|name| self.status(name).is_some_and(|status| !status.is_terminal()));
        names
    }
}

impl Watch for Weak<World> {
    fn look(&self, method: &'static str, thing: &str, when: When) -> FaultDecision {
        self.upgrade().map_or(FaultDecision::Passes, |world| world.look(method, thing, when))
    }
}

impl World {
    fn look(&self, method: &'static str, thing: &str, when: When) -> FaultDecision {
        let at = self.started.elapsed();
        let mut calls = self.calls();
        if calls.dead {
            return FaultDecision::Hangs;
        }
        if method == "create" && when == When::After {
            self.created.notify_one();
        }
        let is_write = ["create", "stop", "put", "put_if_absent", "delete"].contains(&method);
        if let Some(left) = calls.left.as_mut().filter(|left| is_write || !left.writes_alone) {
            left.moments -= 1;
            if left.moments == 0 {
                calls.dead = true;
                calls.trail.push(format!("{:>9} killed {when:?} {method} {thing}", at.as_millis()));
                self.killed.notify_one();
                return FaultDecision::Hangs;
            }
        }
        let verdict = self.trouble.filter(|_| !calls.is_quiet).map_or(FaultDecision::Passes, |trouble| {
            let is_away = trouble.away.is_some_and(|(from, takes)| at >= from && at < from + takes);
            let is_of_store = !["create", "describe", "tags", "stop"].contains(&method);
            if is_away && is_of_store {
                FaultDecision::Fails(CloudErrorKind::Transient)
            } else if calls.dice.one_in(trouble.one_in) {
                FaultDecision::Fails(if when == When::Before {
                    CloudErrorKind::Throttled
                } else {
                    CloudErrorKind::Transient
                })
            } else {
                FaultDecision::Passes
            }
        });
        if when == When::Before || verdict != FaultDecision::Passes {
            calls.trail.push(format!("{:>9} {method} {thing} {verdict:?}", at.as_millis()));
        }
        verdict
    }
}

/// Plays SageMaker: starts a task for each new training job.
pub(super) async fn sagemaker(world: Arc<World>, plan: &Plan) {
    let (mut known, mut lives) = (BTreeSet::new(), JoinSet::new());
    loop {
        for name in world.memory.jobs.names() {
            if !known.insert(name.clone()) {
                continue;
            }
            world.memory.jobs.hide(&name, plan.hidden);
            let alive = world.alive();
            if alive.len() > 1 {
                world.ledger().crowds.push(alive.join(", "));
            }
            let has_capacity = known.len() > usize::try_from(plan.without_capacity).unwrap();
            lives.spawn(Life::new(world.clone(), name, plan, has_capacity).live());
        }
        tokio::select! {
            () = world.created.notified() => {}
            Some(ended) = lives.join_next() => ended.unwrap(),
        }
    }
}

/// The life of one training job.
struct Life {
    world: Arc<World>,
    job: String,
    provisioning: Duration,
    has_capacity: bool,
    plan: Plan,
}

/// The end of one start of the containers.
enum Ending {
    Left(Leaving),
    Interrupted(Interruption),
    /// `false`: a container has failed.
    Ended(bool),
}

impl Life {
    fn new(world: Arc<World>, job: String, plan: &Plan, has_capacity: bool) -> Self {
        Self { world, job, provisioning: plan.provisioning, has_capacity, plan: plan.clone() }
    }

    fn is_asked_to_stop(&self) -> bool {
        self.world.status(&self.job) != Some(JobStatus::InProgress)
    }

    /// Changes the status, unless the job has ended.
    fn becomes(&self, status: JobStatus, secondary: SecondaryStatus, reason: Option<&str>) {
        if self.world.status(&self.job).is_some_and(|status| !status.is_terminal()) {
            self.world.memory.jobs.set_status(&self.job, status, secondary);
            self.world.memory.jobs.change(&self.job, |job| job.failure_reason = reason.map(str::to_owned));
            self.world.note(&format!("{} is {status:?}", self.job));
        }
    }

    /// Waits for the instances; `false` when the job is to stop before.
    async fn provision(&self) -> bool {
        let until = Instant::now() + self.provisioning;
        while Instant::now() < until && !self.is_asked_to_stop() {
            sleep(LOOK).await;
        }
        let is_asked = self.is_asked_to_stop();
        if is_asked {
            sleep(LOOK * 4).await;
            self.becomes(JobStatus::Stopped, SecondaryStatus::Stopped, None);
        }
        !is_asked
    }

    async fn live(self) {
        if !self.provision().await {
            return;
        }
        if !self.has_capacity {
            let reason = "CapacityError: Unable to provision requested ML compute capacity.";
            return self.becomes(JobStatus::Failed, SecondaryStatus::Failed, Some(reason));
        }
        let leaves = async {
            match self.plan.leaves {
                Some((after, leaving)) => {
                    sleep(after).await;
                    leaving
                }
                None => std::future::pending().await,
            }
        };
        let mut leaves = pin!(leaves);
        let mut interruptions = self.plan.interruptions.iter().copied();
        loop {
            self.becomes(JobStatus::InProgress, SecondaryStatus::Training, None);
            let agents =
                (0..self.plan.nodes).map(|index| Agent::new(&self.world, &self.job, NodeId::at(index), &self.plan));
            let agents = agents.collect::<Option<Vec<_>>>();
            let has_agents = agents.is_some();
            let mut work: JoinSet<bool> = agents.into_iter().flatten().map(Agent::work).collect();
            let next = interruptions.next();
            let interrupted = async {
                match next {
                    Some(interruption) => {
                        sleep(interruption.after).await;
                        interruption
                    }
                    None => std::future::pending().await,
                }
            };
            let ending = tokio::select! {
                leaving = &mut leaves => Ending::Left(leaving),
                interruption = interrupted => Ending::Interrupted(interruption),
                succeeded = all(&mut work) => Ending::Ended(has_agents && succeeded),
            };
            match ending {
                Ending::Interrupted(Interruption { is_told, .. }) => {
                    self.world.ledger().interruptions += 1;
                    self.world.note(&format!("{} is interrupted", self.job));
                    if is_told {
                        self.world.calls().is_interrupted = true;
                        all(&mut work).await;
                        self.world.calls().is_interrupted = false;
                    }
                    drop(work);
                    if !self.provision().await {
                        return;
                    }
                }
                Ending::Left(Leaving::Killed) => {
                    drop(work);
                    let reason = "AlgorithmError: Exit code: 137";
                    return self.becomes(JobStatus::Failed, SecondaryStatus::Failed, Some(reason));
                }
                Ending::Left(Leaving::InstanceLost) => {
                    drop(work);
                    let reason = "InternalServerError: We encountered an internal error. Please try again.";
                    return self.becomes(JobStatus::Failed, SecondaryStatus::Failed, Some(reason));
                }
                Ending::Left(Leaving::Stopped) => {
                    self.becomes(JobStatus::Stopping, SecondaryStatus::Stopping, None);
                    all(&mut work).await;
                    return self.becomes(JobStatus::Stopped, SecondaryStatus::MaxRuntimeExceeded, None);
                }
                Ending::Ended(succeeded) => {
                    let is_stopped = self.is_asked_to_stop();
                    sleep(self.provisioning / 2).await;
                    return if is_stopped {
                        self.becomes(JobStatus::Stopped, SecondaryStatus::Stopped, None);
                    } else if succeeded {
                        self.becomes(JobStatus::Completed, SecondaryStatus::Completed, None);
                    } else {
                        let reason = "AlgorithmError: the container was started again, exit code: 1";
                        self.becomes(JobStatus::Failed, SecondaryStatus::Failed, Some(reason));
                    };
                }
            }
        }
    }
}

/// Waits for all agents; `false` when one has failed.
async fn all(work: &mut JoinSet<bool>) -> bool {
    let mut succeeded = true;
    while let Some(ended) = work.join_next().await {
        succeeded &= ended.unwrap_or(true);
    }
    succeeded
}
