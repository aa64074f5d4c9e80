//! Pure: what a session is, all that the processes of one GitLab job know together. It is changed by [`SessionEvent`]s alone and
//! read through what it tells; no I/O, no clock.
//!
//! The record on disk is its snapshot. `Session::apply` saves it as the event asks; an event that is not saved at once follows
//! again from what the store or AWS still holds.

use std::collections::BTreeMap;

use crate::base::node::{NodeId, Nodes};
use crate::protocol::mailbox::{Order, Report};
use crate::protocol::project::Selection;
use crate::session::age::Stamp;
use crate::session::node_record::{self, NodeRecord};
use crate::session::record::{CurrentRun, LostResults, SessionRecord};

/// What is known of the session's current training job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation<'a> {
    /// It was not asked for, or was refused.
    None,
    /// `CreateTrainingJob` was called and its answer is not known.
    Requested,
    /// It has this ARN.
    Created(&'a str),
}

/// What became of the results, as far as the host is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Results<'a> {
    Pending,
    /// They are in the project directory, or there are none to wait for.
    Applied,
    /// They ended with the training job.
    Lost(&'a LostResults),
}

/// What can happen to a session.
#[derive(Debug, Clone, Copy)]
pub enum SessionEvent<'a> {
    /// The agent's files are in the bucket under this prefix.
    AgentDelivered(&'a str),
    /// The training job is about to be asked for; `created` is in seconds since 1970.
    JobRequested {
        instance_type: &'a str,
        types_left: &'a [String],
        at: &'a Stamp,
        created: u64,
    },
    /// `CreateTrainingJob` has answered with the ARN.
    JobCreated(&'a str),
    /// The instance type was refused: its name with the reason.
    TypeRefused(&'a str),
    /// No training job came of the request.
    JobRefused,
    /// A training job may come of a request.
    JobMayCome(&'a Stamp),
    /// The training job ended before its container ran, for want of capacity: the instance type with the reason.
    CapacityLacked(&'a str),
    /// It ended so by an internal error of SageMaker: the type is asked for once more.
    InternalErrorMet(&'a str),
    /// The container begins anew, in the session's next training job.
    ContainerRenewed,
    /// Every agent ended with the training job.
    AgentsEnded,
    /// The project is about to be sent.
    ProjectSending(&'a Selection),
    ProjectSent,
    /// A script is about to be ordered; `script` is its hash.
    RunBegun {
        stage: &'a str,
        script: &'a str,
    },
    /// Another process follows the current script from its begin: its reports are read again.
    RunTakenOver,
    /// The current script's end is known.
    RunEnded(i32),
    /// Nothing follows from the current script any more.
    RunOver,
    /// The orders up to this number are in the store.
    OrdersFound(u32),
    /// The order is in the store under this number.
    OrderStored {
        number: u32,
        order: &'a Order,
    },
    /// The next report of a node was read; `None`: it cannot be understood.
    Reported {
        node: NodeId,
        report: Option<&'a Report>,
    },
    /// That the node has the project stands in the trace.
    ReceiptTold(NodeId),
    /// The events of the log are known up to these times, by stream.
    LogRead(&'a BTreeMap<String, u64>),
    /// Of other writers' log events these were shown last, and so many bytes in all.
    OthersShown {
        events: &'a [String],
        bytes: u64,
    },
    /// No script has begun and none is to: nothing waits for the training job.
    GivenUp,
    /// Why the training job was lost stands in the trace.
    LossTold,
    ResultsLost(&'a LostResults),
    /// Nothing of the results is waited for any more.
    ResultsSettled,
    /// `cleanup` had done everything but to see the training job's end, which needs nobody.
    Leaving(&'a Stamp),
}

/// How soon the record on disk must hold an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// With the next one: it can be read again.
    Later,
    Now,
    /// Now, and it is there after a power failure: it tells that a training job may exist.
    ForGood,
}

impl SessionEvent<'_> {
    pub fn saved(&self) -> Saved {
        match self {
            Self::AgentDelivered(_)
            | Self::TypeRefused(_)
            | Self::InternalErrorMet(_)
            | Self::ContainerRenewed
            | Self::AgentsEnded
            | Self::Reported { .. }
            | Self::ResultsLost(_) => Saved::Later,
            Self::CapacityLacked(_)
            | Self::ProjectSending(_)
            | Self::ProjectSent
            | Self::RunBegun { .. }
            | Self::RunTakenOver
            | Self::RunEnded(_)
            | Self::RunOver
            | Self::OrdersFound(_)
            | Self::OrderStored { .. }
            | Self::ReceiptTold(_)
            | Self::LogRead(_)
            | Self::OthersShown { .. }
            | Self::GivenUp
            | Self::LossTold
            | Self::ResultsSettled => Saved::Now,
            Self::JobRequested { .. }
            | Self::JobCreated(_)
            | Self::JobRefused
            | Self::JobMayCome(_)
            | Self::Leaving(_) => Saved::ForGood,
        }
    }
}

/// All that the processes of one GitLab job know together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionState {
    record: SessionRecord,
    /// The run whose end this process has ordered. Not on disk: a process that takes over orders it again.
    ending: Option<u32>,
}

impl From<SessionRecord> for SessionState {
    fn from(record: SessionRecord) -> Self {
        Self { record, ending: None }
    }
}

impl SessionState {
    /// A session of which nothing has happened yet.
    pub fn new(job_key: String, nodes: usize) -> Self {
        let nodes = Nodes::new(nodes, |_| NodeRecord::default());
        Self::from(SessionRecord { job_key, nodes, ..SessionRecord::default() })
    }

    pub fn apply(&mut self, event: SessionEvent<'_>) {
        let record = &mut self.record;
        match event {
            SessionEvent::AgentDelivered(agent) => agent.clone_into(&mut record.agent),
            SessionEvent::JobRequested { instance_type, types_left, at, created } => {
                instance_type.clone_into(&mut record.instance_type);
                record.types_left = types_left.to_vec();
                record.requested = Some(at.clone());
                record.created = created;
                self.may_come(at);
            }
            SessionEvent::JobCreated(arn) => {
                record.creating = false;
                record.arn = Some(arn.to_owned());
            }
            SessionEvent::TypeRefused(tried) => record.types_tried.push(tried.to_owned()),
            SessionEvent::JobRefused => record.creating = false,
            SessionEvent::JobMayCome(at) => self.may_come(at),
            SessionEvent::CapacityLacked(tried) => self.tried(tried),
            SessionEvent::InternalErrorMet(tried) => {
                record.repeated = true;
                self.tried(tried);
            }
            SessionEvent::ContainerRenewed => {
                record.job_number = record.job_number.max(1) + 1;
                record.nodes.rows_mut().for_each(|node| node.left = false);
                record.log_floors.clear();
            }
            SessionEvent::AgentsEnded => record.nodes.rows_mut().for_each(|node| node.left = true),
            SessionEvent::ProjectSending(selection) => {
                record.workspace_attempt += 1;
                record.selection = Some(selection.clone());
            }
            SessionEvent::ProjectSent => record.workspace_sent = true,
            SessionEvent::RunBegun { stage, script } => self.begin(stage, script),
            SessionEvent::RunTakenOver => self.rewind(),
            SessionEvent::RunEnded(code) => self.change_run(|run| run.code = Some(code)),
            SessionEvent::RunOver => record.current = None,
            SessionEvent::OrdersFound(number) => record.orders = number,
            SessionEvent::OrderStored { number, order } => self.stored(number, order),
            SessionEvent::Reported { node, report } => self.reported(node, report),
            SessionEvent::ReceiptTold(node) => record.nodes.change(node, |node| node.told = true),
            SessionEvent::LogRead(floors) => record.log_floors.clone_from(floors),
            SessionEvent::OthersShown { events, bytes } => {
                record.shown_events = events.to_vec();
                record.foreign_bytes = bytes;
            }
            SessionEvent::GivenUp => record.given_up = true,
            SessionEvent::LossTold => record.loss_told = true,
            SessionEvent::ResultsLost(lost) => record.results_lost = Some(lost.clone()),
            SessionEvent::ResultsSettled => record.results_applied = true,
            SessionEvent::Leaving(at) => drop(record.leaving.get_or_insert_with(|| at.clone())),
        }
    }

    fn may_come(&mut self, at: &Stamp) {
        self.record.job_number = self.record.job_number.max(1);
        self.record.creating = true;
        self.record.arn = None;
        self.record.requested.get_or_insert_with(|| at.clone());
    }

    fn tried(&mut self, tried: &str) {
        let known = &mut self.record.types_tried;
        if !known.iter().any(|known| known == tried) {
            known.push(tried.to_owned());
        }
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
        // A number that was taken was taken by a process that was killed before it noted it: by the order to run the script.
        let was_taken = number > std::mem::replace(&mut self.record.orders, number) + 1;
        match order {
            Order::Run(order) => self.change_run(|current| current.ordered |= current.run == order.run),
            Order::Cancel { run } => {
                self.ending = Some(*run);
                self.change_run(|current| current.ordered |= was_taken && current.run == *run);
            }
            Order::Finish { .. } => self.record.finished = true,
            Order::Workspace(_) => {}
        }
    }

    fn reported(&mut self, id: NodeId, report: Option<&Report>) {
        let Some(node) = self.record.nodes.get_mut(id) else { return };
        node.reports += 1;
        match report {
            Some(Report::Ready { .. }) => node.ready = true,
            Some(Report::Bye { .. }) => node.left = true,
            Some(Report::Collected { .. }) => self.record.collected |= id == NodeId::LEADER,
            // Each concerns the run that is followed, or the stage that reads it.
            Some(
                Report::Received { .. }
                | Report::Missing { .. }
                | Report::Damaged { .. }
                | Report::Started { .. }
                | Report::Exited { .. }
                | Report::Failed { .. },
            )
            | None => {}
        }
    }

    pub fn snapshot(&self) -> &SessionRecord {
        &self.record
    }

    /// No training job was ever asked for, so nothing is stored in the bucket either.
    pub fn is_unused(&self) -> bool {
        let record = &self.record;
        self.creation() == Creation::None && record.requested.is_none() && record.created == 0 && record.orders == 0
    }

    pub fn creation(&self) -> Creation<'_> {
        match &self.record.arn {
            _ if self.record.creating => Creation::Requested,
            Some(arn) => Creation::Created(arn),
            None => Creation::None,
        }
    }

    pub fn arn(&self) -> Option<&str> {
        self.record.arn.as_deref()
    }

    /// When `CreateTrainingJob` was called last.
    pub fn requested(&self) -> Option<&Stamp> {
        self.record.requested.as_ref()
    }

    /// The same by this host's clock, in seconds since 1970; 0 when it was not.
    pub fn created(&self) -> u64 {
        self.record.created
    }

    /// Which of the session's training jobs the current one is, from 1: each is another container.
    pub fn incarnation(&self) -> u32 {
        self.record.job_number.max(1)
    }

    /// Prefix of the agent's files; empty until they were delivered.
    pub fn agent(&self) -> &str {
        &self.record.agent
    }

    pub fn instance_type(&self) -> &str {
        &self.record.instance_type
    }

    /// The current instance type and those that are left, in order.
    pub fn types(&self) -> Vec<String> {
        [&self.record.instance_type].into_iter().chain(&self.record.types_left).cloned().collect()
    }

    pub fn types_left(&self) -> &[String] {
        &self.record.types_left
    }

    pub fn types_tried(&self) -> &[String] {
        &self.record.types_tried
    }

    /// After an internal error of SageMaker the same type was asked for once more.
    pub fn was_repeated(&self) -> bool {
        self.record.repeated
    }

    pub fn nodes(&self) -> &Nodes<NodeRecord> {
        &self.record.nodes
    }

    /// The node that sends the results; nothing is known of it in a session without nodes.
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

    /// The order to end the run was sent by this process.
    pub fn is_ending(&self, run: u32) -> bool {
        self.ending == Some(run)
    }

    /// A script was begun, or about to, and nobody has seen its end.
    pub fn is_running(&self) -> bool {
        self.run().is_some_and(|run| run.code.is_none())
    }

    pub fn is_project_sent(&self) -> bool {
        self.record.workspace_sent
    }

    /// How often sending the project was begun.
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

    /// The agents were told to leave.
    pub fn is_finished(&self) -> bool {
        self.record.finished
    }

    /// The leader has told that the results are in the store.
    pub fn is_collected(&self) -> bool {
        self.record.collected
    }

    pub fn results(&self) -> Results<'_> {
        match &self.record.results_lost {
            Some(lost) => Results::Lost(lost),
            None if self.record.results_applied => Results::Applied,
            None => Results::Pending,
        }
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
