//! Brings a configuration of an endpoint into service: carries out the steps that `rollout` decides, for every command that does so.
//!
//! Each step can be repeated: a run that ends in any wait is gone on with by the next one.

use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use tokio::time::Instant;

use super::progress::ChangeLines;
use super::rollout::{self, RolloutEnd, RolloutGoal, RolloutMemory, RolloutStep};
use super::scaling::{SavedScaling, ScalingKeeper};
use crate::base::backoff::backoff;
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::human::human_duration;
use crate::cloud::{CloudError, CloudErrorKind, EndpointChange, EndpointSight, ModelEndpoints, NewEndpoint};
use crate::ui::Printer;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Requests in a row that may fail while AWS is at work: the SDK has tried each of them several times.
const MOST_FAILURES: usize = 10;
/// Looks more that must agree that somebody changed the endpoint.
const MOST_DOUBTS: usize = 2;

/// Why an endpoint was not brought where it should be.
#[derive(Debug)]
pub(super) enum BringError {
    /// AWS refused the request, and no earlier request of the deployment can be under way: the endpoint is as before.
    Refused(CloudError),
    /// Nobody knows what AWS does meanwhile. The same command goes on with it.
    Unknown(anyhow::Error),
}

impl From<anyhow::Error> for BringError {
    fn from(error: anyhow::Error) -> Self {
        Self::Unknown(error)
    }
}

impl From<BringError> for anyhow::Error {
    fn from(error: BringError) -> Self {
        match error {
            BringError::Refused(error) => error.into(),
            BringError::Unknown(error) => error,
        }
    }
}

/// Changes an endpoint, and waits for the change.
pub(super) struct EndpointEngine<'a> {
    pub(super) endpoints: Arc<dyn ModelEndpoints>,
    pub(super) scaling: ScalingKeeper,
    pub(super) printer: &'a Printer,
    /// The end of all waits.
    pub(super) deadline: Instant,
}

/// An endpoint that AWS does not change.
pub(super) struct SettledEndpoint {
    /// `None` when there is none.
    pub(super) sight: Option<EndpointSight>,
    /// AWS was at work before.
    pub(super) has_changed: bool,
}

impl EndpointEngine<'_> {
    /// Brings the goal's configuration into service. Scaling that stands in the way of another instance type is removed before the
    /// update; the caller restores it.
    ///
    /// # Errors
    /// AWS refuses a request, or the time is over: the change goes on at AWS.
    pub(super) async fn bring(
        &self,
        goal: &RolloutGoal,
        in_the_way: Option<&SavedScaling>,
    ) -> Result<RolloutEnd, BringError> {
        let mut memory = RolloutMemory::default();
        let mut may_be_under_way = goal.is_resumed;
        let mut wait = Wait::new(self);
        let mut asked_at = Instant::now();
        loop {
            let Some(sight) = wait.look(&goal.endpoint).await? else { continue };
            let step = rollout::next(goal, sight.as_ref(), &mut memory, asked_at.elapsed());
            let is_request = !matches!(step, RolloutStep::Wait | RolloutStep::End(_));
            let answer = match step {
                RolloutStep::End(end) => return Ok(end),
                RolloutStep::Wait => Ok(()),
                RolloutStep::Create => self.create(goal).await,
                RolloutStep::Update => {
                    if let Some(saved) = in_the_way {
                        self.scaling.remove(&saved.variant()).await?;
                    }
                    self.update(goal).await
                }
                RolloutStep::Delete => self.endpoints.delete_endpoint(&goal.endpoint).await,
            };
            match answer {
                Ok(()) => {
                    memory.has_asked |= matches!(step, RolloutStep::Create | RolloutStep::Update);
                    memory.has_deleted |= step == RolloutStep::Delete;
                }
                // The request of an earlier run is under way, or the answer to ours was lost: the next look says so.
                Err(error) if wait.refusals < most_refusals(&error) => {
                    wait.refusals += 1;
                    may_be_under_way |= is_unanswered(&error);
                }
                Err(error) if may_be_under_way || memory.has_asked || is_unanswered(&error) => {
                    return Err(BringError::Unknown(error.into()));
                }
                Err(error) => return Err(BringError::Refused(error)),
            }
            if is_request {
                asked_at = Instant::now();
            }
            wait.pause(&goal.endpoint).await?;
        }
    }

    /// Waits until AWS changes the endpoint no more.
    ///
    /// # Errors
    /// The time is over.
    pub(super) async fn settled(&self, endpoint: &str) -> anyhow::Result<SettledEndpoint> {
        let mut wait = Wait::new(self);
        let mut has_changed = false;
        loop {
            match wait.look(endpoint).await? {
                Some(Some(sight)) if sight.state.is_changing() => {
                    has_changed = true;
                    wait.pause(endpoint).await?;
                }
                Some(sight) => return Ok(SettledEndpoint { sight, has_changed }),
                None => {}
            }
        }
    }

    /// Whether the endpoint still serves a configuration that it served a moment ago.
    ///
    /// # Errors
    /// The time is over.
    pub(super) async fn still_serves(&self, endpoint: &str, config: &str) -> anyhow::Result<RolloutEnd> {
        let mut wait = Wait::new(self);
        let mut doubts = 0;
        loop {
            let Some(sight) = wait.look(endpoint).await? else { continue };
            match rollout::next_of_served(config, sight.as_ref()) {
                RolloutStep::End(RolloutEnd::InService) => return Ok(RolloutEnd::InService),
                // One answer may be late.
                RolloutStep::End(end) if doubts == MOST_DOUBTS => return Ok(end),
                RolloutStep::End(_) => doubts += 1,
                _ => {}
            }
            wait.pause(endpoint).await?;
        }
    }

    /// The same, with another end of all waits.
    pub(super) fn until(&self, deadline: Instant) -> Self {
        let Self { endpoints, scaling, printer, .. } = self;
        Self { endpoints: endpoints.clone(), scaling: scaling.clone(), printer, deadline }
    }

    async fn create(&self, goal: &RolloutGoal) -> Result<(), CloudError> {
        let RolloutGoal { endpoint, config, tags, .. } = goal;
        let new = NewEndpoint { name: endpoint.clone(), config: config.clone(), tags: tags.clone() };
        self.endpoints.create_endpoint(&new).await
    }

    async fn update(&self, goal: &RolloutGoal) -> Result<(), CloudError> {
        let RolloutGoal { endpoint, config, keeps_counts, rollout, .. } = goal;
        let change = EndpointChange {
            name: endpoint.clone(),
            config: config.clone(),
            keeps_counts: *keeps_counts,
            rollout: rollout.clone(),
        };
        self.endpoints.update_endpoint(&change).await
    }
}

/// Whether AWS may have done what was asked for.
fn is_unanswered(error: &CloudError) -> bool {
    error.kind.may_pass() || error.kind == CloudErrorKind::Unauthenticated
}

/// How often a request may be refused in this way: the endpoint may be changing already, or not show its configuration yet.
fn most_refusals(error: &CloudError) -> usize {
    match error.kind {
        CloudErrorKind::Exists | CloudErrorKind::NotFound | CloudErrorKind::Invalid => 4,
        kind if kind.may_pass() => MOST_FAILURES,
        _ => 0,
    }
}

/// A wait for an endpoint.
struct Wait<'a> {
    engine: &'a EndpointEngine<'a>,
    lines: ChangeLines<'a>,
    pauses: backon::ExponentialBackoff,
    /// Looks in a row that failed.
    failures: usize,
    /// Refused requests since the last change.
    refusals: usize,
}

impl<'a> Wait<'a> {
    fn new(engine: &'a EndpointEngine<'a>) -> Self {
        Self { engine, lines: ChangeLines::new(engine.printer), pauses: pauses(), failures: 0, refusals: 0 }
    }

    /// The endpoint as AWS shows it now; `None` after a request that failed and may be repeated.
    async fn look(&mut self, endpoint: &str) -> anyhow::Result<Option<Option<EndpointSight>>> {
        match self.engine.endpoints.endpoint(endpoint).await {
            Ok(sight) => {
                self.failures = 0;
                if self.lines.tell(sight.as_ref()) {
                    self.pauses = pauses();
                    self.refusals = 0;
                }
                Ok(Some(sight))
            }
            Err(error) if error.kind.may_pass() && self.failures < MOST_FAILURES => {
                self.failures += 1;
                self.pause(endpoint).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn pause(&mut self, endpoint: &str) -> anyhow::Result<()> {
        let pause = self.pauses.next().unwrap_or(LONGEST_PAUSE);
        let now = Instant::now();
        if now >= self.engine.deadline {
            let elapsed = human_duration(now - self.lines.started());
            let message = format!("the change of the endpoint {endpoint} is not done after {elapsed}");
            return Err(Failure::verdict(exit_codes::TRY_LATER, message)
                .hint("it goes on at AWS: run the same command again, which goes on with the wait")
                .hint("a longer `--timeout`, and `timeout:` of the job, leave more time")
                .into());
        }
        tokio::time::sleep(pause.min(self.engine.deadline - now)).await;
        Ok(())
    }
}

fn pauses() -> backon::ExponentialBackoff {
    backoff(FIRST_PAUSE, LONGEST_PAUSE).build()
}
