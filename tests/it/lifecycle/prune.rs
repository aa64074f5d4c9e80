//! `prune` on what three deployments, candidates and others left: a dry run, a run, and one that has nothing to do, under the shipped policy.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Ended, run};
use crate::conformance::{can_run_containers, skipped};
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::gitlab_api::{GitLabDouble, JOB_TOKEN};
use crate::support::id_tokens::{self, TokenKey};
use crate::support::images::{REGISTRY, images, push_empty};
use crate::support::serving::{serving_image, serving_role};
use crate::support::shipped_roles::shipped_role;
use crate::support::waiting::{find_program, poll};

const PRUNE: &str = include_str!("../../../runner-config/iam/lifecycle/prune.json");
const CANDIDATE: &str = "candidate-PR-1-01234567-20261129T045233Z";
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

/// The role of the jobs that clean up.
pub(crate) const ROLE: &str = "prune";

pub(crate) struct PruneDesk {
    /// Ends before its folder goes.
    pub(crate) emulator: Emulator,
    gitlab: GitLabDouble,
    folder: tempfile::TempDir,
    key: TokenKey,
    /// Of the model, with its digest.
    pub(crate) image: String,
}

impl PruneDesk {
    /// A desk whose jobs have the policy of `prune` alone; `None`, and a line that says what is missing, where the machine lacks something.
    fn new(test: &str) -> Option<Self> {
        let policy = PRUNE.replace("example-group", "wine").replace("example-environment", "dev");
        let policy = policy.replace("example-prefix", "team").replace("example-image", "serve");
        Self::with_role(test, &shipped_role((ROLE, &policy)))
    }

    /// As [`PruneDesk::new`], with another [`ROLE`].
    pub(crate) fn with_role(test: &str, role: &Value) -> Option<Self> {
        let (Some(python), true) = (find_program("python3"), can_run_containers()) else {
            skipped(test, "bubblewrap cannot create a container here, or there is no python3");
            return None;
        };
        if find_program(id_tokens::NEEDS).is_none() {
            skipped(test, "openssl is not installed");
            return None;
        }
        Some(Self::start(&python, role))
    }

    fn start(python: &Path, role: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let key = TokenKey::new(folder.path());
        let mut training = serving_role("training");
        training["RolePolicyList"][0]["PolicyDocument"]["Statement"] =
            json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
        let account = json!({"RoleDetailList": [role, serving_role("serving"), training]});
        // The environment's prefix is before the models too.
        let account = account.to_string().replace(&format!("{BUCKET}/models/"), &format!("{BUCKET}/team/models/"));
        std::fs::write(file("account.json"), account).unwrap();
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
            "image": {"repository": "serve"},
            "endpoint": {"name": "wine", "instances": {"type": "ml.m5.large"}, "alarms": {"errors_5xx": 5}},
            "environments": {"dev": {
                "region": "us-east-1", "account": "000000000000", "bucket": BUCKET, "prefix": "team",
                "role": "arn:aws:iam::000000000000:role/serving",
            }},
        });
        std::fs::write(file("manifest.json"), manifest.to_string()).unwrap();
        std::fs::create_dir(file("model")).unwrap();
        let emulator = Emulator::start(&file("data"), &args);
        Self { emulator, gitlab: GitLabDouble::start(), folder, key, image: name }
    }

    fn run(&self, variables: &[(&str, String)], words: &[&str]) -> Ended {
        let own = [("CI_ENVIRONMENT_NAME", "dev"), ("CI_PROJECT_PATH", "group/project"), ("CI_PIPELINE_ID", "7")];
        let variables = variables.iter().map(|(name, value)| (*name, value.as_str())).chain(own);
        let words = [words, &["--endpoint-url", &self.emulator.endpoint]].concat();
        run(self.folder.path(), &variables.collect::<Vec<_>>(), &words)
    }

    /// Registers a model, and deploys it.
    fn deploy(&self, model: &str) {
        self.write_model(model);
        let administrator = self.emulator.of_administrator();
        let administrator: Vec<_> = administrator.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        for words in [&["model", "register"][..], &["endpoint", "deploy"]] {
            let ended = self.run(&administrator, words);
            assert_eq!(ended.code, 0, "{words:?}: {}{}", ended.stdout, ended.stderr);
        }
    }

    /// Runs a command with [`ROLE`] in a job of a pipeline of this source.
    #[track_caller]
    pub(crate) fn run_with_role(&self, source: &str, words: &[&str]) {
        let [api, project] = self.gitlab.variables();
        let variables = [
            ("AWS_ROLE_ARN", format!("arn:aws:iam::000000000000:role/{ROLE}")),
            ("SAGEMAKER_ID_TOKEN", self.key.token("2")),
            ("CI_JOB_TOKEN", JOB_TOKEN.to_owned()),
            ("CI_PIPELINE_SOURCE", source.to_owned()),
            api,
            project,
        ];
        let ended = self.run(&variables, words);
        assert_eq!(ended.code, 0, "{words:?}: {}{}", ended.stdout, ended.stderr);
    }

    /// Writes the model's file.
    pub(crate) fn write_model(&self, model: &str) {
        std::fs::write(self.folder.path().join("model/model.txt"), model).unwrap();
    }

    /// Runs `prune` in a job of a pipeline of this source, and returns its result.
    #[track_caller]
    pub(crate) fn prune(&self, source: &str, words: &[&str]) -> Value {
        let limits = ["prune", "--retention-days", "0", "--keep", "1", "--report", "prune.json"];
        self.run_with_role(source, &[&limits[..], words].concat());
        let report = std::fs::read_to_string(self.folder.path().join("prune.json")).unwrap();
        serde_json::from_str(&report).unwrap()
    }

    /// Begins a training job that runs as long as the row.
    fn train(&self) {
        let job = json!({
            "TrainingJobName": "other",
            "AlgorithmSpecification": {
                "TrainingImage": self.image, "TrainingInputMode": "File", "ContainerEntrypoint": ["sleep", "600"],
            },
            "RoleArn": "arn:aws:iam::000000000000:role/training",
            "OutputDataConfig": {"S3OutputPath": format!("s3://{BUCKET}/output")},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        });
        self.emulator.call("SageMaker.CreateTrainingJob", &job);
    }

    /// Makes an endpoint of the project whose container cannot start. It gets no scalable target: AWS takes none for such an endpoint, and a
    /// target that is absent is deregistered all the same.
    fn break_endpoint(&self) {
        let tags = [("endpoint", "wine-old"), ("project", "group/project"), ("environment", "dev")];
        let tags: Vec<_> = tags
            .iter()
            .map(|(key, value)| json!({"Key": format!("sagemaker-executor:{key}"), "Value": value}))
            .collect();
        let (model, config) = ("wine-old-m-0123456789ab", "wine-old-0123456789ab");
        let absent = format!("{REGISTRY}/serve:absent");
        let role = "arn:aws:iam::000000000000:role/serving";
        let call = |operation: &str, body: Value| self.emulator.call(&format!("SageMaker.{operation}"), &body);
        call(
            "CreateModel",
            json!({"ModelName": model, "ExecutionRoleArn": role, "PrimaryContainer": {"Image": absent}, "Tags": tags}),
        );
        let variant = json!({
            "VariantName": "AllTraffic", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1,
        });
        call(
            "CreateEndpointConfig",
            json!({"EndpointConfigName": config, "ProductionVariants": [variant], "Tags": tags}),
        );
        call("CreateEndpoint", json!({"EndpointName": "wine-old", "EndpointConfigName": config, "Tags": tags}));
        let has_failed = poll(Duration::from_mins(1), || {
            let sight = call("DescribeEndpoint", json!({"EndpointName": "wine-old"}));
            (sight["EndpointStatus"] == "Failed").then_some(())
        });
        assert!(has_failed.is_some(), "the endpoint did not fail");
    }

    pub(crate) fn names(&self, operation: &str, list: &str, name: &str) -> Vec<String> {
        let listed = self.emulator.call(&format!("SageMaker.{operation}"), &json!({}));
        let entries = listed[list].as_array().unwrap().iter();
        entries.map(|entry| entry[name].as_str().unwrap().to_owned()).collect()
    }
}

/// Names of what goes, with the kind of each.
pub(crate) fn going(result: &Value, fate: &str) -> Vec<String> {
    let things = result["things"].as_array().unwrap().iter().filter(|thing| thing["fate"] == fate);
    things.map(|thing| format!("{} {}", thing["kind"].as_str().unwrap(), thing["name"].as_str().unwrap())).collect()
}

#[test]
fn what_nothing_refers_to_goes_once_and_the_endpoint_goes_on() {
    let Some(desk) = PruneDesk::new("prune") else { return };
    for model in ["model one", "model two", "model three"] {
        desk.deploy(model);
    }
    desk.gitlab.file("wine", CANDIDATE, &format!("{CANDIDATE}.zip"), b"x");
    desk.gitlab.file("wine", "stable-20261129T045233Z", "stable-20261129T045233Z.zip", b"x");
    // Another's, whose name has the form of this program's.
    let foreign = json!({
        "ModelName": "other-m-0123456789ab", "ExecutionRoleArn": "arn:aws:iam::000000000000:role/serving",
        "PrimaryContainer": {"Image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/serve:1"},
    });
    desk.emulator.call("SageMaker.CreateModel", &foreign);
    assert_eq!(desk.names("ListModels", "Models", "ModelName").len(), 4);
    desk.break_endpoint();
    desk.train();
    let built = [1, 2].map(|number| push_empty(&desk.emulator, "serve", &format!("context-{number:040x}")));
    desk.emulator.put_object("team/candidate/report.txt", b"x");

    let shown = desk.prune("merge_request_event", &[]);
    assert_eq!((&shown["dry_run"], &shown["deleted"]), (&json!(true), &json!(0)), "{shown}");
    let ended = desk.prune("schedule", &[]);
    assert_eq!((&ended["dry_run"], &ended["failed"]), (&json!(false), &json!(0)), "{ended}");
    let gone = going(&ended, "deleted");
    assert_eq!(gone, going(&shown, "would_be_deleted"), "{ended}");
    let kinds: Vec<_> = gone.iter().map(|thing| thing.split(' ').next().unwrap()).collect();
    let expected = [
        "endpoint",
        "configuration",
        "configuration",
        "model",
        "model",
        "version",
        "image",
        "generic_package",
        "object",
    ];
    assert_eq!(kinds, expected, "{gone:?}");
    assert!(gone.iter().any(|thing| thing.ends_with(":model-package/wine/1")), "{gone:?}");
    assert_eq!(desk.names("ListEndpoints", "Endpoints", "EndpointName"), ["wine"]);
    // One of both is the newest.
    let left = images(&desk.emulator, "serve");
    let there: Vec<_> = built.iter().filter(|digest| left.iter().any(|image| image.starts_with(*digest))).collect();
    assert_eq!(there.len(), 1, "{left:?}");
    assert_eq!(desk.emulator.get_object("team/candidate/report.txt"), None);
    assert_eq!(desk.names("ListEndpointConfigs", "EndpointConfigs", "EndpointConfigName").len(), 2);
    let models = desk.names("ListModels", "Models", "ModelName");
    assert!(models.len() == 3 && models.contains(&"other-m-0123456789ab".to_owned()), "{models:?}");
    let files: Vec<_> = desk.gitlab.files().into_iter().map(|file| file.name).collect();
    assert_eq!(files, ["stable-20261129T045233Z.zip"]);
    assert_eq!(desk.emulator.invoke("wine", "text/plain", "x"), (200, "model three".to_owned()));

    let again = desk.prune("schedule", &[]);
    assert_eq!((&again["deleted"], &again["failed"]), (&json!(0), &json!(0)), "{again}");
    let decided = desk.emulator.decided(ROLE);
    assert_eq!(decided["denied"], json!({}));
    for action in [
        "application-autoscaling:DeregisterScalableTarget",
        "ecr:BatchDeleteImage",
        "s3:DeleteObject",
        "sagemaker:DescribeTrainingJob",
    ] {
        assert!(decided["allowed"][action].as_u64().unwrap_or_default() > 0, "{action}: {decided}");
    }
}
