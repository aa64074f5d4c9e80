//! Tests of the chunks of a transfer: known, lost, old, wrong or late ones, and faults of the store.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::cloud::testing::{Fault, When};
use crate::cloud::{CloudErrorKind, Content, Listed, Retention, Sha256Hash, StoredHash};
use crate::config::env::short_or_long;
use crate::workspace::store::ChunkHash;
use crate::workspace::store::PackIndex;

/// Pseudo-random bytes, different for each seed.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// 200 small files, one of 3 MiB and one of 20 MiB.
pub(super) fn project() -> World {
    let world = World::new();
    for number in 0..200 {
        put(&world.host.project, format!("src/{}/{number}", number % 7), &noise(number, 3000));
    }
    put(&world.host.project, "medium", &noise(1000, 3 << 20));
    put(&world.host.project, "large", &noise(1001, 20 << 20));
    world
}

impl World {
    fn packs(&self) -> BTreeSet<String> {
        self.store.keys().into_iter().filter(|key| key.starts_with("packs/")).collect()
    }

    fn empty_container(&self) {
        fs::remove_dir_all(&self.container.project).unwrap();
    }

    pub(super) fn arrives(&self) {
        if self.container.project.exists() {
            self.empty_container();
        }
        self.receive().unwrap();
        assert!(picture(&self.container.project) == picture(&self.host.project), "what arrived is what was sent");
    }
}

#[test]
fn what_the_store_has_is_not_sent_again() {
    let world = project();
    let first = world.send().unwrap();
    assert!(first.sent > 23 << 20, "{first:?}");
    let packs = world.packs();
    world.arrives();
    // Another job of the project, another branch: one file is changed, one moved, one new.
    fs::rename(world.host.project.join("medium"), world.host.project.join("elsewhere")).unwrap();
    put(&world.host.project, "src/0/0", b"changed");
    put(&world.host.project, "src/new", b"new");
    let second = world.send().unwrap();
    assert!(second.sent < 40_000, "{second:?}");
    assert_eq!(second.bytes, first.bytes - 3000 + 7 + 3);
    assert_eq!(world.packs().difference(&packs).count(), 1);
    world.arrives();
    let third = world.send().unwrap();
    assert!(third.sent < 20_000 && world.packs().len() == packs.len() + 1, "{third:?}");
}

#[test]
fn a_change_in_a_large_file_costs_little() {
    let world = project();
    world.send().unwrap();
    let path = world.host.project.join("large");
    let mut content = fs::read(&path).unwrap();
    content.splice(9 << 20..9 << 20, *b"inserted");
    fs::write(&path, content).unwrap();
    let second = world.send().unwrap();
    assert!(second.sent < 3 << 20, "{second:?}");
    world.arrives();
}

#[test]
fn equal_content_travels_once() {
    let world = World::new();
    for name in ["a", "b", "c/d"] {
        put(&world.host.project, name, &noise(1, 12 << 20));
    }
    let summary = world.send().unwrap();
    assert!(summary.bytes == 36 << 20 && summary.sent < 13 << 20, "{summary:?}");
    world.arrives();
}

#[test]
fn the_notes_of_a_host_can_be_lost_or_wrong() {
    let world = project();
    world.send().unwrap();
    let packs = world.packs();
    // Another host of the runner has none.
    fs::remove_dir_all(world.cache()).unwrap();
    assert!(world.send().unwrap().sent < 20_000);
    for folder in ["indexes", "files"] {
        for file in fs::read_dir(world.cache().join(folder)).unwrap() {
            fs::write(file.unwrap().path(), b"nonsense").unwrap();
        }
        fs::write(world.cache().join(folder).join("00112233445566778899aabbccddeeff"), b"of nothing").unwrap();
    }
    assert!(world.send().unwrap().sent < 20_000);
    assert_eq!(world.packs(), packs);
    world.arrives();
}

#[test]
fn the_index_of_another_pack_is_not_believed() {
    let world = project();
    world.send().unwrap();
    let folder = world.cache().join("indexes");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let first = fs::read(&files[0]).unwrap();
    for pair in files.windows(2) {
        fs::copy(&pair[1], &pair[0]).unwrap();
    }
    fs::write(files.last().unwrap(), first).unwrap();
    assert!(world.send().unwrap().sent < 20_000);
    world.arrives();
}

#[test]
fn what_has_expired_is_sent_again() {
    let world = project();
    world.send().unwrap();
    for pack in world.packs() {
        world.store.expire(&pack);
    }
    assert!(world.send().unwrap().sent > 23 << 20);
    world.arrives();
}

#[test]
fn what_may_expire_soon_is_stored_anew() {
    let world = project();
    world.send().unwrap();
    let packs = world.packs();
    for pack in &packs {
        world.store.set_modified(pack, SystemTime::now() - Duration::from_hours(8 * 24));
    }
    assert!(world.send().unwrap().sent > 23 << 20);
    // Old packs are deleted, unless they were stored again under the same name.
    for listed in block_on(world.store.inventory("packs/")).unwrap() {
        if listed.modified.unwrap().elapsed().is_ok_and(|age| age > Duration::from_hours(1)) {
            world.store.expire(&listed.key);
        }
    }
    world.arrives();
    assert!(world.send().unwrap().sent < 20_000, "young again");
}

#[test]
fn a_pack_that_vanishes_after_it_was_counted_on_is_named_and_another_attempt_mends_it() {
    let world = project();
    world.send().unwrap();
    let gone = world.packs().first().unwrap().clone();
    world.store.expire(&gone);
    let error = world.receive().unwrap_err();
    let missing = error.chain().find_map(|cause| cause.downcast_ref::<MissingPacks>()).expect("it is told apart");
    assert!(missing.uri.ends_with(&gone), "{missing}");
    world.send().unwrap();
    world.arrives();
}

#[test]
fn a_wrong_chunk_is_named_and_its_pack_can_be_dropped() {
    let world = project();
    world.send().unwrap();
    let key = world.packs().first().unwrap().clone();
    let mut bytes = world.store.contents(&key).unwrap();
    bytes[20] ^= 1;
    world.store.insert(&key, bytes);
    let error = world.receive().unwrap_err();
    let damaged = error.chain().find_map(|cause| cause.downcast_ref::<Damaged>()).expect("it is told apart");
    assert!(key.ends_with(&damaged.pack) && damaged.chunk.len() == 64, "{damaged}");
    block_on(forget(&*world.store, &up(), &damaged.pack, &world.cache())).unwrap();
    assert!(!world.packs().contains(&key));
    assert!(block_on(forget(&*world.store, &up(), "../../other", &world.cache())).is_err());
    // A container that reports an intact pack as damaged does not harm other jobs.
    let sound = world.packs().first().unwrap().clone();
    block_on(forget(&*world.store, &up(), sound.strip_prefix("packs/").unwrap(), &world.cache())).unwrap();
    assert!(world.packs().contains(&sound));
    world.send().unwrap();
    world.arrives();
}

/// Holds back a method's calls until released.
struct Gated {
    inner: Arc<MemoryObjects>,
    /// Calls of `put_if_absent` that pass at once.
    free: std::sync::atomic::AtomicUsize,
    gate: tokio::sync::Semaphore,
}

#[async_trait]
impl ObjectStore for Gated {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CloudError> {
        self.inner.get(key).await
    }
    async fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Option<Bytes>, CloudError> {
        self.inner.get_range(key, start, length).await
    }
    async fn size(&self, key: &str) -> Result<Option<u64>, CloudError> {
        self.inner.size(key).await
    }
    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), CloudError> {
        self.inner.put(key, body).await
    }
    async fn put_with_hash(&self, key: &str, content: Content<'_>, hash: &Sha256Hash) -> Result<(), CloudError> {
        self.inner.put_with_hash(key, content, hash).await
    }
    async fn stored_hash(&self, key: &str) -> Result<StoredHash, CloudError> {
        self.inner.stored_hash(key).await
    }
    async fn retention(&self) -> Result<Retention, CloudError> {
        self.inner.retention().await
    }
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<bool, CloudError> {
        let free = self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1));
        if free.is_err() {
            drop(self.gate.acquire().await);
        }
        self.inner.put_if_absent(key, body).await
    }
    async fn inventory(&self, prefix: &str) -> Result<Vec<Listed>, CloudError> {
        self.inner.inventory(prefix).await
    }
    async fn delete(&self, keys: &[String]) -> Result<(), CloudError> {
        self.inner.delete(keys).await
    }
    fn uri(&self, key: &str) -> String {
        self.inner.uri(key)
    }
}

#[test]
fn the_first_file_is_there_before_the_last_chunk_has_left() {
    let world = project();
    put(&world.host.project, ".git/HEAD", b"ref: refs/heads/main\n");
    // The first packs pass, the others wait until a file is seen on the container's disk.
    let gate = tokio::sync::Semaphore::new(0);
    let store = Gated { inner: world.store.clone(), free: 3.into(), gate };
    let seen = || picture(&world.container.project).values().any(|seen| seen.bytes.is_some());
    block_on(async {
        let (keys, progress) = (up(), Arc::default());
        let (cache, progress_of_receiver) = (world.cache(), Arc::default());
        let sending = send(&store, &keys, &world.host, &cache, SystemTime::now(), &progress);
        let receiving = receive(&store, &keys, &world.container, &progress_of_receiver);
        let looking = async {
            while !world.container.project.exists() || !seen() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let there = world.store.keys().len();
            store.gate.add_permits(1000);
            there
        };
        let all = async { tokio::join!(sending, receiving, looking) };
        let (sent, received, there) =
            tokio::time::timeout(Duration::from_mins(1), all).await.expect("the receiver does not wait for the end");
        sent.unwrap();
        assert!(world.store.keys().len() > there, "chunks were still to be sent");
        received.unwrap();
    });
    assert!(picture(&world.container.project) == picture(&world.host.project));
}

#[test]
fn results_are_fetched_before_the_last_chunk_has_left() {
    let world = project();
    fs::create_dir_all(world.container.project.parent().unwrap()).unwrap();
    fs::rename(&world.host.project, &world.container.project).unwrap();
    fs::create_dir(&world.host.project).unwrap();
    let gate = tokio::sync::Semaphore::new(0);
    let store = Gated { inner: world.store.clone(), free: 3.into(), gate };
    block_on(async {
        let (keys, all_sent, limits, staging) =
            (down(), AllSent::default(), TransferLimits::default(), world.staging());
        let destination = Destination { trees: &world.host, staging: &staging };
        let (snapshot, selection, there, here) = (Snapshot::default(), everything(), Arc::default(), Arc::default());
        let bounds = Bounds { selection: &selection, limits: &limits };
        let sending = send_changes(&store, &keys, &world.container, &snapshot, &selection, &there);
        let applying = apply_changes(&store, &keys, destination, bounds, &all_sent, &here);
        let looking = async {
            while here.content() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(picture(&world.host.project), Picture::new(), "nothing is applied before all is judged");
            store.gate.add_permits(1000);
        };
        let all = async { tokio::join!(sending, applying, looking) };
        let (sent, applied, ()) =
            tokio::time::timeout(Duration::from_mins(1), all).await.expect("the receiver does not wait for the end");
        sent.unwrap();
        applied.unwrap();
    });
    assert!(picture(&world.container.project) == picture(&world.host.project));
}

/// Runs with paused time, which advances whenever all tasks wait.
fn with_paused_time<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(future)
}

#[test]
fn throttling_and_faults_are_endured() {
    let world = project();
    let faults = [
        Fault::new("put_if_absent", 2, When::Before, CloudErrorKind::Throttled).times(4),
        Fault::new("put", 1, When::After, CloudErrorKind::Transient).times(2),
        Fault::new("get", 1, When::Before, CloudErrorKind::Throttled).times(3),
        Fault::new("get_range", 2, When::Before, CloudErrorKind::Transient).times(4),
    ];
    world.store.plan(faults);
    with_paused_time(async {
        send(&*world.store, &up(), &world.host, &world.cache(), SystemTime::now(), &Arc::default()).await.unwrap();
        receive(&*world.store, &up(), &world.container, &Arc::default()).await.unwrap();
    });
    assert!(picture(&world.container.project) == picture(&world.host.project));
}

#[test]
fn a_store_that_is_away_for_long_is_waited_for_while_the_sender_works() {
    let world = project();
    world.up();
    fs::write(world.container.project.join("new"), "result").unwrap();
    world.send_changes(&Snapshot::default(), &only(&["new"])).unwrap();
    let (keys, limits, staging, progress) = (down(), TransferLimits::default(), world.staging(), Arc::default());
    let destination = Destination { trees: &world.host, staging: &staging };
    let selection = only(&["new"]);
    let bounds = Bounds { selection: &selection, limits: &limits };
    let apply = |sent| {
        let faults = ["get", "get_range"].map(|method| Fault::new(method, 1, When::Before, CloudErrorKind::Transient));
        world.store.plan(faults.map(|fault| fault.times(400)));
        with_paused_time(apply_changes(&*world.store, &keys, destination, bounds, &sent, &progress))
    };
    apply(all_sent()).unwrap_err();
    apply(AllSent::default()).unwrap();
    assert_eq!(fs::read(world.host.project.join("new")).unwrap(), b"result");
}

#[test]
fn a_send_that_broke_off_is_not_begun_from_the_start() {
    let world = project();
    let fault = Fault::new("put_if_absent", 3, When::Before, CloudErrorKind::Denied).forever();
    world.store.plan([fault]);
    block_on(send(&*world.store, &up(), &world.host, &world.cache(), SystemTime::now(), &Arc::default())).unwrap_err();
    world.store.plan([]);
    let stored = world.packs();
    assert_eq!(stored.len(), 2);
    world.send().unwrap();
    let calls = world.store.calls();
    for pack in stored {
        let puts = calls.iter().filter(|call| **call == format!("put_if_absent {pack}")).count();
        assert_eq!(puts, 1, "{pack} was sent again");
    }
    world.arrives();
}

/// Far more work than the queue between walk and readers holds.
#[test]
fn an_error_ends_the_walk_too() {
    let world = World::new();
    for number in 0..40 {
        put(&world.host.project, format!("{number}"), &noise(number, 4 << 20));
    }
    let fault = Fault::new("put_if_absent", 1, When::Before, CloudErrorKind::Denied).forever();
    world.store.plan([fault]);
    let (keys, cache, progress) = (up(), world.cache(), Arc::default());
    let sent = block_on(async {
        let sending = send(&*world.store, &keys, &world.host, &cache, SystemTime::now(), &progress);
        tokio::time::timeout(Duration::from_mins(1), sending).await.expect("it ends")
    });
    assert!(format!("{:#}", sent.unwrap_err()).contains("put_if_absent"));
}

/// A reading error with far more work behind it than the queue holds.
#[test]
fn an_unreadable_file_ends_the_walk_too() {
    use super::super::manifest::{Entry, EntryKind, Timestamp, Tree};
    use super::super::send::sending;
    use super::super::send::source::{ChangePolicy, SendJob, Source};
    use super::super::store::KnownPacks;
    let world = World::new();
    let mut entries = Vec::new();
    for number in 0..60 {
        let path = format!("{number:02}");
        put(&world.host.project, &path, &noise(number, 1 << 20));
        let (mode, mtime, size) = (0o644, Timestamp::default(), 1 << 20);
        let (tree, kind, target) = (Tree::Project, EntryKind::File, Vec::new());
        entries.push(Entry { tree, kind, path: path.into_bytes(), mode, mtime, size, target });
    }
    fs::remove_file(world.host.project.join("03")).unwrap();
    let roots = Roots::open(&world.host).unwrap();
    let (source, on_change) = (Source::Entries(entries), ChangePolicy::Refuse);
    let job = SendJob { roots, source, on_change, warnings: Warnings::default(), files: Arc::default() };
    let (keys, progress) = (up(), Arc::default());
    let sent = block_on(async {
        let sending = sending::send(&*world.store, &keys, job, KnownPacks::nothing(), &progress);
        tokio::time::timeout(Duration::from_mins(1), sending).await.expect("it ends")
    });
    assert!(format!("{:#}", sent.unwrap_err()).contains("failed to read `03`"));
}

#[test]
fn results_that_broke_off_are_fetched_on() {
    let world = World::new();
    let snapshot = world.up();
    put(&world.container.project, "model", &noise(7, 30 << 20));
    put(&world.container.project, "empty", b"");
    put(&world.container.project, "log", b"done\n");
    world.send_changes(&snapshot, &everything()).unwrap();
    let before = picture(&world.host.project);
    let fault = Fault::new("get_range", 5, When::Before, CloudErrorKind::Transient).forever();
    world.store.plan([fault]);
    let (keys, limits, staging, progress) = (down(), TransferLimits::default(), world.staging(), Arc::default());
    let destination = Destination { trees: &world.host, staging: &staging };
    let selection = everything();
    let bounds = Bounds { selection: &selection, limits: &limits };
    with_paused_time(apply_changes(&*world.store, &keys, destination, bounds, &all_sent(), &progress)).unwrap_err();
    world.store.plan([]);
    assert_eq!(picture(&world.host.project), before, "nothing is applied by halves");
    let fetched: usize = picture(&world.staging()).values().filter_map(|seen| seen.bytes.as_ref()).map(Vec::len).sum();
    assert!(fetched > 1 << 20, "the first four fetches stay");
    let summary = world.apply(&TransferLimits::default()).unwrap();
    assert!(summary.sent < (31 << 20) - fetched as u64, "{fetched} and {summary:?}");
    assert!(picture(&world.host.project) == picture(&world.container.project));
    assert!(!world.staging().exists());
}

#[test]
fn staging_that_somebody_spoilt_is_mended() {
    let world = World::new();
    let snapshot = world.up();
    put(&world.container.project, "model", &noise(7, 9 << 20));
    world.send_changes(&snapshot, &everything()).unwrap();
    fs::create_dir_all(world.staging().join("0")).unwrap();
    fs::write(world.staging().join("0/0"), noise(8, 12 << 20)).unwrap();
    world.apply(&TransferLimits::default()).unwrap();
    assert!(picture(&world.host.project) == picture(&world.container.project));
}

/// A sparse file of 20 GB: holes take neither time nor space.
#[test]
fn a_file_of_20_gb_travels_both_ways() {
    const SIZE: u64 = 20_000_000_000;
    let world = World::new();
    let make = |path: &Path, seed: u64| {
        let file = fs::File::create(path).unwrap();
        file.set_len(SIZE).unwrap();
        for at in [0, 5_000_000_001, 12_345_678_901, SIZE - 100_000] {
            file.write_all_at(&noise(seed + at, 100_000), at).unwrap();
        }
    };
    let check = |path: &Path, seed: u64| {
        let file = fs::File::open(path).unwrap();
        let metadata = file.metadata().unwrap();
        assert!(metadata.len() == SIZE && metadata.blocks() * 512 < 100_000_000, "{}", metadata.blocks());
        for at in [0, 5_000_000_001, 12_345_678_901, SIZE - 100_000] {
            let mut found = vec![1; 100_000];
            file.read_exact_at(&mut found, at).unwrap();
            assert!(found == noise(seed + at, 100_000), "at {at}");
        }
        let mut hole = vec![1; 1000];
        file.read_exact_at(&mut hole, 1_000_000_000).unwrap();
        assert!(hole.iter().all(|byte| *byte == 0));
    };
    make(&world.host.project.join("sparse"), 1);
    let snapshot = world.up();
    check(&world.container.project.join("sparse"), 1);
    make(&world.container.project.join("sparse"), 2);
    world.down(&snapshot, &everything());
    check(&world.host.project.join("sparse"), 2);
}

#[test]
fn thousands_of_small_files_travel_in_few_objects() {
    let world = World::new();
    let files = short_or_long(500, 5000);
    for number in 0..files {
        put(&world.host.project, format!("{}/{number}", number % 50), &u32::to_le_bytes(number));
    }
    let summary = world.send().unwrap();
    assert_eq!((summary.files, summary.bytes), (u64::from(files), u64::from(files) * 4));
    assert!(world.store.keys().len() < 10, "{:?}", world.store.keys());
    world.arrives();
}

#[test]
fn secrets_of_the_job_do_not_stay_with_the_project() {
    let world = World::new();
    let secrets = [&b"of a file variable"[..], b"[http] extraheader = token", b"#!/bin/sh\n# a hook with a token\n"];
    put(&world.host.tmp, "TOKEN_FILE", secrets[0]);
    put(&world.host.project, ".git/config", secrets[1]);
    put(&world.host.project, "sub/.git/hooks/post-checkout", secrets[2]);
    put(&world.host.project, ".git/objects/00/01234567890123456789012345678901234567", b"an object");
    put(&world.host.project, "code", b"code");
    world.send().unwrap();
    world.arrives();
    let chunks = |prefix: &str| -> BTreeSet<String> {
        let packs = world.store.keys().into_iter().filter(|key| key.starts_with(prefix));
        let indexes = packs.map(|key| {
            let bytes = world.store.contents(&key).unwrap();
            PackIndex::decode(PackIndex::within(&bytes).unwrap().unwrap()).unwrap()
        });
        indexes.flatten().flat_map(|block| block.chunks).map(|(hash, _)| hash.to_string()).collect()
    };
    let named = |contents: &[&[u8]]| contents.iter().map(|content| ChunkHash::of(content).to_string()).collect();
    assert_eq!(chunks("packs/"), named(&[b"an object", b"code"]));
    assert_eq!(chunks("private/"), named(&secrets));
    for folder in ["indexes", "files"] {
        for file in fs::read_dir(world.cache().join(folder)).unwrap() {
            let mut notes = fs::read(file.unwrap().path()).unwrap();
            if folder == "indexes" {
                notes = PackIndex::decode(&notes).unwrap().into_iter().flat_map(|block| block.chunks).fold(
                    Vec::new(),
                    |notes, (hash, _)| {
                        [notes, blake3::Hash::from_hex(hash.to_string()).unwrap().as_bytes().to_vec()].concat()
                    },
                );
            }
            let has = |content: &[u8]| notes.windows(32).any(|bytes| bytes == blake3::hash(content).as_bytes());
            assert!(has(b"code") && !secrets.into_iter().any(has), "nor does this host remember them");
        }
    }
}

/// The files of a node that is not the first arrive in the folder of its name, those that a path of the job leads to.
#[test]
fn another_nodes_files_arrive_in_a_folder() {
    let world = World::new();
    put(&world.host.project, "kept", b"of the host");
    let snapshot = world.up();
    put(&world.container.project, "out/a", b"of the node");
    put(&world.container.project, "out/b", b"unasked");
    put(&world.container.tmp, "gitlab_runner_env", b"X=1\n");
    let of_node = Selection { every_node: true, ..only(&["algo-2/out/a", "kept"]) }.of_node(NodeId::at(1));
    assert_eq!(world.send_changes(&snapshot, &of_node).unwrap().files, 1);
    let host = world.host.in_folder("algo-2");
    let apply = || {
        let destination = Destination { trees: &host, staging: &world.staging() };
        let bounds = Bounds { selection: &of_node, limits: &TransferLimits::default() };
        block_on(apply_changes(&*world.store, &down(), destination, bounds, &all_sent(), &Arc::default()))
    };
    // The script of the first node may have made a link of this name.
    symlink(world.folder.path(), world.host.project.join("algo-2")).unwrap();
    apply().unwrap_err();
    assert!(!world.folder.path().join("out").exists());
    fs::remove_file(world.host.project.join("algo-2")).unwrap();
    apply().unwrap();
    let names: Vec<_> = picture(&world.host.project).into_keys().collect();
    assert_eq!(names, ["algo-2", "algo-2/out", "algo-2/out/a", "kept"]);
    assert!(!world.host.tmp.join("gitlab_runner_env").exists());
}
