//! Tests of both directions of a transfer; compares the trees with plain snapshots.

mod asked;
mod deeds;
mod git;
mod hostile;
mod kept;
mod remembering;
mod transfer;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::path::{ancestors, enters_git};
use super::task::{Stop, on_thread};
use super::tree::Root;
use super::tree::Roots;
use super::tree::Walker;
use super::warnings::Warnings;
use super::*;
use crate::base::node::NodeId;
use crate::base::seal::{Label, Seal, SealKey};
use crate::cloud::testing::MemoryObjects;
use crate::cloud::{CloudError, ObjectStore};
use crate::protocol::keys::TransferKeys;
use crate::protocol::project::{HostTrees, Rule, Selection, Trees};

/// A host, a container and the store between them. The trees have different paths on the two sides.
struct World {
    folder: tempfile::TempDir,
    store: Arc<MemoryObjects>,
    host: Trees,
    container: Trees,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let side = |name: &str| Trees {
            project: folder.path().join(name).join("project"),
            tmp: folder.path().join(name).join("project.tmp"),
            host: None,
        };
        let (mut host, container) = (side("host"), side("container"));
        let base = folder.path().to_owned();
        host.host = Some(HostTrees { base, project: host.project.clone(), tmp: host.tmp.clone() });
        fs::create_dir_all(&host.project).unwrap();
        fs::create_dir_all(&host.tmp).unwrap();
        fs::create_dir(folder.path().join("scratch")).unwrap();
        Self { store: Arc::default(), host, container, folder }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn staging(&self) -> PathBuf {
        self.folder.path().join("scratch/results")
    }

    fn send(&self) -> anyhow::Result<Summary> {
        block_on(send(&*self.store, &up(), &self.host, &self.cache(), SystemTime::now(), &Arc::default()))
    }

    fn receive(&self) -> anyhow::Result<(Snapshot, Summary)> {
        block_on(receive(&*self.store, &up(), &self.container, &Arc::default()))
    }

    fn up(&self) -> Snapshot {
        self.send().unwrap();
        self.receive().unwrap().0
    }

    fn send_changes(&self, snapshot: &Snapshot, selection: &Selection) -> anyhow::Result<Summary> {
        block_on(send_changes(&*self.store, &down(), &self.container, snapshot, selection, &Arc::default()))
    }

    fn apply(&self, limits: &TransferLimits) -> anyhow::Result<Summary> {
        self.apply_asked(&everything(), limits)
    }

    fn apply_asked(&self, selection: &Selection, limits: &TransferLimits) -> anyhow::Result<Summary> {
        let (store, sent) = (&*self.store, all_sent());
        let destination = Destination { trees: &self.host, staging: &self.staging() };
        let bounds = Bounds { selection, limits };
        block_on(apply_changes(store, &down(), destination, bounds, &sent, &Arc::default()))
    }

    fn down(&self, snapshot: &Snapshot, selection: &Selection) -> Summary {
        self.send_changes(snapshot, selection).unwrap();
        self.apply_asked(selection, &TransferLimits::default()).unwrap()
    }
}

fn up() -> TransferKeys {
    TransferKeys {
        seal: seal(),
        first: Label::project_part(1, 0),
        manifest: "up".to_owned(),
        packs: "packs".to_owned(),
        private: "private".to_owned(),
    }
}

fn down() -> TransferKeys {
    let packs = "down/packs".to_owned();
    let first = Label::results_part(NodeId::LEADER, 0, 0);
    TransferKeys { seal: seal(), first, manifest: "down".to_owned(), packs: packs.clone(), private: packs }
}

fn seal() -> Seal {
    Seal::Keyed(SealKey::new([7; 32]))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn all_sent() -> AllSent {
    let sent = AllSent::default();
    sent.set();
    sent
}

fn everything() -> Selection {
    Selection { everything: true, ..Selection::default() }
}

fn only(paths: &[&str]) -> Selection {
    let include = paths.iter().map(|path| (*path).to_owned()).collect();
    Selection { rules: vec![Rule { include, ..Rule::default() }], ..Selection::default() }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    mode: u32,
    mtime: (i64, i64),
    /// Content of a file or target of a link.
    bytes: Option<Vec<u8>>,
}

type Picture = BTreeMap<OsString, Seen>;

/// Everything below `top`, read with nothing but the standard library.
fn picture(top: &Path) -> Picture {
    let mut picture = Picture::new();
    let mut open = vec![top.to_owned()];
    while let Some(directory) = open.pop() {
        for item in fs::read_dir(&directory).unwrap() {
            let path = item.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let bytes = if metadata.is_dir() {
                open.push(path.clone());
                None
            } else if metadata.is_symlink() {
                Some(fs::read_link(&path).unwrap().into_os_string().into_vec())
            } else if metadata.is_file() {
                Some(fs::read(&path).unwrap())
            } else {
                None
            };
            let seen = Seen { mode: metadata.mode(), mtime: (metadata.mtime(), metadata.mtime_nsec()), bytes };
            picture.insert(path.strip_prefix(top).unwrap().as_os_str().to_owned(), seen);
        }
    }
    picture
}

fn without_git(picture: Picture) -> Picture {
    picture.into_iter().filter(|(path, _)| !enters_git(path.as_bytes())).collect()
}

fn put(top: &Path, path: impl AsRef<Path>, content: &[u8]) {
    let path = top.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn chmod(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn everything_arrives_as_it_was() {
    let world = World::new();
    let project = &world.host.project;
    for name in [&b"plain"[..], b"with space", b"new\nline", b"-rf", b"\xff\xfe", b".hidden", &[b'n'; 255]] {
        put(project, OsStr::from_bytes(name), name);
    }
    put(project, ".git/HEAD", b"ref: refs/heads/main\n");
    put(project, "empty", b"");
    put(project, "tool", b"#!/bin/sh\n");
    chmod(project.join("tool"), 0o4755);
    put(project, "closed/in/here", b"x");
    chmod(project.join("closed"), 0o1555);
    fs::create_dir(project.join("void")).unwrap();
    symlink("plain", project.join("link")).unwrap();
    symlink("/nowhere/at/all", project.join("dangling")).unwrap();
    fs::hard_link(project.join("plain"), project.join("twin")).unwrap();
    let sparse = fs::File::create(project.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 3_000_000).unwrap();
    put(&world.host.tmp, "SECRET_FILE", b"secret");
    chmod(world.host.tmp.join("SECRET_FILE"), 0o600);
    chmod(&world.host.tmp, 0o700);

    world.up();
    assert_eq!(picture(&world.container.project), picture(project));
    assert_eq!(picture(&world.container.tmp), picture(&world.host.tmp));
    assert_eq!(fs::metadata(&world.container.tmp).unwrap().mode() & 0o7777, 0o700);
    assert!(fs::metadata(world.container.project.join("sparse")).unwrap().blocks() < 4000, "holes stay holes");
    chmod(project.join("closed"), 0o755);
    chmod(world.container.project.join("closed"), 0o755);
}

#[test]
fn paths_longer_than_the_kernel_takes_travel() {
    let world = World::new();
    // Made one level at a time, for no single call takes such a path.
    let name = "d".repeat(250);
    let make = |content: Option<&[u8]>, trees: &Trees| -> Vec<u8> {
        let root = Root::open(&trees.project).unwrap().unwrap();
        let mut walker = Walker::new(&root);
        let path = [name.as_str(); 20].join("/");
        let fd = walker.directory(path.as_bytes(), true).unwrap();
        if let Some(content) = content {
            let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
            let file = rustix::fs::openat(fd, "f", flags, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
            std::io::Write::write_all(&mut fs::File::from(file), content).unwrap();
        }
        let mut file = walker.open_file(format!("{path}/f").as_bytes()).unwrap();
        let mut found = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut found).unwrap();
        found
    };
    make(Some(b"deep"), &world.host);
    let snapshot = world.up();
    assert_eq!(make(None, &world.container), b"deep");
    make(Some(b"deeper"), &world.container);
    world.down(&snapshot, &everything());
    assert_eq!(make(None, &world.host), b"deeper");
}

#[test]
fn a_second_arrival_replaces_the_first() {
    let world = World::new();
    put(&world.host.project, "d/f", b"before");
    symlink("d", world.host.project.join("l")).unwrap();
    world.up();
    put(&world.container.project, "d/f", b"a script was here");
    fs::remove_file(world.container.project.join("l")).unwrap();
    fs::create_dir(world.container.project.join("l")).unwrap();
    let snapshot = world.up();
    assert_eq!(picture(&world.container.project), picture(&world.host.project));
    assert_eq!(world.down(&snapshot, &everything()).files, 0);
}

#[test]
fn a_socket_stays_behind_with_a_warning() {
    let world = World::new();
    let _socket = std::os::unix::net::UnixListener::bind(world.host.project.join("sock")).unwrap();
    let summary = world.send().unwrap();
    assert_eq!(summary.warnings, ["left out: 1 socket, FIFO or device: `sock`"]);
    assert_eq!(summary.files, 0);
}

/// Ends the writer when the test ends, also by a failed assertion.
struct StopWriting<'a>(&'a AtomicBool);

impl Drop for StopWriting<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn a_file_that_keeps_changing_is_named_on_the_way_up_and_kept_on_the_way_back() {
    // Large, so that reading it takes longer than a tick of the file system's clock.
    const SIZE: u64 = 32 << 20;
    let world = World::new();
    fs::File::create(world.host.project.join("log")).unwrap().set_len(SIZE).unwrap();
    let writing = AtomicBool::new(true);
    let append = |path: &Path| {
        let mut log = fs::File::options().append(true).open(path).unwrap();
        while writing.load(Ordering::Relaxed) {
            std::io::Write::write_all(&mut log, b"more").unwrap();
            log.set_len(SIZE).unwrap();
        }
    };
    let deadline = Instant::now() + Duration::from_mins(1);
    // The scheduler decides whether a read overlaps a write, so this repeats until it does.
    let until = |mut seen: Box<dyn FnMut() -> bool + '_>| {
        let _end = StopWriting(&writing);
        while !seen() {
            assert!(Instant::now() < deadline, "no read met the writer");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| append(&world.host.project.join("log")));
        until(Box::new(|| match world.send() {
            Ok(_) => false,
            Err(error) => {
                assert!(format!("{error:#}").contains("failed to read `log`: it changes while"), "{error:#}");
                true
            }
        }));
    });
    let snapshot = world.up();
    writing.store(true, Ordering::Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(|| append(&world.container.project.join("log")));
        until(Box::new(|| {
            let summary = world.send_changes(&snapshot, &everything()).unwrap();
            summary.warnings == ["changed while it was read: `log`"]
        }));
    });
    world.apply(&TransferLimits::default()).unwrap();
    let size = fs::metadata(world.host.project.join("log")).unwrap().len();
    assert!(size.abs_diff(SIZE) <= 4, "{size}");
}

#[test]
fn a_transfer_that_nobody_waits_for_ends() {
    block_on(async {
        let (told, mut tell) = tokio::sync::oneshot::channel();
        let mut work = Box::pin(on_thread(move |stop: &Stop| {
            while stop.check().is_ok() {
                std::thread::yield_now();
            }
            let _ = told.send(());
            Ok(())
        }));
        assert!(futures::poll!(&mut work).is_pending());
        assert!(tell.try_recv().is_err());
        drop(work);
        tokio::time::timeout(Duration::from_mins(1), tell).await.unwrap().unwrap();
    });
}

#[test]
fn closed_directories_of_the_host_are_opened_and_closed_again() {
    let world = World::new();
    let (host, container) = (&world.host.project, &world.container.project);
    put(host, "mod/pkg/file", b"before");
    put(host, "mod/pkg/gone", b"before");
    for path in ["mod/pkg", "mod"] {
        chmod(host.join(path), 0o555);
    }
    let snapshot = world.up();
    for path in ["mod", "mod/pkg"] {
        chmod(container.join(path), 0o755);
    }
    put(container, "mod/pkg/file", b"after.");
    fs::remove_file(container.join("mod/pkg/gone")).unwrap();
    for path in ["mod/pkg", "mod"] {
        chmod(container.join(path), 0o555);
    }
    world.down(&snapshot, &everything());
    let mut expected = picture(container);
    // Results get the owner's permissions, so that the runner can clean them up.
    expected.get_mut(OsStr::new("mod/pkg")).unwrap().mode |= 0o700;
    assert_eq!(picture(host), expected);
    for path in ["mod", "mod/pkg"] {
        chmod(container.join(path), 0o755);
        chmod(host.join(path), 0o755);
    }
}

#[test]
fn what_is_missing_is_named() {
    let world = World::new();
    let error = world.apply(&TransferLimits::default()).unwrap_err();
    assert!(format!("{error:#}").contains("s3://memory/down/000000"), "{error:#}");
    fs::remove_dir(&world.host.project).unwrap();
    let error = world.send().unwrap_err();
    assert!(format!("{error:#}").contains(world.host.project.to_str().unwrap()), "{error:#}");
}

#[test]
fn what_its_owner_may_not_read_travels_too() {
    let world = World::new();
    put(&world.host.project, "mine", b"x");
    put(&world.host.project, "dark/deep/f", b"y");
    for path in ["mine", "dark/deep/f", "dark/deep", "dark"] {
        chmod(world.host.project.join(path), 0);
    }
    chmod(&world.host.project, 0o300);
    world.up();
    chmod(&world.container.project, 0o700);
    let container = |path: &str| world.container.project.join(path);
    assert_eq!(fs::metadata(container("dark")).unwrap().mode() & 0o777, 0);
    for path in ["dark", "dark/deep", "dark/deep/f", "mine"] {
        chmod(container(path), 0o700);
    }
    assert_eq!(fs::read(container("mine")).unwrap(), b"x");
    assert_eq!(fs::read(container("dark/deep/f")).unwrap(), b"y");
}

#[test]
fn only_wanted_changes_come_back() {
    let world = World::new();
    let (host, container) = (&world.host.project, &world.container.project);
    for path in ["out/old", "out/same", "src/main", "out/gone", "src/gone", ".git/config", "swap/dir/x", "turn"] {
        put(host, path, b"before");
    }
    let snapshot = world.up();
    put(container, "out/old", b"after.");
    put(container, "out/deep/new", b"after.");
    put(container, "src/main", b"after.");
    put(container, ".git/config", b"evil");
    put(container, "out/sub/.git/hooks/x", b"evil");
    put(container, "other/out/x", b"not wanted");
    fs::remove_file(container.join("out/gone")).unwrap();
    fs::remove_file(container.join("src/gone")).unwrap();
    fs::remove_dir_all(container.join("swap")).unwrap();
    put(container, "swap", b"now a file");
    fs::remove_file(container.join("turn")).unwrap();
    put(container, "turn/into", b"a directory");
    put(container, "out/tool", b"tool");
    chmod(container.join("out/tool"), 0o6755);
    symlink("../src", container.join("out/inside")).unwrap();
    symlink("/etc/passwd", container.join("out/outside")).unwrap();
    put(&world.container.tmp, "gitlab_runner_env", b"A=1\n");
    put(&world.container.tmp, "MASKED", b"stays");

    let summary = world.down(&snapshot, &only(&["out/", "swap", "turn/**"]));
    let read = |path: &str| fs::read_to_string(host.join(path)).unwrap();
    assert_eq!(read("out/old"), "after.");
    assert_eq!(read("out/same"), "before");
    assert_eq!(read("out/deep/new"), "after.");
    assert_eq!(read("src/main"), "before");
    assert_eq!(read("src/gone"), "before");
    assert_eq!(read(".git/config"), "before");
    assert_eq!(read("swap"), "now a file");
    assert_eq!(read("turn/into"), "a directory");
    assert_eq!(fs::metadata(host.join("out/tool")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_link(host.join("out/inside")).unwrap(), Path::new("../src"));
    for absent in ["out/gone", "out/sub/.git", "other", "out/outside"] {
        assert!(fs::symlink_metadata(host.join(absent)).is_err(), "{absent}");
    }
    assert_eq!(fs::read(world.host.tmp.join("gitlab_runner_env")).unwrap(), b"A=1\n");
    assert!(!world.host.tmp.join("MASKED").exists());
    assert_eq!(
        summary.warnings,
        [
            "left out: 1 nested git repository: `out/sub/.git`; what is in a `.git` never comes back, the files beside it do",
            "left out: 1 link that leads out of the project: `out/outside`; the operator can keep such links with \
             `results.keep_outside_links`",
        ]
    );
    assert_eq!(summary.deleted, 3, "out/gone, swap/dir, swap/dir/x");
    assert_eq!(
        picture(&host.join("out"))[OsStr::new("deep")].mtime,
        picture(&container.join("out"))[OsStr::new("deep")].mtime
    );
    // Cumulative and repeatable: a second collection finds the same, applying it twice changes nothing.
    let before = picture(host);
    world.down(&snapshot, &only(&["out/", "swap", "turn/**"]));
    assert_eq!(picture(host), before);
}

#[test]
fn a_change_that_hides_its_traces_is_found() {
    let world = World::new();
    put(&world.host.project, "f", b"before");
    let snapshot = world.up();
    let path = world.container.project.join("f");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, b"after.").unwrap();
    fs::File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
    world.down(&snapshot, &everything());
    assert_eq!(fs::read(world.host.project.join("f")).unwrap(), b"after.");
}

#[test]
fn nothing_changed_sends_nothing() {
    let world = World::new();
    put(&world.host.project, "a/b", b"x");
    let snapshot = world.up();
    let summary = world.down(&snapshot, &everything());
    assert_eq!((summary.files, summary.deleted, summary.bytes), (0, 0, 0));
}

#[test]
fn what_is_gone_is_looked_for_where_it_was() {
    let world = World::new();
    let host = &world.host.project;
    for directory in ["runs/1", "d", "e"] {
        fs::create_dir_all(host.join(directory)).unwrap();
    }
    for file in ["runs/1/m", "runs/1/n", "d/m", "d/kept", "e/m"] {
        fs::write(host.join(file), file).unwrap();
    }
    symlink("runs/1", host.join("latest")).unwrap();
    let snapshot = world.up();
    let container = &world.container.project;
    // Through an unchanged link, below a new link, and outside all paths of the job.
    fs::remove_file(container.join("runs/1/m")).unwrap();
    fs::remove_dir_all(container.join("d")).unwrap();
    symlink("e", container.join("d")).unwrap();
    fs::remove_file(container.join("e/m")).unwrap();
    world.down(&snapshot, &only(&["latest/m", "*/kept"]));
    let left: Vec<_> = picture(host).into_keys().collect();
    assert_eq!(left, ["d", "d/m", "e", "e/m", "latest", "runs", "runs/1", "runs/1/n"]);

    let world = World::new();
    fs::write(world.host.project.join("m"), "m").unwrap();
    symlink("m", world.host.project.join("latest")).unwrap();
    let snapshot = world.up();
    fs::remove_file(world.container.project.join("latest")).unwrap();
    world.down(&snapshot, &only(&["latest"]));
    assert_eq!(picture(&world.host.project).into_keys().collect::<Vec<_>>(), ["m"]);
}

#[test]
fn a_value_that_the_job_assigns_anew_is_not_trusted() {
    let world = World::new();
    let snapshot = world.up();
    fs::write(world.container.project.join("new"), "new").unwrap();
    fs::write(world.container.tmp.join("gitlab_runner_env"), "OUT=new\n").unwrap();
    let rule = Rule { include: vec!["$OUT".to_owned()], ..Rule::default() };
    let rule = rule.with_values(&|_| Some("old".to_owned()));
    world.down(&snapshot, &Selection { rules: vec![rule], ..Selection::default() });
    assert!(world.host.project.join("new").exists());
}

#[test]
fn a_selection_travels_as_json() {
    let selection: Selection =
        serde_json::from_str(r#"{"rules": [{"include": ["out/"], "newer": 1}], "newer": 1}"#).unwrap();
    assert_eq!(selection, only(&["out/"]));
}
