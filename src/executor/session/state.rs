//! State of a session, shared by the processes of one GitLab job. Changed only by [`SessionEvent`]s. Pure: no I/O, no
//! clock.
//!
//! Its record on disk is its snapshot. `Session::apply` saves the record as the event requires; an event that is not
//! saved at once can be derived again from the store or AWS.

use std::collections::BTreeMap;

use crate::base::node::{NodeId, Nodes};
use crate::protocol::keys::SessionPlace;
use crate::protocol::mailbox::Order;
use crate::protocol::project::Selection;
use crate::session::current_run::CurrentRun;
use crate::session::event::SessionEvent;
use crate::session::figures::{JobFigures, ReceivedResults};
use crate::session::node_record::{self, NodeRecord};
use crate::session::pool_match::WarmPools;
use crate::session::record::{LostResults, Queued, SessionRecord};
use crate::session::reported;
use crate::session::requested_job::RequestedJob;
use crate::session::restarts::Restarts;
use crate::session::stamp::Stamp;

/// State of the session's current training job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation<'a> {
    /// Not requested, or refused.
    None,
    /// `CreateTrainingJob` was called and its answer is unknown.
    Requested,
    /// Created, with this ARN.
    Created(&'a str),
}

/// State of the results on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultsState<'a> {
    Pending,
    /// Applied to the project directory, or none are expected.
    Applied,
    /// Lost with the training job.
    Lost(&'a LostResults),
}

/// The state that the processes of one GitLab job share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionState {
    record: SessionRecord,
    /// The run that this process ordered to end. Not on disk: a process that takes over sends the order again.
    ending: Option<u32>,
}

impl From<SessionRecord> for SessionState {
    fn from(record: SessionRecord) -> Self {
        Self { record, ending: None }
    }
}

impl SessionState {
    /// State of a new session.
    pub fn new(job_key: String, nodes: usize) -> Self {
        let nodes = Nodes::new(nodes, |_| NodeRecord::default());
        Self::from(SessionRecord { job_key, nodes, ..SessionRecord::default() })
    }

    #[must_use]
    pub fn with_runner_slot(mut self, slot: Option<String>) -> Self {
        self.record.runner_slot = slot;
        self
    }

    pub fn runner_slot(&self) -> Option<&str> {
        self.record.runner_slot.as_deref()
    }

    pub fn apply(&mut self, event: SessionEvent<'_>) {
        let record = &mut self.record;
        match event {
            SessionEvent::PlaceTaken(place) => record.place = Some(place.clone()),
            SessionEvent::AgentDelivered(agent) => agent.clone_into(&mut record.agent),
            SessionEvent::ScopeFound(scope) => record.scope = Some(scope.to_owned()),
            SessionEvent::PoolsNoted(pools) => record.warm_pools = Some(pools.clone()),
            SessionEvent::JobRequested { request, instance_type, types_left, at, created } => {
                record.request = request.clone();
                instance_type.clone_into(&mut record.instance_type);
                record.types_left = types_left.to_vec();
                record.requested = Some(at.clone());
                record.created = created;
                self.may_exist(at);
            }
            SessionEvent::JobCreated(arn) => {
                record.creating = false;
                record.queued = None;
                record.arn = Some(arn.to_owned());
            }
            SessionEvent::Queued(queued) => {
                record.queued = Some(queued.clone());
                record.types_tried.clear();
                record.types_waiting.clear();
            }
            SessionEvent::TypeRefused { tried, waiting } => {
                record.types_tried.push(tried.to_owned());
                record.types_waiting.extend(waiting.map(str::to_owned));
            }
            SessionEvent::TypeSelected(name) => self.selected(name),
            SessionEvent::JobRefused => record.creating = false,
            SessionEvent::JobMayExist(at) => self.may_exist(at),
            SessionEvent::CapacityLacked(tried) => self.lost(tried),
            SessionEvent::InternalErrorMet(tried) => {
                record.repeated = true;
                self.lost(tried);
            }
            SessionEvent::JobReplaced => {
                record.job_number = record.job_number.max(1) + 1;
                record.nodes.rows_mut().for_each(|node| node.left = false);
                record.log_floors.clear();
            }
            SessionEvent::Isolated => drop(record.stage_jobs.get_or_insert_default()),
            SessionEvent::StageEntered => record.enter_stage(),
            SessionEvent::AgentsEnded => record.nodes.rows_mut().for_each(|node| node.left = true),
            SessionEvent::ProjectSending(selection) => {
                record.workspace_attempt += 1;
                record.selection = Some(selection.clone());
            }
            SessionEvent::ProjectSent => record.workspace_sent = true,
            SessionEvent::RunBegun { stage, script } => self.begin(stage, script),
            SessionEvent::RunRepeated => self.repeat(),
            SessionEvent::RunTakenOver => self.rewind(),
            SessionEvent::RunEnded(code) => self.ended(code),
            SessionEvent::ScriptCut { code, why } => record.figures.cut(code, why),
            SessionEvent::RunOver => {
                self.script_ended();
                self.record.current = None;
            }
            SessionEvent::OrdersFound(number) => record.orders = number,
            SessionEvent::OrderStored { number, order } => self.stored(number, order),
            SessionEvent::Reported { node, report } => reported::note(record, node, report),
            SessionEvent::ReceiptTold(node) => record.nodes.change(node, |node| node.told = true),
            SessionEvent::LogRead(floors) => record.log_floors.clone_from(floors),
            SessionEvent::OthersShown { events, bytes } => {
                record.shown_events = events.to_vec();
                record.foreign_bytes = bytes;
            }
            SessionEvent::GivenUp => record.given_up = true,
            SessionEvent::LossTold => record.loss_told = true,
            SessionEvent::ResultsLost(lost) => record.results_lost = Some(lost.clone()),
            SessionEvent::ResultsReceived { files, bytes } => {
                record.figures.received = Some(ReceivedResults { files, bytes });
            }
            SessionEvent::ResultsSettled => record.results_applied = true,
            SessionEvent::ModelSettled => record.model_settled = true,
            SessionEvent::Leaving(at) => drop(record.leaving.get_or_insert_with(|| at.clone())),
        }
    }

    fn may_exist(&mut self, at: &Stamp) {
        self.record.job_number = self.record.job_number.max(1);
        self.record.creating = true;
        self.record.arn = None;
        self.record.requested.get_or_insert_with(|| at.clone());
    }

    /// The current type is of no use. Those that others used come before the remaining ones, as in the job's own order.
    fn lost(&mut self, tried: &str) {
        let record = &mut self.record;
        if !record.types_tried.iter().any(|known| known == tried) {
            record.types_tried.push(tried.to_owned());
        }
        record.types_left.splice(0..0, record.types_waiting.drain(..));
    }

    fn selected(&mut self, name: &str) {
        let record = &mut self.record;
        let preferred = std::mem::take(&mut record.request.preferred_types);
        record.types_left = preferred.into_iter().skip_while(|one| one != name).skip(1).collect();
        name.clone_into(&mut record.instance_type);
    }

    fn begin(&mut self, stage: &str, script: &str) {
        let record = &mut self.record;
        record.runs += 1;
        record.current = Some(CurrentRun {
            run: record.runs,
            stage: stage.to_owned(),
            script: script.to_owned(),
            reports: node_record::reports(&record.nodes),
            ..CurrentRun::default()
        });
    }

    fn repeat(&mut self) {
        let record = &mut self.record;
        let Some(current) = record.current.take() else { return };
        record.restarts.script_repeated(current.order);
        let repeated = current.repeated + 1;
        self.begin(&current.stage, &current.script);
        self.change_run(|run| run.repeated = repeated);
        // The results of the earlier run are not those of the job.
        (self.record.collected, self.record.finished) = (false, false);
    }

    fn ended(&mut self, code: i32) {
        self.record.stage_jobs.iter_mut().for_each(|stages| stages.has_exited = true);
        self.change_run(|run| run.code = Some(code));
        if self.run().is_some_and(|run| run.stage != "after_script") {
            self.record.figures.exit_code = Some(code);
        }
        self.script_ended();
    }

    fn script_ended(&mut self) {
        let order = self.record.current.as_ref().map_or(0, |run| run.order);
        self.record.restarts.script_ended(order);
    }

    fn change_run(&mut self, change: impl FnOnce(&mut CurrentRun)) {
        self.record.current.as_mut().map(change);
    }

    fn rewind(&mut self) {
        let Some(run) = &self.record.current else { return };
        for (id, node) in self.record.nodes.iter_mut() {
            node.reports = run.reports.get(&id).copied().unwrap_or_default();
        }
    }

    fn stored(&mut self, number: u32, order: &Order) {
        // The number was taken by the order to run the script, sent by a process that was killed before it saved the
        // number.
        let was_taken = number > std::mem::replace(&mut self.record.orders, number) + 1;
        match order {
            Order::Run(order) => self.change_run(|current| {
                if current.run == order.run {
                    (current.ordered, current.order) = (true, number);
                }
            }),
            Order::Cancel { run } => {
                self.ending = Some(*run);
                self.change_run(|current| {
                    if was_taken && current.run == *run {
                        (current.ordered, current.order) = (true, number - 1);
                    }
                });
            }
            Order::Finish { .. } => self.record.finished = true,
            Order::Workspace(_) => self.record.restarts.project = number,
        }
    }

    pub fn snapshot(&self) -> &SessionRecord {
        &self.record
    }

    /// No training job was ever requested, so the bucket holds the session's `open` object at most.
    pub fn is_unused(&self) -> bool {
        let record = &self.record;
        self.creation() == Creation::None && record.requested.is_none() && record.created == 0 && record.orders == 0
    }

    /// Key of the session's GitLab job.
    pub fn job_key(&self) -> &str {
        &self.record.job_key
    }

    /// Where the session's objects are. `None`: a version without keys began the session, or nothing is stored yet.
    pub fn place(&self) -> Option<&SessionPlace> {
        self.record.place.as_ref()
    }

    /// Scope of the project's packs; `None`: a version without the hosts' key began the session.
    pub fn scope(&self) -> Option<&str> {
        self.record.scope.as_deref()
    }

    pub fn creation(&self) -> Creation<'_> {
        match &self.record.arn {
            _ if self.record.creating => Creation::Requested,
            Some(arn) => Creation::Created(arn),
            None => Creation::None,
        }
    }

    /// `None` when the session does not wait for an instance type.
    pub fn queued(&self) -> Option<&Queued> {
        self.record.queued.as_ref()
    }

    /// `None`: the job does not keep its instances.
    pub fn warm_pools(&self) -> Option<&WarmPools> {
        self.record.warm_pools.as_ref()
    }

    pub fn arn(&self) -> Option<&str> {
        self.record.arn.as_deref()
    }

    /// When `CreateTrainingJob` was last called.
    pub fn requested(&self) -> Option<&Stamp> {
        self.record.requested.as_ref()
    }

    /// The same by this host's clock, in seconds since 1970; 0 when it never was.
    pub fn created(&self) -> u64 {
        self.record.created
    }

    /// Number of the current training job in the session, from 1: each has another container.
    pub fn job_number(&self) -> u32 {
        self.record.job_number.max(1)
    }

    /// Key prefix of the agent's files; empty until they are delivered.
    pub fn agent(&self) -> &str {
        &self.record.agent
    }

    pub fn instance_type(&self) -> &str {
        &self.record.instance_type
    }

    /// The current instance type for people.
    pub fn shown_type(&self) -> String {
        self.shown_types().join(" or ")
    }

    /// The current instance type: all preferred ones until SageMaker has selected.
    pub fn shown_types(&self) -> Vec<String> {
        let preferred = &self.record.request.preferred_types;
        if preferred.is_empty() { vec![self.record.instance_type.clone()] } else { preferred.clone() }
    }

    /// The current instance type and the remaining ones, in order.
    pub fn types(&self) -> Vec<String> {
        [&self.record.instance_type].into_iter().chain(&self.record.types_left).cloned().collect()
    }

    pub fn types_left(&self) -> &[String] {
        &self.record.types_left
    }

    pub fn types_tried(&self) -> &[String] {
        &self.record.types_tried
    }

    /// The same type was requested once more after an internal error of SageMaker.
    pub fn was_repeated(&self) -> bool {
        self.record.repeated
    }

    pub fn nodes(&self) -> &Nodes<NodeRecord> {
        &self.record.nodes
    }

    /// The node that sends the results; the default in a session without nodes.
    pub fn leader(&self) -> NodeRecord {
        self.record.nodes.get(NodeId::LEADER).copied().unwrap_or_default()
    }

    pub fn any_ready(&self) -> bool {
        self.record.nodes.rows().any(|node| node.ready)
    }

    pub fn all_left(&self) -> bool {
        !self.record.nodes.is_empty() && self.record.nodes.rows().all(|node| node.left)
    }

    pub fn orders(&self) -> u32 {
        self.record.orders
    }

    /// Number of scripts begun.
    pub fn runs(&self) -> u32 {
        self.record.runs
    }

    pub fn run(&self) -> Option<&CurrentRun> {
        self.record.current.as_ref()
    }

    /// This process ordered the run to end.
    pub fn is_ending(&self, run: u32) -> bool {
        self.ending == Some(run)
    }

    /// A script has begun, or is about to, and its exit is not known.
    pub fn is_running(&self) -> bool {
        self.run().is_some_and(|run| run.code.is_none())
    }

    /// No other script of the job has begun before the current one.
    pub fn is_first_script(&self) -> bool {
        self.run().is_some_and(|run| run.run == run.repeated + 1)
    }

    pub fn is_project_sent(&self) -> bool {
        self.record.workspace_sent
    }

    /// Number of attempts to send the project.
    pub fn project_attempt(&self) -> u32 {
        self.record.workspace_attempt
    }

    pub fn selection(&self) -> Option<&Selection> {
        self.record.selection.as_ref()
    }

    pub fn is_given_up(&self) -> bool {
        self.record.given_up
    }

    pub fn is_loss_told(&self) -> bool {
        self.record.loss_told
    }

    /// The agents were ordered to leave.
    pub fn is_finished(&self) -> bool {
        self.record.finished
    }

    /// The leader has reported that the results are in the store.
    pub fn is_collected(&self) -> bool {
        self.record.collected
    }

    /// Orders and scripts that restarts of the container made void.
    pub fn restarts(&self) -> &Restarts {
        &self.record.restarts
    }

    /// A node had files in `/opt/ml/model` when its last script ended: SageMaker uploads those of all nodes.
    pub fn has_model(&self) -> bool {
        !self.record.models.is_empty()
    }

    /// The job's model goes somewhere, and no stage has seen its upload yet.
    pub fn awaits_model(&self) -> bool {
        self.record.request.model_output.is_some() && !self.record.model_settled
    }

    /// The current training job as it was requested.
    pub fn request(&self) -> &RequestedJob {
        &self.record.request
    }

    pub fn results(&self) -> ResultsState<'_> {
        match &self.record.results_lost {
            Some(lost) => ResultsState::Lost(lost),
            None if self.record.results_applied => ResultsState::Applied,
            None => ResultsState::Pending,
        }
    }

    pub fn figures(&self) -> &JobFigures {
        &self.record.figures
    }

    pub fn leaving(&self) -> Option<&Stamp> {
        self.record.leaving.as_ref()
    }

    pub fn log_floors(&self) -> &BTreeMap<String, u64> {
        &self.record.log_floors
    }

    pub fn shown_events(&self) -> &[String] {
        &self.record.shown_events
    }

    pub fn foreign_bytes(&self) -> u64 {
        self.record.foreign_bytes
    }
}

#[cfg(test)]
mod tests;
