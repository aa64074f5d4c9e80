//! Finishes the model of a session on fakes.

use std::collections::BTreeSet;

use super::*;
use crate::base::failure::{Kind, kind_of};
use crate::base::node::{NodeId, Nodes};
use crate::cloud::testing::{Memory, example_spec};
use crate::cloud::{SecondaryStatus, TrainingJobs as _};
use crate::config::settings::Settings;
use crate::protocol::project::Rule;
use crate::protocol::project::Selection;
use crate::session::node_record::NodeRecord;
use crate::session::record::{Records, SessionRecord};
use crate::session::requested_job::RequestedJob;
use crate::session::state::ResultsState;
use crate::session::{Host, SessionId};
use crate::ui::Printer;

const NAME: &str = "gitlab-1-2-abcdef12";
const OLD: &str = "MINE=1\nSAGEMAKER_MODEL_URI=s3://old/model.tar.gz\n";

/// How a finished model left the session.
struct Finished {
    error: Option<anyhow::Error>,
    /// Content of `sagemaker.env`.
    file: String,
    said: String,
    awaits_model: bool,
    is_lost: bool,
}

fn archive(folder: &str) -> ModelOutput {
    ModelOutput { folder: folder.to_owned(), is_archive: true }
}

/// Finishes the model of a job that ended so, with a file in `/opt/ml/model`, whose artifacts select these paths.
async fn finished(job: TrainingJob, output: Option<&str>, paths: &[&str], has_succeeded: bool) -> Finished {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("p");
    std::fs::create_dir(&project).unwrap();
    std::fs::write(project.join(ENV_FILE), OLD).unwrap();
    let trees = Trees { tmp: project.with_extension("tmp"), project, host: None };
    let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", dir.path().display());
    let settings: Settings = toml::from_str(&text).unwrap();
    let rule =
        |paths: &[&str]| Rule { include: paths.iter().map(|path| (*path).to_owned()).collect(), ..Rule::default() };
    let image = format!("train@sha256:{}", "0".repeat(64));
    let record = SessionRecord {
        arn: Some("arn".to_owned()),
        request: RequestedJob { model_output: output.map(archive), image, ..RequestedJob::default() },
        models: BTreeSet::from([NodeId::LEADER]),
        selection: Some(Selection { rules: vec![rule(paths), rule(&[ENV_FILE])], ..Selection::default() }),
        nodes: Nodes::new(1, |_| NodeRecord { ready: true, ..NodeRecord::default() }),
        finished: true,
        results_applied: true,
        ..SessionRecord::default()
    };
    let (memory, id) = (Memory::new(), SessionId::parse(NAME).unwrap());
    memory.jobs.create(&example_spec(NAME)).await.unwrap();
    memory.jobs.change(NAME, |known| *known = job);
    Records::open(dir.path()).unwrap().save(&id, &record).unwrap();
    let (printer, captured) = Printer::captured();
    let host = Host::with_real_time(&settings, &printer);
    let mut session = Session::attach(id, memory.jobs.clone(), memory.objects.clone(), host).unwrap().unwrap();
    let inputs = ModelInputs { trees: &trees, has_succeeded, cancel: &Cancellation::default() };
    Finished {
        error: finish(&mut session, inputs).await.err(),
        file: std::fs::read_to_string(trees.project.join(ENV_FILE)).unwrap(),
        said: captured.text(),
        awaits_model: session.state.awaits_model(),
        is_lost: matches!(session.state.results(), ResultsState::Lost(_)),
    }
}

fn job(status: JobStatus, secondary: SecondaryStatus) -> TrainingJob {
    let job = crate::cloud::testing::example_job(NAME, status, secondary);
    TrainingJob { training_seconds: Some(60), billable_seconds: Some(20), ..job }
}

fn failed(reason: &str) -> TrainingJob {
    TrainingJob { failure_reason: Some(reason.to_owned()), ..job(JobStatus::Failed, SecondaryStatus::Failed) }
}

#[tokio::test(start_paused = true)]
async fn a_report_names_only_what_is_there() {
    let completed = || job(JobStatus::Completed, SecondaryStatus::Completed);
    let digest = format!("SAGEMAKER_IMAGE_DIGEST=sha256:{}", "0".repeat(64));
    let (name, seconds) = (format!("SAGEMAKER_TRAINING_JOB_NAME={NAME}"), "SAGEMAKER_TRAINING_SECONDS=60");
    let head = ["MINE=1", &name, "SAGEMAKER_TRAINING_JOB_ARN=arn"];
    let tail = [&digest, seconds, "SAGEMAKER_BILLABLE_SECONDS=20"];
    let model = format!("SAGEMAKER_MODEL_URI=s3://models/churn/{NAME}/output/model.tar.gz");

    let done = finished(completed(), Some("s3://models/churn/"), &[ENV_FILE], true).await;
    assert!(done.error.is_none() && !done.awaits_model, "{}", done.said);
    assert!(done.file.lines().eq([&head[..], &[&model], &tail].concat()), "{}", done.file);

    let files = ModelOutput { is_archive: false, ..archive("s3://models/churn/") };
    assert_eq!(model_uri(&files, "a"), "s3://models/churn/a/output/model");

    // The script's code is the job's; its stage has told it.
    let script = failed("AlgorithmError: the job's script exited with code 3, exit code: 3");
    let done = finished(script, Some("s3://models/churn/"), &[ENV_FILE], false).await;
    assert!(done.error.is_none() && done.awaits_model && !done.is_lost, "{}", done.said);
    assert!(done.file.lines().eq([head, tail].concat()), "an earlier URI is removed: {}", done.file);
    assert!(!done.said.contains("Model: "), "{}", done.said);

    // Without an output, the file has what is known by then.
    let done = finished(completed(), None, &["sagemaker*"], true).await;
    assert!(done.file.lines().eq([head, tail].concat()), "{}", done.file);
    let runs = job(JobStatus::InProgress, SecondaryStatus::Uploading);
    let done = finished(runs, None, &["sagemaker.*"], true).await;
    assert!(done.file.lines().eq([&head[..], &[&digest]].concat()), "{}", done.file);
}

/// As when the instance is taken away while SageMaker uploads, and an agent finds that the session had ended.
#[tokio::test(start_paused = true)]
async fn a_model_that_is_lost_fails_the_job() {
    let lost = [
        "AlgorithmError: error: SageMaker started the container again after the last script had ended, exit code: 1",
        "AlgorithmError: the job's script exited with code 137, exit code: 137",
    ];
    for reason in lost {
        let done = finished(failed(reason), Some("s3://models/churn/"), &[ENV_FILE], true).await;
        let error = done.error.expect("the model is lost");
        assert!(format!("{error:#}").contains(reason), "{error:#}");
        assert!(done.is_lost && done.file == OLD && !done.said.contains("Model: "), "{}", done.said);
    }
    let error = finished(failed(lost[0]), Some("s3://m/"), &[], true).await.error.unwrap();
    assert_eq!(kind_of(&error), Kind::System);
}

#[tokio::test(start_paused = true)]
async fn the_file_is_written_only_for_a_job_that_selects_it() {
    let completed = || job(JobStatus::Completed, SecondaryStatus::Completed);
    for paths in [&["out/", "sagemaker.env"][..], &["./sagemaker.env"]] {
        assert!(finished(completed(), None, paths, true).await.file.contains("SAGEMAKER_TRAINING_JOB_NAME"));
    }
    for paths in [&["out/sagemaker.env"][..], &["**/*"], &["*.env"], &[]] {
        assert_eq!(finished(completed(), None, paths, true).await.file, OLD);
    }
}
