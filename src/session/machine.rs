//! Pure: what one container stage has seen so far, and what follows from it.
//!
//! Reports of the nodes, the state of the training job, the completeness of each trace and the wish to cancel come in
//! as [`Event`]s; [`Effect`]s go out. No I/O, no clock: the time since the stage began is a parameter.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cloud::{JobStatus, TrainingJob};
use crate::mailbox::{ByeReason, ExitReport, Report};

/// How long output that is known to exist is waited for after its end was told and nothing of it came any more.
const DRAIN: Duration = Duration::from_mins(1);
/// How long a node's exit report is waited for once its output is complete: it follows at once, and it alone tells whether
/// the script was ended from outside.
const EXIT_REPORT: Duration = Duration::from_secs(10);
/// How long an agent's last words are looked for after the training job has ended. They were stored before.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// How long SageMaker may not know a job that was created before it counts as gone: a new one may not be visible at once.
const ABSENT: Duration = Duration::from_secs(30);
/// How long the other nodes may go on once one has failed: mostly they wait for it in vain, and each is billed.
const AFTER_A_FAILURE: Duration = Duration::from_mins(1);
/// How long a canceled script may take beyond its own grace until the training job itself is stopped.
const CANCEL_SLACK: Duration = Duration::from_secs(30);

/// Why a stage is to end early, in order of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CancelReason {
    /// SIGTERM from the runner: the script gets its grace.
    Asked,
    /// A second signal, or cleanup beside us: leave at once.
    AtOnce,
}

#[derive(Debug)]
pub enum Event<'a> {
    Report {
        node: &'a str,
        report: &'a Report,
    },
    /// `None`: no such job.
    Job(Option<&'a TrainingJob>),
    /// The end frame of a node's output is in, and `complete` says whether every byte before it is.
    Trace {
        node: &'a str,
        end: Option<(i32, u64)>,
        complete: bool,
    },
    Cancel(CancelReason),
    Tick,
}

/// What the caller is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Order the agents to end the script.
    SendCancel,
    StopJob,
    Conclude(Conclusion),
}

/// How a container stage ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// Every node's script ended; the code is that of the node that failed first. `others` failed later, in this order.
    Exited { code: i32, node: String, others: Vec<(String, i32)>, incomplete: Vec<String> },
    /// We were asked to leave and the script has ended, or never began.
    Canceled { code: Option<i32> },
    /// The training job ended, or never came, without the script's exit.
    Lost { reason: String, by: LossKind },
}

/// Whose failure a loss is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossKind {
    /// The job's own limit or image: a retry would end the same way.
    User,
    System,
}

#[derive(Debug, Default)]
struct Node {
    ready: bool,
    started: bool,
    exit: Option<ExitReport>,
    exited_at: Option<Duration>,
    /// When some of its output came last.
    progress_at: Option<Duration>,
    end: Option<(i32, u64)>,
    complete: bool,
    bye: Option<ByeReason>,
}

/// One run of one script on all nodes.
#[derive(Debug)]
pub struct RunMachine {
    terms: Terms,
    nodes: BTreeMap<String, Node>,
    job: Option<TrainingJob>,
    job_ended_at: Option<Duration>,
    absent_since: Option<Duration>,
    cancel: Option<CancelReason>,
    canceled_at: Option<Duration>,
    stop_sent: bool,
    /// The nodes that went on after another's failure were told to end.
    rest_ended: bool,
    failures: Vec<String>,
    concluded: bool,
}

/// What does not change during a run.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub run: u32,
    /// Nodes that run the script.
    pub nodes: usize,
    /// Between SIGTERM and SIGKILL in the container.
    pub grace: Duration,
    /// How long the first report may take.
    pub provisioning: Duration,
    /// A later container stage follows even when this one is canceled, so an unstarted training job stays.
    pub keep_when_canceled: bool,
}

impl RunMachine {
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            nodes: BTreeMap::new(),
            job: None,
            job_ended_at: None,
            absent_since: None,
            cancel: None,
            canceled_at: None,
            stop_sent: false,
            rest_ended: false,
            failures: Vec::new(),
            concluded: false,
        }
    }

    /// A node that was ready before this stage began.
    pub fn already_ready(&mut self, node: &str) {
        self.nodes.entry(node.to_owned()).or_default().ready = true;
    }

    /// A node whose agent was gone before this stage began.
    pub fn already_left(&mut self, node: &str) {
        self.nodes.entry(node.to_owned()).or_default().bye = Some(ByeReason::Other);
    }

    /// The order to end the script was sent before this stage began.
    pub fn already_canceled(&mut self) {
        self.cancel = Some(CancelReason::Asked);
        self.canceled_at = Some(Duration::ZERO);
    }

    /// Some of a node's output came: what is missing is waited for from now on.
    pub fn progress(&mut self, node: &str, now: Duration) {
        self.nodes.entry(node.to_owned()).or_default().progress_at = Some(now);
    }

    /// The training job has ended, as far as is known.
    pub fn job_has_ended(&self) -> bool {
        self.job_ended_at.is_some()
    }

    /// Some node's agent has left.
    pub fn is_leaving(&self) -> bool {
        self.nodes.values().any(|node| node.bye.is_some())
    }

    pub fn is_ready(&self) -> bool {
        self.nodes.values().filter(|node| node.ready).count() >= self.terms.nodes
    }

    /// Every node's script has begun.
    pub fn all_started(&self) -> bool {
        self.nodes.values().filter(|node| node.started).count() >= self.terms.nodes
    }

    /// Some node's script has ended, as far as is known.
    pub fn any_ended(&self) -> bool {
        self.nodes.values().any(|node| node.exit.is_some() || node.end.is_some())
    }

    pub fn is_canceled(&self) -> bool {
        self.cancel.is_some()
    }

    pub fn apply(&mut self, event: &Event<'_>, now: Duration) -> Vec<Effect> {
        if self.concluded {
            return Vec::new();
        }
        let mut effects = Vec::new();
        match event {
            Event::Report { node, report } => self.report(node, report, now),
            Event::Job(job) => self.job(*job, now),
            Event::Trace { node, end, complete } => {
                let node = self.nodes.entry((*node).to_owned()).or_default();
                (node.end, node.complete) = (*end, *complete);
                if end.is_some() {
                    node.exited_at.get_or_insert(now);
                }
            }
            Event::Cancel(reason) => self.cancel(*reason, now, &mut effects),
            Event::Tick => {}
        }
        if let Some(conclusion) = self.conclusion(now, &mut effects) {
            self.concluded = true;
            effects.push(Effect::Conclude(conclusion));
        }
        effects
    }

    fn report(&mut self, name: &str, report: &Report, now: Duration) {
        let node = self.nodes.entry(name.to_owned()).or_default();
        match report {
            Report::Ready { .. } => node.ready = true,
            Report::Started { run } if *run == self.terms.run => node.started = true,
            Report::Exited { run, exit } if *run == self.terms.run => {
                node.exit = Some(exit.clone());
                node.exited_at.get_or_insert(now);
            }
            Report::Damaged { pack, chunk } => {
                self.failures.push(format!("{name}: the chunk {chunk} of the project, in the pack {pack}, is damaged"));
            }
            Report::Failed { order, reason } => self.failures.push(format!("{name}: {order}: {reason}")),
            Report::Bye { reason } => node.bye = Some(*reason),
            Report::Received { .. }
            | Report::Missing { .. }
            | Report::Collected { .. }
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

    fn cancel(&mut self, reason: CancelReason, now: Duration, effects: &mut Vec<Effect>) {
        if self.cancel.is_none() {
            effects.push(Effect::SendCancel);
            self.canceled_at = Some(now);
        }
        self.cancel = self.cancel.max(Some(reason));
    }

    fn conclusion(&mut self, now: Duration, effects: &mut Vec<Effect>) -> Option<Conclusion> {
        let passed = |since: Option<Duration>, limit: Duration| since.is_some_and(|since| now >= since + limit);
        if let Some(conclusion) = self.all_exited(now) {
            return Some(conclusion);
        }
        if self.cancel == Some(CancelReason::AtOnce) {
            return Some(Conclusion::Canceled { code: None });
        }
        if self.cancel.is_some() {
            let unstarted = !self.nodes.values().any(|node| node.ready);
            if unstarted && self.terms.keep_when_canceled && self.job_ended_at.is_none() {
                return Some(Conclusion::Canceled { code: None });
            }
            let overdue = passed(self.canceled_at, self.terms.grace + CANCEL_SLACK);
            if (unstarted || overdue) && !self.stop_sent {
                self.stop_sent = true;
                effects.push(Effect::StopJob);
            }
            if unstarted || passed(self.canceled_at, self.terms.grace + CANCEL_SLACK * 2) {
                return Some(Conclusion::Canceled { code: None });
            }
        }
        if !self.rest_ended && passed(self.first_failure(), AFTER_A_FAILURE) {
            self.rest_ended = true;
            effects.push(Effect::SendCancel);
        }
        if let Some(reason) = self.failures.first() {
            return Some(Conclusion::Lost { reason: reason.clone(), by: LossKind::System });
        }
        let left = self.nodes.values().any(|node| node.bye.is_some() && node.exit.is_none());
        if passed(self.job_ended_at, LAST_WORDS) || (self.job_ended_at.is_some() && (left || !self.any_ready())) {
            return Some(self.lost());
        }
        if !self.any_ready() && now >= self.terms.provisioning {
            effects.push(Effect::StopJob);
            return Some(Conclusion::Lost {
                reason: format!(
                    "the training job did not start within {}",
                    humantime::format_duration(Duration::from_secs(self.terms.provisioning.as_secs()))
                ),
                by: LossKind::System,
            });
        }
        None
    }

    /// When it was seen that a script failed by itself.
    fn first_failure(&self) -> Option<Duration> {
        let failed = |node: &&Node| node.exit.as_ref().is_some_and(|exit| exit.code != 0 && !exit.canceled);
        self.nodes.values().filter(failed).filter_map(|node| node.exited_at).min()
    }

    fn any_ready(&self) -> bool {
        self.nodes.values().any(|node| node.ready)
    }

    /// Done when every node has told its exit and all its output is here, or was waited for long enough.
    fn all_exited(&self, now: Duration) -> Option<Conclusion> {
        let done = |node: &Node| {
            let known = node.exit.is_some() || node.end.is_some();
            let since = |limit: Duration| node.exited_at.is_some_and(|at| now >= at + limit);
            let told = node.exit.is_some() || node.bye.is_some() || since(EXIT_REPORT);
            let is_silent = since(DRAIN) && node.progress_at.is_none_or(|at| now >= at + DRAIN);
            known && ((node.complete && node.end.is_some() && told) || is_silent)
        };
        if self.nodes.len() < self.terms.nodes || self.terms.nodes == 0 || !self.nodes.values().all(done) {
            return None;
        }
        let code =
            |node: &Node| node.exit.as_ref().map(|exit| exit.code).or(node.end.map(|(code, _)| code)).unwrap_or(1);
        // The nodes' own clocks tell their order more finely than the moments at which it was seen; 0 is no time.
        let exit_time = |node: &Node| node.exit.as_ref().map_or(0, |exit| exit.at);
        let mut failed: Vec<_> = self.nodes.iter().filter(|(_, node)| code(node) != 0).collect();
        if failed.iter().all(|(_, node)| exit_time(node) > 0) {
            failed.sort_by_key(|(_, node)| exit_time(node));
        } else {
            failed.sort_by_key(|(_, node)| node.exited_at);
        }
        let (name, node) = failed.first().copied().or_else(|| self.nodes.iter().next())?;
        let others = failed.iter().skip(1).map(|(name, node)| ((*name).clone(), code(node))).collect();
        let canceled = self.nodes.values().any(|node| node.exit.as_ref().is_some_and(|exit| exit.canceled));
        if self.cancel.is_some() {
            return Some(Conclusion::Canceled { code: Some(code(node)) });
        }
        if canceled && !self.rest_ended {
            return self.stopped_from_outside();
        }
        let incomplete = self.nodes.iter().filter(|(_, node)| !node.complete).map(|(name, _)| name.clone()).collect();
        Some(Conclusion::Exited { code: code(node), node: name.clone(), others, incomplete })
    }

    /// The agent was told to stop, not by us: by whom is known once the training job has ended.
    fn stopped_from_outside(&self) -> Option<Conclusion> {
        let lease = self.nodes.values().any(|node| node.bye == Some(ByeReason::LeaseExpired));
        if lease {
            return Some(Conclusion::Lost {
                reason: "the agent stopped the script because the runner host gave no sign of life".to_owned(),
                by: LossKind::System,
            });
        }
        self.job_ended_at.map(|_| self.lost())
    }

    /// The training job has ended and the script's exit is not known.
    fn lost(&self) -> Conclusion {
        let system = |reason: String| Conclusion::Lost { reason, by: LossKind::System };
        let Some(job) = &self.job else {
            return system("the training job does not exist any more".to_owned());
        };
        let why = job.failure_reason.as_deref().or(job.message.as_deref()).unwrap_or("no reason given");
        match (job.status, job.secondary.as_str()) {
            (JobStatus::Stopped, "MaxRuntimeExceeded") => Conclusion::Lost {
                reason: "the training job reached its longest run time; raise `SAGEMAKER_MAX_RUNTIME` or the job's `timeout`"
                    .to_owned(),
                by: LossKind::User,
            },
            (JobStatus::Stopped, "MaxWaitTimeExceeded") => system("no instance was found within the longest waiting time".to_owned()),
            (JobStatus::Stopped, _) => system("the training job was stopped from outside this CI job".to_owned()),
            (JobStatus::Failed, _) if is_image_failure(why) => Conclusion::Lost {
                reason: format!("the training image cannot be used: {why}; check `image:` and the role's `ecr:*` permissions"),
                by: LossKind::User,
            },
            (JobStatus::Failed, _) => system(format!("the training job failed: {why}")),
            (JobStatus::Completed, _) => system("the training job ended without a word of its agent".to_owned()),
            (status, secondary) => system(format!("the training job is {status:?} ({secondary}): {why}")),
        }
    }
}

/// `ClientError: Cannot pull algorithm container.` and `Unable to download training image` of newer replies.
fn is_image_failure(reason: &str) -> bool {
    ["Cannot pull algorithm container", "Unable to download training image"].iter().any(|text| reason.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        run: 1,
        nodes: 1,
        grace: Duration::from_secs(30),
        provisioning: Duration::from_mins(10),
        keep_when_canceled: true,
    };
    const NODE: &str = "algo-1";

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ready() -> Report {
        Report::Ready { agent: "0".into(), nodes: vec![NODE.into()] }
    }

    fn exited(code: i32, canceled: bool) -> Report {
        Report::Exited {
            run: 1,
            exit: ExitReport { code, bytes: 3, hash: String::new(), canceled, at: 0, copy: Some(1) },
        }
    }

    fn report(report: &Report) -> Event<'_> {
        Event::Report { node: NODE, report }
    }

    fn job(status: JobStatus, secondary: &str, reason: &str) -> TrainingJob {
        TrainingJob {
            name: "x".into(),
            arn: "arn".into(),
            status,
            secondary: secondary.into(),
            message: None,
            failure_reason: (!reason.is_empty()).then(|| reason.into()),
            created: None,
            training_seconds: None,
            billable_seconds: None,
            transitions: Vec::new(),
        }
    }

    fn conclusion(effects: Vec<Effect>) -> Option<Conclusion> {
        effects
            .into_iter()
            .find_map(|effect| if let Effect::Conclude(conclusion) = effect { Some(conclusion) } else { None })
    }

    fn complete(code: i32) -> Event<'static> {
        Event::Trace { node: NODE, end: Some((code, 3)), complete: true }
    }

    #[test]
    fn an_exit_alone_is_not_the_end() {
        let mut machine = RunMachine::new(TERMS);
        assert_eq!(machine.apply(&report(&ready()), at(1)), []);
        assert_eq!(machine.apply(&report(&Report::Started { run: 1 }), at(2)), []);
        assert!(machine.all_started() && !machine.any_ended());
        assert_eq!(machine.apply(&report(&exited(3, false)), at(3)), []);
        let end = conclusion(machine.apply(&complete(3), at(4))).unwrap();
        assert_eq!(end, Conclusion::Exited { code: 3, node: NODE.into(), others: vec![], incomplete: vec![] });
        assert_eq!(machine.apply(&Event::Tick, at(5)), [], "concluded once");
    }

    #[test]
    fn an_end_frame_is_enough_without_a_report() {
        let mut machine = RunMachine::new(TERMS);
        assert_eq!(conclusion(machine.apply(&complete(0), at(4))), None, "the report is given a moment");
        let end = conclusion(machine.apply(&Event::Tick, at(14)));
        assert!(matches!(end, Some(Conclusion::Exited { code: 0, .. })));
    }

    /// The output is complete before the report that tells of the stop: the code alone would look like the script's own.
    #[test]
    fn the_end_of_the_output_does_not_hide_a_stop() {
        let mut machine = RunMachine::new(TERMS);
        machine.apply(&report(&ready()), at(1));
        assert_eq!(conclusion(machine.apply(&complete(143), at(4))), None);
        machine.apply(&report(&exited(143, true)), at(5));
        let ended = job(JobStatus::Stopped, "MaxRuntimeExceeded", "");
        let end = conclusion(machine.apply(&Event::Job(Some(&ended)), at(6)));
        assert!(matches!(end, Some(Conclusion::Lost { by: LossKind::User, .. })), "{end:?}");
    }

    /// The stage after a loss does not wait for the last words of an agent that is known to be gone.
    #[test]
    fn an_agent_that_had_left_says_nothing_more() {
        let mut machine = RunMachine::new(TERMS);
        machine.already_ready(NODE);
        machine.already_left(NODE);
        let ended = job(JobStatus::Failed, "Failed", "AlgorithmError: x");
        let end = conclusion(machine.apply(&Event::Job(Some(&ended)), at(1)));
        assert!(matches!(end, Some(Conclusion::Lost { .. })), "{end:?}");
    }

    #[test]
    fn output_that_never_comes_is_told_and_the_code_kept() {
        let mut machine = RunMachine::new(TERMS);
        machine.apply(&report(&exited(7, false)), at(3));
        assert_eq!(conclusion(machine.apply(&Event::Tick, at(62))), None);
        let end = conclusion(machine.apply(&Event::Tick, at(63))).unwrap();
        assert_eq!(
            end,
            Conclusion::Exited { code: 7, node: NODE.into(), others: vec![], incomplete: vec![NODE.into()] }
        );
    }

    #[test]
    fn output_that_still_comes_is_not_cut() {
        let mut machine = RunMachine::new(TERMS);
        machine.apply(&report(&exited(7, false)), at(3));
        machine.progress(NODE, at(60));
        assert_eq!(conclusion(machine.apply(&Event::Tick, at(119))), None);
        assert!(conclusion(machine.apply(&Event::Tick, at(120))).is_some());
    }

    #[test]
    fn reports_of_other_runs_do_not_count() {
        let mut machine = RunMachine::new(TERMS);
        let other = Report::Exited {
            run: 2,
            exit: ExitReport { code: 0, bytes: 0, hash: String::new(), canceled: false, at: 0, copy: Some(0) },
        };
        machine.apply(&report(&other), at(1));
        assert_eq!(conclusion(machine.apply(&Event::Tick, at(500))), None);
    }

    #[test]
    fn a_container_that_dies_without_a_word_is_never_a_success() {
        for (job, by, text) in [
            (job(JobStatus::Completed, "Completed", ""), LossKind::System, "without a word"),
            (job(JobStatus::Failed, "Failed", "AlgorithmError: , exit code: 137"), LossKind::System, "exit code: 137"),
            (
                job(JobStatus::Failed, "Failed", "ClientError: Cannot pull algorithm container. x"),
                LossKind::User,
                "`image:`",
            ),
            (job(JobStatus::Stopped, "MaxRuntimeExceeded", ""), LossKind::User, "SAGEMAKER_MAX_RUNTIME"),
            (job(JobStatus::Stopped, "Stopped", ""), LossKind::System, "from outside"),
        ] {
            let mut machine = RunMachine::new(TERMS);
            machine.apply(&report(&ready()), at(1));
            machine.apply(&report(&Report::Started { run: 1 }), at(2));
            assert_eq!(conclusion(machine.apply(&Event::Job(Some(&job)), at(10))), None, "last words may still come");
            match conclusion(machine.apply(&Event::Tick, at(30))) {
                Some(Conclusion::Lost { reason, by: kind }) => {
                    assert_eq!(kind, by);
                    assert!(reason.contains(text), "{reason}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_job_that_fails_before_its_agent_is_lost_at_once() {
        let mut machine = RunMachine::new(TERMS);
        let job = job(JobStatus::Failed, "Failed", "CapacityError: none");
        assert!(matches!(conclusion(machine.apply(&Event::Job(Some(&job)), at(10))), Some(Conclusion::Lost { .. })));
    }

    #[test]
    fn a_job_that_is_not_visible_yet_is_not_lost() {
        let mut machine = RunMachine::new(TERMS);
        assert_eq!(machine.apply(&Event::Job(None), at(3)), [], "created a moment ago");
        machine.apply(&Event::Job(Some(&job(JobStatus::InProgress, "Starting", ""))), at(18));
        assert_eq!(machine.apply(&Event::Job(None), at(33)), []);
        assert_eq!(machine.apply(&Event::Job(None), at(48)), []);
        match conclusion(machine.apply(&Event::Job(None), at(63))) {
            Some(Conclusion::Lost { reason, by: LossKind::System }) => {
                assert!(reason.contains("does not exist"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_cancel_ends_the_script_and_waits_for_it() {
        let mut machine = RunMachine::new(TERMS);
        machine.apply(&report(&ready()), at(1));
        assert_eq!(machine.apply(&Event::Cancel(CancelReason::Asked), at(5)), [Effect::SendCancel]);
        machine.apply(&report(&exited(143, true)), at(6));
        assert_eq!(conclusion(machine.apply(&complete(143), at(6))), Some(Conclusion::Canceled { code: Some(143) }));
    }

    #[test]
    fn a_cancel_that_nobody_hears_stops_the_job() {
        let mut machine = RunMachine::new(TERMS);
        machine.apply(&report(&ready()), at(1));
        machine.apply(&Event::Cancel(CancelReason::Asked), at(5));
        assert_eq!(machine.apply(&Event::Tick, at(64)), []);
        assert_eq!(machine.apply(&Event::Tick, at(65)), [Effect::StopJob]);
        assert_eq!(conclusion(machine.apply(&Event::Tick, at(95))), Some(Conclusion::Canceled { code: None }));
    }

    #[test]
    fn a_cancel_while_provisioning_keeps_the_job_only_for_after_script() {
        let canceled = Effect::Conclude(Conclusion::Canceled { code: None });
        let mut machine = RunMachine::new(TERMS);
        assert_eq!(machine.apply(&Event::Cancel(CancelReason::Asked), at(5)), [Effect::SendCancel, canceled.clone()]);
        let mut machine = RunMachine::new(Terms { keep_when_canceled: false, ..TERMS });
        let effects = machine.apply(&Event::Cancel(CancelReason::Asked), at(5));
        assert_eq!(effects, [Effect::SendCancel, Effect::StopJob, canceled]);
    }

    #[test]
    fn a_stop_from_outside_is_a_loss_although_the_script_has_a_code() {
        let mut machine = RunMachine::new(TERMS);
        machine.apply(&report(&ready()), at(1));
        machine.apply(&report(&exited(143, true)), at(6));
        assert_eq!(conclusion(machine.apply(&complete(143), at(6))), None, "by whom is not known yet");
        let job = job(JobStatus::Stopped, "MaxRuntimeExceeded", "");
        let end = conclusion(machine.apply(&Event::Job(Some(&job)), at(8)));
        assert!(matches!(end, Some(Conclusion::Lost { by: LossKind::User, .. })), "{end:?}");
    }

    #[test]
    fn provisioning_has_an_end() {
        let mut machine = RunMachine::new(TERMS);
        let effects = machine.apply(&Event::Tick, at(600));
        assert_eq!(effects.first(), Some(&Effect::StopJob));
        assert!(matches!(effects.last(), Some(Effect::Conclude(Conclusion::Lost { .. }))));
    }

    #[test]
    fn the_code_is_that_of_the_node_that_failed_first() {
        let mut machine = RunMachine::new(Terms { nodes: 2, ..TERMS });
        let (failed, passed) = (exited(4, false), exited(0, false));
        machine.apply(&Event::Report { node: "algo-1", report: &passed }, at(1));
        machine.apply(&Event::Trace { node: "algo-1", end: Some((0, 3)), complete: true }, at(1));
        machine.apply(&Event::Report { node: "algo-2", report: &failed }, at(2));
        let effects = machine.apply(&Event::Trace { node: "algo-2", end: Some((4, 3)), complete: true }, at(2));
        let end = Conclusion::Exited { code: 4, node: "algo-2".into(), others: vec![], incomplete: vec![] };
        assert_eq!(conclusion(effects), Some(end));
    }

    #[test]
    fn who_failed_first_is_told_by_the_nodes_own_clocks() {
        let mut machine = RunMachine::new(Terms { nodes: 3, ..TERMS });
        let mut effects = Vec::new();
        for (node, code, when) in [("algo-1", 5, 900), ("algo-2", 6, 300), ("algo-3", 7, 600)] {
            let exit = ExitReport { code, bytes: 3, hash: String::new(), canceled: false, at: when, copy: Some(1) };
            machine.apply(&Event::Report { node, report: &Report::Exited { run: 1, exit } }, at(2));
            effects = machine.apply(&Event::Trace { node, end: Some((code, 3)), complete: true }, at(2));
        }
        let others = vec![("algo-3".into(), 7), ("algo-1".into(), 5)];
        let end = Conclusion::Exited { code: 6, node: "algo-2".into(), others, incomplete: vec![] };
        assert_eq!(conclusion(effects), Some(end));
    }

    #[test]
    fn nodes_that_go_on_after_a_failure_are_ended_and_the_failure_counts() {
        let mut machine = RunMachine::new(Terms { nodes: 2, ..TERMS });
        for node in ["algo-1", "algo-2"] {
            machine.apply(&Event::Report { node, report: &ready() }, at(1));
        }
        machine.apply(&Event::Report { node: "algo-2", report: &exited(4, false) }, at(5));
        machine.apply(&Event::Trace { node: "algo-2", end: Some((4, 3)), complete: true }, at(5));
        assert_eq!(machine.apply(&Event::Tick, at(64)), []);
        assert_eq!(machine.apply(&Event::Tick, at(65)), [Effect::SendCancel]);
        assert_eq!(machine.apply(&Event::Tick, at(66)), [], "told once");
        machine.apply(&Event::Report { node: "algo-1", report: &exited(143, true) }, at(67));
        let effects = machine.apply(&Event::Trace { node: "algo-1", end: Some((143, 3)), complete: true }, at(67));
        let others = vec![("algo-1".into(), 143)];
        let end = Conclusion::Exited { code: 4, node: "algo-2".into(), others, incomplete: vec![] };
        assert_eq!(conclusion(effects), Some(end));
    }
}
