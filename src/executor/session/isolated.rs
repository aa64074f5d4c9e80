//! Jobs without network: each container stage is a training job of its own. All that a stage needs is stored before the job is created,
//! and SageMaker copies it into the container; what the container wrote is there once the job has ended.

use anyhow::Context as _;

use crate::base::signals::Cancellation;
use crate::config::policy;
use crate::gitlab::{BuildStage, JobContext};
use crate::metrics;
use crate::protocol::isolation::KeepTree;
use crate::protocol::keys;
use crate::session::billing::EndWait;
use crate::session::create::Launched;
use crate::session::event::SessionEvent;
use crate::session::exchange::Exchange as _;
use crate::session::next_job::{self, JobInputs};
use crate::session::stage_end::wait_for_end;
use crate::session::state::Creation;
use crate::session::{Session, billing, project_scope, queue, stage_channels, unsent};

/// Lines of the job's log about what the isolation costs.
pub fn announcement(job: &JobContext) -> String {
    let stages: Vec<_> = job.container_stages().iter().map(ToString::to_string).collect();
    let each = match stages.len() {
        0 | 1 => "one training job".to_owned(),
        count => format!(
            "{count} training jobs, one after the other ({}), each of which waits for its instances",
            stages.join(", ")
        ),
    };
    let time = match stages.len() {
        0 | 1 => String::new(),
        _ => ". `after_script` has 5 minutes for its own, with the wait: `RUNNER_AFTER_SCRIPT_TIMEOUT` gives it more"
            .to_owned(),
    };
    format!("Network isolation: the containers have no network and no credentials. This job needs {each}{time}")
}

/// Whether the container of this stage keeps the project for a next stage.
pub fn keep_tree(job: &JobContext, stage: &BuildStage) -> KeepTree {
    let stages = job.container_stages();
    if *stage == BuildStage::AfterScript {
        KeepTree::Never
    } else if stages.contains(&BuildStage::AfterScript) {
        KeepTree::Always
    } else if stages.last() == Some(stage) {
        KeepTree::Never
    } else {
        KeepTree::OnSuccess
    }
}

/// Outcome of the wait before a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    Yes,
    /// The container of the stage before has not kept the project.
    NoFiles,
}

/// Begins a stage with a training job of its own, once the job of the stage before has ended. Does nothing for other jobs, and for a stage
/// that a killed process has begun.
pub async fn enter(session: &mut Session<'_>, cancel: &Cancellation) -> anyhow::Result<Entered> {
    let Some(stages) = session.state.stage_jobs() else { return Ok(Entered::Yes) };
    let is_begun = stages.number > 0 && session.state.creation() == Creation::None;
    if session.state.run().is_some() || is_begun {
        return Ok(Entered::Yes);
    }
    if stages.number > 0 {
        wait_for_end(session, cancel).await?;
        billing::print_current(session, &EndWait::new(cancel)).await;
        unsent::tell(session, cancel).await;
        // Any pack prefix: the key of a part does not depend on it.
        let part = session.keys().kept_tree("").part(0);
        if session.exchange_objects().size(&part).await?.is_none() {
            return Ok(Entered::NoFiles);
        }
    }
    session.apply(SessionEvent::StageEntered)?;
    session
        .exchange()
        .open(session.settings.lease(), session.state().job_key())
        .await
        .context("failed to open the session for the agents of the stage")?;
    Ok(Entered::Yes)
}

/// Creates the training job of the current stage, whose orders and files are stored, unless that was done.
pub async fn launch(session: &mut Session<'_>, inputs: JobInputs<'_>) -> anyhow::Result<()> {
    if session.state.stage_jobs().is_none() || matches!(session.state.creation(), Creation::Created(_)) {
        return Ok(());
    }
    let packs = keys::project_packs(&project_scope::of_session(session.state.scope(), inputs.job));
    stage_channels::store_lists(session, &packs)
        .await
        .context("failed to list the objects of the container's channels")?;
    let mut types = session.state.types();
    if session.state.instance_type().is_empty() {
        types = policy::decide(inputs.job, &inputs.env.job_variables()?, session.settings)?.instance_types;
    }
    match Box::pin(next_job::create(session, &types, inputs)).await? {
        Launched::Created => metrics::observe(&metrics::QUEUE_SECONDS, &[], 0.0),
        Launched::Refused(refused) => {
            queue::begin(session, refused, queue::longest(session, inputs)?)?;
            queue::wait(session, inputs).await?;
        }
    }
    session.printer.line(format!("SageMaker training job: {}, on {}", session.job_name(), session.state.shown_type()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_keeps_the_project_for_those_that_follow() {
        let job = |steps: &[&str]| -> JobContext {
            let steps: Vec<_> = steps.iter().map(|name| serde_json::json!({"name": name, "script": ["x"]})).collect();
            serde_json::from_value(serde_json::json!({"id": 1, "job_info": {"project_id": 2}, "steps": steps})).unwrap()
        };
        let release = BuildStage::Step("release".into());
        let full = job(&["script", "release", "after_script"]);
        assert_eq!(keep_tree(&full, &BuildStage::Script), KeepTree::Always);
        assert_eq!(keep_tree(&full, &release), KeepTree::Always);
        assert_eq!(keep_tree(&full, &BuildStage::AfterScript), KeepTree::Never);
        let plain = job(&["script", "release"]);
        assert_eq!(keep_tree(&plain, &BuildStage::Script), KeepTree::OnSuccess);
        assert_eq!(keep_tree(&plain, &release), KeepTree::Never);
        assert!(
            announcement(&full)
                .contains("3 training jobs, one after the other (step_script, step_release, after_script)")
        );
    }
}
