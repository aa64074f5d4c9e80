//! The project on its way from one container to the next, and what the host gets of both.

use super::super::manifest::{Entry, EntryKind, ManifestPart, Record, Timestamp, TransferEnd, Tree};
use super::*;
use crate::base::failure::{Kind as FailureKind, kind_of, render};
use crate::workspace::{apply_kept, packs_of, receive_kept, send_tree};

fn kept() -> TransferKeys {
    TransferKeys {
        first: Label::kept_part(NodeId::LEADER, 0),
        manifest: "kept".to_owned(),
        private: "kept/packs".to_owned(),
        ..up()
    }
}

impl World {
    /// The container sends its trees, and another one with empty disks receives them.
    fn hand_on(&self) -> Snapshot {
        self.keep();
        for tree in [&self.container.project, &self.container.tmp] {
            fs::remove_dir_all(tree).unwrap();
        }
        let (store, host) = (&*self.store, up());
        block_on(receive_kept(store, &kept(), &host, &self.container, &Arc::default())).unwrap().0
    }

    fn keep(&self) {
        let now = SystemTime::now();
        block_on(send_tree(&*self.store, &kept(), &self.container, now, &Arc::default())).unwrap();
    }

    /// The host takes the results from what the container has kept.
    fn take_kept(&self, selection: &Selection, limits: &TransferLimits) -> anyhow::Result<Summary> {
        let destination = Destination { trees: &self.host, staging: &self.staging() };
        let bounds = Bounds { selection, limits };
        block_on(apply_kept(&*self.store, &kept(), &up(), destination, bounds, &Arc::default()))
    }

    /// Stores a manifest as a container that knows the key.
    fn keep_parts(&self, parts: &[ManifestPart]) {
        for (number, part) in (0..).zip(parts) {
            self.store.insert(&kept().part(number), part.encode(&kept().seal, kept().label(number)).unwrap());
        }
    }
}

#[test]
fn the_host_gets_the_changes_of_both_containers() {
    let world = World::new();
    for (path, content) in [("same", "s"), ("sub/changed", "before"), ("sub/gone", "x"), ("late", "l")] {
        put(&world.host.project, path, content.as_bytes());
    }
    put(&world.host.project, "large", &transfer::noise(5, 20 << 20));
    put(&world.host.tmp, "VARIABLE", b"secret");
    world.up();
    put(&world.container.project, "sub/changed", b"after");
    put(&world.container.project, "new", b"n");
    fs::remove_file(world.container.project.join("sub/gone")).unwrap();
    let left = picture(&world.container.project);
    let snapshot = world.hand_on();
    assert!(picture(&world.container.project) == left, "the next container finds what this one has left");
    assert_eq!(fs::read(world.container.tmp.join("VARIABLE")).unwrap(), b"secret");
    put(&world.container.project, "late", b"later");
    let summary = world.down(&snapshot, &everything());
    assert_eq!((summary.files, summary.deleted), (3, 1), "{summary:?}");
    assert!(picture(&world.host.project) == picture(&world.container.project));
}

#[test]
fn without_a_change_nothing_is_sent_twice() {
    let world = World::new();
    put(&world.host.project, "a/b", &transfer::noise(1, 100_000));
    world.up();
    let snapshot = world.hand_on();
    let summary = world.down(&snapshot, &everything());
    assert_eq!((summary.files, summary.deleted, summary.bytes), (0, 0, 0));
    let packs = |keys| block_on(packs_of(&*world.store, &keys, &TransferLimits::default())).unwrap().packs;
    assert_eq!(packs(kept()), packs(up()), "the packs of the host hold all of it");
}

#[test]
fn the_host_takes_what_the_job_selects_of_a_kept_project() {
    let world = World::new();
    for (path, content) in
        [("out/same", "s"), ("out/changed", "before"), ("out/gone", "x"), ("src", "before"), (".git/config", "[core]")]
    {
        put(&world.host.project, path, content.as_bytes());
    }
    put(&world.host.project, "out/large", &transfer::noise(5, 20 << 20));
    world.up();
    let project = &world.container.project;
    for (path, content) in [("out/changed", "after"), ("out/new", "n"), ("src", "after"), (".git/config", "evil")] {
        put(project, path, content.as_bytes());
    }
    put(project, "out/deep/large", &transfer::noise(6, 20 << 20));
    chmod(project.join("out/new"), 0o6755);
    fs::remove_file(project.join("out/gone")).unwrap();
    world.keep();
    let before = fs::metadata(world.host.project.join("out/same")).unwrap().ino();
    let summary = world.take_kept(&only(&["out"]), &TransferLimits::default()).unwrap();
    assert_eq!((summary.files, summary.deleted), (3, 1), "{summary:?}");
    assert_eq!(summary.warnings, [""; 0]);
    let (here, there) = (picture(&world.host.project), picture(project));
    for path in ["out/changed", "out/deep/large", "out/large", "out/same"] {
        assert!(here[OsStr::new(path)] == there[OsStr::new(path)], "{path}");
    }
    assert_eq!(fs::metadata(world.host.project.join("out/new")).unwrap().mode() & 0o7777, 0o755);
    assert!(!world.host.project.join("out/gone").exists());
    assert_eq!(fs::read(world.host.project.join("src")).unwrap(), b"before");
    assert_eq!(fs::read(world.host.project.join(".git/config")).unwrap(), b"[core]");
    assert_eq!(
        fs::metadata(world.host.project.join("out/same")).unwrap().ino(),
        before,
        "an equal file is not replaced"
    );
    assert!(!world.staging().exists());
}

/// A path with such a variable means all files, since a later stage alone knows its value.
#[test]
fn a_variable_of_a_kept_project_counts() {
    let world = World::new();
    put(&world.host.project, "src", b"before");
    world.up();
    put(&world.container.project, "src", b"after");
    put(&world.container.tmp, "gitlab_runner_env", b"OUT=elsewhere\n");
    put(&world.container.tmp, "other", b"");
    world.keep();
    let rule = Rule { include: vec!["out".to_owned()], variables: vec!["OUT".to_owned()], ..Rule::default() };
    let selection = Selection { rules: vec![rule], ..Selection::default() };
    world.take_kept(&selection, &TransferLimits::default()).unwrap();
    assert_eq!(fs::read(world.host.project.join("src")).unwrap(), b"after");
    assert_eq!(fs::read(world.host.tmp.join("gitlab_runner_env")).unwrap(), b"OUT=elsewhere\n");
    assert!(!world.host.tmp.join("other").exists());
}

fn file(path: &str) -> Record {
    Record::File {
        entry: Entry {
            tree: Tree::Project,
            kind: EntryKind::File,
            path: path.as_bytes().to_vec(),
            mode: 0o644,
            mtime: Timestamp::default(),
            size: 0,
            target: Vec::new(),
        },
        chunks: Vec::new(),
    }
}

#[test]
fn a_hostile_kept_project_is_refused() {
    for (records, why) in [
        (vec![file("../evil")], "`..` component"),
        (vec![file("a"), file("a")], "sent this path twice"),
        (vec![file("a"), file("a/b")], "above it is no directory"),
    ] {
        let world = World::new();
        world.send().unwrap();
        let before = picture(&world.host.project);
        world.keep_parts(&[ManifestPart { records, end: Some(TransferEnd::default()), ..ManifestPart::default() }]);
        let error = world.take_kept(&everything(), &TransferLimits::default()).unwrap_err();
        assert!(render(&error).contains(why), "{error:#}");
        assert_eq!(kind_of(&error), FailureKind::User);
        assert!(picture(&world.host.project) == before);
    }
}

/// The manifest has no last part: the limit ends the reading, before the end of the parts is found.
#[test]
fn a_manifest_without_end_is_not_read_without_end() {
    let world = World::new();
    world.send().unwrap();
    let part = |number: u32| {
        let records = (0..1000).map(|name| file(&format!("{number}-{name}"))).collect();
        ManifestPart { records, ..ManifestPart::default() }
    };
    world.keep_parts(&(0..4).map(part).collect::<Vec<_>>());
    let limits = TransferLimits { max_files: 2500, ..TransferLimits::default() };
    let error = world.take_kept(&only(&["out"]), &limits).unwrap_err();
    let text = render(&error);
    assert!(text.contains("more than 2500 entries"), "{text}");
    assert!(
        text.contains("fewer files in the project, or ask the operator to raise `limits.results_max_files`"),
        "{text}"
    );

    let few = TransferLimits { max_files: 2, ..TransferLimits::default() };
    let error = block_on(packs_of(&*world.store, &kept(), &few)).unwrap_err();
    assert!(render(&error).contains("more than 2 parts"), "{error:#}");
}
