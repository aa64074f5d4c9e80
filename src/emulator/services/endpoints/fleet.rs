//! The instances of one endpoint configuration, by variant.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::entries::{ServingEntries, containers_of};
use super::instance::{ServingInstance, ServingOrder};
use super::names::{ServingKind, ServingName};
use super::platform::ServingPlatform;
use super::rollout::FleetState;
use crate::authorization::RoleSession;
use crate::caller::Caller;
use crate::clock;
use crate::package_names::PackageName;
use crate::protocol::{ApiError, epoch_seconds, text};
use crate::services::training::role_session;
use crate::tags::TagMap;

/// The instances of a configuration.
pub(super) struct Fleet {
    pub(super) config_name: String,
    /// The members of the configuration.
    pub(super) config: Map<String, Value>,
    pub(super) started_ms: u64,
    variants: Mutex<Vec<VariantFleet>>,
}

/// The instances of one variant.
pub(super) struct VariantFleet {
    pub(super) name: String,
    pub(super) weight: f64,
    /// The type of its instances; `None` is serverless.
    pub(super) instance_type: Option<String>,
    pub(super) order: ServingOrder,
    pub(super) instances: Vec<Arc<ServingInstance>>,
}

impl Fleet {
    /// Resolves the models of a configuration, without starting anything.
    pub(super) fn plan(
        platform: &ServingPlatform,
        entries: &ServingEntries,
        config: &ServingName,
        endpoint: &str,
        caller: &Caller,
    ) -> Result<Self, ApiError> {
        let members = entries.entry(config)?.members.clone();
        let mut variants = Vec::new();
        for variant in members.get("ProductionVariants").and_then(Value::as_array).into_iter().flatten() {
            let model = ServingName::new(ServingKind::Model, text(variant, "ModelName").unwrap_or_default(), caller);
            let described = Value::Object(entries.entry(&model)?.members.clone());
            let containers = containers_of(&described);
            let [container] = containers.as_slice() else {
                return Err(ApiError::validation(format!(
                    "Inference pipelines are not emulated: {} has several containers.",
                    model.arn()
                )));
            };
            let role = text(&described, "ExecutionRoleArn").unwrap_or_default();
            let role = role_session(&platform.shared.authority, role, caller, TagMap::new(), &model.arn())?;
            let limit = variant["ContainerStartupHealthCheckTimeoutInSeconds"].as_u64();
            let name = text(variant, "VariantName").unwrap_or_default().to_owned();
            variants.push(VariantFleet {
                weight: variant["InitialVariantWeight"].as_f64().unwrap_or(1.0),
                instance_type: text(variant, "InstanceType").map(str::to_owned),
                order: ServingOrder {
                    endpoint: endpoint.to_owned(),
                    variant: name.clone(),
                    region: caller.region.clone(),
                    container: resolved(platform, container, caller)?,
                    role: RoleSession { job: Some(endpoint.to_owned()), ..role },
                    is_isolated: described["EnableNetworkIsolation"] == true,
                    health_limit: limit.map(Duration::from_secs),
                },
                name,
                instances: Vec::new(),
            });
        }
        let started_ms = clock::now_ms();
        Ok(Self { config_name: config.name.clone(), config: members, started_ms, variants: Mutex::new(variants) })
    }

    pub(super) fn variants(&self) -> MutexGuard<'_, Vec<VariantFleet>> {
        self.variants.lock()
    }

    /// The number of instances that the configuration wants of a variant; a serverless one has one.
    pub(super) fn initial_count(&self, variant: &str) -> usize {
        let wanted = self.entry(variant)["InitialInstanceCount"].as_u64().unwrap_or(1);
        usize::try_from(wanted).unwrap_or(usize::MAX)
    }

    /// A variant as the configuration has it.
    pub(super) fn entry(&self, variant: &str) -> &Value {
        let mut all = self.config.get("ProductionVariants").and_then(Value::as_array).into_iter().flatten();
        all.find(|one| one["VariantName"] == variant).unwrap_or(&Value::Null)
    }

    /// Starts or ends instances until a variant has this many.
    pub(super) fn resize(&self, platform: &Arc<ServingPlatform>, variant: &str, count: usize, changed: &Arc<Notify>) {
        let mut variants = self.variants();
        let Some(found) = variants.iter_mut().find(|one| one.name == variant) else { return };
        while found.instances.len() < count {
            found.instances.push(ServingInstance::start(platform, found.order.clone(), changed));
        }
        found.instances.drain(count..).for_each(|instance| instance.end());
    }

    /// The state of all instances together.
    pub(super) fn state(&self) -> FleetState {
        let mut all = FleetState::Ready;
        for instance in self.variants().iter().flat_map(|variant| &variant.instances) {
            match instance.state() {
                failed @ FleetState::Failed(_) => return failed,
                FleetState::Starting => all = FleetState::Starting,
                FleetState::Ready => {}
            }
        }
        all
    }

    /// Ends all instances, each after its last request.
    pub(super) fn end(&self) {
        self.variants().iter().flat_map(|variant| &variant.instances).for_each(ServingInstance::end);
    }

    /// The variants as Describe shows them, those of a deployment with their status.
    pub(super) fn summaries(&self, status: Option<(&str, u64)>) -> Vec<Value> {
        let variants = self.variants();
        let shown = variants.iter().map(|variant| {
            let entry = self.entry(&variant.name);
            let image = text(&variant.order.container, "Image").unwrap_or_default();
            let mut one = json!({
                "VariantName": variant.name,
                "DeployedImages": [{
                    "SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": epoch_seconds(self.started_ms),
                }],
                "CurrentWeight": variant.weight,
                "DesiredWeight": variant.weight,
            });
            if let Some(config) = entry.get("ServerlessConfig").filter(|config| !config.is_null()) {
                one["CurrentServerlessConfig"] = config.clone();
                one["DesiredServerlessConfig"] = config.clone();
            } else {
                let ready = variant.instances.iter().filter(|one| one.state() == FleetState::Ready).count();
                one["CurrentInstanceCount"] = json!(ready);
                one["DesiredInstanceCount"] = json!(variant.instances.len());
            }
            if let Some((status, since_ms)) = status {
                one["VariantStatus"] = json!([{"Status": status, "StartTime": epoch_seconds(since_ms)}]);
            }
            one
        });
        shown.collect()
    }
}

/// A container with the image and the data of its model package.
fn resolved(platform: &ServingPlatform, container: &Value, caller: &Caller) -> Result<Value, ApiError> {
    let Some(package) = text(container, "ModelPackageName") else { return Ok(container.clone()) };
    let packaged = platform.registry.deployable(&PackageName::parse(package, caller), caller)?;
    let mut all = packaged.into_iter().next().unwrap_or_default();
    for (name, value) in container["Environment"].as_object().into_iter().flatten() {
        all["Environment"][name] = value.clone();
    }
    Ok(all)
}
