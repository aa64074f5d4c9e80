//! One GitLab job bound to its training job: opened by `prepare`, attached by each container stage, closed by `cleanup`.

pub mod agent_delivery;
mod bar;
pub mod bill;
pub mod billing;
pub mod close;
mod container_output;
pub mod create;
mod create_rate;
pub mod current_run;
pub mod cursor;
pub mod directories;
pub mod earlier_attempts;
pub mod event;
pub mod exchange;
pub mod failure_reasons;
pub mod figures;
pub mod follow;
mod foreign;
pub mod hold;
pub mod id;
pub mod idle;
mod inbox;
pub mod input_check;
pub mod isolated;
pub mod job_limit;
pub mod job_note;
mod job_report;
mod kept_results;
pub mod last_output;
pub mod lease;
mod leaving;
pub mod left_over;
pub mod lost_sessions;
pub mod machine;
pub mod mailbox;
pub mod measured;
pub mod model_output;
pub mod next_job;
mod node_folders;
pub mod node_record;
mod output;
mod output_tail;
mod phase;
mod phases;
mod place;
mod poll;
pub mod pool_match;
pub mod project_scope;
pub mod queue;
mod quota;
mod ready;
pub mod record;
#[cfg(test)]
mod recorded;
pub mod refusals;
mod remote_access;
pub mod replace;
mod reported;
pub mod requested_job;
pub mod rerun;
mod restarts;
pub mod results;
pub mod retention;
mod run_end;
mod selected_type;
mod silence;
pub mod slots;
mod sources;
pub mod spec;
mod stage_channels;
mod stage_end;
pub mod stage_jobs;
mod stage_record;
mod stage_state;
pub mod stamp;
pub mod state;
mod trace_copy_reader;
mod unsent;
pub mod wanted_files;
pub mod warm_pool;
pub mod workspace_upload;

use std::sync::Arc;

use anyhow::Context as _;

use crate::base::arn::Arn;
use crate::base::clock::Clock;
use crate::base::node::NodeId;
use crate::cloud::{LogClient, ObjectStore, TrainingJobs};
use crate::config::settings::Settings;
use crate::logs::{self, Feed, FeedMode};
use crate::metrics;
use crate::protocol::isolation;
use crate::protocol::keys::{self, SessionKeys};
use crate::protocol::mailbox::Order;
use crate::session::container_output::ContainerOutput;
use crate::session::event::{Saved, SessionEvent};
use crate::session::exchange::{Exchange as _, StoreExchange};
use crate::session::lease::RenewalTime;
use crate::session::output_tail::OutputTail;
use crate::session::record::Records;
use crate::session::state::SessionState;
use crate::ui::Printer;
use crate::workspace::Summary;

pub use id::{SessionId, job_key};

/// The operator's settings, the printer and the clock that every session of this host shares.
#[derive(Clone)]
pub struct Host<'a> {
    pub settings: &'a Settings,
    pub printer: &'a Printer,
    pub clock: Arc<dyn Clock>,
}

#[cfg(test)]
impl<'a> Host<'a> {
    /// With the clocks of this machine.
    pub(crate) fn with_real_time(settings: &'a Settings, printer: &'a Printer) -> Self {
        Self { settings, printer, clock: Arc::new(crate::base::clock::HostClock) }
    }
}

/// The session as the processes after `prepare` use it: its state, its records on disk, and the ports to AWS.
pub struct Session<'a> {
    pub id: SessionId,
    pub records: Records,
    state: SessionState,
    pub jobs: Arc<dyn TrainingJobs>,
    pub objects: Arc<dyn ObjectStore>,
    pub settings: &'a Settings,
    pub printer: &'a Printer,
    pub clock: Arc<dyn Clock>,
    /// Of the script that this process last followed.
    output_tail: OutputTail,
    pub lease_renewed: RenewalTime,
    /// Makes a client for the log of the training job, in a process that may read it.
    log_client: Option<LogClient>,
}

impl<'a> Session<'a> {
    /// Loads the session that `prepare` opened.
    pub fn attach(
        id: SessionId,
        jobs: Arc<dyn TrainingJobs>,
        objects: Arc<dyn ObjectStore>,
        host: Host<'a>,
    ) -> anyhow::Result<Option<Self>> {
        Records::open(&host.settings.runner.state_dir)?;
        Self::look(id, jobs, objects, host)
    }

    /// The session as its record tells it, for people: nothing is made or written.
    ///
    /// # Errors
    /// A record that cannot be used.
    pub fn look(
        id: SessionId,
        jobs: Arc<dyn TrainingJobs>,
        objects: Arc<dyn ObjectStore>,
        host: Host<'a>,
    ) -> anyhow::Result<Option<Self>> {
        let session = Self::to_close(id, jobs, objects, host);
        let record = session.records.load(&session.id)?;
        Ok(record.map(|record| Self { state: record.into(), ..session }))
    }

    /// Opens the session of a `prepare`: `new`, unless an earlier call has begun it already. The record is on disk from
    /// now on.
    pub fn open(
        id: SessionId,
        jobs: Arc<dyn TrainingJobs>,
        objects: Arc<dyn ObjectStore>,
        host: Host<'a>,
        new: SessionState,
    ) -> anyhow::Result<Self> {
        let records = Records::open(&host.settings.runner.state_dir)?;
        let state = records.load(&id)?.map_or(new, SessionState::from);
        records.save_for_good(&id, state.snapshot())?;
        Ok(Self { state, ..Self::to_close(id, jobs, objects, host) })
    }

    /// A session to close; its record may be lost, damaged, or written by a newer program.
    pub fn to_close(id: SessionId, jobs: Arc<dyn TrainingJobs>, objects: Arc<dyn ObjectStore>, host: Host<'a>) -> Self {
        let Host { settings, printer, clock } = host;
        let records = Records::at(&settings.runner.state_dir);
        let (state, output_tail) = (SessionState::default(), OutputTail::default());
        let lease_renewed = RenewalTime::default();
        Self {
            id,
            records,
            state,
            jobs,
            objects,
            settings,
            printer,
            clock,
            output_tail,
            lease_renewed,
            log_client: None,
        }
    }

    /// With a client for the log of the training job.
    #[must_use]
    pub fn reading_log(self, log_client: LogClient) -> Self {
        Self { log_client: Some(log_client), ..self }
    }

    /// The host's part, to open another session with.
    pub fn host(&self) -> Host<'a> {
        Host { settings: self.settings, printer: self.printer, clock: Arc::clone(&self.clock) }
    }

    /// The last output lines of the script that this process last followed, to repeat below an error. `None` while they stand just
    /// above it.
    pub fn last_lines(&self) -> Option<String> {
        (self.printer.lines_since_data() > output_tail::LINES).then(|| self.output_tail.text())?
    }

    /// The name of the current training job.
    pub fn job_name(&self) -> String {
        spec::job_name(&self.id, self.state.job_number())
    }

    /// Prints the summary of the project's transfer, and warns of each path that it left out.
    pub fn print_sent(&self, summary: &Summary) {
        metrics::add(&metrics::SENT_BYTES, &[], as_value(summary.sent));
        self.print_transfer(format!("Project: {}", summary.sent()), &summary.warnings);
    }

    /// Files and bytes of the results of the nodes before this one: the first node is the first that sends some.
    pub fn received_before(&self, node: NodeId) -> (u64, u64) {
        let received = self.state.figures().received.filter(|_| node != NodeId::LEADER);
        received.map_or((0, 0), |received| (received.files, received.bytes))
    }

    /// Notes and prints the summary of the transfer of a node's results, and warns of each path that it left out.
    pub fn print_received(&mut self, node: NodeId, summary: &Summary) {
        metrics::add(&metrics::RECEIVED_BYTES, &[], as_value(summary.sent));
        let (files, bytes) = self.received_before(node);
        let (files, bytes) = (files + summary.files, bytes + summary.bytes);
        self.state.apply(SessionEvent::ResultsReceived { files, bytes });
        let of = if node == NodeId::LEADER { String::new() } else { format!(" of {node}, in {node}/") };
        let is_empty = summary.files + summary.deleted == 0 && summary.warnings.is_empty();
        let text = if is_empty { "no file changed".to_owned() } else { summary.received() };
        self.print_transfer(format!("Results{of}: {text}"), &summary.warnings);
    }

    fn print_transfer(&self, line: String, warnings: &[String]) {
        self.printer.line(line);
        for warning in warnings {
            self.printer.warn(warning);
        }
    }

    pub fn state(&self) -> &SessionState {
        &self.state
    }

    /// Applies an event to the state, and saves the record as soon as the event asks for it. Nothing else writes a
    /// session's record.
    pub fn apply(&mut self, event: SessionEvent<'_>) -> anyhow::Result<()> {
        self.state.apply(event);
        match event.saved() {
            Saved::Later => Ok(()),
            Saved::Now => self.records.save(&self.id, self.state.snapshot()),
            Saved::ForGood => self.records.save_for_good(&self.id, self.state.snapshot()),
        }
    }

    /// Subscribes to the host's shared log reader; `connect` makes a client in the one process that reads CloudWatch.
    pub fn join_log(&self, connect: LogClient) -> anyhow::Result<Feed> {
        let settings = self.settings;
        let endpoint = settings.aws.endpoint_url.as_deref();
        let config = logs::FeedConfig {
            dir: settings.runner.state_dir.clone(),
            scope: log_scope(self.state.arn(), endpoint),
            job: self.job_name(),
            nodes: self.state.nodes().len(),
            floors: self.state.log_floors().clone(),
            mode: if self.reads_copy_live() { FeedMode::Record } else { FeedMode::Live },
            requests_per_second: settings.trace.log_requests_per_second,
            clock: Arc::clone(&self.clock),
        };
        Feed::join(config, connect).context("failed to follow the log of the training job")
    }

    /// The agents' copy of the output is read while scripts run. Without network it arrives with the end of the training job.
    pub fn reads_copy_live(&self) -> bool {
        self.settings.trace.live_copy && !self.state.is_isolated()
    }

    pub fn exchange(&self) -> StoreExchange {
        StoreExchange::new(self.exchange_objects(), self.keys(), keys::session_folder(self.id.as_str()))
    }

    fn exchange_objects(&self) -> Arc<dyn ObjectStore> {
        if self.state.is_isolated() {
            return Arc::new(self.output_of(&self.keys(), self.state.job_number()));
        }
        Arc::clone(&self.objects)
    }

    /// The objects with those that the containers of a training job without network wrote.
    fn output_of(&self, keys: &SessionKeys, job: u32) -> ContainerOutput {
        let prefix = isolation::output(keys, &spec::job_name(&self.id, job));
        ContainerOutput { objects: Arc::clone(&self.objects), prefix }
    }

    /// Where the session's objects are, as far as its state knows.
    pub fn keys(&self) -> SessionKeys {
        let keys = spec::session_keys(&self.id, self.state.place());
        match self.state.stage_jobs() {
            Some(stages) if stages.number > 0 => keys.of_stage(stages.number),
            Some(_) | None => keys,
        }
    }

    /// `true` while no agent has ever reported, so that no script can have begun.
    pub async fn is_untouched(&self) -> anyhow::Result<bool> {
        for (id, node) in self.state.nodes().iter() {
            if node.ready || self.exchange().has_reported(id).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Stops the training job and notes that no script has begun in it and none will: later stages do not wait for the job.
    pub async fn give_up(&mut self) -> anyhow::Result<()> {
        self.apply(SessionEvent::GivenUp)?;
        self.stop_job().await;
        Ok(())
    }

    /// Stops the training job; `cleanup` tries again when it fails.
    pub async fn stop_job(&self) {
        if let Err(error) = self.jobs.stop(&self.job_name()).await {
            tracing::warn!(%error, "failed to stop the training job");
        }
    }

    /// Sends an order and notes its number.
    pub async fn order(&mut self, order: &Order) -> anyhow::Result<()> {
        let number = self.exchange().send(&self.state, order).await?;
        self.apply(SessionEvent::OrderStored { number, order })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sum of bytes for people")]
fn as_value(bytes: u64) -> f64 {
    bytes as f64
}

/// Scope of CloudWatch's quota: jobs of one account and region, at one endpoint, share it.
fn log_scope(arn: Option<&str>, endpoint: Option<&str>) -> String {
    let account = arn.and_then(Arn::parse).map(|arn| arn.without_resource()).unwrap_or_default();
    format!("{account} {}", endpoint.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_one_account_region_and_endpoint_share_the_reader() {
        let arn = |account: &str, job: &str| format!("arn:aws:sagemaker:eu-west-1:{account}:training-job/{job}");
        let scope = |account: &str, job: &str, endpoint| log_scope(Some(&arn(account, job)), endpoint);
        assert_eq!(scope("1", "a", None), scope("1", "b", None));
        assert_ne!(scope("1", "a", None), scope("2", "a", None));
        assert_ne!(scope("1", "a", None), scope("1", "a", Some("http://127.0.0.1:1")));
    }
}
