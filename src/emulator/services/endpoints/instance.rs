//! One instance of an endpoint: its container, from the download of the model to the end.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::container_http::{PORT, send};
use super::model_data::download;
use super::platform::ServingPlatform;
use super::rollout::FleetState;
use crate::authorization::RoleSession;
use crate::host::{
    self, ContainerExit, ContainerImage, ContainerSpec, ImageSetup, Leftovers, PrivateNetwork, StopSignals, discard,
};
use crate::protocol::text;
use crate::services::training::{LogPlace, PlatformStore, ship};

/// SageMaker's limit until the first `GET /ping` that answers 200, unless the variant has its own.
const HEALTH_LIMIT: Duration = Duration::from_mins(8);
const PING_LIMIT: Duration = Duration::from_secs(2);
const PING_PAUSE: Duration = Duration::from_millis(50);
/// Time between SIGTERM and SIGKILL, unless `--stop-grace` is shorter.
const GRACE: Duration = Duration::from_secs(30);
/// Pause before a container that ended is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The container that an instance runs.
#[derive(Debug, Clone)]
pub(super) struct ServingOrder {
    pub(super) endpoint: String,
    pub(super) variant: String,
    pub(super) region: String,
    /// An entry of `Containers`, with that of its model package merged in.
    pub(super) container: Value,
    pub(super) role: RoleSession,
    pub(super) is_isolated: bool,
    pub(super) health_limit: Option<Duration>,
}

/// An instance, while it starts, serves and ends.
#[derive(Debug)]
pub(super) struct ServingInstance {
    /// Name of its log stream.
    pub(super) log: LogPlace,
    state: Mutex<FleetState>,
    socket: Mutex<Option<PathBuf>>,
    stop: CancellationToken,
    /// The requests under way.
    pub(super) requests: TaskTracker,
    /// Tells the endpoint's task that the state changed.
    changed: Arc<Notify>,
}

impl ServingInstance {
    /// Starts an instance in a task of its own.
    pub(super) fn start(platform: &Arc<ServingPlatform>, order: ServingOrder, changed: &Arc<Notify>) -> Arc<Self> {
        let number = platform.shared.next_number();
        let log = LogPlace {
            group: format!("/aws/sagemaker/Endpoints/{}", order.endpoint),
            stream: format!("{}/i-{number:017x}", order.variant),
        };
        let instance = Arc::new(Self {
            log,
            state: Mutex::new(FleetState::Starting),
            socket: Mutex::default(),
            stop: CancellationToken::new(),
            requests: TaskTracker::new(),
            changed: Arc::clone(changed),
        });
        let (own, platform) = (Arc::clone(&instance), Arc::clone(platform));
        let folder = platform.shared.config.jobs_folder().join(format!("e{number}"));
        platform.shared.tasks.clone().spawn(async move {
            if let Err(error) = own.run(&platform, &order, &folder).await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    endpoint = order.endpoint,
                    "an instance of an endpoint failed"
                );
                own.set(FleetState::Failed(failure(&error, &order)));
            }
            let removed = tokio::task::spawn_blocking(move || discard(&folder)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(error = format!("{error:#}"), "failed to remove the files of an instance");
            }
        });
        instance
    }

    pub(super) fn state(&self) -> FleetState {
        self.state.lock().clone()
    }

    /// The way to the container's port, once it is ready.
    pub(super) fn socket(&self) -> Option<PathBuf> {
        self.socket.lock().clone().filter(|_| self.state() == FleetState::Ready)
    }

    /// Ends the container when the requests under way are answered.
    pub(super) fn end(self: &Arc<Self>) {
        let own = Arc::clone(self);
        own.requests.close();
        tokio::spawn(async move {
            own.requests.wait().await;
            own.stop.cancel();
        });
    }

    fn set(&self, state: FleetState) {
        *self.state.lock() = state;
        self.changed.notify_one();
    }

    async fn run(&self, platform: &Arc<ServingPlatform>, order: &ServingOrder, folder: &Path) -> anyhow::Result<()> {
        let shared = &platform.shared;
        let image = text(&order.container, "Image").unwrap_or_default();
        let found = platform.images.find(image).await?;
        let ImageSetup { root, profile } = found.with_context(|| format!("the image {image} does not exist"))?;
        anyhow::ensure!(
            !matches!(root, ContainerImage::Engine(_)),
            "images of podman and docker cannot serve: their containers share this machine's network"
        );
        let model = folder.join("opt-ml/model");
        let store = PlatformStore::new(&platform.store, shared, &order.role, &order.region);
        let (container, target) = (order.container.clone(), model.clone());
        let fetched = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&target).with_context(|| format!("failed to create {}", target.display()))?;
            download(&store, &container, &target)
        });
        fetched.await?.context(MODEL_DATA)?;
        let outside = shared.endpoint.strip_prefix("http://").and_then(|address| address.parse().ok());
        let network = PrivateNetwork::create(folder, PORT, outside.filter(|_| !order.is_isolated)).await?;
        let role = shared.keys.place(order.role.clone())?;
        let hostname = "container-0.local".to_owned();
        let spec = ContainerSpec {
            id: self.log.stream.replace('/', "-"),
            root,
            entrypoint: profile.entrypoint.clone(),
            profile,
            arguments: vec!["serve".to_owned()],
            environment: environment(platform, order, &role),
            hosts: vec![(hostname.clone(), Ipv4Addr::LOCALHOST)],
            hostname,
            network: network.network(),
            opt_ml: folder.join("opt-ml"),
            mounts: Vec::new(),
            scratch: folder.join("scratch"),
            leftovers: Leftovers::None,
        };
        let served = self.serve(platform, order, spec, network.socket()).await;
        shared.keys.revoke(&role);
        served
    }

    /// Runs the container until the instance ends; one that ends by itself after it was ready is started again.
    async fn serve(
        &self,
        platform: &Arc<ServingPlatform>,
        order: &ServingOrder,
        spec: ContainerSpec,
        socket: &Path,
    ) -> anyhow::Result<()> {
        let first = self.contain(platform, spec.clone());
        tokio::pin!(first);
        let limit = order.health_limit.unwrap_or(HEALTH_LIMIT);
        tokio::select! {
            exit = &mut first => {
                let exit = exit?;
                if !self.stop.is_cancelled() {
                    anyhow::bail!("the container ended with code {} before it was healthy", exit.code);
                }
                return Ok(());
            }
            healthy = tokio::time::timeout(limit, healthy(socket)) => {
                if healthy.is_err() {
                    self.stop.cancel();
                    drop(first.await);
                    anyhow::bail!("no `GET /ping` answered 200 within {} s", limit.as_secs());
                }
            }
        }
        *self.socket.lock() = Some(socket.to_owned());
        self.set(FleetState::Ready);
        first.await?;
        while !self.stop.is_cancelled() && !platform.shared.shutdown.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(RESTART_PAUSE) => {}
                () = self.stop.cancelled() => return Ok(()),
                () = platform.shared.shutdown.cancelled() => return Ok(()),
            }
            self.contain(platform, spec.clone()).await?;
        }
        Ok(())
    }

    async fn contain(&self, platform: &Arc<ServingPlatform>, spec: ContainerSpec) -> anyhow::Result<ContainerExit> {
        std::fs::create_dir_all(&spec.scratch)
            .with_context(|| format!("failed to create {}", spec.scratch.display()))?;
        let isolation = platform.isolation(&spec.scratch).await?;
        let (output, receiver) = mpsc::channel(64);
        let (shared, logs, place) = (Arc::clone(&platform.shared), Arc::clone(&platform.logs), self.log.clone());
        platform.shared.tasks.spawn(async move { ship(shared, logs, Some(place), receiver, |_| ()).await });
        let (kill, grace) = (platform.shared.shutdown.clone(), GRACE.min(platform.shared.config.stop_grace));
        host::run_with(spec, isolation, output, StopSignals { stop: self.stop.clone(), kill, grace }).await
    }
}

/// Marks errors of the download of the model.
const MODEL_DATA: &str = "failed to download the model data";

/// `FailureReason`, as SageMaker words it.
fn failure(error: &anyhow::Error, order: &ServingOrder) -> String {
    let url = text(&order.container, "ModelDataUrl").unwrap_or_default();
    if error.to_string() == MODEL_DATA {
        return format!(
            "Failed to download model data for the primary container of production variant {}: {url} ({:#}).",
            order.variant,
            error.root_cause()
        );
    }
    format!(
        "The primary container for production variant {} did not pass the ping health check. Please check CloudWatch logs for \
         this endpoint.",
        order.variant
    )
}

/// Asks until the container is healthy.
async fn healthy(socket: &Path) {
    loop {
        let answer = send(socket, (Method::GET, "/ping"), HeaderMap::new(), Bytes::new(), PING_LIMIT).await;
        if answer.is_ok_and(|answer| answer.status == StatusCode::OK) {
            return;
        }
        tokio::time::sleep(PING_PAUSE).await;
    }
}

/// The variables of the platform, then those of the model.
fn environment(platform: &ServingPlatform, order: &ServingOrder, role: &str) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from([
        ("AWS_REGION".to_owned(), order.region.clone()),
        ("AWS_EXECUTION_ENV".to_owned(), "AWS_ECS_EC2".to_owned()),
    ]);
    if !order.is_isolated {
        let endpoint = &platform.shared.endpoint;
        environment.insert("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), format!("{endpoint}{role}"));
        // The real platform needs no such hint: its services are where the region says.
        environment.insert("AWS_ENDPOINT_URL".to_owned(), endpoint.clone());
    }
    let own = order.container["Environment"].as_object().into_iter().flatten();
    environment.extend(own.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))));
    environment
}
