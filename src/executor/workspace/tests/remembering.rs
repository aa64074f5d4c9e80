//! Tests of the files cache and the index cache.

use super::super::send::files_cache::FilesCache;
use super::super::store::ChunkHash;
use super::super::store::Located;
use super::super::tree::{FileStat, StateId};
use super::transfer::{noise, project};
use super::*;

/// The content of the project's `src/1/1`.
fn other() -> Located {
    Located { hash: ChunkHash::of(&noise(1, 3000)), length: 3000, block: 0, at: 0 }
}

impl World {
    fn notes(&self) -> FilesCache {
        FilesCache::open(&self.cache().join("files"), &self.host.project)
    }

    /// The state of a file as it is now.
    fn state(&self, path: &str) -> Option<StateId> {
        FileStat::of(&rustix::fs::stat(self.host.project.join(path)).unwrap()).unwrap().state(path.as_bytes())
    }

    /// Replaces the notes by wrong ones about this file only.
    fn lie(&self, path: &str, runs: &[(u64, &[Located])]) {
        let notes = self.notes();
        notes.note(self.state(path).unwrap(), runs.iter().copied());
        notes.save();
    }

    /// The notes about a file in its current state.
    fn remembered(&self, path: &str) -> Option<Vec<(u64, usize)>> {
        let notes = self.notes();
        let runs = notes.recall(self.state(path)?)?;
        Some(runs.into_iter().map(|(offset, chunks)| (offset, chunks.len())).collect())
    }
}

#[test]
fn a_file_that_is_as_it_was_is_not_read_again() {
    let world = project();
    world.send().unwrap();
    let (before, after) = (world.remembered("large").unwrap(), world.remembered("src/0/0").unwrap());
    assert!(before.iter().map(|(_, chunks)| chunks).sum::<usize>() > 20 && after == [(0, 1)], "{before:?} {after:?}");
    // Wrong notes show that the notes are used.
    world.lie("src/0/0", &[(0, &[other()])]);
    world.send().unwrap();
    world.receive().unwrap();
    assert!(fs::read(world.container.project.join("src/0/0")).unwrap() == noise(1, 3000));
    assert!(fs::read(world.container.project.join("src/1/1")).unwrap() == noise(1, 3000));
}

#[test]
fn a_large_file_that_is_as_it_was_is_not_read_again_either() {
    let world = project();
    world.send().unwrap();
    let other = other();
    world.lie("large", &[(1 << 20, &[other, other]), ((20 << 20) - 3000, &[other])]);
    world.send().unwrap();
    world.receive().unwrap();
    let mut expected = vec![0; 20 << 20];
    for at in [1 << 20, (1 << 20) + 3000, (20 << 20) - 3000] {
        expected[at..at + 3000].copy_from_slice(&noise(1, 3000));
    }
    assert!(fs::read(world.container.project.join("large")).unwrap() == expected);
    // A file with impossible notes is read, and the notes are corrected.
    for lie in
        [[(1 << 20, &[other, other][..]), ((1 << 20) + 3000, &[other])], [(0, &[other]), ((20 << 20) - 1, &[other])]]
    {
        world.lie("large", &lie);
        world.send().unwrap();
        world.arrives();
    }
}

#[test]
fn wrong_notes_about_the_only_file_are_replaced() {
    let world = World::new();
    put(&world.host.project, "only", b"content");
    world.send().unwrap();
    assert_eq!(world.remembered("only"), Some(vec![(0, 1)]));
    world.lie("only", &[]);
    assert_eq!(world.remembered("only"), Some(Vec::new()));
    world.send().unwrap();
    assert_eq!(world.remembered("only"), Some(vec![(0, 1)]));
}

#[test]
fn a_file_that_changed_just_now_is_not_remembered() {
    let world = World::new();
    put(&world.host.project, "new", b"content");
    let mark = FileStat::of(&rustix::fs::stat(world.host.project.join("new")).unwrap()).unwrap();
    // Even on a slow machine, a second reading of the clock shows whether the first one could detect a change.
    let state = mark.state(b"new");
    assert!(state.is_none() || !mark.is_fresh());
    world.send().unwrap();
    assert!(world.remembered("new").is_some(), "the reader waits a tick");
}

#[test]
fn a_change_that_keeps_size_and_time_is_not_overlooked() {
    let world = project();
    world.send().unwrap();
    for name in ["src/0/0", "large"] {
        let path = world.host.project.join(name);
        let metadata = fs::metadata(&path).unwrap();
        let mut content = fs::read(&path).unwrap();
        content[1000] ^= 1;
        fs::write(&path, content).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(metadata.modified().unwrap()).unwrap();
        while world.state(name).is_none() {
            std::thread::yield_now();
        }
        assert_eq!(world.remembered(name), None, "{name}");
    }
    world.send().unwrap();
    world.arrives();
    assert!(world.remembered("src/0/0").is_some() && world.remembered("large").is_some());
}

#[test]
fn what_notes_say_of_other_lengths_or_places_is_not_believed() {
    let world = project();
    world.send().unwrap();
    let chunk = other();
    let gone = Located { hash: ChunkHash::of(b"gone"), ..chunk };
    let lies: [&[(u64, &[Located])]; 5] =
        [&[], &[(1, &[chunk])], &[(0, &[chunk, chunk])], &[(0, &[gone])], &[(0, &[chunk]), (3000, &[chunk])]];
    for lie in lies {
        world.lie("src/0/0", lie);
        assert_eq!(world.remembered("src/0/0").unwrap().len(), lie.len());
        world.send().unwrap();
        world.arrives();
    }
}

#[test]
fn a_sparse_file_is_remembered_with_its_holes() {
    use std::os::unix::fs::FileExt as _;
    let world = World::new();
    put(&world.host.project, "sparse", b"begin");
    put(&world.host.project, "hole", b"");
    let open = |name: &str| fs::File::options().write(true).open(world.host.project.join(name)).unwrap();
    let file = open("sparse");
    for (at, seed) in [(30 << 20, 1), (100 << 20, 2), (170 << 20, 3)] {
        file.write_all_at(&noise(seed, 5 << 20), at).unwrap();
    }
    file.set_len(200 << 20).unwrap();
    open("hole").set_len(20 << 20).unwrap();
    let first = world.send().unwrap();
    assert!(world.remembered("sparse").unwrap().len() > 3);
    let second = world.send().unwrap();
    assert!(second.sent < 20_000 && second.bytes == first.bytes && second.files == first.files, "{first:?} {second:?}");
    world.arrives();
}
