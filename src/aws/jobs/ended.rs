//! Training jobs that have ended: their list, and their deletion. Only `prune` asks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_sagemaker::types::{SortBy, SortOrder, TrainingJobStatus, TrainingJobSummary, WarmPoolResourceStatus};
use executor::cloud::{CloudError, CloudErrorKind, EndedJob, EndedJobs};

use super::{AwsJobs, job, none_if_absent};
use crate::tags;

/// Page size of `ListTrainingJobs`; the service's maximum.
const PAGE: i32 = 100;
/// Between two pages: the account has two requests a second, and others need some.
const PAUSE: Duration = Duration::from_secs(1);

#[async_trait]
impl EndedJobs for AwsJobs {
    async fn ended(&self, name_contains: &str, created_before: SystemTime) -> Result<Vec<EndedJob>, CloudError> {
        let operation = format!("training jobs named *{name_contains}* that have ended");
        let call = self.clients.call("list", operation, "sagemaker:ListTrainingJobs");
        let (mut found, mut token) = (Vec::new(), None::<String>);
        loop {
            let request = self.clients.sagemaker().list_training_jobs().name_contains(name_contains).max_results(PAGE);
            let request = request.creation_time_before(created_before.into()).set_next_token(token);
            let newest = request.sort_by(SortBy::CreationTime).sort_order(SortOrder::Descending);
            let reply = newest.send().await.map_err(|error| call.failed(&error))?;
            found.extend(reply.training_job_summaries.unwrap_or_default().into_iter().filter_map(ended));
            token = reply.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(found);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn job_tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError> {
        let call = self.clients.call("list the tags of", arn, "sagemaker:ListTags");
        tags::of(&self.clients, &call, arn).await
    }

    async fn delete_job(&self, name: &str) -> Result<(), CloudError> {
        let call = self.clients.call("delete", job(name), "sagemaker:DeleteTrainingJob");
        let request = self.clients.sagemaker().delete_training_job().training_job_name(name);
        let reply = request.customize().config_override(self.clients.deletion()).send().await;
        match reply.map_err(|error| call.failed(&error)) {
            Ok(_) => Ok(()),
            // SageMaker says of a job in use that it is no valid request, too.
            Err(error) if error.kind == CloudErrorKind::Invalid && error.message.contains("warm pool") => {
                Err(CloudError { kind: CloudErrorKind::Exists, ..error })
            }
            Err(error) => none_if_absent::<()>(error).map(|_| ()),
        }
    }

    async fn images_of_running(&self) -> Result<BTreeSet<String>, CloudError> {
        let call = self.clients.call("list", "the training jobs that run", "sagemaker:ListTrainingJobs");
        let (mut names, mut token) = (Vec::new(), None::<String>);
        loop {
            let request = self.clients.sagemaker().list_training_jobs().status_equals(TrainingJobStatus::InProgress);
            let request = request.max_results(PAGE).set_next_token(token);
            let reply = request.send().await.map_err(|error| call.failed(&error))?;
            names.extend(
                reply.training_job_summaries.unwrap_or_default().into_iter().filter_map(|one| one.training_job_name),
            );
            token = reply.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let mut images = BTreeSet::new();
        for name in names {
            let call = self.clients.call("look at", job(&name), "sagemaker:DescribeTrainingJob");
            let reply = self.clients.sagemaker().describe_training_job().training_job_name(&name).send().await;
            let reply = match reply.map_err(|error| call.failed(&error)) {
                Ok(reply) => Some(reply),
                Err(error) => none_if_absent(error)?,
            };
            images.extend(reply.and_then(|reply| reply.algorithm_specification?.training_image));
        }
        Ok(images)
    }
}

/// `None` for a job that has not ended.
fn ended(summary: TrainingJobSummary) -> Option<EndedJob> {
    let status = summary.training_job_status?;
    let has_ended =
        [TrainingJobStatus::Completed, TrainingJobStatus::Failed, TrainingJobStatus::Stopped].contains(&status);
    let pool = summary.warm_pool_status.and_then(|pool| pool.status);
    let waits = [WarmPoolResourceStatus::Available, WarmPoolResourceStatus::Inuse];
    let ended = summary.training_end_time.or(summary.last_modified_time);
    has_ended.then_some(EndedJob {
        name: summary.training_job_name?,
        arn: summary.training_job_arn?,
        ended: ended.and_then(|at| SystemTime::try_from(at).ok()),
        has_pool: pool.is_some_and(|pool| waits.contains(&pool)),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::stub::{Stub, refusal, reply};

    #[tokio::test]
    async fn jobs_that_have_ended_are_listed_with_their_pools() {
        let stub = Stub::start().await;
        let jobs = AwsJobs::new(Arc::clone(&stub.clients));
        let job = |name: &str, status: &str, pool: Option<&str>| {
            json!({
                "TrainingJobName": name, "TrainingJobArn": format!("arn:{name}"), "CreationTime": 1.0,
                "TrainingEndTime": 60.0, "TrainingJobStatus": status,
                "WarmPoolStatus": pool.map(|pool| json!({"Status": pool})),
            })
        };
        let listed = [
            job("one", "Completed", None),
            job("two", "InProgress", None),
            job("three", "Failed", Some("Available")),
            job("four", "Stopped", Some("Terminated")),
        ];
        stub.push(reply(200, json!({"TrainingJobSummaries": listed}).to_string()));
        let found = jobs.ended("gitlab-42-", SystemTime::UNIX_EPOCH + Duration::from_hours(1)).await.unwrap();
        let shown: Vec<_> = found.iter().map(|job| (job.name.as_str(), job.has_pool)).collect();
        assert_eq!(shown, [("one", false), ("three", true), ("four", false)]);
        assert_eq!(found[0].ended, Some(SystemTime::UNIX_EPOCH + Duration::from_mins(1)));
        stub.push(refusal(400, "ValidationException", "Requested resource not found."));
        assert!(jobs.delete_job("gone").await.is_ok());
        stub.push(refusal(400, "ResourceInUse", "it has an available warm pool"));
        assert_eq!(jobs.delete_job("three").await.unwrap_err().kind, CloudErrorKind::Exists);
    }

    #[tokio::test]
    async fn images_of_jobs_that_run_are_read_and_a_job_that_is_gone_has_none() {
        let stub = Stub::start().await;
        let jobs = AwsJobs::new(Arc::clone(&stub.clients));
        let named = |name: &str| json!({"TrainingJobName": name, "TrainingJobArn": "a", "CreationTime": 1.0, "TrainingJobStatus": "InProgress"});
        stub.push(reply(200, json!({"TrainingJobSummaries": [named("one"), named("two")]}).to_string()));
        let image = json!({"AlgorithmSpecification": {"TrainingImage": "r/train:1", "TrainingInputMode": "File"}});
        stub.push(reply(200, image.to_string()));
        stub.push(refusal(400, "ValidationException", "Requested resource not found."));
        assert_eq!(jobs.images_of_running().await.unwrap(), BTreeSet::from(["r/train:1".to_owned()]));
        stub.push(refusal(400, "AccessDeniedException", "no"));
        assert_eq!(jobs.images_of_running().await.unwrap_err().kind, CloudErrorKind::Denied);
    }
}
