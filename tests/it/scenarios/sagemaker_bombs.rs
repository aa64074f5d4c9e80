//! A job that takes more of its runner host than a stage may: files, bytes, processes, memory. Each bomb is small, and so are the limits.

use std::path::PathBuf;

use super::sagemaker_sandbox::{as_ordinary_user, scenario};
use crate::support::driver::{Driver, sagemaker, sandboxed, sandboxed_as_root, sandboxed_with};
use crate::support::job::Job;
use crate::support::outcome::Outcome;
use crate::support::scenario::{With, play};
use crate::support::waiting::tell;
use crate::support::world::World;

const LIMITS: &str = "max_processes = 60\nmax_memory_bytes = 300000000\nmax_bytes = 50000000\nmax_files = 1000\n";

/// Bombs, as shell commands that fail when the kernel refuses them.
const BOMBS: [(&str, &str); 4] = [
    ("files", "perl -e 'for (1..3000) { open(F, \">\", \"file-$_\") or exit 1 }'"),
    ("bytes", "for part in 1 2 3 4 5 6 7 8; do head -c 10000000 /dev/zero > part-$part; done"),
    (
        "processes",
        "perl -e 'for (1..200) { my $child = fork; if (!defined $child) { kill 9, @all; exit 1 } if (!$child) { sleep 3600; exit } push @all, $child }
            sleep 3600 if -e \"/sandbox-init\"; kill 9, @all'",
    ),
    ("memory", "perl -e 'my $x = \"x\" x 400_000_000'"),
];

/// In the sandbox the stage would go on for an hour.
fn explode(world: &World) -> Vec<Outcome> {
    let repository = world.repository("ml/churn");
    let sha = repository.commit("main", &[("a.txt", "a")]);
    let run = |(name, bomb): &(&str, &str)| {
        let hook = format!(
            "if ( {bomb}\n) 2> /dev/null; then echo {name}-are-taken; [ ! -e /sandbox-init ] || sleep 3600; else echo {name}-are-refused; fi"
        );
        let job = Job::new().sources(&repository, "main", &sha).hook("post_get_sources_script", [hook.as_str()]);
        world.run(&job.set("GIT_STRATEGY", "clone").script(["true"]))
    };
    BOMBS.iter().map(run).collect()
}

fn limited(driver: &Driver) -> Driver {
    Driver { adjust: driver.adjust, ..sandboxed_with(LIMITS) }
}

fn ends_with(outcome: &Outcome, key: &str) {
    outcome.failed("script_failure", Some(1)).shows(&format!("the limit is `{key}` of the operator's file"));
}

#[test]
fn every_bomb_goes_off_without_the_sandbox() {
    let taken = |_: &World, outcomes: &[Outcome]| {
        for (outcome, (name, _)) in outcomes.iter().zip(BOMBS) {
            outcome.succeeded().shows(&format!("\n{name}-are-taken"));
        }
    };
    play(&scenario("bombs", explode, taken), With::RealRunner, sagemaker());
    play(&scenario("bombs", explode, taken), With::RealRunner, as_ordinary_user());
}

#[test]
fn every_bomb_is_stopped_in_the_sandbox() {
    let stopped = |_: &World, outcomes: &[Outcome]| {
        ends_with(&outcomes[0], "sandbox.max_files");
        ends_with(&outcomes[1], "sandbox.max_bytes");
        outcomes[2].succeeded().shows("\nprocesses-are-refused");
        outcomes[3].succeeded().shows("\nmemory-are-refused");
    };
    play(&scenario("bombs", explode, stopped), With::RealRunner, limited(&sandboxed()));
}

/// The kernel's limit of processes does not bind root.
#[test]
fn every_bomb_is_stopped_in_the_sandbox_of_root() {
    let stopped = |world: &World, outcomes: &[Outcome]| {
        ends_with(&outcomes[0], "sandbox.max_files");
        ends_with(&outcomes[1], "sandbox.max_bytes");
        if rustix::process::geteuid().is_root() {
            ends_with(&outcomes[2], "sandbox.max_processes");
        }
        outcomes[3].succeeded().shows("\nmemory-are-refused");
        assert!(!world.settings.ordinary_user);
    };
    play(&scenario("bombs", explode, stopped), With::RealRunner, limited(&sandboxed_as_root()));
}

/// The group that holds the suite's own, where the service manager gave it away with the controllers that the limits need.
fn divisible_group() -> Option<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let parent = std::path::Path::new("/sys/fs/cgroup").join(own).parent()?.to_owned();
    let offered = std::fs::read_to_string(parent.join("cgroup.controllers")).ok()?;
    let is_given = rustix::fs::getxattr(&parent, "user.delegate", &mut [0; 8][..]).is_ok();
    (!own.is_empty() && is_given && offered.contains("memory") && offered.contains("pids")).then_some(parent)
}

/// Together the processes use more than a stage may, each of them less.
#[test]
fn memory_is_that_of_the_whole_stage_in_a_control_group() {
    let Some(parent) = divisible_group() else {
        tell("SKIPPED: limits of a control group: the suite's service has no `Delegate=yes` with `DelegateSubgroup=`");
        return;
    };
    let share = |world: &World| {
        let repository = world.repository("ml/churn");
        let sha = repository.commit("main", &[("a.txt", "a")]);
        let hook = "for part in 1 2 3 4; do perl -e 'my $x = \"x\" x 150_000_000; sleep 5' & done; wait -n; wait -n; wait -n; wait -n";
        let job = Job::new().sources(&repository, "main", &sha).hook("post_get_sources_script", [hook]);
        vec![world.run(&job.script(["true"]))]
    };
    let ended = |_: &World, outcomes: &[Outcome]| ends_with(&outcomes[0], "sandbox.max_memory_bytes");
    play(&scenario("memory of a stage", share, ended), With::RealRunner, limited(&sandboxed_as_root()));
    let is_ours = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("sagemaker-executor-");
    assert!(!std::fs::read_dir(parent).unwrap().flatten().any(is_ours), "a group is left");
}
