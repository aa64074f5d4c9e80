//! The power of a training job: spot instances, checkpoints, input channels. All under the policies that `policy iam` makes, and each wrong
//! wish is refused before a training job is requested.

use std::time::Duration;

use serde_json::{Value, json};

use super::sagemaker::rows;
use super::sagemaker_desk::{BUILD_FAILURE, Desk, SYSTEM_FAILURE};
use crate::support::driver::{Driver, sagemaker, sagemaker_with, sagemaker_with_creator};
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::job::Job;
use crate::support::waiting::poll;

/// The driver's rule allows spot instances, checkpoints, a warm pool and the data below `data/` of the bucket.
pub(super) fn allowing(driver: Driver) -> Driver {
    let more = format!(
        "max_volume_size_gb = 16384, max_runtime_seconds = 86400, spot = \"allow\", checkpoints = \"allow\", max_keep_alive_seconds = 3600, \
         max_retries = 3, training_plans = [\"arn:aws:sagemaker:*:*:training-plan/**\"], inputs = [\"s3://{BUCKET}/data/**\", \"s3://elsewhere/**\", \"efs://**\"]"
    );
    let operator_config = driver.operator_config.replace("max_volume_size_gb = 16384", &more);
    assert_ne!(operator_config, driver.operator_config);
    Driver { operator_config, ..driver }
}

fn powerful() -> Driver {
    allowing(sagemaker())
}

fn checkpoints(emulator: &Emulator) -> Vec<String> {
    emulator.objects().into_iter().filter(|key| key.contains("/checkpoints/")).collect()
}

/// A training job uploads what it has left after its script has ended.
fn wait_for_checkpoint(emulator: &Emulator) {
    let stored = poll(Duration::from_mins(1), || (!checkpoints(emulator).is_empty()).then_some(()));
    assert_eq!(stored, Some(()), "no checkpoint was stored");
}

/// Says which epochs are there, and adds one.
const EPOCH: &str =
    "echo \"epochs: $(cat /opt/ml/checkpoints/epochs 2>/dev/null)\"; printf x >>/opt/ml/checkpoints/epochs";

fn epoch() -> Job {
    Job::new().set("SAGEMAKER_SPOT", "true").set("SAGEMAKER_CHECKPOINTS", "true").script([EPOCH])
}

rows! {
    /// The next pipeline's job of the same name and ref goes on where the last one ended.
    spot_job_with_checkpoints {
        driver: powerful(),
        play: |world| {
            let first = world.run(&epoch());
            wait_for_checkpoint(world.emulator.as_ref().unwrap());
            vec![first, world.run(&epoch())]
        },
        expect: |world, outcomes| {
            outcomes[0].succeeded().shows("\nepochs: \n").shows("Spot instances: ").shows("Checkpoints: /opt/ml/checkpoints");
            outcomes[1].succeeded().shows("\nepochs: x\n");
            for job in world.emulator.as_ref().unwrap().jobs() {
                assert_eq!(job["EnableManagedSpotTraining"], true);
                let stopping = &job["StoppingCondition"];
                let seconds = |name: &str| stopping[name].as_u64().unwrap();
                assert_eq!(seconds("MaxWaitTimeInSeconds"), seconds("MaxRuntimeInSeconds") + 3600);
            }
        },
    }
    /// A channel is read by the script, under the name that SageMaker's own images use.
    input_channel {
        driver: powerful(),
        play: |world| {
            world.emulator.as_ref().unwrap().put_object("data/churn/part-0.csv", b"a,b\n");
            vec![world.run(&Job::new()
                .set("SAGEMAKER_INPUT_TRAIN", &format!("s3://{BUCKET}/data/churn?mode=FastFile&content_type=text/csv"))
                .script(["echo \"read: $(cat \"$SM_CHANNEL_TRAIN/part-0.csv\") in $SM_CHANNEL_TRAIN\""]))]
        },
        expect: |world, outcomes| {
            outcomes[0].succeeded()
                .shows("Input train: /opt/ml/input/data/train, from s3://ci-bucket/data/churn/ (FastFile mode)")
                .shows("\nread: a,b in /opt/ml/input/data/train\n");
            let job = &world.emulator.as_ref().unwrap().jobs()[0];
            let channel = &job["InputDataConfig"][1];
            assert_eq!((&channel["InputMode"], &channel["ContentType"]), (&json!("FastFile"), &json!("text/csv")));
        },
    }
}

/// EFS read-only and `FSx` for Lustre writable, as folders under the names of their channels.
#[test]
fn file_systems_as_channels() {
    let shared = tempfile::tempdir().unwrap();
    for (file, content) in [("efs/data/a", "from-efs"), ("fsx/datasets/a", "from-fsx")] {
        let path = shared.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let folder = |id: &str, name: &str| format!("{id}={}", shared.path().join(name).display());
    let (efs, fsx) = (folder("fs-01234567", "efs"), folder("fs-0123456789abcdef0", "fsx"));
    let mut driver = allowing(sagemaker_with(&["--file-system", &efs, "--file-system", &fsx], ""));
    let more = "inputs = [\"fsx://**\", ";
    driver.operator_config = driver.operator_config.replace("inputs = [", more);
    let in_vpc = "[job]\nsubnets = [\"subnet-0a\"]\nsecurity_group_ids = [\"sg-0a\"]\n";
    driver.operator_config = driver.operator_config.replace("[job]\n", in_vpc);
    let mut desk = Desk::of(&driver, &std::env::temp_dir(), &Job::new().script(["true"]));
    desk.set("SAGEMAKER_INPUT_SHARED", "efs://fs-01234567/data");
    desk.set("SAGEMAKER_INPUT_FAST", "fsx://fs-0123456789abcdef0/datasets?access=rw");
    let desk = desk.prepared();
    let script = "cat \"$SM_CHANNEL_SHARED/a\" \"$SM_CHANNEL_FAST/a\"; echo; echo back > \"$SM_CHANNEL_FAST/b\"
         touch \"$SM_CHANNEL_SHARED/b\" 2>/dev/null || echo read-only";
    let ended = desk.run("build_script", script);
    ended.passed();
    assert_eq!(ended.out(), "from-efsfrom-fsx\nread-only\n", "{ended}");
    assert_eq!(std::fs::read_to_string(shared.path().join("fsx/datasets/b")).unwrap(), "back\n");
    desk.close();
}

const PLAN: &str = "arn:aws:sagemaker:us-east-1:000000000000:training-plan/may";

/// SageMaker asks for the permission on the plan besides that on the training job.
#[test]
fn training_plan_under_the_policies() {
    for driver in [sagemaker(), sagemaker_with_creator()] {
        let mut driver = allowing(driver);
        driver.operator_config = driver.operator_config.replace("training-plan/**", "training-plan/may");
        let mut desk = Desk::of(&driver, &std::env::temp_dir(), &Job::new().script(["true"]));
        // The policies stay.
        desk.edit_operator_file("training-plan/may", "training-plan/*");
        desk.set("SAGEMAKER_TRAINING_PLAN", &PLAN.replace("may", "june"));
        desk.config().passed();
        desk.prepare().with_code(SYSTEM_FAILURE).one_error().says("sagemaker:CreateTrainingJob");
        assert!(desk.emulator.jobs().is_empty());
        desk.set("SAGEMAKER_TRAINING_PLAN", PLAN);
        desk.prepare().passed();
        assert_eq!(desk.emulator.jobs()[0]["ResourceConfig"]["TrainingPlanArn"], PLAN);
        desk.cleanup();
        desk.close();
    }
}

#[test]
fn the_executors_own_objects_are_no_data() {
    let own = format!("s3://{BUCKET}/sagemaker-executor");
    for (name, uri) in [
        ("SAGEMAKER_INPUT_X", format!("{own}/hosts")),
        ("SAGEMAKER_INPUT_X", format!("s3://{BUCKET}")),
        ("SAGEMAKER_MODEL_OUTPUT", format!("{own}/agents")),
    ] {
        let mut driver = powerful();
        let wide = "[\"s3://*/**\"], model_outputs = [\"s3://*/**\"]";
        let inputs = format!("[\"s3://{BUCKET}/data/**\", \"s3://elsewhere/**\", \"efs://**\"]");
        driver.operator_config = driver.operator_config.replace(&inputs, wide);
        let says = format!("`{name}` asks for `{uri}`, and the executor's own objects are in `{own}`");
        refused_by(&driver, &[(name, &uri)], &[&says]);
    }
}

/// Changes the job as GitLab sends it.
pub(super) fn edit_payload(desk: &Desk, edit: impl FnOnce(&mut Value)) {
    let path = desk.root().join("response.json");
    let mut payload = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut payload);
    std::fs::write(path, payload.to_string()).unwrap();
}

/// One job of a ref, and what it read: the epochs before it.
fn epochs_before(desk: &mut Desk, id: u64, git_ref: &str, protected: bool) -> String {
    let payload = epoch().payload(id, super::sagemaker_desk::TOKEN, "http://gitlab.example.com");
    std::fs::write(desk.root().join("response.json"), payload.to_string()).unwrap();
    edit_payload(desk, |payload| {
        payload["git_info"]["ref"] = json!(git_ref);
        payload["git_info"]["protected"] = json!(protected);
    });
    desk.config().passed();
    desk.prepare().passed();
    std::fs::create_dir_all(desk.project()).unwrap();
    let stored =
        |desk: &Desk| checkpoints(&desk.emulator).iter().map(|key| desk.emulator.get_object(key)).collect::<Vec<_>>();
    let before = stored(desk);
    let ended = desk.run("build_script", EPOCH);
    ended.passed();
    desk.cleanup().passed();
    let changed = poll(Duration::from_mins(1), || (stored(desk) != before).then_some(()));
    assert_eq!(changed, Some(()), "no checkpoint was stored");
    let out = ended.out();
    let line = out.lines().find_map(|line| line.strip_prefix("epochs: ")).unwrap_or_else(|| panic!("{ended}"));
    line.to_owned()
}

fn keeps_refs_apart(driver: Driver) {
    let mut desk = Desk::of(&allowing(driver), &std::env::temp_dir(), &epoch());
    desk.set("SAGEMAKER_CHECKPOINTS", "true");
    assert_eq!(epochs_before(&mut desk, 4711, "main", true), "");
    assert_eq!(epochs_before(&mut desk, 4712, "main", true), "x");
    assert_eq!(epochs_before(&mut desk, 4713, "idea", false), "", "another ref");
    assert_eq!(epochs_before(&mut desk, 4714, "main", false), "", "the ref's name without its protection");
    desk.set("SAGEMAKER_CHECKPOINTS_REF", "main");
    assert_eq!(epochs_before(&mut desk, 4715, "release", true), "xx", "another ref that is protected too");
    assert_eq!(epochs_before(&mut desk, 4716, "idea", false), "x", "never those of a protected ref");
    desk.close();
}

#[test]
fn checkpoints_of_a_ref_are_its_own() {
    keeps_refs_apart(sagemaker());
}

/// The tag of the creator's session is all that lets a job reach its checkpoints.
#[test]
fn checkpoints_under_a_creator() {
    keeps_refs_apart(sagemaker_with_creator());
}

/// A prepare that must be refused, without a request for a training job.
fn refused(variables: &[(&str, &str)], words: &[&str]) {
    refused_by(&powerful(), variables, words);
}

fn refused_by(driver: &Driver, variables: &[(&str, &str)], words: &[&str]) {
    let mut desk = Desk::of(driver, &std::env::temp_dir(), &Job::new().script(["true"]));
    desk.emulator.put_object("data/churn/part-0.csv", b"a,b\n");
    for (name, value) in variables {
        desk.set(name, value);
    }
    desk.config().passed();
    let ended = desk.prepare();
    ended.with_code(BUILD_FAILURE).one_error();
    for word in words {
        ended.says(word);
    }
    assert_eq!(desk.emulator.requests("CreateTrainingJob"), 0, "{ended}");
    desk.close();
}

#[test]
fn spot_job_whose_wait_is_shorter_than_its_run_time() {
    let wishes = [("SAGEMAKER_SPOT", "true"), ("SAGEMAKER_MAX_RUNTIME", "2h"), ("SAGEMAKER_SPOT_MAX_WAIT", "1h")];
    refused(&wishes, &["`SAGEMAKER_SPOT_MAX_WAIT` is 3600 s", "set `SAGEMAKER_SPOT_MAX_WAIT` to `10800s` or more"]);
}

#[test]
fn keep_alive_with_spot() {
    let wishes = [("SAGEMAKER_SPOT", "true"), ("SAGEMAKER_KEEP_ALIVE", "10m")];
    refused(
        &wishes,
        &["`SAGEMAKER_KEEP_ALIVE` and `SAGEMAKER_SPOT` cannot go together", "`SAGEMAKER_KEEP_ALIVE` to `0`"],
    );
}

#[test]
fn channel_that_is_there_twice() {
    let uri = format!("s3://{BUCKET}/data/churn");
    let wishes = [("SAGEMAKER_INPUT_TRAIN", uri.as_str()), ("SAGEMAKER_INPUT_Train", uri.as_str())];
    refused(&wishes, &["`SAGEMAKER_INPUT_TRAIN` and `SAGEMAKER_INPUT_Train` are the same channel"]);
}

/// S3 says that a bucket is not there also to those who may not look into it.
#[test]
fn model_for_a_bucket_that_is_not_there() {
    let mut driver = powerful();
    driver.operator_config = driver.operator_config.replace("inputs = [", "model_outputs = [\"s3://**\"], inputs = [");
    let mut desk = Desk::of(&driver, &std::env::temp_dir(), &Job::new().script(["true"]));
    let absent = json!({"operation": "HeadBucket", "error": "NoSuchBucket", "status": 404});
    desk.emulator.set_faults(&json!({"calls": [absent]}));
    desk.set("SAGEMAKER_MODEL_OUTPUT", "s3://nowhere/models");
    desk.config().passed();
    let ended = desk.prepare();
    ended.with_code(BUILD_FAILURE).one_error().says("`SAGEMAKER_MODEL_OUTPUT`: there is no bucket nowhere");
    assert_eq!(desk.emulator.requests("CreateTrainingJob"), 0, "{ended}");
    desk.close();
}

#[test]
fn channels_that_cannot_be_read() {
    let data = format!("s3://{BUCKET}/data");
    for (uri, words) in [
        (format!("{data}/chur"), &["`SAGEMAKER_INPUT_TRAIN`: there is no object below s3://ci-bucket/data/chur/"][..]),
        ("s3://elsewhere/churn".to_owned(), &["`SAGEMAKER_INPUT_TRAIN`: there is no bucket elsewhere"]),
        (format!("s3://{BUCKET}/secret"), &["asks for `s3://ci-bucket/secret`", "allows `s3://ci-bucket/data/**`"]),
        (format!("{data}/churn?mode=Slow"), &["`SAGEMAKER_INPUT_TRAIN` has `mode`", "FastFile"]),
        ("efs://fs-01234567/data".to_owned(), &["is a file system, and the job is in no VPC"]),
    ] {
        refused(&[("SAGEMAKER_INPUT_TRAIN", &uri)], words);
    }
}

#[test]
fn channel_of_another_region() {
    let mut desk = Desk::of(&powerful(), &std::env::temp_dir(), &Job::new().script(["true"]));
    desk.emulator.create_bucket("elsewhere", "eu-west-1");
    desk.set("SAGEMAKER_INPUT_TRAIN", "s3://elsewhere/churn");
    desk.config().passed();
    let ended = desk.prepare();
    ended.with_code(BUILD_FAILURE).one_error();
    ended
        .says("`SAGEMAKER_INPUT_TRAIN`: the bucket elsewhere is in the region `eu-west-1`")
        .says("runs in `us-east-1`");
    assert_eq!(desk.emulator.requests("CreateTrainingJob"), 0, "{ended}");
    desk.close();
}

#[test]
fn wishes_of_a_wrong_form() {
    for (name, value) in [
        ("SAGEMAKER_SPOT", "perhaps"),
        ("SAGEMAKER_CHECKPOINTS", "perhaps"),
        ("SAGEMAKER_RETRIES", "many"),
        ("SAGEMAKER_KEEP_ALIVE", "long"),
        ("SAGEMAKER_TRAINING_PLAN", "may"),
        ("SAGEMAKER_QUEUE_TIMEOUT", "soon"),
        ("SAGEMAKER_MODEL_OUTPUT", "models"),
    ] {
        refused(&[(name, value)], &[&format!("`{name}`")]);
    }
}

#[test]
fn wishes_beyond_the_rule() {
    for (name, value, key) in [
        ("SAGEMAKER_RETRIES", "4", "max_retries"),
        ("SAGEMAKER_QUEUE_TIMEOUT", "2h", "max_queue_timeout_seconds"),
        ("SAGEMAKER_MODEL_OUTPUT", "s3://models/churn", "model_outputs"),
    ] {
        refused(&[(name, value)], &[&format!("`{name}` asks for"), &format!("`allow.{key}`")]);
    }
}
