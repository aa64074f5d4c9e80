//! Replaces a training job that ended before its container ran: on the next instance type of the job's list when there
//! was no capacity, and once more on the same type after an internal error of SageMaker.
//!
//! The mailbox stays: the next job's agent reads the orders sent to the first one's, which never ran.

use crate::base::plain;
use crate::cloud::{JobStatus, SecondaryStatus, TrainingJob};
use crate::session::create::Launched;
use crate::session::event::SessionEvent;
use crate::session::exchange::Exchange as _;
use crate::session::failure_reasons::{self, Cause};
use crate::session::next_job::{self, JobInputs};
use crate::session::state::Creation;
use crate::session::{Session, create, queue, selected_type};

/// Outcome of the replacement.
pub enum Replaced {
    /// Another job was created; the stage goes on with it.
    Another,
    /// No instance type is left to request; the text lists the reasons.
    NoneLeft(String),
    /// Another job would not help: the loss stands.
    No,
}

/// Looks up why the training job ended, and creates the next one when that may help.
pub async fn replace(session: &mut Session<'_>, inputs: JobInputs<'_>) -> anyhow::Result<Replaced> {
    let name = session.job_name();
    if inputs.cancel.asked() || session.state.any_ready() {
        return Ok(Replaced::No);
    }
    let ended = match session.jobs.describe(&name).await {
        Ok(job) => job,
        Err(error) => {
            tracing::warn!(%error, "failed to look up why the training job ended");
            return Ok(Replaced::No);
        }
    };
    let Some((ended, cause)) = ended.and_then(|job| cause(&job).map(|cause| (job, cause))) else {
        return Ok(Replaced::No);
    };
    // An agent that has reported may have run the script.
    for node in session.state.nodes().ids() {
        if session.exchange().has_reported(node).await? {
            return Ok(Replaced::No);
        }
    }
    if let Some(line) = selected_type::note(session, &ended)? {
        session.printer.line(line);
    }
    let (lost, was_list) = (session.state.shown_type(), !session.state.request().preferred_types.is_empty());
    let reason = ended.failure_reason.or(ended.message).unwrap_or_else(|| ended.secondary.to_string());
    let line = match cause {
        Cause::Capacity => format!("There is no capacity for {lost}"),
        Cause::Internal if session.state.was_repeated() => return Ok(Replaced::No),
        Cause::Internal => format!("SageMaker met an internal error before the container on {lost} ran"),
    };
    let reason = plain::line(&reason, REASON);
    let tried = format!("{lost}: {reason}");
    session.apply(match cause {
        Cause::Capacity => SessionEvent::CapacityLacked(&tried),
        Cause::Internal => SessionEvent::InternalErrorMet(&tried),
    })?;
    let types = match cause {
        Cause::Internal => session.state.types(),
        // SageMaker went through the whole list. It may have passed over a type because others use its quota.
        Cause::Capacity if was_list && queue::longest(session, inputs)?.is_zero() => Vec::new(),
        Cause::Capacity if was_list => session.state.types(),
        Cause::Capacity => session.state.types_left().to_vec(),
    };
    let Some(next) = types.first() else {
        let tried = create::none_left(session.state.types_tried());
        return Ok(Replaced::NoneLeft(format!("{tried}; add another type to `SAGEMAKER_INSTANCE_TYPE`")));
    };
    session.apply(SessionEvent::JobReplaced)?;
    let name = session.job_name();
    session.printer.line(format!("{line}: requesting {next} as the training job {name}. SageMaker said: {reason}"));
    if let Launched::Refused(refused) = Box::pin(next_job::create(session, &types, inputs)).await? {
        queue::begin(session, refused, queue::longest(session, inputs)?)?;
        queue::wait(session, inputs).await?;
    }
    Ok(Replaced::Another)
}

/// Completes a creation that a killed process of this stage began.
pub async fn resume(session: &mut Session<'_>, inputs: JobInputs<'_>) -> anyhow::Result<()> {
    if session.state.creation() != Creation::Requested || session.state.job_number() < 2 {
        return Ok(());
    }
    let types = session.state.types();
    Ok(Box::pin(next_job::create(session, &types, inputs)).await?.or_fail()?)
}

/// Longest quoted text of SageMaker, in bytes.
const REASON: usize = 1000;

/// `None` for a job whose container ran, that was stopped, or whose failure would come again.
fn cause(job: &TrainingJob) -> Option<Cause> {
    match job.status {
        // SageMaker waited for an instance as long as it was allowed to.
        JobStatus::Stopped => [SecondaryStatus::MaxPendingTimeExceeded, SecondaryStatus::MaxWaitTimeExceeded]
            .contains(&job.secondary)
            .then_some(Cause::Capacity),
        JobStatus::Failed => job.failure_reason.as_deref().and_then(failure_reasons::retryable_cause),
        JobStatus::InProgress
        | JobStatus::Completed
        | JobStatus::Stopping
        | JobStatus::Deleting
        | JobStatus::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::base::node::{NodeId, Nodes};
    use crate::base::signals::Cancellation;
    use crate::cloud::testing::{Fault, Memory, When, example_job, example_spec};
    use crate::cloud::{CloudErrorKind, TrainingJobs as _};
    use crate::config::env::Environment;
    use crate::config::settings::Settings;
    use crate::gitlab::JobContext;
    use crate::session::node_record::NodeRecord;
    use crate::session::record::{Records, SessionRecord};
    use crate::session::requested_job::RequestedJob;
    use crate::session::spec;
    use crate::session::stamp::Stamp;
    use crate::session::{Host, SessionId};
    use crate::ui::{Captured, Printer};

    const NAME: &str = "gitlab-1-2-abcdef12";
    const CAPACITY: &str = "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type.";
    const INTERNAL: &str = "InternalServerError: We encountered an internal error. Please try again.";

    #[test_case(JobStatus::Failed, SecondaryStatus::Failed, CAPACITY => Some(Cause::Capacity))]
    #[test_case(JobStatus::Failed, SecondaryStatus::Failed, "InsufficientCapacityError: none" => Some(Cause::Capacity))]
    #[test_case(JobStatus::Failed, SecondaryStatus::Failed, "ClientError: Insufficient capacity error from EC2 while launching instances" => Some(Cause::Capacity))]
    #[test_case(JobStatus::Failed, SecondaryStatus::Failed, INTERNAL => Some(Cause::Internal))]
    #[test_case(JobStatus::Failed, SecondaryStatus::Failed, "AlgorithmError: InternalServerError, no capacity, exit code: 1" => None; "a script that says so")]
    #[test_case(JobStatus::Failed, SecondaryStatus::Failed, "ClientError: Cannot pull algorithm container." => None; "an image")]
    #[test_case(JobStatus::Stopped, SecondaryStatus::MaxPendingTimeExceeded, "" => Some(Cause::Capacity); "pending for too long")]
    #[test_case(JobStatus::Stopped, SecondaryStatus::MaxWaitTimeExceeded, "" => Some(Cause::Capacity); "waited for too long")]
    #[test_case(JobStatus::Stopped, SecondaryStatus::Stopped, "" => None; "stopped by somebody")]
    #[test_case(JobStatus::Stopped, SecondaryStatus::MaxRuntimeExceeded, "" => None; "out of time")]
    fn a_lost_job_has_a_cause(status: JobStatus, secondary: SecondaryStatus, reason: &str) -> Option<Cause> {
        let failure_reason = (!reason.is_empty()).then(|| reason.into());
        cause(&TrainingJob { failure_reason, ..example_job(NAME, status, secondary) })
    }

    struct Harness {
        memory: Memory,
        settings: Settings,
        printer: Printer,
        captured: Captured,
        job: JobContext,
        cancel: Cancellation,
        env: Environment,
        _dir: tempfile::TempDir,
    }

    impl Harness {
        async fn new(types_left: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let text = format!(
                "[aws]\nendpoint_url = \"http://127.0.0.1:1\"\ncreator_role_arn = \"arn:aws:iam::123456789012:role/creator\"\n[storage]\nbucket = \"b\"\n[job]\nimage = \"i\"\n\
                 role_arn = \"arn:aws:iam::123456789012:role/x\"\n[runner]\nstate_dir = \"{}\"\n",
                dir.path().display()
            );
            let (printer, captured) = Printer::captured();
            let memory = Memory::new();
            memory.jobs.create(&example_spec(NAME)).await.unwrap();
            let record = SessionRecord {
                arn: Some("arn".into()),
                agent: "agents/0".into(),
                instance_type: "ml.a.b".into(),
                types_left: types_left.iter().map(|name| (*name).to_owned()).collect(),
                nodes: Nodes::new(1, |_| NodeRecord { left: true, ..NodeRecord::default() }),
                ..SessionRecord::default()
            };
            Records::open(dir.path()).unwrap().save(&SessionId::parse(NAME).unwrap(), &record).unwrap();
            Self {
                memory,
                settings: toml::from_str(&text).unwrap(),
                printer,
                captured,
                job: serde_json::from_value(serde_json::json!({"id": 2, "job_info": {"project_id": 1}})).unwrap(),
                cancel: Cancellation::default(),
                env: Environment::default(),
                _dir: dir,
            }
        }

        fn attach(&self) -> Session<'_> {
            let id = SessionId::parse(NAME).unwrap();
            let host = Host::with_real_time(&self.settings, &self.printer);
            let (jobs, objects) = (self.memory.jobs.clone(), self.memory.objects.clone());
            Session::attach(id, jobs, objects, host).unwrap().unwrap()
        }

        fn fail(&self, name: &str, reason: &str) {
            self.memory.jobs.set_status(name, JobStatus::Failed, SecondaryStatus::Failed);
            self.memory.jobs.change(name, |job| job.failure_reason = Some(reason.into()));
        }

        async fn replace(&self, session: &mut Session<'_>) -> Replaced {
            replace(session, JobInputs { job: &self.job, env: &self.env, cancel: &self.cancel }).await.unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_type_is_asked_for_and_the_last_failure_lists_them() {
        let harness = Harness::new(&["ml.a.b", "ml.c.d"]).await;
        let mut session = harness.attach();
        harness.fail(NAME, CAPACITY);
        assert!(
            matches!(harness.replace(&mut session).await, Replaced::Another),
            "the same type may stand there twice"
        );
        harness.fail(&format!("{NAME}-2"), CAPACITY);
        assert!(matches!(harness.replace(&mut session).await, Replaced::Another));
        assert_eq!(session.job_name(), format!("{NAME}-3"));
        assert!(!session.state.leader().left && session.state.creation() != Creation::Requested);
        let spec = harness.memory.jobs.spec(&format!("{NAME}-3")).unwrap();
        assert_eq!(spec.instance_type, "ml.c.d");
        assert_eq!(spec.tags.get(spec::tag::SESSION).map(String::as_str), Some(NAME));
        let creator = spec.creator.unwrap();
        assert_eq!((creator.name.as_str(), creator.tags["sme-session"].as_str()), (NAME, NAME), "of the session");
        assert!(
            harness.captured.text().contains("no capacity for ml.a.b: requesting ml.c.d"),
            "{}",
            harness.captured.text()
        );
        // The next process reads the state that this one has.
        let known = session.state.snapshot().clone();
        let record = SessionRecord { version: 1, session: NAME.into(), ..known };
        assert_eq!(*harness.attach().state.snapshot(), record);
        harness.fail(&format!("{NAME}-3"), CAPACITY);
        let Replaced::NoneLeft(text) = harness.replace(&mut session).await else {
            panic!("nothing is left to ask for")
        };
        for word in ["ml.a.b: CapacityError", "ml.c.d: CapacityError", "`SAGEMAKER_INSTANCE_TYPE`"] {
            assert!(text.contains(word), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_internal_error_is_met_once_more_on_the_same_type() {
        let harness = Harness::new(&[]).await;
        let mut session = harness.attach();
        harness.fail(NAME, INTERNAL);
        assert!(matches!(harness.replace(&mut session).await, Replaced::Another));
        assert_eq!(harness.memory.jobs.spec(&format!("{NAME}-2")).unwrap().instance_type, "ml.a.b");
        harness.fail(&format!("{NAME}-2"), INTERNAL);
        assert!(matches!(harness.replace(&mut session).await, Replaced::No));
    }

    /// The quota of the first type is in use, so the second is granted, and has no capacity.
    #[tokio::test(start_paused = true)]
    async fn a_type_whose_quota_was_in_use_is_asked_for_again_and_waits() {
        let harness = Harness::new(&["ml.e.f"]).await;
        let mut session = harness.attach();
        session.apply(SessionEvent::TypeRefused { tried: "ml.c.d: in use", waiting: Some("ml.c.d") }).unwrap();
        harness.fail(NAME, CAPACITY);
        assert!(matches!(harness.replace(&mut session).await, Replaced::Another));
        assert_eq!(session.state.types(), ["ml.c.d", "ml.e.f"], "in the job's order");

        let harness = Harness::new(&[]).await;
        let mut session = harness.attach();
        session.apply(SessionEvent::TypeRefused { tried: "ml.c.d: in use", waiting: Some("ml.c.d") }).unwrap();
        harness.fail(NAME, CAPACITY);
        harness.memory.jobs.plan([Fault::new("create", 1, When::Before, CloudErrorKind::Quota).times(2)]);
        assert!(matches!(harness.replace(&mut session).await, Replaced::Another));
        assert_eq!(harness.memory.jobs.spec(&format!("{NAME}-2")).unwrap().instance_type, "ml.c.d");
        let told = harness.captured.text();
        assert!(told.contains("The job waits for ml.c.d, up to 1h") && told.contains("granted ml.c.d after"), "{told}");
    }

    /// SageMaker found no capacity for its list: a type that it passed over may wait for its quota, unless the job does not wait.
    #[tokio::test(start_paused = true)]
    async fn after_a_list_each_type_is_asked_for_alone() {
        for waits in [true, false] {
            let mut harness = Harness::new(&["ml.c.d"]).await;
            harness.settings.job.queue_timeout_seconds = if waits { 3600 } else { 0 };
            let mut session = harness.attach();
            let request = RequestedJob {
                preferred_types: vec!["ml.a.b".to_owned(), "ml.c.d".to_owned()],
                ..RequestedJob::default()
            };
            session.state = SessionRecord { request, ..session.state.snapshot().clone() }.into();
            harness.fail(NAME, CAPACITY);
            harness.memory.jobs.change(NAME, |job| job.pool.instance_type.clear());
            let replaced = harness.replace(&mut session).await;
            if waits {
                assert!(matches!(replaced, Replaced::Another));
                let told = "There is no capacity for ml.a.b or ml.c.d: requesting ml.a.b as";
                assert!(harness.captured.text().contains(told), "{}", harness.captured.text());
                assert_eq!(session.state.types(), ["ml.a.b", "ml.c.d"]);
            } else {
                let Replaced::NoneLeft(text) = replaced else { panic!("the job does not wait") };
                assert!(text.contains("ml.a.b or ml.c.d: CapacityError"), "{text}");
            }
        }
    }

    fn set_ready(session: &mut Session<'_>, is_ready: bool) {
        let nodes = Nodes::new(1, |_| NodeRecord { ready: is_ready, left: true, ..NodeRecord::default() });
        session.state = SessionRecord { nodes, ..session.state.snapshot().clone() }.into();
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_whose_container_ran_or_that_is_canceled_is_not_replaced() {
        let harness = Harness::new(&["ml.c.d"]).await;
        let mut session = harness.attach();
        harness.fail(NAME, CAPACITY);
        harness.memory.objects.insert(&session.keys().report(NodeId::LEADER, 1), "said something");
        assert!(matches!(harness.replace(&mut session).await, Replaced::No));
        harness.memory.objects.expire(&session.keys().report(NodeId::LEADER, 1));
        set_ready(&mut session, true);
        assert!(matches!(harness.replace(&mut session).await, Replaced::No));
        set_ready(&mut session, false);
        harness.cancel.raise();
        assert!(matches!(harness.replace(&mut session).await, Replaced::No));
        assert_eq!(harness.memory.jobs.names(), [NAME]);
    }

    /// The process was killed between the request and its answer.
    #[tokio::test(start_paused = true)]
    async fn a_creation_that_broke_off_is_completed_with_the_same_name() {
        let harness = Harness::new(&["ml.c.d"]).await;
        let mut session = harness.attach();
        harness.fail(NAME, CAPACITY);
        harness.replace(&mut session).await;
        let at = Stamp::of(&*session.clock);
        session.apply(SessionEvent::JobMayExist(&at)).unwrap();
        let mut taken_over = harness.attach();
        resume(&mut taken_over, JobInputs { job: &harness.job, env: &harness.env, cancel: &harness.cancel })
            .await
            .unwrap();
        assert!(matches!(taken_over.state.creation(), Creation::Created(_)));
        assert_eq!(harness.memory.jobs.names(), [NAME.to_owned(), format!("{NAME}-2")]);
    }
}
