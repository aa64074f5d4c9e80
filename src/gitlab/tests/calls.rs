//! The requests of each call, and the port's types made of the answers.

use std::path::Path;

use executor::gitlab::api::{
    GitLabApi as _, GitLabErrorKind, GitLabToken, NewRelease, Note, PackageFilePlace, Release, ReleaseLink, Upload,
};
use serde_json::{Value, json};

use super::stub::{Stub, TOKEN, reply, with_header};

pub(super) fn place() -> PackageFilePlace {
    PackageFilePlace { package: "model".to_owned(), version: "1.0".to_owned(), file: "stable-1.zip".to_owned() }
}

pub(super) const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn package(id: u64, name: &str, version: &str, kind: &str) -> Value {
    let path = format!("/group/project/-/packages/{id}");
    json!({ "id": id, "name": name, "version": version, "package_type": kind, "_links": { "web_path": path } })
}

fn file(id: u64, name: &str) -> Value {
    json!({ "id": id, "package_id": 4, "file_name": name, "size": 4, "file_sha256": HASH.to_uppercase() })
}

#[tokio::test]
async fn files_are_listed_over_pages_and_matched_exactly() {
    let stub = Stub::start().await;
    let similar = json!([
        package(1, "model-old", "1.0", "generic"),
        package(2, "model", "1.0.1", "generic"),
        package(3, "model", "1.0", "maven"),
    ]);
    stub.push(with_header(200, "x-next-page", "2", similar.to_string()));
    stub.push(with_header(200, "x-next-page", "", json!([package(4, "model", "1.0", "generic")]).to_string()));
    let files = json!([file(9, "stable-1.zip"), file(7, "other.zip"), file(8, "stable-1.zip")]);
    stub.push(reply(200, files.to_string()));
    let found = stub.project.package_files(&place()).await.unwrap();
    assert_eq!(found.iter().map(|file| file.id).collect::<Vec<_>>(), [8, 9]);
    let first = found.first().unwrap();
    assert_eq!((first.bytes, first.sha256.as_deref()), (4, Some(HASH)));
    let origin = stub.access.api_url.strip_suffix("/api/v4").unwrap();
    assert_eq!(first.url, format!("{origin}/group/project/-/package_files/8/download"));
    let query = "package_type=generic&package_name=model&package_version=1.0";
    assert_eq!(
        stub.lines(),
        [
            format!("GET /packages?{query}&per_page=100&page=1"),
            format!("GET /packages?{query}&per_page=100&page=2"),
            "GET /packages/4/package_files?per_page=100&page=1".to_owned(),
        ]
    );
}

#[tokio::test]
async fn a_page_of_another_server_is_not_believed() {
    for path in
        ["//evil.example/-/packages/4", "/a?b/-/packages/4", "https://evil.example/-/packages/4", "/-/packages/5"]
    {
        let stub = Stub::start().await;
        let mut package = package(4, "model", "1.0", "generic");
        package["_links"]["web_path"] = path.into();
        stub.push(reply(200, json!([package]).to_string()));
        stub.push(reply(200, json!([file(8, "stable-1.zip")]).to_string()));
        let found = stub.project.package_files(&place()).await.unwrap();
        assert_eq!(found.first().unwrap().url, stub.project.file_url(&place()), "{path}");
    }
}

pub(super) fn upload(path: &Path) -> Upload<'_> {
    Upload { path, bytes: 4, sha256: HASH }
}

#[tokio::test]
async fn a_file_is_sent_whole_with_its_length() {
    let stub = Stub::start().await;
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), "test").unwrap();
    stub.push(reply(201, file(8, "stable-1.zip").to_string()));
    stub.project.upload(&place(), upload(source.path())).await.unwrap();
    stub.push(reply(201, r#"{"message":"201 Created"}"#));
    stub.project.upload(&place(), upload(source.path())).await.unwrap();
    assert_eq!(stub.lines()[0], "PUT /packages/generic/model/1.0/stable-1.zip?select=package_file");
    for seen in stub.seen() {
        assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (Some("4"), None));
        assert_eq!((seen.header("job-token"), seen.header("private-token")), (Some(TOKEN), None));
        assert_eq!(seen.body, b"test");
    }
}

#[tokio::test]
async fn other_bytes_are_an_error() {
    let stub = Stub::start().await;
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), "test").unwrap();
    for (name, value) in [("size", json!(5)), ("file_sha256", json!("0".repeat(64)))] {
        let mut answer = file(8, "stable-1.zip");
        answer[name] = value;
        stub.push(reply(201, answer.to_string()));
        let error = stub.project.upload(&place(), upload(source.path())).await.unwrap_err();
        assert!(error.message.contains("other bytes"), "{error}");
    }
    std::fs::write(source.path(), "tests").unwrap();
    let error = stub.project.upload(&place(), upload(source.path())).await.unwrap_err();
    assert!(error.message.contains("its size changed"), "{error}");
    let error = stub.project.upload(&place(), upload(Path::new("/nonexistent/a.zip"))).await.unwrap_err();
    assert!(error.message.starts_with("/nonexistent/a.zip: "), "{error}");
    assert_eq!(stub.seen().len(), 2, "nothing was sent of a file that changed");
}

#[tokio::test]
async fn a_tag_is_found_by_its_whole_name() {
    let stub = Stub::start().await;
    let tags = json!([
        { "name": "stable-10", "commit": { "id": "b" } },
        { "name": "stable-1", "target": "object", "commit": { "id": "a" } },
    ]);
    stub.push(reply(200, tags.to_string()));
    assert_eq!(stub.project.tag_commit("stable-1").await.unwrap().as_deref(), Some("a"));
    stub.push(reply(200, "[]"));
    assert_eq!(stub.project.tag_commit("stable-1").await.unwrap(), None);
    assert_eq!(stub.lines()[0], "GET /repository/tags?search=%5Estable-1%24&per_page=100&page=1");
}

/// GitLab takes the first `$` of a search as the end of a name, so that a tag with one is found by a part.
#[tokio::test]
async fn a_tag_with_the_operator_of_a_search_is_found() {
    let stub = Stub::start().await;
    for (tag, search) in [("v$1.0-final", "search=1.0-final&"), ("$v", "search=v&"), ("$", "")] {
        stub.push(reply(200, json!([{ "name": tag, "commit": { "id": "a" } }]).to_string()));
        assert_eq!(stub.project.tag_commit(tag).await.unwrap().as_deref(), Some("a"));
        assert_eq!(stub.lines().last().unwrap(), &format!("GET /repository/tags?{search}per_page=100&page=1"));
    }
}

#[tokio::test]
async fn a_commit_is_there_or_not_or_may_not_be_asked_for() {
    let stub = Stub::start().await;
    stub.push(reply(200, r#"{"id":"C0FFEE"}"#));
    assert_eq!(stub.project.has_commit("c0ffee").await.unwrap(), Some(true));
    stub.push(reply(404, r#"{"message":"404 Commit Not Found"}"#));
    assert_eq!(stub.project.has_commit("c0ffee").await.unwrap(), Some(false));
    for (status, body) in
        [(401, r#"{"message":"401 Unauthorized"}"#), (403, ""), (404, r#"{"message":"404 Not Found"}"#)]
    {
        stub.push(reply(status, body));
        assert_eq!(stub.project.has_commit("c0ffee").await.unwrap(), None, "{status}");
    }
    stub.push(reply(400, ""));
    assert_eq!(stub.project.has_commit("c0ffee").await.unwrap_err().kind, GitLabErrorKind::Refused);
    assert_eq!(stub.lines()[0], "GET /repository/commits/c0ffee?stats=false");
}

fn link(name: &str) -> ReleaseLink {
    ReleaseLink { name: name.to_owned(), url: format!("https://gitlab.example.com/{name}") }
}

fn release_answer() -> Value {
    json!({
        "tag_name": "v/1", "commit": { "id": "c0ffee" }, "description": "text", "name": "One",
        "assets": { "links": [{ "id": 1, "name": "a.zip", "url": "https://gitlab.example.com/a.zip" }] },
        "_links": { "self": "https://gitlab.example.com/group/project/-/releases/v%2F1" },
    })
}

fn expected_release() -> Release {
    Release {
        tag: "v/1".to_owned(),
        name: "One".to_owned(),
        commit: "c0ffee".to_owned(),
        description: "text".to_owned(),
        links: vec![link("a.zip")],
        url: Some("https://gitlab.example.com/group/project/-/releases/v%2F1".to_owned()),
    }
}

#[tokio::test]
async fn a_release_is_read_or_absent() {
    let stub = Stub::start().await;
    stub.push(reply(200, release_answer().to_string()));
    assert_eq!(stub.project.release("v/1").await.unwrap(), Some(expected_release()));
    stub.push(reply(404, r#"{"message":"404 Not Found"}"#));
    assert_eq!(stub.project.release("v/1").await.unwrap(), None);
    stub.push(reply(404, r#"{"message":"404 Project Not Found"}"#));
    assert_eq!(stub.project.release("v/1").await.unwrap_err().kind, GitLabErrorKind::NotFound);
    assert_eq!(stub.lines()[0], "GET /releases/v%2F1");
}

#[tokio::test]
async fn a_release_is_created_with_its_links() {
    let stub = Stub::start().await;
    stub.push(reply(201, release_answer().to_string()));
    let release = NewRelease {
        tag: "v/1".to_owned(),
        commit: "c0ffee".to_owned(),
        name: "One".to_owned(),
        description: "text".to_owned(),
        links: vec![link("a.zip"), link("no path!")],
    };
    assert_eq!(stub.project.create_release(&release).await.unwrap(), expected_release());
    let expected = json!({
        "tag_name": "v/1", "ref": "c0ffee", "name": "One", "description": "text",
        "assets": { "links": [
            { "name": "a.zip", "url": "https://gitlab.example.com/a.zip", "link_type": "package", "direct_asset_path": "/a.zip" },
            { "name": "no path!", "url": "https://gitlab.example.com/no path!", "link_type": "package" },
        ] },
    });
    assert_eq!(stub.lines(), ["POST /releases"]);
    assert_eq!(stub.seen()[0].json(), expected);
    stub.push(reply(201, "{}"));
    stub.project.add_link("v/1", &link("b.zip")).await.unwrap();
    assert_eq!(stub.lines()[1], "POST /releases/v%2F1/assets/links");
    assert_eq!(stub.seen()[1].json()["direct_asset_path"], "/b.zip");
}

#[tokio::test]
async fn a_release_of_another_form_is_an_error() {
    let stub = Stub::start().await;
    let mut no_tag = release_answer();
    no_tag["commit"] = Value::Null;
    let mut other = release_answer();
    other["tag_name"] = "v2".into();
    for (answer, expected) in
        [(no_tag, "the release has no commit"), (other, "another release"), (json!("text"), "invalid type")]
    {
        stub.push(reply(200, answer.to_string()));
        let error = stub.project.release("v/1").await.unwrap_err();
        assert_eq!(error.kind, GitLabErrorKind::Invalid);
        assert!(error.message.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_name_that_would_change_the_path_is_not_sent() {
    let stub = Stub::start().await;
    for name in ["", ".", ".."] {
        assert_eq!(stub.project.release(name).await.unwrap_err().kind, GitLabErrorKind::Invalid);
        let place = PackageFilePlace { version: name.to_owned(), ..place() };
        assert_eq!(stub.project.package_files(&place).await.unwrap_err().kind, GitLabErrorKind::Invalid);
    }
    assert_eq!(stub.lines(), [""; 0]);
}

#[tokio::test]
async fn notes_are_listed_created_and_edited() {
    let stub = Stub::with(GitLabToken::Access(TOKEN.to_owned())).await;
    let note = |id: u64, is_system| json!({ "id": id, "body": "b", "author": { "id": 7, "username": "x" }, "system": is_system });
    stub.push(with_header(200, "x-next-page", "2", json!([note(1, true)]).to_string()));
    stub.push(with_header(200, "x-next-page", "", json!([note(2, false)]).to_string()));
    let expected = |id, is_system| Note { id, body: "b".to_owned(), author: 7, is_system };
    assert_eq!(stub.project.notes(5).await.unwrap(), [expected(1, true), expected(2, false)]);
    stub.push(reply(201, note(3, false).to_string()));
    assert_eq!(stub.project.create_note(5, "new").await.unwrap(), expected(3, false));
    stub.push(reply(200, note(3, false).to_string()));
    stub.project.edit_note(5, 3, "newer").await.unwrap();
    stub.push(reply(204, ""));
    stub.project.delete_note(5, 3).await.unwrap();
    assert_eq!(
        stub.lines(),
        [
            "GET /merge_requests/5/notes?order_by=created_at&sort=asc&per_page=100&page=1",
            "GET /merge_requests/5/notes?order_by=created_at&sort=asc&per_page=100&page=2",
            "POST /merge_requests/5/notes",
            "PUT /merge_requests/5/notes/3",
            "DELETE /merge_requests/5/notes/3",
        ]
    );
    assert_eq!(stub.seen()[3].json(), json!({ "body": "newer" }));
    for seen in stub.seen() {
        assert_eq!((seen.header("private-token"), seen.header("job-token")), (Some(TOKEN), None));
    }
}

#[tokio::test]
async fn the_user_of_a_token_is_found() {
    let stub = Stub::with(GitLabToken::Access(TOKEN.to_owned())).await;
    stub.push(reply(200, json!({ "id": 7, "username": "project_42_bot" }).to_string()));
    assert_eq!(stub.project.user().await.unwrap(), 7);
    assert_eq!((stub.seen()[0].method.as_str(), stub.seen()[0].uri.as_str()), ("GET", "/user"));
    stub.push(reply(200, "{}"));
    assert_eq!(stub.project.user().await.unwrap_err().kind, GitLabErrorKind::Invalid);
}
