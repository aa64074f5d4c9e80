//! Feeds events to the machine and checks its decisions.

use super::*;
use crate::cloud::testing::example_job;

const CONFIG: RunConfig = RunConfig {
    run: 1,
    nodes: 1,
    grace: Duration::from_secs(30),
    provisioning: Duration::from_mins(10),
    may_rerun: false,
    reports_are_late: false,
};
const NODE: NodeId = NodeId::LEADER;

fn node(number: usize) -> NodeId {
    NodeId::at(number - 1)
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ready() -> Report {
    Report::Ready { agent: "0".into(), nodes: vec![NODE.to_string()], restarts: 0, after: 0, checkpoints: None }
}

fn exited(code: i32, canceled: bool) -> Report {
    Report::Exited {
        run: 1,
        exit: ExitReport {
            has_model: false,
            code,
            bytes: 3,
            hash: String::new(),
            canceled,
            at: 0,
            ran: None,
            copy: Some(1),
        },
    }
}

fn report(report: &Report) -> RunEvent<'_> {
    RunEvent::Report { node: NODE, report }
}

fn job(status: JobStatus, secondary: &str, reason: &str) -> TrainingJob {
    let failure_reason = (!reason.is_empty()).then(|| reason.into());
    TrainingJob { failure_reason, ..example_job("x", status, secondary.into()) }
}

fn conclusion(effects: Vec<RunEffect>) -> Option<Conclusion> {
    effects
        .into_iter()
        .find_map(|effect| if let RunEffect::Conclude(conclusion) = effect { Some(conclusion) } else { None })
}

fn complete(code: i32) -> RunEvent<'static> {
    RunEvent::Trace { node: NODE, end: Some((code, 3)), complete: true }
}

#[test]
fn an_exit_alone_is_not_the_end() {
    let mut machine = RunMachine::new(CONFIG);
    assert_eq!(machine.apply(&report(&ready()), at(1)), []);
    assert_eq!(machine.apply(&report(&Report::Started { run: 1, order: 0 }), at(2)), []);
    assert!(machine.all_started() && !machine.any_ended());
    assert_eq!(machine.apply(&report(&exited(3, false)), at(3)), []);
    let end = conclusion(machine.apply(&complete(3), at(4))).unwrap();
    assert_eq!(end, Conclusion::Exited { code: 3, node: NODE, others: vec![], incomplete: vec![] });
    assert_eq!(machine.apply(&RunEvent::Tick, at(5)), [], "concluded once");
}

#[test]
fn an_end_frame_is_enough_without_a_report() {
    let mut machine = RunMachine::new(CONFIG);
    assert_eq!(conclusion(machine.apply(&complete(0), at(4))), None, "the report is given a moment");
    let end = conclusion(machine.apply(&RunEvent::Tick, at(14)));
    assert!(matches!(end, Some(Conclusion::Exited { code: 0, .. })));
}

/// The agent ends the script when its lease is over, and the log alone tells with which code.
#[test]
fn an_end_frame_is_no_end_while_the_report_cannot_be_read() {
    let mut machine = RunMachine::new(CONFIG);
    machine.apply(&report(&ready()), at(1));
    assert_eq!(conclusion(machine.apply(&complete(143), at(4))), None);
    for second in (0..900).step_by(5) {
        machine.apply(&RunEvent::Unheard, at(5 + second));
        assert_eq!(conclusion(machine.apply(&RunEvent::Tick, at(9 + second))), None, "{second}");
    }
    let mut heard = RunMachine::new(CONFIG);
    heard.apply(&RunEvent::Unheard, at(4));
    heard.apply(&complete(143), at(4));
    assert_eq!(conclusion(heard.apply(&RunEvent::Tick, at(20))), None, "the agent tries again at times");
    heard.apply(&report(&exited(143, true)), at(21));
    let end = conclusion(heard.apply(&report(&Report::Bye { reason: ByeReason::LeaseExpired }), at(22)));
    assert!(matches!(&end, Some(Conclusion::Lost { by: LossKind::System, .. })), "{end:?}");
    machine.apply(&RunEvent::CancelSent, at(910));
    let end = conclusion(machine.apply(&RunEvent::Tick, at(911)));
    assert_eq!(end, Some(Conclusion::Canceled { code: Some(143) }), "who ended it is known");
    heard = RunMachine::new(CONFIG);
    heard.apply(&RunEvent::Unheard, at(4));
    heard.apply(&complete(7), at(4));
    assert!(matches!(conclusion(heard.apply(&RunEvent::Tick, at(64))), Some(Conclusion::Exited { code: 7, .. })));
}

/// A script that traps SIGTERM ends with code 0 in an interruption, and the instance vanishes before the exit report.
#[test]
fn an_end_frame_alone_is_no_end_of_a_script_that_may_run_again() {
    let begin = || {
        let mut machine = RunMachine::new(RunConfig { may_rerun: true, ..CONFIG });
        machine.apply(&report(&ready()), at(1));
        machine.apply(&report(&Report::Started { run: 1, order: 2 }), at(2));
        assert_eq!(conclusion(machine.apply(&complete(0), at(4))), None);
        for status in ["Training", "Interrupted", "Starting"] {
            let job = job(JobStatus::InProgress, status, "");
            assert_eq!(conclusion(machine.apply(&RunEvent::Job(Some(&job)), at(200))), None, "{status}");
        }
        machine
    };
    let mut interrupted = begin();
    interrupted.apply(
        &report(&Report::Ready { agent: "0".into(), nodes: vec![], restarts: 1, after: 2, checkpoints: None }),
        at(300),
    );
    assert_eq!(conclusion(interrupted.apply(&RunEvent::Tick, at(301))), Some(Conclusion::Interrupted));
    let is_success = |end: Option<Conclusion>| matches!(end, Some(Conclusion::Exited { code: 0, .. }));
    assert!(is_success(conclusion(begin().apply(&report(&exited(0, false)), at(300)))));
    assert!(is_success(conclusion(begin().apply(&report(&Report::Bye { reason: ByeReason::Finished }), at(300)))));
    let ended = job(JobStatus::Completed, "Completed", "");
    assert!(is_success(conclusion(begin().apply(&RunEvent::Job(Some(&ended)), at(300)))));
}

/// The container of a failed script is kept, and its instance is taken away without a word.
#[test]
fn a_script_that_failed_before_the_interruption_keeps_its_code() {
    let mut machine = RunMachine::new(RunConfig { may_rerun: true, ..CONFIG });
    machine.apply(&report(&ready()), at(1));
    machine.apply(&report(&Report::Started { run: 1, order: 2 }), at(2));
    let kept = Report::Kept { run: 1, code: 3, bytes: 3, until: 9, release: String::new() };
    assert_eq!(machine.apply(&report(&kept), at(3)), []);
    assert_eq!(machine.apply(&RunEvent::Trace { node: NODE, end: None, complete: true }, at(4)), []);
    assert_eq!(machine.apply(&RunEvent::Tick, at(200)), [], "the container is kept");
    let again = Report::Ready { agent: "0".into(), nodes: vec![], restarts: 1, after: 2, checkpoints: None };
    let end = conclusion(machine.apply(&report(&again), at(300)));
    assert_eq!(end, Some(Conclusion::Exited { code: 3, node: NODE, others: vec![], incomplete: vec![] }));
}

/// The output is complete before the report of the stop arrives: the code alone would look like the script's own.
#[test]
fn the_end_of_the_output_does_not_hide_a_stop() {
    let mut machine = RunMachine::new(CONFIG);
    machine.apply(&report(&ready()), at(1));
    assert_eq!(conclusion(machine.apply(&complete(143), at(4))), None);
    machine.apply(&report(&exited(143, true)), at(5));
    let ended = job(JobStatus::Stopped, "MaxRuntimeExceeded", "");
    let end = conclusion(machine.apply(&RunEvent::Job(Some(&ended)), at(6)));
    assert!(matches!(end, Some(Conclusion::Lost { by: LossKind::User, .. })), "{end:?}");
}

/// The stage after a loss does not wait for reports of an agent that is known to have left.
#[test]
fn an_agent_that_had_left_says_nothing_more() {
    let mut machine = RunMachine::new(CONFIG);
    machine.apply(&RunEvent::Known { node: NODE, is_ready: true, has_left: true }, Duration::ZERO);
    let ended = job(JobStatus::Failed, "Failed", "AlgorithmError: x");
    let end = conclusion(machine.apply(&RunEvent::Job(Some(&ended)), at(1)));
    assert!(matches!(end, Some(Conclusion::Lost { .. })), "{end:?}");
}

#[test]
fn output_that_never_comes_is_told_and_the_code_kept() {
    let mut machine = RunMachine::new(CONFIG);
    machine.apply(&report(&exited(7, false)), at(3));
    assert_eq!(conclusion(machine.apply(&RunEvent::Tick, at(62))), None);
    let end = conclusion(machine.apply(&RunEvent::Tick, at(63))).unwrap();
    assert_eq!(end, Conclusion::Exited { code: 7, node: NODE, others: vec![], incomplete: vec![NODE] });
}

/// An agent that finds the order to end the script together with the order to run it sends no output and no end frame.
#[test]
fn a_script_that_was_canceled_before_it_began_has_no_output_to_wait_for() {
    let mut machine = RunMachine::new(CONFIG);
    machine.apply(&report(&ready()), at(1));
    machine.apply(&RunEvent::Cancel(CancelUrgency::Graceful), at(2));
    let exit = ExitReport {
        has_model: false,
        code: 143,
        bytes: 0,
        hash: String::new(),
        canceled: true,
        at: 0,
        ran: None,
        copy: Some(0),
    };
    let end = conclusion(machine.apply(&report(&Report::Exited { run: 1, exit }), at(3)));
    assert_eq!(end, Some(Conclusion::Canceled { code: Some(143) }));
}

#[test]
fn output_that_still_comes_is_not_cut() {
    let mut machine = RunMachine::new(CONFIG);
    machine.apply(&report(&exited(7, false)), at(3));
    machine.apply(&RunEvent::Progress { node: NODE }, at(60));
    assert_eq!(conclusion(machine.apply(&RunEvent::Tick, at(119))), None);
    assert!(conclusion(machine.apply(&RunEvent::Tick, at(120))).is_some());
}

#[test]
fn reports_of_other_runs_do_not_count() {
    let mut machine = RunMachine::new(CONFIG);
    let other = Report::Exited {
        run: 2,
        exit: ExitReport {
            has_model: false,
            code: 0,
            bytes: 0,
            hash: String::new(),
            canceled: false,
            at: 0,
            ran: None,
            copy: Some(0),
        },
    };
    machine.apply(&report(&other), at(1));
    assert_eq!(conclusion(machine.apply(&RunEvent::Tick, at(500))), None);
}

#[test]
fn a_container_that_dies_without_a_word_is_never_a_success() {
    for (job, by, text) in [
        (job(JobStatus::Completed, "Completed", ""), LossKind::System, "without a report"),
        (
            job(JobStatus::Failed, "Failed", "AlgorithmError: , exit code: 137"),
            LossKind::Script { code: 137 },
            "exit code: 137",
        ),
        (
            job(JobStatus::Failed, "Failed", "ClientError: Cannot pull algorithm container. x"),
            LossKind::User,
            "`image:`",
        ),
        (job(JobStatus::Stopped, "MaxRuntimeExceeded", ""), LossKind::User, "SAGEMAKER_MAX_RUNTIME"),
        (job(JobStatus::Stopped, "Stopped", ""), LossKind::System, "from outside"),
    ] {
        let mut machine = RunMachine::new(CONFIG);
        machine.apply(&report(&ready()), at(1));
        machine.apply(&report(&Report::Started { run: 1, order: 0 }), at(2));
        assert_eq!(conclusion(machine.apply(&RunEvent::Job(Some(&job)), at(10))), None, "last words may still come");
        match conclusion(machine.apply(&RunEvent::Tick, at(13))) {
            Some(Conclusion::Lost { reason, by: kind }) => {
                assert_eq!(kind, by);
                assert!(reason.contains(text), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_script_whose_end_is_known_is_given_time_for_its_output() {
    let mut machine = RunMachine::new(CONFIG);
    machine.apply(&report(&ready()), at(1));
    machine.apply(&report(&exited(3, false)), at(2));
    let job = job(JobStatus::Failed, "Failed", "AlgorithmError: , exit code: 3");
    assert_eq!(conclusion(machine.apply(&RunEvent::Job(Some(&job)), at(10))), None);
    assert_eq!(conclusion(machine.apply(&RunEvent::Tick, at(29))), None);
    let end = conclusion(machine.apply(&complete(3), at(29)));
    assert!(matches!(end, Some(Conclusion::Exited { code: 3, .. })), "{end:?}");
}

#[test]
fn what_the_jobs_image_cannot_do_is_the_jobs_failure() {
    for (by_job, kind) in [(true, LossKind::User), (false, LossKind::System)] {
        let mut machine = RunMachine::new(CONFIG);
        machine.apply(&report(&ready()), at(1));
        let failed = Report::Failed { order: "fetch".into(), reason: "no".into(), by_job };
        let end = conclusion(machine.apply(&report(&failed), at(2)));
        assert!(matches!(end, Some(Conclusion::Lost { by, .. }) if by == kind), "{end:?}");
    }
}

#[test]
fn a_job_that_fails_before_its_agent_is_lost_at_once() {
    let mut machine = RunMachine::new(CONFIG);
    let job = job(JobStatus::Failed, "Failed", "CapacityError: none");
    assert!(matches!(conclusion(machine.apply(&RunEvent::Job(Some(&job)), at(10))), Some(Conclusion::Lost { .. })));
}

#[test]
fn a_job_that_is_not_visible_yet_is_not_lost() {
    let mut machine = RunMachine::new(CONFIG);
    assert_eq!(machine.apply(&RunEvent::Job(None), at(3)), [], "created a moment ago");
    machine.apply(&RunEvent::Job(Some(&job(JobStatus::InProgress, "Starting", ""))), at(18));
    assert_eq!(machine.apply(&RunEvent::Job(None), at(33)), []);
    assert_eq!(machine.apply(&RunEvent::Job(None), at(48)), []);
    match conclusion(machine.apply(&RunEvent::Job(None), at(63))) {
        Some(Conclusion::Lost { reason, by: LossKind::System }) => {
            assert!(reason.contains("no longer exists"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cancel_ends_the_script_and_waits_for_it() {
    let mut machine = RunMachine::new(CONFIG);
    machine.apply(&report(&ready()), at(1));
    assert_eq!(machine.apply(&RunEvent::Cancel(CancelUrgency::Graceful), at(5)), [RunEffect::SendCancel]);
    machine.apply(&report(&exited(143, true)), at(6));
    assert_eq!(conclusion(machine.apply(&complete(143), at(6))), Some(Conclusion::Canceled { code: Some(143) }));
}

#[test]
fn a_cancel_that_nobody_hears_stops_the_job() {
    let mut machine = RunMachine::new(CONFIG);
    machine.apply(&report(&ready()), at(1));
    machine.apply(&RunEvent::Cancel(CancelUrgency::Graceful), at(5));
    assert_eq!(machine.apply(&RunEvent::Tick, at(64)), []);
    assert_eq!(machine.apply(&RunEvent::Tick, at(65)), [RunEffect::StopJob]);
    assert_eq!(conclusion(machine.apply(&RunEvent::Tick, at(95))), Some(Conclusion::Canceled { code: None }));
}

/// The order to end the script goes first; then reports are read once more, for an agent that came up in the meantime.
#[test]
fn a_cancel_while_provisioning_stops_the_job_once_no_agent_is_there() {
    let mut machine = RunMachine::new(CONFIG);
    assert_eq!(machine.apply(&RunEvent::Cancel(CancelUrgency::Graceful), at(5)), [RunEffect::SendCancel]);
    assert_eq!(machine.apply(&RunEvent::Tick, at(6)), []);
    let never_began = [RunEffect::StopJob, RunEffect::Conclude(Conclusion::NeverBegan)];
    assert_eq!(machine.apply(&RunEvent::ReadSinceCancel, at(6)), never_began);
}

#[test]
fn an_agent_that_comes_up_at_the_moment_of_the_cancel_is_heard() {
    let mut machine = RunMachine::new(CONFIG);
    machine.apply(&RunEvent::Cancel(CancelUrgency::Graceful), at(5));
    machine.apply(&report(&ready()), at(6));
    assert_eq!(machine.apply(&RunEvent::ReadSinceCancel, at(6)), [], "its script may have begun");
    machine.apply(&report(&exited(143, true)), at(7));
    assert_eq!(conclusion(machine.apply(&complete(143), at(7))), Some(Conclusion::Canceled { code: Some(143) }));
}

#[test]
fn a_cancel_while_provisioning_ends_although_the_store_is_silent() {
    let mut machine = RunMachine::new(CONFIG);
    machine.apply(&RunEvent::Cancel(CancelUrgency::Graceful), at(5));
    assert_eq!(machine.apply(&RunEvent::Tick, at(65)), [RunEffect::StopJob]);
    assert_eq!(conclusion(machine.apply(&RunEvent::Tick, at(95))), Some(Conclusion::NeverBegan));
    let mut machine = RunMachine::new(CONFIG);
    let effects = machine.apply(&RunEvent::Cancel(CancelUrgency::Immediate), at(5));
    assert_eq!(effects, [RunEffect::SendCancel, RunEffect::StopJob, RunEffect::Conclude(Conclusion::NeverBegan)]);
}

#[test]
fn a_stop_from_outside_is_a_loss_although_the_script_has_a_code() {
    let mut machine = RunMachine::new(CONFIG);
    machine.apply(&report(&ready()), at(1));
    machine.apply(&report(&exited(143, true)), at(6));
    assert_eq!(conclusion(machine.apply(&complete(143), at(6))), None, "by whom is not known yet");
    let job = job(JobStatus::Stopped, "MaxRuntimeExceeded", "");
    let end = conclusion(machine.apply(&RunEvent::Job(Some(&job)), at(8)));
    assert!(matches!(end, Some(Conclusion::Lost { by: LossKind::User, .. })), "{end:?}");
}

#[test]
fn provisioning_has_an_end() {
    let mut machine = RunMachine::new(CONFIG);
    let effects = machine.apply(&RunEvent::Tick, at(600));
    assert_eq!(effects.first(), Some(&RunEffect::StopJob));
    assert!(matches!(effects.last(), Some(RunEffect::Conclude(Conclusion::Lost { .. }))));
}

#[test]
fn the_code_is_that_of_the_node_that_failed_first() {
    let mut machine = RunMachine::new(RunConfig { nodes: 2, ..CONFIG });
    let (failed, passed) = (exited(4, false), exited(0, false));
    machine.apply(&RunEvent::Report { node: node(1), report: &passed }, at(1));
    machine.apply(&RunEvent::Trace { node: node(1), end: Some((0, 3)), complete: true }, at(1));
    machine.apply(&RunEvent::Report { node: node(2), report: &failed }, at(2));
    let effects = machine.apply(&RunEvent::Trace { node: node(2), end: Some((4, 3)), complete: true }, at(2));
    let end = Conclusion::Exited { code: 4, node: node(2), others: vec![], incomplete: vec![] };
    assert_eq!(conclusion(effects), Some(end));
}

#[test]
fn who_failed_first_is_told_by_the_nodes_own_clocks() {
    let mut machine = RunMachine::new(RunConfig { nodes: 3, ..CONFIG });
    let mut effects = Vec::new();
    for (node, code, when) in [(node(1), 5, 900), (node(2), 6, 300), (node(3), 7, 600)] {
        let exit = ExitReport {
            has_model: false,
            code,
            bytes: 3,
            hash: String::new(),
            canceled: false,
            at: when,
            ran: None,
            copy: Some(1),
        };
        machine.apply(&RunEvent::Report { node, report: &Report::Exited { run: 1, exit } }, at(2));
        effects = machine.apply(&RunEvent::Trace { node, end: Some((code, 3)), complete: true }, at(2));
    }
    let others = vec![(node(3), 7), (node(1), 5)];
    let end = Conclusion::Exited { code: 6, node: node(2), others, incomplete: vec![] };
    assert_eq!(conclusion(effects), Some(end));
}

#[test]
fn nodes_that_go_on_after_a_failure_are_ended_and_the_failure_counts() {
    let mut machine = RunMachine::new(RunConfig { nodes: 2, ..CONFIG });
    for node in [node(1), node(2)] {
        machine.apply(&RunEvent::Report { node, report: &ready() }, at(1));
    }
    machine.apply(&RunEvent::Report { node: node(2), report: &exited(4, false) }, at(5));
    machine.apply(&RunEvent::Trace { node: node(2), end: Some((4, 3)), complete: true }, at(5));
    assert_eq!(machine.apply(&RunEvent::Tick, at(64)), []);
    assert_eq!(machine.apply(&RunEvent::Tick, at(65)), [RunEffect::SendCancel]);
    assert_eq!(machine.apply(&RunEvent::Tick, at(66)), [], "told once");
    machine.apply(&RunEvent::Report { node: node(1), report: &exited(143, true) }, at(67));
    let effects = machine.apply(&RunEvent::Trace { node: node(1), end: Some((143, 3)), complete: true }, at(67));
    let others = vec![(node(1), 143)];
    let end = Conclusion::Exited { code: 4, node: node(2), others, incomplete: vec![] };
    assert_eq!(conclusion(effects), Some(end));
}

fn started() -> Report {
    Report::Started { run: 1, order: 2 }
}

#[test]
fn a_script_whose_container_was_started_again_is_interrupted() {
    let mut machine = RunMachine::new(CONFIG);
    for told in [ready(), started()] {
        machine.apply(&report(&told), at(1));
    }
    machine.apply(&report(&exited(143, true)), at(8));
    machine.apply(&complete(143), at(8));
    machine.apply(&report(&Report::Bye { reason: ByeReason::Stopped }), at(9));
    assert_eq!(machine.apply(&RunEvent::Tick, at(200)), [], "it may have been a stop");
    assert_eq!(machine.apply(&report(&ready()), at(300)), [], "other nodes' reports may not have been read");
    assert_eq!(conclusion(machine.apply(&RunEvent::Tick, at(300))), Some(Conclusion::Interrupted));
}

#[test]
fn a_script_that_had_ended_before_its_container_was_started_again_has_its_code() {
    let mut machine = RunMachine::new(CONFIG);
    for told in [ready(), started(), exited(3, false), ready()] {
        assert_eq!(machine.apply(&report(&told), at(1)), []);
    }
    assert_eq!(machine.apply(&RunEvent::Tick, at(1)), []);
    let end = conclusion(machine.apply(&complete(3), at(4)));
    assert!(matches!(end, Some(Conclusion::Exited { code: 3, .. })), "{end:?}");
}

#[test]
fn a_canceled_script_does_not_run_again() {
    let mut machine = RunMachine::new(CONFIG);
    for told in [ready(), started()] {
        machine.apply(&report(&told), at(1));
    }
    machine.apply(&RunEvent::Cancel(CancelUrgency::Graceful), at(2));
    machine.apply(&report(&ready()), at(3));
    assert_eq!(conclusion(machine.apply(&RunEvent::Tick, at(3))), Some(Conclusion::Canceled { code: None }));
}

#[test]
fn a_restart_before_the_script_began_changes_nothing() {
    let mut machine = RunMachine::new(CONFIG);
    let never_began = ExitReport {
        has_model: false,
        code: 143,
        bytes: 0,
        hash: String::new(),
        canceled: true,
        at: 0,
        ran: None,
        copy: Some(0),
    };
    for told in [ready(), Report::Exited { run: 1, exit: never_began }, ready(), started()] {
        machine.apply(&report(&told), at(1));
    }
    assert_eq!(machine.apply(&RunEvent::Tick, at(2)), []);
    machine.apply(&report(&exited(0, false)), at(3));
    let end = conclusion(machine.apply(&complete(0), at(4)));
    assert!(matches!(end, Some(Conclusion::Exited { code: 0, .. })), "{end:?}");
}

/// Of a container without network, the log or SageMaker's upload brings the reports, which may be after the job's end.
#[test]
fn late_reports_are_waited_for() {
    const LATE: RunConfig = RunConfig { reports_are_late: true, ..CONFIG };
    let completed = job(JobStatus::Completed, "Completed", "");
    let mut machine = RunMachine::new(LATE);
    let training = job(JobStatus::InProgress, "Training", "");
    machine.apply(&RunEvent::Job(Some(&training)), at(1));
    assert_eq!(machine.apply(&RunEvent::Tick, at(3600)), [], "its log cannot be read");
    assert_eq!(conclusion(machine.apply(&RunEvent::Job(Some(&completed)), at(3601))), None);
    machine.apply(&report(&ready()), at(3602));
    machine.apply(&report(&exited(3, false)), at(3602));
    let end = conclusion(machine.apply(&complete(3), at(3603))).unwrap();
    assert_eq!(end, Conclusion::Exited { code: 3, node: NODE, others: vec![], incomplete: vec![] });

    let mut machine = RunMachine::new(LATE);
    machine.apply(&report(&ready()), at(1));
    machine.apply(&report(&exited(0, false)), at(2));
    assert_eq!(machine.apply(&RunEvent::Tick, at(600)), [], "the rest of the output comes with the job's end");
    machine.apply(&RunEvent::Job(Some(&completed)), at(601));
    let end = conclusion(machine.apply(&RunEvent::Tick, at(622)));
    assert!(matches!(end, Some(Conclusion::Exited { incomplete, .. }) if incomplete == [NODE]));

    let mut machine = RunMachine::new(LATE);
    machine.apply(&RunEvent::Cancel(CancelUrgency::Graceful), at(1));
    assert_eq!(conclusion(machine.apply(&RunEvent::ReadSinceCancel, at(2))), None, "it may run unheard");
    let stopped = job(JobStatus::Stopped, "Stopped", "");
    assert_eq!(conclusion(machine.apply(&RunEvent::Job(Some(&stopped)), at(3))), None);
    assert_eq!(conclusion(machine.apply(&RunEvent::Tick, at(7))), Some(Conclusion::NeverBegan));
}
