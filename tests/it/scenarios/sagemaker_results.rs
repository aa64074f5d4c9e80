//! Files between the host and the container: modes, links, empty directories, odd names, deletions.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::sagemaker::rows;
use super::sagemaker_desk::Desk;
use crate::support::driver::sagemaker_with;
use crate::support::job::{Artifacts, Job};
use crate::support::scenario::one;

rows! {
    /// SageMaker takes its time to end a job whose agent has left: the slot is free when the results are in, and the record
    /// waits for whoever comes next.
    an_end_that_takes_long {
        driver: sagemaker_with(&["--uploading-delay", "25s"], ""),
        needs: ["unzip"],
        play: |world| one(world, &Job::new().script(["echo made > model.txt"]).artifacts(Artifacts::paths(["model.txt"]))),
        expect: |world, outcomes| {
            let emulator = world.emulator.as_ref().unwrap();
            assert!(!emulator.live_jobs().is_empty(), "SageMaker ended the training job before GitLab had its result");
            let files = outcomes[0].succeeded().called("cleanup", 1).artifact("archive").files();
            assert_eq!(files["model.txt"], b"made\n");
            let sessions = std::fs::read_dir(world.dirs.root().join("state/sessions")).unwrap().flatten();
            let records = sessions.map(|entry| std::fs::read_to_string(entry.path()).unwrap_or_default());
            let kept = records.filter(|text| text.contains("\"leaving\": {")).count();
            assert_eq!(kept, 1, "a record stays until the end is seen");
            assert!(emulator.session_objects().is_empty(), "the session's objects are gone");
        },
    }
}

#[test]
fn files_keep_their_form_both_ways() {
    let job = Job::new().script(["true"]).artifacts(Artifacts::paths(["**/*"]).untracked());
    let desk = Desk::new(&job).prepared();
    let project = desk.project();
    std::fs::create_dir_all(project.join("there/empty")).unwrap();
    std::fs::write(project.join("there/run.sh"), "#!/bin/sh\necho ran\n").unwrap();
    std::fs::set_permissions(project.join("there/run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(project.join("there/old"), "old").unwrap();
    std::fs::write(project.join("there/new\nline 'ü' $(x)"), "odd").unwrap();
    symlink("run.sh", project.join("there/link")).unwrap();
    symlink("nowhere", project.join("there/dangling")).unwrap();
    let script = "set -e; cd there; ./run.sh; ./link; [ -d empty ]; readlink dangling; cat new*; rm old; rmdir empty
        mkdir -p ../back/empty; cd ../back; echo x > plain; chmod 640 plain; echo y > tool; chmod 755 tool; : > '-rf'
        printf z > \"$(printf 'a\\nb')\"; ln -s plain link; ln -s ../there/run.sh up; ln -s nowhere dangling";
    let ended = desk.run("build_script", script);
    ended.passed();
    assert_eq!(ended.out(), "ran\nran\nnowhere\nodd");
    let back = project.join("back");
    let mode = |name: &str| std::fs::symlink_metadata(back.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("plain") & 0o700, mode("tool") & 0o711), (0o600, 0o711));
    assert_eq!(std::fs::read(back.join("a\nb")).unwrap(), b"z");
    assert_eq!(std::fs::read_link(back.join("link")).unwrap().to_string_lossy(), "plain");
    assert_eq!(std::fs::read_link(back.join("up")).unwrap().to_string_lossy(), "../there/run.sh");
    assert_eq!(std::fs::read_link(back.join("dangling")).unwrap().to_string_lossy(), "nowhere");
    assert!(back.join("-rf").is_file() && back.join("empty").is_dir());
    assert!(!project.join("there/old").exists(), "a deleted file is still there");
    desk.close();
}
