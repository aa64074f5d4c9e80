//! The project on its way from one container to the next, and what the host gets of both.

use super::*;
use crate::workspace::{packs_of, receive_kept, send_tree};

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
        let now = SystemTime::now();
        block_on(send_tree(&*self.store, &kept(), &self.container, now, &Arc::default())).unwrap();
        for tree in [&self.container.project, &self.container.tmp] {
            fs::remove_dir_all(tree).unwrap();
        }
        let (store, host) = (&*self.store, up());
        block_on(receive_kept(store, &kept(), &host, &self.container, &Arc::default())).unwrap().0
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
    let packs = block_on(packs_of(&*world.store, &kept())).unwrap();
    assert_eq!(packs, block_on(packs_of(&*world.store, &up())).unwrap(), "the packs of the host hold all of it");
}
