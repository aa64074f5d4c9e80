//! Tells the bill of a training job: at the end of the job's log, in the report that its artifacts name, and in the executor's own log.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::time::Instant;

use crate::base::backoff::backoff;
use crate::base::signals::Cancellation;
use crate::cloud::{JobStatus, TrainingJob};
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
/// Longest wait for SageMaker's own figures after that end; jobs that failed may never have any.
const FIGURES_WITHIN: Duration = Duration::from_secs(10);
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
        print_all(session, &job).await;
    }
}

async fn print_all(session: &Session<'_>, job: &TrainingJob) {
    let bill = with_earlier(session, of(session, job)).await;
    bill.earlier_lines().for_each(|line| session.printer.line(line));
    print_one(session, &bill);
    bill.total_line().into_iter().for_each(|line| session.printer.line(line));
}

/// Prints the bill of a try, whose user waits for it. The emulator bills nothing, so there it is what AWS would bill for its times.
pub async fn print_of_try(session: &Session<'_>, wait: &EndWait<'_>) {
    let Some(job) = look(session, true, wait).await else { return };
    if session.settings.aws.endpoint_url.is_none() {
        print_all(session, &job).await;
    } else {
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
    let mut seen: Option<TrainingJob> = None;
    let mut until = wait.until;
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
        let has_ended = seen.as_ref().is_some_and(|job| job.status.is_terminal());
        let is_enough = |job: &TrainingJob| !ends_soon || !waits && !job.is_spot || has_ended && !misses_figures(job);
        if has_ended && until == wait.until {
            until = until.min(Instant::now() + FIGURES_WITHIN);
        }
        if seen.as_ref().is_some_and(is_enough) || Instant::now() >= until {
            return seen;
        }
        tokio::select! {
            () = tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(5))) => {}
            () = wait.cancel.token().cancelled() => return seen,
        }
    }
}

/// `true` for a training job that has ended well, and whose billed time SageMaker may still tell.
fn misses_figures(job: &TrainingJob) -> bool {
    job.billable_seconds.is_none() && job.training_started.is_some() && job.status != JobStatus::Failed
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::cloud::testing::{Memory, example_spec};
    use crate::cloud::{SecondaryStatus, TrainingJobs as _, Transition};
    use crate::config::settings::Settings;
    use crate::session::record::{Records, SessionRecord};
    use crate::session::{Host, SessionId};
    use crate::ui::Printer;

    const NAME: &str = "gitlab-1-2-abcdef12";

    /// The line about a try whose training job has ended, and whose billed time SageMaker tells after this time.
    async fn told(after: Option<Duration>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", dir.path().display());
        let (settings, memory): (Settings, _) = (toml::from_str(&text).unwrap(), Memory::new());
        memory.jobs.create(&example_spec(NAME)).await.unwrap();
        memory.jobs.set_status(NAME, JobStatus::Completed, SecondaryStatus::Completed);
        let at = |second| UNIX_EPOCH + Duration::from_secs(second);
        memory.jobs.change(NAME, |job| {
            let transition = |(status, second): (&str, u64)| Transition {
                status: status.into(),
                started: Some(at(second)),
                message: None,
            };
            job.instances = vec![("ml.m5.large".to_owned(), 1)];
            job.training_started = Some(at(50));
            job.transitions = [("Starting", 0), ("Training", 50), ("Completed", 60)].map(transition).into();
        });
        let id = SessionId::parse(NAME).unwrap();
        let record = SessionRecord { arn: Some("arn".to_owned()), runs: 1, ..SessionRecord::default() };
        Records::open(&settings.runner.state_dir).unwrap().save(&id, &record).unwrap();
        let (printer, captured) = Printer::captured();
        let host = Host::with_real_time(&settings, &printer);
        let session = Session::attach(id, memory.jobs.clone(), memory.objects.clone(), host).unwrap().unwrap();
        let (cancel, begun) = (Cancellation::default(), Instant::now());
        let wait = EndWait::new(&cancel);
        let telling = async {
            if let Some(after) = after {
                tokio::time::sleep(after).await;
                memory.jobs.change(NAME, |job| job.billable_seconds = Some(7));
            }
        };
        tokio::join!(print_of_try(&session, &wait), telling);
        assert!(begun.elapsed() < 2 * FIGURES_WITHIN, "{:?}", begun.elapsed());
        captured.text()
    }

    /// A training job that has ended may have no billed time yet.
    #[tokio::test(start_paused = true)]
    async fn a_try_waits_for_sagemakers_figures_and_says_when_it_has_none() {
        let late = told(Some(Duration::from_secs(5))).await;
        assert!(late.contains("\nBilled 7 s of ml.m5.large, less than $0.01 (list price"), "{late}");
        let never = told(None).await;
        let line = "; an estimate by the training's times: SageMaker has not told the billed time\n";
        assert!(never.contains("\nBilled about 10 s of ml.m5.large, ") && never.ends_with(line), "{never}");
    }
}
