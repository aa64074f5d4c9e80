//! The path of a model of scikit-learn: trained in a training job, registered, approved, deployed and asked by clients of others; and
//! of its broken successors, which are rolled back while the old one answers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Ended, run};
use crate::conformance::{can_run_containers, clients, skipped};
use crate::scenarios::sagemaker_registered::{train, with_scikit_learn};
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::id_tokens::{self, TokenKey};
use crate::support::serving::{serving_image, serving_role};
use crate::support::shipped_roles::shipped_role;
use crate::support::waiting::{find_program, pause, poll};

const HANDLER: &str = include_str!("../../../docs/examples/inference_handler.py");
/// Breaks the example's handler as a variable of the model says.
const FAULTS: &str = r#"

import os
import time

answer = predict_fn

def predict_fn(rows, model):
    fault = os.environ.get("FAULT")
    if fault == "error":
        raise RuntimeError("out of order")
    if fault == "slow":
        time.sleep(2)
    return answer([row[::-1] for row in rows] if fault == "wrong" else rows, model)
"#;
/// A wine of each kind, as the model must tell them.
const SAMPLES: &str = r#"
from sklearn.datasets import load_wine
features, wines = load_wine(return_X_y=True)
rows = [",".join(map(str, features[at])) + "," + str(wines[at]) for at in (0, 70, 150)]
open("samples.csv", "w").write("\n".join([",".join("x%d" % at for at in range(13)) + ",expect:$.predictions[0]", *rows]) + "\n")
open("row.csv", "w").write(rows[0].rpartition(",")[0])
"#;
const BOTO3: &str = r#"
import boto3, json
answer = boto3.client("sagemaker-runtime").invoke_endpoint(EndpointName="wine", ContentType="text/csv", Body=open("row.csv").read())
assert json.loads(answer["Body"].read())["predictions"] == [0], answer
"#;
/// Policies of the roles.
const POLICIES: [(&str, &str); 4] = [
    ("register", include_str!("../../../runner-config/iam/lifecycle/model-register.json")),
    ("approve", include_str!("../../../runner-config/iam/lifecycle/model-approve.json")),
    ("deploy", include_str!("../../../runner-config/iam/lifecycle/endpoint-deploy.json")),
    ("test", include_str!("../../../runner-config/iam/lifecycle/endpoint-test.json")),
];
/// The role of the containers, as the policies name it.
const SERVING: &str = "example-serving";
/// Clients at once.
const CLIENTS: usize = 20;
/// Pause of a client between two requests.
const THINKS: Duration = Duration::from_millis(100);

/// The account with the shipped policies. The containers may do nothing but read the model.
fn account() -> Value {
    let roles = [&POLICIES.map(shipped_role)[..], &[serving_role(SERVING)]].concat();
    json!({ "RoleDetailList": roles })
}

struct Flow {
    /// Ends before its folder goes.
    emulator: Emulator,
    folder: tempfile::TempDir,
    key: TokenKey,
    row: String,
}

/// Answers that clients got.
#[derive(Debug, Default)]
struct Answers {
    good: usize,
    failed: usize,
}

impl Flow {
    /// A project with a trained model, and an emulator that can serve it.
    fn new(python: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        train(python, folder.path());
        let written = Command::new(python).args(["-c", SAMPLES]).current_dir(folder.path()).status().unwrap();
        assert!(written.success());
        let digest = "0123456789abcdef".repeat(4);
        let name = format!("000000000000.dkr.ecr.us-east-1.amazonaws.com/serve@sha256:{digest}");
        let image = serving_image(&file("image"), &name, python, &format!("{HANDLER}{FAULTS}"));
        let key = TokenKey::new(folder.path());
        std::fs::write(file("account.json"), account().to_string()).unwrap();
        let args = [
            ("--iam", file("account.json").display().to_string()),
            ("--image", image),
            ("--ecr", format!("serve@sha256:{digest}=linux/amd64")),
            ("--oidc", format!("{}={}", id_tokens::ISSUER, key.jwks.display())),
            ("--quota", "endpoint:ml.m5.large=4".to_owned()),
            ("--deployment-wait-scale", "0.01".to_owned()),
            ("--alarm-period-scale", "0.01".to_owned()),
        ];
        let args: Vec<String> = args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let emulator = Emulator::start(&file("data"), &args);
        let row = std::fs::read_to_string(file("row.csv")).unwrap();
        Self { emulator, folder, key, row }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the manifest of a model whose container has this fault.
    fn write_manifest(&self, fault: &str) {
        let image =
            format!("000000000000.dkr.ecr.us-east-1.amazonaws.com/serve@sha256:{}", "0123456789abcdef".repeat(4));
        let manifest = json!({
            "model": {
                "group": "wine",
                "image": image,
                "content_types": ["text/csv"],
                "metrics": ["metrics.json"],
                "require": ["accuracy>=0.8", "f1>=0.7"],
                "environment": {"FAULT": fault},
            },
            "endpoint": {
                "name": "wine",
                "instances": {"type": "ml.m5.large", "count": 2},
                "deployment": {"strategy": "canary", "step_percent": 50, "wait_seconds": 500, "timeout_seconds": 3600},
                "alarms": {"errors_5xx": 1, "latency_p95_ms": 1500},
                "test": {"samples": ["samples.csv"]},
            },
            "environments": {"prod": {
                "region": "us-east-1", "account": "000000000000", "bucket": BUCKET,
                "role": format!("arn:aws:iam::000000000000:role/{SERVING}"),
            }},
        });
        std::fs::write(self.path().join("manifest.json"), manifest.to_string()).unwrap();
    }

    /// Runs a command in the name of a user, whose token is exchanged for the role.
    fn command(&self, role: &str, user: &str, words: &[&str]) -> Ended {
        let (token, role) = (self.key.token(user), format!("arn:aws:iam::000000000000:role/{role}"));
        let variables = [
            ("CI_ENVIRONMENT_NAME", "prod"),
            ("CI_PROJECT_PATH", "group/project"),
            ("CI_PIPELINE_ID", "7"),
            ("SAGEMAKER_ID_TOKEN", token.as_str()),
            ("AWS_ROLE_ARN", role.as_str()),
        ];
        run(self.path(), &variables, &[words, &["--endpoint-url", &self.emulator.endpoint]].concat())
    }

    /// Registers, approves and deploys the model with this fault: the exit code of the deployment, and all that it printed.
    fn deploy(&self, fault: &str) -> (i32, String) {
        self.write_manifest(fault);
        let registered = self.command("register", "1", &["model", "register"]);
        assert_eq!(registered.code, 0, "{}", registered.stderr);
        let approved = self.command("approve", "2", &["model", "approve", "--latest"]);
        assert_eq!(approved.code, 0, "{}", approved.stderr);
        // The alarm that took an earlier deployment back is on for a while.
        let deployed = || Some(self.command("deploy", "2", &["endpoint", "deploy"])).filter(|ended| ended.code != 30);
        let ended = poll(Duration::from_mins(2), deployed).expect("an alarm stays on");
        (ended.code, format!("{}{}", ended.stdout, ended.stderr))
    }

    /// Deploys while clients ask.
    fn deploy_under_load(&self, fault: &str) -> (i32, String, Answers) {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let ask = || {
                let mut answers = Answers::default();
                while !over.load(Ordering::Relaxed) {
                    let (status, body) = self.emulator.invoke("wine", "text/csv", &self.row);
                    let is_good = status == 200 && body.contains("\"predictions\"");
                    if is_good {
                        answers.good += 1;
                    } else {
                        answers.failed += 1;
                    }
                    pause(THINKS);
                }
                answers
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
            let (code, printed) = self.deploy(fault);
            over.store(true, Ordering::Relaxed);
            let answers = clients.into_iter().map(|client| client.join().unwrap());
            let sum = answers.fold(Answers::default(), |sum, one| Answers {
                good: sum.good + one.good,
                failed: sum.failed + one.failed,
            });
            (code, printed, sum)
        })
    }

    /// The configuration in service.
    fn serves(&self) -> Value {
        let mut endpoint = self.emulator.call("SageMaker.DescribeEndpoint", &json!({"EndpointName": "wine"}));
        assert_eq!(endpoint["EndpointStatus"], "InService", "{endpoint}");
        endpoint["EndpointConfigName"].take()
    }

    /// Runs a client of others, with the address and credentials of the emulator.
    fn client(&self, program: PathBuf, arguments: &[&str]) {
        let mut client = Command::new(program);
        client.args(arguments).current_dir(self.path()).env_clear().env("HOME", self.path());
        client.env("PATH", "/usr/bin:/bin").envs(self.emulator.of_administrator());
        client.env("AWS_ENDPOINT_URL", &self.emulator.endpoint).env("AWS_DEFAULT_REGION", "us-east-1");
        let output = client.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_trained_model_goes_live_and_its_broken_successors_come_back() {
    let (Some(python), true) = (with_scikit_learn(), can_run_containers()) else {
        return skipped(
            "a served model of scikit-learn",
            "python3 has no scikit-learn, or bubblewrap creates no container",
        );
    };
    let (Some(clients), Some(_)) = (clients(), find_program(id_tokens::NEEDS)) else {
        return skipped("a served model of scikit-learn", "boto3 and the AWS CLI, or openssl, are not there");
    };
    let flow = Flow::new(&python);
    let (code, printed) = flow.deploy("");
    assert_eq!(code, 0, "{printed}");
    flow.client(clients.join("python3"), &["-c", BOTO3]);
    let invoke = ["sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "wine", "--content-type", "text/csv"];
    flow.client(clients.join("aws"), &[&invoke[..], &["--body", "fileb://row.csv", "answer.json"]].concat());
    let answer = std::fs::read_to_string(flow.path().join("answer.json")).unwrap();
    assert!(answer.starts_with("{\"predictions\": [0]"), "{answer}");

    let first = flow.serves();
    let (code, printed, answers) = flow.deploy_under_load("none");
    assert_eq!((code, answers.failed), (0, 0), "{printed}\n{answers:?}");
    let good = flow.serves();
    assert_ne!(good, first);
    for (fault, expected, most_failed) in [("error", 20, 0.5), ("slow", 20, 0.0), ("wrong", 21, 0.0)] {
        let (code, printed, answers) = flow.deploy_under_load(fault);
        assert_eq!((code, flow.serves()), (expected, good.clone()), "{fault}: {printed}");
        assert!(answers.good >= CLIENTS, "{fault}: {answers:?}");
        #[expect(clippy::cast_precision_loss, reason = "a few thousand requests")]
        let share = answers.failed as f64 / (answers.good + answers.failed) as f64;
        assert!(share <= most_failed, "{fault}: {answers:?}\n{printed}");
    }
    let tested = flow.command("test", "2", &["endpoint", "test"]);
    assert_eq!(tested.code, 0, "{}{}", tested.stdout, tested.stderr);
    for (role, _) in POLICIES {
        assert_eq!(flow.emulator.decided(role)["denied"], json!({}), "{role}");
    }
}
