//! Creates the training job exactly once, with retries: a job that exists already under the name is adopted.
//!
//! The port tries once. This module retries with the same name, and remembers when a try without an answer may have
//! created the job: after that, a refusal no longer proves that there is none.

use std::time::{Duration, UNIX_EPOCH};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use crate::base::backoff::backoff;
use crate::base::failure::Failure;
use crate::base::signals::Cancellation;
use crate::cloud::{CloudError, CloudErrorKind, Parameter, TrainingJobSpec, TrainingJobs};
use crate::session::Session;
use crate::session::create_rate::CreateRate;
use crate::session::event::SessionEvent;
use crate::session::quota::QuotaRefusal;
use crate::session::requested_job::RequestedJob;
use crate::session::spec::tag;
use crate::session::stamp::Stamp;
use crate::session::warm_pool;

/// Retries under throttling end this long after the beginning of the stage. With the last try, a minute at most, that
/// fits into the `prepare_exec_timeout` of 300 s that `runner-config/config.toml` sets.
pub const PATIENCE: Duration = Duration::from_secs(225);
/// Tries in a row without an answer.
const UNANSWERED_TRIES: u32 = 5;
const PAUSES: ExponentialBuilder = backoff(Duration::from_millis(500), Duration::from_secs(8));
/// How often a job whose name is taken is described before the name counts as foreign.
const VISIBLE_TRIES: u32 = 10;
const VISIBLE_PAUSE: Duration = Duration::from_secs(1);

/// Outcome of the requests for a training job.
pub enum Launched {
    Created,
    Refused(AllRefused),
}

/// Every instance type was refused.
pub struct AllRefused {
    /// The types that may be granted later, because others use the quota now.
    pub may_wait: Vec<String>,
    /// SageMaker's reasons, one for each type.
    pub reasons: Vec<String>,
    pub failure: Failure,
}

impl Launched {
    /// The failure when no type was granted.
    pub fn or_fail(self) -> Result<(), Failure> {
        match self {
            Self::Created => Ok(()),
            Self::Refused(refused) => Err(refused.failure),
        }
    }
}

/// Requests the types that SageMaker is to select from, if the job has some, and then each instance type in turn until one is granted. The record is saved before each request, so that `cleanup`
/// knows which training job may exist even if this process is killed.
///
/// The first signal ends the retries; the request under way is awaited, a minute at most, and a job that it created is
/// stopped. The second signal ends the wait.
pub async fn launch(
    session: &mut Session<'_>,
    mut spec: TrainingJobSpec,
    types: &[String],
    until: Instant,
    cancel: &Cancellation,
) -> anyhow::Result<Launched> {
    let rate = CreateRate::of(&session.settings.runner.state_dir, &Stamp::of(&*session.clock));
    let mut attempts = Attempts { rate, until, cancel, pauses: PAUSES.build(), unanswered: 0, may_exist: false };
    let (mut refused, mut may_wait) = (Vec::new(), Vec::new());
    warm_pool::note(session, &spec).await?;
    let preferred = std::mem::take(&mut spec.preferred_types);
    let max_pending = spec.max_pending;
    let list = (!preferred.is_empty()).then_some((0, preferred));
    for (index, preferred) in list.into_iter().chain((0..types.len()).map(|index| (index, Vec::new()))) {
        let Some(instance_type) = types.get(index) else { continue };
        spec.preferred_types = preferred;
        spec.name = session.job_name();
        spec.instance_type.clone_from(instance_type);
        spec.max_pending = max_pending.filter(|_| spec.has_accelerators());
        let types_left = types.get(index + 1..).unwrap_or_default();
        let at = Stamp::of(&*session.clock);
        let created = session.clock.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // Saved before the call: a job that was created and not recorded would never be stopped.
        let request = &RequestedJob::of(&spec, &session.objects.uri(&session.keys().output()));
        session.apply(SessionEvent::JobRequested { request, instance_type, types_left, at: &at, created })?;
        match attempts.ask(&*session.jobs, &spec).await {
            Ok(arn) => {
                let kept = session.apply(SessionEvent::JobCreated(&arn));
                if cancel.asked() {
                    // `cleanup` checks that it has ended.
                    if let Err(error) = session.jobs.stop(&spec.name).await {
                        tracing::warn!(%error, "failed to stop the training job");
                    }
                    return Err(kept.err().unwrap_or_else(canceled));
                }
                kept?;
                for reason in &refused {
                    session.printer.line(format!("Refused, so {instance_type} was asked for: {reason}"));
                }
                return Ok(Launched::Created);
            }
            Err(Refusal::OfList(reason)) => tracing::debug!(reason, "SageMaker selects none of the types"),
            Err(Refusal::OfType { reason, may_wait: waits }) => {
                let tried = format!("{instance_type}: {reason}");
                let waiting = waits.then_some(instance_type.as_str());
                session.apply(SessionEvent::TypeRefused { tried: &tried, waiting })?;
                may_wait.extend(waiting.map(str::to_owned));
                refused.push(tried);
            }
            Err(Refusal::Final(error)) => {
                attempts.note_refusal(session)?;
                return Err(error);
            }
        }
    }
    attempts.note_refusal(session)?;
    Ok(Launched::Refused(AllRefused { may_wait, failure: all_refused(session, &refused), reasons: refused }))
}

fn all_refused(session: &Session<'_>, reasons: &[String]) -> Failure {
    let quotas: Vec<_> =
        reasons.iter().filter_map(|reason| QuotaRefusal::parse(reason)).map(|quota| quota.name).collect();
    let named: Vec<_> = quotas.iter().filter(|name| !name.is_empty()).map(|name| format!("`{name}`")).collect();
    let named = if named.is_empty() { "`for training job usage`".to_owned() } else { named.join(", ") };
    Failure::system(none_left(session.state.types_tried())).hint(format!(
        "add another type to `SAGEMAKER_INSTANCE_TYPE`, or raise the quota in Service Quotas, `Amazon SageMaker`, {named}"
    ))
}

/// Every instance type was refused, or ended without capacity.
pub(super) fn none_left(tried: &[String]) -> String {
    format!("none of the job's instance types is available: {}", tried.join("; "))
}

fn canceled() -> anyhow::Error {
    Failure::canceled("canceled while the training job was created").into()
}

/// Why a request created no job.
enum Refusal {
    /// Not of the types from which SageMaker was to select; each of them may be granted alone.
    OfList(String),
    /// Another instance type may be granted. `may_wait`: this one too, when others need it no more.
    OfType {
        reason: String,
        may_wait: bool,
    },
    Final(anyhow::Error),
}

/// State of the retries of one launch.
struct Attempts<'a> {
    rate: CreateRate,
    until: Instant,
    cancel: &'a Cancellation,
    pauses: ExponentialBackoff,
    unanswered: u32,
    /// A try had no answer: a job may exist whatever later tries answer.
    may_exist: bool,
}

impl Attempts<'_> {
    fn note_refusal(&self, session: &mut Session<'_>) -> anyhow::Result<()> {
        let at = Stamp::of(&*session.clock);
        session.apply(if self.may_exist { SessionEvent::JobMayExist(&at) } else { SessionEvent::JobRefused })
    }

    async fn ask(&mut self, jobs: &dyn TrainingJobs, spec: &TrainingJobSpec) -> Result<String, Refusal> {
        loop {
            let turn = tokio::select! {
                turn = self.rate.take(self.until) => turn,
                () = self.cancel.token().cancelled() => return Err(Refusal::Final(canceled())),
            };
            if self.cancel.asked() {
                return Err(Refusal::Final(canceled()));
            }
            if !turn {
                return Err(Refusal::Final(throttled(spec).caused_by(no_turn(spec)).into()));
            }
            let answer = tokio::select! {
                answer = jobs.create(spec) => answer,
                () = at_once(self.cancel) => {
                    self.may_exist = true;
                    return Err(Refusal::Final(canceled()));
                }
            };
            let answer = match answer {
                Err(error) if error.kind == CloudErrorKind::Exists => {
                    self.may_exist = true;
                    adopt(jobs, spec).await
                }
                answer => answer.map_err(anyhow::Error::from),
            };
            let error = match answer {
                Ok(arn) => {
                    self.rate.answered(false).await;
                    return Ok(arn);
                }
                Err(error) => error,
            };
            let kind = error.downcast_ref::<CloudError>().map(|error| error.kind);
            let is_throttled = kind == Some(CloudErrorKind::Throttled);
            if is_throttled {
                self.rate.answered(true).await;
            }
            match kind {
                Some(CloudErrorKind::Throttled) => self.unanswered = 0,
                Some(CloudErrorKind::Transient | CloudErrorKind::Other) => {
                    self.may_exist |= !of_creator(&error);
                    self.unanswered += 1;
                }
                // Whatever the reason is: the requests for single types need no list, and meet the reason again if it is theirs.
                Some(_) if !spec.preferred_types.is_empty() => return Err(Refusal::OfList(format!("{error:#}"))),
                Some(CloudErrorKind::Quota | CloudErrorKind::Capacity) => {
                    let reason =
                        error.downcast::<CloudError>().map_or_else(|error| error.to_string(), |error| error.message);
                    let may_wait = QuotaRefusal::parse(&reason).is_none_or(|quota| quota.may_fit());
                    return Err(Refusal::OfType { reason, may_wait });
                }
                _ => return Err(Refusal::Final(refusal(error, spec))),
            }
            let pause = self.pauses.next().unwrap_or_default().mul_f64(0.5 + fastrand::f64());
            if self.unanswered >= UNANSWERED_TRIES || Instant::now() + pause >= self.until {
                let error = if is_throttled { throttled(spec).caused_by(error).into() } else { refusal(error, spec) };
                return Err(Refusal::Final(error));
            }
            tracing::debug!(error = format!("{error:#}"), "failed to create the training job; trying again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.cancel.token().cancelled() => return Err(Refusal::Final(canceled())),
            }
        }
    }
}

async fn at_once(cancel: &Cancellation) {
    while !cancel.at_once() {
        cancel.changed().await;
    }
}

/// The host's own limit left no time for a request.
fn no_turn(spec: &TrainingJobSpec) -> CloudError {
    CloudError {
        kind: CloudErrorKind::Throttled,
        operation: format!("create training job {}", spec.name),
        message: "other jobs of this host had their turn first".to_owned(),
        action: "sagemaker:CreateTrainingJob",
    }
}

fn throttled(spec: &TrainingJobSpec) -> Failure {
    Failure::system(format!(
        "the training job {} was not created within {}: SageMaker throttles `CreateTrainingJob`",
        spec.name,
        humantime::format_duration(PATIENCE)
    ))
    .hint("let fewer jobs begin at once (`concurrent` in the runner's `config.toml`), or ask AWS for a higher rate of `CreateTrainingJob`")
}

/// The name is taken: adopts the job when it carries this session's tag, as after a lost reply. AWS does not tell whether the
/// tags of the creator's session were carried over; without them the policy of the job's role allows it nothing.
async fn adopt(jobs: &dyn TrainingJobs, spec: &TrainingJobSpec) -> anyhow::Result<String> {
    let foreign = || Failure::system(format!("a training job {} exists already and is not of this session", spec.name));
    let mut tries = 0;
    let job = loop {
        match jobs.describe(&spec.name).await? {
            Some(job) => break job,
            // Created a moment ago and not visible yet.
            None if tries < VISIBLE_TRIES => tries += 1,
            None => return Err(foreign().into()),
        }
        tokio::time::sleep(VISIBLE_PAUSE).await;
    };
    let tags = jobs.tags(&job.arn).await?;
    // One with another key reads other orders than this session's: its record was lost.
    if [tag::SESSION, tag::KEY].iter().any(|name| tags.get(*name) != spec.tags.get(*name)) {
        return Err(foreign().into());
    }
    if job.status.is_terminal() {
        return Err(Failure::system(format!("the training job {} of this session has ended already", spec.name)).into());
    }
    Ok(job.arn)
}

/// `true` when there are no credentials of the creator's role: the request for the job was not sent.
fn of_creator(error: &anyhow::Error) -> bool {
    error.downcast_ref::<CloudError>().is_some_and(|error| error.action.starts_with("sts:"))
}

/// Classifies a refused request as the job's or the system's failure, with a hint.
fn refusal(error: anyhow::Error, spec: &TrainingJobSpec) -> anyhow::Error {
    let error = match error.downcast::<CloudError>() {
        Ok(error) => error,
        // It is a `Failure` already.
        Err(error) => return error,
    };
    let text = format!("failed to create the training job {}", spec.name);
    let creator = spec.creator.as_ref().map_or("the runner host's role", |_| "the role `aws.creator_role_arn`");
    let failure = match error.kind {
        CloudErrorKind::Denied if error.action.starts_with("sts:") => Failure::system(text).hint(
            "check `aws.creator_role_arn`: the trust policy of this role and the policy of the runner host's role must both allow \
             `sts:AssumeRole` and `sts:TagSession`, with the tags `sme-session`, `sme-project` and `sme-protected`",
        ),
        CloudErrorKind::Denied if error.action == "iam:PassRole" => {
            Failure::system(text).hint(format!("allow {creator} `iam:PassRole` for `{}`", spec.role_arn))
        }
        CloudErrorKind::Denied => Failure::system(text).hint(format!(
            "allow {creator} `{}`, and `iam:PassRole` for `{}`; `runner-config/iam/` has every action that it needs",
            error.action, spec.role_arn
        )),
        CloudErrorKind::Refused(Parameter::InstanceType) => Failure::user(text)
            .hint("set `SAGEMAKER_INSTANCE_TYPE` to a type that SageMaker training offers in this region"),
        CloudErrorKind::Refused(Parameter::Image) => Failure::user(text).hint("check the job's `image:`"),
        CloudErrorKind::Refused(Parameter::Role) => {
            Failure::system(text).hint(
                "check `job.role_arn`: the role must exist in the account of the runner host, and trust `sagemaker.amazonaws.com`, with \
                 `aws.creator_role_arn` for `sts:TagSession` too",
            )
        }
        CloudErrorKind::Refused(Parameter::Key) => Failure::system(text).hint(
            "check `job.volume_kms_key_id` and `storage.kms_key_id`: enabled keys of this region; instance types with local storage take no \
             `job.volume_kms_key_id`",
        ),
        CloudErrorKind::Refused(Parameter::Network) => Failure::system(text)
            .hint("check `job.subnets` and `job.security_group_ids`: they must exist in one VPC of this account and region"),
        _ => Failure::system(text),
    };
    failure.caused_by(error).into()
}

#[cfg(test)]
mod tests;
