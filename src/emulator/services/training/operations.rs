//! The operations on training jobs.
//!
//! Reads and changes the records and starts the task of a new job.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::capacity::wanted_instances;
use super::job::{Job, Phase, PoolPhase};
use super::location::S3Location;
use super::platform::{PlatformStore, channel_uris};
use super::role::execution_role;
use super::rules;
use super::state::{JobHandle, Training};
use super::warm_hosts::keep_alive;
use crate::caller::Caller;
use crate::model::Model;
use crate::partition::partition;
use crate::protocol::{Answer, ApiError, milliseconds, text};
use crate::service::{JsonService, Operation};
use crate::tags::tag_map;

impl JsonService for Training {
    const SIGNING_NAME: &'static str = "sagemaker";
    const OPERATIONS: &'static [(&'static str, Operation<Self>)] = &[
        ("CreateTrainingJob", create),
        ("DescribeTrainingJob", describe),
        ("StopTrainingJob", stop),
        ("UpdateTrainingJob", update),
        ("DeleteTrainingJob", delete),
        ("ListTrainingJobs", list),
    ];

    fn model() -> &'static Model {
        Model::sagemaker()
    }
}

fn arn(Caller { account, region, .. }: &Caller, job: &str) -> String {
    format!("arn:{}:sagemaker:{region}:{account}:training-job/{job}", partition(region))
}

fn not_found() -> ApiError {
    ApiError::validation("Requested resource not found.")
}

fn create(training: &Arc<Training>, request: &Value, caller: &Caller) -> Answer {
    rules::check_create(request)?;
    let name = text(request, "TrainingJobName").unwrap_or_default().to_owned();
    let (shared, region) = (&training.shared, &caller.region);
    let arn = arn(caller, &name);
    let taken = || {
        ApiError::new(
            "ResourceInUse",
            format!(
                "Training job names must be unique within an AWS account and region, and a training job with this \
                 name already exists ({arn})"
            ),
        )
    };
    if training.jobs().contains_key(&name) {
        return Err(taken());
    }
    let role = execution_role(training, request, caller, &arn)?;
    check_inputs(&PlatformStore::new(&training.store, shared, &role, region), request, region)?;
    let mut jobs = training.jobs();
    if jobs.contains_key(&name) {
        return Err(taken());
    }
    let warm = training.claim(request, region, &role.tags);
    if let Err(refused) = training.check_quotas(request, &jobs, warm.as_ref()) {
        training.pools().extend(warm);
        return Err(refused);
    }
    let (number, stop) = (shared.next_number(), shared.shutdown.child_token());
    shared.tags.create(&arn, tag_map(request.get("Tags")));
    let mut job = Job::new(request.clone(), arn.clone(), number, stop.clone());
    let wanted = wanted_instances(request);
    if let [one] = wanted.as_slice() {
        job.instances = Some(one.clone());
    }
    if warm.is_some() || keep_alive(request).is_some() {
        job.use_pool();
    }
    if let Some(left) = warm.as_ref().and_then(|warm| jobs.get_mut(&warm.job)) {
        left.end_pool(Some(&name));
    }
    jobs.insert(name.clone(), job);
    drop(jobs);
    let folder = shared.config.jobs_folder().join(format!("{name}-{}", shared.next_number()));
    let (training, request, region) = (Arc::clone(training), request.clone(), region.clone());
    let job = JobHandle { training, name, request, region, arn: arn.clone(), role, stop, folder };
    shared.tasks.spawn(job.run(warm));
    Ok(Some(json!({"TrainingJobArn": arn})))
}

/// Each channel must have objects that the role may list when the job is created.
fn check_inputs(store: &PlatformStore, request: &Value, region: &str) -> Result<(), ApiError> {
    let role = text(request, "RoleArn").unwrap_or_default();
    for uri in channel_uris(request) {
        if !S3Location::parse(uri).is_some_and(|place| store.has_objects(&place)) {
            return Err(ApiError::validation(format!(
                "No S3 objects found under S3 URL \"{uri}\" given in input data source. Please ensure that the bucket \
                 exists in the selected region ({region}), that objects exist under that S3 prefix, and that the role \
                 \"{role}\" has \"s3:ListBucket\" permissions on bucket."
            )));
        }
    }
    Ok(())
}

fn with_job(training: &Training, request: &Value, act: impl FnOnce(&mut Job) -> Answer) -> Answer {
    let name = text(request, "TrainingJobName").unwrap_or_default();
    act(training.jobs().get_mut(name).filter(|job| training.shared.is_visible(job.created_ms)).ok_or_else(not_found)?)
}

fn describe(training: &Arc<Training>, request: &Value, _: &Caller) -> Answer {
    with_job(training, request, |job| Ok(Some(job.description())))
}

fn stop(training: &Arc<Training>, request: &Value, _: &Caller) -> Answer {
    with_job(training, request, |job| {
        if job.phase().ended() {
            return Err(ApiError::validation(format!(
                "The request was rejected because the training job is in status {}.",
                job.phase().primary()
            )));
        }
        if job.phase() != Phase::Stopping {
            job.enter(Phase::Stopping, "Stopping the training job");
        }
        job.stop.cancel();
        Ok(None)
    })
}

fn update(training: &Arc<Training>, request: &Value, _: &Caller) -> Answer {
    with_job(training, request, |job| {
        if let Some(debug) = request.get("RemoteDebugConfig") {
            if !matches!(job.phase(), Phase::Downloading | Phase::Training) {
                return Err(ApiError::validation(format!(
                    "RemoteDebugConfig can be updated only while the training job is Downloading or Training, but it \
                     is in status {:?}.",
                    job.phase()
                )));
            }
            job.request["RemoteDebugConfig"] = debug.clone();
        }
        if let Some(seconds) = request.pointer("/ResourceConfig/KeepAlivePeriodInSeconds") {
            keep(training, job, seconds)?;
        }
        Ok(Some(json!({"TrainingJobArn": job.arn})))
    })
}

/// Changes how long the instances of a job stay when it has ended.
fn keep(training: &Arc<Training>, job: &mut Job, seconds: &Value) -> Result<(), ApiError> {
    rules::check_keep_alive(&job.request, seconds)?;
    let period = Duration::from_secs(seconds.as_u64().unwrap_or(0));
    if job.phase().ended() && !training.change_pool(job, period) {
        return Err(ApiError::validation(format!(
            "KeepAlivePeriodInSeconds cannot be updated: the training job {} has no available warm pool.",
            job.name
        )));
    }
    job.request["ResourceConfig"]["KeepAlivePeriodInSeconds"] = seconds.clone();
    if !job.phase().ended() && !period.is_zero() {
        job.use_pool();
    }
    Ok(())
}

fn delete(training: &Arc<Training>, request: &Value, _: &Caller) -> Answer {
    let name = text(request, "TrainingJobName").unwrap_or_default();
    let mut jobs = training.jobs();
    let job = jobs.get(name).ok_or_else(not_found)?;
    if !job.phase().ended() {
        return Err(ApiError::new(
            "ResourceInUse",
            format!("Training job {name} is in status {} and cannot be deleted.", job.phase().primary()),
        ));
    }
    if job.pool() == Some(PoolPhase::Available) {
        return Err(ApiError::new(
            "ResourceInUse",
            format!("Training job {name} has an available warm pool and cannot be deleted."),
        ));
    }
    training.shared.tags.remove(&job.arn);
    jobs.remove(name);
    Ok(None)
}

fn list(training: &Arc<Training>, request: &Value, _: &Caller) -> Answer {
    let limit = request.get("MaxResults").and_then(Value::as_u64).unwrap_or(10);
    let limit = usize::try_from(limit).unwrap_or(10);
    let after = |name: &str, ms: u64| milliseconds(request, name).is_none_or(|bound| ms > bound);
    let before = |name: &str, ms: u64| milliseconds(request, name).is_none_or(|bound| ms < bound);
    let jobs = training.jobs();
    let mut chosen: Vec<&Job> = jobs
        .values()
        .filter(|job| {
            training.shared.is_visible(job.created_ms)
                && text(request, "NameContains").is_none_or(|part| job.name.contains(part))
                && after("CreationTimeAfter", job.created_ms)
                && before("CreationTimeBefore", job.created_ms)
                && after("LastModifiedTimeAfter", job.modified_ms())
                && before("LastModifiedTimeBefore", job.modified_ms())
                && text(request, "WarmPoolStatusEquals").is_none_or(|status| json!(job.pool()) == status)
        })
        .collect();
    match text(request, "SortBy") {
        Some("Name") => chosen.sort_by(|one, other| one.name.cmp(&other.name)),
        Some("Status") => chosen.sort_by_key(|job| (job.phase().primary(), job.number)),
        _ => chosen.sort_by_key(|job| (job.created_ms, job.number)),
    }
    if text(request, "SortOrder") != Some("Ascending") {
        chosen.reverse();
    }
    let offset = match text(request, "NextToken") {
        None => 0,
        Some(token) => token
            .strip_prefix("jobs-")
            .and_then(|offset| offset.parse::<usize>().ok())
            .ok_or_else(|| ApiError::validation("Invalid pagination token."))?,
    };
    // The status filter applies after a page was taken, so pages can be short.
    let page: Vec<Value> = chosen
        .iter()
        .skip(offset)
        .take(limit)
        .filter(|job| text(request, "StatusEquals").is_none_or(|status| job.phase().primary() == status))
        .map(|job| job.summary())
        .collect();
    let mut answer = json!({"TrainingJobSummaries": page});
    if offset + limit < chosen.len() {
        answer["NextToken"] = json!(format!("jobs-{}", offset + limit));
    }
    Ok(Some(answer))
}
