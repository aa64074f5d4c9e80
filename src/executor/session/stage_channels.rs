//! The channels of a stage that is a training job of its own: what SageMaker copies into its container, in a job without network.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::protocol::isolation::{self, EarlierStage, KeepTree, StageFiles};
use crate::protocol::keys::{SessionKeys, session_folder};
use crate::session::exchange::StoreExchange;
use crate::session::spec::StageChannels;
use crate::session::{Session, spec};
use crate::workspace;

const LISTS: [&str; 2] = ["channels/stage.json", "channels/earlier.json"];

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

/// Where the stage before, which had a training job of its own, has its objects.
pub(super) fn before(session: &Session<'_>) -> Option<(SessionKeys, StoreExchange)> {
    let stages = session.state.stage_jobs()?;
    let keys = stage_keys(session, stages.number.checked_sub(1)?);
    let output = Arc::new(session.output_of(&keys, stages.earlier?));
    Some((keys.clone(), StoreExchange::new(output, keys, session_folder(session.id.as_str()))))
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

/// Stores the lists of the objects that SageMaker copies into the container.
pub(super) async fn store_lists(session: &Session<'_>, packs: &str) -> anyhow::Result<()> {
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
