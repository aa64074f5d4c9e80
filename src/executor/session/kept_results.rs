//! Results of a job without network whose last container sends none: the host takes them from the project that an earlier container has
//! kept for the next stage.

use std::sync::Arc;

use crate::cloud::{CloudError, ObjectStore as _};
use crate::protocol::keys::{self, TransferKeys};
use crate::session::Session;
use crate::session::container_output::ContainerOutput;
use crate::session::stage_channels::stage_keys;
use crate::workspace::{self, Bounds, Destination, Summary, TransferProgress};

/// A project that a container has kept.
pub(super) struct KeptProject {
    objects: ContainerOutput,
    kept: TransferKeys,
    /// The project that the host has sent.
    host: TransferKeys,
}

/// The last project that a container has kept. `None` for a job with a network, and when there is none.
pub(super) async fn find(session: &Session<'_>) -> Result<Option<KeptProject>, CloudError> {
    let (Some(stages), Some(scope)) = (session.state.stage_jobs(), session.state.scope()) else { return Ok(None) };
    let packs = keys::project_packs(scope);
    let attempt = if stages.number > 1 { stages.attempt } else { session.state.project_attempt() };
    let host = stage_keys(session, 1).workspace(attempt, &packs);
    let current = (stages.number > 0).then(|| (stages.number, session.state.job_number()));
    let before = stages.earlier.map(|job| (stages.number - 1, job));
    for (number, job) in current.into_iter().chain(before) {
        let keys = stage_keys(session, number);
        let (objects, kept) = (session.output_of(&keys, job), keys.kept_tree(&packs));
        if objects.size(&kept.part(0)).await?.is_some() {
            return Ok(Some(KeptProject { objects, kept, host }));
        }
    }
    Ok(None)
}

impl KeptProject {
    /// Applies what the job selects of the changes that the container has made.
    pub(super) async fn apply(
        &self,
        destination: Destination<'_>,
        bounds: Bounds<'_>,
        progress: &Arc<TransferProgress>,
    ) -> anyhow::Result<Summary> {
        workspace::apply_kept(&self.objects, &self.kept, &self.host, destination, bounds, progress).await
    }
}
