//! Tells the bill of a training job: at the end of the job's log, in the report that its artifacts name, and in the executor's own log.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::time::Instant;

use crate::base::backoff::backoff;
use crate::base::signals::Cancellation;
use crate::cloud::TrainingJob;
use crate::protocol::project::{Selection, Trees};
use crate::session::Session;
use crate::session::bill::{Bill, EarlierJob};
use crate::session::idle::IdleTime;
use crate::session::job_note;
use crate::session::job_report::{self, REPORT_FILE, REPORT_START};
use crate::session::spec;
use crate::session::state::Creation;
use crate::session::wanted_files;
use crate::workspace;

/// Longest wait for the end of the training job, which comes within a minute of the last script's. Nothing is billed by the wait.
const ENDS_WITHIN: Duration = Duration::from_mins(1);
/// Pauses between two looks at the training job.
const PAUSES: ExponentialBuilder = backoff(Duration::from_millis(250), Duration::from_secs(5));

/// The wait of one stage for the end of the training job.
pub struct EndWait<'a> {
    until: Instant,
    cancel: &'a Cancellation,
}

impl<'a> EndWait<'a> {
    pub fn new(cancel: &'a Cancellation) -> Self {
        Self { until: Instant::now() + ENDS_WITHIN, cancel }
    }
}

/// Prints phases, billed time and cost of all training jobs at the end of a job. A bill that cannot be had fails nothing.
pub async fn print(session: &Session<'_>, wait: &EndWait<'_>) {
    if let Some(job) = look(session, false, wait).await {
        let bill = with_earlier(session, of(session, &job)).await;
        bill.earlier_lines().for_each(|line| session.printer.line(line));
        print_one(session, &bill);
        bill.total_line().into_iter().for_each(|line| session.printer.line(line));
    }
}

/// Prints the bill of a try. The emulator bills nothing, so there it is what AWS would bill for its times.
pub async fn print_of_try(session: &Session<'_>, wait: &EndWait<'_>) {
    if session.settings.aws.endpoint_url.is_none() {
        print(session, wait).await;
    } else if let Some(job) = look(session, false, wait).await {
        session.printer.line(format!("AWS, with the times of the emulator: {}", of(session, &job).line()));
    }
}

/// Prints the bill of a training job that `cleanup` has ended: no stage did.
pub(super) async fn print_of_cleanup(session: &Session<'_>) {
    let name = session.job_name();
    match session.jobs.describe_once(&name).await {
        Ok(Some(job)) => session.printer.line(format!("Training job {name}: {}", of(session, &job).line())),
        Ok(None) => {}
        Err(error) => tracing::info!(%error, "failed to describe the training job for its bill"),
    }
}

/// Prints them of the current training job alone, which is not the session's last one.
pub(super) async fn print_current(session: &Session<'_>, wait: &EndWait<'_>) {
    if let Some(job) = look(session, false, wait).await {
        print_one(session, &of(session, &job));
    }
}

fn print_one(session: &Session<'_>, bill: &Bill) {
    session.printer.line(bill.phase_line());
    session.printer.line(bill.line());
}

/// Writes the report into the project if the job's artifacts name it. A report that cannot be written fails nothing.
pub async fn write_report(
    session: &Session<'_>,
    selection: &Selection,
    trees: &Trees,
    idle: Option<&IdleTime>,
    wait: &EndWait<'_>,
) {
    if !wanted_files::names_file(Some(selection), trees, REPORT_FILE) {
        return;
    }
    let Some(job) = look(session, true, wait).await else {
        session
            .printer
            .warn(format!("there is no `{REPORT_FILE}`: SageMaker did not tell the state of the training job"));
        return;
    };
    let bill = with_earlier(session, of(session, &job)).await;
    let text = job_report::to_json(&job, &bill, idle, session.state.figures());
    let written = text.map_err(anyhow::Error::from);
    match written.and_then(|text| workspace::write_own(trees, REPORT_FILE, &text, REPORT_START)) {
        Ok(false) => {}
        Ok(true) => session.printer.warn(format!("`{REPORT_FILE}` of the job is replaced by the executor's report")),
        Err(error) => session.printer.warn(format!("{error:#}")),
    }
}

/// The bill, when the training job has ended if that is soon.
pub(super) async fn bill(session: &Session<'_>, wait: &EndWait<'_>) -> Option<Bill> {
    let job = look(session, true, wait).await?;
    Some(with_earlier(session, of(session, &job)).await)
}

/// Notes the bill of a training job that has ended.
pub(super) fn log(session: &Session<'_>, job: &TrainingJob) {
    let bill = of(session, job);
    tracing::info!(
        training_job = job.name,
        phases = bill.phase_line(),
        bill = bill.line(),
        "the training job has ended"
    );
}

/// The bill so far, which is noted for the metrics.
fn of(session: &Session<'_>, job: &TrainingJob) -> Bill {
    let bill = Bill::of(job, session.clock.now(), &session.settings.prices);
    job_note::billed(session, job, &bill);
    bill
}

/// Adds the bills of the training jobs before the current one: each had an instance, or may have had one.
async fn with_earlier(session: &Session<'_>, bill: Bill) -> Bill {
    let mut earlier = Vec::new();
    for number in 1..session.state.job_number() {
        let name = spec::job_name(&session.id, number);
        match session.jobs.describe(&name).await {
            Ok(Some(job)) => {
                let bill = of(session, &job);
                earlier.push(EarlierJob { name, status: job.secondary, bill });
            }
            Ok(None) => {}
            Err(error) => session.printer.warn(format!("the bill is without the training job {name}: {error}")),
        }
    }
    bill.with_earlier(earlier)
}

/// The training job, when it has ended if that is soon: always waits for a spot job, whose billed time nobody knows before.
async fn look(session: &Session<'_>, waits: bool, wait: &EndWait<'_>) -> Option<TrainingJob> {
    if !matches!(session.state.creation(), Creation::Created(_)) {
        return None;
    }
    // Without a script nobody has ended the training job, so `cleanup` does.
    let ends_soon = session.state.runs() > 0 || session.state.is_given_up();
    let waits = waits && ends_soon;
    let mut pauses = PAUSES.build();
    let mut seen = None;
    loop {
        match session.jobs.describe_once(&session.job_name()).await {
            Ok(Some(job)) => seen = Some(job),
            Ok(None) => return seen,
            Err(error) => {
                tracing::info!(%error, "failed to describe the training job for its bill");
                if !error.kind.may_pass() || !waits && seen.is_none() {
                    return seen;
                }
            }
        }
        let is_enough = |job: &TrainingJob| job.status.is_terminal() || !ends_soon || !waits && !job.is_spot;
        if seen.as_ref().is_some_and(is_enough) || Instant::now() >= wait.until {
            return seen;
        }
        tokio::select! {
            () = tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(5))) => {}
            () = wait.cancel.token().cancelled() => return seen,
        }
    }
}
