//! Waits for a quota that others use: `prepare` notes that its job waits, since the runner gives it 300 s, and the first container stage goes on
//! asking until SageMaker grants one of the types.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use humantime::format_duration;
use tokio::time::Instant;

use crate::base::backoff::backoff;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::CloudError;
use crate::config::policy;
use crate::metrics;
use crate::session::Session;
use crate::session::create::{AllRefused, Launched};
use crate::session::event::SessionEvent;
use crate::session::next_job::{self, JobInputs};
use crate::session::record::Queued;
use crate::session::stamp::Stamp;

/// Pauses between two requests.
const PAUSES: ExponentialBuilder = backoff(Duration::from_secs(5), Duration::from_mins(1));
/// How often the job log tells that the job still waits.
const TELL_EVERY: Duration = Duration::from_mins(5);
/// Longest quoted text of SageMaker, in bytes.
const REASON: usize = 400;

/// Notes that the job waits, or returns the failure when waiting is of no use or not wanted. `longest` is the longest wait.
pub fn begin(session: &mut Session<'_>, refused: AllRefused, longest: Duration) -> anyhow::Result<()> {
    if refused.may_wait.is_empty() || longest.is_zero() {
        return Err(refused.failure.into());
    }
    let queued = Queued { types: refused.may_wait, since: Stamp::of(&*session.clock) };
    session.printer.line(format!(
        "The job waits for {}, up to {}: {}",
        queued.types.join(", "),
        format_duration(longest),
        plain::line(&refused.reasons.join("; "), REASON)
    ));
    session.apply(SessionEvent::Queued(&queued))
}

/// Requests the training job of a waiting session until SageMaker grants it. Does nothing for others.
///
/// # Errors
/// A system failure after `queue_timeout`, and the failure of a request that waiting does not help.
pub async fn wait(session: &mut Session<'_>, inputs: JobInputs<'_>) -> anyhow::Result<()> {
    let Some(mut queued) = session.state.queued().cloned() else { return Ok(()) };
    let longest = longest(session, inputs)?;
    let mut pauses = PAUSES.build();
    let mut told = Instant::now();
    loop {
        session.apply(SessionEvent::Queued(&queued))?;
        let waited = queued.since.age(&Stamp::of(&*session.clock));
        let launched = Box::pin(next_job::create(session, &queued.types, inputs)).await;
        let refused = match launched.or_else(|error| may_pass(error, &queued))? {
            Launched::Created => {
                metrics::observe(&metrics::QUEUE_SECONDS, &[], waited.as_secs_f64());
                session.printer.line(format!(
                    "SageMaker granted {} after {}",
                    session.state.instance_type(),
                    rounded(waited)
                ));
                return Ok(());
            }
            Launched::Refused(refused) => refused,
        };
        if refused.may_wait.is_empty() {
            return Err(refused.failure.into());
        }
        queued.types = refused.may_wait;
        let pause = pauses.next().unwrap_or(Duration::from_mins(1)).mul_f64(0.75 + fastrand::f64() / 2.0);
        let Some(left) = longest.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return Err(Failure::system(format!(
                "no instance became free within {}: {}",
                format_duration(longest),
                plain::line(&refused.reasons.join("; "), REASON)
            ))
            .hint(
                "retry the job later, raise `SAGEMAKER_QUEUE_TIMEOUT`, add another type to `SAGEMAKER_INSTANCE_TYPE`, or raise the quota in \
                 Service Quotas",
            )
            .into());
        };
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            let reasons = plain::line(&refused.reasons.join("; "), REASON);
            session.printer.line(format!("The job still waits, since {}: {reasons}", rounded(waited)));
        }
        tokio::select! {
            () = tokio::time::sleep(pause.min(left)) => {}
            () = inputs.cancel.token().cancelled() => {
                return Err(Failure::canceled("canceled while the job waited for an instance").into());
            }
        }
    }
}

/// Longest wait of the job.
pub fn longest(session: &Session<'_>, inputs: JobInputs<'_>) -> anyhow::Result<Duration> {
    let decision = policy::decide(inputs.job, &inputs.env.job_variables()?, session.settings)?;
    Ok(Duration::from_secs(decision.capacity.queue_timeout))
}

/// A request that AWS did not take for a moment is asked again like a refused one.
fn may_pass(error: anyhow::Error, queued: &Queued) -> anyhow::Result<Launched> {
    if !CloudError::may_pass(&error) {
        return Err(error);
    }
    let reasons = vec![plain::line(&format!("{error:#}"), REASON)];
    let failure = Failure::system("the training job could not be requested").caused_by(error);
    Ok(Launched::Refused(AllRefused { may_wait: queued.types.clone(), reasons, failure }))
}

fn rounded(time: Duration) -> humantime::FormattedDuration {
    format_duration(Duration::from_secs(time.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::{Kind, kind_of, render};
    use crate::base::signals::Cancellation;
    use crate::cloud::CloudErrorKind;
    use crate::cloud::testing::{Fault, Memory, When};
    use crate::config::env::Environment;
    use crate::config::settings::Settings;
    use crate::gitlab::JobContext;
    use crate::session::state::SessionState;
    use crate::session::{Host, SessionId};
    use crate::ui::{Captured, Printer};

    const NAME: &str = "gitlab-1-2-abcdef12";

    /// A session whose job waits, on a host whose requests are refused this often.
    struct Waiting {
        memory: Memory,
        settings: Settings,
        printer: Printer,
        captured: Captured,
        job: JobContext,
        env: Environment,
        cancel: Cancellation,
        _dir: tempfile::TempDir,
    }

    impl Waiting {
        fn new(fault: Fault) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let text = format!(
                "[aws]\nendpoint_url = \"http://127.0.0.1:1\"\n[storage]\nbucket = \"b\"\n[job]\nimage = \"i\"\n\
                 role_arn = \"arn:aws:iam::123456789012:role/x\"\nqueue_timeout_seconds = 600\n[runner]\nstate_dir = \"{}\"\n",
                dir.path().display()
            );
            let (printer, captured) = Printer::captured();
            let memory = Memory::new();
            memory.jobs.plan([fault]);
            Self {
                memory,
                settings: toml::from_str(&text).unwrap(),
                printer,
                captured,
                job: serde_json::from_value(serde_json::json!({"id": 2, "job_info": {"project_id": 1}})).unwrap(),
                env: Environment::default(),
                cancel: Cancellation::default(),
                _dir: dir,
            }
        }

        fn session(&self) -> Session<'_> {
            let id = SessionId::parse(NAME).unwrap();
            let host = Host::with_real_time(&self.settings, &self.printer);
            let (jobs, objects) = (self.memory.jobs.clone(), self.memory.objects.clone());
            let mut session = Session::open(id, jobs, objects, host, SessionState::new("1".into(), 1)).unwrap();
            session.take_place().unwrap();
            session
        }

        async fn wait(&self, session: &mut Session<'_>) -> anyhow::Result<()> {
            wait(session, JobInputs { job: &self.job, env: &self.env, cancel: &self.cancel }).await
        }
    }

    fn begun(session: &mut Session<'_>, longest: u64) -> anyhow::Result<()> {
        let refused = AllRefused {
            may_wait: vec!["ml.a.b".into()],
            reasons: vec!["ml.a.b: in use".into()],
            failure: Failure::system("refused"),
        };
        begin(session, refused, Duration::from_secs(longest))
    }

    fn refused(times: usize) -> Fault {
        Fault::new("create", 1, When::Before, CloudErrorKind::Quota).times(times)
    }

    #[tokio::test(start_paused = true)]
    async fn the_type_is_asked_for_until_it_is_granted() {
        let waiting = Waiting::new(refused(3));
        begun(&mut waiting.session(), 600).unwrap();
        // Another process goes on.
        let mut session = waiting.session();
        waiting.wait(&mut session).await.unwrap();
        assert_eq!(waiting.memory.jobs.names(), [NAME]);
        assert_eq!((session.state.queued(), session.state.types_tried().len()), (None, 0));
        let text = waiting.captured.text();
        assert!(text.contains("The job waits for ml.a.b, up to 10m: ml.a.b: in use"), "{text}");
        assert!(text.contains("SageMaker granted ml.a.b after"), "{text}");
        waiting.wait(&mut session).await.unwrap();
        assert_eq!(waiting.memory.jobs.count("create"), 4, "a job that has its training job waits no more");
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_of_aws_does_not_end_the_wait() {
        for kind in [CloudErrorKind::Transient, CloudErrorKind::Throttled] {
            let waiting = Waiting::new(Fault::new("create", 1, When::Before, kind).times(7));
            let mut session = waiting.session();
            begun(&mut session, 600).unwrap();
            waiting.wait(&mut session).await.unwrap();
            assert_eq!(waiting.memory.jobs.names(), [NAME], "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_wish_to_wait_the_refusal_stands() {
        let waiting = Waiting::new(refused(1));
        let mut session = waiting.session();
        assert_eq!(begun(&mut session, 0).unwrap_err().to_string(), "refused");
        waiting.wait(&mut session).await.unwrap();
        assert!(waiting.memory.jobs.names().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_waiting_does_not_help_and_a_cancel_end_it() {
        let denied = Waiting::new(Fault::new("create", 1, When::Before, CloudErrorKind::Denied).forever());
        let mut session = denied.session();
        begun(&mut session, 600).unwrap();
        assert!(denied.wait(&mut session).await.is_err());
        let canceled = Waiting::new(refused(100));
        let mut session = canceled.session();
        begun(&mut session, 600).unwrap();
        canceled.cancel.raise();
        assert_eq!(kind_of(&canceled.wait(&mut session).await.unwrap_err()), Kind::Canceled);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_has_an_end_that_says_what_to_change() {
        let waiting = Waiting::new(refused(1000));
        let mut session = waiting.session();
        let long_ago = Stamp::of_day(session.clock.now() - Duration::from_secs(601));
        let queued = Queued { types: vec!["ml.a.b".into()], since: long_ago };
        session.apply(SessionEvent::Queued(&queued)).unwrap();
        let error = waiting.wait(&mut session).await.unwrap_err();
        let text = render(&error);
        assert!(kind_of(&error) == Kind::System && text.contains("within 10m"), "{text}");
        assert!(text.contains("`SAGEMAKER_QUEUE_TIMEOUT`") && text.contains("Service Quotas"), "{text}");
    }
}
