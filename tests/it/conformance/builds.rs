//! The emulator's CodeBuild with boto3; its builds really run, with the AWS CLI in them.

use super::registry::{client, run};
use super::{can_run_containers, clients, skipped};
use crate::support::driver::write_program;
use crate::support::emulator::{BUCKET, Emulator};

#[test]
fn builds_run_fail_and_are_stopped_as_boto3_sees_it() {
    let Some(clients) = clients().filter(|_| can_run_containers()) else {
        return skipped("CodeBuild", "there are no clients, or bubblewrap creates no container");
    };
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, image) = (folder.path().join("data"), folder.path().join("image"));
    let programs = image.join("usr/local/bin");
    std::fs::create_dir_all(&programs).unwrap();
    let python = clients.join("python3");
    write_program(&programs.join("aws"), &format!("#!/bin/sh\nexec {} -m awscli \"$@\"\n", python.display()));
    let args = ["--image".to_owned(), format!("build=overlay:{}", image.display()), "--no-delays".to_owned()];
    let emulator = Emulator::start(&data_dir, &args);
    run(client(&emulator, &data_dir, &python).args(["tests/fixtures/conformance/builds.py", BUCKET]));
}
