//! `endpoint deploy` against the emulator, whose containers really serve, under the shipped policy.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Ended, run};
use crate::conformance::{can_run_containers, skipped};
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::id_tokens::{self, TokenKey};
use crate::support::serving::serving_role;
use crate::support::shipped_roles::shipped_role;
use crate::support::waiting::find_program;

const DEPLOY: &str = include_str!("../../../runner-config/iam/lifecycle/endpoint-deploy.json");

/// Answers every request as a variable of its version says.
pub(super) const SERVE: &str = r#"
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b"")
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(os.environ["ANSWER"].encode())
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"#;

/// A project, and an account that serves its model.
struct Desk {
    /// Ends before its folder goes.
    emulator: Emulator,
    folder: tempfile::TempDir,
    key: TokenKey,
}

/// The account's role with the shipped policy.
fn account() -> String {
    json!({"RoleDetailList": [shipped_role(("deploy", DEPLOY)), serving_role("example-serving")]}).to_string()
}

impl Desk {
    /// `None` where no container runs, or nobody signs tokens.
    fn new() -> Option<Self> {
        let python = find_program("python3").filter(|_| can_run_containers());
        let Some(python) = python.filter(|_| find_program(id_tokens::NEEDS).is_some()) else {
            skipped("endpoint deploy", "bubblewrap cannot create a container here, or there is no python3 or openssl");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let programs = file("image/usr/local/bin");
        std::fs::create_dir_all(&programs).unwrap();
        std::fs::write(programs.join("serve"), format!("#!{}\n{SERVE}", python.display())).unwrap();
        std::fs::set_permissions(programs.join("serve"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(file("account.json"), account()).unwrap();
        std::fs::create_dir(file("model")).unwrap();
        std::fs::write(file("model/model.json"), "{}").unwrap();
        let sample = json!([{"content_type": "text/plain", "body": "x", "expect": {"contains": "good"}}]);
        std::fs::write(file("samples.json"), sample.to_string()).unwrap();
        let key = TokenKey::new(folder.path());
        let args = [
            ("--image", format!("{}=overlay:{}", image(), file("image").display())),
            ("--ecr", format!("serve@sha256:{}=linux/amd64", digest())),
            ("--iam", file("account.json").display().to_string()),
            ("--oidc", format!("{}={}", id_tokens::ISSUER, key.jwks.display())),
            ("--quota", "endpoint:ml.m5.large=4".to_owned()),
            ("--deployment-wait-scale", "0.01".to_owned()),
        ];
        let args: Vec<_> = args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        Some(Self { emulator: Emulator::start(&file("data"), &args), folder, key })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Registers a version whose containers answer so.
    fn register(&self, answer: &str) {
        let manifest = json!({
            "model": {"group": "wine", "image": image(), "environment": {"ANSWER": answer}},
            "endpoint": {
                "name": "wine",
                "instances": {"type": "ml.m5.large", "count": 1},
                "deployment": {"wait_seconds": 60},
                "autoscaling": {"min": 1, "max": 2, "target": 100},
                "alarms": {"errors_5xx": 5, "latency_p95_ms": 5000},
                "test": {"samples": ["samples.json"]},
            },
            "environments": {"dev": {
                "region": "us-east-1", "account": "000000000000", "bucket": BUCKET,
                "role": "arn:aws:iam::000000000000:role/example-serving",
            }},
        });
        std::fs::write(self.path().join("manifest.json"), manifest.to_string()).unwrap();
        let mut variables = self.emulator.of_administrator();
        variables.push(("CI_ENVIRONMENT_NAME".to_owned(), "dev".to_owned()));
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let line = ["model", "register", "--endpoint-url", &self.emulator.endpoint];
        let registered = run(self.path(), &variables, &line);
        assert_eq!(registered.code, 0, "{}", registered.stderr);
    }

    fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/deploy".to_owned()),
            ("SAGEMAKER_ID_TOKEN", self.key.token("1")),
            ("CI_ENVIRONMENT_NAME", "dev".to_owned()),
            ("CI_PROJECT_PATH", "group/project".to_owned()),
            ("CI_JOB_TIMEOUT", "3600".to_owned()),
        ]
    }

    fn deploy(&self, words: &[&str]) -> Ended {
        let variables = self.variables();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let line = [&["endpoint", "deploy", "--endpoint-url", &self.emulator.endpoint], words].concat();
        run(self.path(), &variables, &line)
    }

    /// Ends the command as soon as its deployment is in the ledger.
    fn deploy_and_end(&self) -> i32 {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sagemaker-executor"));
        program.args(["endpoint", "deploy", "--endpoint-url", &self.emulator.endpoint]).current_dir(self.path());
        program.env_clear().envs(self.variables()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = program.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with("Deployment 3 of wine")));
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let rest: Vec<_> = lines.collect();
        let status = child.wait().unwrap();
        status.code().unwrap_or_else(|| panic!("{rest:?}"))
    }

    fn serves(&self) -> Value {
        let endpoint = self.emulator.call("SageMaker.DescribeEndpoint", &json!({"EndpointName": "wine"}));
        endpoint["EndpointConfigName"].clone()
    }
}

fn digest() -> String {
    "0123456789abcdef".repeat(4)
}

fn image() -> String {
    format!("000000000000.dkr.ecr.us-east-1.amazonaws.com/serve@sha256:{}", digest())
}

/// A first deployment, the same again, one with wrong answers, and one that is ended in its wait.
#[test]
fn versions_go_live_and_a_wrong_one_comes_back() {
    let Some(desk) = Desk::new() else { return };
    desk.register("good");
    let first = desk.deploy(&["--dotenv", "endpoint.env"]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(first.stdout.starts_with("wine: created\n"), "{}", first.stdout);
    let dotenv = std::fs::read_to_string(desk.path().join("endpoint.env")).unwrap();
    let old = desk.serves();
    assert!(dotenv.contains(&format!("ENDPOINT_CONFIG_NAME={}\n", old.as_str().unwrap())), "{dotenv}");

    let unchanged = desk.deploy(&[]);
    assert!(unchanged.code == 0 && unchanged.stdout.starts_with("wine: unchanged\n"), "{}", unchanged.stderr);

    desk.register("bad");
    let plan = desk.deploy(&["--plan"]);
    assert!(
        plan.code == 0 && plan.stdout.contains("traffic        moves at once and is watched for 1 min"),
        "{}{}",
        plan.stdout,
        plan.stderr
    );
    let wrong = desk.deploy(&[]);
    assert_eq!(wrong.code, 21, "{}", wrong.stderr);
    assert_eq!(desk.serves(), old);

    desk.register("good again");
    assert_eq!(desk.deploy_and_end(), 130);
    let again = desk.deploy(&["--output", "json"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert!(again.stderr.contains("Going on with deployment 3 of wine"), "{}", again.stderr);
    let data: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!((&data["endpoint_config_name"], data["deployment_number"].as_u64()), (&desk.serves(), Some(3)));
    assert_eq!(desk.emulator.decided("deploy")["denied"], json!({}));
}
