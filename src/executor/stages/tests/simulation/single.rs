//! Sessions with one fault each, in virtual time: a store that cannot be reached for minutes, a container that is killed.

use std::time::Duration;

use super::plan::{Leaving, Plan, Trouble};
use super::{Trail, Verdict, runner};

/// A calm session of a script that prints a line each half minute.
fn calm(lines: u32) -> Plan {
    let line = |number: u32| (Duration::from_secs(30), format!("<{number}>\n"));
    Plan {
        seed: 1,
        nodes: 1,
        code: 0,
        has_after_script: true,
        pieces: (0..lines).map(line).collect(),
        provisioning: Duration::from_secs(20),
        hidden: 0,
        without_capacity: 0,
        leaves: None,
        kills: Vec::new(),
        cancel: None,
        trouble: None,
        jump: None,
        gap: Duration::from_secs(1),
        interruptions: Vec::new(),
        may_rerun: false,
    }
}

/// A session whose host does not reach the store from the second minute on, for so long.
fn without_store(lines: u32, away: Duration) -> (Trail, Verdict) {
    let trouble = Trouble { away: Some((Duration::from_mins(2), away)), one_in: u64::MAX };
    played(&Plan { trouble: Some(trouble), ..calm(lines) })
}

fn played(plan: &Plan) -> (Trail, Verdict) {
    fastrand::seed(plan.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(runner::play(plan))
}

/// The ends of the stages, in order: `build_script Done`.
fn ends(trail: &Trail) -> Vec<String> {
    let ends = trail.iter().filter_map(|line| line.split_once(" end ").map(|(_, end)| end));
    ends.map(|end| end.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

/// The lease is 15 minutes by default; the script ends before it.
#[test]
fn an_outage_shorter_than_the_lease_loses_nothing() {
    let (trail, verdict) = without_store(20, Duration::from_mins(10));
    assert_eq!(verdict, Ok(0), "{}", trail.join("\n"));
    let expected = [
        "prepare Done",
        "get_sources Done",
        "build_script Done",
        "after_script Done",
        "upload_artifacts_on_success Done",
        "cleanup_file_variables Done",
        "cleanup Done",
    ];
    assert_eq!(ends(&trail), expected, "{}", trail.join("\n"));
}

#[test]
fn an_outage_longer_than_the_lease_ends_the_job_once() {
    let (trail, verdict) = without_store(50, Duration::from_mins(20));
    assert_eq!(verdict, Ok(0), "{}", trail.join("\n"));
    let expected = [
        "prepare Done",
        "get_sources Done",
        "build_script Lost",
        "after_script Done",
        "upload_artifacts_on_failure Done",
        "cleanup_file_variables Done",
        // GitLab Runner does not show it; a later pass deletes the objects.
        "cleanup Lost",
    ];
    assert_eq!(ends(&trail), expected, "{}", trail.join("\n"));
    let told = trail.iter().filter(|line| line.contains("the bucket could not be reached for 15m")).count();
    assert_eq!(told, 1, "{}", trail.join("\n"));
}

/// The time of the first line of the trail with this text, in milliseconds.
fn time_of(trail: &Trail, text: &str) -> u64 {
    let line = trail.iter().find(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text:?}"));
    line.split_whitespace().next().and_then(|time| time.parse().ok()).expect("a line begins with its time")
}

/// Whenever the container ends between two looks of the driver; both times have the resolution of a look at the fakes.
#[test]
fn a_killed_container_is_told_within_20_seconds() {
    for (leaving, cause) in
        [(Leaving::Killed, "killed with SIGKILL (137)"), (Leaving::InstanceLost, "InternalServerError")]
    {
        for second in 0..15 {
            let leaves = Some((Duration::from_secs(65 + second), leaving));
            let (trail, verdict) = played(&Plan { leaves, ..calm(20) });
            assert_eq!(verdict, Ok(0), "{}", trail.join("\n"));
            let took = time_of(&trail, " end build_script") - time_of(&trail, " is Failed");
            assert!(took <= 20_000, "told after {took} ms\n{}", trail.join("\n"));
            // "run 1 <0>" and "<1>": all that was printed before.
            for text in [cause, " 14 bytes of output"] {
                assert!(trail.iter().any(|line| line.contains(text)), "no {text:?}\n{}", trail.join("\n"));
            }
        }
    }
}
