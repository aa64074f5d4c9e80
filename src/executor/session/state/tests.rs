//! Kills and takeovers: a process killed between any two events leaves a state from which the next one continues.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::protocol::mailbox::{ByeReason, ExitReport, Report, RunOrder};
use crate::session::current_run::RunStep;
use crate::session::event::Saved;
use crate::session::machine::{Conclusion, RunConfig, RunEffect, RunEvent, RunMachine};

const HASH: &str = "the script's hash";
/// Longer than every wait.
const LONG: Duration = Duration::from_hours(1);

/// The process was killed.
#[derive(Debug)]
struct Killed;

/// How a run ended for the stage.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Exited(i32),
    Canceled,
    Lost,
}

/// State that outlives a process: the record as last saved, the bucket, the trace.
#[derive(Debug, Default)]
struct World {
    saved: String,
    orders: Vec<Order>,
    /// Exit code of each node's script; `None`: its agent is stopped before.
    ends: Vec<Option<i32>>,
    trace: Vec<String>,
}

impl World {
    fn new(ends: &[Option<i32>]) -> Self {
        let state = SessionState::new("key".to_owned(), ends.len());
        let saved = serde_json::to_string(state.snapshot()).unwrap();
        Self { saved, ends: ends.to_vec(), ..Self::default() }
    }

    fn is_stored(&self, order: &Order) -> bool {
        self.orders.contains(order)
    }

    /// The reports that a node has stored, for the orders that it has found.
    fn reports(&self, node: NodeId) -> Vec<Report> {
        let ready = Report::Ready { agent: String::new(), nodes: Vec::new(), restarts: 0, after: 0, checkpoints: None };
        let mut reports = vec![ready, Report::Received { summary: "all".to_owned() }];
        if self.is_stored(&run_order()) {
            reports.push(Report::Started { run: 1, order: 0 });
            let hash = String::new();
            match self.ends[node.index()] {
                Some(code) => reports.push(Report::Exited {
                    run: 1,
                    exit: ExitReport {
                        has_model: false,
                        code,
                        bytes: 0,
                        hash,
                        canceled: false,
                        at: 0,
                        ran: None,
                        copy: None,
                    },
                }),
                None => reports.push(Report::Bye { reason: ByeReason::Stopped }),
            }
        }
        if self.is_stored(&Order::Finish { collect: true }) {
            reports.push(Report::Collected { summary: String::new(), restarts: 0 });
            reports.push(Report::Bye { reason: ByeReason::Finished });
        }
        reports
    }
}

/// A process of the job, which is killed before the event of this number.
struct Process<'w> {
    world: &'w mut World,
    state: SessionState,
    killed_at: Option<usize>,
}

fn run_order() -> Order {
    let (masks, mask_prefixes) = (Vec::new(), Vec::new());
    Order::Run(RunOrder {
        run: 1,
        stage: "step_script".to_owned(),
        script: String::new(),
        masks,
        mask_prefixes,
        grace: 1,
        live_copy: true,
        ..RunOrder::default()
    })
}

impl<'w> Process<'w> {
    fn begin(world: &'w mut World, killed_at: Option<usize>) -> Self {
        let record: SessionRecord = serde_json::from_str(&world.saved).unwrap();
        Self { world, state: record.into(), killed_at }
    }

    fn apply(&mut self, event: SessionEvent<'_>) -> Result<(), Killed> {
        match &mut self.killed_at {
            Some(0) => return Err(Killed),
            Some(left) => *left -= 1,
            None => {}
        }
        self.state.apply(event);
        if event.saved() != Saved::Later {
            self.world.saved = serde_json::to_string(self.state.snapshot()).unwrap();
        }
        Ok(())
    }

    /// Stores the order; the kill may come before that is saved.
    fn order(&mut self, order: &Order) -> Result<(), Killed> {
        let mut number = self.state.orders() + 1;
        while self.world.orders.get(number as usize - 1).is_some_and(|found| found != order) {
            number += 1;
        }
        if self.world.orders.len() < number as usize {
            self.world.orders.push(order.clone());
        }
        self.apply(SessionEvent::OrderStored { number, order })
    }

    fn next(&mut self, node: NodeId) -> Result<Option<Report>, Killed> {
        let read = self.state.nodes().get(node).unwrap().reports;
        let Some(report) = self.world.reports(node).get(read as usize).cloned() else { return Ok(None) };
        self.apply(SessionEvent::Reported { node, report: Some(&report) })?;
        Ok(Some(report))
    }

    fn follow(&mut self) -> Result<Outcome, Killed> {
        let nodes = self.state.nodes().len();
        let mut machine = RunMachine::new(RunConfig {
            run: 1,
            nodes,
            grace: Duration::ZERO,
            provisioning: LONG,
            may_rerun: false,
            reports_are_late: false,
        });
        let mut effects = Vec::new();
        for (node, row) in self.state.nodes().iter() {
            machine.apply(&RunEvent::Known { node, is_ready: row.ready, has_left: row.left }, Duration::ZERO);
        }
        if self.state.is_ending(1) {
            machine.apply(&RunEvent::CancelSent, Duration::ZERO);
        }
        for node in self.state.nodes().ids() {
            while let Some(report) = self.next(node)? {
                if matches!(report, Report::Received { .. }) && !self.state.nodes().get(node).unwrap().told {
                    self.apply(SessionEvent::ReceiptTold(node))?;
                    // Together with its event: a kill between the two would print the line again.
                    self.world.trace.push(format!("received by {node}"));
                }
                if let Report::Exited { exit, .. } = &report {
                    let end = Some((exit.code, 0));
                    effects.extend(machine.apply(&RunEvent::Trace { node, end, complete: true }, Duration::ZERO));
                }
                effects.extend(machine.apply(&RunEvent::Report { node, report: &report }, Duration::ZERO));
            }
        }
        // Then the training job ends.
        effects.extend(machine.apply(&RunEvent::Job(None), Duration::ZERO));
        effects.extend(machine.apply(&RunEvent::Job(None), LONG / 2));
        effects.extend(machine.apply(&RunEvent::Tick, LONG));
        let concluded = effects.into_iter().find_map(|effect| match effect {
            RunEffect::Conclude(conclusion) => Some(conclusion),
            RunEffect::SendCancel | RunEffect::StopJob => None,
        });
        Ok(match concluded.unwrap() {
            Conclusion::Exited { code, .. } => Outcome::Exited(code),
            Conclusion::Canceled { .. } | Conclusion::NeverBegan => Outcome::Canceled,
            Conclusion::Lost { .. } | Conclusion::Interrupted => Outcome::Lost,
        })
    }

    /// Runs the stage of the script; after a kill it is called again and continues.
    fn stage(&mut self) -> Result<Outcome, Killed> {
        let event = match self.state.run() {
            Some(_) => SessionEvent::RunTakenOver,
            None => SessionEvent::RunBegun { stage: "step_script", script: HASH },
        };
        self.apply(event)?;
        let outcome = match self.state.run().unwrap().step() {
            RunStep::Ended(code) => Outcome::Exited(code),
            step => {
                if step == RunStep::Noted {
                    self.order(&run_order())?;
                }
                self.follow()?
            }
        };
        if let Outcome::Exited(code) = outcome {
            self.apply(SessionEvent::RunEnded(code))?;
            self.download_results()?;
        }
        self.apply(SessionEvent::RunOver)?;
        Ok(outcome)
    }

    fn download_results(&mut self) -> Result<(), Killed> {
        if self.state.results() != ResultsState::Pending {
            return Ok(());
        }
        if !self.state.is_finished() {
            self.order(&Order::Finish { collect: true })?;
        }
        while !self.state.is_collected() {
            assert!(self.next(NodeId::LEADER)?.is_some(), "the results are waited for in vain");
        }
        self.apply(SessionEvent::ResultsSettled)
    }

    /// Another stage ends the script that is saved as running; returns whether it was followed.
    fn end_abandoned(&mut self) -> Result<bool, Killed> {
        let Some(left) = self.state.run().cloned().filter(|run| run.code.is_none()) else { return Ok(false) };
        self.order(&Order::Cancel { run: left.run })?;
        let is_ordered = self.state.run().is_some_and(|run| run.ordered);
        if is_ordered {
            self.apply(SessionEvent::RunTakenOver)?;
            self.follow()?;
        }
        self.apply(SessionEvent::RunOver)?;
        Ok(is_ordered)
    }
}

/// Everything that a later stage can observe.
fn facts(world: &World, outcome: &Outcome) -> impl PartialEq + std::fmt::Debug + use<> {
    let record: SessionRecord = serde_json::from_str(&world.saved).unwrap();
    let said: Vec<_> = record.nodes.rows().map(|node| (node.ready, node.told)).collect();
    let results = (record.results_applied, record.finished, record.current);
    (outcome.clone(), said, results, (record.runs, record.orders), world.orders.clone(), world.trace.clone())
}

fn ends() -> impl Strategy<Value = Vec<Option<i32>>> {
    prop::collection::vec(prop::option::weighted(0.8, 0..3_i32), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn kills_between_any_two_events_change_nothing(ends in ends(), kills in prop::collection::vec(0..25_usize, 0..5)) {
        let mut calm = World::new(&ends);
        let outcome = Process::begin(&mut calm, None).stage().unwrap();
        let mut world = World::new(&ends);
        let mut ended = None;
        for killed_at in kills.into_iter().map(Some).chain([None]) {
            if ended.is_none() {
                ended = Process::begin(&mut world, killed_at).stage().ok();
            }
        }
        prop_assert_eq!(facts(&world, &ended.unwrap()), facts(&calm, &outcome));
    }

    #[test]
    fn another_stage_follows_a_script_that_was_ordered_and_no_other(
        ends in ends(),
        kill in 1..25_usize,
        second in 0..25_usize,
    ) {
        let mut world = World::new(&ends);
        prop_assume!(Process::begin(&mut world, Some(kill)).stage().is_err());
        let is_open = Process::begin(&mut world, None).state.is_running();
        let mut followed = Process::begin(&mut world, Some(second)).end_abandoned();
        if followed.is_err() {
            followed = Process::begin(&mut world, None).end_abandoned();
        }
        prop_assert_eq!(followed.unwrap(), is_open && world.is_stored(&run_order()));
        prop_assert!(!Process::begin(&mut world, None).state.is_running());
        let told = world.trace.len();
        world.trace.dedup();
        prop_assert_eq!(world.trace.len(), told);
    }
}

#[test]
fn each_state_of_a_training_job_follows_from_an_event() {
    let (at, types) = (Stamp::default(), ["ml.c.d".to_owned()]);
    let mut state = SessionState::new("key".to_owned(), 1);
    assert!(state.is_unused() && state.creation() == Creation::None);
    let output = crate::config::policy::ModelOutput { folder: "s3://m/".to_owned(), is_archive: true };
    let request = RequestedJob { model_output: Some(output), ..RequestedJob::default() };
    let (instance_type, types_left) = ("ml.a.b", &types[..]);
    let requested = SessionEvent::JobRequested { request: &request, instance_type, types_left, at: &at, created: 7 };
    state.apply(requested);
    assert_eq!((state.creation(), state.job_number()), (Creation::Requested, 1));
    assert_eq!(state.types(), ["ml.a.b", "ml.c.d"]);
    state.apply(SessionEvent::JobCreated("arn"));
    assert_eq!(state.creation(), Creation::Created("arn"));
    state.apply(SessionEvent::AgentsEnded);
    assert!(state.all_left());
    state.apply(SessionEvent::JobReplaced);
    assert!(!state.all_left() && state.job_number() == 2, "the next container has the nodes anew");
    state.apply(requested);
    state.apply(SessionEvent::JobRefused);
    assert!(state.creation() == Creation::None && !state.is_unused());
    assert!(state.awaits_model());
    state.apply(SessionEvent::ModelSettled);
    assert!(!state.awaits_model() && state.request() == &request);
}

/// SageMaker uploads the models of all nodes.
#[test]
fn a_model_of_any_node_counts_until_its_container_is_started_again() {
    let mut state = SessionState::new("key".to_owned(), 2);
    let exit = |has_model| ExitReport {
        has_model,
        code: 0,
        bytes: 0,
        hash: String::new(),
        canceled: false,
        at: 0,
        ran: None,
        copy: None,
    };
    let told = |state: &mut SessionState, node, report: Report| {
        state.apply(SessionEvent::Reported { node, report: Some(&report) });
    };
    told(&mut state, NodeId::LEADER, Report::Exited { run: 1, exit: exit(false) });
    assert!(!state.has_model());
    told(&mut state, NodeId::at(1), Report::Exited { run: 1, exit: exit(true) });
    assert!(state.has_model());
    told(
        &mut state,
        NodeId::at(1),
        Report::Ready { agent: String::new(), nodes: Vec::new(), restarts: 1, after: 2, checkpoints: None },
    );
    assert!(!state.has_model(), "its files are gone");
    told(&mut state, NodeId::LEADER, Report::Exited { run: 2, exit: exit(true) });
    told(&mut state, NodeId::LEADER, Report::Exited { run: 3, exit: exit(false) });
    assert!(!state.has_model(), "`after_script` has removed it");
}

#[test]
fn a_script_that_runs_again_is_another_run() {
    let mut state = SessionState::new("key".to_owned(), 1);
    let selection = Selection::default();
    state.apply(SessionEvent::ProjectSending(&selection));
    state.apply(SessionEvent::RunBegun { stage: "step_script", script: HASH });
    let order = run_order();
    state.apply(SessionEvent::OrderStored { number: 2, order: &order });
    let told = |state: &mut SessionState, report: Report| {
        state.apply(SessionEvent::Reported { node: NodeId::LEADER, report: Some(&report) });
    };
    let ready =
        |restarts, after| Report::Ready { agent: String::new(), nodes: Vec::new(), restarts, after, checkpoints: None };
    told(&mut state, ready(0, 0));
    told(&mut state, Report::Started { run: 1, order: 2 });
    state.apply(SessionEvent::RunEnded(0));
    state.apply(SessionEvent::OrderStored { number: 3, order: &Order::Finish { collect: true } });
    told(&mut state, Report::Bye { reason: ByeReason::Stopped });
    told(&mut state, ready(1, 2));
    assert!(!state.leader().left && state.restarts().lost_files() && state.is_first_script());
    state.apply(SessionEvent::RunRepeated);
    let run = state.run().unwrap();
    assert_eq!((run.run, run.repeated, run.code, run.step()), (2, 1, None, RunStep::Noted));
    assert_eq!((run.stage.as_str(), run.reports[&NodeId::LEADER]), ("step_script", 4));
    assert!(!state.is_finished() && !state.is_collected() && !state.restarts().lost_files() && state.is_first_script());
}

#[test]
fn each_stage_without_network_begins_with_an_empty_mailbox() {
    let mut state = SessionState::new("1/2".to_owned(), 2);
    state.apply(SessionEvent::Isolated);
    state.apply(SessionEvent::StageEntered);
    let stages = state.stage_jobs().unwrap();
    assert_eq!((stages.number, stages.earlier, state.job_number()), (1, None, 1));
    state.apply(SessionEvent::ProjectSending(&Selection::default()));
    state.apply(SessionEvent::ProjectSent);
    state.apply(SessionEvent::JobReplaced);
    state.apply(SessionEvent::JobCreated("arn"));
    state.apply(SessionEvent::OrderStored { number: 4, order: &Order::Finish { collect: true } });
    let ready = Report::Ready { agent: "0".into(), nodes: Vec::new(), restarts: 0, after: 0, checkpoints: None };
    state.apply(SessionEvent::Reported { node: NodeId::LEADER, report: Some(&ready) });
    state.apply(SessionEvent::StageEntered);
    let stages = state.stage_jobs().unwrap();
    assert_eq!((stages.number, stages.earlier, stages.attempt, state.job_number()), (2, Some(2), 1, 3));
    assert_eq!((state.orders(), state.is_finished(), state.arn(), state.any_ready()), (0, false, None, false));
    assert_eq!((state.is_project_sent(), state.project_attempt(), state.leader().reports), (false, 0, 0));
}

/// Records as two versions of the program wrote them amid a script: the next process knows what was ordered, and cleans up after it.
#[test]
fn records_of_both_versions_are_understood() {
    use crate::session::id::SessionId;
    use crate::session::record::Records;

    let dir = tempfile::tempdir().unwrap();
    let (records, id) = (Records::open(dir.path()).unwrap(), SessionId::parse("gitlab-231-4711-18ddb7f7").unwrap());
    for (text, has_place) in [
        (include_str!("../../../../tests/fixtures/records/version-1.json"), false),
        (include_str!("../../../../tests/fixtures/records/version-2.json"), true),
    ] {
        std::fs::write(dir.path().join(format!("sessions/{id}.json")), text).unwrap();
        let record = records.load(&id).unwrap().unwrap();
        assert_eq!(record.place.is_some(), has_place);
        let state = SessionState::from(record.clone());
        assert!(state.run().is_some_and(|run| run.run == 1 && run.ordered), "{record:?}");
        records.save(&id, &record).unwrap();
        assert_eq!(records.load(&id).unwrap(), Some(record), "it stays of its version");
    }
}
