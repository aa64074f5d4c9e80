//! The in-container side: the same binary, as the training container's first process.
//!
//! The agent reads orders from the mailbox, runs the scripts and sends their output as frames. It ends on a `Finish` order (of several nodes, one whose
//! script failed once all have sent their results), when SageMaker stops the job (SIGTERM, then 120 s until SIGKILL), or when the
//! driver stops renewing the lease. It reaches the driver through the object store only, and knows no sessions, policies or sandboxes.

mod channel_store;
mod checkpoints;
mod exec;
mod failed_order;
mod foreign_output;
mod keep;
mod known_masks;
mod mailbox;
mod measure;
pub mod node;
mod pipe;
mod pump;
mod redraws;
mod role_store;
mod run_loop;
mod shell;
mod spool;
mod stdio;
mod trace_copy;
mod training_env;
mod volume;
mod writable_places;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::base::clock::Clock;
use crate::base::failure;
use crate::base::process::Reaper;
use crate::base::signals::{Cancellation, Signals};
use crate::cloud::{Access, Connect, EndpointKind, ObjectStore};
use crate::config::env::Environment;
use crate::protocol::agent_env::AgentEnv;
use crate::protocol::bootstrap;
use channel_store::ChannelStore;
use mailbox::AgentMailbox;
use node::ThisNode;
use role_store::RoleStore;
use stdio::CapturedStdio;
use writable_places::WritablePlaces;

/// SageMaker copies the first 1,024 characters of this file into the job's `FailureReason`.
const FAILURE_FILE: &str = "/opt/ml/output/failure";
const RESOURCE_CONFIG: &str = "/opt/ml/input/config/resourceconfig.json";

/// SageMaker sets one of these to the endpoint of the role's credentials.
const ROLE_CREDENTIALS: [&str; 2] = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];

/// Runs until the end of the training job. The exit code is that of the job's script, so SageMaker's status agrees with GitLab's.
pub async fn run(env: &Environment, connect: &dyn Connect, clock: Arc<dyn Clock>) -> ExitCode {
    let stdio = CapturedStdio::take_over().context("failed to take over the container's log");
    let outcome = match &stdio {
        Ok(stdio) => run_signaled(env, connect, clock, stdio).await,
        Err(error) => Err(anyhow::anyhow!("{error:#}")),
    };
    let (code, text) = match outcome {
        Ok(0) => (0, None),
        Ok(code) => (code, Some(format!("the job's script exited with code {code}"))),
        Err(error) => {
            let text = failure::render(&error);
            tracing::error!("{text}");
            (1, Some(text))
        }
    };
    if let Some(text) = text {
        let short: String = text.chars().take(1024).collect();
        if let Err(error) = std::fs::write(FAILURE_FILE, short) {
            tracing::warn!(%error, "failed to write {FAILURE_FILE}");
        }
    }
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1).max(u8::from(code != 0)))
}

async fn run_signaled(
    env: &Environment,
    connect: &dyn Connect,
    clock: Arc<dyn Clock>,
    stdio: &CapturedStdio,
) -> anyhow::Result<i32> {
    let signals = Signals::install().context("failed to install the signal handlers")?;
    let cancellation = Cancellation::default();
    let _reaper = Reaper::start()?;
    let agent_env = AgentEnv::read(|name| env.get(name))?;
    let node = ThisNode::read(Path::new(RESOURCE_CONFIG))?;
    let bundle = bootstrap::channel_dir().join(bootstrap::CA_BUNDLE);
    let access = access(&agent_env, bundle.exists().then_some(bundle));
    // On SageMaker the agent uses the role's credentials alone: other AWS settings in the environment or in files come from the image
    // or the job and are meant for the script.
    let objects: Arc<dyn ObjectStore> = if agent_env.isolated {
        Arc::new(ChannelStore::of_container())
    } else if ROLE_CREDENTIALS.iter().any(|name| env.get(name).is_some()) {
        connect.container_objects(&access)?
    } else {
        connect.objects(&access).await?
    };
    let lease = Duration::from_secs(agent_env.lease_seconds);
    let watched = signals.watch(&cancellation);
    tokio::pin!(watched);
    let keys = tokio::select! {
        keys = role_store::open(&*objects, &agent_env.root, agent_env.key_hash.as_deref(), lease, &cancellation) => keys?,
        never = &mut watched => match never {},
    };
    let mailbox = AgentMailbox::new(Arc::new(RoleStore(objects)), keys, node.id, lease);
    // The log alone leaves such a container before its end.
    let mailbox = if agent_env.isolated { mailbox.with_log(stdio.log()) } else { mailbox };
    let agent = std::fs::read_link("/proc/self/exe").ok();
    let places = WritablePlaces::new(&agent_env, env.get(writable_places::POOL_CACHE_VARIABLE), agent);
    let env = env.with(training_env::of_node(&node, env).await);
    let run_loop = run_loop::RunLoop::new(mailbox, node, env, clock, stdio, agent_env.rerun);
    tokio::select! {
        // Of a job that has failed, SageMaker is not documented to upload the output, which holds the results here.
        result = run_loop.serve(places, &cancellation) => result.map(|code| if agent_env.isolated { 0 } else { code }),
        never = watched => match never {},
    }
}

fn access(env: &AgentEnv, ca_bundle: Option<PathBuf>) -> Access {
    Access {
        region: env.region.clone(),
        endpoint_url: env.endpoint_url.clone(),
        endpoints: EndpointKind { fips: env.use_fips, dual_stack: env.use_dual_stack },
        bucket: env.bucket.clone(),
        prefix: env.prefix.clone(),
        kms_key_id: env.kms_key_id.clone(),
        ca_bundle,
        ..Access::default()
    }
}
