//! Properties that hold for any content of a store: the body of a fuzz target, which an ordinary test also runs on the
//! corpus.
//!
//! Takes the modules under test from `executor`. Writes below one directory in memory, when there is
//! such a thing, and waits for nothing: time is paused.

mod asking;
mod lying;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::choices::Choices;
use executor::base::node::NodeId;
use executor::base::seal::{Label, Seal};
use executor::cloud::{CloudError, Content, Listed, ObjectStore, Retention, Sha256Hash, StoredHash};
use executor::protocol::keys::TransferKeys;
use executor::protocol::project::{Rule, Selection, Trees};
use executor::workspace::{self, Damaged, Summary, TransferLimits};

const LIMITS: TransferLimits = TransferLimits { max_bytes: 1 << 20, max_files: 50, max_names: 128 << 20 };

/// The first byte tells what the others are: a part of a manifest, two of them, choices of a manifest that a liar writes, or
/// the end of a pack. Returns whether the program took it.
pub(super) fn unpack(data: &[u8]) -> bool {
    let Some((what, rest)) = data.split_first() else { return false };
    match what % 6 {
        0 => applies(&everything(), |_| vec![lying::part(rest)]),
        1 => {
            let (length, rest) = rest.split_at(rest.len().min(2));
            let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            let (first, second) = rest.split_at(length.min(rest.len()));
            applies(&everything(), |_| vec![lying::part(first), lying::part(second)])
        }
        2 => applies(&everything(), |project| lying::manifest(&mut Choices(rest), project)),
        3 => arrives(lying::pack_with_index(rest), true),
        4 => {
            let (index, lies) = lying::index(&mut Choices(rest));
            arrives(lying::pack_with_index(&index), lies)
        }
        _ => arrives(lying::pack_with_end(rest), true),
    }
}

fn everything() -> Selection {
    Selection { everything: true, ..Selection::default() }
}

/// A job asks for some paths, and a liar sends what it likes: what changes on the host was asked for. Returns whether the program took it.
pub(super) fn selection(data: &[u8]) -> bool {
    let mut choices = Choices(data);
    let rule = |choices: &mut Choices| {
        let mut patterns = |most: u8| (0..choices.byte() % most).map(|_| asking::pattern(choices)).collect();
        Rule { include: patterns(4), exclude: patterns(3), ..Rule::default() }
    };
    let rules = (0..choices.byte() % 4).map(|_| rule(&mut choices)).collect();
    let nested_repositories = choices.byte() % 4 == 0;
    let asked = Selection { rules, nested_repositories, ..Selection::default() };
    applies(&asked, |project| lying::manifest(&mut choices, project))
}

/// Objects in a map; no call fails.
#[derive(Default)]
struct Store(Mutex<BTreeMap<String, Bytes>>);

impl Store {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, key: String, body: Vec<u8>) {
        self.objects().insert(key, body.into());
    }
}

#[async_trait]
impl ObjectStore for Store {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CloudError> {
        Ok(self.objects().get(key).map(|body| body.to_vec()))
    }

    async fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Option<Bytes>, CloudError> {
        Ok(self.objects().get(key).map(|body| {
            let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(body.len());
            body.slice(at(start)..at(start.saturating_add(length)))
        }))
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, CloudError> {
        Ok(self.objects().get(key).map(|body| body.len() as u64))
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), CloudError> {
        self.insert(key.to_owned(), body);
        Ok(())
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<bool, CloudError> {
        let mut objects = self.objects();
        let is_new = !objects.contains_key(key);
        objects.entry(key.to_owned()).or_insert(body);
        Ok(is_new)
    }

    async fn inventory(&self, prefix: &str) -> Result<Vec<Listed>, CloudError> {
        let modified = Some(SystemTime::now());
        let objects = self.objects();
        let own = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(own.map(|(key, body)| Listed { key: key.clone(), bytes: body.len() as u64, modified }).collect())
    }

    async fn delete(&self, keys: &[String]) -> Result<(), CloudError> {
        let mut objects = self.objects();
        for key in keys {
            objects.remove(key);
        }
        Ok(())
    }

    fn uri(&self, key: &str) -> String {
        format!("s3://memory/{key}")
    }

    async fn put_with_hash(&self, _: &str, _: Content<'_>, _: &Sha256Hash) -> Result<(), CloudError> {
        unreachable!("the workspace writes objects from memory")
    }
    async fn stored_hash(&self, _: &str) -> Result<StoredHash, CloudError> {
        unreachable!("the workspace writes objects from memory")
    }
    async fn retention(&self) -> Result<Retention, CloudError> {
        unreachable!("the workspace writes objects from memory")
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().expect("a runtime starts")
    });
    RUNTIME.block_on(future)
}

fn folder() -> TempDir {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("unpack-");
        builder
    };
    builder().tempdir_in("/dev/shm").or_else(|_| builder().tempdir()).expect("there is room for a directory")
}

/// Mode, time, and the content of a file or the target of a link.
#[derive(PartialEq, Eq, Debug, Clone)]
struct Seen {
    mode: u32,
    mtime: (i64, i64),
    bytes: Option<Vec<u8>>,
}

impl Seen {
    fn is_link(&self) -> bool {
        self.mode & 0o170_000 == 0o120_000
    }

    /// Without the time.
    fn content(&self) -> (u32, Option<&[u8]>) {
        (self.mode, self.bytes.as_deref())
    }
}

type Picture = BTreeMap<PathBuf, Seen>;

/// Everything below `top`. What this user may not read is opened up, after a look at its mode.
fn picture(top: &Path) -> Picture {
    let mut picture = Picture::new();
    let mut open = vec![top.to_owned()];
    while let Some(directory) = open.pop() {
        for item in fs::read_dir(&directory).expect("a directory can be listed") {
            let path = item.expect("a directory can be listed").path();
            let metadata = fs::symlink_metadata(&path).expect("nobody else is here");
            if !metadata.is_symlink() && metadata.mode() & 0o400 == 0
                || metadata.is_dir() && metadata.mode() & 0o700 != 0o700
            {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("it is ours");
            }
            let bytes = if metadata.is_dir() {
                open.push(path.clone());
                None
            } else if metadata.is_symlink() {
                Some(fs::read_link(&path).expect("it is a link").into_os_string().into_vec())
            } else {
                assert!(metadata.is_file(), "{} is a device, socket or FIFO", path.display());
                Some(fs::read(&path).expect("it can be read"))
            };
            let seen = Seen { mode: metadata.mode(), mtime: (metadata.mtime(), metadata.mtime_nsec()), bytes };
            picture.insert(path.strip_prefix(top).expect("it is below").to_owned(), seen);
        }
    }
    picture
}

fn put(top: &Path, path: &str, content: &[u8]) {
    let path = top.join(path);
    fs::create_dir_all(path.parent().expect("it is below")).expect("a directory can be made");
    fs::write(path, content).expect("a file can be written");
}

/// A host with something to lose.
struct Host {
    folder: TempDir,
    trees: Trees,
    before: Picture,
}

impl Host {
    fn new() -> Self {
        let folder = folder();
        let top = folder.path();
        let trees = Trees { project: top.join("host/project"), tmp: top.join("host/project.tmp"), host: None };
        put(top, "outside/precious", b"precious");
        put(top, "scratch/.keep", b"");
        for (path, content) in [
            ("good", "good"),
            ("dir/inside", "good"),
            ("dir/deep/leaf", "good"),
            (".git/config", "[core]\n"),
            ("sub/.git/config", "[core]\n"),
            ("sub/kept", "good"),
            ("run.sh", "true\n"),
        ] {
            put(&trees.project, path, content.as_bytes());
        }
        put(&trees.tmp, "gitlab_runner_env", b"A=b\n");
        put(&trees.tmp, "other", b"other");
        fs::create_dir(trees.project.join("empty")).expect("a directory can be made");
        symlink(top.join("outside"), trees.project.join("out")).expect("a link can be made");
        let before = Self::seen(folder.path());
        Self { folder, trees, before }
    }

    /// All but the directory that holds the staging for a while.
    fn seen(top: &Path) -> Picture {
        let mut seen = picture(top);
        seen.remove(Path::new("scratch"));
        seen
    }
}

thread_local! {
    static HOST: Cell<Option<Host>> = const { Cell::new(None) };
}

/// Nothing a container stores changes anything outside the project, in a `.git`, or, when it is refused, anything at all.
///
/// Tells whether the manifest was applied.
fn applies(selection: &Selection, manifest: impl FnOnce(&[u8]) -> Vec<Vec<u8>>) -> bool {
    let host = HOST.take().unwrap_or_else(Host::new);
    let packs = "down/packs".to_owned();
    let (seal, first) = (Seal::Absent, Label::results_part(NodeId::LEADER, 0, 0));
    let route = TransferKeys { seal, first, manifest: "down".to_owned(), packs: packs.clone(), private: packs };
    let store = Store::default();
    for (number, part) in manifest(host.trees.project.as_os_str().as_bytes()).into_iter().enumerate() {
        store.insert(format!("down/{number:06}"), part);
    }
    store.insert(format!("down/packs/{}", name_of_pack()), lying::pack());
    let staging = host.folder.path().join("scratch/staging");
    let bounds = workspace::Bounds { selection, limits: &LIMITS };
    let destination = workspace::Destination { trees: &host.trees, staging: &staging };
    let (sent, progress) = (workspace::AllSent::default(), Arc::default());
    sent.set();
    let applied = workspace::apply_changes(&store, &route, destination, bounds, &sent, &progress);
    let result = block_on(applied);
    let after = Host::seen(host.folder.path());
    match &result {
        Err(error) => assert_same(&host.before, &after, &format!("was refused, and yet changed: {error:#}")),
        Ok(summary) => is_sound(&host, &after, summary, selection),
    }
    if after == host.before {
        HOST.set(Some(host));
    }
    result.is_ok()
}

fn is_sound(host: &Host, after: &Picture, summary: &Summary, selection: &Selection) {
    let stays = if selection.nested_repositories { enters_own_git } else { enters_git };
    let beyond = |picture: &Picture| -> Picture {
        let inside = |path: &Path| {
            let tmp = ["host/project.tmp", "host/project.tmp/gitlab_runner_env"];
            path.starts_with("host/project") && !stays(path) || tmp.iter().any(|own| path == Path::new(own))
        };
        picture.iter().filter(|(path, _)| !inside(path)).map(|(path, seen)| (path.clone(), seen.clone())).collect()
    };
    assert_same(&beyond(&host.before), &beyond(after), "changed beyond the project");
    if !selection.everything {
        asking::changes_were_asked_for(selection, &host.before, after);
    }
    for (path, seen) in after {
        assert_eq!(seen.mode & 0o6000, 0, "{} is set-user-id or set-group-id", path.display());
    }
    assert!(summary.files + summary.deleted <= LIMITS.max_files && summary.bytes <= LIMITS.max_bytes, "{summary:?}");
    assert!(summary.warnings.len() <= 101 && !summary.warnings.iter().any(|line| line.contains(char::is_control)));

    if *after == host.before {
        return;
    }
    // The host's own way out is not the container's.
    let (project, out) = (&host.trees.project, host.trees.project.join("out"));
    if fs::read_link(&out).is_ok_and(|target| target == host.folder.path().join("outside")) {
        fs::remove_file(&out).expect("it is ours");
    }
    for path in after.keys().map(|path| host.folder.path().join(path)).filter(|path| path.starts_with(project)) {
        let Ok(target) = fs::read_link(&path) else { continue };
        let shown = format!("{} -> {}", path.display(), target.display());
        let directory = path.parent().expect("it is below");
        assert!(flattened(&directory.join(target)).starts_with(project), "{shown} leaves the project");
        assert!(
            fs::canonicalize(&path).map_or(true, |end| end.starts_with(project)),
            "{shown} leads out of the project"
        );
    }
}

fn assert_same(before: &Picture, after: &Picture, what: &str) {
    let changed: Vec<&PathBuf> =
        before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
    assert!(changed.is_empty(), "{changed:?} {what}");
}

/// The project's own.
fn enters_own_git(path: &Path) -> bool {
    path.strip_prefix("host/project")
        .ok()
        .and_then(|below| below.components().next())
        .is_some_and(|first| first.as_os_str().as_bytes().eq_ignore_ascii_case(b".git"))
}

fn enters_git(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().as_bytes().eq_ignore_ascii_case(b".git"))
}

/// The path without `..`, as if there were no links.
fn flattened(path: &Path) -> PathBuf {
    let mut flat = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(flat.pop()),
            other => flat.push(other),
        }
    }
    flat
}

fn name_of_pack() -> String {
    lying::PACK_ID.iter().fold(String::new(), |name, byte| format!("{name}{byte:02x}"))
}

/// Whatever a pack of the store is like, the project is sent, and it arrives whole: at once, or once the pack that the error names
/// was forgotten.
///
/// Tells whether it arrived at once.
fn arrives(pack: Vec<u8>, may_lie: bool) -> bool {
    thread_local! {
        static FOLDER: TempDir = {
            let folder = folder();
            put(folder.path(), "host/project/evil", lying::EVIL);
            put(folder.path(), "host/project/dir/long", &lying::long());
            put(folder.path(), "host/project/new", b"that no pack has");
            folder
        };
    }
    FOLDER.with(|folder| arrives_from(folder.path(), pack, may_lie))
}

fn arrives_from(top: &Path, pack: Vec<u8>, may_lie: bool) -> bool {
    let side = |name: &str| {
        let side = top.join(name);
        Trees { project: side.join("project"), tmp: side.join("project.tmp"), host: None }
    };
    let (host, container, cache) = (side("host"), side("container"), top.join("cache"));
    let store = Store::default();
    let packs = "packs".to_owned();
    store.insert(format!("packs/{}", name_of_pack()), pack);
    for (manifest, is_first) in [("first".to_owned(), true), ("second".to_owned(), false)] {
        let (seal, first) = (Seal::Absent, Label::project_part(1, 0));
        let route = TransferKeys { seal, first, manifest, packs: packs.clone(), private: "private".to_owned() };
        for leftover in [&cache, &top.join("container")] {
            if leftover.exists() {
                fs::remove_dir_all(leftover).expect("it is ours");
            }
        }
        block_on(workspace::send(&store, &route, &host, &cache, SystemTime::now(), &Arc::default()))
            .expect("the project is sent");
        let received = block_on(workspace::receive(&store, &route, &container, &Arc::default()));
        let Err(error) = received else {
            assert_eq!(picture(&host.project), picture(&container.project));
            return is_first;
        };
        let damaged = error.chain().find_map(|cause| cause.downcast_ref::<Damaged>());
        let damaged = damaged.unwrap_or_else(|| panic!("an error that names no chunk: {error:#}"));
        assert!(is_first && may_lie && damaged.pack == name_of_pack(), "{damaged}, and no lie");
        block_on(workspace::forget(&store, &route, &damaged.pack, &cache)).expect("a pack can be forgotten");
    }
    panic!("the project never arrived");
}
