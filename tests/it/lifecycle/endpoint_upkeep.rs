//! `endpoint status`, `rollback` and `delete`: on an endpoint that two deployments made, as users of GitLab, under the shipped policies.

use std::path::Path;

use serde_json::{Value, json};

use super::{Ended, run};
use crate::conformance::{can_run_containers, skipped};
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::id_tokens::{self, TokenKey};
use crate::support::serving::{serving_image, serving_role};
use crate::support::shipped_roles::shipped_role;
use crate::support::waiting::find_program;

const STATUS: &str = include_str!("../../../runner-config/iam/lifecycle/endpoint-status.json");
const ROLLBACK: &str = include_str!("../../../runner-config/iam/lifecycle/endpoint-rollback.json");
const DELETE: &str = include_str!("../../../runner-config/iam/lifecycle/endpoint-delete.json");
/// Answers with what the model's file says.
const HANDLER: &str = r#"
from pathlib import Path

def model_fn(folder):
    return (Path(folder) / "model.txt").read_text()

def input_fn(body, content_type):
    return body

def predict_fn(request, model):
    return model

def output_fn(prediction):
    return prediction.encode(), "text/plain"
"#;

struct UpkeepDesk {
    /// Ends before its folder goes.
    emulator: Emulator,
    folder: tempfile::TempDir,
    key: TokenKey,
}

/// Roles with the shipped policies, for the account and the bucket of the emulator.
fn account() -> String {
    let roles = [("status", STATUS), ("rollback", ROLLBACK), ("delete", DELETE)].map(shipped_role);
    let roles = [&roles[..], &[serving_role("serving")]].concat();
    json!({ "RoleDetailList": roles }).to_string()
}

impl UpkeepDesk {
    fn new(python: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let key = TokenKey::new(folder.path());
        std::fs::write(file("account.json"), account()).unwrap();
        let digest = "0123456789abcdef".repeat(4);
        let name = format!("000000000000.dkr.ecr.us-east-1.amazonaws.com/serve@sha256:{digest}");
        let args = [
            ("--image", serving_image(&file("image"), &name, python, HANDLER)),
            ("--ecr", format!("serve@sha256:{digest}=linux/amd64")),
            ("--iam", file("account.json").display().to_string()),
            ("--oidc", format!("{}={}", id_tokens::ISSUER, key.jwks.display())),
            ("--quota", "endpoint:ml.m5.large=4".to_owned()),
            ("--deployment-wait-scale", "0.01".to_owned()),
        ];
        let args: Vec<String> = args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let manifest = json!({
            "model": {"group": "wine", "image": name, "content_types": ["text/plain"]},
            "endpoint": {
                "name": "wine",
                "instances": {"type": "ml.m5.large"},
                "autoscaling": {"min": 1, "max": 2, "target": 70},
                "alarms": {"errors_5xx": 5},
                "test": {"samples": ["samples.json"]},
            },
            "environments": {"dev": {
                "region": "us-east-1", "account": "000000000000", "bucket": BUCKET,
                "role": "arn:aws:iam::000000000000:role/serving",
            }},
        });
        std::fs::write(file("manifest.json"), manifest.to_string()).unwrap();
        let samples = json!([{"body": "x", "expect": {"contains": "model"}}]);
        std::fs::write(file("samples.json"), samples.to_string()).unwrap();
        std::fs::create_dir(file("model")).unwrap();
        Self { emulator: Emulator::start(&file("data"), &args), folder, key }
    }

    fn run(&self, variables: &[(String, String)], words: &[&str]) -> Ended {
        let own = [("CI_ENVIRONMENT_NAME", "dev"), ("CI_PROJECT_PATH", "group/project"), ("CI_PIPELINE_ID", "7")];
        let variables = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(own);
        let words = [words, &["--endpoint-url", &self.emulator.endpoint]].concat();
        run(self.folder.path(), &variables.collect::<Vec<_>>(), &words)
    }

    /// Runs `endpoint` as a user whose token is exchanged for the role with the command's name.
    fn endpoint(&self, words: &[&str]) -> Ended {
        let role = format!("arn:aws:iam::000000000000:role/{}", words[0]);
        let variables = [("AWS_ROLE_ARN", role), ("SAGEMAKER_ID_TOKEN", self.key.token("2"))];
        self.run(&variables.map(|(name, value)| (name.to_owned(), value)), &[&["endpoint"], words].concat())
    }

    /// Registers a model, and deploys it.
    fn deploy(&self, model: &str) {
        std::fs::write(self.folder.path().join("model/model.txt"), model).unwrap();
        for words in [&["model", "register"][..], &["endpoint", "deploy"]] {
            let ended = self.run(&self.emulator.of_administrator(), words);
            assert_eq!(ended.code, 0, "{words:?}: {}{}", ended.stdout, ended.stderr);
        }
    }

    fn answer(&self) -> (u16, String) {
        self.emulator.invoke("wine", "text/plain", "x")
    }

    /// How many things an operation lists.
    fn count(&self, operation: &str, list: &str) -> usize {
        self.emulator.call(&format!("SageMaker.{operation}"), &json!({}))[list].as_array().unwrap().len()
    }
}

#[test]
fn an_endpoint_is_watched_brought_back_and_deleted() {
    let (Some(python), true) = (find_program("python3"), can_run_containers()) else {
        return skipped(
            "the upkeep of an endpoint",
            "bubblewrap cannot create a container here, or there is no python3",
        );
    };
    if find_program(id_tokens::NEEDS).is_none() {
        return skipped("the upkeep of an endpoint", "openssl is not installed");
    }
    let desk = UpkeepDesk::new(&python);
    let absent = desk.endpoint(&["status"]);
    assert_eq!(absent.code, 10, "{}", absent.stderr);
    desk.deploy("model one");
    desk.deploy("model two");
    let healthy = desk.endpoint(&["status"]);
    assert_eq!(healthy.code, 0, "{}{}", healthy.stdout, healthy.stderr);
    assert!(healthy.stdout.starts_with("wine of dev: healthy\n"), "{}", healthy.stdout);

    let back = desk.endpoint(&["rollback", "--reason", "drifts", "--reject", "--dotenv", "back.env"]);
    assert_eq!((back.code, desk.answer()), (0, (200, "model one".to_owned())), "{}{}", back.stdout, back.stderr);
    let variables = std::fs::read_to_string(desk.folder.path().join("back.env")).unwrap();
    assert!(
        variables.starts_with("DEPLOYMENT_NUMBER=3\n") && variables.contains("model-package/wine/1\n"),
        "{variables}"
    );
    let again = desk.endpoint(&["rollback", "--reason", "drifts", "--reject"]);
    assert!(again.code == 0 && again.stdout.starts_with("wine: unchanged\n"), "{}{}", again.stdout, again.stderr);
    let rejected = json!({"ModelPackageName": "arn:aws:sagemaker:us-east-1:000000000000:model-package/wine/2"});
    let rejected = desk.emulator.call("SageMaker.DescribeModelPackage", &rejected);
    assert_eq!(rejected["ModelApprovalStatus"], "Rejected", "{rejected}");
    let forth = desk.endpoint(&["rollback", "--to", "2", "--reason", "no"]);
    assert_eq!(forth.code, 30, "{}{}", forth.stdout, forth.stderr);

    let status = desk.endpoint(&["status", "--output", "json"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let status = &status["endpoints"][0];
    let newest = &status["deployments"][0];
    assert_eq!(
        (&status["is_healthy"], &newest["kind"], &newest["user"]),
        (&json!(true), &json!("rollback"), &json!("user2"))
    );

    let deleted = desk.endpoint(&["delete", "--reason", "no longer used"]);
    assert_eq!(deleted.code, 0, "{}{}", deleted.stdout, deleted.stderr);
    let lists = [("ListEndpoints", "Endpoints"), ("ListEndpointConfigs", "EndpointConfigs"), ("ListModels", "Models")];
    assert_eq!(lists.map(|(operation, list)| desk.count(operation, list)), [0, 0, 0], "{}", deleted.stdout);
    let gone = desk.endpoint(&["delete"]);
    assert_eq!((gone.code, gone.stdout.as_str()), (0, "wine: already gone\n"), "{}", gone.stderr);
    assert_eq!(desk.emulator.objects().iter().filter(|key| key.contains("deployments/wine/")).count(), 8);
    for role in ["status", "rollback", "delete"] {
        assert_eq!(desk.emulator.decided(role)["denied"], json!({}), "{role}");
    }
}
