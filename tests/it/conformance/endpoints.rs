//! Endpoints of the emulator with boto3, in an emulator that is started as users do: real containers serve.

use std::path::Path;

use super::registry::{client, run};
use super::{can_run_containers, clients, skipped};
use crate::support::emulator::{BUCKET, Emulator};

#[test]
fn boto3_deploys_a_model_and_invokes_it() {
    let Some(clients) = clients() else {
        return skipped("endpoints", "neither the machine nor the package index has the clients");
    };
    if !can_run_containers() {
        return skipped("endpoints", "bubblewrap cannot create a container here");
    }
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let serving = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/conformance/serving");
    let image = ["--image".to_owned(), format!("serving=overlay:{}", serving.display())];
    let faults = folder.path().join("faults.json");
    // Long enough to see the deployment under way.
    let plan = r#"{"endpoints": [{"operation": "UpdateEndpoint", "count": 1, "provisioning_ms": 1500}]}"#;
    std::fs::write(&faults, plan).unwrap();
    let faults = ["--faults".to_owned(), faults.display().to_string()];
    let options = ["--quota", "endpoint:ml.m5.large=4", "--log-delay", "0s", "--deployment-wait-scale", "0"];
    let emulator = Emulator::start(&data_dir, &[&image[..], &faults, &options.map(str::to_owned)].concat());
    let script = "tests/fixtures/conformance/endpoints.py";
    run(client(&emulator, &data_dir, &clients.join("python3")).args([script, BUCKET]));
}

#[test]
fn boto3_watches_and_scales_an_endpoint() {
    let Some(clients) = clients() else {
        return skipped("alarms", "neither the machine nor the package index has the clients");
    };
    if !can_run_containers() {
        return skipped("alarms", "bubblewrap cannot create a container here");
    }
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let serving = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/conformance/serving");
    let image = format!("serving=overlay:{}", serving.display());
    let options = ["--image", &image, "--alarm-period-scale", "0.01", "--log-delay", "0s"];
    let emulator = Emulator::start(&data_dir, &options.map(str::to_owned));
    let script = "tests/fixtures/conformance/alarms.py";
    run(client(&emulator, &data_dir, &clients.join("python3")).args([script, BUCKET]));

    let aws = |arguments: &[&str]| {
        run(client(&emulator, &data_dir, &clients.join("aws")).args(["--output", "text"]).args(arguments))
    };
    let put = "cloudwatch put-metric-alarm --alarm-name cli --namespace own --metric-name m --statistic Sum --period 60 \
               --evaluation-periods 1 --threshold 1 --comparison-operator GreaterThanThreshold";
    aws(&put.split_whitespace().collect::<Vec<_>>());
    let describe = ["cloudwatch", "describe-alarms", "--alarm-names", "cli", "--query", "MetricAlarms[].AlarmArn"];
    assert_eq!(aws(&describe).trim(), "arn:aws:cloudwatch:eu-west-1:000000000000:alarm:cli");
    let targets = ["application-autoscaling", "describe-scalable-targets", "--service-namespace", "sagemaker"];
    assert_eq!(aws(&targets), "");
}
