//! Jobs whose containers have no network: each container stage is a training job of its own, and what a script leaves reaches the next one
//! and the host.

use rustix::process::Signal;
use serde_json::json;

use super::sagemaker::rows;
use super::sagemaker_desk::{BUILD_FAILURE, Desk, SYSTEM_FAILURE};
use super::sagemaker_resume::is_followed_on;
use crate::support::driver::{Driver, sagemaker, sagemaker_isolated, sagemaker_isolated_with};
use crate::support::emulator::{Emulator, quota_text};
use crate::support::job::{Artifacts, Job, Trigger};
use crate::support::scenario::one;
use crate::support::waiting::{find_program, tell};
use crate::support::world::World;

/// Connects to the emulator, which listens on this machine, and to another address of the network.
const REACH: &str = "for place in ${AWS_ENDPOINT_URL#http://} 127.0.0.1:PORT 10.255.255.1:80; do \
     (timeout 5 bash -c \"exec 3<>/dev/tcp/${place%:*}/${place##*:}\") 2>/dev/null && echo reached-$place || echo no-way-to-$place; done";

fn port(emulator: &Emulator) -> String {
    emulator.endpoint.rsplit(':').next().unwrap_or_default().trim_end_matches('/').to_owned()
}

fn reach(world: &World) -> String {
    REACH.replace("PORT", &port(world.emulator.as_ref().unwrap()))
}

rows! {
    /// Neither AWS nor anything else is reached from the script, there are no credentials, and the trace says beforehand what it costs.
    no_way_out {
        driver: sagemaker_isolated(),
        play: |world| {
            let reach = reach(world);
            one(world, &Job::new()
                .script([reach.as_str(), "env | grep -c AWS_CONTAINER || true", "echo \"interfaces: $(ls /sys/class/net | tr '\\n' ' ')\""]))
        },
        expect: |world, outcomes| {
            outcomes[0].succeeded().shows("Network isolation: the containers have no network").shows("\nno-way-to-")
                .hides("\nreached-").shows("\n0\n");
            let jobs = world.emulator.as_ref().unwrap().jobs();
            assert_eq!(jobs.len(), 1, "one container stage is one training job");
            assert_eq!(jobs[0]["EnableNetworkIsolation"], true);
            assert_eq!(jobs[0]["TrainingJobStatus"], "Completed");
        },
    }
    /// The next container has all of the project as the script has left it, also what no artifact names and what is gone.
    after_script_has_the_files {
        driver: sagemaker_isolated(),
        needs: ["git", "unzip"],
        play: |world| {
            let repository = world.repository("ml/churn");
            let sha = repository.commit("main", &[("kept.txt", "kept\n"), ("gone.txt", "gone\n"), ("dir/old.txt", "old\n")]);
            one(world, &Job::new().sources(&repository, "main", &sha).set("SAGEMAKER_METRICS", r"loss=loss: ([-+.\w]+)")
                .script(["echo loss: 0.25", "rm gone.txt dir/old.txt", "echo new > dir/new.txt", "echo unnamed > scratch", "chmod 750 scratch", "ln -s scratch link", "false"])
                .after_script(["echo \"after: $(ls) $(cat link) $(stat -c %a scratch) $CI_JOB_STATUS\"", "git status --short", "echo more >> dir/new.txt"])
                .artifacts(Artifacts::paths(["dir", "kept.txt"]).when("always")))
        },
        expect: |world, outcomes| {
            let outcome = outcomes[0].failed("script_failure", Some(1));
            outcome.shows("\nafter: dir\nkept.txt\nlink\nscratch unnamed 750 failed\n").shows("\n D gone.txt\n").shows("2 training jobs, one after the other");
            let files = outcome.artifact("archive").files();
            outcome.shows("\nMetric loss ▅ first 0.25, last 0.25, best 0.25\n").hides("had a value for");
            assert_eq!(files["dir/new.txt"], b"new\nmore\n");
            assert_eq!(files["kept.txt"], b"kept\n");
            assert!(!files.contains_key("dir/old.txt"), "a deletion reaches the host: {:?}", files.keys());
            assert_eq!(world.emulator.as_ref().unwrap().jobs().len(), 2);
        },
    }
    /// A cancel stops the training job, and `after_script` follows with what the script had written.
    cancel {
        driver: sagemaker_isolated(),
        play: |world| one(world, &Job::new()
            .script(["echo half > model.txt", "echo reached-the-script", "sleep 3600"])
            .after_script(["echo \"after: $(cat model.txt) $CI_JOB_STATUS\""])
            .when_trace_contains("\nreached-the-script", Trigger::Cancel)),
        expect: |world, outcomes| {
            outcomes[0].failed("job_canceled", None).shows("\nafter: half canceled\n");
            let jobs = world.emulator.as_ref().unwrap().jobs();
            assert_eq!(jobs.iter().filter(|job| job["TrainingJobStatus"] == "Stopped").count(), 1, "{jobs:?}");
        },
    }
    /// The log brings everything late and in disorder, some of it never: what is missing comes with the end of the training job.
    late_and_lossy_log {
        driver: sagemaker_isolated_with(&["--log-delay", "3s"]),
        play: |world| {
            world.emulator.as_ref().unwrap().set_faults(&json!({"logs": {"lost": 300, "doubled": 200, "shuffled": 500, "late": 300, "late_ms": 2000}}));
            one(world, &Job::new().script(["for i in $(seq 300); do echo line-$i; done", "exit 7"]))
        },
        expect: |_, outcomes| {
            let outcome = outcomes[0].failed("script_failure", Some(7));
            let lines: Vec<String> = (1..=300).map(|number| format!("line-{number}\n")).collect();
            let lines = lines.concat();
            outcome.shows(&lines).hides("are missing");
        },
    }
}

/// The nodes of one job reach each other, and nothing else: neither the emulator, which listens on this machine, nor another address.
#[test]
fn nodes_reach_each_other() {
    if !rustix::process::geteuid().is_root() || find_program("ip").is_none() {
        tell("SKIPPED: a network for several isolated containers: not root, or no `ip` (iproute2)");
        return;
    }
    let mut desk = Desk::of(&sagemaker_isolated(), &std::env::temp_dir(), &Job::new().script(["true"]));
    desk.set("SAGEMAKER_INSTANCE_COUNT", "2");
    let desk = desk.prepared();
    let reach = REACH.replace("PORT", &port(&desk.emulator));
    let ended = desk.run(
        "build_script",
        &format!(
            "{reach}\nls /sys/class/net/$SM_NETWORK_INTERFACE_NAME >/dev/null && echo its-interface-is-there\n\
             if [ $NODE_RANK = 0 ]; then python3 -c 'import socket; s = socket.create_server((\"algo-1\", 7777)); c = s.accept()[0]; print(\"heard\", c.recv(9))'; \
             else for i in $(seq 100); do (exec 3<>/dev/tcp/algo-1/7777 && echo hello >&3) 2>/dev/null && break; sleep 0.1; done; fi"
        ),
    );
    let out = ended.passed().out();
    assert!(out.contains("heard b'hello"), "{ended}");
    assert_eq!(out.matches("no-way-to-").count(), 4, "two places from each of two nodes: {ended}");
    assert!(!out.contains("reached-"), "{ended}");
    assert_eq!(out.matches("its-interface-is-there").count(), 2, "{ended}");
    desk.close();
}

/// The last container sends the files; of a job whose last container never began, the host takes what the stage before has left.
#[test]
fn results_come_from_the_stage_before_when_the_last_stage_never_begins() {
    let job = Job::new().script(["true"]).after_script(["true"]).artifacts(Artifacts::paths(["out"]));
    let desk = Desk::of(&sagemaker_isolated(), &std::env::temp_dir(), &job).prepared();
    let project = desk.project();
    desk.run(
        "build_script",
        &format!("cd {}; mkdir out; echo trained >out/model; echo unnamed >scratch", project.display()),
    )
    .passed();
    let denied = json!({"operation": "CreateTrainingJob", "from": 1, "count": 99, "error": "AccessDeniedException", "message": "no"});
    desk.emulator.set_faults(&json!({"calls": [denied]}));
    desk.run("after_script", "true").with_code(SYSTEM_FAILURE).says("AccessDeniedException");
    let ended = desk.run("upload_artifacts_on_success", &format!("cd {}; ls; cat out/model", project.display()));
    ended.passed().says("the results are those that the stage before it left");
    assert_eq!(ended.out(), "out\ntrained\n", "{ended}");
    desk.close();
}

/// What cannot go together with isolation is refused by name before anything is created.
#[test]
fn wrong_wishes_are_refused() {
    for (name, value, hint) in [
        ("SAGEMAKER_CHECKPOINTS", "true", "set `SAGEMAKER_CHECKPOINTS` to `false`"),
        ("SAGEMAKER_SPOT", "true", "set `SAGEMAKER_SPOT` to `false`"),
        ("SAGEMAKER_RETRIES", "1", "set `SAGEMAKER_RETRIES` to `0`"),
        ("SAGEMAKER_MODEL_OUTPUT", "s3://elsewhere/models", "let `artifacts:` keep the model"),
    ] {
        let driver = super::sagemaker_power::allowing(sagemaker());
        let more = "network_isolation = \"allow\", model_outputs = [\"s3://elsewhere/**\"], max_volume_size_gb";
        let operator_config = driver.operator_config.replace("max_volume_size_gb", more);
        let driver = Driver { operator_config, ..driver };
        let mut desk = Desk::of(&driver, &std::env::temp_dir(), &Job::new().script(["true"]));
        desk.config().passed();
        desk.set("SAGEMAKER_NETWORK_ISOLATION", "true");
        desk.set(name, value);
        let refused = desk.call(&["prepare"]);
        refused.with_code(BUILD_FAILURE).says("cannot go together").says(hint);
        assert!(desk.emulator.jobs().is_empty());
    }
}

/// A driver that is killed is followed by another one, which prints on; the script runs once.
#[test]
fn a_killed_driver_is_taken_over() {
    let desk = Desk::of(&sagemaker_isolated(), &std::env::temp_dir(), &Job::new().script(["true"]));
    is_followed_on(desk, &["line 3\n"]);
}

/// A driver that is killed while it waits for a quota is followed by another one, which waits on.
#[test]
fn a_killed_driver_in_the_queue_is_taken_over() {
    let desk = Desk::of(&sagemaker_isolated(), &std::env::temp_dir(), &Job::new().script(["true"])).prepared();
    let message = quota_text("ml.m5.large", 1);
    let full = |count: u32| json!({"calls": [{"operation": "CreateTrainingJob", "count": count, "error": "ResourceLimitExceeded", "message": message}]});
    desk.emulator.set_faults(&full(9999));
    let mut run = desk.start_run("build_script", "echo granted");
    run.until("The job waits for ml.m5.large");
    run.signal(Signal::KILL);
    run.end();
    desk.emulator.set_faults(&full(1));
    let ended = desk.run("build_script", "echo granted");
    ended.passed().says("SageMaker granted ml.m5.large");
    assert_eq!(ended.out(), "granted\n", "{ended}");
    assert_eq!(desk.emulator.jobs().len(), 1);
    desk.close();
}

/// Each stage takes the next type, and gets the files of the stage before although its own training job was replaced.
#[test]
fn a_type_without_capacity_is_replaced_in_each_stage() {
    let job = Job::new().script(["true"]).after_script(["true"]).artifacts(Artifacts::paths(["model"]));
    let mut desk = Desk::of(&sagemaker_isolated(), &std::env::temp_dir(), &job);
    desk.set("SAGEMAKER_INSTANCE_TYPE", "ml.p4d.24xlarge,ml.m5.large");
    desk.emulator.set_faults(&json!({"jobs": [{"instance_type": "ml.p4d.24xlarge", "trouble": "capacity"}]}));
    let desk = desk.prepared();
    let project = desk.project();
    for (stage, step) in [("build_script", "echo made >model"), ("after_script", "echo more >>model")] {
        let ended = desk.run(stage, &format!("cd {}; {step}", project.display()));
        ended.passed();
        if stage == "build_script" {
            ended.says("There is no capacity for ml.p4d.24xlarge: requesting ml.m5.large");
        }
    }
    desk.run("upload_artifacts_on_success", "true").passed();
    assert_eq!(std::fs::read_to_string(project.join("model")).unwrap(), "made\nmore\n");
    desk.close();
}

/// No lease ends the training job of a host that was lost: a sweep does.
#[test]
fn a_host_that_lost_everything_is_swept_up_after() {
    let desk = Desk::of(&sagemaker_isolated(), &std::env::temp_dir(), &Job::new().script(["true"])).prepared();
    let mut run = desk.start_run("build_script", "echo reached; sleep 3600");
    run.until("reached");
    run.signal(Signal::KILL);
    run.end();
    desk.call(&["sweep"]).with_code(0).says("Nothing is left over");
    desk.call(&["sweep", "--older-than", "0s"]).with_code(0).says("Ended gitlab-");
    desk.is_left_clean();
    desk.close();
}
