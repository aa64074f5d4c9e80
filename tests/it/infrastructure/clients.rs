//! The jobs `deploy-kubernetes` and `deploy-ecs` with doubles of kubectl and the AWS CLI: what they call in which order, and that a client
//! which never becomes healthy is brought back.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use crate::conformance::{shown, skipped};
use crate::templates::examples::has_inputs_that_exist;
use crate::templates::scripts::Bench;

const IMAGE: &str = "000000000000.dkr.ecr.us-east-1.amazonaws.com/api@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const VERSION: &str = "arn:aws:sagemaker:us-east-1:000000000000:model-package/wine/3";

/// Answers by what is asked; the revision goes up with each `resume` or first `apply`.
const KUBECTL: &str = r#"#!/bin/sh
printf 'kubectl' >> "$DOUBLE/calls"; printf ' [%s]' "$@" >> "$DOUBLE/calls"; echo >> "$DOUBLE/calls"
case " $* " in
*" get deployment/"*) cat "$DOUBLE/revision" 2>/dev/null ;;
*" apply "*) [ -s "$DOUBLE/revision" ] || printf 1 > "$DOUBLE/revision" ;;
*" rollout resume "*) [ -n "$UNCHANGED" ] || printf $(($(cat "$DOUBLE/revision") + 1)) > "$DOUBLE/revision" ;;
*" rollout undo "*) rm -f "$DOUBLE/broken" ;;
*" rollout status "*) [ ! -e "$DOUBLE/broken" ] ;;
*" --raw "*) [ ! -e "$DOUBLE/sick" ] ;;
esac
"#;

const AWS: &str = r#"#!/bin/sh
printf 'aws' >> "$DOUBLE/calls"; printf ' [%s]' "$@" >> "$DOUBLE/calls"; echo >> "$DOUBLE/calls"
[ -z "$AWS_WEB_IDENTITY_TOKEN_FILE" ] || cat "$AWS_WEB_IDENTITY_TOKEN_FILE" > "$DOUBLE/token"
case " $* " in
*" describe-services "*) cat "$DOUBLE/service" 2>/dev/null ;;
*" register-task-definition "*) cp "$(printf '%s\n' "$@" | sed -n 's|^file://||p')" "$DOUBLE/registered"; echo task:2 ;;
*" update-service "*) [ -e "$DOUBLE/breaker" ] || { shift; while [ "$1" != --task-definition ]; do shift; done; printf %s "$2" > "$DOUBLE/service"; } ;;
*" wait "*) [ ! -e "$DOUBLE/broken" ] ;;
esac
"#;

struct Client {
    bench: Bench,
}

impl Client {
    fn new(program: &str, text: &str) -> Self {
        let bench = Bench::new(&[]);
        bench.program(program, text);
        for tool in ["cat", "grep", "sed", "cp"] {
            bench.of_the_system(tool);
        }
        Self { bench }
    }

    fn set(&self, name: &str, text: &str) -> &Self {
        std::fs::write(self.bench.path(name), text).unwrap();
        self
    }

    fn run(&self, component: &str, more: &[(&str, &str)]) -> Output {
        let inputs = match component {
            "deploy-kubernetes" => {
                json!({"environment": "e", "tier": "staging", "namespace": "ml", "deployment": "api", "container": "web", "health": "api:80/health"})
            }
            _ => json!({"environment": "e", "tier": "staging", "cluster": "ml", "service": "api"}),
        };
        let double = self.bench.path("");
        let mut variables = BTreeMap::from([
            ("IMAGE_URI", IMAGE),
            ("MODEL_PACKAGE_ARN", VERSION),
            ("MODEL_DATA_URL", "s3://models/m.tar.gz"),
            ("DOUBLE", double.to_str().unwrap()),
        ]);
        variables.extend(more.iter().copied());
        self.bench.run_component(component, &inputs, &variables)
    }

    fn calls(&self) -> String {
        self.bench.calls()
    }
}

#[track_caller]
fn assert_refused(ended: &Output, words: &[&str]) {
    assert_eq!(ended.status.code(), Some(1), "{}", shown(ended));
    let said = String::from_utf8_lossy(&ended.stderr);
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn a_client_on_kubernetes_is_deployed_in_one_rollout() {
    let client = Client::new("kubectl", KUBECTL);
    let ended = client.set("revision", "4").run("deploy-kubernetes", &[("KUBERNETES_CONTEXT", "ml/agents:prod")]);
    assert!(ended.status.success(), "{}", shown(&ended));
    let calls = client.calls();
    assert!(
        calls.lines().all(|line| line.starts_with("kubectl [--context] [ml/agents:prod] [--namespace] [ml] ")),
        "{calls}"
    );
    let places: Vec<_> = [
        "[rollout] [pause] [deployment/api]",
        "[apply] [--filename] [kubernetes]",
        &format!("[set] [image] [deployment/api] [web={IMAGE}]"),
        &format!("[MODEL_PACKAGE_ARN={VERSION}] [MODEL_DATA_URL=s3://models/m.tar.gz]"),
        "[rollout] [resume] [deployment/api]",
        "[rollout] [status] [deployment/api] [--timeout] [300s]",
        "[get] [--raw] [/api/v1/namespaces/ml/services/api:80/proxy/health]",
    ]
    .iter()
    .map(|call| calls.find(call).unwrap_or_else(|| panic!("{call}\n{calls}")))
    .collect();
    assert!(places.is_sorted() && !calls.contains("undo"), "{calls}");
}

#[test]
fn a_client_that_is_not_healthy_is_brought_back() {
    for (fault, word) in [("broken", "rollout_timeout"), ("sick", "input health")] {
        let client = Client::new("kubectl", KUBECTL);
        let ended = client.set("revision", "4").set(fault, "").run("deploy-kubernetes", &[]);
        assert_refused(&ended, &[word, "Revision 4 of api is back"]);
        assert!(client.calls().contains("[rollout] [undo] [deployment/api] [--to-revision] [4]"), "{}", client.calls());
    }
    // A deployment that changed nothing, or is the first one, has nothing to go back to.
    for (revision, unchanged, word) in [("4", "yes", "not changed"), ("", "", "no earlier revision")] {
        let client = Client::new("kubectl", KUBECTL);
        let ended =
            client.set("revision", revision).set("sick", "").run("deploy-kubernetes", &[("UNCHANGED", unchanged)]);
        assert_refused(&ended, &[word]);
        assert!(!client.calls().contains("[undo]"), "{}", client.calls());
    }
}

/// Only a digest tells which image it is; and a rollout that cannot be changed is not left paused.
#[test]
fn an_image_without_its_digest_is_refused() {
    for (component, program, double) in [("deploy-kubernetes", "kubectl", KUBECTL), ("deploy-ecs", "aws", AWS)] {
        for image in ["", "api:latest"] {
            let client = Client::new(program, double);
            let ended = client.run(component, &[("IMAGE_URI", image)]);
            assert_refused(&ended, &["IMAGE_URI", "input needs"]);
            assert_eq!(client.calls(), "", "{component}");
        }
        let ended = Client::new(program, double).run(component, &[("CI_DEPLOY_FREEZE", "true")]);
        assert_refused(&ended, &["IN_FREEZE=true"]);
    }
    let client = Client::new("kubectl", &KUBECTL.replace("*\" apply \"*) [", "*\" apply \"*) exit 1; ["));
    let ended = client.set("revision", "4").run("deploy-kubernetes", &[]);
    assert_eq!(ended.status.code(), Some(1), "{}", shown(&ended));
    assert!(client.calls().contains("[rollout] [resume]"), "{}", client.calls());
}

#[test]
fn a_client_on_ecs_is_deployed_with_the_circuit_breaker() {
    let client = Client::new("aws", AWS);
    let task = r#"{"family": "api", "containerDefinitions": [{"image": "${IMAGE_URI}", "environment": [{"name": "MODEL_PACKAGE_ARN", "value": "${MODEL_PACKAGE_ARN}"}]}]}"#;
    client.set("project/task-definition.json", task).set("service", "task:1");
    let ended = client.run(
        "deploy-ecs",
        &[("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/r"), ("SAGEMAKER_ID_TOKEN", "the token")],
    );
    assert!(ended.status.success(), "{}", shown(&ended));
    let registered: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(client.bench.path("registered")).unwrap()).unwrap();
    assert_eq!(registered["containerDefinitions"][0]["image"], IMAGE);
    assert_eq!(registered["containerDefinitions"][0]["environment"][0]["value"], VERSION);
    assert!(client.calls().contains("deploymentCircuitBreaker={enable=true,rollback=true}"));
    assert_eq!(std::fs::read_to_string(client.bench.path("token")).unwrap(), "the token");

    // The breaker went back by itself; the service is not stable in time; there is no service; a value that sed would read.
    client.set("breaker", "").set("service", "task:1");
    assert_refused(&client.run("deploy-ecs", &[]), &["is back at task:1"]);
    std::fs::remove_file(client.bench.path("breaker")).unwrap();
    client.set("broken", "");
    assert_refused(&client.run("deploy-ecs", &[]), &["bringing back task:1"]);
    assert_eq!(std::fs::read_to_string(client.bench.path("service")).unwrap(), "task:1");
    client.set("service", "");
    assert_refused(&client.run("deploy-ecs", &[]), &["no active service api", "inputs service and cluster"]);
    assert_refused(&client.run("deploy-ecs", &[("MODEL_DATA_URL", "s3://a|e touch pwned")]), &["has characters"]);
    client.set("project/task-definition.json", "{}");
    assert_refused(&client.run("deploy-ecs", &[]), &["input task_definition"]);
}

/// The example's pipeline names inputs that exist, its task definition has the texts that the job replaces, and its API passes its own tests.
#[test]
fn the_example_of_a_client_works() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/client-api");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    has_inputs_that_exist(&read(".gitlab-ci.yml"), "client-api");
    let task: serde_json::Value = serde_json::from_str(&read("task-definition.json")).unwrap();
    assert_eq!(task["containerDefinitions"][0]["image"], "${IMAGE_URI}");
    assert!(read("kubernetes/api.yml").contains("- name: api\n"), "the container that the pipeline names");
    let python = Command::new("python3").args(["-c", "import tarfile; tarfile.data_filter"]).output();
    if !python.is_ok_and(|ended| ended.status.success()) {
        return skipped("the API of the example", "no python3 that unpacks safely (tarfile.data_filter)");
    }
    let mut tests = Command::new("python3");
    tests.args(["-W", "error", "-m", "unittest", "discover", "--start-directory", "tests"]).current_dir(&folder);
    let ended = tests.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    assert!(ended.status.success(), "{}", shown(&ended));
}
