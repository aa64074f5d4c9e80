//! A container that lies: each attack ends in an error that names it, and the host's side is as it was.

use std::io::Write as _;

use test_case::test_case;

use super::super::entry::{Entry, Instant, Kind, Place, enters_git};
use super::super::pack::{Content, PIECE, Writer, encode};
use super::*;
use crate::failure::{Kind as FailureKind, kind_of};

const FILE: Kind = Kind::File;
const DIRECTORY: Kind = Kind::Directory;
const LINK: Kind = Kind::Link;
const DELETED: Kind = Kind::Deleted;

fn entry(kind: Kind, path: &[u8]) -> Entry {
    let size = if kind == FILE { 4 } else { 0 };
    let target = if kind == LINK { b"elsewhere".to_vec() } else { Vec::new() };
    Entry { place: Place::Project, kind, path: path.to_vec(), mode: 0o644, mtime: Instant::default(), size, target }
}

/// A pack with these entries, each file holding `evil`.
fn pack(entries: &[Entry]) -> Vec<u8> {
    let records: Vec<Vec<u8>> = entries.iter().map(record).collect();
    let files = entries.iter().filter(|entry| entry.kind == FILE).map(|entry| entry.mode).collect::<Vec<_>>();
    raw_pack(records.len() as u64, &records.concat(), |writer| {
        for mode in &files {
            writer.begin();
            writer.piece(b"evil").unwrap();
            writer.end(&Content { size: 4, mode: *mode, mtime: Instant::default() }).unwrap();
        }
    })
}

fn record(entry: &Entry) -> Vec<u8> {
    let mut record = Vec::new();
    encode(entry, &mut record);
    record
}

fn raw_pack(count: u64, manifest: &[u8], contents: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let mut writer = Writer::start(fs::File::create_new(&path).unwrap()).unwrap();
    writer.manifest(&count.to_le_bytes()).unwrap();
    writer.manifest(manifest).unwrap();
    writer.seal().unwrap();
    contents(&mut writer);
    writer.finish(&Warnings::default()).unwrap();
    fs::read(path).unwrap()
}

/// A host with something to lose: a file, a `.git`, and a link to a directory outside.
fn host() -> World {
    let world = World::new();
    put(world.folder.path(), "outside/precious", b"precious");
    put(&world.host.project, "good", b"good");
    put(&world.host.project, "dir/inside", b"good");
    put(&world.host.project, ".git/config", b"[core]\n");
    symlink(world.folder.path().join("outside"), world.host.project.join("out")).unwrap();
    world
}

/// Applies the pack, which must fail and change nothing; returns the error.
fn refusal(world: &World, pack: Vec<u8>, limits: &Limits) -> String {
    world.store.objects().insert("down/pack".to_owned(), pack);
    let before = picture(world.folder.path());
    let result = world.apply(limits);
    let mut after = picture(world.folder.path());
    // The fetched pack lay in the scratch directory, which is not the host's tree.
    after.insert("scratch".into(), before[OsStr::new("scratch")].clone());
    assert_eq!(after, before, "the host changed: {result:?}");
    let error = result.expect_err("a hostile pack was applied");
    let text = format!("{error:#}");
    // What the job did is the job's failure, a damaged pack is not.
    let damaged = ["damaged", "cut short", "something follows", "version", "no workspace pack"];
    assert_eq!(kind_of(&error) == FailureKind::System, damaged.iter().any(|word| text.contains(word)), "{text}");
    text
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
fn an_entry_is_refused(kind: Kind, path: &[u8], expected: &str) {
    // A good entry beside it must not be applied either.
    let mut bad = entry(kind, path);
    if path == b"../x" {
        bad.mode = 0o755;
    }
    let error = refusal(&host(), pack(&[entry(FILE, b"good"), bad]), &Limits::default());
    assert!(error.contains(expected), "{error}");
}

#[test_case(b's')]
#[test_case(b'p')]
#[test_case(b'c')]
#[test_case(b'b')]
fn other_kinds_are_refused(kind: u8) {
    let mut bad = record(&entry(DIRECTORY, b"odd"));
    bad[1] = kind;
    let error = refusal(&host(), raw_pack(1, &bad, |_| {}), &Limits::default());
    assert!(error.contains("`odd` is neither a file, a directory nor a link"), "{error}");
}

#[test_case(FILE, 0o4755)]
#[test_case(FILE, 0o2755)]
#[test_case(DIRECTORY, 0o2755)]
fn set_id_bits_are_refused(kind: Kind, mode: u32) {
    let bad = Entry { mode, ..entry(kind, b"suid") };
    let error = refusal(&host(), pack(&[bad]), &Limits::default());
    assert!(error.contains("`suid` is refused: it is set-user-id or set-group-id"), "{error}");
}

#[test]
fn set_id_bits_beside_the_content_are_refused() {
    let bad = raw_pack(1, &record(&entry(FILE, b"suid")), |writer| {
        writer.begin();
        writer.piece(b"evil").unwrap();
        writer.end(&Content { size: 4, mode: 0o4755, mtime: Instant::default() }).unwrap();
    });
    let error = refusal(&host(), bad, &Limits::default());
    assert!(error.contains("`suid` is refused"), "{error}");
}

#[test_case(&[entry(FILE, b"good"), entry(FILE, b"good")], "`good` is refused: it comes twice"; "twice")]
#[test_case(&[entry(FILE, b"x"), entry(DELETED, b"x")], "`x` is refused: it comes twice"; "written and deleted")]
#[test_case(&[entry(LINK, b"l"), entry(FILE, b"l/x")], "`l/x` is refused: `l` above it is no directory"; "through its own link")]
#[test_case(&[entry(FILE, b"l/x"), entry(LINK, b"l")], "`l/x` is refused: `l` above it is no directory"; "the link comes later")]
#[test_case(&[entry(FILE, b"f"), entry(FILE, b"f/x")], "`f/x` is refused"; "below its own file")]
#[test_case(&[entry(DELETED, b"out"), entry(FILE, b"out/x")], "`out/x` is refused"; "deletes the host's link first")]
#[test_case(&[Entry { target: b"/etc".to_vec(), ..entry(LINK, b"l") }, entry(FILE, b"l/x")], "`l/x` is refused"; "through a stray link")]
#[test_case(&[Entry { place: Place::Tmp, ..entry(FILE, b"git-template") }], "`git-template` is refused"; "elsewhere in tmp")]
#[test_case(&[Entry { place: Place::Tmp, ..entry(LINK, b"gitlab_runner_env") }], "`gitlab_runner_env` is refused"; "link in tmp")]
#[test_case(&[Entry { place: Place::Tmp, size: 2 << 20, ..entry(FILE, b"gitlab_runner_env") }], "larger than 1 MiB"; "large env file")]
fn entries_together_are_refused(entries: &[Entry], expected: &str) {
    let error = refusal(&host(), pack(entries), &Limits::default());
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_large_env_file_behind_a_small_size_is_refused() {
    let bad = Entry { place: Place::Tmp, ..entry(FILE, b"gitlab_runner_env") };
    let bad = raw_pack(1, &record(&bad), |writer| {
        writer.begin();
        for _ in 0..5 {
            writer.piece(&vec![b'x'; PIECE]).unwrap();
        }
        writer.end(&Content { size: 5 * PIECE as u64, mode: 0o644, mtime: Instant::default() }).unwrap();
    });
    let error = refusal(&host(), bad, &Limits::default());
    assert!(error.contains("`gitlab_runner_env`"), "{error}");
}

#[test]
fn a_bare_repository_is_refused_where_no_git_is() {
    let world = World::new();
    put(&world.host.project, "objects/x", b"x");
    let entries = [entry(FILE, b"HEAD"), entry(FILE, b"config"), entry(DIRECTORY, b"refs")];
    let error = refusal(&world, pack(&entries), &Limits::default());
    assert!(error.contains("`HEAD` is refused: it would make the project directory a bare git repository"), "{error}");
}

#[test]
fn too_many_entries_are_refused_before_they_are_read() {
    let limits = Limits { max_files: 2, ..Limits::default() };
    let entries = [entry(FILE, b"a"), entry(FILE, b"b"), entry(FILE, b"c")];
    let error = refusal(&host(), pack(&entries), &limits);
    assert!(error.contains("3 entries, 2 are the most"), "{error}");
    let error = refusal(&host(), raw_pack(u64::MAX, b"", |_| {}), &limits);
    assert!(error.contains("2 are the most"), "{error}");
}

#[test]
fn a_bomb_is_refused() {
    let limits = Limits { max_bytes: 1 << 20, ..Limits::default() };
    // One that says so.
    let honest = Entry { size: 2 << 20, ..entry(FILE, b"bomb") };
    let error = refusal(&host(), pack(&[honest]), &limits);
    assert!(error.contains("with `bomb` the content exceeds the 1048576 bytes"), "{error}");
    // One that does not, and takes its pieces back again and again.
    for again in [false, true] {
        let bomb = raw_pack(1, &record(&entry(FILE, b"bomb")), |writer| {
            writer.begin();
            for _ in 0..64 {
                writer.piece(&vec![0; PIECE]).unwrap();
                if again {
                    writer.again().unwrap();
                }
            }
            writer.end(&Content { size: 0, mode: 0o644, mtime: Instant::default() }).unwrap();
        });
        assert!(bomb.len() < 1 << 20);
        let error = refusal(&host(), bomb, &limits);
        assert!(error.contains("with `bomb` the content exceeds"), "{error}");
    }
}

#[test]
fn wrong_content_is_refused_by_name() {
    let wrong = raw_pack(1, &record(&entry(FILE, b"wrong")), |writer| {
        writer.begin();
        writer.piece(b"evil").unwrap();
        writer.begin();
        writer.end(&Content { size: 4, mode: 0o644, mtime: Instant::default() }).unwrap();
    });
    let error = refusal(&host(), wrong, &Limits::default());
    assert!(error.contains("the content of `wrong` is damaged"), "{error}");
}

#[test]
fn a_pack_cut_anywhere_is_refused() {
    let whole = pack(&[entry(FILE, b"good"), entry(FILE, b"new"), entry(DELETED, b"dir/inside")]);
    let world = host();
    for length in 0..whole.len() {
        refusal(&world, whole[..length].to_vec(), &Limits::default());
    }
    let mut longer = whole.clone();
    longer.write_all(b"x").unwrap();
    let error = refusal(&world, longer, &Limits::default());
    assert!(error.contains("something follows"), "{error}");
}

#[test]
fn a_flipped_bit_never_brings_anything_else() {
    let whole = pack(&[entry(FILE, b"good"), entry(FILE, b"new"), entry(DELETED, b"dir/inside")]);
    let mut world = host();
    let mut harmless = 0;
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        world.store.objects().insert("down/pack".to_owned(), flipped);
        let before = picture(&world.host.project);
        if world.apply(&Limits::default()).is_err() {
            assert_eq!(picture(&world.host.project), before, "bit {bit}");
            continue;
        }
        // A few bits of the compressed stream say nothing about the content, such as the size of the window.
        harmless += 1;
        assert_eq!(fs::read(world.host.project.join("good")).unwrap(), b"evil", "bit {bit}");
        assert_eq!(fs::read(world.host.project.join("new")).unwrap(), b"evil", "bit {bit}");
        let names: Vec<_> = picture(&world.host.project).into_keys().collect();
        assert_eq!(names, [".git", ".git/config", "dir", "good", "new", "out"], "bit {bit}");
        world = host();
    }
    assert!(harmless < 16, "{harmless} of {} bits could change unseen", whole.len() * 8);
}

#[test]
fn a_newer_version_is_refused_by_its_number() {
    let mut newer = pack(&[]);
    newer[8] = 2;
    let error = refusal(&host(), newer, &Limits::default());
    assert!(error.contains("version 2, this program reads version 1"), "{error}");
}

#[test]
fn a_stray_link_is_left_out_and_the_rest_arrives() {
    let world = host();
    let stray = Entry { target: b"../outside".to_vec(), ..entry(LINK, b"stray") };
    world.store.objects().insert("down/pack".to_owned(), pack(&[stray, entry(FILE, b"new")]));
    let summary = world.apply(&Limits::default()).unwrap();
    assert_eq!(summary.warnings, ["skipped: `stray`: points outside the project"]);
    assert!(fs::symlink_metadata(world.host.project.join("stray")).is_err());
    assert_eq!(fs::read(world.host.project.join("new")).unwrap(), b"evil");
}

#[test]
fn a_link_of_the_host_is_replaced_not_followed() {
    let world = host();
    // The container made `out` a directory: allowed, and what the link pointed to stays as it is.
    let directory = Entry { mode: 0o755, ..entry(DIRECTORY, b"out") };
    let entries = [directory, entry(FILE, b"out/precious"), entry(DELETED, b"dir/inside")];
    world.store.objects().insert("down/pack".to_owned(), pack(&entries));
    world.apply(&Limits::default()).unwrap();
    assert_eq!(fs::read(world.folder.path().join("outside/precious")).unwrap(), b"precious");
    assert_eq!(fs::read(world.host.project.join("out/precious")).unwrap(), b"evil");
    assert!(fs::symlink_metadata(world.host.project.join("out")).unwrap().is_dir());
    // A deletion below the host's link touches nothing either.
    let world = host();
    world.store.objects().insert("down/pack".to_owned(), pack(&[entry(DELETED, b"out/precious")]));
    world.apply(&Limits::default()).unwrap();
    assert_eq!(fs::read(world.folder.path().join("outside/precious")).unwrap(), b"precious");
}

#[test]
fn a_warning_of_the_container_cannot_paint_the_terminal() {
    let world = World::new();
    put(&world.host.project, "x", b"x");
    let snapshot = world.up();
    symlink("/etc", world.container.project.join("a\x1b[31m\nb")).unwrap();
    let summary = world.down(&snapshot, &everything());
    assert_eq!(summary.warnings, [r"skipped: `a\u{1b}[31m\nb`: points outside the project"]);
    // Nor can one that did not come from this program.
    let mut lies = Warnings::default();
    lies.add("\u{1b}]0;owned\u{7}".to_owned());
    let path = world.scratch().join("lies");
    Writer::new(fs::File::create_new(&path).unwrap(), &[]).unwrap().finish(&lies).unwrap();
    world.store.objects().insert("down/pack".to_owned(), fs::read(path).unwrap());
    let summary = world.apply(&Limits::default()).unwrap();
    assert_eq!(summary.warnings.len(), 1);
    assert!(!summary.warnings[0].contains(char::is_control), "{:?}", summary.warnings);
}

#[test]
fn an_endless_depth_is_refused() {
    let deep = [&b"a"[..]; 300].join(&b'/');
    let error = refusal(&host(), pack(&[entry(FILE, &deep)]), &Limits::default());
    assert!(error.contains("more than 256 directories deep"), "{error}");
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
            entry.place = Place::Tmp;
        }
        entry
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_lie_reaches_beyond_the_project(entries in prop::collection::vec(nasty_entry(), 1..5)) {
        let world = host();
        let before = picture(world.folder.path());
        world.store.objects().insert("down/pack".to_owned(), pack(&entries));
        let result = world.apply(&Limits::default());
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
