//! Races, restarts, listings and parts.

use super::listing::ObjectPage;
use super::{Attributes, FileSegment, Object, Precondition, Store, StoreError, StoredPart, VersionQuery, Versioning};

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
        version: None,
    };
    store.commit("b", key, object, precondition).map(drop)
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
    let reader = store.get("b", "k", None).unwrap();
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
    let body: String = store
        .get("b", "big", None)
        .unwrap()
        .files()
        .iter()
        .map(|(path, _)| std::fs::read_to_string(path).unwrap())
        .collect();
    assert_eq!(body, "hello world");
}

/// All versions of a key from the newest on: id, body or `None` for a delete marker, and whether it is the latest.
fn history(store: &Store, key: &str) -> Vec<(String, Option<String>, bool)> {
    let query = VersionQuery { prefix: key.to_owned(), limit: 100, ..VersionQuery::default() };
    let page = store.versions("b", &query).unwrap();
    let body = |stored: &std::sync::Arc<super::Stored>| std::fs::read_to_string(&stored.files()[0].0).unwrap();
    let listed = page.versions.iter();
    listed.map(|one| (one.version.id(), one.version.stored.as_ref().map(body), one.is_latest)).collect()
}

#[test]
fn versions_and_delete_markers_stay_until_they_are_deleted_by_their_id() {
    let (folder, store) = store();
    put(&store, "k", "before", &Precondition::None).unwrap();
    store.change_settings("b", |settings| settings.versioning = Versioning::Enabled).unwrap();
    put(&store, "k", "one", &Precondition::None).unwrap();
    put(&store, "k", "two", &Precondition::Present).unwrap();
    let marker = store.delete("b", "k", &Precondition::None).unwrap().unwrap();
    assert!(matches!(store.get("b", "k", None), Err(StoreError::DeleteMarker { asked: false, .. })));
    assert!(matches!(store.get("b", "k", Some(&marker)), Err(StoreError::DeleteMarker { asked: true, .. })));
    assert!(matches!(store.get("b", "k", Some("none")), Err(StoreError::NoSuchVersion)));
    assert!(!store.delete_bucket("b").unwrap(), "versions count");
    drop(store);

    // A restart, and one more after the journal was written anew.
    drop(Store::open(folder.path().to_owned()).unwrap());
    let store = Store::open(folder.path().to_owned()).unwrap();
    let [newest, two, one, before] = <[_; 4]>::try_from(history(&store, "k")).unwrap();
    assert_eq!(newest, (marker.clone(), None, true));
    assert_eq!((two.1.as_deref(), one.1.as_deref(), two.2), (Some("two"), Some("one"), false));
    assert_eq!((before.0.as_str(), before.1.as_deref()), ("null", Some("before")));
    assert_eq!(store.get("b", "k", Some("null")).unwrap().object.tag, "tag-before");
    assert!(store.list("b", "", None, None, 10).unwrap().objects.is_empty());

    assert!(!store.delete_version("b", "k", &one.0).unwrap());
    assert!(!store.delete_version("b", "k", "none").unwrap());
    assert!(store.delete_version("b", "k", &marker).unwrap());
    assert_eq!(store.get("b", "k", None).unwrap().object.tag, "tag-two", "the newest of the rest is current");
    assert_eq!(history(&store, "k").len(), 2);
    for id in [two.0.as_str(), "null"] {
        store.delete_version("b", "k", id).unwrap();
    }
    assert!(matches!(store.get("b", "k", None), Err(StoreError::NoSuchKey)));
    assert_eq!(std::fs::read_dir(folder.path().join("b/data")).unwrap().count(), 0, "no file is left");
    assert!(store.delete_bucket("b").unwrap());
}

#[test]
fn suspended_versioning_writes_one_version_null() {
    let (folder, store) = store();
    store.change_settings("b", |settings| settings.versioning = Versioning::Enabled).unwrap();
    put(&store, "k", "one", &Precondition::None).unwrap();
    store.change_settings("b", |settings| settings.versioning = Versioning::Suspended).unwrap();
    for body in ["two", "three"] {
        put(&store, "k", body, &Precondition::None).unwrap();
    }
    let bodies = |store: &Store| -> Vec<_> { history(store, "k").into_iter().map(|(_, body, _)| body).collect() };
    assert_eq!(bodies(&store), [Some("three".to_owned()), Some("one".to_owned())]);
    assert_eq!(store.delete("b", "k", &Precondition::None).unwrap().as_deref(), Some("null"));
    assert_eq!(bodies(&store), [None, Some("one".to_owned())]);
    assert_eq!(std::fs::read_dir(folder.path().join("b/data")).unwrap().count(), 1);
}

#[test]
fn versions_come_in_pages_and_fold_at_the_delimiter() {
    let (_folder, store) = store();
    store.change_settings("b", |settings| settings.versioning = Versioning::Enabled).unwrap();
    for key in ["a", "a", "d/1", "d/1", "d/2", "z", "z"] {
        put(&store, key, "x", &Precondition::None).unwrap();
    }
    store.delete("b", "z", &Precondition::None).unwrap();
    for (delimiter, wanted) in
        [(None, vec!["a", "a", "d/1", "d/1", "d/2", "z", "z", "z"]), (Some("/"), vec!["a", "a", "d/", "z", "z", "z"])]
    {
        for limit in [1, 2, 3, 100] {
            let mut seen = Vec::new();
            let mut query = VersionQuery { delimiter: delimiter.map(str::to_owned), limit, ..VersionQuery::default() };
            loop {
                let page = store.versions("b", &query).unwrap();
                let keys = page.versions.iter().map(|one| one.key.clone()).chain(page.prefixes.iter().cloned());
                seen.extend(keys);
                let Some((key, version)) = page.next else { break };
                (query.key_marker, query.version_marker) = (Some(key), version);
            }
            seen.sort();
            assert_eq!(seen, wanted, "{limit} a page");
        }
    }
}
