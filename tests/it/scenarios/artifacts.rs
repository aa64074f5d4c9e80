//! Artifacts, reports, caches and dependencies: the files that a job receives and leaves.

use crate::support::job::{Artifacts, Cache, Job};
use crate::support::scenario::{one, scenarios};

const MAKE: &str =
    "mkdir -p model/deep && echo weights > model/deep/w.bin && echo note > model/note.tmp && echo r > report.html";

scenarios! {
    archive {
        needs: ["unzip", "tar"],
        play: |world| one(world, &Job::new().script([MAKE])
            .artifacts(Artifacts::paths(["model/", "report.*", "absent/"]).exclude("model/**.tmp"))),
        expect: |_, outcomes| {
            let files = outcomes[0].succeeded().called("run upload_artifacts_on_success", 1).artifact("archive").files();
            let names: Vec<_> = files.keys().map(String::as_str).collect();
            assert!(names.contains(&"model/deep/w.bin") && names.contains(&"report.html"), "{names:?}");
            assert_eq!(files["model/deep/w.bin"], b"weights\n");
        },
    }
    /// `when` decides which artifacts a failed job leaves.
    when_failed {
        needs: ["unzip", "tar"],
        play: |world| one(world, &Job::new().script([MAKE, "exit 4"])
            .artifacts(Artifacts::paths(["report.html"]).when("on_failure"))
            .artifacts(Artifacts::paths(["model/"]))),
        expect: |_, outcomes| {
            let outcome = outcomes[0].failed("script_failure", Some(4));
            outcome.called("run upload_artifacts_on_failure", 1).called("run upload_artifacts_on_success", 0);
            assert_eq!(outcome.artifacts.len(), 1);
            assert_eq!(outcome.artifact("archive").files().keys().collect::<Vec<_>>(), ["report.html"]);
        },
    }
    dotenv_report {
        needs: ["gzip", "tar"],
        play: |world| one(world, &Job::new().script(["echo ENDPOINT=churn-7 > sagemaker.env"]).artifacts(Artifacts::dotenv("sagemaker.env"))),
        expect: |_, outcomes| {
            let artifact = outcomes[0].succeeded().artifact("dotenv");
            assert_eq!(artifact.format, "gzip");
            // Our driver appends its own.
            let report = artifact.files().into_values().next().unwrap();
            assert!(report.starts_with(b"ENDPOINT=churn-7\n"), "{}", String::from_utf8_lossy(&report));
        },
    }
    untracked {
        needs: ["git", "unzip", "tar"],
        play: |world| {
            let repository = world.repository("ml/churn");
            let sha = repository.commit("main", &[("a.txt", "tracked\n")]);
            one(world, &Job::new().sources(&repository, "main", &sha).script([MAKE])
                .artifacts(Artifacts::paths([]).untracked()))
        },
        expect: |_, outcomes| {
            let files = outcomes[0].succeeded().artifact("archive").files();
            assert!(files.contains_key("model/note.tmp") && !files.contains_key("a.txt"), "{:?}", files.keys());
        },
    }
    /// No file to upload is no failure.
    nothing_to_upload {
        play: |world| one(world, &Job::new().script(["true"]).artifacts(Artifacts::paths(["absent/"]))),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("No files to upload");
            assert!(outcomes[0].artifacts.is_empty());
        },
    }
    /// What one job keeps in a cache, the next finds, in a fresh directory.
    cache_across_jobs {
        needs: ["tar"],
        play: |world| {
            let cache = || Cache::new("pip-$CI_COMMIT_REF_NAME", [".cache/pip"]);
            let first = world.run(&Job::new().script(["mkdir -p .cache/pip && echo wheel > .cache/pip/w"]).cache(cache()));
            std::fs::remove_dir_all(world.dirs.builds()).unwrap();
            vec![first, world.run(&Job::new().script(["cat .cache/pip/w"]).cache(cache()))]
        },
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("Created cache").called("run restore_cache", 1).called("run archive_cache", 1);
            outcomes[1].succeeded().shows("Successfully extracted cache").shows("\nwheel\n");
        },
    }
    /// A cache with `when: on_success` is not written by a failed job.
    cache_of_failed_job {
        needs: ["tar"],
        play: |world| one(world, &Job::new().script(["mkdir -p c && echo x > c/x", "exit 5"])
            .cache(Cache::new("kept", ["c"]).when("on_failure")).cache(Cache::new("dropped", ["c"]))),
        expect: |_, outcomes| {
            outcomes[0].failed("script_failure", Some(5)).called("run archive_cache_on_failure", 1)
                .shows("Creating cache kept").hides("Creating cache dropped");
        },
    }
    dependency {
        needs: ["unzip", "tar"],
        play: |world| {
            let first = world.run(&Job::new().named("prepare-data").script(["mkdir data && echo rows > data/rows.csv"])
                .artifacts(Artifacts::paths(["data/"])));
            std::fs::remove_dir_all(world.dirs.builds()).unwrap();
            let second = world.run(&Job::new().dependency(first.id, "prepare-data").script(["cat data/rows.csv"]));
            vec![first, second]
        },
        expect: |_, outcomes| {
            outcomes[0].succeeded();
            outcomes[1].succeeded().called("run download_artifacts", 1).shows("Downloading artifacts for prepare-data").shows("\nrows\n");
        },
    }
    /// Missing artifacts of a dependency fail the job before its script.
    dependency_without_artifacts {
        play: |world| {
            let first = world.run(&Job::new().script(["true"]));
            let second = world.run(&Job::new().dependency(first.id, "prepare-data").script(["echo never-said"]));
            vec![first, second]
        },
        expect: |_, outcomes| {
            assert_eq!(outcomes[1].state.as_deref(), Some("failed"), "{}", outcomes[1]);
            outcomes[1].hides("never-said").called("run build_script", 0).called("run cleanup_file_variables", 1);
        },
    }
    /// The last update comes after the artifacts: GitLab never sees a finished job without them.
    order_of_events {
        needs: ["unzip", "tar"],
        play: |world| one(world, &Job::new().script([MAKE]).artifacts(Artifacts::paths(["report.html"]))),
        expect: |_, outcomes| {
            let events = &outcomes[0].succeeded().events;
            let place = |name: &str| events.iter().position(|event| event == name).unwrap_or_else(|| panic!("{events:?}"));
            assert!(place("requested") < place("update running"));
            assert!(place("artifact archive") < place("update success"));
            assert_eq!(events.last().map(String::as_str), Some("update success"));
        },
    }
}
