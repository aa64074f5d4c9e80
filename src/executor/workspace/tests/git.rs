//! Tests that git sees the same in a container as on the host. Needs git; the tests print that they are skipped without it.

use std::process::{Command, Output};

use super::*;

/// A filter that the image does not have.
const MISSING: [&str; 4] = ["-c", "filter.f.clean=missing", "-c", "filter.f.required=true"];

fn git_as(user: &Path, directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("git");
    command.args(args).current_dir(directory).env("HOME", user).env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "n").env(format!("GIT_{who}_EMAIL"), "n@example.com");
    }
    command.output().unwrap()
}

fn git(world: &World, directory: &Path, args: &[&str]) -> String {
    let output = git_as(world.folder.path(), directory, args);
    assert!(
        output.status.success(),
        "git {args:?} in {}: {}",
        directory.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn has_git() -> bool {
    let found = Command::new("git").arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: no git on PATH");
    }
    found
}

/// A commit of files with a filter; the files are older than the index, as after a later checkout.
fn repository(world: &World, directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    git(world, directory, &["init", "-q"]);
    git(world, directory, &["config", "filter.f.clean", "cat"]);
    put(directory, ".gitattributes", b"*.bin filter=f\n");
    put(directory, "weights.bin", b"weights");
    put(directory, "run.sh", b"#!/bin/sh\n");
    chmod(directory.join("run.sh"), 0o755);
    symlink("run.sh", directory.join("link")).unwrap();
    age(directory);
    git(world, directory, &["add", "-A"]);
    git(world, directory, &["commit", "-qm", "m"]);
    git(world, directory, &["tag", "-m", "v1", "v1"]);
}

/// Makes the files older than any index, so that git does not treat them as racily clean.
fn age(directory: &Path) {
    for name in [".gitattributes", "weights.bin", "run.sh", "link"] {
        let at = rustix::fs::Timespec { tv_sec: 1_600_000_000, tv_nsec: 123_456_789 };
        let times = rustix::fs::Timestamps { last_access: at, last_modification: at };
        let path = directory.join(name);
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// None of git's commands for changes finds any.
#[track_caller]
fn is_clean(world: &World, directory: &Path) {
    let run = |args: &[&str]| git(world, directory, &[&MISSING[..], args].concat());
    assert_eq!(run(&["diff-files"]), "", "diff-files");
    assert_eq!(run(&["diff-index", "HEAD"]), "", "diff-index");
    assert_eq!(run(&["describe", "--dirty", "--always"]).trim_end().strip_suffix("-dirty"), None);
    assert_eq!(run(&["status", "--porcelain", "--ignore-submodules=none"]), "", "status");
    assert_eq!(run(&["diff", "--stat"]), "", "diff");
    run(&["stash"]);
}

#[test]
fn a_clean_tree_is_clean() {
    if !has_git() {
        return;
    }
    let setups: [&[&[&str]]; 7] = [
        &[],
        &[&["update-index", "--index-version", "4"]],
        &[&["update-index", "--split-index"]],
        &[&["config", "core.checkStat", "default"], &["config", "core.trustctime", "true"]],
        &[&["config", "extensions.worktreeConfig", "true"], &["config", "--worktree", "core.checkStat", "default"]],
        &[&["config", "core.untrackedCache", "true"], &["status"]],
        &[&["config", "core.preloadIndex", "false"], &["config", "core.fileMode", "true"]],
    ];
    for setup in setups {
        let world = World::new();
        let project = &world.host.project;
        repository(&world, project);
        for args in setup {
            git(&world, project, args);
        }
        is_clean(&world, project);
        let before = picture(project);
        let snapshot = world.up();
        is_clean(&world, &world.container.project);
        git(&world, &world.container.project, &["fsck", "--strict"]);
        // None of it is sent back.
        let summary = world.down(&snapshot, &everything());
        assert_eq!((summary.files, summary.deleted, summary.warnings), (0, 0, Vec::new()), "{setup:?}");
        assert!(picture(project) == before);
        // Git still sees a change, even one that keeps the size.
        put(&world.container.project, "weights.bin", b"WEIGHTS");
        let changed = git(&world, &world.container.project, &["status", "--porcelain"]);
        assert_eq!(changed, " M weights.bin\n", "{setup:?}");
    }
}

#[test]
fn odd_configurations_are_taken() {
    if !has_git() {
        return;
    }
    let odd: [(&[u8], &[u8]); 5] = [
        (b"\n", b"\r\n"),
        (b"", b"# no line end"),
        (b"", b"[user]\n\tname = x \\\n"),
        (b"", b"[core]\n\tcheckStat = default"),
        (b"", b"[include]\n\tpath = ../absent\n"),
    ];
    for (from, to) in odd {
        let world = World::new();
        let project = &world.host.project;
        repository(&world, project);
        let path = project.join(".git/config");
        let mut content = fs::read(&path).unwrap();
        if from.is_empty() {
            content.extend_from_slice(to);
        } else {
            content = content.split(|&byte| byte == from[0]).collect::<Vec<_>>().join(to);
        }
        fs::write(&path, content).unwrap();
        chmod(&path, 0o444);
        chmod(project.join(".git"), 0o555);
        world.up();
        let git_directory = fs::metadata(world.container.project.join(".git")).unwrap();
        assert_eq!(
            (git_directory.mode() & 0o777, git_directory.mtime()),
            (0o555, fs::metadata(project.join(".git")).unwrap().mtime())
        );
        for side in [project, &world.container.project] {
            chmod(side.join(".git"), 0o755);
        }
        is_clean(&world, &world.container.project);
    }
}

#[test]
fn submodules_and_linked_worktrees_are_clean() {
    if !has_git() {
        return;
    }
    let world = World::new();
    let project = &world.host.project;
    repository(&world, &world.folder.path().join("origin"));
    repository(&world, project);
    let origin = world.folder.path().join("origin");
    let add = ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", origin.to_str().unwrap(), "deep/sub"];
    git(&world, project, &add);
    git(&world, project, &["commit", "-qm", "with a submodule"]);
    git(&world, project, &["worktree", "add", "-q", "side", "HEAD~1"]);
    put(project, ".git/info/exclude", b"side\n");
    repository(&world, &project.join("vendor"));
    put(project, ".git/info/exclude", b"side\nvendor\n");
    for directory in ["deep/sub", "side"] {
        age(&project.join(directory));
        git(&world, &project.join(directory), &["-c", "filter.f.clean=cat", "update-index", "--refresh"]);
    }
    // A git directory elsewhere in the project, named by a file and by a link.
    fs::create_dir(project.join("store")).unwrap();
    for (own, link) in [("apart", false), ("linked", true)] {
        let own = project.join(own);
        repository(&world, &own);
        fs::rename(own.join(".git"), project.join("store").join(own.file_name().unwrap())).unwrap();
        if link {
            symlink("../store/linked", own.join(".git")).unwrap();
        } else {
            put(&own, ".git", b"gitdir: ../store/apart\n");
        }
    }
    put(project, ".git/info/exclude", b"side\nvendor\napart\nlinked\nstore\n");
    // The same absolute paths are on both sides outside of tests; git's links between the directories are absolute.
    world.up();
    fs::rename(project, world.folder.path().join("moved")).unwrap();
    fs::rename(&world.container.project, project).unwrap();
    for directory in ["", "deep/sub", "side", "vendor", "apart", "linked"] {
        is_clean(&world, &project.join(directory));
    }
}

#[test]
fn the_setting_is_no_change_of_the_container() {
    let world = World::new();
    let project = &world.host.project;
    put(project, ".git", b"gitdir: store\n");
    put(project, "store/HEAD", b"ref: refs/heads/main\n");
    put(project, "store/config", b"[core]\n");
    let snapshot = world.up();
    assert!(fs::read(world.container.project.join("store/config")).unwrap().len() > 20);
    let summary = world.down(&snapshot, &everything());
    assert_eq!((summary.files, summary.warnings), (0, Vec::new()));
    assert_eq!(fs::read(project.join("store/config")).unwrap(), b"[core]\n");
}
