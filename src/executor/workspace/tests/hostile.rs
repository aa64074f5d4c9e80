//! Tests against a hostile container: each attack ends in an error that names it, and leaves the host's trees unchanged.

use proptest::prelude::*;
use test_case::test_case;

use super::super::manifest::{Entry, EntryKind, Timestamp, Tree};
use super::super::manifest::{ManifestPart, PartBlock, PartChunk, Record, TransferEnd};
use super::super::store::ChunkHash;
use super::super::store::{OpenBlock, OpenPack, PackName, SealedPack, Visibility};
use super::*;
use crate::base::failure::{Kind as FailureKind, kind_of};
use crate::config::env::short_or_long;

const FILE: EntryKind = EntryKind::File;
const DIRECTORY: EntryKind = EntryKind::Directory;
const LINK: EntryKind = EntryKind::Link;
const DELETED: EntryKind = EntryKind::Deleted;

fn entry(kind: EntryKind, path: &[u8]) -> Entry {
    let size = if kind == FILE { 4 } else { 0 };
    let target = if kind == LINK { b"elsewhere".to_vec() } else { Vec::new() };
    Entry { tree: Tree::Project, kind, path: path.to_vec(), mode: 0o644, mtime: Timestamp::default(), size, target }
}

/// A pack with one chunk.
fn pack(chunk: &[u8]) -> SealedPack {
    let mut block = OpenBlock::default();
    block.push(ChunkHash::of(chunk), chunk);
    block.compress(Some(1)).unwrap();
    let mut pack = OpenPack::new(0, Vec::new());
    pack.push(&block).unwrap();
    pack.seal().unwrap()
}

/// The objects of a hostile container: a single part, and one pack with one chunk.
struct Lie {
    part: ManifestPart,
    pack: SealedPack,
}

impl Lie {
    /// Chunk 0 is `content`.
    fn with(content: &[u8], records: Vec<Record>) -> Self {
        let pack = pack(content);
        let block = &pack.index[0];
        let (hash, length) = block.chunks[0];
        let part = ManifestPart {
            packs: vec![PackName { id: pack.id, visibility: Visibility::Project }],
            blocks: vec![PartBlock { pack: 0, at: block.at, stored: block.stored, raw: block.raw }],
            chunks: vec![PartChunk { hash, block: 0, at: 0, length }],
            records,
            end: Some(TransferEnd::default()),
        };
        Self { part, pack }
    }

    /// These entries, each file holding `evil`.
    fn of(entries: &[Entry]) -> Self {
        let record = |entry: &Entry| match entry.kind {
            FILE => Record::File { entry: entry.clone(), chunks: vec![0] },
            _ => Record::Entry(entry.clone()),
        };
        Self::with(b"evil", entries.iter().map(record).collect())
    }

    fn store(&self, world: &World) {
        self.store_as(world, sealed(&self.part, 0), self.pack.bytes.to_vec());
    }

    fn store_as(&self, world: &World, part: Vec<u8>, pack: Vec<u8>) {
        world.store.insert("down/000000", part);
        world.store.insert(&format!("down/packs/{}", self.pack.id), pack);
    }
}

/// As a container that knows the key stores it.
fn sealed(part: &ManifestPart, number: u32) -> Vec<u8> {
    let keys = down();
    part.encode(&keys.seal, keys.label(number)).unwrap()
}

/// A host with a file, a `.git`, and a link to a directory outside.
fn host() -> World {
    let world = World::new();
    put(world.folder.path(), "outside/precious", b"precious");
    put(&world.host.project, "good", b"good");
    put(&world.host.project, "dir/inside", b"good");
    put(&world.host.project, ".git/config", b"[core]\n");
    symlink(world.folder.path().join("outside"), world.host.project.join("out")).unwrap();
    world
}

/// Applies the stored objects, which must fail and change nothing; returns the error.
fn refusal(world: &World, limits: &TransferLimits) -> String {
    let before = picture(world.folder.path());
    let result = world.apply(limits);
    let mut after = picture(world.folder.path());
    // Fetched content was in the staging directory, outside the host's trees.
    after.retain(|path, _| !Path::new(path).starts_with("scratch/results"));
    after.insert("scratch".into(), before[OsStr::new("scratch")].clone());
    assert!(after == before, "the host changed: {result:?}");
    let error = result.expect_err("a lie was applied");
    let text = format!("{error:#}");
    // A mistake of the job is a user failure, damage is a system failure.
    let damaged =
        ["damaged", "does not exist", "version", "manifest", "a file has", "a file begins", "a file that", "a file's"];
    assert_eq!(kind_of(&error) == FailureKind::System, damaged.iter().any(|word| text.contains(word)), "{text}");
    text
}

fn refused(lie: &Lie, limits: &TransferLimits) -> String {
    let world = host();
    lie.store(&world);
    refusal(&world, limits)
}

#[test_case(FILE, b"/etc/cron.d/x", "`/etc/cron.d/x` is refused: its path is absolute")]
#[test_case(FILE, b"../x", "`../x` is refused: its path has a `..` component"; "dot dot")]
#[test_case(FILE, b"a/../../x", "`a/../../x` is refused"; "dot dot inside")]
#[test_case(FILE, b"./x", "`./x` is refused"; "dot")]
#[test_case(FILE, b"a//x", "`a//x` is refused"; "empty component")]
#[test_case(FILE, b"", "its name is empty"; "no name")]
#[test_case(FILE, b"a\0b", "NUL"; "nul")]
#[test_case(FILE, &[b'x'; 256], "longer than 255"; "long name")]
#[test_case(FILE, b".git/config", "`.git/config` is refused: nothing may be written into `.git`")]
#[test_case(FILE, b".GIT/config", "`.GIT/config` is refused")]
#[test_case(FILE, b"sub/.git/hooks/x", "`sub/.git/hooks/x` is refused")]
#[test_case(FILE, b"sub/.git", "`sub/.git` is refused"; "git file of a submodule")]
#[test_case(FILE, b".git. /x", "is refused"; "git with a tail")]
#[test_case(FILE, b"git~1/x", "is refused"; "short git")]
#[test_case(LINK, b".git", "`.git` is refused"; "git as a link")]
#[test_case(DELETED, b".git/config", "`.git/config` is refused"; "deletion in git")]
#[test_case(DELETED, b"../outside/precious", "is refused"; "deletion outside")]
#[test_case(FILE, b"out/x", "`out/x` is refused: `out` is no directory on the host"; "through the host's link")]
#[test_case(DIRECTORY, b"out/x", "`out/x` is refused"; "directory through the host's link")]
#[test_case(LINK, b"out/x", "`out/x` is refused"; "link through the host's link")]
#[test_case(FILE, b"dir/inside/x", "`dir/inside/x` is refused: `dir/inside` is no directory on the host"; "below a file")]
#[test_case(FILE, b"dir", "`dir` is refused: it would replace a directory of the host that holds `dir/inside`"; "over a directory")]
fn an_entry_is_refused(kind: EntryKind, path: &[u8], expected: &str) {
    // A good entry in the same part must not be applied either.
    let mut bad = entry(kind, path);
    if path == b"../x" {
        bad.mode = 0o755;
    }
    let error = refused(&Lie::of(&[entry(FILE, b"good"), bad]), &TransferLimits::default());
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_device_is_refused_by_name() {
    let error = refused(&Lie::of(&[entry(EntryKind::Special, b"odd")]), &TransferLimits::default());
    assert!(error.contains("`odd` is refused: it is neither a file, a directory nor a link"), "{error}");
}

#[test_case(FILE, 0o4755)]
#[test_case(FILE, 0o2755)]
#[test_case(DIRECTORY, 0o2755)]
fn set_id_bits_are_refused(kind: EntryKind, mode: u32) {
    let bad = Entry { mode, ..entry(kind, b"suid") };
    let error = refused(&Lie::of(&[bad]), &TransferLimits::default());
    assert!(error.contains("`suid` is refused: it is set-user-id or set-group-id"), "{error}");
}

/// A large file whose end differs from its beginning.
fn large(name: &[u8], tree: Tree, size: u64, mode: u32) -> Vec<Record> {
    vec![
        Record::Begin { file: 7, entry: Entry { tree, ..entry(FILE, name) } },
        Record::Data { file: 7, offset: 0, chunks: vec![0] },
        Record::End { file: 7, size, mode, mtime: Timestamp::default() },
    ]
}

#[test]
fn set_id_bits_at_the_end_are_refused() {
    let error = refused(&Lie::with(b"evil", large(b"suid", Tree::Project, 4, 0o4755)), &TransferLimits::default());
    assert!(error.contains("`suid` is refused"), "{error}");
}

#[test_case(&[entry(FILE, b"good"), entry(FILE, b"good")], "`good` is refused: the container sent this path twice"; "twice")]
#[test_case(&[entry(FILE, b"x"), entry(DELETED, b"x")], "`x` is refused: the container sent this path twice"; "written and deleted")]
#[test_case(&[entry(LINK, b"l"), entry(FILE, b"l/x")], "`l/x` is refused: `l` above it is no directory"; "through its own link")]
#[test_case(&[entry(FILE, b"l/x"), entry(LINK, b"l")], "`l/x` is refused: `l` above it is no directory"; "the link comes later")]
#[test_case(&[entry(FILE, b"f"), entry(FILE, b"f/x")], "`f/x` is refused"; "below its own file")]
#[test_case(&[entry(DELETED, b"out"), entry(FILE, b"out/x")], "`out/x` is refused"; "deletes the host's link first")]
#[test_case(&[Entry { target: b"/etc".to_vec(), ..entry(LINK, b"l") }, entry(FILE, b"l/x")], "`l/x` is refused"; "through a stray link")]
#[test_case(&[Entry { tree: Tree::Tmp, ..entry(FILE, b"git-template") }], "`git-template` is refused"; "elsewhere in tmp")]
#[test_case(&[Entry { tree: Tree::Tmp, ..entry(LINK, b"gitlab_runner_env") }], "`gitlab_runner_env` is refused"; "link in tmp")]
fn entries_together_are_refused(entries: &[Entry], expected: &str) {
    let error = refused(&Lie::of(entries), &TransferLimits::default());
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_large_env_file_is_refused() {
    let records = large(b"gitlab_runner_env", Tree::Tmp, 2 << 20, 0o644);
    let error = refused(&Lie::with(&[b'x'; 100], records), &TransferLimits::default());
    assert!(error.contains("`gitlab_runner_env` is refused: it is larger than 1 MiB"), "{error}");
}

#[test]
fn a_bare_repository_is_refused_where_no_git_is() {
    let world = World::new();
    put(&world.host.project, "objects/x", b"x");
    let entries = [entry(FILE, b"HEAD"), entry(FILE, b"config"), entry(DIRECTORY, b"refs")];
    Lie::of(&entries).store(&world);
    let error = refusal(&world, &TransferLimits::default());
    assert!(error.contains("`HEAD` is refused: it would make the project directory a bare git repository"), "{error}");
}

#[test_case(&[entry(FILE, b"HEAD"), entry(FILE, b"commondir"), entry(FILE, b"evil/objects/x")]; "elsewhere")]
#[test_case(&[entry(FILE, b"head"), entry(FILE, b"Objects/x"), entry(DIRECTORY, b"objects"), entry(DIRECTORY, b"REFS")]; "in another case")]
fn a_repository_in_disguise_is_refused_where_no_git_is(entries: &[Entry]) {
    let world = World::new();
    Lie::of(entries).store(&world);
    let error = refusal(&world, &TransferLimits::default());
    assert!(error.contains("is refused: it would make the project directory a bare git repository"), "{error}");
}

#[test]
fn a_config_that_completes_a_repository_is_refused_where_no_git_is() {
    let world = World::new();
    for path in ["HEAD", "objects/x", "refs/x"] {
        put(&world.host.project, path, b"x");
    }
    Lie::of(&[entry(FILE, b"config.worktree")]).store(&world);
    let error = refusal(&world, &TransferLimits::default());
    assert!(error.contains("`config.worktree` is refused"), "{error}");
}

#[test]
fn names_that_fill_the_memory_are_refused() {
    let path = [&[b'x'; 250][..]; 60].join(&b'/');
    let world = host();
    let mut lie = Lie::with(b"evil", vec![Record::Entry(entry(DELETED, &path)); 500]);
    lie.part.end = None;
    let (mib, parts) = short_or_long((8, 2), (128, 18));
    for part in 0..parts {
        world.store.insert(&format!("down/{part:06}"), sealed(&lie.part, part));
    }
    let limits = TransferLimits { max_names: mib << 20, ..TransferLimits::default() };
    let error = refusal(&world, &limits);
    assert!(error.contains(&format!("the names of the manifest have more than {mib} MiB together")), "{error}");
}

#[test]
fn a_part_that_tells_nothing_and_content_that_is_void_for_ever_are_refused() {
    let mut lie = Lie::with(b"evil", Vec::new());
    lie.part.end = None;
    let error = refused(&lie, &TransferLimits::default());
    assert!(error.contains("a part of the manifest is empty"), "{error}");
    let mut records = vec![Record::Begin { file: 0, entry: entry(FILE, b"f") }];
    records.extend((0..9).map(|_| Record::Void { file: 0 }));
    let error = refused(&Lie::with(b"evil", records), &TransferLimits::default());
    assert!(error.contains("void 8 times"), "{error}");
}

#[test]
fn too_many_entries_are_refused() {
    let limits = TransferLimits { max_files: 2, ..TransferLimits::default() };
    let error = refused(&Lie::of(&[entry(FILE, b"a"), entry(LINK, b"b"), entry(DELETED, b"c")]), &limits);
    assert!(error.contains("more than 2 entries"), "{error}");
}

#[test]
fn a_bomb_is_refused() {
    let limits = TransferLimits { max_bytes: 1 << 20, ..TransferLimits::default() };
    let content = vec![0; 700_000];
    // A file with a large size, repeated content, and a hole.
    let whole = Entry { size: 1_400_000, ..entry(FILE, b"bomb") };
    let begin = Record::Begin { file: 0, entry: entry(FILE, b"bomb") };
    let data = Record::Data { file: 0, offset: 0, chunks: vec![0] };
    let end = |size| Record::End { file: 0, size, mode: 0o644, mtime: Timestamp::default() };
    for records in [
        vec![Record::File { entry: whole, chunks: vec![0, 0] }],
        vec![begin.clone(), data.clone(), data.clone(), end(700_000)],
        vec![begin.clone(), end(2 << 20)],
        vec![begin, end(u64::MAX)],
    ] {
        let lie = Lie::with(&content, records);
        assert!(lie.pack.bytes.len() < 1000);
        let error = refused(&lie, &limits);
        assert!(error.contains("with `bomb` the content exceeds the 1048576 bytes"), "{error}");
    }
}

#[test]
fn a_manifest_that_makes_no_sense_is_refused() {
    let begin = |file| Record::Begin { file, entry: entry(FILE, b"f") };
    let end = Record::End { file: 0, size: 4, mode: 0o644, mtime: Timestamp::default() };
    for (records, expected) in [
        (vec![begin(0), begin(0)], "a file begins twice"),
        (vec![begin(0)], "a file has no end"),
        (vec![end], "a file that has not begun"),
        (vec![Record::Data { file: 3, offset: 0, chunks: vec![0] }], "a file that has not begun"),
        (vec![Record::Void { file: 3 }], "a file that has not begun"),
        (vec![Record::Gone { file: 3 }], "a file that has not begun"),
    ] {
        let error = refused(&Lie::with(b"evil", records), &TransferLimits::default());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_wrong_chunk_is_refused_by_name() {
    let world = host();
    let lie = Lie::of(&[entry(FILE, b"new")]);
    let mut bent = lie.pack.bytes.to_vec();
    bent[8] ^= 1;
    lie.store_as(&world, sealed(&lie.part, 0), bent);
    let error = refusal(&world, &TransferLimits::default());
    let expected = format!("the chunk {} in the pack {} is damaged", ChunkHash::of(b"evil"), lie.pack.id);
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn a_missing_pack_is_named() {
    let world = host();
    let lie = Lie::of(&[entry(FILE, b"new")]);
    world.store.insert("down/000000", sealed(&lie.part, 0));
    let error = refusal(&world, &TransferLimits::default());
    assert!(error.contains(&format!("s3://memory/down/packs/{} does not exist", lie.pack.id)), "{error}");
}

#[test]
fn nothing_is_written_any_more_when_a_manifest_breaks_off() {
    // The content is being fetched when the third part is found missing.
    let records = (0..40).map(|number: u8| Record::File {
        entry: Entry { size: 800_000, ..entry(FILE, &[b'a' + number % 26, b'a' + number / 26]) },
        chunks: vec![0],
    });
    let mut lie = Lie::with(&vec![7; 800_000], records.collect());
    lie.part.end = None;
    let second = ManifestPart { records: vec![Record::Entry(entry(DIRECTORY, b"new"))], ..ManifestPart::default() };
    let second = sealed(&second, 1);
    for _ in 0..20 {
        let world = host();
        lie.store(&world);
        world.store.insert("down/000001", second.clone());
        let error = refusal(&world, &TransferLimits::default());
        assert!(error.contains("down/000002 does not exist"), "{error}");
        assert!(!world.staging().exists());
    }
}

#[test]
fn a_manifest_or_pack_cut_anywhere_is_refused() {
    let lie = Lie::of(&[entry(FILE, b"good"), entry(FILE, b"new"), entry(DELETED, b"dir/inside")]);
    let world = host();
    let (part, pack) = (sealed(&lie.part, 0), lie.pack.bytes.to_vec());
    for length in 0..part.len() {
        lie.store_as(&world, part[..length].to_vec(), pack.clone());
        refusal(&world, &TransferLimits::default());
    }
    for length in 0..=11 {
        lie.store_as(&world, part.clone(), pack[..length].to_vec());
        refusal(&world, &TransferLimits::default());
    }
    let longer = [part, b"x".to_vec()].concat();
    lie.store_as(&world, longer, pack);
    refusal(&world, &TransferLimits::default());
}

#[test]
fn no_bit_can_be_flipped() {
    let lie = Lie::of(&[entry(FILE, b"good"), entry(FILE, b"new"), entry(DELETED, b"dir/inside")]);
    let world = host();
    let part = sealed(&lie.part, 0);
    for bit in (0..part.len() * 8).step_by(short_or_long(7, 1)) {
        let mut flipped = part.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        lie.store_as(&world, flipped, lie.pack.bytes.to_vec());
        refusal(&world, &TransferLimits::default());
    }
}

#[test]
fn a_stray_link_is_left_out_and_the_rest_arrives() {
    let world = host();
    let stray = Entry { target: b"../outside".to_vec(), ..entry(LINK, b"stray") };
    Lie::of(&[stray, entry(FILE, b"new")]).store(&world);
    let summary = world.apply(&TransferLimits::default()).unwrap();
    assert_eq!(
        summary.warnings,
        ["left out: 1 link that leads out of the project: `stray`; the operator can keep such links with \
             `results.keep_outside_links`"]
    );
    assert!(fs::symlink_metadata(world.host.project.join("stray")).is_err());
    assert_eq!(fs::read(world.host.project.join("new")).unwrap(), b"evil");
}

#[test]
fn a_link_with_an_endless_target_is_left_out_and_the_rest_arrives() {
    let world = host();
    let long = Entry { target: vec![b'x'; 5000], ..entry(LINK, b"long") };
    Lie::of(&[entry(DELETED, b"good"), long, entry(FILE, b"new")]).store(&world);
    let summary = world.apply(&TransferLimits::default()).unwrap();
    assert_eq!(summary.warnings, ["left out: 1 link with no target, or with one of more than 1023 bytes: `long`"]);
    assert_eq!(fs::read(world.host.project.join("new")).unwrap(), b"evil");
}

#[test_case(FILE)]
#[test_case(LINK)]
fn deletions_in_a_senseless_order_make_room_all_the_same(kind: EntryKind) {
    let gone = [&b"dir/deep/leaf"[..], b"dir/inside", b"dir/deep"].map(|path| entry(DELETED, path));
    for order in [[0, 1, 2], [2, 0, 1], [2, 1, 0]] {
        let world = host();
        put(&world.host.project, "dir/deep/leaf", b"good");
        let mut entries: Vec<Entry> = order.iter().map(|at| gone[*at].clone()).collect();
        entries.push(entry(kind, b"dir"));
        Lie::of(&entries).store(&world);
        world.apply(&TransferLimits::default()).unwrap();
        assert!(!fs::symlink_metadata(world.host.project.join("dir")).unwrap().is_dir());
    }
}

/// A stored pack whose index gives a chunk another length than the content with this hash has.
#[test_case(1)]
#[test_case(3)]
#[test_case(6)]
fn a_length_that_an_index_makes_up_is_not_believed(length: u32) {
    let world = World::new();
    put(&world.host.project, "x", b"evil");
    let mut block = OpenBlock::default();
    let content = vec![b'x'; length as usize];
    block.push(ChunkHash::of(b"evil"), &content);
    block.compress(Some(1)).unwrap();
    let mut pack = OpenPack::new(0, Vec::new());
    pack.push(&block).unwrap();
    let pack = pack.seal().unwrap();
    world.store.insert(&format!("packs/{}", pack.id), pack.bytes.to_vec());
    world.up();
    assert_eq!(fs::read(world.container.project.join("x")).unwrap(), b"evil");
}

#[test]
fn a_link_of_the_host_is_replaced_not_followed() {
    let world = host();
    // The container made `out` a directory: allowed, and the link's target stays unchanged.
    let directory = Entry { mode: 0o755, ..entry(DIRECTORY, b"out") };
    let entries = [directory, entry(FILE, b"out/precious"), entry(DELETED, b"dir/inside")];
    Lie::of(&entries).store(&world);
    world.apply(&TransferLimits::default()).unwrap();
    assert_eq!(fs::read(world.folder.path().join("outside/precious")).unwrap(), b"precious");
    assert_eq!(fs::read(world.host.project.join("out/precious")).unwrap(), b"evil");
    assert!(fs::symlink_metadata(world.host.project.join("out")).unwrap().is_dir());
    // A deletion below the host's link touches nothing either.
    let world = host();
    Lie::of(&[entry(DELETED, b"out/precious")]).store(&world);
    world.apply(&TransferLimits::default()).unwrap();
    assert_eq!(fs::read(world.folder.path().join("outside/precious")).unwrap(), b"precious");
}

#[test]
fn a_warning_of_the_container_cannot_paint_the_terminal() {
    let world = World::new();
    put(&world.host.project, "x", b"x");
    let snapshot = world.up();
    symlink("/etc", world.container.project.join("a\x1b[31m\nb")).unwrap();
    let summary = world.down(&snapshot, &everything());
    assert!(summary.warnings[0].contains(r": `a\u{1b}[31m\nb`; "), "{:?}", summary.warnings);
    // Nor can a warning that another program wrote.
    let mut lie = Lie::of(&[]);
    lie.part.end = Some(TransferEnd { warnings: vec!["\u{1b}]0;owned\u{7}".to_owned()] });
    lie.store(&world);
    let summary = world.apply(&TransferLimits::default()).unwrap();
    assert_eq!(summary.warnings.len(), 1);
    assert!(!summary.warnings[0].contains(char::is_control), "{:?}", summary.warnings);
}

#[test]
fn an_endless_depth_is_refused() {
    let deep = [&b"a"[..]; 300].join(&b'/');
    let error = refused(&Lie::of(&[entry(FILE, &deep)]), &TransferLimits::default());
    assert!(error.contains("more than 256 directories deep"), "{error}");
}

#[test]
fn what_the_job_does_not_ask_for_is_refused_and_the_rest_arrives() {
    let world = host();
    let directory = |path: &[u8]| Entry { mode: 0o755, ..entry(DIRECTORY, path) };
    let entries = [
        directory(b"new"),
        directory(b"new/deep"),
        entry(FILE, b"new/deep/asked"),
        entry(FILE, b"new/deep/unasked"),
        directory(b"other"),
        entry(FILE, b"other/x"),
        entry(FILE, b"good"),
        entry(DELETED, b"dir/inside"),
        entry(DELETED, b"absent"),
        Entry { target: b"dir".to_vec(), ..entry(LINK, b"way") },
        entry(FILE, b"HEAD"),
        entry(DIRECTORY, b"objects"),
        entry(DIRECTORY, b"refs"),
        Entry { tree: Tree::Tmp, ..entry(FILE, b"gitlab_runner_env") },
    ];
    Lie::of(&entries).store(&world);
    let summary = world.apply_asked(&only(&["new/deep/asked"]), &TransferLimits::default()).unwrap();
    let read = |path: &str| fs::read(world.host.project.join(path)).ok();
    assert_eq!(read("new/deep/asked").as_deref(), Some(&b"evil"[..]));
    assert_eq!((read("good"), read("dir/inside")), (Some(b"good".to_vec()), Some(b"good".to_vec())));
    for absent in ["new/deep/unasked", "other", "way", "HEAD", "objects", "refs"] {
        assert!(fs::symlink_metadata(world.host.project.join(absent)).is_err(), "{absent}");
    }
    assert_eq!(fs::read(world.host.tmp.join("gitlab_runner_env")).unwrap(), b"evil");
    let expected = "left out: `HEAD`, which no path of the job's artifacts, reports or cache selects; also 8 more: `dir/inside`, `good` and 6 more";
    assert_eq!(summary.warnings, [expected]);
}

/// A host stage can replace the project, or what is above it, before or while a container works.
#[test_case("host/project")]
#[test_case("host")]
#[test_case("host/project.tmp")]
fn a_tree_that_is_a_link_is_neither_read_nor_written(place: &str) {
    let world = host();
    let victim = world.folder.path().join("victim");
    put(&victim, "project/secret", b"confidential");
    let place = world.folder.path().join(place);
    fs::rename(&place, place.with_extension("moved")).unwrap();
    symlink(if place.ends_with("host") { victim.clone() } else { victim.join("project") }, &place).unwrap();
    let env = Entry { tree: Tree::Tmp, ..entry(FILE, b"gitlab_runner_env") };
    Lie::of(&[entry(FILE, b"new"), env]).store(&world);
    let before = picture(&victim);
    let error = refusal(&world, &TransferLimits::default());
    assert!(error.contains("is refused") && error.contains("is a link"), "{error}");
    let error = world.send().unwrap_err();
    assert!(format!("{error:#}").contains("is a link"), "{error:#}");
    assert_eq!(picture(&victim), before);
    assert!(!world.store.keys().iter().any(|key| key.starts_with("packs/")));
}

fn nasty_path() -> impl Strategy<Value = Vec<u8>> {
    let names = vec![
        &b"."[..],
        b"..",
        b"",
        b".git",
        b".Git.",
        b"out",
        b"precious",
        b"dir",
        b"inside",
        b"good",
        b"new",
        b"HEAD",
    ];
    prop::collection::vec(prop::sample::select(names), 1..4).prop_map(|names| names.join(&b'/'))
}

fn nasty_entry() -> impl Strategy<Value = Entry> {
    let kind = prop::sample::select(vec![FILE, DIRECTORY, LINK, DELETED]);
    let mode = prop::sample::select(vec![0o644, 0o755, 0o700, 0o1777, 0o4755]);
    let target = prop::sample::select(vec!["new", "../outside", "out", "/etc", "dir/../../outside", ".git"]);
    (kind, nasty_path(), mode, target, 0..8u8).prop_map(|(kind, path, mode, target, tmp)| {
        let mut entry = Entry { mode, ..entry(kind, &path) };
        if kind == LINK {
            entry.target = target.as_bytes().to_vec();
        }
        if tmp == 0 {
            entry.tree = Tree::Tmp;
        }
        entry
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: short_or_long(24, 256), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_lie_reaches_beyond_the_project(entries in prop::collection::vec(nasty_entry(), 1..5)) {
        let world = host();
        let before = picture(world.folder.path());
        Lie::of(&entries).store(&world);
        let result = world.apply(&TransferLimits::default());
        let after = picture(world.folder.path());
        let inside = |path: &OsStr| Path::new(path).starts_with("host/project") && !enters_git(path.as_bytes());
        let kept = |picture: &Picture| -> Picture {
            let own = |path: &OsStr| path == "scratch" || path == "host/project" || (result.is_ok() && inside(path));
            picture.iter().filter(|(path, _)| !own(path)).map(|(path, seen)| (path.clone(), seen.clone())).collect()
        };
        prop_assert_eq!(kept(&after), kept(&before));
        prop_assert!(after.values().all(|seen| seen.mode & 0o6000 == 0));
    }
}
