//! Uploads the project for the container: once while the container starts, and again when chunks vanish from the
//! bucket.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::failure::Failure;
use crate::base::signals::Cancellation;
use crate::gitlab::JobContext;
use crate::protocol::isolation::KeepTree;
use crate::protocol::keys;
use crate::protocol::mailbox::{Order, WorkspaceOrder};
use crate::protocol::project::{Selection, Trees};
use crate::session::bar::with_bar;
use crate::session::event::SessionEvent;
use crate::session::exchange::{Exchange as _, ProjectUpload};
use crate::session::{Session, node_folders, project_scope, refusals, stage_channels, wanted_files};
use crate::workspace::{Summary, TransferProgress};

/// Most attempts to send the project.
const MOST_ATTEMPTS: u32 = 5;
/// The project to upload, and where to.
#[derive(Debug, Clone)]
pub struct WorkspaceUpload {
    trees: Trees,
    selection: Selection,
    /// Prefix of the project's packs.
    packs: String,
    /// This host's cache of which packs are in the bucket.
    cache: PathBuf,
    /// Whether the container of the stage keeps the project for the next one, if that is another training job.
    keep: KeepTree,
}

impl WorkspaceUpload {
    /// `expanded` returns the values of the job's variables, as the runner passed them.
    pub fn new(
        session: &Session<'_>,
        job: &JobContext,
        trees: &Trees,
        every_node: bool,
        expanded: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let scope = project_scope::of_session(session.state.scope(), job);
        // Every order of a session sends the same selection: a killed stage may have seen other values.
        let own = || {
            // In the sandbox, programs that follow such links, or the configuration of such repositories, find nothing else of the host.
            let nested_repositories = trees.are_in_sandbox();
            let outside_links = session.settings.results.keep_outside_links || nested_repositories;
            Selection { outside_links, nested_repositories, every_node, ..wanted_files::selection(job, expanded) }
        };
        Self {
            trees: trees.clone(),
            selection: session.state.selection().cloned().unwrap_or_else(own),
            packs: keys::project_packs(&scope),
            cache: session.settings.runner.state_dir.join("projects").join(scope),
            keep: KeepTree::Never,
        }
    }

    #[must_use]
    pub fn keeping(self, keep: KeepTree) -> Self {
        Self { keep, ..self }
    }

    fn project(&self, session: &Session<'_>) -> ProjectUpload<'_> {
        let (attempt, now) = (session.state.project_attempt(), session.clock.now());
        ProjectUpload { attempt, packs: &self.packs, trees: &self.trees, cache: &self.cache, now }
    }

    /// Sends the project unless a stage has done so already. A cancel ends it; a later stage, such as `after_script`,
    /// starts over. A container that was started again gets it once more, without a word.
    pub async fn send_once(&self, session: &mut Session<'_>, cancellation: &Cancellation) -> anyhow::Result<()> {
        if session.state.is_project_sent() {
            if session.state.restarts().lacks_project() {
                self.send(session, cancellation).await?;
            }
            return Ok(());
        }
        if self.selection.every_node {
            node_folders::check(session.state.nodes(), &self.trees)?;
        }
        if let Some(summary) = self.send(session, cancellation).await? {
            session.print_sent(&summary);
        }
        session.apply(SessionEvent::ProjectSent)
    }

    /// Sends the project again after a node missed a pack in this attempt; once for all nodes.
    pub async fn send_again(
        &self,
        session: &mut Session<'_>,
        attempt: u32,
        cancellation: &Cancellation,
    ) -> anyhow::Result<()> {
        if attempt != session.state.project_attempt() {
            return Ok(());
        }
        let most = MOST_ATTEMPTS.saturating_add(session.state.restarts().leader);
        anyhow::ensure!(attempt < most, "parts of the project have vanished from the bucket {attempt} times");
        session.printer.warn("parts of the project have vanished from the bucket and are sent again");
        if let Some(summary) = self.send(session, cancellation).await? {
            session.print_sent(&summary);
        }
        Ok(())
    }

    /// Deletes a damaged pack, so that the next job sends its chunks again.
    pub async fn forget(&self, session: &Session<'_>, pack: &str) -> anyhow::Result<()> {
        session.exchange().forget_pack(self.project(session), pack).await
    }

    /// `None`: the project comes from the container of the stage before.
    async fn send(&self, session: &mut Session<'_>, cancellation: &Cancellation) -> anyhow::Result<Option<Summary>> {
        let stage = stage_channels::stage_files(session, self.keep);
        let is_there = stage.as_ref().is_some_and(|stage| stage.earlier.is_some());
        session.apply(SessionEvent::ProjectSending(&self.selection))?;
        // The order goes first: an agent that is up receives while this side sends.
        let order = Order::Workspace(WorkspaceOrder {
            attempt: session.state.project_attempt(),
            packs: self.packs.clone(),
            trees: self.trees.clone(),
            selection: self.selection.clone(),
            stage,
        });
        tokio::select! {
            ordered = refusals::order(session, &order, cancellation) => ordered?,
            () = cancellation.token().cancelled() => return Err(canceled()),
        }
        if is_there {
            return Ok(None);
        }
        let (exchange, progress) = (session.exchange(), Arc::<TransferProgress>::default());
        let sending = exchange.deliver_project(self.project(session), &progress);
        let sending = with_bar(session.printer, "Sending the project", &progress, sending);
        tokio::select! {
            summary = sending => summary.map(Some),
            () = cancellation.token().cancelled() => Err(canceled()),
        }
    }
}

fn canceled() -> anyhow::Error {
    Failure::canceled("canceled while the project was sent").into()
}
