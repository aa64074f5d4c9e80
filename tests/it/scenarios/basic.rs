//! Plain jobs: order of the stages, exit codes, steps, output.

use crate::support::driver::{Act, Fault};
use crate::support::job::Job;
use crate::support::scenario::{one, scenarios};
use crate::support::world::Settings;

scenarios! {
    /// The whole order of driver calls of a job without cache and artifacts.
    success {
        play: |world| one(world, &Job::new().script(["echo hello-$((40 + 2))"]).after_script(["echo 'after' it"])),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("hello-42").shows("after it").shows("Job succeeded").ran(&[
                "config", "prepare", "run prepare_script", "run get_sources", "run build_script", "run after_script",
                "run cleanup_file_variables", "cleanup",
            ]);
        },
    }
    exit_code {
        play: |world| [1, 2, 3, 127, 137, 255].map(|code| world.run(&Job::new().script([&format!("exit {code}")]))).into(),
        expect: |_, outcomes| {
            for (outcome, code) in outcomes.iter().zip([1, 2, 3, 127, 137, 255]) {
                outcome.failed("script_failure", Some(code)).shows(&format!("exit status {code}"));
            }
        },
    }
    /// The first failing step ends the steps; `after_script` still runs.
    release_step {
        play: |world| vec![
            world.run(&Job::new().script(["echo one"]).step("release", ["echo release of $CI_JOB_NAME"])),
            world.run(&Job::new().script(["false"]).step("release", ["echo never"]).after_script(["echo at the end"])),
        ],
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("release of train").called("run step_release", 1);
            outcomes[1].failed("script_failure", Some(1)).called("run step_release", 0).shows("at the end");
        },
    }
    multiline_command {
        play: |world| one(world, &Job::new().script(["if true; then\n  echo inside-the-if\nfi"])),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("if true; then # collapsed multi-line command").shows("\ninside-the-if");
        },
    }
    /// With `FF_SCRIPT_SECTIONS` a command of several lines becomes a section that can be folded.
    script_sections {
        needs: ["awk"],
        play: |world| one(world, &Job::new().set("FF_SCRIPT_SECTIONS", "true").script(["echo first\necho second"])),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("section_script_step_0[hide_duration=true,collapsed=true]\r\u{1b}[0K")
                .shows("\nfirst\nsecond\n");
            assert_eq!(outcomes[0].count(":section_script_step_0"), 2);
        },
    }
    /// The steps of a script share one shell; `after_script` has its own.
    shells {
        play: |world| one(world, &Job::new().script(["HERE=set-in-script", "cd /", "echo one-$HERE-$PWD"])
            .after_script(["echo two-${HERE:-unset}", "[ \"$PWD\" = \"$CI_PROJECT_DIR\" ] && echo in-the-project"])),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("one-set-in-script-/").shows("two-unset").shows("\nin-the-project");
        },
    }
    /// `prepare` may show the payload that GitLab sent.
    job_response_file {
        settings: || Settings {
            faults: vec![Fault { stage: "prepare", times: 1, act: Act::Shell("cat \"$JOB_RESPONSE_FILE\"") }],
            ..Settings::default()
        },
        play: |world| one(world, &Job::new().script(["true"])),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows(&format!("\"id\":{}", outcomes[0].id)).shows("\"project_full_path\":\"ml/churn\"")
                .shows("\"name\":\"train\"");
        },
    }
    clone {
        needs: ["git"],
        play: |world| {
            let repository = world.repository("ml/churn");
            let sha = repository.commit("main", &[("a.txt", "content of a\n")]);
            one(world, &Job::new().sources(&repository, "main", &sha).script(["cat a.txt", "git log -1 --format=%H"]))
        },
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("content of a").shows("Created fresh repository");
        },
    }
}
