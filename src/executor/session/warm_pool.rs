//! Looks up the warm pools of a job's project: before its training job is requested, and once its container runs, for the job's log.

use std::time::{Duration, SystemTime};

use futures::future::join_all;

use crate::base::human::utc_time;
use crate::cloud::{CloudError, PoolProperties, TrainingJob, TrainingJobSpec, TrainingJobs};
use crate::session::Session;
use crate::session::event::SessionEvent;
use crate::session::pool_match::{PoolFate, PoolSeen, WarmPools};

/// Longest time for the requests before a training job, and before the output of its script.
const WITHIN: Duration = Duration::from_secs(15);
/// Pools that are described.
const MOST: usize = 5;

/// Notes the warm pools of the project, if the job keeps its instances.
pub(super) async fn note(session: &mut Session<'_>, spec: &TrainingJobSpec) -> anyhow::Result<()> {
    if spec.keep_alive == 0 {
        return Ok(());
    }
    let project = format!("gitlab-{}-", session.id.project());
    let tags_count = spec.creator.is_some();
    let seen = match tokio::time::timeout(WITHIN, pools(&*session.jobs, &project, tags_count)).await {
        Ok(Ok(seen)) => Some(seen),
        Ok(Err(error)) => {
            session.printer.warn(format!("the warm pools of the project are not known: {error}"));
            None
        }
        Err(_) => {
            let seconds = WITHIN.as_secs();
            session.printer.warn(format!("the warm pools of the project are not known: no answer within {seconds} s"));
            None
        }
    };
    session.apply(SessionEvent::PoolsNoted(&WarmPools { keep_alive: spec.keep_alive, seen }))
}

async fn pools(jobs: &dyn TrainingJobs, project: &str, tags_count: bool) -> Result<Vec<PoolSeen>, CloudError> {
    let names = jobs.warm_pools(project).await?;
    let ours = names.into_iter().filter(|name| name.starts_with(project)).take(MOST);
    let described = join_all(ours.map(|name| async move { jobs.describe(&name).await })).await;
    let mut pools = Vec::new();
    for job in described {
        pools.extend(job?.map(|job| PoolSeen { properties: compared(&job.pool, tags_count), job: job.name }));
    }
    Ok(pools)
}

/// Checkpoints count only for a creator's session, which has a tag for them: SageMaker compares the keys of tags.
fn compared(properties: &PoolProperties, tags_count: bool) -> PoolProperties {
    PoolProperties { has_checkpoints: properties.has_checkpoints && tags_count, ..properties.clone() }
}

/// The line for the job's log once the container runs: whether its instances came from a pool, and if not, why.
pub(super) async fn line(session: &Session<'_>, job: &TrainingJob, ready: Option<SystemTime>) -> Option<String> {
    let noted = session.state.warm_pools()?;
    let ours = compared(&job.pool, session.settings.aws.creator_role_arn.is_some());
    let jobs = &*session.jobs;
    let looks = noted.matching(&ours).map(|pool| async move { (pool, jobs.describe_once(&pool.job).await) });
    let looked = tokio::time::timeout(WITHIN, join_all(looks)).await.ok()?;
    let mut takers = Vec::new();
    for (pool, found) in looked {
        match found {
            Ok(found) => takers.push((&pool.job, found.and_then(|job| job.pool_taken_by))),
            Err(error) => tracing::debug!(%error, "failed to look what became of a warm pool"),
        }
    }
    let fates = takers.iter().map(|(left_by, taker)| PoolFate { left_by, taken_by: taker.as_deref() });
    let waited = ready.zip(job.created).and_then(|(ready, created)| ready.duration_since(created).ok());
    noted.line((&job.name, &ours), &fates.collect::<Vec<_>>(), waited)
}

/// The line for the end of the job's log: how long its instances are billed on.
pub fn stay(session: &Session<'_>) -> Option<String> {
    let until = session.clock.now() + Duration::from_secs(session.state.warm_pools()?.keep_alive);
    Some(format!(
        "The instances stay until about {} UTC, billed, for the next job with the same instance type and count, volume, role and network",
        utc_time(until)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::testing::{Fault, Memory, When, example_spec};
    use crate::cloud::{CloudErrorKind, JobStatus, SecondaryStatus};

    /// A project's job that has left its instances.
    async fn left(memory: &Memory, name: &str) {
        memory.jobs.create(&TrainingJobSpec { keep_alive: 600, ..example_spec(name) }).await.unwrap();
        memory.jobs.set_status(name, JobStatus::Completed, SecondaryStatus::Completed);
    }

    #[tokio::test]
    async fn the_newest_pools_of_the_project_are_described() {
        let memory = Memory::new();
        for job in ["gitlab-17-1-a", "gitlab-1-1-a", "gitlab-1-2-a", "gitlab-1-3-a", "gitlab-1-4-a", "gitlab-1-5-a"] {
            left(&memory, job).await;
        }
        left(&memory, "gitlab-1-6-a").await;
        memory.jobs.change("gitlab-1-5-a", |job| job.pool_taken_by = Some("other".to_owned()));
        let before = memory.jobs.calls().len();
        let seen = pools(&*memory.jobs, "gitlab-1-", false).await.unwrap();
        let names: Vec<_> = seen.iter().map(|pool| pool.job.as_str()).collect();
        assert_eq!(names, ["gitlab-1-6-a", "gitlab-1-4-a", "gitlab-1-3-a", "gitlab-1-2-a", "gitlab-1-1-a"]);
        assert_eq!(memory.jobs.calls().len() - before, 6, "one list, five descriptions");
        let spec = example_spec("x");
        assert_eq!(seen[0].properties.volume_size_gb, spec.volume_size_gb);
        memory.jobs.plan([Fault::new("warm_pools", 1, When::Before, CloudErrorKind::Denied)]);
        assert!(pools(&*memory.jobs, "gitlab-1-", false).await.is_err());
    }
}
