//! A double of GitLab as a runner sees it: job queue, trace, job updates, artifacts and git over HTTP.
//!
//! It listens on a loopback port inside the test process, keeps everything in memory (repositories in a temporary
//! directory) for later checks. It records the runner's reports and does not judge them.

mod api;
mod artifacts;
mod git;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;

pub(crate) use artifacts::Artifact;
pub(crate) use git::{Repository, git_available};
pub(crate) use trace::{PatchReply, Trace};

use super::job::{Job, Trigger};

/// The token with which the runner asks for jobs.
pub(crate) const RUNNER_TOKEN: &str = "glrt-a1b2c3d4e5f6g7h8i9j0";

/// GitLab's request to a running job; sent in the `Job-Status` header of every reply about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobStatus {
    Running,
    Canceling,
    Canceled,
}

impl JobStatus {
    pub(crate) fn header(self) -> &'static str {
        match self {
            JobStatus::Running => "running",
            JobStatus::Canceling => "canceling",
            JobStatus::Canceled => "canceled",
        }
    }
}

/// The last update of a job with a final state, as the runner sent it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FinalUpdate {
    pub(crate) state: String,
    pub(crate) failure_reason: Option<String>,
    pub(crate) exit_code: Option<i64>,
    pub(crate) checksum: Option<String>,
}

/// Everything GitLab knows about one job.
#[derive(Debug)]
pub(crate) struct JobRecord {
    pub(crate) token: String,
    pub(crate) payload: Value,
    pub(crate) trace: Trace,
    pub(crate) status: JobStatus,
    pub(crate) result: Option<FinalUpdate>,
    pub(crate) artifacts: Vec<Artifact>,
    /// The received requests in order: `requested`, `trace`, `update running`, `artifact archive`, `update success`, ...
    pub(crate) events: Vec<String>,
    triggers: Vec<(String, Trigger)>,
}

impl JobRecord {
    /// Changes the wanted status as soon as the trace contains the text of a trigger.
    fn pull_triggers(&mut self) {
        for (text, trigger) in &self.triggers {
            let wanted = match trigger {
                Trigger::Cancel => JobStatus::Canceling,
                Trigger::Abort => JobStatus::Canceled,
                Trigger::InterruptRunner | Trigger::KillRunner => continue,
            };
            if self.status == JobStatus::Running && self.trace.contains(text) {
                self.status = wanted;
            }
        }
    }
}

#[derive(Debug, Default)]
struct Records {
    queue: VecDeque<u64>,
    jobs: BTreeMap<u64, JobRecord>,
    next_id: u64,
}

/// State shared by the HTTP handlers, the test and the runner double.
#[derive(Debug)]
pub(crate) struct Shared {
    records: Mutex<Records>,
    root: tempfile::TempDir,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().expect("no handler panics while it holds the records")
    }

    /// Takes the next job of the queue, as `POST /jobs/request` does.
    pub(crate) fn take_job(&self) -> Option<(u64, Value)> {
        let mut records = self.lock();
        let id = records.queue.pop_front()?;
        let record = records.jobs.get_mut(&id)?;
        record.events.push("requested".to_owned());
        Some((id, record.payload.clone()))
    }

    /// Appends to a job's trace, as `PATCH /jobs/:id/trace` does.
    pub(crate) fn append_trace(&self, id: u64, first: usize, bytes: &[u8]) -> Option<(PatchReply, JobStatus)> {
        let mut records = self.lock();
        let record = records.jobs.get_mut(&id)?;
        let reply = record.trace.append(first, bytes);
        record.events.push("trace".to_owned());
        record.pull_triggers();
        Some((reply, record.status))
    }

    /// Takes an update of the job's state, as `PUT /jobs/:id` does.
    pub(crate) fn update_job(&self, id: u64, update: FinalUpdate) -> Option<JobStatus> {
        let mut records = self.lock();
        let record = records.jobs.get_mut(&id)?;
        record.events.push(format!("update {}", update.state));
        if update.state != "running" {
            record.result = Some(update);
        }
        Some(record.status)
    }

    /// The current wanted status of the job.
    pub(crate) fn status(&self, id: u64) -> Option<JobStatus> {
        self.lock().jobs.get(&id).map(|record| record.status)
    }

    /// Whether this is the token of a job that exists; dependencies are fetched with the token of another job.
    fn knows_token(&self, token: &str) -> bool {
        self.lock().jobs.values().any(|record| record.token == token)
    }
}

/// The running double; it stops when dropped.
pub(crate) struct GitLab {
    url: String,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl GitLab {
    /// Starts the double on a port that the system chooses.
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("gitlab-double")
            .enable_all()
            .build()
            .unwrap();
        let shared = Arc::new(Shared {
            records: Mutex::new(Records { next_id: 4_711_001, ..Records::default() }),
            root: tempfile::Builder::new().prefix("gitlab").tempdir().unwrap(),
        });
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = api::router(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { url, shared, runtime: Some(runtime) }
    }

    /// Makes GitLab use the address of a front in its replies.
    pub(crate) fn stand_behind(&mut self, url: &str) {
        url.clone_into(&mut self.url);
    }

    /// `http://127.0.0.1:<port>`, or the front's address, without a slash at the end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The state behind the API, for the runner double.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// The folder in which the repositories lie, one bare repository per project path.
    pub(crate) fn repositories(&self) -> &Path {
        self.shared.root.path()
    }

    /// Puts a job into the queue and returns its id.
    pub(crate) fn enqueue(&self, job: &Job) -> u64 {
        self.enqueue_made(|_, _| job.clone()).0
    }

    /// Makes a job of its id and token, and puts it into the queue.
    pub(crate) fn enqueue_made(&self, make: impl FnOnce(u64, &str) -> Job) -> (u64, Job) {
        let mut records = self.shared.lock();
        let id = records.next_id;
        records.next_id += 1;
        let token = format!("glcbt-64_{id}_job_token");
        let job = make(id, &token);
        let record = JobRecord {
            payload: job.payload(id, &token, &self.url),
            token,
            trace: Trace::default(),
            status: JobStatus::Running,
            result: None,
            artifacts: Vec::new(),
            events: Vec::new(),
            triggers: job.triggers().to_vec(),
        };
        records.jobs.insert(id, record);
        records.queue.push_back(id);
        (id, job)
    }

    /// Cancels or aborts a job from outside, as a person in the web interface would.
    pub(crate) fn set_status(&self, id: u64, status: JobStatus) {
        self.question(id, |record| record.status = status);
    }

    /// Reads the record of a job; the double is blocked meanwhile.
    pub(crate) fn question<T>(&self, id: u64, ask: impl FnOnce(&mut JobRecord) -> T) -> T {
        let mut records = self.shared.lock();
        ask(records.jobs.get_mut(&id).expect("the job was enqueued here"))
    }
}

impl Drop for GitLab {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
