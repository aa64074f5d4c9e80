//! Jobs without network: each container stage is a training job of its own. All that a stage needs is stored before the job is created,
//! and SageMaker copies it into the container; what the container wrote is there once the job has ended.

use std::collections::BTreeSet;

use anyhow::Context as _;

use crate::base::signals::Cancellation;
use crate::config::policy;
use crate::gitlab::{BuildStage, JobContext};
use crate::protocol::isolation::{self, EarlierStage, KeepTree, StageFiles};
use crate::protocol::keys::{self, SessionKeys};
use crate::session::billing::EndWait;
use crate::session::create::Launched;
use crate::session::event::SessionEvent;
use crate::session::exchange::Exchange as _;
use crate::session::next_job::{self, JobInputs};
use crate::session::spec::StageChannels;
use crate::session::stage_end::wait_for_end;
use crate::session::state::Creation;
use crate::session::{Session, billing, project_scope, queue, spec};
use crate::workspace;

const LISTS: [&str; 2] = ["channels/stage.json", "channels/earlier.json"];

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
    format!("Network isolation: the containers have no network and no credentials. This job needs {each}")
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

/// Where a stage gets its project from.
pub(super) fn stage_files(session: &Session<'_>, keep: KeepTree) -> Option<StageFiles> {
    let stages = session.state.stage_jobs()?;
    let earlier = stages.earlier.map(|_| EarlierStage {
        root: stage_keys(session, stages.number - 1).root().to_owned(),
        first_root: stage_keys(session, 1).root().to_owned(),
        attempt: stages.attempt,
    });
    Some(StageFiles { earlier, keep })
}

/// The channels of the current stage's training job.
pub(super) fn channels(session: &Session<'_>) -> Option<StageChannels> {
    let stages = session.state.stage_jobs().filter(|stages| stages.number > 0)?;
    let uri = |name: &str| session.objects.uri(&list_key(&session.keys(), name));
    let [stage, earlier] = LISTS.map(uri);
    Some(StageChannels { stage, earlier: stages.earlier.map(|_| earlier) })
}

fn stage_keys(session: &Session<'_>, stage: u32) -> SessionKeys {
    spec::session_keys(&session.id, session.state.place()).of_stage(stage)
}

fn list_key(keys: &SessionKeys, name: &str) -> String {
    format!("{}/{name}", keys.root())
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
        billing::print(session, &EndWait::new(cancel)).await;
        // Any pack prefix: the key of a part does not depend on it.
        let part = session.keys().kept_tree("").part(0);
        if session.exchange_objects().size(&part).await?.is_none() {
            return Ok(Entered::NoFiles);
        }
    }
    session.apply(SessionEvent::StageEntered)?;
    session.exchange().open().await.context("failed to open the session for the agents of the stage")?;
    Ok(Entered::Yes)
}

/// Creates the training job of the current stage, whose orders and files are stored, unless that was done.
pub async fn launch(session: &mut Session<'_>, inputs: JobInputs<'_>) -> anyhow::Result<()> {
    if session.state.stage_jobs().is_none() || matches!(session.state.creation(), Creation::Created(_)) {
        return Ok(());
    }
    let packs = keys::project_packs(&project_scope::of_session(session.state.scope(), inputs.job));
    store_lists(session, &packs).await.context("failed to list the objects of the container's channels")?;
    let mut types = session.state.types();
    if session.state.instance_type().is_empty() {
        types = policy::decide(inputs.job, &inputs.env.job_variables()?, session.settings)?.instance_types;
    }
    if let Launched::Refused(refused) = Box::pin(next_job::create(session, &types, inputs)).await? {
        queue::begin(session, refused, queue::longest(session, inputs)?)?;
        queue::wait(session, inputs).await?;
    }
    session.printer.line(format!("SageMaker training job: {}, on {}", session.job_name(), session.state.shown_type()));
    Ok(())
}

/// Stores the lists of the objects that SageMaker copies into the container.
async fn store_lists(session: &Session<'_>, packs: &str) -> anyhow::Result<()> {
    let Some(stages) = session.state.stage_jobs() else { return Ok(()) };
    let (keys, objects) = (session.keys(), &session.objects);
    let own: Vec<String> = objects.list(&format!("{}/", keys.root())).await?;
    let (lists, output) = (LISTS.map(|name| list_key(&keys, name)), keys.output());
    let is_input = |key: &String| !lists.contains(key) && !key.starts_with(&output);
    let mut stage: BTreeSet<String> = own.into_iter().filter(is_input).collect();
    let Some(job) = stages.earlier else {
        let sent = keys.workspace(session.state.project_attempt(), packs);
        stage.extend(workspace::packs_of(&**objects, &sent).await?);
        return store_list(session, &lists[0], "", stage).await;
    };
    let before = stage_keys(session, stages.number - 1);
    let output = isolation::output(&before, &spec::job_name(&session.id, job));
    let kept = before.kept_tree(packs);
    let found = objects.list(&output).await?;
    let written: BTreeSet<&str> = found.iter().filter_map(|key| key.strip_prefix(&output)).collect();
    let view = session.output_of(&before, job);
    let needed = workspace::packs_of(&view, &kept).await?;
    let (there, shared): (BTreeSet<String>, BTreeSet<String>) =
        needed.into_iter().partition(|key| written.contains(key.as_str()));
    stage.extend(shared);
    // The host's own files, which the results are compared with.
    let first = stage_keys(session, 1).workspace(stages.attempt, packs);
    stage.extend(objects.list(&format!("{}/", first.manifest)).await?);
    let parts = written.iter().filter(|key| key.starts_with(&kept.manifest)).map(|key| (*key).to_owned());
    store_list(session, &lists[1], &output, there.into_iter().chain(parts).collect()).await?;
    store_list(session, &lists[0], "", stage).await
}

async fn store_list(session: &Session<'_>, key: &str, prefix: &str, keys: BTreeSet<String>) -> anyhow::Result<()> {
    let keys: Vec<String> = keys.into_iter().collect();
    let body = isolation::channel_list(&session.objects.uri(prefix), &keys);
    Ok(session.objects.put(key, body).await?)
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
