//! Tests of the host's decision about entries: an honest container is never refused, one that sends more is, entry by entry.

use proptest::prelude::*;

use super::deeds::{Deed, act, deed, deeds, path};
use super::*;
use crate::config::env::short_or_long;

const OUTSIDE: &str = "left out: 1 link that leads out of the project: ";

/// Rules on the names that `deed` uses.
fn rule() -> impl Strategy<Value = Rule> {
    let patterns = vec![
        "a",
        "b/",
        "./a/b",
        "*",
        "*/",
        "**/a",
        "a/*",
        "b/**/a.b",
        "{a,b}/a",
        "{a,b/*}/",
        "c d",
        "*/a.b",
        "**/*.b",
        "a/a/../b",
        "[ab]/**",
        "**/*",
        "a/../b/a",
        "*/*/",
        "\\\\*",
        "-",
        "{a/..,b}/a",
        "nowhere/a",
        "a.b/**",
    ];
    let pattern = || prop::sample::select(patterns.clone()).prop_map(str::to_owned);
    let (include, exclude) = (prop::collection::vec(pattern(), 1..3), prop::collection::vec(pattern(), 0..3));
    (include, exclude, 0..6u8, any::<bool>()).prop_map(|(include, exclude, untracked, follow)| Rule {
        include,
        exclude,
        untracked: untracked == 0,
        follow,
        ..Rule::default()
    })
}

fn selection() -> impl Strategy<Value = Selection> {
    (prop::collection::vec(rule(), 1..3), any::<bool>()).prop_map(|(rules, outside_links)| Selection {
        rules,
        outside_links,
        ..Selection::default()
    })
}

/// Includes links to all kinds of targets.
fn wild_deeds() -> impl Strategy<Value = Vec<(Vec<u8>, Deed)>> {
    let targets = vec![
        "a",
        "b/a",
        "../b",
        "..",
        ".",
        "a/../b",
        "b/a/../../a",
        "/etc",
        "../../x",
        "./a.b",
        "c d/.",
        "nowhere/../a",
        ".git/x",
    ];
    let link = (path(), prop::sample::select(targets)).prop_map(|(path, target)| (path, Deed::Link(target)));
    prop::collection::vec(prop_oneof![2 => (path(), deed()), 1 => link], 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: short_or_long(6, 48), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_honest_container_is_never_refused(before in wild_deeds(), during in wild_deeds(), selection in selection()) {
        let world = World::new();
        act(&world.host.project, &before);
        let snapshot = world.up();
        let sent = picture(&world.host.project);
        // As for `both_sides_agree_after_both_ways`: a directory with a `.git` of the host's is not replaced.
        let during: Vec<_> = during
            .into_iter()
            .filter(|(path, _)| !sent.keys().any(|held| {
                enters_git(held.as_bytes()) && held.as_bytes().starts_with(path) && !enters_git(path)
            }))
            .collect();
        act(&world.container.project, &during);
        // Absolute paths are the same on both sides outside of tests.
        let wanted = selection.list(&world.container.project).unwrap();
        let summary = world.down(&snapshot, &selection);
        prop_assert!(!summary.warnings.iter().any(|line| line.contains("refused")), "{:?}", summary.warnings);
        let (there, here) = (picture(&world.container.project), picture(&world.host.project));
        for path in wanted {
            let bytes = path.as_os_str().as_bytes();
            let seen = &there[path.as_os_str()];
            let is_link = world.container.project.join(&path).is_symlink();
            let project = world.container.project.as_os_str().as_bytes();
            if is_link && select::stray_link(project, bytes, seen.bytes.as_deref().unwrap_or_default()).is_some() {
                continue;
            }
            let found = here.get(path.as_os_str()).map(|found| (&found.bytes, found.mode));
            prop_assert_eq!(found, Some((&seen.bytes, seen.mode)), "{:?} of {:?}", path, selection);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: short_or_long(4, 24), failure_persistence: None, ..ProptestConfig::default() })]

    /// The container sends everything.
    #[test]
    fn nothing_is_written_that_the_job_does_not_ask_for(before in deeds(), during in deeds(), selection in selection()) {
        let world = World::new();
        act(&world.host.project, &before);
        let snapshot = world.up();
        let sent = picture(&world.host.project);
        act(&world.container.project, &during);
        world.send_changes(&snapshot, &everything()).unwrap();
        let Ok(summary) = world.apply_asked(&selection, &TransferLimits::default()) else {
            prop_assert!(picture(&world.host.project) == sent);
            return Ok(());
        };
        let asked = selection.list(&world.host.project).unwrap();
        let is_asked = |path: &Path| asked.iter().any(|asked| asked.starts_with(path));
        for (path, seen) in picture(&world.host.project) {
            let is_changed = sent.get(&path).is_none_or(|before| before.bytes != seen.bytes);
            prop_assert!(!is_changed || is_asked(Path::new(&path)), "{:?}: {:?}", path, summary.warnings);
        }
    }
}

#[test]
fn what_is_reached_through_a_link_that_stays_behind_is_asked_for() {
    let world = World::new();
    put(&world.host.project, "runs/old", b"x");
    let snapshot = world.up();
    let container = &world.container.project;
    put(container, "runs/m", b"weights");
    put(container, "side/x", b"nobody asks for this");
    symlink("side/../runs", container.join("latest")).unwrap();
    let summary = world.down(&snapshot, &only(&["latest/m"]));
    assert_eq!(fs::read(world.host.project.join("runs/m")).unwrap(), b"weights");
    assert!(summary.warnings.iter().all(|line| !line.contains("refused")), "{:?}", summary.warnings);
    assert!(!world.host.project.join("side/x").exists());
}

#[test]
fn a_search_that_takes_too_long_asks_for_everything_on_both_sides() {
    let world = World::new();
    put(&world.host.project, "x/y", b"x");
    let snapshot = world.up();
    for number in 0..40 {
        put(&world.container.project, format!("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{number}"), b"new");
    }
    let slow = format!("{}b", "{a,aa,aaa}".repeat(14));
    let rule = Rule { include: vec!["x".to_owned()], exclude: vec![slow], untracked: true, ..Rule::default() };
    let summary = world.down(&snapshot, &Selection { rules: vec![rule], ..Selection::default() });
    assert_eq!((summary.files, summary.warnings), (40, Vec::new()));
}

/// A virtualenv: links to the interpreter outside, and to each other.
fn virtualenv(project: &Path) {
    put(project, "venv/lib/python3/site-packages/m.py", b"x = 1\n");
    fs::create_dir_all(project.join("venv/bin")).unwrap();
    symlink("/usr/bin/python3", project.join("venv/bin/python")).unwrap();
    symlink("python", project.join("venv/bin/python3")).unwrap();
    symlink("lib", project.join("venv/lib64")).unwrap();
}

#[test]
fn links_out_of_the_project_come_back_when_the_operator_keeps_them() {
    let world = World::new();
    let snapshot = world.up();
    virtualenv(&world.container.project);
    let left_out = world.down(&snapshot, &only(&["venv/"]));
    assert!(left_out.warnings[0].starts_with(OUTSIDE) && left_out.warnings.len() == 1, "{:?}", left_out.warnings);
    assert!(!world.host.project.join("venv/bin/python").is_symlink());
    let kept = world.down(&snapshot, &Selection { outside_links: true, ..only(&["venv/"]) });
    assert_eq!(kept.warnings, [""; 0]);
    assert_eq!(picture(&world.host.project), picture(&world.container.project));
}

/// The runner's helper reads through links on the way of a job's path.
#[test]
fn a_link_out_of_the_project_that_a_path_goes_through_does_not_come_back() {
    let paths = [("out/passwd", false), ("out/*", false), ("out", true), ("$X/x", false)];
    for (path, follow) in paths {
        let world = World::new();
        let snapshot = world.up();
        symlink("/etc", world.container.project.join("out")).unwrap();
        let rule = Rule { include: vec![path.to_owned(), "o*".to_owned()], follow, ..Rule::default() };
        let summary =
            world.down(&snapshot, &Selection { rules: vec![rule], outside_links: true, ..Selection::default() });
        assert!(summary.warnings[0].contains("goes through: `out`"), "{path}: {:?}", summary.warnings);
        assert!(!world.host.project.join("out").is_symlink());
    }
}

#[test]
fn each_kind_that_stays_behind_is_told_once() {
    let world = World::new();
    put(&world.host.project, "sub/.git", b"gitdir: ../.git/modules/sub\n");
    put(&world.host.project, ".git/HEAD", b"ref: refs/heads/main\n");
    let snapshot = world.up();
    let container = &world.container.project;
    for number in 0..25 {
        put(container, format!("vendor/{number}/.git/HEAD"), b"ref: refs/heads/main\n");
        put(container, format!("vendor/{number}/code"), b"x");
    }
    put(container, "vendor/git~1/x", b"x");
    put(container, "elsewhere/.git/HEAD", b"nobody asks for this");
    let summary = world.down(&snapshot, &only(&["vendor", "sub", ".git"]));
    assert_eq!(summary.files, 25);
    assert_eq!(
        summary.warnings,
        [
            "left out: 25 nested git repositories: `vendor/0/.git`, `vendor/1/.git`, `vendor/10/.git` and 22 more; what is in a `.git` never comes back, the \
             files beside it do",
            "left out: 1 name that some file systems take for `.git`: `vendor/git~1`",
        ]
    );
}
