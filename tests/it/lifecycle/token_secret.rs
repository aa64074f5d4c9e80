//! The token of a command from a secret: `report --note` with the shipped policy, and secrets that are for another place.

use std::path::Path;

use serde_json::{Value, json};

use super::{Ended, run};
use crate::support::emulator::Emulator;
use crate::support::gitlab_api::{ACCESS_TOKEN, GitLabDouble, JOB_TOKEN, PROJECT};
use crate::support::id_tokens::{self, TokenKey};
use crate::support::shipped_roles::shipped_role;
use crate::support::waiting::find_program;

const POLICY: &str = include_str!("../../../runner-config/iam/lifecycle/token-secret.json");
const MANIFEST: &str = r#"{"model": {"group": "wine", "image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/serve@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "metrics": ["metrics.json"], "require": ["accuracy>=0.8"]}}"#;

/// An account whose role `notes` may read the secret of the token, and a merge request.
pub(super) struct Site {
    pub(super) folder: tempfile::TempDir,
    pub(super) gitlab: GitLabDouble,
    pub(super) emulator: Emulator,
    /// Signs id tokens that the role takes; `None` without `openssl`.
    pub(super) key: Option<TokenKey>,
}

impl Site {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let account = folder.path().join("account.json");
        std::fs::write(&account, json!({"RoleDetailList": [shipped_role(("notes", POLICY))]}).to_string()).unwrap();
        let key = find_program(id_tokens::NEEDS).map(|_| TokenKey::new(folder.path()));
        let mut iam = vec!["--iam".to_owned(), account.display().to_string()];
        if let Some(key) = &key {
            iam.extend(["--oidc".to_owned(), format!("{}={}", id_tokens::ISSUER, key.jwks.display())]);
        }
        let mut emulator = Emulator::start(&folder.path().join("data"), &iam);
        emulator.call_driver_as("role/notes");
        let gitlab = GitLabDouble::start();
        gitlab.merge_request(5);
        Self { folder, gitlab, emulator, key }
    }

    /// Stores a secret with the token, and `changes` of it.
    pub(super) fn store(&self, name: &str, changes: &Value) {
        let mut secret = json!({
            "gitlab_url": self.server(), "gitlab_token": ACCESS_TOKEN, "gitlab_project_id": PROJECT,
        });
        secret.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        secret.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        self.emulator.call("secretsmanager.CreateSecret", &json!({"Name": name, "SecretString": secret.to_string()}));
    }

    pub(super) fn server(&self) -> String {
        self.gitlab.api_url().trim_end_matches("/api/v4").to_owned()
    }

    /// A command of a job of the merge request, in a folder.
    pub(super) fn run(&self, folder: &Path, more: &[(&str, &str)], words: &[&str]) -> Ended {
        let server = self.server();
        let mut variables: Vec<(String, String)> = self.emulator.environment();
        variables.extend(self.gitlab.variables().map(|(name, value)| (name.to_owned(), value)));
        let of_job = [
            ("AWS_REGION", "us-east-1"),
            ("CI_SERVER_URL", &server),
            ("CI_MERGE_REQUEST_IID", "5"),
            ("CI_PIPELINE_ID", "12"),
            ("CI_JOB_TOKEN", JOB_TOKEN),
        ];
        variables.extend(of_job.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let words = [words, &["--endpoint-url", &self.emulator.endpoint]].concat();
        let ended = run(folder, &variables, &words);
        assert!(![&ended.stdout, &ended.stderr].iter().any(|text| text.contains(ACCESS_TOKEN)), "{}", ended.stderr);
        ended
    }

    fn note(&self, secret: &str, more: &[(&str, &str)]) -> Ended {
        let folder = self.folder.path();
        std::fs::write(folder.join("manifest.json"), MANIFEST).unwrap();
        std::fs::write(folder.join("metrics.json"), r#"{"accuracy": 0.9}"#).unwrap();
        let variables = [&[("GITLAB_TOKEN_SECRET", secret)][..], more].concat();
        self.run(folder, &variables, &["report", "--html", "report.html", "--note"])
    }
}

#[test]
fn a_note_is_written_with_the_token_of_a_secret() {
    let site = Site::new();
    site.store("ci/gitlab", &json!({"other": ACCESS_TOKEN}));
    for (secret, told) in
        [("ci/gitlab#gitlab_token", "Wrote a note"), ("ci/gitlab", "The note"), ("ci/gitlab#other", "The note")]
    {
        let ended = site.note(secret, &[]);
        assert!(ended.code == 0 && ended.stderr.starts_with(told), "{secret}: {}", ended.stderr);
    }
    assert_eq!(site.gitlab.notes(5).len(), 1);
    let decided = site.emulator.decided("notes");
    assert_eq!(decided, json!({"allowed": {"secretsmanager:GetSecretValue": 3}, "denied": {}}));
}

#[test]
fn a_token_goes_to_the_gitlab_and_project_of_its_secret_alone() {
    let site = Site::new();
    site.store("ci/gitlab", &json!({"gitlab_url": "https://gitlab.example.com"}));
    let other = GitLabDouble::start();
    let (url, api) = (site.server(), other.api_url());
    let of_other = [("CI_API_V4_URL", api.as_str())];
    let rows = [
        (
            json!({"gitlab_url": "https://gitlab.example.com"}),
            &[][..],
            "is for the GitLab `https://gitlab.example.com`",
        ),
        (json!({"gitlab_url": url}), &of_other, "`CI_API_V4_URL` of the job is"),
        (json!({"gitlab_project_id": "43"}), &[], "is for the project 43"),
        (json!({"gitlab_url": null}), &[], "has no field `gitlab_url`: it has `gitlab_project_id`, `gitlab_token`"),
        (json!({"gitlab_token": null}), &[], "has no field `gitlab_token`"),
    ];
    for (secret, variables, told) in rows {
        let name = "ci/gitlab";
        site.emulator
            .call("secretsmanager.DeleteSecret", &json!({"SecretId": name, "ForceDeleteWithoutRecovery": true}));
        site.store(name, &secret);
        let ended = site.note(name, variables);
        assert!(ended.code == 0 && ended.stderr.contains(told), "{told}: {}", ended.stderr);
        assert_eq!(ended.stderr.matches("warning:").count(), 1, "{}", ended.stderr);
    }
    for name in ["AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"] {
        let refused = site.note("ci/gitlab", &[(name, "https://evil.example")]);
        assert!(refused.stderr.contains(&format!("`{name}` is set")), "{}", refused.stderr);
    }
    let refused = site.note("other/gitlab", &[]);
    assert!(refused.stderr.contains("`secretsmanager:GetSecretValue`"), "{}", refused.stderr);
    assert_eq!((site.gitlab.requests().len(), other.requests().len()), (0, 0));
}
