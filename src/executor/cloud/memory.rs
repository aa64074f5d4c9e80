//! The three ports in memory, for unit tests of stages and sessions: deterministic, scriptable, and they remember calls.
//!
//! They do what the ports promise and no more: no delays, no limits, no faults (see `faulty` for those). They never
//! imitate AWS's wire or its quirks; that is the emulator's work.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Cloud, CloudError, CloudErrorKind, FilterPage, JobLogs, JobStatus, Listed, LogEvent, ObjectStore, StreamPage,
    TrainingJob, TrainingJobSpec, TrainingJobSummary, TrainingJobs,
};

/// The three fakes of one [`Cloud`], to script and to question them.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub jobs: Arc<MemoryJobs>,
    pub objects: Arc<MemoryObjects>,
    pub logs: Arc<MemoryLogs>,
}

impl Memory {
    pub fn new() -> Self {
        Self::default()
    }

    /// The ports over these fakes.
    pub fn cloud(&self) -> Cloud {
        Cloud { jobs: self.jobs.clone(), objects: self.objects.clone(), logs: self.logs.clone() }
    }
}

/// Training jobs that change by hand ([`MemoryJobs::set_status`]) or by one step a describe
/// ([`MemoryJobs::advance_on_describe`]).
#[derive(Debug, Default)]
pub struct MemoryJobs {
    state: Mutex<JobsState>,
}

#[derive(Debug, Default)]
struct JobsState {
    jobs: BTreeMap<String, Job>,
    calls: Vec<String>,
    created: u64,
}

#[derive(Debug)]
struct Job {
    spec: TrainingJobSpec,
    now: TrainingJob,
    steps: VecDeque<(JobStatus, String)>,
}

impl MemoryJobs {
    /// Sets `status` and `secondary` of a job at once and forgets steps to come. A job that does not exist stays so.
    pub fn set_status(&self, name: &str, status: JobStatus, secondary: &str) {
        if let Some(job) = lock(&self.state).jobs.get_mut(name) {
            job.steps.clear();
            job.step(status, secondary);
        }
    }

    /// Changes any field of the described job, a failure reason for one. A job that does not exist stays so.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut TrainingJob)) {
        if let Some(job) = lock(&self.state).jobs.get_mut(name) {
            change(&mut job.now);
        }
    }

    /// Each describe from now on takes the next of these before it answers; the last one stays.
    pub fn advance_on_describe(&self, name: &str, steps: &[(JobStatus, &str)]) {
        if let Some(job) = lock(&self.state).jobs.get_mut(name) {
            job.steps.extend(steps.iter().map(|(status, secondary)| (*status, (*secondary).to_owned())));
        }
    }

    /// The calls so far: `create <name>`, `describe <name>`, `tags <arn>`, `stop <name>`, `list <text>`.
    pub fn calls(&self) -> Vec<String> {
        lock(&self.state).calls.clone()
    }

    /// What was asked for under this name.
    pub fn spec(&self, name: &str) -> Option<TrainingJobSpec> {
        lock(&self.state).jobs.get(name).map(|job| job.spec.clone())
    }

    /// Names of all jobs, in order.
    pub fn names(&self) -> Vec<String> {
        lock(&self.state).jobs.keys().cloned().collect()
    }
}

impl Job {
    fn step(&mut self, status: JobStatus, secondary: &str) {
        self.now.status = status;
        secondary.clone_into(&mut self.now.secondary);
    }
}

#[async_trait]
impl TrainingJobs for MemoryJobs {
    async fn create(&self, spec: &TrainingJobSpec) -> Result<String, CloudError> {
        let mut state = lock(&self.state);
        state.calls.push(format!("create {}", spec.name));
        if state.jobs.contains_key(&spec.name) {
            return Err(CloudError {
                kind: CloudErrorKind::Exists,
                operation: format!("create training job {}", spec.name),
                message: "ResourceInUse: Training job names must be unique".to_owned(),
                action: "sagemaker:CreateTrainingJob",
            });
        }
        state.created += 1;
        let arn = format!("arn:aws:sagemaker:eu-west-1:123456789012:training-job/{}", spec.name);
        let job = TrainingJob {
            name: spec.name.clone(),
            arn: arn.clone(),
            status: JobStatus::InProgress,
            secondary: "Starting".to_owned(),
            message: None,
            failure_reason: None,
            created: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(state.created)),
            training_seconds: None,
            billable_seconds: None,
            transitions: Vec::new(),
        };
        state.jobs.insert(spec.name.clone(), Job { spec: spec.clone(), now: job, steps: VecDeque::new() });
        Ok(arn)
    }

    async fn describe(&self, name: &str) -> Result<Option<TrainingJob>, CloudError> {
        let mut state = lock(&self.state);
        state.calls.push(format!("describe {name}"));
        Ok(state.jobs.get_mut(name).map(|job| {
            if let Some((status, secondary)) = job.steps.pop_front() {
                job.step(status, &secondary);
            }
            job.now.clone()
        }))
    }

    async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError> {
        let mut state = lock(&self.state);
        state.calls.push(format!("tags {arn}"));
        state.jobs.values().find(|job| job.now.arn == arn).map(|job| job.spec.tags.clone()).ok_or_else(|| CloudError {
            kind: CloudErrorKind::NotFound,
            operation: format!("list the tags of {arn}"),
            message: "ValidationException: Requested resource not found".to_owned(),
            action: "sagemaker:ListTags",
        })
    }

    /// The job is `Stopping` now, and `Stopped` from the second describe on.
    async fn stop(&self, name: &str) -> Result<(), CloudError> {
        let mut state = lock(&self.state);
        state.calls.push(format!("stop {name}"));
        if let Some(job) = state.jobs.get_mut(name)
            && job.now.status == JobStatus::InProgress
        {
            job.step(JobStatus::Stopping, "Stopping");
            job.steps = VecDeque::from([
                (JobStatus::Stopping, "Stopping".to_owned()),
                (JobStatus::Stopped, "Stopped".to_owned()),
            ]);
        }
        Ok(())
    }

    async fn list(&self, name_contains: &str) -> Result<Vec<TrainingJobSummary>, CloudError> {
        let mut state = lock(&self.state);
        state.calls.push(format!("list {name_contains}"));
        let mut jobs: Vec<&TrainingJob> =
            state.jobs.values().map(|job| &job.now).filter(|job| job.name.contains(name_contains)).collect();
        jobs.sort_by_key(|job| std::cmp::Reverse(job.created));
        Ok(jobs
            .into_iter()
            .map(|job| TrainingJobSummary { name: job.name.clone(), arn: job.arn.clone(), status: job.status })
            .collect())
    }
}

/// Objects in a map.
#[derive(Debug, Default)]
pub struct MemoryObjects {
    state: Mutex<ObjectsState>,
}

#[derive(Debug, Default)]
struct ObjectsState {
    objects: BTreeMap<String, Vec<u8>>,
    /// Objects that were not written just now.
    aged: BTreeMap<String, SystemTime>,
    calls: Vec<String>,
}

impl MemoryObjects {
    /// Takes an object away, as a lifecycle rule does.
    pub fn expire(&self, key: &str) {
        lock(&self.state).objects.remove(key);
    }

    /// Listings show the object as written at `modified`.
    pub fn set_modified(&self, key: &str, modified: SystemTime) {
        lock(&self.state).aged.insert(key.to_owned(), modified);
    }

    /// Puts an object without a call.
    pub fn insert(&self, key: &str, body: impl Into<Vec<u8>>) {
        lock(&self.state).objects.insert(key.to_owned(), body.into());
    }

    /// The object, without a call.
    pub fn contents(&self, key: &str) -> Option<Vec<u8>> {
        lock(&self.state).objects.get(key).cloned()
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<String> {
        lock(&self.state).objects.keys().cloned().collect()
    }

    /// The calls so far: method and key, `delete` once a key.
    pub fn calls(&self) -> Vec<String> {
        lock(&self.state).calls.clone()
    }

    fn called(&self, method: &str, key: &str) -> MutexGuard<'_, ObjectsState> {
        let mut state = lock(&self.state);
        state.calls.push(format!("{method} {key}"));
        state
    }
}

#[async_trait]
impl ObjectStore for MemoryObjects {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CloudError> {
        Ok(self.called("get", key).objects.get(key).cloned())
    }

    async fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Option<Bytes>, CloudError> {
        let state = self.called("get_range", key);
        Ok(state.objects.get(key).map(|body| {
            let start = usize::try_from(start).unwrap_or(usize::MAX).min(body.len());
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(body.len() - start);
            Bytes::copy_from_slice(&body[start..start + length])
        }))
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, CloudError> {
        Ok(self.called("size", key).objects.get(key).map(|body| body.len() as u64))
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), CloudError> {
        let mut state = self.called("put", key);
        state.aged.remove(key);
        state.objects.insert(key.to_owned(), body);
        Ok(())
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<(), CloudError> {
        let body = std::fs::read(path).map_err(|error| local("put", key, path, &error))?;
        self.called("put_file", key).objects.insert(key.to_owned(), body);
        Ok(())
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<bool, CloudError> {
        let mut state = self.called("put_if_absent", key);
        if state.objects.contains_key(key) {
            return Ok(false);
        }
        state.objects.insert(key.to_owned(), body.into());
        Ok(true)
    }

    async fn inventory(&self, prefix: &str) -> Result<Vec<Listed>, CloudError> {
        let state = self.called("list", prefix);
        let own = state.objects.iter().filter(|(key, _)| key.starts_with(prefix));
        let listed = own.map(|(key, body)| Listed {
            key: key.clone(),
            bytes: body.len() as u64,
            modified: Some(state.aged.get(key).copied().unwrap_or_else(SystemTime::now)),
        });
        Ok(listed.collect())
    }

    async fn delete(&self, keys: &[String]) -> Result<(), CloudError> {
        for key in keys {
            self.called("delete", key).objects.remove(key);
        }
        Ok(())
    }

    fn uri(&self, key: &str) -> String {
        format!("s3://memory/{key}")
    }
}

/// Log streams that grow by hand.
#[derive(Debug)]
pub struct MemoryLogs {
    state: Mutex<LogsState>,
}

#[derive(Debug)]
struct LogsState {
    streams: BTreeMap<String, Vec<LogEvent>>,
    page: usize,
    pushed: u64,
    calls: Vec<String>,
}

impl Default for MemoryLogs {
    fn default() -> Self {
        Self { state: Mutex::new(LogsState { streams: BTreeMap::new(), page: 10_000, pushed: 0, calls: Vec::new() }) }
    }
}

impl MemoryLogs {
    /// Appends a message; the stream is `<job>/algo-<n>-<epoch>` and comes into being with its first message. Its
    /// timestamp is the number of messages pushed so far.
    pub fn push(&self, stream: &str, message: impl Into<String>) {
        let timestamp = lock(&self.state).pushed + 1;
        self.push_at(stream, timestamp, message);
    }

    /// Appends a message with this timestamp, epoch milliseconds; it may be older than others of the stream.
    pub fn push_at(&self, stream: &str, timestamp: u64, message: impl Into<String>) {
        let mut state = lock(&self.state);
        state.pushed += 1;
        let id = format!("{:020}", state.pushed);
        let event = LogEvent { stream: stream.to_owned(), timestamp, id, message: message.into() };
        state.streams.entry(stream.to_owned()).or_default().push(event);
    }

    /// Takes a stream away, as its retention does.
    pub fn remove(&self, stream: &str) {
        lock(&self.state).streams.remove(stream);
    }

    /// At most this many messages a page; 0 makes every page empty, which AWS does now and then.
    pub fn set_page(&self, messages: usize) {
        lock(&self.state).page = messages;
    }

    /// The calls so far: `streams <job>`, `filter <streams> <since>`, `newest_streams`.
    pub fn calls(&self) -> Vec<String> {
        lock(&self.state).calls.clone()
    }
}

#[async_trait]
impl JobLogs for MemoryLogs {
    async fn streams(&self, job_name: &str) -> Result<Vec<String>, CloudError> {
        let mut state = lock(&self.state);
        state.calls.push(format!("streams {job_name}"));
        let prefix = format!("{job_name}/algo-");
        Ok(state
            .streams
            .keys()
            .filter(|stream| stream.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/')))
            .cloned()
            .collect())
    }

    async fn filter(&self, streams: &[String], since_ms: u64, token: Option<&str>) -> Result<FilterPage, CloudError> {
        let mut state = lock(&self.state);
        state.calls.push(format!("filter {} {since_ms}", streams.join(",")));
        if let Some(absent) = streams.iter().find(|stream| !state.streams.contains_key(*stream)) {
            return Err(CloudError {
                kind: CloudErrorKind::NotFound,
                operation: format!("read log stream {absent}"),
                message: "The specified log stream does not exist.".to_owned(),
                action: "",
            });
        }
        let mut events: Vec<&LogEvent> = streams
            .iter()
            .filter_map(|stream| state.streams.get(stream))
            .flatten()
            .filter(|event| event.timestamp >= since_ms)
            .collect();
        events.sort_by_key(|event| (event.timestamp, &event.id));
        // The token is the place of the last event; on a page of none it stays.
        let after = token.and_then(|token| token.split_once('/')).map(|(time, id)| (time.parse().unwrap_or(0), id));
        let from =
            after.map_or(0, |place| events.partition_point(|event| (event.timestamp, event.id.as_str()) <= place));
        let page: Vec<LogEvent> = events.iter().skip(from).take(state.page).map(|event| (*event).clone()).collect();
        let more = from + page.len() < events.len();
        let place = page.last().map(|event| format!("{}/{}", event.timestamp, event.id));
        Ok(FilterPage {
            ingested: page.iter().map(|event| event.timestamp).max(),
            token: more.then(|| place.or_else(|| token.map(str::to_owned)).unwrap_or_else(|| "0/".to_owned())),
            events: page,
        })
    }

    async fn newest_streams(&self, token: Option<&str>) -> Result<StreamPage, CloudError> {
        let mut state = lock(&self.state);
        state.calls.push("newest_streams".to_owned());
        let mut streams: Vec<_> = state
            .streams
            .iter()
            .map(|(stream, events)| (events.iter().map(|event| event.timestamp).max(), stream.clone()))
            .collect();
        streams.sort();
        let from = token.and_then(|token| token.parse().ok()).unwrap_or(0);
        let page: Vec<String> = streams.into_iter().rev().map(|(_, stream)| stream).skip(from).take(50).collect();
        let more = from + page.len() < state.streams.len();
        Ok(StreamPage { token: more.then(|| (from + page.len()).to_string()), streams: page })
    }
}

/// A test that failed while it held the lock has said so already.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn local(verb: &str, key: &str, path: &Path, error: &std::io::Error) -> CloudError {
    CloudError {
        kind: CloudErrorKind::Other,
        operation: format!("{verb} object s3://memory/{key}"),
        message: format!("{}: {error}", path.display()),
        action: "",
    }
}

/// A small request for tests: one channel, one instance, no network.
pub fn example_spec(name: &str) -> TrainingJobSpec {
    TrainingJobSpec {
        name: name.to_owned(),
        image: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/train:2.4".to_owned(),
        role_arn: "arn:aws:iam::123456789012:role/train".to_owned(),
        entrypoint: vec!["/bin/sh".to_owned(), "/opt/ml/input/data/agent/start".to_owned()],
        arguments: Vec::new(),
        environment: BTreeMap::from([("AGENT_SESSION".to_owned(), name.to_owned())]),
        channels: vec![super::Channel { name: "agent".to_owned(), uri: "s3://memory/agent/1/".to_owned() }],
        output_uri: "s3://memory/output".to_owned(),
        output_kms_key_id: None,
        instance_type: "ml.m5.large".to_owned(),
        instance_count: 1,
        volume_size_gb: 30,
        volume_kms_key_id: None,
        max_runtime: 3600,
        network: None,
        encrypt_inter_container_traffic: false,
        tags: BTreeMap::from([("sagemaker-executor:session".to_owned(), name.to_owned())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_name_exists_and_keeps_the_first_spec() {
        let memory = Memory::new();
        let cloud = memory.cloud();
        let arn = cloud.jobs.create(&example_spec("a")).await.unwrap();
        let mut other = example_spec("a");
        other.instance_type = "ml.p5.48xlarge".to_owned();
        assert_eq!(cloud.jobs.create(&other).await.unwrap_err().kind, CloudErrorKind::Exists);
        assert_eq!(memory.jobs.spec("a").unwrap().instance_type, "ml.m5.large");
        assert_eq!(cloud.jobs.tags(&arn).await.unwrap(), example_spec("a").tags);
        assert_eq!(memory.jobs.calls(), ["create a", "create a", &format!("tags {arn}")]);
    }

    #[tokio::test]
    async fn a_job_advances_by_describe_and_by_hand_and_stops() {
        let memory = Memory::new();
        let jobs = memory.cloud().jobs;
        jobs.create(&example_spec("a")).await.unwrap();
        let steps = [(JobStatus::InProgress, "Downloading"), (JobStatus::InProgress, "Training")];
        memory.jobs.advance_on_describe("a", &steps);
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(jobs.describe("a").await.unwrap().unwrap().secondary);
        }
        assert_eq!(seen, ["Downloading", "Training", "Training"]);
        jobs.stop("a").await.unwrap();
        assert_eq!(jobs.describe("a").await.unwrap().unwrap().status, JobStatus::Stopping);
        assert_eq!(jobs.describe("a").await.unwrap().unwrap().status, JobStatus::Stopped);
        memory.jobs.set_status("a", JobStatus::Failed, "Failed");
        jobs.stop("a").await.unwrap();
        assert_eq!(jobs.describe("a").await.unwrap().unwrap().status, JobStatus::Failed);
        assert_eq!(jobs.describe("b").await.unwrap(), None);
    }

    #[tokio::test]
    async fn newest_jobs_are_listed_first() {
        let jobs = Memory::new().cloud().jobs;
        for name in ["gitlab-1", "other", "gitlab-2"] {
            jobs.create(&example_spec(name)).await.unwrap();
        }
        let names: Vec<String> = jobs.list("gitlab").await.unwrap().into_iter().map(|job| job.name).collect();
        assert_eq!(names, ["gitlab-2", "gitlab-1"]);
    }

    #[tokio::test]
    async fn objects_are_kept_listed_and_deleted() {
        let memory = Memory::new();
        let objects = memory.cloud().objects;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        assert!(objects.put_if_absent("a/1", b"one".as_slice().into()).await.unwrap());
        assert!(!objects.put_if_absent("a/1", b"two".as_slice().into()).await.unwrap());
        objects.put("b", b"bee".to_vec()).await.unwrap();
        std::fs::write(&file, "one").unwrap();
        objects.put_file("a/2", &file).await.unwrap();
        assert_eq!(objects.get("a/2").await.unwrap().as_deref(), Some(b"one".as_slice()));
        assert_eq!(objects.size("b").await.unwrap(), Some(3));
        assert_eq!(objects.list("a/").await.unwrap(), ["a/1", "a/2"]);
        objects.delete(&["a/1".to_owned(), "absent".to_owned()]).await.unwrap();
        assert_eq!(memory.objects.keys(), ["a/2", "b"]);
        assert_eq!(objects.get("a/1").await.unwrap(), None);
    }

    #[tokio::test]
    async fn several_logs_are_read_by_time_and_an_absent_one_fails_the_call() {
        let memory = Memory::new();
        let logs = memory.cloud().logs;
        memory.logs.push_at("a/algo-1-1", 20, "later");
        memory.logs.push_at("b/algo-1-1", 10, "before");
        memory.logs.push_at("a/algo-1-1", 15, "late");
        memory.logs.push_at("a/algo-1-1", 5, "old");
        memory.logs.set_page(2);
        let streams = ["a/algo-1-1".to_owned(), "b/algo-1-1".to_owned()];
        let first = logs.filter(&streams, 10, None).await.unwrap();
        let second = logs.filter(&streams, 10, first.token.as_deref()).await.unwrap();
        let messages: Vec<_> = first.events.iter().chain(&second.events).map(|event| event.message.as_str()).collect();
        assert_eq!(messages, ["before", "late", "later"]);
        assert_eq!((second.token, second.ingested), (None, Some(20)));
        assert_eq!(logs.newest_streams(None).await.unwrap().streams, streams);
        memory.logs.remove("b/algo-1-1");
        assert_eq!(logs.filter(&streams, 10, None).await.unwrap_err().kind, CloudErrorKind::NotFound);
        memory.logs.set_page(0);
        let empty = logs.filter(&streams[..1], 10, None).await.unwrap();
        assert!(empty.events.is_empty() && empty.token.is_some());
    }
}
