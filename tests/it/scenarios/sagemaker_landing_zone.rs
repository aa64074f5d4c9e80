//! The pipeline of `docs/examples/landing-zone.gitlab-ci.yml`: raw data, processed data, a model.

use std::path::Path;

use super::sagemaker::rows;
use crate::support::driver::{Driver, sagemaker};
use crate::support::emulator::BUCKET;
use crate::support::job::{Artifacts, Job};
use crate::support::outcome::Outcome;
use crate::support::pipeline::{PipelineJob, jobs};

fn driver() -> Driver {
    let driver = sagemaker();
    let data = format!("[\"s3://{BUCKET}/raw/**\", \"s3://{BUCKET}/processed/**\", \"s3://{BUCKET}/churn/**\"]");
    let more = format!("max_volume_size_gb = 16384, inputs = {data}, model_outputs = {data}");
    let operator_config = driver.operator_config.replace("max_volume_size_gb = 16384", &more);
    assert_ne!(operator_config, driver.operator_config);
    Driver { operator_config, ..driver }
}

/// The jobs of the example, in the emulator's bucket.
fn pipeline() -> Vec<PipelineJob> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/landing-zone.gitlab-ci.yml");
    let text = std::fs::read_to_string(path).unwrap();
    jobs(&text.replace("example-training-data", BUCKET).replace("example-models", BUCKET))
}

/// A job as GitLab sends it: the variables of earlier reports come first.
fn job(of: &PipelineJob, reported: &[(String, String)]) -> Job {
    let job = Job::new().named(&of.name).script([of.script.join("\n").as_str()]);
    let job = reported.iter().chain(&of.variables).fold(job, |job, (name, value)| job.set(name, value));
    of.dotenv.iter().fold(job, |job, file| job.artifacts(Artifacts::dotenv(file)))
}

fn report(outcome: &Outcome) -> Vec<(String, String)> {
    let files = outcome.succeeded().artifact("dotenv").files();
    let text = String::from_utf8(files.into_values().next().unwrap()).unwrap();
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

/// The last line of a name counts, as in GitLab: without a checkout the file of the job before is still there.
fn reported(outcome: &Outcome, name: &str) -> String {
    report(outcome).into_iter().rfind(|(known, _)| known == name).map(|(_, value)| value).unwrap_or_default()
}

rows! {
    raw_data_becomes_a_model {
        driver: driver(),
        needs: ["gzip", "tar", "awk"],
        play: |world| {
            let emulator = world.emulator.as_ref().unwrap();
            emulator.put_object("raw/churn/part-0.csv", b"a,10,1\nb,,0\n");
            emulator.put_object("raw/churn/part-1.csv", b"c,30,1\nd,7,\n");
            let pipeline = pipeline();
            let processed = world.run(&job(&pipeline[0], &[]));
            let trained = world.run(&job(&pipeline[1], &report(&processed)));
            // The model is one object, which a later job reads by the report alone.
            let read = Job::new().set("SAGEMAKER_INPUT_MODEL", "$SAGEMAKER_MODEL_URI")
                .script(["tar -xzOf \"$SM_CHANNEL_MODEL/model.tar.gz\" model.json | sed 's/^/read: /'"]);
            let read = report(&trained).iter().fold(read, |job, (name, value)| job.set(name, value));
            vec![processed, trained, world.run(&read)]
        },
        expect: |world, outcomes| {
            let emulator = world.emulator.as_ref().unwrap();
            let place = reported(&outcomes[0], "SAGEMAKER_MODEL_URI");
            assert!(place.ends_with("/output/model"), "{place}");
            let key = |name: &str| format!("{}/{name}", place.strip_prefix(&format!("s3://{BUCKET}/")).unwrap());
            assert_eq!(emulator.get_object(&key("part-0.csv")).as_deref(), Some("a,10,1\n"));
            assert_eq!(emulator.get_object(&key("part-1.csv")).as_deref(), Some("c,30,1\n"));
            outcomes[1].shows(&format!("from {place}/ (FastFile mode)")).shows("{\"left_per_call\": 0.05}");
            assert!(reported(&outcomes[1], "SAGEMAKER_MODEL_URI").ends_with("/output/model.tar.gz"));
            outcomes[2].succeeded().shows("/output/model.tar.gz (File mode)").shows("read: {\"left_per_call\": 0.05}");
        },
    }
}
