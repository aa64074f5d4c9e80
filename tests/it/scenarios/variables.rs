//! Variables of a job: values, kinds, masking, `GITLAB_ENV`, debug trace, and those that the driver gets.

use crate::support::driver::{Act, Fault};
use crate::support::job::{Cache, Job, Variable};
use crate::support::scenario::{one, scenarios};
use crate::support::world::Settings;

/// A value with everything that quoting gets wrong.
const AWKWARD: &str = "it's \"quoted\" $HOME `id` %s \\n\n  second line\ttab * ? ; & | < > 😀 ü";

scenarios! {
    raw_variable {
        play: |world| one(world, &Job::new()
            .variable(Variable::new("RAW", "$VARIABLE$WITH$DOLLARS$$").raw())
            .set("CI_EXPANDED", "${CI_JOB_NAME}-$RAW_IS_UNKNOWN.")
            .script(["printf '<%s> <%s>\\n' \"$RAW\" \"$CI_EXPANDED\""])),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("<$VARIABLE$WITH$DOLLARS$$> <train-.>");
        },
    }
    awkward_value {
        play: |world| one(world, &Job::new()
            .variable(Variable::new("AWKWARD", AWKWARD).raw())
            .script(["printf '<<%s>>\\n' \"$AWKWARD\""])
            .after_script(["printf '[[%s]]\\n' \"$AWKWARD\""])),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows(&format!("<<{AWKWARD}>>\n")).shows(&format!("[[{AWKWARD}]]\n"));
        },
    }
    /// The largest value that a driver can be given with room to spare.
    value_of_64_kib {
        play: |world| one(world, &Job::new()
            .set("BIG", &"0123456789abcdef".repeat(4096))
            .script(["echo length=${#BIG} tail=${BIG: -16}"])),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("length=65536 tail=0123456789abcdef");
        },
    }
    /// The system refuses to start the driver; the runner tries three times.
    value_of_128_kib {
        play: |world| one(world, &Job::new().set("BIG", &"x".repeat(131_072)).script(["echo never"])),
        expect: |_, outcomes| {
            outcomes[0].failed("runner_system_failure", None).hides("never").ran(&[]);
        },
    }
    /// A file variable is written in every stage, referred to by path, and removed at the end.
    file_variable {
        play: |world| one(world, &Job::new()
            .variable(Variable::new("FILE_VALUE", "epochs: $CI_JOB_NAME\nlr: 1\n").file())
            .set("ITS_PATH", "see $FILE_VALUE")
            .script(["cat \"$FILE_VALUE\"", "[ \"$ITS_PATH\" = \"see $FILE_VALUE\" ] && echo same-path"])
            .after_script(["grep -c epochs \"$FILE_VALUE\""])),
        expect: |world, outcomes| {
            outcomes[0].succeeded().shows("epochs: train\nlr: 1\n").shows("\nsame-path").shows("\n1\n");
            let left = find_files(&world.dirs.builds(), "FILE_VALUE");
            assert!(left.is_empty(), "file variables are left: {left:?}");
        },
    }
    masking {
        play: |world| one(world, &Job::new()
            .variable(Variable::new("SHORT", "secret-value").masked())
            .variable(Variable::new("LONG", "secret-value-and-more").masked())
            .set("URL", "https://example.com/?private_token=deadbeef&sensitive=no&rss_token=cafe")
            .script([
                "echo short=$SHORT long=$LONG",
                "printf '%s' \"${SHORT:0:6}\"; sleep 0.1; printf '%s\\n' \"${SHORT:6}\"",
                "echo \"$URL\"",
                "echo token glpat-abcdefghijklmnopqrst end",
            ])),
        expect: |_, outcomes| {
            outcomes[0].succeeded()
                .shows("short=[MASKED] long=[MASKED]\n").shows("\n[MASKED]\n")
                .shows("private_token=[MASKED]&sensitive=no&rss_token=[MASKED]").shows("token glpat-[MASKED] end")
                .hides("secret-value").hides("deadbeef").hides("abcdefghijklmnopqrst");
        },
    }
    /// The reason of a failure is masked as well.
    masking_of_the_failure {
        settings: || Settings {
            faults: vec![Fault { stage: "run build_script", times: 1, act: Act::Shell("echo 'it is code four-two' >&2; exit 1") }],
            ..Settings::default()
        },
        play: |world| one(world, &Job::new().variable(Variable::new("S", "four-two").masked()).script(["true"])),
        expect: |_, outcomes| {
            outcomes[0].failed("script_failure", Some(1)).shows("it is code [MASKED]").hides("four-two");
        },
    }
    without_debug_trace {
        play: |world| one(world, &Job::new().set("CI_DEBUG_TRACE", "false").script(["echo visible"])),
        expect: |_, outcomes| { outcomes[0].succeeded().hides("+ echo visible").hides("export CI_JOB_NAME"); },
    }
    with_debug_trace {
        play: |world| one(world, &Job::new().set("CI_DEBUG_TRACE", "true").script(["echo visible"])),
        expect: |_, outcomes| { outcomes[0].succeeded().shows("++ echo visible").shows("export CI_JOB_NAME"); },
    }
    debug_trace_forbidden {
        settings: || Settings { debug_trace_disabled: true, ..Settings::default() },
        play: |world| one(world, &Job::new().set("CI_DEBUG_TRACE", "true").script(["echo visible"])),
        expect: |_, outcomes| { outcomes[0].succeeded().hides("++ echo visible"); },
    }
    /// A value written in one step arrives in the later steps, in `after_script`, and in the path of a cache.
    gitlab_env {
        play: |world| {
            let folder = "out/${SERIAL}";
            let first = Job::new()
                .script(["echo SERIAL=n-7 >> $GITLAB_ENV", "mkdir -p out/n-7 && echo kept > out/n-7/file"])
                .step("evaluate", ["echo second step sees $SERIAL", "echo SERIAL2=m-8 >> $GITLAB_ENV"])
                .after_script(["echo after sees $SERIAL and $SERIAL2"])
                .cache(Cache::new("env", [folder]));
            let second = Job::new().script(["cat out/n-7/file", "echo serial=${SERIAL:-none}"]).cache(Cache::new("env", ["out/"]));
            let first = world.run(&first);
            std::fs::remove_dir_all(world.dirs.builds()).unwrap();
            vec![first, world.run(&second)]
        },
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("second step sees n-7").shows("after sees n-7 and m-8").called("run archive_cache", 1);
            outcomes[1].succeeded().shows("\nkept\n").shows("serial=none");
        },
    }
    /// One job's `GITLAB_ENV` is nothing to the next job in the same directory.
    isolation_between_jobs {
        play: |world| vec![
            world.run(&Job::new().script(["echo LEAK=yes >> $GITLAB_ENV"]).after_script(["echo leak=$LEAK"])),
            world.run(&Job::new().script(["echo leak=${LEAK:-no}"])),
        ],
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("leak=yes");
            outcomes[1].succeeded().shows("leak=no");
        },
    }
    /// What the driver is told: codes, files, payload, services, `job_env` from `config_exec`; job variables with prefix.
    driver_environment {
        settings: || Settings {
            environment: vec!["FROM_CONFIG=config", "OVERRIDDEN=config"],
            faults: vec![Fault { stage: "prepare", times: 1, act: Act::Shell(
                "echo codes=$BUILD_FAILURE_EXIT_CODE,$SYSTEM_FAILURE_EXIT_CODE env=${REFERENCE_SESSION:-none}
                 [ \"$PWD\" = \"$TMPDIR\" ] && [ ! -e \"$BUILD_EXIT_CODE_FILE\" ] && echo folder=ok
                 echo name=$CUSTOM_ENV_CI_JOB_NAME plain=${CI_JOB_NAME:-unset} image=$CUSTOM_ENV_CI_JOB_IMAGE
                 echo config=$CUSTOM_ENV_FROM_CONFIG job=$CUSTOM_ENV_OVERRIDDEN file=$CUSTOM_ENV_FILE
                 echo \"services=$CUSTOM_ENV_CI_JOB_SERVICES\"
                 grep -o '\"project_full_path\":\"[^\"]*\"' \"$JOB_RESPONSE_FILE\"; stat -c 'modes=%a' \"$JOB_RESPONSE_FILE\"
                 read -r line || echo stdin=closed") }],
            ..Settings::default()
        },
        play: |world| one(world, &Job::new()
            .set("OVERRIDDEN", "job")
            .variable(Variable::new("FILE", "content").file())
            .service("redis:7", "cache kv")
            .script(["true"])),
        expect: |world, outcomes| {
            outcomes[0].succeeded().shows("codes=1,2").shows("folder=ok")
                .shows("name=train plain=unset image=registry.example.com/train:2.4")
                .shows("config=config job=job file=content").shows("\"name\":\"redis:7\"").shows("\"alias\":\"cache\"")
                .shows("\"project_full_path\":\"ml/churn\"").shows("modes=600").shows("stdin=closed");
            // job_env of config_exec reaches the later calls.
            if world.driver.name == crate::support::driver::REFERENCE {
                outcomes[0].shows("env=s-1");
            }
        },
    }
}

pub(super) fn find_files(folder: &std::path::Path, name: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(find_files(&entry.path(), name));
        } else if entry.file_name() == name {
            found.push(entry.path());
        }
    }
    found
}
