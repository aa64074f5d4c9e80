//! The emulator's registry of images with clients of others: the registry's protocol spoken by hand, and boto3.

use std::path::Path;

use super::registry::{client, run};
use super::{clients, skipped};
use crate::support::emulator::{BUCKET, Emulator};

const BUSYBOX: &str = "/usr/bin/busybox";

const FINDINGS: &str = r#"{"findings": [{"name": "CVE-2026-0001", "severity": "HIGH", "attributes": [{"key": "package_name", "value": "openssl"}]}], "duration_ms": 500}"#;

#[test]
fn an_image_is_pushed_scanned_pulled_run_and_deleted() {
    let Some(clients) = clients() else {
        return skipped("the registry of images", "neither the machine nor the package index has the clients");
    };
    if !Path::new(BUSYBOX).exists() {
        return skipped("the registry of images", "this machine has no busybox");
    }
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, findings) = (folder.path().join("data"), folder.path().join("findings.json"));
    std::fs::write(&findings, FINDINGS).unwrap();
    let emulator =
        Emulator::start(&data_dir, &["--image-findings".to_owned(), format!("team/train={}", findings.display())]);
    let script = "tests/fixtures/conformance/images.py";
    let mut command = client(&emulator, &data_dir, &clients.join("python3"));
    run(command.args([script, &emulator.endpoint, BUCKET, BUSYBOX]));
}
