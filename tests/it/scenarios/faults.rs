//! Faults in and around the driver: preparation, exit codes of the driver, cleanup, strange output.

use crate::support::driver::{Act, Fault, REFERENCE};
use crate::support::job::{Job, Trigger};
use crate::support::outcome::Outcome;
use crate::support::scenario::{one, scenarios};
use crate::support::world::{Settings, World};

fn fault(stage: &'static str, times: usize, act: Act) -> Settings {
    Settings { faults: vec![Fault { stage, times, act }], ..Settings::default() }
}

fn plain(world: &World) -> Vec<Outcome> {
    one(world, &Job::new().script(["echo the-script-ran"]).after_script(["echo after-$CI_JOB_STATUS"]))
}

scenarios! {
    prepare_fails_once {
        settings: || fault("prepare", 1, Act::Exit(2)),
        play: plain,
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("Preparation failed").ran(&[
                "config", "prepare", "cleanup", "config", "prepare", "run prepare_script", "run get_sources",
                "run build_script", "run after_script", "run cleanup_file_variables", "cleanup",
            ]);
        },
    }
    /// A preparation that takes too long is terminated, cleaned up and tried again.
    prepare_takes_too_long {
        settings: || Settings { prepare_exec_timeout: 4, ..fault("prepare", 1, Act::Hang) },
        play: plain,
        expect: |_, outcomes| {
            outcomes[0].succeeded().called("prepare", 2).called("cleanup", 2).shows("the-script-ran");
        },
    }
    /// Why a driver must never leave with 0 when it is terminated: the runner takes the call as done and goes on.
    code_0_on_sigterm_counts_as_done {
        settings: || Settings {
            prepare_exec_timeout: 1,
            ..fault("prepare", 1, Act::Shell("trap 'exit 0' TERM; sleep 3600 & wait"))
        },
        play: plain,
        expect: |world, outcomes| {
            outcomes[0].called("prepare", 1).called("cleanup", 1);
            if world.driver.name == REFERENCE {
                outcomes[0].succeeded().shows("the-script-ran");
            } else {
                // Nothing was prepared, so there is no training job to run in; the trace says so.
                outcomes[0].failed("runner_system_failure", None).hides("the-script-ran").shows("has no record in");
            }
        },
    }
    /// What a retry cannot mend is not retried.
    prepare_refuses_the_job {
        settings: || fault("prepare", 3, Act::Shell("echo 'that image is not allowed' >&2; exit $BUILD_FAILURE_EXIT_CODE")),
        play: plain,
        expect: |_, outcomes| {
            outcomes[0].failed("script_failure", Some(1)).shows("that image is not allowed")
                .ran(&["config", "prepare", "cleanup"]);
        },
    }
    prepare_always_fails {
        settings: || fault("prepare", 3, Act::Exit(2)),
        play: plain,
        expect: |_, outcomes| {
            outcomes[0].failed("runner_system_failure", None).called("config", 3).called("prepare", 3).called("cleanup", 3);
        },
    }
    config_prints_no_json {
        settings: || fault("config", 1, Act::Shell("echo; exit 0")),
        play: plain,
        expect: |_, outcomes| {
            outcomes[0].succeeded().called("config", 2).called("prepare", 1).called("cleanup", 2);
        },
    }
    config_names_no_directory {
        settings: || fault("config", 1, Act::Shell("echo '{}'; exit 0")),
        play: plain,
        expect: |_, outcomes| {
            outcomes[0].failed("script_failure", None).shows("builds_dir is not configured").ran(&["config", "cleanup"]);
        },
    }
    driver_build_failure {
        settings: || fault("run build_script", 1, Act::Exit(1)),
        play: plain,
        expect: |_, outcomes| { outcomes[0].failed("script_failure", Some(1)).shows("after-failed"); },
    }
    driver_system_failure {
        settings: || fault("run build_script", 1, Act::Exit(2)),
        play: plain,
        expect: |_, outcomes| { outcomes[0].failed("runner_system_failure", None).shows("after-failed"); },
    }
    driver_unknown_failure {
        settings: || fault("run build_script", 1, Act::Exit(255)),
        play: plain,
        expect: |_, outcomes| { outcomes[0].failed("runner_system_failure", None).shows("255"); },
    }
    driver_killed {
        settings: || fault("run build_script", 1, Act::Shell("kill -KILL $$")),
        play: plain,
        expect: |_, outcomes| { outcomes[0].failed("runner_system_failure", None).shows("after-failed"); },
    }
    /// A code file that is empty turns a failed script into a system failure; a stale one names a wrong code.
    empty_code_file {
        settings: || fault("run build_script", 1, Act::Shell(": > $BUILD_EXIT_CODE_FILE; exit 1")),
        play: plain,
        expect: |_, outcomes| { outcomes[0].failed("runner_system_failure", None); },
    }
    code_file_with_more_lines {
        settings: || fault("run build_script", 1, Act::Shell("printf '42\\nmore\\n' > $BUILD_EXIT_CODE_FILE; exit 1")),
        play: plain,
        expect: |_, outcomes| { outcomes[0].failed("script_failure", Some(42)); },
    }
    cleanup_fails {
        settings: || fault("cleanup", 1, Act::Exit(2)),
        play: plain,
        expect: |_, outcomes| { outcomes[0].succeeded().called("cleanup", 1); },
    }
    cleanup_hangs {
        settings: || Settings { cleanup_exec_timeout: 1, ..fault("cleanup", 1, Act::Hang) },
        play: plain,
        expect: |_, outcomes| { outcomes[0].succeeded().called("cleanup", 1); },
    }
    /// A stage that the driver does not know by name runs like the others.
    unknown_stage {
        play: |world| one(world, &Job::new().script(["echo one"]).step("Deploy_42", ["echo two-$CI_JOB_NAME"])),
        expect: |_, outcomes| { outcomes[0].succeeded().shows("two-train").called("run step_deploy_42", 1); },
    }
    prepare_script_fails {
        settings: || fault("run prepare_script", 1, Act::Exit(2)),
        play: plain,
        expect: |_, outcomes| {
            outcomes[0].failed("runner_system_failure", None).shows("prepare environment")
                .ran(&["config", "prepare", "run prepare_script", "cleanup"]);
        },
    }
    /// Three endings of a job whose trace is full: the result is right, the notice appears once.
    log_limit {
        settings: || Settings { output_limit: 1, ..Settings::default() },
        play: |world| {
            let noise = "for i in $(seq 200); do echo line-number-$i; done";
            vec![
                world.run(&Job::new().script([noise])),
                world.run(&Job::new().script([noise, "exit 3"])),
                world.run(&Job::new().script(["sleep 1", noise, "sleep 3600"]).when_trace_contains("exceeded limit", Trigger::Cancel)),
            ]
        },
        expect: |_, outcomes| {
            outcomes[0].succeeded();
            outcomes[1].failed("script_failure", Some(3));
            outcomes[2].failed("job_canceled", None);
            for outcome in outcomes {
                outcome.hides("line-number-200");
                assert_eq!(outcome.count("exceeded limit of 1024 bytes"), 1, "{outcome}");
            }
        },
    }
    /// Each byte that is no UTF-8 becomes a replacement character.
    invalid_utf8 {
        play: |world| one(world, &Job::new().script(["printf '<\\377\\376> <\\303\\274> <\\342\\202>\\n'"])),
        expect: |_, outcomes| { outcomes[0].succeeded().shows("<\u{fffd}\u{fffd}> <ü> <\u{fffd}\u{fffd}>\n"); },
    }
    output_of_three_mib {
        play: |world| one(world, &Job::new().script(["head -c 2359296 /dev/zero | base64 -w 99", "echo the-last-line"])),
        expect: |_, outcomes| {
            let outcome = outcomes[0].succeeded();
            let full_line = format!("\n{}", "A".repeat(99));
            assert_eq!(outcome.count(&full_line), 3_145_728 / 99, "bytes are missing or doubled");
            outcome.shows("\nthe-last-line\n");
        },
    }
    /// More than the runner takes: it keeps the first 4 MiB, and the job ends well.
    output_above_four_mib {
        play: |world| one(world, &Job::new().script(["head -c 3932160 /dev/zero | base64 -w 99", "echo the-last-line"])),
        expect: |_, outcomes| { outcomes[0].succeeded().shows("exceeded limit of 4194304 bytes").hides("\nthe-last-line"); },
    }
    very_long_line {
        play: |world| one(world, &Job::new().script(["head -c 300000 /dev/zero | tr '\\0' z", "echo", "echo end-of-it"])),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows(&"z".repeat(300_000)).shows("\nend-of-it\n");
        },
    }
    /// Carriage returns, colors and tabs arrive as they were written.
    terminal_output {
        play: |world| one(world, &Job::new().script(["printf '  10%%\\r\\t50%%\\r100%%\\n\\033[31mred\\033[0m\\n\\n  indented\\n'"])),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("  10%\r\t50%\r100%\n\u{1b}[31mred\u{1b}[0m\n\n  indented\n");
        },
    }
    no_newline_at_the_end {
        play: |world| one(world, &Job::new().script(["printf half-a-line"])),
        expect: |_, outcomes| { outcomes[0].succeeded().shows("half-a-line"); },
    }
    /// What a script leaves in the background with its own output does not hold the job.
    background_process {
        play: |world| one(world, &Job::new()
            .script(["sleep 30 >/dev/null 2>&1 &", "echo left-something"])
            .after_script(["echo after-it"])),
        expect: |_, outcomes| { outcomes[0].succeeded().shows("left-something").shows("\nafter-it"); },
    }
    stdin_is_closed {
        play: |world| one(world, &Job::new().script(["if read -r line; then echo got-a-line; else echo end-of-input; fi"])),
        expect: |_, outcomes| { outcomes[0].succeeded().shows("\nend-of-input").hides("\ngot-a-line"); },
    }
}
