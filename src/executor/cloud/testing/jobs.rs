//! Fake of SageMaker's training jobs: they change by hand, or by one step per describe. No delays, no limits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::faults::Fake;
use crate::base::clock::Clock;
use crate::cloud::{
    Channel, ChannelMode, ChannelSource, CloudError, CloudErrorKind, EndedJob, EndedJobs, JobStatus, PoolProperties,
    RunningJob, RunningJobs, SecondaryStatus, TrainingJob, TrainingJobSpec, TrainingJobs,
};

/// Training jobs that change by hand ([`MemoryJobs::set_status`]), or by one step per describe
/// ([`MemoryJobs::advance_on_describe`]).
pub type MemoryJobs = Fake<JobsState>;

#[derive(Debug, Default)]
pub struct JobsState {
    jobs: BTreeMap<String, FakeJob>,
    created: u64,
    /// Dates new jobs; without it, they are made in the first seconds of 1970.
    clock: Option<Arc<dyn Clock>>,
    is_cut: bool,
}

#[derive(Debug)]
struct FakeJob {
    spec: TrainingJobSpec,
    now: TrainingJob,
    steps: VecDeque<(JobStatus, SecondaryStatus)>,
    /// Number of describes that do not show the job yet.
    hidden: u32,
}

impl MemoryJobs {
    /// Sets `status` and `secondary` of a job, and drops its planned steps. Ignores a job that does not exist.
    pub fn set_status(&self, name: &str, status: JobStatus, secondary: SecondaryStatus) {
        if let Some(job) = self.inner().service.jobs.get_mut(name) {
            job.steps.clear();
            job.step(status, secondary);
        }
    }

    /// Changes any field of the described job, such as the failure reason. Ignores a job that does not exist.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut TrainingJob)) {
        if let Some(job) = self.inner().service.jobs.get_mut(name) {
            change(&mut job.now);
        }
    }

    /// Each following describe takes the next of these steps before it answers; the last one stays.
    pub fn advance_on_describe(&self, name: &str, steps: &[(JobStatus, SecondaryStatus)]) {
        if let Some(job) = self.inner().service.jobs.get_mut(name) {
            job.steps.extend(steps.iter().cloned());
        }
    }

    /// Dates the jobs that are created from now on.
    pub fn set_clock(&self, clock: Arc<dyn Clock>) {
        self.inner().service.clock = Some(clock);
    }

    /// Every list of running jobs says that it is not whole.
    pub fn cut_lists(&self) {
        self.inner().service.is_cut = true;
    }

    /// The next `describes` describes do not show the job yet.
    pub fn hide(&self, name: &str, describes: u32) {
        if let Some(job) = self.inner().service.jobs.get_mut(name) {
            job.hidden = describes;
        }
    }

    /// The request that created this job.
    pub fn spec(&self, name: &str) -> Option<TrainingJobSpec> {
        self.inner().service.jobs.get(name).map(|job| job.spec.clone())
    }

    /// Names of all jobs, in order.
    pub fn names(&self) -> Vec<String> {
        self.inner().service.jobs.keys().cloned().collect()
    }
}

impl FakeJob {
    fn step(&mut self, status: JobStatus, secondary: SecondaryStatus) {
        (self.now.status, self.now.secondary) = (status, secondary);
    }
}

#[async_trait]
impl TrainingJobs for MemoryJobs {
    /// The creator's session is the call `assume`, before the one that creates the job.
    async fn create(&self, spec: &TrainingJobSpec) -> Result<String, CloudError> {
        if let Some(session) = &spec.creator {
            let assumed = self.call("assume", &session.role_arn, |_| Ok(())).await;
            assumed.map_err(|error| CloudError { action: "sts:AssumeRole", ..error })?;
        }
        let act = |service: &mut JobsState| {
            if service.jobs.contains_key(&spec.name) {
                return Err(CloudError {
                    kind: CloudErrorKind::Exists,
                    operation: format!("create training job {}", spec.name),
                    message: "ResourceInUse: Training job names must be unique".to_owned(),
                    action: "sagemaker:CreateTrainingJob",
                });
            }
            service.created += 1;
            let created = match &service.clock {
                // No two at the same time: lists are in the order of creation.
                Some(clock) => clock.now() + Duration::from_nanos(service.created),
                None => SystemTime::UNIX_EPOCH + Duration::from_secs(service.created),
            };
            let now = TrainingJob {
                created: Some(created),
                pool: pool_properties(spec),
                input_uris: spec.channels.iter().filter_map(s3_uri).collect(),
                instances: vec![(spec.instance_type.clone(), spec.instance_count)],
                ..example_job(&spec.name, JobStatus::InProgress, SecondaryStatus::Starting)
            };
            let arn = now.arn.clone();
            let job = FakeJob { spec: spec.clone(), now, steps: VecDeque::new(), hidden: 0 };
            service.jobs.insert(spec.name.clone(), job);
            Ok(arn)
        };
        self.call("create", &spec.name, act).await
    }

    async fn describe(&self, name: &str) -> Result<Option<TrainingJob>, CloudError> {
        let act = |service: &mut JobsState| {
            let Some(job) = service.jobs.get_mut(name) else { return Ok(None) };
            if job.hidden > 0 {
                job.hidden -= 1;
                return Ok(None);
            }
            if let Some((status, secondary)) = job.steps.pop_front() {
                job.step(status, secondary);
            }
            Ok(Some(job.now.clone()))
        };
        self.call("describe", name, act).await
    }

    async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError> {
        let absent = || CloudError {
            kind: CloudErrorKind::NotFound,
            operation: format!("list the tags of {arn}"),
            message: "ValidationException: Requested resource not found".to_owned(),
            action: "sagemaker:ListTags",
        };
        let tagged = |service: &mut JobsState| {
            let job = service.jobs.values().find(|job| job.now.arn == arn);
            job.map(|job| job.spec.tags.clone()).ok_or_else(absent)
        };
        self.call("tags", arn, tagged).await
    }

    /// The job becomes `Stopping`, and `Stopped` at the second describe.
    async fn stop(&self, name: &str) -> Result<(), CloudError> {
        let act = |service: &mut JobsState| {
            if let Some(job) = service.jobs.get_mut(name)
                && job.now.status == JobStatus::InProgress
            {
                job.step(JobStatus::Stopping, SecondaryStatus::Stopping);
                job.steps = VecDeque::from([
                    (JobStatus::Stopping, SecondaryStatus::Stopping),
                    (JobStatus::Stopped, SecondaryStatus::Stopped),
                ]);
            }
            Ok(())
        };
        self.call("stop", name, act).await
    }

    /// The jobs with a keep-alive that have ended, and whose instances no other job got.
    async fn warm_pools(&self, name_contains: &str) -> Result<Vec<String>, CloudError> {
        let act = |service: &mut JobsState| {
            let kept = service.jobs.values().filter(|job| job.spec.keep_alive > 0).map(|job| &job.now);
            let waiting = kept.filter(|job| job.status.is_terminal() && job.pool_taken_by.is_none());
            let mut jobs: Vec<&TrainingJob> = waiting.filter(|job| job.name.contains(name_contains)).collect();
            jobs.sort_by_key(|job| std::cmp::Reverse(job.created));
            Ok(jobs.into_iter().map(|job| job.name.clone()).collect())
        };
        self.call("warm_pools", name_contains, act).await
    }

    /// Hidden jobs are not listed either.
    async fn running(&self, name_contains: &str, created: Range<SystemTime>) -> Result<RunningJobs, CloudError> {
        let act = |service: &mut JobsState| {
            let shown = service.jobs.values().filter(|job| job.hidden == 0 && job.now.status == JobStatus::InProgress);
            let named = shown.filter(|job| job.now.name.contains(name_contains));
            let mut jobs: Vec<RunningJob> = named
                .filter_map(|job| Some(RunningJob { name: job.now.name.clone(), created: job.now.created? }))
                .filter(|job| created.contains(&job.created))
                .collect();
            jobs.sort_by_key(|job| std::cmp::Reverse(job.created));
            Ok(RunningJobs { jobs, is_cut: service.is_cut })
        };
        self.call("running", name_contains, act).await
    }
}

/// A job ends at its last transition, else at its creation.
#[async_trait]
impl EndedJobs for MemoryJobs {
    async fn ended(&self, name_contains: &str, created_before: SystemTime) -> Result<Vec<EndedJob>, CloudError> {
        let act = |service: &mut JobsState| {
            let meant = service.jobs.values().filter(|job| {
                job.now.status.is_terminal()
                    && job.now.name.contains(name_contains)
                    && job.now.created.is_some_and(|created| created < created_before)
            });
            let mut jobs: Vec<_> = meant.collect();
            jobs.sort_by_key(|job| std::cmp::Reverse(job.now.created));
            Ok(jobs.into_iter().map(ended_job).collect())
        };
        self.call("ended", name_contains, act).await
    }

    async fn job_tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError> {
        TrainingJobs::tags(self, arn).await
    }

    async fn delete_job(&self, name: &str) -> Result<(), CloudError> {
        let act = |service: &mut JobsState| {
            let is_free = |job: &FakeJob| job.now.status.is_terminal() && !ended_job(job).has_pool;
            if service.jobs.get(name).is_some_and(|job| !is_free(job)) {
                return Err(CloudError {
                    kind: CloudErrorKind::Exists,
                    operation: format!("delete training job {name}"),
                    message: "ResourceInUse: it has not ended, or its warm pool has not".to_owned(),
                    action: "sagemaker:DeleteTrainingJob",
                });
            }
            service.jobs.remove(name);
            Ok(())
        };
        self.call("delete_job", name, act).await
    }

    async fn images_of_running(&self) -> Result<BTreeSet<String>, CloudError> {
        let act = |service: &mut JobsState| {
            let running = service.jobs.values().filter(|job| !job.now.status.is_terminal());
            Ok(running.map(|job| job.spec.image.clone()).collect())
        };
        self.call("images_of_running", "", act).await
    }
}

fn ended_job(job: &FakeJob) -> EndedJob {
    let now = &job.now;
    EndedJob {
        name: now.name.clone(),
        arn: now.arn.clone(),
        ended: now.transitions.last().and_then(|last| last.started).or(now.created),
        has_pool: job.spec.keep_alive > 0 && now.pool_taken_by.is_none() && now.pool_seconds.is_none(),
    }
}

fn s3_uri(channel: &Channel) -> Option<String> {
    match &channel.source {
        ChannelSource::S3 { uri, .. } | ChannelSource::Listed { uri } => Some(uri.clone()),
        ChannelSource::FileSystem { .. } => None,
    }
}

fn pool_properties(spec: &TrainingJobSpec) -> PoolProperties {
    PoolProperties {
        role_arn: spec.role_arn.clone(),
        instance_type: if spec.preferred_types.is_empty() { spec.instance_type.clone() } else { String::new() },
        instance_count: spec.instance_count,
        volume_size_gb: spec.volume_size_gb,
        volume_kms_key_id: spec.volume_kms_key_id.clone(),
        has_checkpoints: spec.checkpoints_uri.is_some(),
        ..PoolProperties::default()
    }
}

/// A described job without times and texts.
pub fn example_job(name: &str, status: JobStatus, secondary: SecondaryStatus) -> TrainingJob {
    TrainingJob {
        name: name.to_owned(),
        arn: format!("arn:aws:sagemaker:eu-west-1:123456789012:training-job/{name}"),
        status,
        secondary,
        message: None,
        failure_reason: None,
        input_uris: Vec::new(),
        created: None,
        instances: Vec::new(),
        is_spot: false,
        training_started: None,
        training_seconds: None,
        billable_seconds: None,
        transitions: Vec::new(),
        pool: PoolProperties::default(),
        pool_taken_by: None,
        pool_seconds: None,
    }
}

/// A small request: one channel, one instance, no network.
pub fn example_spec(name: &str) -> TrainingJobSpec {
    TrainingJobSpec {
        name: name.to_owned(),
        image: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/train:2.4".to_owned(),
        role_arn: "arn:aws:iam::123456789012:role/train".to_owned(),
        entrypoint: vec!["/bin/sh".to_owned(), "/opt/ml/input/data/agent/start".to_owned()],
        arguments: Vec::new(),
        environment: BTreeMap::from([("AGENT_SESSION".to_owned(), name.to_owned())]),
        channels: vec![Channel {
            name: "agent".to_owned(),
            source: ChannelSource::S3 { uri: "s3://memory/agent/1/".to_owned(), is_sharded: false },
            mode: ChannelMode::File,
            content_type: None,
        }],
        metrics: Vec::new(),
        output_uri: "s3://memory/output".to_owned(),
        compress_output: false,
        output_kms_key_id: None,
        instance_type: "ml.m5.large".to_owned(),
        preferred_types: Vec::new(),
        instance_count: 1,
        instance_groups: Vec::new(),
        volume_size_gb: 30,
        volume_kms_key_id: None,
        max_runtime: 3600,
        max_pending: None,
        spot_max_wait: None,
        checkpoints_uri: None,
        retries: 0,
        keep_alive: 0,
        training_plan_arn: None,
        vpc_registry: None,
        network: None,
        encrypt_inter_container_traffic: false,
        remote_debug: false,
        is_isolated: false,
        tags: BTreeMap::from([("sagemaker-executor:session".to_owned(), name.to_owned())]),
        creator: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_name_exists_and_keeps_the_first_spec() {
        let jobs = MemoryJobs::default();
        let arn = jobs.create(&example_spec("a")).await.unwrap();
        let mut other = example_spec("a");
        other.instance_type = "ml.p5.48xlarge".to_owned();
        assert_eq!(jobs.create(&other).await.unwrap_err().kind, CloudErrorKind::Exists);
        assert_eq!(jobs.spec("a").unwrap().instance_type, "ml.m5.large");
        assert_eq!(jobs.tags(&arn).await.unwrap(), example_spec("a").tags);
        assert_eq!(jobs.calls(), ["create a", "create a", &format!("tags {arn}")]);
    }

    #[tokio::test]
    async fn a_job_advances_by_describe_and_by_hand_and_stops() {
        let jobs = MemoryJobs::default();
        jobs.create(&example_spec("a")).await.unwrap();
        let steps =
            [(JobStatus::InProgress, SecondaryStatus::Downloading), (JobStatus::InProgress, SecondaryStatus::Training)];
        jobs.advance_on_describe("a", &steps);
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(jobs.describe("a").await.unwrap().unwrap().secondary);
        }
        assert_eq!(seen, [SecondaryStatus::Downloading, SecondaryStatus::Training, SecondaryStatus::Training]);
        jobs.stop("a").await.unwrap();
        assert_eq!(jobs.describe("a").await.unwrap().unwrap().status, JobStatus::Stopping);
        assert_eq!(jobs.describe("a").await.unwrap().unwrap().status, JobStatus::Stopped);
        jobs.set_status("a", JobStatus::Failed, SecondaryStatus::Failed);
        jobs.stop("a").await.unwrap();
        assert_eq!(jobs.describe("a").await.unwrap().unwrap().status, JobStatus::Failed);
        assert_eq!(jobs.describe("b").await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_newest_warm_pools_are_listed_first() {
        let jobs = MemoryJobs::default();
        for (name, keep_alive) in
            [("gitlab-1", 60), ("other", 60), ("gitlab-2", 60), ("gitlab-3", 0), ("gitlab-4", 60), ("gitlab-5", 60)]
        {
            jobs.create(&TrainingJobSpec { keep_alive, ..example_spec(name) }).await.unwrap();
            jobs.set_status(name, JobStatus::Completed, SecondaryStatus::Completed);
        }
        jobs.set_status("gitlab-4", JobStatus::InProgress, SecondaryStatus::Training);
        jobs.change("gitlab-5", |job| job.pool_taken_by = Some("gitlab-4".to_owned()));
        assert_eq!(jobs.warm_pools("gitlab").await.unwrap(), ["gitlab-2", "gitlab-1"]);
    }

    #[tokio::test]
    async fn a_hidden_job_is_shown_after_so_many_describes() {
        let jobs = MemoryJobs::default();
        jobs.create(&example_spec("a")).await.unwrap();
        jobs.hide("a", 1);
        assert_eq!(jobs.describe("a").await.unwrap(), None);
        assert!(jobs.describe("a").await.unwrap().is_some());
    }
}
