//! The channels of a stage that is a training job of its own: what SageMaker copies into its container, in a job without network.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::protocol::isolation::{self, EarlierStage, KeepTree, StageFiles};
use crate::protocol::keys::{SessionKeys, session_folder};
use crate::session::exchange::StoreExchange;
use crate::session::spec::StageChannels;
use crate::session::{Session, spec};
use crate::workspace::{self, TransferLimits};

/// Objects that are looked for at the same time.
const LOOKS: usize = 16;
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

pub(super) fn stage_keys(session: &Session<'_>, stage: u32) -> SessionKeys {
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
        stage.extend(workspace::packs_of(&**objects, &sent, &TransferLimits::none()).await?.packs);
        return store_list(session, &lists[0], "", stage).await;
    };
    let before = stage_keys(session, stages.number - 1);
    let output = isolation::output(&before, &spec::job_name(&session.id, job));
    let kept = before.kept_tree(packs);
    let found = workspace::packs_of(&session.output_of(&before, job), &kept, &limits(session)).await?;
    // Asked for by name: a container may have written any number of objects.
    let is_there = |key: String| async { anyhow::Ok((objects.size(&format!("{output}{key}")).await?.is_some(), key)) };
    let looked = stream::iter(found.packs).map(is_there).buffer_unordered(LOOKS).try_collect::<Vec<_>>().await?;
    let (there, shared): (Vec<_>, Vec<_>) = looked.into_iter().partition(|(is_there, _)| *is_there);
    stage.extend(shared.into_iter().map(|(_, key)| key));
    // The host's own files, which the results are compared with.
    let first = stage_keys(session, 1).workspace(stages.attempt, packs);
    stage.extend(objects.list(&format!("{}/", first.manifest)).await?);
    let parts = (0..found.parts).map(|number| kept.part(number));
    let earlier = there.into_iter().map(|(_, key)| key).chain(parts).collect();
    store_list(session, &lists[1], &output, earlier).await?;
    store_list(session, &lists[0], "", stage).await
}

/// Limits of the project that a container has left.
fn limits(session: &Session<'_>) -> TransferLimits {
    TransferLimits { max_files: session.settings.limits.results_max_files, ..TransferLimits::default() }
}

async fn store_list(session: &Session<'_>, key: &str, prefix: &str, keys: BTreeSet<String>) -> anyhow::Result<()> {
    let keys: Vec<String> = keys.into_iter().collect();
    let body = isolation::channel_list(&session.objects.uri(prefix), &keys);
    Ok(session.objects.put(key, body).await?)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::cloud::CloudErrorKind;
    use crate::cloud::testing::{Fault, Memory, When};
    use crate::config::settings::Settings;
    use crate::protocol::keys::project_packs;
    use crate::protocol::project::Trees;
    use crate::session::record::{Records, SessionRecord};
    use crate::session::stage_jobs::StageJobs;
    use crate::session::{Host, SessionId};
    use crate::ui::Printer;

    /// A container may have written millions of objects: they are neither listed nor given to the next one.
    #[tokio::test]
    async fn what_a_container_has_written_is_not_listed() {
        let folder = tempfile::tempdir().unwrap();
        let side = |name: &str| {
            let project = folder.path().join(name);
            std::fs::create_dir(&project).unwrap();
            Trees { tmp: project.with_extension("tmp"), project, host: None }
        };
        let (container, host) = (side("container"), side("host"));
        let (memory, id) = (Memory::new(), SessionId::parse("gitlab-1-2-abcdef12").unwrap());
        let (keys, packs) = (spec::session_keys(&id, None).of_stage(1), project_packs("scope"));
        let (progress, cache, now) = (Arc::default(), folder.path().join("cache"), SystemTime::now());
        std::fs::write(host.project.join("sent"), "by the host").unwrap();
        std::fs::write(container.project.join("sent"), "by the host").unwrap();
        workspace::send(&*memory.objects, &keys.workspace(1, &packs), &host, &cache, now, &progress).await.unwrap();
        std::fs::write(container.project.join("model"), "weights").unwrap();
        let before = memory.objects.keys();
        let kept = keys.kept_tree(&packs);
        workspace::send_tree(&*memory.objects, &kept, &container, now, &progress).await.unwrap();
        let output = isolation::output(&keys, &spec::job_name(&id, 1));
        let written: Vec<String> = memory.objects.keys().into_iter().filter(|key| !before.contains(key)).collect();
        for key in &written {
            memory.objects.insert(&format!("{output}{key}"), memory.objects.contents(key).unwrap());
            memory.objects.expire(key);
        }
        for number in 0..1000 {
            memory.objects.insert(&format!("{output}{packs}/junk-{number}"), "");
        }

        let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", folder.path().display());
        let settings: Settings = toml::from_str(&text).unwrap();
        let (printer, _) = Printer::captured();
        let stages = StageJobs { number: 2, earlier: Some(1), attempt: 1, ..StageJobs::default() };
        let record = SessionRecord { stage_jobs: Some(stages), ..SessionRecord::default() };
        Records::open(folder.path()).unwrap().save(&id, &record).unwrap();
        let host = Host::with_real_time(&settings, &printer);
        let session = Session::attach(id, memory.jobs.clone(), memory.objects.clone(), host).unwrap().unwrap();
        // The host's own objects of this stage, and of the first one.
        memory.objects.plan([Fault::new("list", 3, When::Before, CloudErrorKind::Denied).forever()]);
        store_lists(&session, &packs).await.unwrap();
        let list = |number: usize| -> Vec<String> {
            let body = memory.objects.contents(&list_key(&session.keys(), LISTS[number])).unwrap();
            let listed: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
            listed.iter().skip(1).map(|key| key.as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(list(1), written, "packs and parts of the container before");
        let shared = before.iter().filter(|key| key.starts_with(&packs)).count();
        assert_eq!(list(0).iter().filter(|key| key.starts_with(&packs)).count(), shared, "packs of the host");
    }
}
