//! The job log as people read it when a job ends badly: each error once, in its own words and color, with what helps at the end.

use serde_json::json;

use super::sagemaker::rows;
use super::sagemaker_desk::Desk;
use crate::support::driver::sagemaker_with;
use crate::support::emulator::quota_text;
use crate::support::job::{Artifacts, Job, Trigger, Variable};
use crate::support::outcome::Outcome;
use crate::support::scenario::{one, struck};

/// The label of an error, in red.
const ERROR: &str = "\u{1b}[31merror:\u{1b}[0m";

fn hanging() -> Job {
    Job::new().script(["echo reached-the-script", "sleep 3600"])
}

/// One error, with these words behind its label.
#[track_caller]
fn has_one_error(outcome: &Outcome, words: &str) {
    assert_eq!((outcome.count(ERROR), outcome.count("error: ")), (1, 0), "{outcome}");
    assert_eq!(outcome.count(&format!("{ERROR} {words}")), 1, "{words:?}\n{outcome}");
}

/// A script that writes 30 lines, sections, bars and a secret, and is killed.
fn killed() -> Job {
    Job::new()
        .variable(Variable::new("PASSWORD", "hunter22-and-more").masked())
        .script([
            "i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo \"epoch $i\"; done",
            "printf '\\033[32mgreen\\033[0m %s\\n' \"$PASSWORD\"",
            "printf 'section_start:1:mine\\r\\033[0Kfolded\\n10 %%\\r99 %%\\n' && bash -c 'kill -9 $$'",
        ])
        .after_script(["echo after"])
        .artifacts(Artifacts::paths(["x"]).when("always"))
}

rows! {
    a_cancel_has_its_words {
        driver: sagemaker_with(&[], ""),
        play: |world| one(world, &hanging().when_trace_contains("\nreached-the-script", Trigger::Cancel)),
        expect: |_, outcomes| {
            outcomes[0].failed("job_canceled", None);
            has_one_error(&outcomes[0], "the job was canceled, or GitLab Runner was stopped, so the script was ended\n");
            outcomes[0].shows("\nSageMaker: ").shows("\nBilled ");
        },
    }
    a_job_timeout_has_its_words {
        driver: sagemaker_with(&[], ""),
        play: |world| one(world, &hanging().timeout(12)),
        expect: |_, outcomes| {
            outcomes[0].failed("job_execution_timeout", None);
            has_one_error(&outcomes[0], "the job's `timeout` of 12 s is over, so the script was ended\n  hint: raise `timeout`");
        },
    }
    a_script_timeout_has_its_words {
        driver: sagemaker_with(&[], ""),
        needs: ["unzip"],
        play: |world| one(world, &hanging().set("RUNNER_SCRIPT_TIMEOUT", "8s").after_script(["echo after-the-script"])
            .artifacts(Artifacts::paths(["sagemaker-report.html"]).when("always"))),
        expect: |_, outcomes| {
            outcomes[0].failed("job_execution_timeout", None).shows("\nafter-the-script\n");
            has_one_error(&outcomes[0], "the `RUNNER_SCRIPT_TIMEOUT` of 8 s is over, so the script was ended\n  hint: raise");
            let page = String::from_utf8(outcomes[0].artifact("archive").files()["sagemaker-report.html"].clone()).unwrap();
            assert!(page.contains("No exit code: the `RUNNER_SCRIPT_TIMEOUT` of 8 s is over"), "{page}");
        },
    }
    a_cancel_before_an_instance_has_its_words {
        driver: sagemaker_with(&["--starting-delay", "1h"], ""),
        play: |world| one(world, &hanging().after_script(["echo never"]).when_trace_contains("\nStarting (", Trigger::Cancel)),
        expect: |_, outcomes| {
            outcomes[0].failed("job_canceled", None);
            let stopped = "the training job was stopped before its instance was up\n";
            has_one_error(&outcomes[0], &format!("the job was canceled, or GitLab Runner was stopped, so {stopped}"));
        },
    }
    /// Cause and hint stand once, below the last lines: these are in sight and not repeated.
    a_killed_script_ends_with_its_cause {
        driver: sagemaker_with(&[], ""),
        play: |world| one(world, &killed()),
        expect: |_, outcomes| {
            outcomes[0].failed("script_failure", Some(137)).hides("hunter22").shows("\nafter\n").hides("again:");
            has_one_error(&outcomes[0], "the script, or a program in it, was killed with SIGKILL (137), most often out of memory\n");
            assert_eq!(outcomes[0].count("epoch 30\n"), 1, "{}", outcomes[0]);
        },
    }
    /// An ordinary failure has its own words; ours would only repeat them.
    an_ordinary_failure_has_no_error_of_ours {
        driver: sagemaker_with(&[], ""),
        play: |world| one(world, &Job::new().script(["echo 'ValueError: loss is NaN'", "exit 3"]).after_script(["true"])),
        expect: |_, outcomes| {
            outcomes[0].failed("script_failure", Some(3)).hides(ERROR).hides("warning:").hides("again:");
        },
    }
    /// The container is lost with all that was in it, in the script and for good.
    a_lost_container_is_told_once {
        driver: sagemaker_with(&[], ""),
        play: |world| {
            let job = hanging().after_script(["echo never"]).artifacts(Artifacts::paths(["x"]).when("always"));
            vec![struck(world, "reached-the-script", "kill", &job)]
        },
        expect: |_, outcomes| {
            outcomes[0].failed("script_failure", Some(137)).hides("\nnever\n");
            has_one_error(&outcomes[0], "the container was killed with SIGKILL (137), most often out of memory");
            assert_eq!(outcomes[0].count("`after_script` is skipped: the training job was lost, see the error above"), 1);
            outcomes[0].hides("again:");
        },
    }
    a_failed_training_job_is_told_once {
        driver: sagemaker_with(&[], ""),
        play: |world| {
            let reason = "InternalServerError: We encountered an internal error. Please try again.";
            world.emulator.as_ref().unwrap().set_faults(&json!({"jobs": [{"trouble": {"fail": {"reason": reason}}}]}));
            one(world, &hanging().after_script(["echo never"]))
        },
        expect: |_, outcomes| {
            outcomes[0].failed("runner_system_failure", None);
            has_one_error(&outcomes[0], "SageMaker failed: InternalServerError");
        },
    }
    a_fallback_says_what_was_refused {
        driver: sagemaker_with(&[], ""),
        play: |world| {
            world.emulator.as_ref().unwrap().set_faults(&json!({"calls": [{"operation": "CreateTrainingJob", "count": 1,
                "error": "ResourceLimitExceeded", "message": quota_text("ml.p4d.24xlarge", 0)}]}));
            one(world, &Job::new().set("SAGEMAKER_INSTANCE_TYPE", crate::scenarios::sagemaker_life::TYPES).script(["echo on"]))
        },
        expect: |_, outcomes| {
            outcomes[0].succeeded().hides(ERROR).shows("Instance: ml.m5.large x 1");
            let told = "Refused, so ml.m5.large was asked for: ml.p4d.24xlarge: ResourceLimitExceeded: The account-level service limit 'ml.p4d.24xlarge for training job usage' is";
            assert_eq!(outcomes[0].count(told), 1, "{}", outcomes[0]);
        },
    }
    a_lack_of_capacity_says_why_the_next_type_is_asked_for {
        driver: sagemaker_with(&[], ""),
        play: |world| {
            world.emulator.as_ref().unwrap().set_faults(&json!({"jobs": [{"count": 1, "trouble": "capacity"}]}));
            one(world, &Job::new().set("SAGEMAKER_INSTANCE_TYPE", crate::scenarios::sagemaker_life::TYPES).script(["echo on"]))
        },
        expect: |_, outcomes| {
            outcomes[0].succeeded().hides(ERROR);
            let told = "There is no capacity for ml.p4d.24xlarge: requesting ml.m5.large";
            assert_eq!((outcomes[0].count(told), outcomes[0].count("SageMaker said: CapacityError")), (1, 1), "{}", outcomes[0]);
            // GitLab folds sections by their names.
            assert_eq!(outcomes[0].count(":sagemaker_provisioning["), 1);
            assert_eq!(outcomes[0].count(":sagemaker_provisioning_job_2["), 1);
            outcomes[0].shows("Using Custom executor with driver sagemaker-executor ");
        },
    }
    /// A refusal in `prepare` that a retry cannot mend: one attempt, one error.
    a_refused_wish_is_told_once {
        driver: sagemaker_with(&[], ""),
        play: |world| one(world, &Job::new().set("SAGEMAKER_INSTANCE_COUNT", "0").script(["echo never"])),
        expect: |_, outcomes| {
            outcomes[0].failed("script_failure", Some(1));
            has_one_error(&outcomes[0], "`SAGEMAKER_INSTANCE_COUNT` is 0; it goes from 1 to 100\n");
        },
    }
}

/// What ends with a limit of SageMaker's says which key of whom raises it.
#[test]
fn the_longest_run_time_names_all_that_bound_it() {
    let mut desk = Desk::new(&Job::new().script(["true"]));
    desk.set("SAGEMAKER_MAX_RUNTIME", "3");
    let desk = desk.prepared();
    let ended = desk.run("build_script", "echo reached; sleep 3600");
    ended.with_code(super::sagemaker_desk::BUILD_FAILURE).one_error();
    ended.says("`SAGEMAKER_MAX_RUNTIME`").says("`timeout`").says("`job.max_runtime_seconds`").hides("again:");
    desk.close();
}
