//! Creates a training job after `prepare`: by the same decision, with the types that are left.

use tokio::time::Instant;

use crate::base::signals::Cancellation;
use crate::config::env::Environment;
use crate::config::policy;
use crate::gitlab::JobContext;
use crate::session::create::Launched;
use crate::session::event::SessionEvent;
use crate::session::spec::AgentInputs;
use crate::session::{Session, agent_delivery, create, project_scope, spec, stage_channels};

/// Inputs of the next job, besides the session.
#[derive(Clone, Copy)]
pub struct JobInputs<'a> {
    pub job: &'a JobContext,
    pub env: &'a Environment,
    pub cancel: &'a Cancellation,
}

/// Creates the next job by the same decision as `prepare`, with these types.
pub(super) async fn create(
    session: &mut Session<'_>,
    types: &[String],
    inputs: JobInputs<'_>,
) -> anyhow::Result<Launched> {
    let until = Instant::now() + create::PATIENCE;
    let decision = policy::decide(inputs.job, &inputs.env.job_variables()?, session.settings)?;
    let objects = session.objects.clone();
    let agent = agent_delivery::deliver_until(&*objects, session.settings, session.printer, until).await?;
    // After an upgrade of this program the next job gets the agent that was compared now, unless it could not read the session.
    if session.state.agent().is_empty() || session.state.place().is_some() {
        session.apply(SessionEvent::AgentDelivered(&agent))?;
    }
    let scope = project_scope::of_session(session.state.scope(), inputs.job);
    let checkpoints = project_scope::of_checkpoints(&*objects, inputs.job, &decision.data).await?;
    let stage = stage_channels::channels(session);
    let agent = AgentInputs {
        keys: &session.keys(),
        files: session.state.agent(),
        scope: &scope,
        checkpoints: checkpoints.as_deref(),
        stage: stage.as_ref(),
    };
    let mut spec = spec::training_job(&session.id, inputs.job, &decision, session.settings, &*objects, agent);
    // SageMaker has refused the list, or found no capacity for it: alone, each type tells its reason, and may wait for its quota.
    spec.preferred_types.clear();
    create::launch(session, spec, types, until, inputs.cancel).await
}
