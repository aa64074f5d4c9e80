//! Property tests with random trees and changes, in both directions.

use proptest::prelude::*;

use super::*;
use crate::config::env::short_or_long;

#[derive(Debug, Clone)]
pub(super) enum Deed {
    File(Vec<u8>, u32),
    Directory(u32),
    Link(&'static str),
    Remove,
}

pub(super) fn path() -> impl Strategy<Value = Vec<u8>> {
    let name =
        prop::sample::select(vec![&b"a"[..], b"b", b"c d", b"\n", b"-", b"\xff", b"*", b".git", b"a.b", b"\xc3\xa9"]);
    prop::collection::vec(name, 1..4).prop_map(|names| names.join(&b'/'))
}

pub(super) fn deed() -> impl Strategy<Value = Deed> {
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(vec![0; 20_000]),
        Just([vec![7; 300_000], vec![0; 300_000], vec![8; 5]].concat()),
    ];
    let mode = prop::sample::select(vec![0o644, 0o600, 0o755, 0o700, 0o444]);
    prop_oneof![
        4 => (content, mode).prop_map(|(content, mode)| Deed::File(content, mode)),
        2 => prop::sample::select(vec![0o755, 0o700, 0o750]).prop_map(Deed::Directory),
        1 => prop::sample::select(vec!["a", "b/a", "nowhere", "./a.b"]).prop_map(Deed::Link),
        2 => Just(Deed::Remove),
    ]
}

pub(super) fn deeds() -> impl Strategy<Value = Vec<(Vec<u8>, Deed)>> {
    prop::collection::vec((path(), deed()), 0..16)
}

/// Performs the changes that are possible; skips those below a file or through a link.
pub(super) fn act(top: &Path, deeds: &[(Vec<u8>, Deed)]) {
    for (path, deed) in deeds {
        if ancestors(path).any(|above| {
            fs::symlink_metadata(top.join(OsStr::from_bytes(above))).is_ok_and(|metadata| !metadata.is_dir())
        }) {
            continue;
        }
        let path = top.join(OsStr::from_bytes(path));
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            fs::remove_dir_all(&path).unwrap();
        } else {
            let _ = fs::remove_file(&path);
        }
        if !matches!(deed, Deed::Remove) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        match deed {
            Deed::File(content, mode) => {
                fs::write(&path, content).unwrap();
                chmod(&path, *mode);
            }
            Deed::Directory(mode) => {
                fs::create_dir(&path).unwrap();
                chmod(&path, *mode);
            }
            Deed::Link(target) => symlink(target, &path).unwrap(),
            Deed::Remove => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: short_or_long(4, 32), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_sides_agree_after_both_ways(before in deeds(), during in deeds()) {
        let world = World::new();
        act(&world.host.project, &before);
        let snapshot = world.up();
        let sent = picture(&world.host.project);
        prop_assert_eq!(&picture(&world.container.project), &sent);
        // `.git` is the host's alone: a job that replaces a directory with one in it is refused, so none is.
        let during: Vec<_> = during
            .into_iter()
            .filter(|(path, _)| !sent.keys().any(|held| {
                enters_git(held.as_bytes()) && held.as_bytes().starts_with(path) && !enters_git(path)
            }))
            .collect();
        act(&world.container.project, &during);
        let wanted = without_git(picture(&world.container.project));
        world.down(&snapshot, &everything());
        let mut got = picture(&world.host.project);
        for (path, seen) in &sent {
            if enters_git(path.as_bytes()) {
                prop_assert_eq!(got.get(path), Some(seen), "of the host's .git");
            }
        }
        got = without_git(got);
        prop_assert_eq!(got.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        prop_assert_eq!(got, wanted);
    }
}
