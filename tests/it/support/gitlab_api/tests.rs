//! The double, judged by Python's `urllib`, which shares nothing with the program's own client.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{
    ACCESS_TOKEN, ApiFault, EXPIRED_TOKEN, FaultEffect, GitLabDouble, JOB_TOKEN, ProjectSettings, READ_TOKEN, TokenKind,
};
use crate::support::waiting::search_path;

/// Sends requests in order and prints status, headers and body of each; status 0 for a connection that ends.
const CLIENT: &str = r"
import http.client, json, sys, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
answers = []
for method, url, headers, body in json.load(sys.stdin):
    data = None if body is None else body.encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        reply = opener.open(request, timeout=60)
    except urllib.error.HTTPError as error:
        reply = error
    except (OSError, http.client.HTTPException):
        answers.append([0, {}, None])
        continue
    text = reply.read().decode()
    try:
        text = json.loads(text)
    except ValueError:
        pass
    answers.append([reply.status, {name.lower(): value for name, value in reply.headers.items()}, text])
json.dump(answers, sys.stdout)
";

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

struct Reply {
    status: u16,
    headers: Value,
    body: Value,
}

/// Asks the double with one token.
fn ask(double: &GitLabDouble, token: (&str, &str), requests: &[(&str, &str, Option<Value>)]) -> Vec<Reply> {
    let (header, token) = token;
    let requests: Vec<Value> = requests
        .iter()
        .map(|(method, path, body)| {
            let project = if *path == "/user" { "" } else { "/projects/42" };
            let url = format!("{}{project}{path}", double.api_url());
            let text = body.as_ref().map(|body| body.as_str().map_or_else(|| body.to_string(), str::to_owned));
            json!([method, url, { header: token, "Content-Type": "application/json" }, text])
        })
        .collect();
    let mut child = Command::new("python3")
        .args(["-c", CLIENT])
        .env_clear()
        .env("PATH", search_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(json!(requests).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers: Vec<(u16, Value, Value)> = serde_json::from_slice(&output.stdout).unwrap();
    answers.into_iter().map(|(status, headers, body)| Reply { status, headers, body }).collect()
}

const JOB: (&str, &str) = ("JOB-TOKEN", JOB_TOKEN);
const ACCESS: (&str, &str) = ("PRIVATE-TOKEN", ACCESS_TOKEN);

fn statuses(replies: &[Reply]) -> Vec<u16> {
    replies.iter().map(|reply| reply.status).collect()
}

#[test]
fn a_token_has_the_rights_that_gitlab_gives_it() {
    let double = GitLabDouble::start();
    double.merge_request(5);
    double.tag("v1", COMMIT);
    let note = Some(json!({ "body": "text" }));
    let requests = [
        ("GET", "/packages", None),
        ("PUT", "/packages/generic/a/1/b.zip", Some(json!("bytes"))),
        ("GET", "/repository/tags?search=%5Ev1%24", None),
        ("GET", "/merge_requests/5/notes", None),
        ("POST", "/merge_requests/5/notes", note),
        ("POST", "/releases", Some(json!({ "tag_name": "v2", "ref": COMMIT }))),
    ];
    let asked = |token| statuses(&ask(&double, token, &requests));
    assert_eq!(asked(JOB), [200, 201, 200, 200, 401, 201]);
    assert_eq!(asked(ACCESS), [200, 201, 200, 200, 201, 409]);
    assert_eq!(asked(("PRIVATE-TOKEN", READ_TOKEN)), [200, 403, 200, 200, 403, 403]);
    for wrong in [("PRIVATE-TOKEN", EXPIRED_TOKEN), ("PRIVATE-TOKEN", JOB_TOKEN), ("JOB-TOKEN", ACCESS_TOKEN)] {
        assert_eq!(asked(wrong), [401; 6]);
    }
    let user = [("GET", "/user", None)];
    assert_eq!(statuses(&ask(&double, JOB, &user)), [401]);
    assert_eq!(ask(&double, ACCESS, &user)[0].body["id"], 7);
    double.token("other", TokenKind::Access { user: 9 });
    let id = double.notes(5)[0].id;
    let edit = format!("/merge_requests/5/notes/{id}");
    let edit = [("PUT", edit.as_str(), Some(json!({ "body": "newer" })))];
    assert_eq!(statuses(&ask(&double, ("PRIVATE-TOKEN", "other"), &edit)), [403]);
    assert_eq!(statuses(&ask(&double, ACCESS, &edit)), [200]);
    assert_eq!(double.notes(5)[0].body, "newer");
    assert!(!format!("{:?}", double.requests()).contains(JOB_TOKEN), "no token is recorded");
}

#[test]
fn packages_follow_the_settings_of_the_project() {
    let double = GitLabDouble::start();
    let path = "/packages/generic/model/1.0/a.zip?select=package_file";
    let put = [("PUT", path, Some(json!("test")))];
    let replies = ask(&double, JOB, &[put.clone(), put.clone()].concat());
    assert_eq!(replies[0].body["file_sha256"], "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
    assert_eq!(replies[0].body["size"], 4);
    assert_eq!(double.files().len(), 2);
    let listed = ask(&double, JOB, &[("GET", "/packages?package_type=generic&package_name=mod", None)]);
    let id = listed[0].body[0]["id"].to_string();
    let files = ask(&double, JOB, &[("GET", &format!("/packages/{id}/package_files"), None)]);
    assert_eq!(files[0].body.as_array().unwrap().len(), 2);
    let refused = |change: &dyn Fn(&mut ProjectSettings)| {
        double.change(|settings| {
            *settings = ProjectSettings::default();
            change(settings);
        });
        let reply = ask(&double, JOB, &put).remove(0);
        (reply.status, reply.body.to_string())
    };
    let (status, body) = refused(&|settings| settings.allows_duplicates = false);
    assert!(status == 400 && body.contains("Duplicate package is not allowed"), "{status} {body}");
    let (status, body) = refused(&|settings| settings.most_bytes = 3);
    assert!(status == 400 && body.contains("File is too large"), "{status} {body}");
    let (status, body) = refused(&|settings| settings.most_bytes_of_proxy = 3);
    assert!(status == 413 && body.contains("<title>413 Payload Too Large</title>"), "{status} {body}");
    assert_eq!(refused(&|settings| settings.has_packages = false).0, 403);
    assert_eq!(double.files().len(), 2, "nothing was stored");
    assert_eq!(double.files()[0].content, b"test");
}

#[test]
fn a_release_keeps_the_commit_of_its_tag() {
    let double = GitLabDouble::start();
    double.change(|settings| settings.protected_tags = vec!["stable-".to_owned()]);
    double.tag("v1", "ffffffffffffffffffffffffffffffffffffffff");
    let link = json!({ "name": "a.zip", "url": "https://a.example/a.zip", "link_type": "package" });
    let make = |tag: &str| {
        let body = json!({ "tag_name": tag, "ref": COMMIT, "description": "text", "assets": { "links": [link] } });
        ("POST", "/releases", Some(body))
    };
    let add = ("POST", "/releases/v1/assets/links", Some(link.clone()));
    let requests = [make("v1"), make("v2"), make("v2"), make("stable-1"), ("GET", "/releases/v1", None), add];
    let replies = ask(&double, JOB, &requests);
    assert_eq!(statuses(&replies), [201, 201, 409, 403, 200, 400]);
    assert_eq!(replies[4].body["commit"]["id"], "ffffffffffffffffffffffffffffffffffffffff");
    assert_eq!(replies[4].body["assets"]["links"][0]["name"], "a.zip");
    assert_eq!(replies[5].body, json!({ "message": { "name": ["has already been taken"] } }));
    assert_eq!(double.tags().get("v2").map(String::as_str), Some(COMMIT));
    assert_eq!(double.releases().len(), 2);
    let missing = [("GET", "/releases/v9", None), ("POST", "/releases", Some(json!({ "tag_name": "v9" })))];
    assert_eq!(statuses(&ask(&double, JOB, &missing)), [404, 422]);
}

#[test]
fn the_rest_is_as_gitlab_has_it() {
    let double = GitLabDouble::start();
    for tag in ["v1", "v10", "av1", "v$1", "v$1$"] {
        double.tag(tag, COMMIT);
    }
    let found = |search: &str| {
        let reply = ask(&double, JOB, &[("GET", &format!("/repository/tags?search={search}"), None)]).remove(0);
        let names = reply.body.as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(found("%5Ev1%24"), ["v1"]);
    assert_eq!(found("V1"), ["av1", "v1", "v10"]);
    assert_eq!(found("%5Ev%241%24"), [""; 0], "the first of two is the operator");
    double.change(|settings| {
        settings.absent_commits = vec![COMMIT.to_owned()];
        settings.protected_packages = vec!["model".to_owned()];
    });
    let commit = format!("/repository/commits/{COMMIT}");
    let make = |tag: &str, commit: &str, url: &str| {
        let links = json!([{ "name": "a", "url": url }]);
        ("POST", "/releases", Some(json!({ "tag_name": tag, "ref": commit, "assets": { "links": links } })))
    };
    let requests = [
        ("GET", commit.as_str(), None),
        make("v2", COMMIT, "https://a.example"),
        make("v3", &"f".repeat(40), "no address"),
        ("PUT", "/packages/generic/model/1.0/a.zip", Some(json!("test"))),
    ];
    let replies = ask(&double, JOB, &requests);
    assert_eq!(statuses(&replies), [404, 400, 400, 403]);
    assert_eq!(replies[1].body["message"], format!("Target {COMMIT} is invalid"));
    let tags = double.tags();
    assert!(!tags.contains_key("v2") && tags.contains_key("v3"), "a release that fails leaves its tag");
    assert_eq!(double.releases(), []);
}

#[test]
fn a_late_request_takes_effect_after_its_answer() {
    let double = GitLabDouble::start();
    double.plan(ApiFault::new("PUT", "/packages/", 1, FaultEffect::Late(2)));
    let (put, list) = (("PUT", "/packages/generic/a/1/b.zip", Some(json!("test"))), ("GET", "/packages?x=1", None));
    let replies = ask(&double, JOB, &[put, list.clone(), list]);
    assert_eq!(statuses(&replies), [504, 200, 200]);
    assert_eq!(replies[2].body, json!([]), "it comes after that list");
    while double.files().is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn a_list_has_pages_with_gitlabs_headers() {
    let double = GitLabDouble::start();
    for number in 0..45 {
        double.note(5, 7, &number.to_string(), number % 2 == 0);
    }
    let pages = [
        ("GET", "/merge_requests/5/notes?sort=asc&page=1", None),
        ("GET", "/merge_requests/5/notes?sort=asc&page=3&per_page=20", None),
        ("GET", "/merge_requests/5/notes?per_page=1000", None),
        ("GET", "/merge_requests/6/notes", None),
    ];
    let replies = ask(&double, JOB, &pages);
    let shown: Vec<usize> = replies.iter().take(3).map(|reply| reply.body.as_array().unwrap().len()).collect();
    assert_eq!(shown, [20, 5, 45]);
    assert_eq!((&replies[0].headers["x-next-page"], &replies[1].headers["x-next-page"]), (&json!("2"), &json!("")));
    assert_eq!(replies[0].headers["x-total"], "45");
    let next = format!("<{}/projects/42/merge_requests/5/notes?page=2&per_page=20>; rel=\"next\"", double.api_url());
    assert!(replies[0].headers["link"].as_str().unwrap().contains(&next), "{}", replies[0].headers);
    assert_eq!((&replies[0].body[0]["body"], &replies[2].body[0]["body"]), (&json!("0"), &json!("44")));
    assert_eq!(replies[3].status, 404);
}

#[test]
fn failures_come_as_planned() {
    let double = GitLabDouble::start();
    double.merge_request(5);
    double.plan(ApiFault::new("POST", "/notes", 1, FaultEffect::DropBefore));
    double.plan(ApiFault::new("POST", "/notes", 2, FaultEffect::DropAfter));
    double.plan(ApiFault::new("POST", "/notes", 3, FaultEffect::RateLimit(9)).times(2));
    double.plan(ApiFault::new("GET", "/releases/", 1, FaultEffect::Page(502)));
    let note = |text: &str| ("POST", "/merge_requests/5/notes", Some(json!({ "body": text })));
    let requests = [note("1"), note("2"), note("3"), note("4"), note("5"), ("GET", "/releases/v1", None)];
    let replies = ask(&double, ACCESS, &requests);
    assert_eq!(statuses(&replies), [0, 0, 429, 429, 201, 502]);
    assert_eq!(replies[2].headers["retry-after"], "9");
    let bodies: Vec<String> = double.notes(5).into_iter().map(|note| note.body).collect();
    assert_eq!(bodies, ["2", "5"]);
    double.change(|settings| settings.rate_limit = Some((7, 30)));
    let replies = ask(&double, ACCESS, &[("GET", "/packages", None), ("GET", "/packages", None)]);
    assert_eq!(statuses(&replies), [200, 429]);
    let of_another = ask(&double, ACCESS, &[("GET", "/../43/packages", None)]);
    assert_ne!(statuses(&of_another), [200]);
}
