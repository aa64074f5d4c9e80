//! `credentials`: id tokens for other programs, generated trust policies, and the published keys of a GitLab that AWS cannot reach.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::{Ended, run};
use crate::conformance::skipped;
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::id_tokens::{self, ISSUER, TokenKey};
use crate::support::shipped_roles::of_test_account;
use crate::support::waiting::search_path;

const PUBLISH: &str = include_str!("../../../runner-config/iam/lifecycle/credentials-publish-issuer.json");
const READERS: &str = include_str!("../../../runner-config/iam/lifecycle/issuer-bucket-policy.json");
const MAIN: &str = "project_path:group/project:ref_type:branch:ref:main";
const TOPIC: &str = "project_path:group/project:ref_type:branch:ref:topic";

/// A region of another partition than most tests.
const REGION: &str = "us-gov-west-1";

/// A project with environments in another partition, and its signing key.
struct Desk {
    folder: tempfile::TempDir,
    key: TokenKey,
}

fn role(name: &str) -> String {
    format!("arn:aws-us-gov:iam::000000000000:role/{name}")
}

impl Desk {
    fn new() -> Option<Self> {
        if Command::new(id_tokens::NEEDS).arg("version").stdout(Stdio::null()).status().is_err() {
            skipped("credentials", "openssl is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let key = TokenKey::new(folder.path());
        let entry =
            |name: &str| json!({"region": REGION, "account": "000000000000", "bucket": BUCKET, "job_role": role(name)});
        let manifest = json!({"environments": {"review": entry("review"), "production": entry("production")}});
        std::fs::write(folder.path().join("manifest.json"), manifest.to_string()).unwrap();
        Some(Self { folder, key })
    }

    fn run(&self, variables: &[(&str, &str)], words: &[&str]) -> Ended {
        let project = self.folder.path().join("builds/project");
        std::fs::create_dir_all(&project).unwrap();
        let mut all = vec![
            ("PATH", search_path()),
            ("CI_PROJECT_DIR", project.display().to_string()),
            ("CI_PROJECT_PATH", "group/project".to_owned()),
            ("CI_DEFAULT_BRANCH", "main".to_owned()),
            ("CI_SERVER_URL", format!("https://{ISSUER}")),
        ];
        all.extend(variables.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let all: Vec<_> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
        run(self.folder.path(), &all, words)
    }

    /// The trust policy that the command makes for an environment.
    #[track_caller]
    fn trust(&self, words: &[&str]) -> Value {
        let ended = self.run(&[], &[&["credentials", "trust-policy"], words].concat());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        serde_json::from_str(&ended.stdout).unwrap()
    }

    /// An emulator whose roles have the generated trust policies.
    fn emulator(&self, keys: &str) -> Emulator {
        let role = |name: &str, trust: &Value| {
            let all = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:GetCallerIdentity", "Resource": "*"}]});
            json!({
                "RoleName": name, "RoleId": format!("AROA{}", name.to_uppercase()), "Arn": role(name),
                "AssumeRolePolicyDocument": trust,
                "RolePolicyList": [{"PolicyName": "own", "PolicyDocument": all}],
            })
        };
        let of_machines = json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}});
        let mut publisher = role("publisher", &of_machines);
        let policy = PUBLISH.replace("arn:aws:", "arn:aws-us-gov:").replace("example-issuer", BUCKET);
        publisher["RolePolicyList"][0]["PolicyDocument"] = serde_json::from_str(&policy).unwrap();
        let production = role("production", &self.trust(&["--environment", "production", "--branch", "main"]));
        let review = role("review", &self.trust(&["--environment", "review", "--any-branch"]));
        let account = json!({"RoleDetailList": [production, review, publisher]});
        let file = self.folder.path().join("account.json");
        std::fs::write(&file, account.to_string()).unwrap();
        let args = ["--iam", file.to_str().unwrap(), "--oidc", keys, "--oidc-audience", "sts.amazonaws.com"];
        Emulator::start(&self.folder.path().join("data"), &args.map(str::to_owned)).in_region(REGION)
    }

    fn given_keys(&self) -> String {
        format!("{ISSUER}={}", self.key.jwks.display())
    }

    fn token(&self, subject: &str, audience: &str) -> String {
        self.key.token_with(json!({
            "sub": subject, "aud": audience, "user_id": "1", "user_login": "jane", "project_path": "group/project",
            "pipeline_id": "7", "job_id": "8",
        }))
    }
}

/// The whole way of an ordinary job: the token becomes a file, with which the AWS CLI's own variables work; a merge request's job gets the
/// role of reviews, and never that of production.
#[test]
fn a_merge_request_does_not_get_the_role_of_production() {
    let Some(desk) = Desk::new() else { return };
    let emulator = desk.emulator(&desk.given_keys());
    let export = |token: &str, environment: &str| {
        let words = ["credentials", "export", "--environment", environment, "--endpoint-url", &emulator.endpoint];
        desk.run(&[("SAGEMAKER_ID_TOKEN", token)], &words)
    };
    let (main, topic) = (desk.token(MAIN, "sts.amazonaws.com"), desk.token(TOPIC, "sts.amazonaws.com"));
    for (token, environment) in [(&main, "production"), (&main, "review"), (&topic, "review")] {
        let ended = export(token, environment);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let role = format!("assumed-role/{environment}/gitlab-group.project-p7-j8-u1");
        assert!(ended.stderr.contains(&role), "{}", ended.stderr);
        assert!(!ended.stdout.contains(token.as_str()) && !ended.stderr.contains(token.as_str()));
    }
    let refused = export(&topic, "production");
    assert_eq!(refused.code, 2, "{}", refused.stdout);
    for part in
        ["AccessDenied", TOPIC, "trust-policy", "arn:aws-us-gov:iam::000000000000:oidc-provider/gitlab.example.com"]
    {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert!(refused.stdout.is_empty() && !refused.stderr.contains(topic.as_str()), "{}", refused.stderr);

    let wrong = export(&desk.token(MAIN, "https://gitlab.example.com"), "production");
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("the token's `aud` is `https://gitlab.example.com`"), "{}", wrong.stderr);
    let late = desk.key.token_until(json!({"sub": MAIN, "aud": "sts.amazonaws.com", "user_id": "1", "user_login": "jane", "pipeline_id": "7", "job_id": "8"}), 1_000);
    let late = export(&late, "production");
    assert!(late.stderr.contains("the token was good until 1970-01-01T00:16:40Z"), "{}", late.stderr);
    // A role of another account ends the command before AWS is asked.
    let other = "arn:aws-us-gov:iam::210987654321:role/production";
    let words = [
        "credentials",
        "export",
        "--environment",
        "production",
        "--role-arn",
        other,
        "--endpoint-url",
        &emulator.endpoint,
    ];
    let other = desk.run(&[("SAGEMAKER_ID_TOKEN", &main)], &words);
    assert_eq!(other.code, 1);
    assert!(other.stderr.contains("is of the account 210987654321"), "{}", other.stderr);
}

/// The AWS CLI, as a job calls it after `eval "$(sagemaker-executor credentials export)"`.
#[test]
fn the_aws_cli_works_with_what_is_exported() {
    let Some(desk) = Desk::new() else { return };
    let path = search_path();
    let has_cli = Command::new("aws")
        .arg("--version")
        .env_clear()
        .env("PATH", &path)
        .output()
        .is_ok_and(|tried| tried.status.success());
    if !has_cli {
        skipped("the_aws_cli_works_with_what_is_exported", "the AWS CLI is not installed");
        return;
    }
    let emulator = desk.emulator(&desk.given_keys());
    let words = ["credentials", "export", "--environment", "production", "--endpoint-url", &emulator.endpoint];
    let exported = desk.run(&[("AWS_ID_TOKEN", &desk.token(MAIN, "sts.amazonaws.com"))], &words);
    assert_eq!(exported.code, 0, "{}", exported.stderr);
    let script = format!("{}aws sts get-caller-identity --output text --query Arn", exported.stdout);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-ec", &script]).env_clear().env("PATH", &path).env("HOME", desk.folder.path());
    // Keys that a project has from earlier times would be stronger.
    shell
        .env("AWS_ENDPOINT_URL", &emulator.endpoint)
        .env("AWS_ACCESS_KEY_ID", "AKIAOLD")
        .env("AWS_SECRET_ACCESS_KEY", "old");
    let output = shell.output().unwrap();
    let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let expected = "arn:aws-us-gov:sts::000000000000:assumed-role/production/gitlab-group.project-p7-j8-u1";
    assert_eq!(told.trim(), expected, "{error}");
}

/// The two public documents of a GitLab, which change; other paths are not there. Ends with the test's process.
struct PublicPages {
    url: String,
    keys: Arc<Mutex<String>>,
}

impl PublicPages {
    fn start(keys: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let keys = Arc::new(Mutex::new(std::fs::read_to_string(keys).unwrap()));
        let (issuer, shown) = (url.clone(), Arc::clone(&keys));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let discovery =
                    json!({"issuer": issuer, "jwks_uri": format!("{issuer}/oauth/discovery/keys")}).to_string();
                answer(&stream, &discovery, &shown.lock().unwrap().clone());
            }
        });
        Self { url, keys }
    }
}

fn answer(mut stream: &TcpStream, discovery: &str, keys: &str) {
    use std::io::{BufRead as _, BufReader, Write as _};
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let headers: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    let has_token = headers.iter().any(|line| line.to_lowercase().contains("token"));
    let (status, body) = match first.split(' ').nth(1).unwrap_or_default() {
        _ if has_token => ("400 Bad Request", "these pages need no token"),
        "/.well-known/openid-configuration" => ("200 OK", discovery),
        "/oauth/discovery/keys" => ("200 OK", keys),
        _ => ("404 Not Found", ""),
    };
    let reply = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    // A client that is gone is the test's own trouble.
    drop(stream.write_all(reply.as_bytes()));
}

/// A GitLab that AWS cannot reach: its keys are published with the shipped policies, AWS reads them there, and a new key is published
/// before the old one goes.
#[test]
fn published_keys_let_aws_take_tokens_of_a_gitlab_that_it_cannot_reach() {
    let Some(desk) = Desk::new() else { return };
    let pages = PublicPages::start(&desk.key.jwks);
    let mut emulator = desk.emulator(&format!("{ISSUER}=s3://{BUCKET}"));
    let export = |emulator: &Emulator, key: &TokenKey| {
        let token = key.token_with(json!({"sub": MAIN, "aud": "sts.amazonaws.com", "user_id": "1", "user_login": "jane", "pipeline_id": "7", "job_id": "8"}));
        let words = ["credentials", "export", "--environment", "production", "--endpoint-url", &emulator.endpoint];
        desk.run(&[("SAGEMAKER_ID_TOKEN", &token)], &words)
    };
    let before = export(&emulator, &desk.key);
    assert!(
        before.stderr.contains("Couldn't retrieve verification key") && before.stderr.contains("publish-issuer"),
        "{}",
        before.stderr
    );

    emulator.call_driver_as("role/publisher");
    let credentials = emulator.environment();
    let publish = |words: &[&str]| {
        let issuer = format!("https://{ISSUER}");
        let bucket = format!("s3://{BUCKET}");
        let mut variables: Vec<_> = credentials.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        variables.extend([
            ("CI_SERVER_URL", pages.url.as_str()),
            ("AWS_REGION", REGION),
            ("AWS_ENDPOINT_URL", &emulator.endpoint),
        ]);
        let fixed = ["credentials", "publish-issuer", "--bucket", &bucket, "--issuer-url", &issuer];
        desk.run(&variables, &[&fixed, words].concat())
    };
    let first = publish(&[]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    // Nobody may read them yet.
    assert_eq!(export(&emulator, &desk.key).code, 2);
    let readers = READERS.replace("arn:aws:", "arn:aws-us-gov:").replace("example-issuer", BUCKET);
    emulator.put_bucket_policy(&serde_json::from_str(&readers).unwrap());
    let taken = export(&emulator, &desk.key);
    assert_eq!(taken.code, 0, "{}", taken.stderr);
    let again = publish(&[]);
    assert!(again.stdout.contains("nothing has changed"), "{}{}", again.stdout, again.stderr);

    // GitLab gets another key: AWS takes tokens of both, and after the time those of the new one alone.
    let elsewhere = tempfile::tempdir().unwrap();
    let next = TokenKey::named(elsewhere.path(), "two");
    *pages.keys.lock().unwrap() = std::fs::read_to_string(&next.jwks).unwrap();
    assert_eq!(export(&emulator, &next).code, 2);
    let rotated = publish(&[]);
    assert_eq!(rotated.code, 0, "{}", rotated.stderr);
    assert_eq!((export(&emulator, &next).code, export(&emulator, &desk.key).code), (0, 0), "{}", rotated.stdout);
    assert_eq!(publish(&["--keep", "0s"]).code, 0);
    assert_eq!((export(&emulator, &next).code, export(&emulator, &desk.key).code), (0, 2));
    let decided = emulator.decided_of(&role("publisher"));
    assert_eq!(decided["denied"], json!({}), "{decided}");
    let policy = of_test_account(PUBLISH);
    let granted = policy["Statement"].as_array().unwrap().iter().flat_map(|one| match &one["Action"] {
        Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    });
    for action in granted.filter(|action| action != "s3:ListBucket") {
        assert!(decided["allowed"][action.as_str().unwrap()].is_number(), "{action} is not used: {decided}");
    }
}
