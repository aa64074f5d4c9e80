//! Races, restarts, listings and parts.

use super::listing::ObjectPage;
use super::{Attributes, FileSegment, Object, Precondition, Store, StoreError, StoredPart};

fn put(store: &Store, key: &str, body: &str, precondition: &Precondition) -> Result<(), StoreError> {
    let (file, path) = store.fresh_file("b")?;
    std::fs::write(path, body)?;
    let bytes = body.len() as u64;
    let object = Object {
        tag: format!("tag-{body}"),
        bytes,
        modified_ms: 1,
        segments: vec![FileSegment { file, bytes }],
        attributes: Attributes::default(),
    };
    store.commit("b", key, object, precondition)
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_owned()).unwrap();
    assert!(store.create_bucket("b").unwrap());
    (folder, store)
}

fn names(page: &ObjectPage) -> (Vec<&str>, Vec<&str>) {
    (page.objects.iter().map(|(key, _)| key.as_str()).collect(), page.prefixes.iter().map(String::as_str).collect())
}

#[test]
fn only_one_of_many_racing_writers_creates_a_key() {
    let (folder, store) = store();
    let won = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|index| {
                let store = &store;
                scope.spawn(move || put(store, "k", &index.to_string(), &Precondition::Absent).is_ok())
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).filter(|won| *won).count()
    });
    assert_eq!(won, 1);
    assert_eq!(std::fs::read_dir(folder.path().join("b/data")).unwrap().count(), 1, "losers leave no file");
}

#[test]
fn a_replaced_body_stays_readable_until_its_reader_is_gone() {
    let (_folder, store) = store();
    put(&store, "k", "old", &Precondition::None).unwrap();
    let reader = store.get("b", "k").unwrap();
    put(&store, "k", "new", &Precondition::Tag("tag-old".into())).unwrap();
    let (path, _) = reader.files().remove(0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    drop(reader);
    assert!(!path.exists());
    assert!(matches!(put(&store, "k", "x", &Precondition::Tag("tag-old".into())), Err(StoreError::Precondition)));
}

#[test]
fn objects_survive_a_restart_and_orphans_do_not() {
    let (folder, store) = store();
    put(&store, "a", "1", &Precondition::None).unwrap();
    put(&store, "gone", "2", &Precondition::None).unwrap();
    store.delete("b", "gone", &Precondition::None).unwrap();
    drop(store);
    std::fs::write(folder.path().join("b/data/orphan"), "x").unwrap();
    let store = Store::open(folder.path().to_owned()).unwrap();
    assert_eq!(names(&store.list("b", "", None, None, 10).unwrap()).0, ["a"]);
    assert_eq!(std::fs::read_dir(folder.path().join("b/data")).unwrap().count(), 1);
}

#[test]
fn listing_folds_at_the_delimiter_and_pages_across_folds() {
    let (_folder, store) = store();
    for key in ["a", "d/1", "d/2", "d/e/3", "d", "z"] {
        put(&store, key, "x", &Precondition::None).unwrap();
    }
    let page = store.list("b", "", None, Some("/"), 10).unwrap();
    assert_eq!(names(&page), (vec!["a", "d", "z"], vec!["d/"]));
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.list("b", "", after.as_deref(), Some("/"), 1).unwrap();
        let (objects, prefixes) = names(&page);
        seen.extend(objects.iter().chain(&prefixes).map(|name| (*name).to_owned()));
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert_eq!(seen, ["a", "d", "d/", "z"]);
    assert_eq!(names(&store.list("b", "d/", Some("d/1"), None, 10).unwrap()).0, ["d/2", "d/e/3"]);
}

#[test]
fn parts_become_one_object_in_order() {
    let (_folder, store) = store();
    let id = store.start_upload("b", "big", Attributes::default()).unwrap();
    for (number, body) in [(2, "world"), (1, "hello ")] {
        let (file, path) = store.fresh_file("b").unwrap();
        std::fs::write(path, body).unwrap();
        let segment = FileSegment { file, bytes: body.len() as u64 };
        store.add_part(&id, number, StoredPart { tag: body.into(), segment, modified_ms: 1 }).unwrap();
    }
    let wrong = [(2, None), (1, None)];
    assert!(matches!(store.complete_upload(&id, &wrong, &Precondition::None), Err(StoreError::InvalidPartOrder)));
    let chosen = [(1, Some("hello ".to_owned())), (2, None)];
    store.complete_upload(&id, &chosen, &Precondition::Absent).unwrap();
    let body: String =
        store.get("b", "big").unwrap().files().iter().map(|(path, _)| std::fs::read_to_string(path).unwrap()).collect();
    assert_eq!(body, "hello world");
}
