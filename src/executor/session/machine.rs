//! State machine of one run on all nodes. Pure.
//!
//! Takes [`RunEvent`]s: the nodes' reports, the state of the training job, the completeness of each trace, a cancel.
//! Returns [[`RunEffect`]]s. No I/O and no clock: the time since the stage began is a parameter.

use std::time::Duration;

use crate::base::node::{NodeId, Nodes};
use crate::cloud::{JobStatus, SecondaryStatus, TrainingJob};
use crate::protocol::mailbox::{ByeReason, ExitReport, Report};
use crate::session::failure_reasons::{self, Diagnosis, LossKind};

/// Wait for output that is known to exist, after its end was reported and while nothing more of it arrives.
const DRAIN: Duration = Duration::from_mins(1);
/// Wait for a node's exit report once its output is complete: it follows at once, and only it tells whether the script
/// was ended from outside.
const EXIT_REPORT: Duration = Duration::from_secs(10);
/// Wait for the output of scripts whose exit is known, after the training job has ended.
const LAST_OUTPUT: Duration = Duration::from_secs(20);
/// Wait for an agent's last reports after the training job has ended. They were stored before, so the next poll finds
/// them.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// Time that SageMaker may not show a job after its creation before it counts as gone: a new job may not be visible at
/// once.
const ABSENT: Duration = Duration::from_secs(30);
/// Time that the other nodes may run on after one has failed: usually they are blocked on the failed node, and each is billed.
const AFTER_A_FAILURE: Duration = Duration::from_mins(1);
/// Time beyond its own grace that a canceled script may take before the training job is stopped.
const CANCEL_SLACK: Duration = Duration::from_secs(30);

/// How soon a canceled stage must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CancelUrgency {
    /// SIGTERM from the runner: the script gets its grace.
    Graceful,
    /// A second signal, or a cleanup of this session: leave at once.
    Immediate,
}

#[derive(Debug)]
pub enum RunEvent<'a> {
    Report {
        node: NodeId,
        report: &'a Report,
    },
    /// `None`: SageMaker knows no such job.
    Job(Option<&'a TrainingJob>),
    /// The end frame of a node's output has arrived; `complete` tells whether every byte before it has too.
    Trace {
        node: NodeId,
        end: Option<(i32, u64)>,
        complete: bool,
    },
    /// State of a node before this stage began: its agent was ready, or had left.
    Known {
        node: NodeId,
        is_ready: bool,
        has_left: bool,
    },
    /// Some of a node's output arrived: the wait for missing bytes starts anew.
    Progress {
        node: NodeId,
    },
    /// The order to end the script was sent before this stage began.
    CancelSent,
    Cancel(CancelUrgency),
    /// Every report that was stored before the order to end the script was sent has been read.
    ReadSinceCancel,
    /// The mailbox could not be read just now: reports may be there.
    Unheard,
    Tick,
}

/// Action for the caller to perform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEffect {
    /// Order the agents to end the script.
    SendCancel,
    StopJob,
    Conclude(Conclusion),
}

/// How a container stage ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// The script has ended on every node; `code` and `node` are of the one that failed first, `others` failed later,
    /// in this order.
    Exited { code: i32, node: NodeId, others: Vec<(NodeId, i32)>, incomplete: Vec<NodeId> },
    /// Canceled, and the script has ended or never began.
    Canceled { code: Option<i32> },
    /// Canceled while no agent was up: no script began, and none will, because the training job is stopped.
    NeverBegan,
    /// The training job ended, or never started, without the script's exit.
    Lost { reason: String, by: LossKind },
    /// SageMaker started the container again before the script had ended on every node: the script must run again.
    Interrupted,
}

/// State of the run on one node.
#[derive(Debug, Default)]
struct NodeRun {
    ready: bool,
    started: bool,
    exit: Option<ExitReport>,
    /// Exit code and size of the output of a script that has failed, and whose container is kept.
    kept: Option<(i32, u64)>,
    exited_at: Option<Duration>,
    /// When output of the node last arrived.
    progress_at: Option<Duration>,
    end: Option<(i32, u64)>,
    complete: bool,
    bye: Option<ByeReason>,
}

/// One run of one script on all nodes.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each says that one thing has happened; none excludes another")]
pub struct RunMachine {
    config: RunConfig,
    nodes: Nodes<NodeRun>,
    job: Option<TrainingJob>,
    job_ended_at: Option<Duration>,
    absent_since: Option<Duration>,
    cancel: Option<CancelUrgency>,
    canceled_at: Option<Duration>,
    read_since_cancel: bool,
    /// When the mailbox last could not be read.
    unheard_at: Option<Duration>,
    stop_sent: bool,
    /// The nodes that went on after another one failed were ordered to end.
    rest_ended: bool,
    /// The container was started again after the script had begun on a node.
    restarted: bool,
    failures: Vec<(String, LossKind)>,
    concluded: bool,
}

/// Constants of a run.
#[derive(Debug, Clone, Copy)]
pub struct RunConfig {
    pub run: u32,
    /// Number of nodes that run the script.
    pub nodes: usize,
    /// Time between SIGTERM and SIGKILL in the container.
    pub grace: Duration,
    /// Longest wait for the first report.
    pub provisioning: Duration,
    /// The script may run again after an interruption.
    pub may_rerun: bool,
    /// Reports may be known only after the training job has ended: the container has no network, and the log is slow or lossy.
    pub reports_are_late: bool,
}

impl RunMachine {
    pub fn new(config: RunConfig) -> Self {
        Self {
            config,
            nodes: Nodes::new(config.nodes, |_| NodeRun::default()),
            job: None,
            job_ended_at: None,
            absent_since: None,
            cancel: None,
            canceled_at: None,
            read_since_cancel: false,
            unheard_at: None,
            stop_sent: false,
            rest_ended: false,
            restarted: false,
            failures: Vec::new(),
            concluded: false,
        }
    }

    /// The training job has ended, as far as is known.
    pub fn job_has_ended(&self) -> bool {
        self.job_ended_at.is_some()
    }

    /// Time since the training job was seen to have ended.
    pub fn ended_for(&self, now: Duration) -> Duration {
        self.job_ended_at.map_or(Duration::ZERO, |at| now.saturating_sub(at))
    }

    /// SageMaker reports that the container itself failed: its output may say why.
    pub fn container_failed(&self) -> bool {
        let reason = self.job.as_ref().and_then(|job| job.failure_reason.as_deref());
        reason.is_some_and(failure_reasons::container_ran)
    }

    /// At least one agent has left.
    pub fn is_leaving(&self) -> bool {
        self.nodes.rows().any(|node| node.bye.is_some())
    }

    pub fn is_ready(&self) -> bool {
        self.nodes.rows().all(|node| node.ready)
    }

    /// The script has begun on every node.
    pub fn all_started(&self) -> bool {
        self.nodes.rows().all(|node| node.started)
    }

    /// The script has ended on at least one node, as far as is known.
    pub fn any_ended(&self) -> bool {
        self.nodes.rows().any(|node| node.exit.is_some() || node.end.is_some())
    }

    pub fn is_canceled(&self) -> bool {
        self.cancel.is_some()
    }

    pub fn apply(&mut self, event: &RunEvent<'_>, now: Duration) -> Vec<RunEffect> {
        if self.concluded {
            return Vec::new();
        }
        let mut effects = Vec::new();
        match event {
            RunEvent::Report { node, report } => self.report(*node, report, now),
            RunEvent::Job(job) => self.job(*job, now),
            RunEvent::Trace { node, end, complete } => self.nodes.change(*node, |node| {
                (node.end, node.complete) = (end.or(node.end), *complete);
                if end.is_some() {
                    node.exited_at.get_or_insert(now);
                }
            }),
            // These alone change no decision.
            RunEvent::Known { node, is_ready, has_left } => {
                let bye = has_left.then_some(ByeReason::Other);
                self.nodes.change(*node, |node| (node.ready, node.bye) = (*is_ready, bye));
                return effects;
            }
            RunEvent::Progress { node } => {
                self.nodes.change(*node, |node| node.progress_at = Some(now));
                return effects;
            }
            RunEvent::Unheard => {
                self.unheard_at = Some(now);
                return effects;
            }
            RunEvent::CancelSent => {
                (self.cancel, self.canceled_at) = (Some(CancelUrgency::Graceful), Some(now));
                return effects;
            }
            RunEvent::Cancel(reason) => self.cancel(*reason, now, &mut effects),
            RunEvent::ReadSinceCancel => self.read_since_cancel = self.cancel.is_some(),
            RunEvent::Tick => {}
        }
        let conclusion = self.conclusion(now, &mut effects);
        // The reports of all nodes have been read.
        let turn_is_over = matches!(event, RunEvent::Tick);
        if let Some(conclusion) = conclusion.or_else(|| self.interrupted().filter(|_| turn_is_over)) {
            self.concluded = true;
            effects.push(RunEffect::Conclude(conclusion));
        }
        effects
    }

    fn report(&mut self, id: NodeId, report: &Report, now: Duration) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        match report {
            Report::Ready { .. } => {
                self.restarted |= node.started;
                (node.ready, node.bye) = (true, None);
                if !node.started {
                    // An agent that was stopped before has reported that the script never began.
                    (node.exit, node.exited_at) = (None, None);
                } else if let (None, Some((code, bytes))) = (&node.exit, node.kept) {
                    // Interrupted while it was kept: the script had ended.
                    node.exit = Some(ExitReport { code, bytes, ..ExitReport::default() });
                    (node.end, node.exited_at) = (node.end.or(node.kept), node.exited_at.or(Some(now)));
                }
            }
            Report::Kept { run, code, bytes, .. } if *run == self.config.run => node.kept = Some((*code, *bytes)),
            Report::Started { run, .. } if *run == self.config.run => node.started = true,
            Report::Exited { run, exit } if *run == self.config.run => {
                node.exit = Some(exit.clone());
                node.exited_at.get_or_insert(now);
            }
            Report::Damaged { pack, chunk } => {
                let reason = format!("{id}: the chunk {chunk} of the project, in the pack {pack}, is damaged");
                self.failures.push((reason, LossKind::System));
            }
            Report::Failed { order, reason, by_job } => {
                let by = if *by_job { LossKind::User } else { LossKind::System };
                self.failures.push((format!("{id}: {order}: {reason}"), by));
            }
            Report::Bye { reason } => node.bye = Some(*reason),
            Report::Received { .. }
            | Report::Missing { .. }
            | Report::Kept { .. }
            | Report::Collected { .. }
            | Report::Unsent { .. }
            | Report::Started { .. }
            | Report::Exited { .. } => {}
        }
    }

    fn job(&mut self, job: Option<&TrainingJob>, now: Duration) {
        match job {
            Some(job) => {
                if job.status.is_terminal() {
                    self.job_ended_at.get_or_insert(now);
                }
                self.job = Some(job.clone());
                self.absent_since = None;
            }
            None => {
                if now >= *self.absent_since.get_or_insert(now) + ABSENT {
                    self.job = None;
                    self.job_ended_at.get_or_insert(now);
                }
            }
        }
    }

    fn cancel(&mut self, reason: CancelUrgency, now: Duration, effects: &mut Vec<RunEffect>) {
        if self.cancel.is_none() {
            effects.push(RunEffect::SendCancel);
            self.canceled_at = Some(now);
        }
        self.cancel = self.cancel.max(Some(reason));
    }

    fn conclusion(&mut self, now: Duration, effects: &mut Vec<RunEffect>) -> Option<Conclusion> {
        let passed = |since: Option<Duration>, limit: Duration| since.is_some_and(|since| now >= since + limit);
        if let Some(conclusion) = self.all_exited(now) {
            return Some(conclusion);
        }
        if let Some(reason) = self.cancel
            && let Some(conclusion) = self.canceled(reason, now, effects)
        {
            return Some(conclusion);
        }
        if !self.rest_ended && passed(self.first_failure(), AFTER_A_FAILURE) {
            self.rest_ended = true;
            effects.push(RunEffect::SendCancel);
        }
        if let Some((reason, by)) = self.failures.first() {
            return Some(Conclusion::Lost { reason: reason.clone(), by: *by });
        }
        let left = self.nodes.rows().any(|node| node.bye.is_some() && node.exit.is_none());
        let all_told = self.nodes.rows().all(|node| node.exit.is_some() || node.end.is_some());
        let last = if all_told { LAST_OUTPUT } else { LAST_WORDS };
        let is_over = self.job_ended_at.is_some() && !self.config.reports_are_late;
        if passed(self.job_ended_at, last) || (is_over && (left || !self.any_ready())) {
            return Some(self.lost());
        }
        if !self.any_ready() && !self.runs_unheard() && now >= self.config.provisioning {
            effects.push(RunEffect::StopJob);
            return Some(Conclusion::Lost {
                reason: format!(
                    "the training job did not start within {}",
                    humantime::format_duration(Duration::from_secs(self.config.provisioning.as_secs()))
                ),
                by: LossKind::System,
            });
        }
        None
    }

    /// Decides about a canceled run while some node's exit is unknown.
    fn canceled(&mut self, reason: CancelUrgency, now: Duration, effects: &mut Vec<RunEffect>) -> Option<Conclusion> {
        let waited = |limit: Duration| self.canceled_at.is_some_and(|since| now >= since + limit);
        let (overdue, given_up) =
            (waited(self.config.grace + CANCEL_SLACK), waited(self.config.grace + CANCEL_SLACK * 2));
        let at_once = reason == CancelUrgency::Immediate;
        // An agent that comes up later finds the order to end the script together with the order to run it.
        let all_read = if self.config.reports_are_late {
            self.job_ended_at.is_some_and(|at| now >= at + LAST_WORDS)
        } else {
            self.read_since_cancel
        };
        let never_began = !self.any_ready() && (all_read || at_once || given_up);
        if (never_began || overdue) && !self.stop_sent {
            self.stop_sent = true;
            effects.push(RunEffect::StopJob);
        }
        if never_began {
            return Some(Conclusion::NeverBegan);
        }
        (at_once || given_up).then_some(Conclusion::Canceled { code: None })
    }

    /// Decides about a script whose container was started again. One that had ended on every node has its exit code.
    fn interrupted(&self) -> Option<Conclusion> {
        let has_ended = |node: &NodeRun| node.exit.as_ref().is_some_and(|exit| !exit.canceled);
        match self.cancel {
            _ if !self.restarted || self.nodes.rows().all(has_ended) => None,
            Some(_) => Some(Conclusion::Canceled { code: None }),
            None => Some(Conclusion::Interrupted),
        }
    }

    /// When a script was first seen to have failed by itself.
    fn first_failure(&self) -> Option<Duration> {
        let failed = |node: &&NodeRun| node.exit.as_ref().is_some_and(|exit| exit.code != 0 && !exit.canceled);
        self.nodes.rows().filter(failed).filter_map(|node| node.exited_at).min()
    }

    /// SageMaker says that the container runs, or has run, and its reports may come later.
    fn runs_unheard(&self) -> bool {
        let status = self.job.as_ref().map(|job| &job.secondary);
        let runs = matches!(status, Some(SecondaryStatus::Training | SecondaryStatus::Uploading));
        self.config.reports_are_late && (runs || self.job_ended_at.is_some())
    }

    fn any_ready(&self) -> bool {
        self.nodes.rows().any(|node| node.ready)
    }

    /// Concludes when every node has reported its exit and its output has arrived, or was waited for long enough.
    fn all_exited(&self, now: Duration) -> Option<Conclusion> {
        let done = |node: &NodeRun| {
            // An interrupted script may end by itself, and its instance vanish before the report: SageMaker takes minutes to start another.
            let may_be_cut = self.config.may_rerun && node.bye.is_none() && self.job_ended_at.is_none();
            // Only the report tells whether the script was ended from outside, and an agent sends it for as long as a lease.
            let may_be_told = self.cancel.is_none() && self.unheard_at.is_some_and(|at| now < at + DRAIN);
            let known = node.exit.is_some() || (node.end.is_some() && !may_be_cut && !may_be_told);
            let since = |limit: Duration| node.exited_at.is_some_and(|at| now >= at + limit);
            let told = node.exit.is_some() || node.bye.is_some() || since(EXIT_REPORT);
            // The copy of the output comes with the end of a job whose reports do.
            let may_come = self.config.reports_are_late && self.job_ended_at.is_none_or(|at| now < at + LAST_OUTPUT);
            let is_silent = since(DRAIN) && node.progress_at.is_none_or(|at| now >= at + DRAIN) && !may_come;
            // A script canceled before it began has no output and no end frame.
            let never_began = node.exit.as_ref().is_some_and(|exit| exit.canceled && exit.copy == Some(0));
            known && (never_began || (node.complete && node.end.is_some() && told) || is_silent)
        };
        if self.nodes.is_empty() || !self.nodes.rows().all(done) {
            return None;
        }
        let code =
            |node: &NodeRun| node.exit.as_ref().map(|exit| exit.code).or(node.end.map(|(code, _)| code)).unwrap_or(1);
        // The nodes' own clocks order their exits better than the moments at which the exits were seen; 0 is unknown.
        let exit_time = |node: &NodeRun| node.exit.as_ref().map_or(0, |exit| exit.at);
        let mut failed: Vec<_> = self.nodes.iter().filter(|(_, node)| code(node) != 0).collect();
        if failed.iter().all(|(_, node)| exit_time(node) > 0) {
            failed.sort_by_key(|(_, node)| exit_time(node));
        } else {
            failed.sort_by_key(|(_, node)| node.exited_at);
        }
        let (id, node) = failed.first().copied().or_else(|| self.nodes.iter().next())?;
        let others = failed.iter().skip(1).map(|(id, node)| (*id, code(node))).collect();
        let canceled = self.nodes.rows().any(|node| node.exit.as_ref().is_some_and(|exit| exit.canceled));
        if self.cancel.is_some() {
            return Some(Conclusion::Canceled { code: Some(code(node)) });
        }
        if canceled && !self.rest_ended {
            return self.stopped_from_outside();
        }
        let incomplete = self.nodes.iter().filter(|(_, node)| !node.complete).map(|(id, _)| id).collect();
        Some(Conclusion::Exited { code: code(node), node: id, others, incomplete })
    }

    /// An agent was told to stop by something else than this driver; the training job's end will tell by what.
    fn stopped_from_outside(&self) -> Option<Conclusion> {
        let lease = self.nodes.rows().any(|node| node.bye == Some(ByeReason::LeaseExpired));
        if lease {
            return Some(Conclusion::Lost {
                reason: "the agent stopped the script because the runner host gave no sign of life; look at the load of the host and its way to S3, or raise `limits.lease_seconds`".to_owned(),
                by: LossKind::System,
            });
        }
        self.job_ended_at.map(|_| self.lost())
    }

    /// Concludes that the training job ended without the script's exit.
    fn lost(&self) -> Conclusion {
        let system = |reason: String| Conclusion::Lost { reason, by: LossKind::System };
        let Some(job) = &self.job else {
            return system("the training job no longer exists".to_owned());
        };
        let why = job.failure_reason.as_deref().or(job.message.as_deref()).unwrap_or("no reason given");
        match (job.status, &job.secondary) {
            (JobStatus::Stopped, SecondaryStatus::MaxRuntimeExceeded) => Conclusion::Lost {
                reason: "the training job reached its longest run time; raise `SAGEMAKER_MAX_RUNTIME` or the job's `timeout`, and `job.max_runtime_seconds` in the operator's file when it is lower"
                    .to_owned(),
                by: LossKind::User,
            },
            (JobStatus::Stopped, SecondaryStatus::MaxWaitTimeExceeded) => system("no instance was found within the longest waiting time; raise `SAGEMAKER_SPOT_MAX_WAIT`".to_owned()),
            (JobStatus::Stopped, _) => system("the training job was stopped from outside this CI job; the event `StopTrainingJob` in CloudTrail tells by whom".to_owned()),
            (JobStatus::Failed, _) => {
                let Diagnosis { reason, by } = failure_reasons::diagnose(why, self.any_ready());
                Conclusion::Lost { reason, by }
            }
            (JobStatus::Completed, _) => system("the training job is completed without a report of its agent on the script's end".to_owned()),
            (status, secondary) => system(format!("the training job is {status:?} ({secondary}): {why}")),
        }
    }
}

#[cfg(test)]
mod tests;
