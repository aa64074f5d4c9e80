//! The jobs `deploy-kubernetes` and `deploy-ecs` with kubectl and the AWS CLI themselves: kubectl at a stand-in of the API server, the AWS CLI
//! at moto.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use executor::config::env::Environment;
use serde_json::{Value, json};

use super::applied::Moto;
use crate::conformance::{clients, shown, skipped};
use crate::support::waiting::find_program;
use crate::templates::scripts::Bench;

const VERSION: &str = "arn:aws:sagemaker:eu-west-1:111122223333:model-package/wine/3";

/// The stand-in of the API server; it ends with the test.
struct Cluster {
    server: Child,
    output: BufReader<std::process::ChildStdout>,
    port: String,
}

impl Cluster {
    fn start() -> Self {
        let mut server = Command::new("python3")
            .args(["-u", "tests/fixtures/infrastructure/kubernetes.py"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(server.stdout.take().unwrap());
        let mut port = String::new();
        output.read_line(&mut port).unwrap();
        Self { server, output, port: port.trim().to_owned() }
    }

    /// The changes of the deployment that the server took, in order.
    fn changes(mut self) -> Vec<String> {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        std::io::BufRead::lines(&mut self.output).map_while(Result::ok).collect()
    }
}

const MANIFEST: &str = r#"{
  "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "api"},
  "spec": {
    "replicas": 2, "selector": {"matchLabels": {"app": "api"}},
    "template": {"metadata": {"labels": {"app": "api"}}, "spec": {"containers": [{"name": "web", "image": "set-by-the-job"}]}}
  }
}"#;

#[test]
fn kubectl_deploys_a_client_and_brings_it_back() {
    if find_program("kubectl").is_none() || find_program("python3").is_none() {
        return skipped("kubectl at a stand-in", "no kubectl (package kubernetes-client)");
    }
    let bench = Bench::new(&[]);
    bench.of_the_system("kubectl");
    let cluster = Cluster::start();
    let context = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{}", cluster.port)}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    });
    std::fs::write(bench.path("kubeconfig"), context.to_string()).unwrap();
    std::fs::write(bench.path("project/api.json"), MANIFEST).unwrap();
    let inputs = json!({
        "environment": "e", "tier": "staging", "namespace": "ml", "deployment": "api", "container": "web", "manifests": "api.json",
        "health": "api:80/health",
    });
    let (kubeconfig, home) = (bench.path("kubeconfig"), bench.path("home"));
    let run = |image: &str| {
        let variables = BTreeMap::from([
            ("IMAGE_URI", image),
            ("MODEL_PACKAGE_ARN", VERSION),
            ("KUBECONFIG", kubeconfig.to_str().unwrap()),
            ("HOME", home.to_str().unwrap()),
        ]);
        bench.run_component("deploy-kubernetes", &inputs, &variables)
    };
    for image in ["api@sha256:01", "api@sha256:02"] {
        let ended = run(image);
        assert!(ended.status.success(), "{}", shown(&ended));
    }
    let ended = run("sick@sha256:03");
    assert_eq!(ended.status.code(), Some(1), "{}", shown(&ended));
    assert!(shown(&ended).contains("Revision 4 of api is back"), "{}", shown(&ended));
    let changes = cluster.changes();
    let rolled_out: Vec<_> = changes.iter().filter(|line| line.contains("paused False")).collect();
    let images: Vec<_> = rolled_out.iter().map(|line| line.split_once('{').unwrap().1).collect();
    // The first deployment has three steps; each later one is a single rollout, although it changes manifest, image and variables.
    assert_eq!(images.len(), 6, "{changes:#?}");
    assert!(images[3].contains("api@sha256:02") && images[3].contains(VERSION), "{changes:#?}");
    assert!(images[4].contains("sick@sha256:03") && images[5].contains("api@sha256:02"), "{changes:#?}");
}

#[test]
fn the_aws_cli_deploys_a_client_to_a_service() {
    let name = "the AWS CLI at moto";
    if Environment::of_process().get("INFRASTRUCTURE") != Some("all") {
        return skipped(name, "INFRASTRUCTURE=all runs it");
    }
    let Some(aws) = clients().map(|folder| folder.join("aws")) else {
        return skipped(name, "neither the machine nor the package index has the AWS CLI");
    };
    let Some(moto) = Moto::start() else { return skipped(name, "no moto_server (package moto[server])") };
    let bench = Bench::new(&[]);
    for tool in ["cat", "grep", "sed"] {
        bench.of_the_system(tool);
    }
    std::os::unix::fs::symlink(&aws, bench.path("bin/aws")).unwrap();
    let variables = BTreeMap::from([
        ("AWS_ENDPOINT_URL", moto.endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "testing"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("MODEL_PACKAGE_ARN", VERSION),
        ("IMAGE_URI", "111122223333.dkr.ecr.eu-west-1.amazonaws.com/api@sha256:01"),
    ]);
    let call = |arguments: &str| -> Value {
        let words = arguments.split(' ').chain(["--output", "json"]);
        let ended =
            Command::new(&aws).args(words).current_dir(bench.path("project")).envs(&variables).output().unwrap();
        assert!(ended.status.success(), "{arguments}: {}", shown(&ended));
        serde_json::from_slice(&ended.stdout).unwrap()
    };
    let task = r#"{"family": "api", "containerDefinitions": [{"name": "web", "memory": 128, "image": "${IMAGE_URI}", "environment": [{"name": "MODEL_PACKAGE_ARN", "value": "${MODEL_PACKAGE_ARN}"}]}]}"#;
    std::fs::write(bench.path("project/task-definition.json"), task).unwrap();
    std::fs::write(bench.path("project/first.json"), task.replace("${IMAGE_URI}", "first")).unwrap();
    call("ecs create-cluster --cluster-name ml");
    call("ecs register-task-definition --cli-input-json file://first.json");
    call("ecs create-service --cluster ml --service-name api --task-definition api:1 --desired-count 0");
    let inputs = |service: &str| json!({"environment": "e", "tier": "staging", "cluster": "ml", "service": service});
    let ended = bench.run_component("deploy-ecs", &inputs("api"), &variables);
    assert!(ended.status.success(), "{}", shown(&ended));
    let service = &call("ecs describe-services --cluster ml --services api")["services"][0];
    assert!(service["taskDefinition"].as_str().unwrap().ends_with("api:2"), "{service}");
    assert_eq!(
        service["deploymentConfiguration"]["deploymentCircuitBreaker"],
        json!({"enable": true, "rollback": true})
    );
    let task = call("ecs describe-task-definition --task-definition api:2");
    let container = &task["taskDefinition"]["containerDefinitions"][0];
    assert_eq!(
        (container["image"].as_str(), container["environment"][0]["value"].as_str()),
        (Some(variables["IMAGE_URI"]), Some(VERSION))
    );
    let ended = bench.run_component("deploy-ecs", &inputs("absent"), &variables);
    assert!(ended.status.code() == Some(1) && shown(&ended).contains("no active service absent"), "{}", shown(&ended));
}
