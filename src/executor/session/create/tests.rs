//! Creates training jobs on fakes, in paused time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::*;
use crate::base::failure::{Kind, kind_of, render};
use crate::cloud::testing::{Fault, Memory, MemoryJobs, When, example_spec};
use crate::cloud::{CreatorSession, JobStatus, ObjectStore, RunningJobs, SecondaryStatus, TrainingJob};
use crate::config::settings::Settings;
use crate::session::record::{Records, SessionRecord};
use crate::session::{Host, SessionId};
use crate::ui::Printer;

const NAME: &str = "gitlab-1-2-abcdef12";

struct Harness {
    settings: Settings,
    printer: Printer,
    cancel: Cancellation,
    _dir: tempfile::TempDir,
}

impl Harness {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", dir.path().display());
        let settings: Settings = toml::from_str(&text).unwrap();
        Records::open(dir.path()).unwrap();
        Self { settings, printer: Printer::captured().0, cancel: Cancellation::default(), _dir: dir }
    }

    fn session(&self, name: &str, jobs: Arc<dyn TrainingJobs>) -> Session<'_> {
        let objects: Arc<dyn ObjectStore> = Memory::new().objects;
        let host = Host::with_real_time(&self.settings, &self.printer);
        Session::to_close(SessionId::parse(name).unwrap(), jobs, objects, host)
    }

    async fn launch(&self, memory: &Memory, types: &[&str]) -> (anyhow::Result<()>, SessionRecord) {
        self.launch_as(None, memory, types).await
    }

    async fn launch_as(
        &self,
        creator: Option<CreatorSession>,
        memory: &Memory,
        types: &[&str],
    ) -> (anyhow::Result<()>, SessionRecord) {
        let types: Vec<_> = types.iter().map(|name| (*name).to_owned()).collect();
        let mut session = self.session(NAME, memory.jobs.clone());
        let until = Instant::now() + PATIENCE;
        let spec = TrainingJobSpec { creator, ..example_spec(NAME) };
        let result = launch(&mut session, spec, &types, until, &self.cancel).await;
        let result = result.and_then(|launched| Ok(launched.or_fail()?));
        let id = SessionId::parse(NAME).unwrap();
        let kept = Records::at(&self.settings.runner.state_dir).load(&id).unwrap().unwrap();
        let record =
            SessionRecord { version: kept.version, session: kept.session.clone(), ..session.state.snapshot().clone() };
        assert_eq!(kept, record, "what is known is on disk");
        (result, record)
    }
}

fn faulty(plan: impl IntoIterator<Item = Fault>) -> Memory {
    let memory = Memory::new();
    memory.jobs.plan(plan);
    memory
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_reply_was_lost_is_adopted() {
    let (harness, memory) = (Harness::new(), faulty([Fault::new("create", 1, When::After, CloudErrorKind::Transient)]));
    let (result, record) = harness.launch(&memory, &["ml.a.b"]).await;
    result.unwrap();
    assert!(record.arn.is_some() && !record.creating);
    assert_eq!(memory.jobs.names(), [NAME]);
    let (result, _) = harness.launch(&memory, &["ml.a.b"]).await;
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_job_of_somebody_else_or_an_ended_one_is_not_adopted() {
    let memory = Memory::new();
    let mut foreign = example_spec(NAME);
    foreign.tags.insert(tag::SESSION.into(), "other".into());
    memory.jobs.create(&foreign).await.unwrap();
    let (result, _) = Harness::new().launch(&memory, &["ml.a.b"]).await;
    assert!(render(&result.unwrap_err()).contains("not of this session"));

    let (harness, memory) = (Harness::new(), Memory::new());
    harness.launch(&memory, &["ml.a.b"]).await.0.unwrap();
    memory.jobs.set_status(NAME, JobStatus::Stopped, SecondaryStatus::Stopped);
    let (result, _) = harness.launch(&memory, &["ml.a.b"]).await;
    assert!(render(&result.unwrap_err()).contains("ended already"));
}

#[tokio::test(start_paused = true)]
async fn the_next_type_is_asked_for_when_the_quota_refuses_one() {
    for kind in [CloudErrorKind::Quota, CloudErrorKind::Capacity] {
        let memory = faulty([Fault::new("create", 2, When::Before, kind)]);
        let (result, record) = Harness::new().launch(&memory, &["ml.a.b", "ml.c.d", "ml.e.f"]).await;
        result.unwrap();
        assert_eq!((record.instance_type.as_str(), record.types_left.len()), ("ml.a.b", 2));

        let memory = faulty([Fault::new("create", 1, When::Before, kind)]);
        let (result, record) = Harness::new().launch(&memory, &["ml.a.b", "ml.c.d", "ml.e.f"]).await;
        result.unwrap();
        assert_eq!(
            (record.instance_type.as_str(), record.types_left.as_slice()),
            ("ml.c.d", ["ml.e.f".to_owned()].as_slice())
        );
        assert_eq!(memory.jobs.spec(NAME).unwrap().instance_type, "ml.c.d");

        let memory = faulty([Fault::new("create", 1, When::Before, kind).forever()]);
        let (result, record) = Harness::new().launch(&memory, &["ml.a.b", "ml.c.d"]).await;
        let error = result.unwrap_err();
        assert_eq!(kind_of(&error), Kind::System);
        let text = render(&error);
        assert!(
            text.contains("`SAGEMAKER_INSTANCE_TYPE`") && text.contains("ml.a.b: ") && text.contains("ml.c.d: "),
            "{text}"
        );
        assert!(!record.creating);
    }
}

#[tokio::test(start_paused = true)]
async fn sagemaker_selects_a_type_unless_it_takes_no_list() {
    let preferred = || vec!["ml.a.b".to_owned(), "ml.c.d".to_owned()];
    let spec = || TrainingJobSpec { preferred_types: preferred(), ..example_spec(NAME) };
    let (harness, memory) = (Harness::new(), Memory::new());
    let mut session = harness.session(NAME, memory.jobs.clone());
    let until = Instant::now() + PATIENCE;
    launch(&mut session, spec(), &preferred(), until, &harness.cancel).await.unwrap().or_fail().unwrap();
    assert_eq!(memory.jobs.spec(NAME).unwrap().preferred_types, preferred());
    assert_eq!((session.state.shown_type(), session.state.types()), ("ml.a.b or ml.c.d".to_owned(), preferred()));
    session.apply(SessionEvent::TypeSelected("ml.c.d")).unwrap();
    assert_eq!((session.state.shown_type(), session.state.types_left()), ("ml.c.d".to_owned(), [].as_slice()));

    for kind in [CloudErrorKind::Quota, CloudErrorKind::Invalid, CloudErrorKind::Denied] {
        let (harness, memory) = (Harness::new(), faulty([Fault::new("create", 1, When::Before, kind)]));
        let mut session = harness.session(NAME, memory.jobs.clone());
        let until = Instant::now() + PATIENCE;
        launch(&mut session, spec(), &preferred(), until, &harness.cancel).await.unwrap().or_fail().unwrap();
        let asked = memory.jobs.spec(NAME).unwrap();
        assert_eq!((asked.instance_type.as_str(), asked.preferred_types.len()), ("ml.a.b", 0), "{kind:?}");
        assert_eq!((session.state.shown_type(), session.state.types_tried().len()), ("ml.a.b".to_owned(), 0));
    }
}

/// SageMaker waits only for instances with an accelerator.
#[tokio::test(start_paused = true)]
async fn the_wait_for_instances_is_sent_with_an_accelerator_alone() {
    let types = ["ml.g5.xlarge", "ml.m5.large"].map(str::to_owned);
    let wish = TrainingJobSpec { max_pending: Some(7200), ..example_spec(NAME) };
    for (refusals, list, sent) in [(0, false, Some(7200)), (1, false, None), (0, true, Some(7200)), (2, true, None)] {
        let refusal = Fault::new("create", 1, When::Before, CloudErrorKind::Quota).times(refusals);
        let (harness, memory) = (Harness::new(), faulty((refusals > 0).then_some(refusal)));
        let mut session = harness.session(NAME, memory.jobs.clone());
        let preferred_types = if list { types.to_vec() } else { Vec::new() };
        let spec = TrainingJobSpec { preferred_types, ..wish.clone() };
        let until = Instant::now() + PATIENCE;
        launch(&mut session, spec, &types, until, &harness.cancel).await.unwrap().or_fail().unwrap();
        assert_eq!(memory.jobs.spec(NAME).unwrap().max_pending, sent, "{refusals} {list}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_not_visible_yet_is_adopted_all_the_same() {
    let (harness, memory) = (Harness::new(), Memory::new());
    harness.launch(&memory, &["ml.a.b"]).await.0.unwrap();
    memory.jobs.hide(NAME, 2);
    harness.launch(&memory, &["ml.a.b"]).await.0.unwrap();
}

#[tokio::test(start_paused = true)]
async fn throttling_is_waited_out_for_minutes_and_no_longer() {
    let memory = faulty([Fault::new("create", 1, When::Before, CloudErrorKind::Throttled).times(20)]);
    let start = Instant::now();
    Harness::new().launch(&memory, &["ml.a.b"]).await.0.unwrap();
    assert!(start.elapsed() > Duration::from_mins(1), "{:?}", start.elapsed());

    let memory = faulty([Fault::new("create", 1, When::Before, CloudErrorKind::Throttled).forever()]);
    let start = Instant::now();
    let (result, record) = Harness::new().launch(&memory, &["ml.a.b"]).await;
    let error = result.unwrap_err();
    assert_eq!(kind_of(&error), Kind::System);
    assert!(render(&error).contains("throttles `CreateTrainingJob`"), "{}", render(&error));
    assert!(!record.creating, "every try was refused");
    let took = start.elapsed();
    assert!(took <= PATIENCE && took + Duration::from_secs(20) > PATIENCE, "{took:?}");
}

/// After a try without an answer a refusal does not mean that there is no job.
#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_lost_reply_leaves_it_open_whether_there_is_a_job() {
    for kind in [CloudErrorKind::Throttled, CloudErrorKind::Quota, CloudErrorKind::Denied, CloudErrorKind::Invalid] {
        for when in [When::Before, When::After] {
            let plan = [
                Fault::new("create", 1, when, CloudErrorKind::Transient),
                Fault::new("create", 2, When::Before, kind).forever(),
            ];
            let (result, record) = Harness::new().launch(&faulty(plan), &["ml.a.b"]).await;
            assert!(result.is_err());
            assert!(record.creating, "{kind:?} {when:?}");
        }
        let plan = [Fault::new("create", 1, When::Before, kind).forever()];
        let (result, record) = Harness::new().launch(&faulty(plan), &["ml.a.b"]).await;
        assert!(result.is_err());
        assert!(!record.creating, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_brings_no_answer_is_tried_a_few_times() {
    let memory = faulty([Fault::new("create", 1, When::Before, CloudErrorKind::Transient).forever()]);
    let (result, record) = Harness::new().launch(&memory, &["ml.a.b"]).await;
    assert!(result.is_err() && record.creating);
    assert_eq!(memory.jobs.count("create"), 5);
}

/// A cancel waits for the answer of the request under way, and stops the job that it created.
#[tokio::test(start_paused = true)]
async fn a_canceled_creation_is_waited_for_and_its_job_stopped() {
    let (harness, memory) = (Harness::new(), faulty([Fault::slow("create", Duration::from_secs(40))]));
    let cancel = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        harness.cancel.raise();
        std::future::pending::<()>().await;
    };
    let (result, record) = tokio::select! {
        launched = harness.launch(&memory, &["ml.a.b"]) => launched,
        () = cancel => unreachable!(),
    };
    assert!(render(&result.unwrap_err()).contains("canceled while the training job was created"));
    assert!(memory.jobs.calls().contains(&format!("stop {NAME}")));
    assert!(record.arn.is_some() && !record.creating);
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_the_waiting() {
    let (harness, memory) = (Harness::new(), faulty([Fault::slow("create", Duration::from_secs(40))]));
    let start = Instant::now();
    let cancel = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            harness.cancel.raise();
        }
        std::future::pending::<()>().await;
    };
    let (result, record) = tokio::select! {
        launched = harness.launch(&memory, &["ml.a.b"]) => launched,
        () = cancel => unreachable!(),
    };
    assert!(result.is_err() && record.creating);
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_the_tries_under_throttling() {
    let (harness, memory) =
        (Harness::new(), faulty([Fault::new("create", 1, When::Before, CloudErrorKind::Throttled).forever()]));
    let start = Instant::now();
    let cancel = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        harness.cancel.raise();
        std::future::pending::<()>().await;
    };
    let (result, record) = tokio::select! {
        launched = harness.launch(&memory, &["ml.a.b"]) => launched,
        () = cancel => unreachable!(),
    };
    assert!(render(&result.unwrap_err()).contains("canceled"));
    assert!(!record.creating);
    assert!(start.elapsed() < Duration::from_secs(4));
}

/// Jobs of one host that begin together, while other hosts use part of the account's rate: every job is created within
/// the time limit.
#[tokio::test(start_paused = true)]
async fn sixty_jobs_at_once_are_all_created_at_one_request_in_two_seconds() {
    let harness = Harness::new();
    let memory = Memory::new();
    let limited: Arc<dyn TrainingJobs> =
        Arc::new(Limited { jobs: memory.jobs.clone(), next: Mutex::new(Instant::now()) });
    let until = Instant::now() + PATIENCE;
    let launches = (0..60).map(|number| {
        let (harness, jobs) = (&harness, limited.clone());
        async move {
            let mut session = harness.session(&format!("gitlab-1-{number}-abcdef12"), jobs);
            launch(&mut session, example_spec("x"), &["ml.a.b".to_owned()], until, &harness.cancel).await
        }
    });
    for launched in futures::future::join_all(launches).await {
        launched.unwrap();
    }
    assert_eq!(memory.jobs.names().len(), 60);
}

/// Admits one request in two seconds.
struct Limited {
    jobs: Arc<MemoryJobs>,
    next: Mutex<Instant>,
}

#[async_trait::async_trait]
impl TrainingJobs for Limited {
    async fn create(&self, spec: &TrainingJobSpec) -> Result<String, CloudError> {
        {
            let mut next = self.next.lock();
            if Instant::now() < *next {
                return Err(CloudError {
                    kind: CloudErrorKind::Throttled,
                    operation: "create".into(),
                    message: "Rate exceeded".into(),
                    action: "",
                });
            }
            *next = Instant::now() + Duration::from_secs(2);
        }
        self.jobs.create(spec).await
    }
    async fn describe(&self, name: &str) -> Result<Option<TrainingJob>, CloudError> {
        self.jobs.describe(name).await
    }
    async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError> {
        self.jobs.tags(arn).await
    }
    async fn stop(&self, name: &str) -> Result<(), CloudError> {
        self.jobs.stop(name).await
    }
    async fn warm_pools(&self, name_contains: &str) -> Result<Vec<String>, CloudError> {
        self.jobs.warm_pools(name_contains).await
    }
    async fn running(&self, name_contains: &str, created: Range<SystemTime>) -> Result<RunningJobs, CloudError> {
        self.jobs.running(name_contains, created).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_denied_call_names_the_permission() {
    let memory = faulty([Fault::new("create", 1, When::Before, CloudErrorKind::Denied)]);
    let error = Harness::new().launch(&memory, &["ml.a.b"]).await.0.unwrap_err();
    assert_eq!(kind_of(&error), Kind::System);
    assert!(render(&error).contains("`runner-config/iam/` has every action"));
}

fn creator() -> CreatorSession {
    CreatorSession { role_arn: "arn:aws:iam::1:role/creator".into(), name: NAME.into(), tags: BTreeMap::new() }
}

/// The host's own identity never takes the place of the creator's.
#[tokio::test(start_paused = true)]
async fn without_the_creators_session_no_job_is_created() {
    let memory = faulty([Fault::new("assume", 1, When::Before, CloudErrorKind::Denied).forever()]);
    let (result, record) = Harness::new().launch_as(Some(creator()), &memory, &["ml.a.b", "ml.c.d"]).await;
    let error = result.unwrap_err();
    assert_eq!(kind_of(&error), Kind::System);
    let text = render(&error);
    for word in ["`aws.creator_role_arn`", "`sts:AssumeRole`", "`sts:TagSession`"] {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!((memory.jobs.count("assume"), memory.jobs.count("create"), record.creating), (1, 0, false));

    let memory = faulty([Fault::new("create", 1, When::Before, CloudErrorKind::Denied)]);
    let error = Harness::new().launch_as(Some(creator()), &memory, &["ml.a.b"]).await.0.unwrap_err();
    assert!(render(&error).contains("allow the role `aws.creator_role_arn`"), "{}", render(&error));
}

/// A request for the creator's session creates no job, so `cleanup` need not look for one.
#[tokio::test(start_paused = true)]
async fn the_creators_session_is_tried_a_few_times_and_leaves_nothing() {
    let memory = faulty([Fault::new("assume", 1, When::After, CloudErrorKind::Transient)]);
    Harness::new().launch_as(Some(creator()), &memory, &["ml.a.b"]).await.0.unwrap();
    assert_eq!(memory.jobs.spec(NAME).unwrap().creator, Some(creator()));

    let memory = faulty([Fault::new("assume", 1, When::Before, CloudErrorKind::Transient).forever()]);
    let (result, record) = Harness::new().launch_as(Some(creator()), &memory, &["ml.a.b"]).await;
    assert!(result.is_err() && !record.creating);
    assert_eq!(memory.jobs.count("assume"), 5);
}
