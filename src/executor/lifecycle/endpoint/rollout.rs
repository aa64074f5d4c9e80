//! The next step of a rollout, by what AWS shows. Pure.
//!
//! After a rollback by AWS an endpoint is `InService` on its old configuration, as it was before the update, and after a request it may
//! still be shown as before. Its time of change tells the two apart.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::cloud::{EndpointSight, EndpointState, RolloutSpec};

/// How long AWS may show an endpoint as it was before a request.
const LONGEST_STALE: Duration = Duration::from_mins(5);

/// A configuration to bring into service, and the endpoint before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RolloutGoal {
    pub(super) endpoint: String,
    pub(super) config: String,
    /// `None` when there was no endpoint.
    pub(super) before: Option<EndpointBefore>,
    /// `None` for serverless endpoints.
    pub(super) rollout: Option<RolloutSpec>,
    /// The number of instances stays what autoscaling has made it.
    pub(super) keeps_counts: bool,
    /// An endpoint that is `Failed` is deleted, and made again.
    pub(super) replaces_failed: bool,
    /// An earlier run may have asked for the same already.
    pub(super) is_resumed: bool,
    /// Tags of an endpoint that is made.
    pub(super) tags: BTreeMap<String, String>,
}

/// An endpoint before a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndpointBefore {
    pub(super) config: String,
    pub(super) modified: Option<SystemTime>,
}

impl EndpointBefore {
    pub(super) fn of(sight: &EndpointSight) -> Self {
        Self { config: sight.config.clone(), modified: sight.modified }
    }
}

/// The requests of this run, and what AWS has shown since.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RolloutMemory {
    /// An endpoint was made, or its update was asked for, in this run or as AWS shows.
    pub(super) has_asked: bool,
    pub(super) has_deleted: bool,
    /// AWS has shown a change since `before`.
    has_moved: bool,
    /// The endpoint when this run asked for its update or deletion. Autoscaling may have changed it since the deployment began.
    before: Option<EndpointBefore>,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RolloutStep {
    /// AWS is at work, or does not show yet what was asked for.
    Wait,
    Create,
    Update,
    Delete,
    End(RolloutEnd),
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RolloutEnd {
    /// The endpoint serves the configuration.
    InService,
    /// The old configuration is in service again, with AWS's words.
    RolledBack(Option<String>),
    /// The endpoint could not be made, with AWS's words. It can only be deleted.
    Failed(Option<String>),
    /// AWS could not go back either, with its words. It takes no update any more.
    RollbackFailed(Option<String>),
    /// Somebody else's change came between: the configuration that is in service, if there is an endpoint.
    Displaced(Option<String>),
    /// AWS does not show what was asked for.
    NotShown,
}

/// The next step. `since` is the time since the last request of this run.
pub(super) fn next(
    goal: &RolloutGoal,
    sight: Option<&EndpointSight>,
    memory: &mut RolloutMemory,
    since: Duration,
) -> RolloutStep {
    let Some(sight) = sight else { return next_of_none(goal, memory, since) };
    let is_pending = sight.pending_config.as_ref() == Some(&goal.config);
    memory.has_moved |= is_pending || is_later(memory.before.as_ref().or(goal.before.as_ref()), sight);
    memory.has_asked |= is_pending;
    match sight.state {
        EndpointState::Creating
        | EndpointState::Updating
        | EndpointState::SystemUpdating
        | EndpointState::RollingBack
        | EndpointState::Deleting
        | EndpointState::Unknown => RolloutStep::Wait,
        EndpointState::InService if sight.config == goal.config => RolloutStep::End(RolloutEnd::InService),
        EndpointState::InService => {
            let step = next_of_other(goal, sight, memory, since);
            if step == RolloutStep::Update {
                memory.before = Some(EndpointBefore::of(sight));
                memory.has_moved = false;
            }
            step
        }
        EndpointState::Failed | EndpointState::OutOfService => next_of_failed(goal, sight, memory, since),
        EndpointState::UpdateRollbackFailed => RolloutStep::End(RolloutEnd::RollbackFailed(sight.failure.clone())),
    }
}

/// AWS has changed the endpoint since: an answer may be late, and show it as it was earlier.
fn is_later(before: Option<&EndpointBefore>, sight: &EndpointSight) -> bool {
    before.is_none_or(|before| sight.modified > before.modified)
}

fn next_of_none(goal: &RolloutGoal, memory: &RolloutMemory, since: Duration) -> RolloutStep {
    if memory.has_asked {
        return wait_for_it(since);
    }
    if goal.before.is_some() && !goal.replaces_failed {
        return RolloutStep::End(RolloutEnd::Displaced(None));
    }
    RolloutStep::Create
}

fn next_of_failed(
    goal: &RolloutGoal,
    sight: &EndpointSight,
    memory: &mut RolloutMemory,
    since: Duration,
) -> RolloutStep {
    if memory.has_deleted && !is_later(memory.before.as_ref(), sight) {
        return wait_for_it(since);
    }
    if memory.has_asked || !goal.replaces_failed {
        return RolloutStep::End(RolloutEnd::Failed(sight.failure.clone()));
    }
    memory.before = Some(EndpointBefore::of(sight));
    RolloutStep::Delete
}

/// The endpoint serves another configuration than the wanted one.
fn next_of_other(goal: &RolloutGoal, sight: &EndpointSight, memory: &RolloutMemory, since: Duration) -> RolloutStep {
    let is_old = goal.before.as_ref().is_some_and(|before| before.config == sight.config);
    // Of a run that was ended nobody knows whether it asked; that AWS gives a reason says so.
    let was_asked = memory.has_asked || (goal.is_resumed && sight.failure.is_some());
    match (is_old, was_asked, memory.has_moved) {
        (true, true, true) => RolloutStep::End(RolloutEnd::RolledBack(sight.failure.clone())),
        (true, true, false) if memory.has_asked => wait_for_it(since),
        (true, ..) => RolloutStep::Update,
        (false, ..) => RolloutStep::End(RolloutEnd::Displaced(Some(sight.config.clone()))),
    }
}

/// Whether the endpoint still serves a configuration that it served a moment ago: somebody else may have changed it meanwhile.
pub(super) fn next_of_served(config: &str, sight: Option<&EndpointSight>) -> RolloutStep {
    let Some(sight) = sight else { return RolloutStep::End(RolloutEnd::Displaced(None)) };
    let stays = sight.config == config && sight.pending_config.as_deref().is_none_or(|pending| pending == config);
    match sight.state {
        // Autoscaling and AWS change instances of the same configuration.
        EndpointState::InService | EndpointState::Updating | EndpointState::SystemUpdating if stays => {
            RolloutStep::End(RolloutEnd::InService)
        }
        state if state.is_changing() => RolloutStep::Wait,
        EndpointState::Failed | EndpointState::OutOfService => {
            RolloutStep::End(RolloutEnd::Failed(sight.failure.clone()))
        }
        EndpointState::UpdateRollbackFailed => RolloutStep::End(RolloutEnd::RollbackFailed(sight.failure.clone())),
        _ => RolloutStep::End(RolloutEnd::Displaced(Some(sight.config.clone()))),
    }
}

fn wait_for_it(since: Duration) -> RolloutStep {
    if since < LONGEST_STALE { RolloutStep::Wait } else { RolloutStep::End(RolloutEnd::NotShown) }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn sight(state: EndpointState, config: &str, modified: u64) -> EndpointSight {
        EndpointSight {
            name: "wine".to_owned(),
            arn: String::new(),
            state,
            config: config.to_owned(),
            variants: Vec::new(),
            pending_config: None,
            pending_variants: Vec::new(),
            images: Vec::new(),
            failure: None,
            created: Some(at(0)),
            modified: Some(at(modified)),
        }
    }

    fn goal() -> RolloutGoal {
        RolloutGoal {
            endpoint: "wine".to_owned(),
            config: "new".to_owned(),
            before: Some(EndpointBefore { config: "old".to_owned(), modified: Some(at(1)) }),
            rollout: None,
            keeps_counts: false,
            replaces_failed: false,
            is_resumed: false,
            tags: BTreeMap::new(),
        }
    }

    /// Steps for a series of sights; requests are carried out.
    fn steps(goal: &RolloutGoal, sights: &[Option<EndpointSight>]) -> Vec<RolloutStep> {
        let mut memory = RolloutMemory::default();
        let mut step = |sight: &Option<EndpointSight>| {
            let step = next(goal, sight.as_ref(), &mut memory, Duration::from_secs(1));
            memory.has_asked |= matches!(step, RolloutStep::Create | RolloutStep::Update);
            memory.has_deleted |= step == RolloutStep::Delete;
            step
        };
        sights.iter().map(&mut step).collect()
    }

    use EndpointState::{Creating, Deleting, Failed, InService, RollingBack, UpdateRollbackFailed, Updating};
    use RolloutStep::{Create, Delete, End, Update, Wait};

    #[test]
    fn an_update_is_asked_for_once_and_waited_for() {
        let shown = [
            Some(sight(InService, "old", 1)),
            Some(sight(InService, "old", 1)),
            Some(sight(Updating, "old", 2)),
            Some(sight(InService, "new", 3)),
        ];
        assert_eq!(steps(&goal(), &shown), [Update, Wait, Wait, End(RolloutEnd::InService)]);
    }

    #[test]
    fn a_rollback_is_told_from_a_late_answer() {
        let back = EndpointSight { failure: Some("alarm".to_owned()), ..sight(InService, "old", 3) };
        let shown = [Some(sight(InService, "old", 1)), Some(sight(RollingBack, "old", 2)), Some(back.clone())];
        let rolled_back = End(RolloutEnd::RolledBack(Some("alarm".to_owned())));
        assert_eq!(steps(&goal(), &shown), [Update, Wait, rolled_back.clone()]);
        // Nobody looked while it happened.
        assert_eq!(steps(&goal(), &[shown[0].clone(), Some(back.clone())]), [Update, rolled_back.clone()]);
        let resumed = RolloutGoal { is_resumed: true, ..goal() };
        assert_eq!(steps(&resumed, &[Some(back.clone())]), [rolled_back]);
        // The reason is that of an earlier deployment.
        let earlier = EndpointSight { modified: Some(at(1)), ..back };
        assert_eq!(steps(&resumed, &[Some(earlier.clone())]), [Update]);
        assert_eq!(steps(&goal(), &[Some(earlier)]), [Update]);
    }

    #[test]
    fn a_change_of_autoscaling_is_no_rollback() {
        // Autoscaling changes the count after the deployment began, and answers to the update are late.
        let shown = [
            Some(sight(Updating, "old", 2)),
            Some(sight(InService, "old", 3)),
            Some(sight(InService, "old", 3)),
            Some(sight(Updating, "old", 2)),
            Some(sight(InService, "old", 1)),
            Some(EndpointSight { pending_config: Some("new".to_owned()), ..sight(Updating, "old", 4) }),
            Some(sight(InService, "new", 5)),
        ];
        assert_eq!(steps(&goal(), &shown), [Wait, Update, Wait, Wait, Wait, Wait, End(RolloutEnd::InService)]);
    }

    #[test]
    fn an_endpoint_is_made_once() {
        let goal = RolloutGoal { before: None, ..goal() };
        let shown = [None, None, Some(sight(Creating, "new", 2)), Some(sight(InService, "new", 3))];
        assert_eq!(steps(&goal, &shown), [Create, Wait, Wait, End(RolloutEnd::InService)]);
        let shown = [None, Some(sight(Creating, "new", 2)), Some(sight(Failed, "new", 3))];
        assert_eq!(steps(&goal, &shown), [Create, Wait, End(RolloutEnd::Failed(None))]);
    }

    #[test]
    fn a_failed_endpoint_is_replaced_when_that_is_wanted() {
        let before = Some(EndpointBefore { config: "old".to_owned(), modified: Some(at(1)) });
        let goal = RolloutGoal { before, replaces_failed: true, ..goal() };
        for state in [Failed, EndpointState::OutOfService] {
            let shown = [
                Some(sight(state, "old", 1)),
                Some(sight(state, "old", 1)),
                Some(sight(Deleting, "old", 2)),
                None,
                Some(sight(state, "old", 1)),
                Some(sight(Creating, "new", 3)),
                Some(sight(Failed, "new", 4)),
            ];
            let failed = End(RolloutEnd::Failed(None));
            assert_eq!(steps(&goal, &shown), [Delete, Wait, Wait, Create, Wait, Wait, failed]);
        }
    }

    #[test_case(Some(sight(UpdateRollbackFailed, "old", 2)) => End(RolloutEnd::RollbackFailed(None)))]
    #[test_case(Some(sight(InService, "third", 2)) => End(RolloutEnd::Displaced(Some("third".to_owned()))))]
    #[test_case(Some(sight(EndpointState::SystemUpdating, "old", 2)) => Wait)]
    #[test_case(Some(sight(Failed, "old", 1)) => End(RolloutEnd::Failed(None)))]
    #[test_case(None => End(RolloutEnd::Displaced(None)))]
    fn a_sight_is_followed_by(shown: Option<EndpointSight>) -> RolloutStep {
        steps(&goal(), &[shown]).remove(0)
    }

    #[test]
    fn a_served_endpoint_is_looked_at_again() {
        let in_service = || End(RolloutEnd::InService);
        let displaced = |config: Option<&str>| End(RolloutEnd::Displaced(config.map(str::to_owned)));
        let pending = Some("third".to_owned());
        let cases = [
            (Some(sight(InService, "new", 2)), in_service()),
            (Some(sight(Updating, "new", 2)), in_service()),
            (Some(EndpointSight { pending_config: pending, ..sight(Updating, "new", 2) }), Wait),
            (Some(sight(RollingBack, "new", 2)), Wait),
            (Some(sight(InService, "third", 2)), displaced(Some("third"))),
            (None, displaced(None)),
        ];
        for (shown, step) in cases {
            assert_eq!(next_of_served("new", shown.as_ref()), step, "{shown:?}");
        }
    }

    #[test]
    fn what_aws_never_shows_ends_the_wait() {
        let mut memory = RolloutMemory { has_asked: true, ..RolloutMemory::default() };
        let old = sight(InService, "old", 1);
        assert_eq!(next(&goal(), Some(&old), &mut memory, LONGEST_STALE), End(RolloutEnd::NotShown));
    }
}
