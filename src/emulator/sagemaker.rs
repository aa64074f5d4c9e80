//! The `SageMaker` operations: training jobs and their tags.
//!
//! Checks a request, reads or changes the records, starts the life of a job. Never runs anything itself.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Core;
use super::channels::S3Location;
use super::constraints as tables;
use super::job::{Job, Phase, tag_map};
use super::protocol::{Answer, ApiError, text};
use super::validate::check;
use super::{clock, life};

/// Runs one operation of the service.
pub(crate) fn call(core: &Arc<Core>, operation: &str, request: Value, region: &str) -> Answer {
    match operation {
        "CreateTrainingJob" => create(core, request, region),
        "DescribeTrainingJob" => {
            check(&request, tables::ONE_JOB)?;
            with_job(core, &request, |job| Ok(Some(job.description())))
        }
        "StopTrainingJob" => stop(core, &request),
        "UpdateTrainingJob" => update(core, &request),
        "DeleteTrainingJob" => delete(core, &request),
        "ListTrainingJobs" => list(core, &request),
        "AddTags" => add_tags(core, &request),
        "ListTags" => list_tags(core, &request),
        "DeleteTags" => delete_tags(core, &request),
        _ => Err(ApiError::new("UnknownOperationException", "")),
    }
}

fn not_found() -> ApiError {
    ApiError::validation("Requested resource not found.")
}

fn create(core: &Arc<Core>, request: Value, region: &str) -> Answer {
    check(&request, tables::CREATE)?;
    tables::check_create(&request)?;
    let name = text(&request, "TrainingJobName").unwrap_or_default().to_owned();
    let taken = || {
        ApiError::new(
            "ResourceInUse",
            format!(
                "Training job names must be unique within an AWS account and region, and a training job with this \
                 name already exists ({})",
                core.job_arn(region, &name)
            ),
        )
    };
    if core.jobs().contains_key(&name) {
        return Err(taken());
    }
    check_inputs(core, &request, region)?;
    let arn = core.job_arn(region, &name);
    let mut jobs = core.jobs();
    if jobs.contains_key(&name) {
        return Err(taken());
    }
    let job = Job::new(request, arn.clone(), region.to_owned(), core.next_number(), core.shutdown.child_token());
    jobs.insert(name.clone(), job);
    drop(jobs);
    core.tasks.spawn(life::run(Arc::clone(core), name));
    Ok(Some(json!({"TrainingJobArn": arn})))
}

/// Every channel needs objects when the job is created, and the output needs its bucket.
fn check_inputs(core: &Core, request: &Value, region: &str) -> Result<(), ApiError> {
    let role = text(request, "RoleArn").unwrap_or_default();
    for channel in request.get("InputDataConfig").and_then(Value::as_array).into_iter().flatten() {
        let Some(source) = channel.pointer("/DataSource/S3DataSource") else { continue };
        let uri = text(source, "S3Uri").unwrap_or_default();
        let found = S3Location::parse(uri)
            .and_then(|place| core.store.list(&place.bucket, &place.key, None, None, 1).ok())
            .is_some_and(|page| !page.objects.is_empty());
        if !found {
            return Err(ApiError::validation(format!(
                "No S3 objects found under S3 URL \"{uri}\" given in input data source. Please ensure that the bucket \
                 exists in the selected region ({region}), that objects exist under that S3 prefix, and that the role \
                 \"{role}\" has \"s3:ListBucket\" permissions on bucket."
            )));
        }
    }
    Ok(())
}

fn with_job(core: &Core, request: &Value, act: impl FnOnce(&mut Job) -> Answer) -> Answer {
    let name = text(request, "TrainingJobName").unwrap_or_default();
    act(core.jobs().get_mut(name).filter(|job| is_visible(core, job)).ok_or_else(not_found)?)
}

/// A job that was created a moment ago may not be seen yet.
fn is_visible(core: &Core, job: &Job) -> bool {
    clock::now_ms() >= job.created_ms.saturating_add(core.faults.hidden_ms())
}

fn stop(core: &Core, request: &Value) -> Answer {
    check(request, tables::ONE_JOB)?;
    with_job(core, request, |job| {
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

fn update(core: &Core, request: &Value) -> Answer {
    check(request, tables::UPDATE)?;
    with_job(core, request, |job| {
        if let Some(debug) = request.get("RemoteDebugConfig") {
            if !matches!(job.phase(), Phase::Downloading | Phase::Training) {
                return Err(ApiError::validation(format!(
                    "RemoteDebugConfig can be updated only while the training job is Downloading or Training, but it \
                     is in status {}.",
                    job.phase().secondary()
                )));
            }
            job.request["RemoteDebugConfig"] = debug.clone();
        }
        if let Some(period) = request.pointer("/ResourceConfig/KeepAlivePeriodInSeconds") {
            job.request["ResourceConfig"]["KeepAlivePeriodInSeconds"] = period.clone();
        }
        Ok(Some(json!({"TrainingJobArn": job.arn})))
    })
}

fn delete(core: &Core, request: &Value) -> Answer {
    check(request, tables::ONE_JOB)?;
    let name = text(request, "TrainingJobName").unwrap_or_default();
    let mut jobs = core.jobs();
    let job = jobs.get(name).ok_or_else(not_found)?;
    if !job.phase().ended() {
        return Err(ApiError::new(
            "ResourceInUse",
            format!("Training job {name} is in status {} and cannot be deleted.", job.phase().primary()),
        ));
    }
    jobs.remove(name);
    Ok(None)
}

fn list(core: &Core, request: &Value) -> Answer {
    check(request, tables::LIST)?;
    let limit = request.get("MaxResults").and_then(Value::as_u64).unwrap_or(10);
    let limit = usize::try_from(limit).unwrap_or(10);
    let after = |name: &str, ms: u64| bound(request, name).is_none_or(|bound| ms > bound);
    let before = |name: &str, ms: u64| bound(request, name).is_none_or(|bound| ms < bound);
    let jobs = core.jobs();
    let mut chosen: Vec<&Job> = jobs
        .values()
        .filter(|job| {
            is_visible(core, job)
                && text(request, "NameContains").is_none_or(|part| job.name.contains(part))
                && after("CreationTimeAfter", job.created_ms)
                && before("CreationTimeBefore", job.created_ms)
                && after("LastModifiedTimeAfter", job.modified_ms())
                && before("LastModifiedTimeBefore", job.modified_ms())
                && text(request, "WarmPoolStatusEquals").is_none()
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
    // The status is looked at after a page was taken, so pages can be short.
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

/// A time of the request in milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is right for a bound")]
fn bound(request: &Value, name: &str) -> Option<u64> {
    request.get(name).and_then(Value::as_f64).map(|seconds| (seconds * 1000.0) as u64)
}

fn with_tagged(core: &Core, request: &Value, act: impl FnOnce(&mut Job) -> Answer) -> Answer {
    let arn = text(request, "ResourceArn").unwrap_or_default();
    let mut jobs = core.jobs();
    let job = jobs.values_mut().find(|job| job.arn == arn && is_visible(core, job));
    act(job.ok_or_else(|| ApiError::validation(format!("Could not find resource {arn}.")))?)
}

fn add_tags(core: &Core, request: &Value) -> Answer {
    check(request, tables::ADD_TAGS)?;
    tables::check_tags(request.get("Tags"))?;
    with_tagged(core, request, |job| {
        let mut tags = job.tags.clone();
        tags.extend(tag_map(request.get("Tags")));
        if tags.len() > 50 {
            return Err(ApiError::new("ResourceLimitExceeded", "A resource can have at most 50 tags."));
        }
        job.tags = tags;
        Ok(Some(json!({"Tags": tag_list(job)})))
    })
}

fn list_tags(core: &Core, request: &Value) -> Answer {
    check(request, tables::LIST_TAGS)?;
    with_tagged(core, request, |job| Ok(Some(json!({"Tags": tag_list(job)}))))
}

fn delete_tags(core: &Core, request: &Value) -> Answer {
    check(request, tables::DELETE_TAGS)?;
    with_tagged(core, request, |job| {
        for key in request.get("TagKeys").and_then(Value::as_array).into_iter().flatten() {
            job.tags.remove(key.as_str().unwrap_or_default());
        }
        Ok(Some(json!({})))
    })
}

fn tag_list(job: &Job) -> Vec<Value> {
    job.tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
}
