//! `release`: packages that the program made, and a double of GitLab's API.

use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::{Value, json};

use super::package::{git, package, project, put, without_hashes};
use super::token_secret::Site;
use super::{Ended, run};
use crate::conformance::skipped;
use crate::support::gitlab_api::{ApiFault, EXPIRED_TOKEN, FaultEffect, GitLabDouble, JOB_TOKEN, ProjectSettings};
use crate::support::snapshot::assert_snapshot;

const TAG: &str = "stable-20261129T045233Z";
const DEFAULT_BRANCH: [(&str, &str); 2] = [("CI_COMMIT_BRANCH", "main"), ("CI_DEFAULT_BRANCH", "main")];

/// A clone with a package, and a project of GitLab without any.
struct Desk {
    around: tempfile::TempDir,
    gitlab: GitLabDouble,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { around: tempfile::tempdir().unwrap(), gitlab: GitLabDouble::start() };
        project(&desk.folder());
        desk.package("stable");
        desk
    }

    fn folder(&self) -> PathBuf {
        self.around.path().join("project")
    }

    /// The job `package`. Its variables are those of the next job.
    fn package(&self, kind: &str) {
        let words = ["--kind", kind, "--dotenv", "package.env", "--output-dir", "out"];
        let made = package(&self.folder(), &[], &words);
        assert_eq!(made.code, 0, "{}", made.stderr);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder().join("out").join(name)
    }

    fn commit(&self) -> String {
        git(&self.folder(), &["rev-parse", "HEAD"])
    }

    /// The job `release`, with other variables.
    fn release_with(&self, more: &[(&str, &str)], words: &[&str]) -> Ended {
        let left = std::fs::read_to_string(self.folder().join("package.env")).unwrap();
        let of_gitlab = self.gitlab.variables();
        let mut variables: Vec<_> = left.lines().map(|line| line.split_once('=').unwrap()).collect();
        variables.extend(of_gitlab.iter().map(|(name, value)| (*name, value.as_str())));
        variables.extend([("CI_JOB_TOKEN", JOB_TOKEN), ("CI_PROJECT_PATH", "g/p")]);
        variables.extend(more);
        let ended = run(&self.folder(), &variables, &[&["release"][..], words].concat());
        assert!(![&ended.stdout, &ended.stderr].iter().any(|text| text.contains(JOB_TOKEN)));
        ended
    }

    #[track_caller]
    fn released(&self, words: &[&str]) -> Ended {
        let ended = self.release_with(&DEFAULT_BRANCH, words);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended
    }

    /// Requests that change something.
    fn writes(&self) -> Vec<String> {
        let requests = self.gitlab.requests();
        assert!(requests.iter().all(|request| request.token_header == "JOB-TOKEN"));
        let writes = requests.into_iter().filter(|request| request.method != "GET");
        writes.map(|request| format!("{} {} {}", request.method, request.path, request.status)).collect()
    }

    /// A text without what differs between two runs.
    fn shown(&self, text: &str) -> String {
        let origin = self.gitlab.api_url().trim_end_matches("/api/v4").to_owned();
        let text = text.replace(&origin, "http://gitlab").replace(self.around.path().to_str().unwrap(), "AROUND");
        let size = Regex::new(r"[\d.]+ (Ki)?B\b").unwrap();
        size.replace_all(&without_hashes(&text), "SIZE").into_owned()
    }

    /// One release with one file, which is the package.
    #[track_caller]
    fn assert_one(&self) {
        let (files, releases) = (self.gitlab.files(), self.gitlab.releases());
        assert_eq!((files.len(), releases.len()), (1, 1), "{:?}", self.gitlab.requests());
        assert!(files[0].content == std::fs::read(self.file(&format!("{TAG}.zip"))).unwrap());
        assert_eq!(self.gitlab.tags(), [(TAG.to_owned(), self.commit())].into());
        let links: Vec<_> = releases[0].links.iter().map(|link| (&*link.name, &*link.link_type)).collect();
        assert_eq!(links, [(&*format!("{TAG}.zip"), "package")]);
    }
}

/// Of a pipeline whose user may not release: the token is a project's.
#[test]
fn a_package_is_released_with_the_token_of_a_secret() {
    let (desk, site) = (Desk::new(), Site::new());
    site.store("ci/gitlab", &json!({}));
    let package = format!("out/{TAG}.zip");
    let words = ["release", "--package", &package, "--token-secret", "ci/gitlab#gitlab_token"];
    let variables = [&DEFAULT_BRANCH[..], &[("CI_PROJECT_PATH", "g/p")]].concat();
    let ended = site.run(&desk.folder(), &variables, &words);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!((site.gitlab.files().len(), site.gitlab.releases().len()), (1, 1));
    assert!(site.gitlab.requests().iter().all(|request| request.token_header == "PRIVATE-TOKEN"));
    // The job's id token reads the secret where it has one; there are no other credentials.
    let Some(token) = site.key.as_ref().map(|key| key.token("2")) else {
        return skipped("the token of a secret by an id token", "openssl is not installed");
    };
    let of_job = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_SESSION_TOKEN", ""),
        ("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/notes"),
        ("SAGEMAKER_ID_TOKEN", &token),
    ];
    let ended = site.run(&desk.folder(), &[&variables[..], &of_job].concat(), &words);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("was released before"), "{}", ended.stdout);
}

#[test]
fn a_stable_package_is_released_once() {
    let desk = Desk::new();
    let made = desk.released(&["--package", "out/stable-20261129T045233Z.zip", "--dotenv", "release.env"]);
    desk.assert_one();
    assert_eq!(desk.gitlab.files()[0].place, format!("wine/{TAG}/{TAG}.zip"));
    let release = desk.gitlab.releases().remove(0);
    assert_eq!((&*release.name, &release.commit), (TAG, &desk.commit()));
    let dotenv = std::fs::read_to_string(desk.folder().join("release.env")).unwrap();
    let text = format!("{}{}\n{dotenv}\n{}", made.stdout, made.stderr, release.description);
    assert_snapshot("release_made", &desk.shown(&text));
    let url = dotenv.lines().find_map(|line| line.strip_prefix("PACKAGE_REGISTRY_URL=")).unwrap();
    assert_eq!(release.links[0].url, url);

    let again = desk.released(&[]);
    assert!(again.stdout.starts_with(&format!("{TAG}.zip was released before\n")), "{}", again.stdout);
    assert_eq!(desk.writes().len(), 2, "{:?}", desk.writes());
    // The pipeline of the new tag, where `package` makes a candidate.
    desk.package("candidate");
    let tag = desk.release_with(&[("CI_COMMIT_TAG", TAG)], &[]);
    assert_eq!(tag.code, 0, "{}", tag.stderr);
    assert!(tag.stderr.contains("nothing is left to do") && tag.stdout.contains(TAG), "{}{}", tag.stdout, tag.stderr);
    assert_eq!(desk.writes().len(), 2);
    desk.package("stable");
    let other = desk.release_with(&[("CI_COMMIT_TAG", "v1.0")], &[]);
    assert_eq!((other.code, desk.writes().len()), (1, 2), "{}", other.stderr);
}

#[test]
fn a_candidate_is_a_file_without_a_release() {
    let desk = Desk::new();
    desk.package("candidate");
    let data: Value = serde_json::from_str(&desk.released(&["--output", "json"]).stdout).unwrap();
    let name = format!("candidate-PR-12-{}-20261129T045233Z", &desk.commit()[..8]);
    assert_eq!((&data["version"], &data["release"]), (&Value::from(name), &Value::Null));
    let text = desk.released(&[]).stdout;
    assert!(text.contains("without a release: it is a candidate"), "{text}");
    assert_eq!((desk.gitlab.files().len(), desk.gitlab.releases().len(), desk.gitlab.tags().len()), (1, 0, 0));
}

/// GitLab gets the request, and its reply is lost.
#[test]
fn a_lost_reply_is_looked_for() {
    for (method, part) in [("PUT", "/packages/generic/"), ("POST", "/releases")] {
        // That it comes later, and that it never comes, are tests without a real clock beside the command: they wait for a minute.
        for effect in [FaultEffect::DropAfter, FaultEffect::Late(2)] {
            let desk = Desk::new();
            desk.gitlab.plan(ApiFault::new(method, part, 1, effect));
            desk.released(&[]);
            desk.assert_one();
            assert_eq!(desk.writes().len(), 2, "{:?}", desk.writes());
        }
    }
}

/// A change of the project's settings, or of its server's.
type Change = fn(&mut ProjectSettings);

fn refused_by(change: Change, code: i32) -> (Desk, String) {
    let desk = Desk::new();
    desk.gitlab.change(change);
    let ended = desk.release_with(&DEFAULT_BRANCH, &[]);
    assert_eq!(ended.code, code, "{}", ended.stderr);
    assert_eq!(desk.gitlab.releases(), []);
    let said = desk.shown(&ended.stderr);
    (desk, said)
}

#[test]
fn each_refusal_says_what_to_change() {
    let mut said = Vec::new();
    let settings: [(Change, i32); 6] = [
        (|settings| settings.most_bytes = 100, 1),
        (|settings| settings.most_bytes_of_proxy = 100, 1),
        (|settings| settings.rate_limit = Some((0, 600)), 75),
        (|settings| settings.has_packages = false, 2),
        (|settings| settings.protected_packages = vec!["wine".to_owned()], 2),
        (|settings| settings.protected_tags = vec!["stable-".to_owned()], 2),
    ];
    for (change, code) in settings {
        let (desk, text) = refused_by(change, code);
        said.push(text);
        // What was changed lets the next run go on.
        desk.gitlab.change(|settings| *settings = ProjectSettings::default());
        desk.released(&[]);
        desk.assert_one();
    }
    let desk = Desk::new();
    let refused = |more: &[(&str, &str)], words: &[&str], code: i32| {
        let ended = desk.release_with(&[&DEFAULT_BRANCH[..], more].concat(), words);
        assert_eq!(ended.code, code, "{}", ended.stderr);
        desk.shown(&ended.stderr)
    };
    said.push(refused(&[("CI_JOB_TOKEN", EXPIRED_TOKEN)], &[], 2));
    said.push(refused(&[("CI_JOB_TOKEN", ""), ("CI_API_V4_URL", "")], &[], 1));
    said.push(refused(&[("PACKAGE_SHA256", &"0".repeat(64))], &[], 1));
    said.push(refused(&[("CI_PROJECT_PATH", "g/fork")], &[], 1));
    said.push(refused(&[], &["--registry-package", "../x"], 1));
    let file = desk.file(&format!("{TAG}.zip"));
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, [&good[..], b"more"].concat()).unwrap();
    said.push(refused(&[], &[], 1));
    std::fs::write(&file, good).unwrap();
    let commit = desk.commit();
    desk.gitlab.change(|settings| settings.absent_commits = vec![commit]);
    said.push(refused(&[], &[], 1).replace(&desk.commit(), "COMMIT"));
    desk.gitlab.change(|settings| *settings = ProjectSettings::default());
    assert_eq!(desk.writes(), [""; 0]);
    desk.gitlab.tag(TAG, &"1".repeat(40));
    said.push(refused(&[], &[], 1));
    assert_eq!(desk.writes(), [""; 0], "a tag elsewhere is seen before the upload");
    assert_snapshot("release_refused", &said.join("\n"));
}

/// A tag with `$`, an operator of GitLab's search, is found before anything is written.
#[test]
fn a_tag_with_an_operator_of_the_search_is_found() {
    let desk = Desk::new();
    desk.gitlab.tag("v$1", &"1".repeat(40));
    let ended = desk.release_with(&DEFAULT_BRANCH, &["--tag", "v$1"]);
    assert_eq!((ended.code, desk.writes()), (1, vec![]), "{}", ended.stderr);
    assert!(ended.stderr.contains("the tag v$1 is of commit 1111"), "{}", ended.stderr);
}

/// Another model in the same pipeline makes a package of the same name.
#[test]
fn other_bytes_are_not_published_under_a_name() {
    let desk = Desk::new();
    desk.released(&[]);
    put(&desk.folder(), "model/model.json", "{\"weights\": [3]}");
    desk.package("stable");
    let ended = desk.release_with(&DEFAULT_BRANCH, &[]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("the package registry has another file as wine/"), "{}", ended.stderr);
    assert_eq!((desk.gitlab.files().len(), desk.writes().len()), (1, 2));
    assert!(Path::new(&desk.file(&format!("{TAG}.zip"))).exists());
}
