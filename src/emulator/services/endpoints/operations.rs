//! The operations on endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::configs;
use super::driver::drive;
use super::fleet::Fleet;
use super::listing::{self, ServingEntry, is_of};
use super::names::{ServingKind, ServingName};
use super::records::{EndpointRecord, Endpoints, ServingRecords};
use super::rollout::{EndpointProgress, EndpointStatus, RolloutPlan};
use crate::authorization::NeededAction;
use crate::caller::Caller;
use crate::clock;
use crate::protocol::{Answer, ApiError, epoch_seconds, text};
use crate::tags::{check_tags, tag_map};

/// The endpoint that a request names.
fn name_of(request: &Value, caller: &Caller) -> ServingName {
    ServingName::new(ServingKind::Endpoint, text(request, "EndpointName").unwrap_or_default(), caller)
}

pub(super) fn create(endpoints: &Arc<Endpoints>, request: &Value, caller: &Caller) -> Answer {
    check_tags(request.get("Tags"))?;
    let name = name_of(request, caller);
    let arn = name.arn();
    let mut records = endpoints.records();
    if records.endpoints.contains_key(&name) {
        return Err(name.present());
    }
    let fleet =
        Fleet::plan(&endpoints.platform, &records.entries, &configs::name_of(request, caller), &name.name, caller)?;
    let wanted = initial(&fleet);
    check_alarms(endpoints, request.get("DeploymentConfig"), &name)?;
    check_quota(endpoints, &records, &fleet, &wanted)?;
    let changed = Arc::new(Notify::new());
    start(endpoints, &fleet, &wanted, &changed);
    let now_ms = clock::now_ms();
    let fault = endpoints.platform.shared.faults.endpoint(&name.name, "CreateEndpoint").unwrap_or_default();
    let record = EndpointRecord {
        created_ms: now_ms,
        modified_ms: now_ms,
        number: endpoints.platform.shared.next_number(),
        progress: EndpointProgress::create(now_ms, fault),
        blue: None,
        green: Some(Arc::new(fleet)),
        deployment: request.get("DeploymentConfig").cloned(),
        routed: 0,
        changed: Arc::clone(&changed),
    };
    records.endpoints.insert(name.clone(), record);
    endpoints.platform.shared.tags.create(&arn, tag_map(request.get("Tags")));
    endpoints.platform.shared.tasks.spawn(drive(Arc::clone(endpoints), name, changed));
    Ok(Some(json!({"EndpointArn": arn})))
}

/// The number of instances of each variant.
type Counts = BTreeMap<String, usize>;

fn initial(fleet: &Fleet) -> Counts {
    fleet.variants().iter().map(|one| (one.name.clone(), fleet.initial_count(&one.name))).collect()
}

fn start(endpoints: &Arc<Endpoints>, fleet: &Fleet, wanted: &Counts, changed: &Arc<Notify>) {
    for (variant, count) in wanted {
        fleet.resize(&endpoints.platform, variant, *count, changed);
    }
}

/// Refuses more instances than the account's quota for endpoints allows; those of a deployment count beside the old ones.
fn check_quota(
    endpoints: &Endpoints,
    records: &ServingRecords,
    fleet: &Fleet,
    wanted: &Counts,
) -> Result<(), ApiError> {
    let types =
        fleet.variants().iter().filter_map(|one| Some((one.name.clone(), one.instance_type.clone()?))).collect();
    let types: BTreeMap<String, String> = types;
    let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
    for (variant, count) in wanted {
        if let Some(instance_type) = types.get(variant) {
            *asked.entry(instance_type).or_default() += count;
        }
    }
    for (instance_type, asked) in asked {
        let Some(limit) = endpoints.platform.shared.instance_quota(&format!("endpoint:{instance_type}")) else {
            continue;
        };
        let fleets = records.endpoints.values().flat_map(|one| [&one.blue, &one.green]).flatten();
        let of_type = |fleet: &Arc<Fleet>| -> usize {
            let variants = fleet.variants();
            let same = variants.iter().filter(|one| one.instance_type.as_deref() == Some(instance_type));
            same.map(|one| one.instances.len()).sum()
        };
        let used: usize = fleets.map(of_type).sum();
        if u64::try_from(used + asked).is_ok_and(|all| all > limit) {
            return Err(ApiError::new(
                "ResourceLimitExceeded",
                format!(
                    "The account-level service limit '{instance_type} for endpoint usage' is {limit} Instances, with current \
                     utilization of {used} Instances and a request delta of {asked} Instances. Please use AWS Service Quotas \
                     to request an increase for this quota. If AWS Service Quotas is not available, contact AWS support to \
                     request an increase for this quota."
                ),
            ));
        }
    }
    Ok(())
}

/// Only an endpoint in service can be changed.
fn check_in_service(record: &EndpointRecord, name: &ServingName) -> Result<(), ApiError> {
    match record.progress.status {
        EndpointStatus::InService => Ok(()),
        EndpointStatus::Failed | EndpointStatus::UpdateRollbackFailed => Err(ApiError::validation(format!(
            "Cannot update endpoint \"{}\" in the status {}.",
            name.arn(),
            record.progress.status.text()
        ))),
        _ => Err(ApiError::validation(format!("Cannot update in-progress endpoint \"{}\".", name.arn()))),
    }
}

pub(super) fn update(endpoints: &Arc<Endpoints>, request: &Value, caller: &Caller) -> Answer {
    let name = name_of(request, caller);
    let mut records = endpoints.records();
    check_in_service(records.endpoint(&name)?, &name)?;
    let fleet =
        Fleet::plan(&endpoints.platform, &records.entries, &configs::name_of(request, caller), &name.name, caller)?;
    let mut wanted = initial(&fleet);
    let record = records.endpoint(&name)?;
    retain(request, record, &fleet, &mut wanted);
    let deployment = match request.get("DeploymentConfig").filter(|config| !config.is_null()) {
        Some(config) => Some(config.clone()),
        None if request["RetainDeploymentConfig"] == true => record.deployment.clone(),
        None => None,
    };
    check_deployment(deployment.as_ref(), &fleet)?;
    check_alarms(endpoints, deployment.as_ref(), &name)?;
    check_scalable_targets(endpoints, record, &fleet, &name)?;
    let changed = Arc::clone(&record.changed);
    check_quota(endpoints, &records, &fleet, &wanted)?;
    start(endpoints, &fleet, &wanted, &changed);
    let instances = wanted.values().sum::<usize>();
    let plan = RolloutPlan::new(
        deployment.as_ref(),
        u64::try_from(instances).unwrap_or(u64::MAX),
        endpoints.platform.shared.config.deployment_wait_scale,
    );
    let fault = endpoints.platform.shared.faults.endpoint(&name.name, "UpdateEndpoint").unwrap_or_default();
    let now_ms = clock::now_ms();
    let record = records.endpoint(&name)?;
    record.progress.update(now_ms, plan, fault);
    record.modified_ms = now_ms;
    record.deployment = deployment;
    record.green = Some(Arc::new(fleet));
    changed.notify_one();
    Ok(Some(json!({"EndpointArn": name.arn()})))
}

/// Keeps weights and numbers of the instances in service, when the request says so.
fn retain(request: &Value, record: &EndpointRecord, fleet: &Fleet, wanted: &mut Counts) {
    let Some(blue) = record.blue.as_ref().filter(|_| request["RetainAllVariantProperties"] == true) else { return };
    let excluded = |kind: &str| {
        let mut all = request["ExcludeRetainedVariantProperties"].as_array().into_iter().flatten();
        all.any(|one| one["VariantPropertyType"] == kind)
    };
    for old in blue.variants().iter() {
        if let Some(count) = wanted.get_mut(&old.name).filter(|_| !excluded("DesiredInstanceCount")) {
            *count = old.instances.len();
        }
        let mut variants = fleet.variants();
        let same = variants.iter_mut().find(|one| one.name == old.name);
        if let Some(same) = same.filter(|_| !excluded("DesiredWeight")) {
            same.weight = old.weight;
        }
    }
}

/// Checks what the model does not tell of a deployment.
fn check_deployment(deployment: Option<&Value>, fleet: &Fleet) -> Result<(), ApiError> {
    let Some(deployment) = deployment else { return Ok(()) };
    let (rolling, blue_green) = (&deployment["RollingUpdatePolicy"], &deployment["BlueGreenUpdatePolicy"]);
    let refuse = |message: &str| Err(ApiError::validation(message));
    if rolling.is_object() && blue_green.is_object() {
        return refuse(
            "Specify either BlueGreenUpdatePolicy or RollingUpdatePolicy in DeploymentConfig, and not both.",
        );
    }
    let variants = fleet.variants();
    if variants.iter().any(|one| one.instance_type.is_none()) {
        return refuse("DeploymentConfig is not supported for serverless variants.");
    }
    if rolling.is_object() && variants.len() > 1 {
        return refuse("RollingUpdatePolicy is not supported for endpoints with multiple production variants.");
    }
    let routing = &blue_green["TrafficRoutingConfiguration"];
    match (text(routing, "Type"), routing["CanarySize"].is_object(), routing["LinearStepSize"].is_object()) {
        (Some("CANARY"), false, _) => refuse("CanarySize is required for the traffic routing type CANARY."),
        (Some("LINEAR"), _, false) => refuse("LinearStepSize is required for the traffic routing type LINEAR."),
        _ => Ok(()),
    }
}

/// Refuses alarms that do not exist.
fn check_alarms(endpoints: &Endpoints, deployment: Option<&Value>, name: &ServingName) -> Result<(), ApiError> {
    let alarms = RolloutPlan::new(deployment, 1, 1.0).alarms;
    let absent = endpoints.platform.cloudwatch.absent(&name.account, &name.region, &alarms);
    if absent.is_empty() {
        return Ok(());
    }
    let message = format!("These alarms of AutoRollbackConfiguration do not exist: [{}].", absent.join(", "));
    Err(ApiError::validation(message))
}

/// Refuses another instance type for a variant that is registered with Application Auto Scaling.
fn check_scalable_targets(
    endpoints: &Endpoints,
    record: &EndpointRecord,
    fleet: &Fleet,
    name: &ServingName,
) -> Result<(), ApiError> {
    let Some(blue) = &record.blue else { return Ok(()) };
    for (variant, _) in endpoints.platform.targets.of_endpoint(&name.account, &name.region, &name.name) {
        let type_in = |fleet: &Fleet| {
            let variants = fleet.variants();
            variants.iter().find(|one| one.name == variant).map(|one| one.instance_type.clone())
        };
        if let (Some(old), Some(new)) = (type_in(blue), type_in(fleet))
            && old != new
        {
            return Err(ApiError::validation(format!(
                "Cannot change the instance type of variant {variant} from {} to {}, because it is registered as a scalable \
                 target. Deregister the scalable target with Application Auto Scaling before you update endpoint \"{}\".",
                old.as_deref().unwrap_or("serverless"),
                new.as_deref().unwrap_or("serverless"),
                name.arn()
            )));
        }
    }
    Ok(())
}

/// Changes weights and numbers of the instances in service.
pub(super) fn scale(endpoints: &Arc<Endpoints>, request: &Value, caller: &Caller) -> Answer {
    let name = name_of(request, caller);
    let mut records = endpoints.records();
    let record = records.endpoint(&name)?;
    check_in_service(record, &name)?;
    let blue = record.blue.clone().ok_or_else(|| name.absent())?;
    let changed = Arc::clone(&record.changed);
    let wanted: Vec<&Value> = request["DesiredWeightsAndCapacities"].as_array().into_iter().flatten().collect();
    let variant_of = |one: &Value| text(one, "VariantName").unwrap_or_default().to_owned();
    let mut grown = Counts::new();
    for one in &wanted {
        let variants = blue.variants();
        let found = variants.iter().find(|variant| variant.name == variant_of(one));
        let found = found.ok_or_else(|| {
            ApiError::validation(format!(
                "The variant {} does not exist in endpoint \"{}\".",
                variant_of(one),
                name.arn()
            ))
        })?;
        let count = one["DesiredInstanceCount"].as_u64().and_then(|count| usize::try_from(count).ok());
        if let Some(count) = count {
            grown.insert(found.name.clone(), count.saturating_sub(found.instances.len()));
        }
    }
    check_quota(endpoints, &records, &blue, &grown)?;
    for one in wanted {
        let variant = variant_of(one);
        if let Some(weight) = one["DesiredWeight"].as_f64() {
            blue.variants().iter_mut().filter(|one| one.name == variant).for_each(|one| one.weight = weight);
        }
        if let Some(count) = one["DesiredInstanceCount"].as_u64().and_then(|count| usize::try_from(count).ok()) {
            blue.resize(&endpoints.platform, &variant, count, &changed);
        }
    }
    let operation = "UpdateEndpointWeightsAndCapacities";
    let fault = endpoints.platform.shared.faults.endpoint(&name.name, operation).unwrap_or_default();
    let record = records.endpoint(&name)?;
    record.modified_ms = clock::now_ms();
    record.progress.scale(record.modified_ms, fault);
    changed.notify_one();
    Ok(Some(json!({"EndpointArn": name.arn()})))
}

pub(super) fn delete(endpoints: &Arc<Endpoints>, request: &Value, caller: &Caller) -> Answer {
    let name = name_of(request, caller);
    let mut records = endpoints.records();
    let record = records.endpoint(&name)?;
    match record.progress.status {
        EndpointStatus::InService | EndpointStatus::Failed | EndpointStatus::UpdateRollbackFailed => {}
        _ => return Err(ApiError::validation(format!("Cannot delete in-progress endpoint \"{}\".", name.arn()))),
    }
    deregister(endpoints, &name, caller)?;
    record.modified_ms = clock::now_ms();
    record.progress.delete(record.modified_ms);
    record.changed.notify_one();
    Ok(None)
}

/// Removes the scalable targets of an endpoint in the caller's name, with their policies and alarms.
fn deregister(endpoints: &Endpoints, name: &ServingName, caller: &Caller) -> Result<(), ApiError> {
    let platform = &endpoints.platform;
    let ServingName { account, region, name, .. } = name;
    for (_, arn) in platform.targets.of_endpoint(account, region, name) {
        let needed = NeededAction::new("application-autoscaling:DeregisterScalableTarget", arn)
            .key("application-autoscaling:service-namespace", ["sagemaker"]);
        platform.shared.authority.allows(caller, &needed, None).map_err(|_| {
            ApiError::new(
                "AccessDeniedException",
                "An Application AutoScaling scalable target exists for a variant being deleted, and the IAM identity used to invoke \
                 DeleteEndpoint does not have application-autoscaling:DeregisterScalableTarget permission to deregister the scalable \
                 target.",
            )
        })?;
    }
    for removed in platform.targets.remove_of_endpoint(account, region, name) {
        platform.cloudwatch.forget(account, region, &removed.alarms);
        platform.shared.tags.remove(&removed.arn);
    }
    Ok(())
}

pub(super) fn describe(endpoints: &Arc<Endpoints>, request: &Value, caller: &Caller) -> Answer {
    let name = name_of(request, caller);
    let mut records = endpoints.records();
    let record = records.endpoint(&name)?;
    let mut shown = summary(&name, record);
    let progress = &record.progress;
    let status = progress.variant_status().map(|status| (status, progress.started_ms));
    let live = record.blue.as_ref().or(record.green.as_ref());
    if let Some(live) = live {
        shown["EndpointConfigName"] = json!(live.config_name);
        // The status is that of the new instances, which are shown apart when there are old ones.
        let is_apart = record.blue.is_some() && record.green.is_some();
        shown["ProductionVariants"] = json!(live.summaries(status.filter(|_| !is_apart)));
        if let Some(capture) = live.config.get("DataCaptureConfig") {
            shown["DataCaptureConfig"] = json!({
                "EnableCapture": capture["EnableCapture"].as_bool().unwrap_or(false),
                "CaptureStatus": "Stopped",
                "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
                "DestinationS3Uri": capture["DestinationS3Uri"],
                "KmsKeyId": text(capture, "KmsKeyId").unwrap_or_default(),
            });
        }
        if let Some(asynchronous) = live.config.get("AsyncInferenceConfig") {
            shown["AsyncInferenceConfig"] = asynchronous.clone();
        }
    }
    if let (Some(_), Some(green)) = (&record.blue, &record.green) {
        shown["PendingDeploymentSummary"] = json!({
            "EndpointConfigName": green.config_name,
            "ProductionVariants": green.summaries(status),
            "StartTime": epoch_seconds(green.started_ms),
        });
    }
    if let Some(reason) = &progress.failure {
        shown["FailureReason"] = json!(reason);
    }
    if let Some(deployment) = &record.deployment {
        shown["LastDeploymentConfig"] = deployment.clone();
    }
    Ok(Some(shown))
}

/// An entry of a list.
fn summary(name: &ServingName, record: &EndpointRecord) -> Value {
    json!({
        "EndpointName": name.name,
        "EndpointArn": name.arn(),
        "EndpointStatus": record.progress.status.text(),
        "CreationTime": epoch_seconds(record.created_ms),
        "LastModifiedTime": epoch_seconds(record.modified_ms),
    })
}

pub(super) fn list(endpoints: &Arc<Endpoints>, request: &Value, caller: &Caller) -> Answer {
    let records = endpoints.records();
    let own = records.endpoints.iter().filter(|(name, _)| is_of(name, caller));
    let listed = own.map(|(name, record)| ServingEntry {
        name: name.name.clone(),
        created_ms: record.created_ms,
        modified_ms: record.modified_ms,
        number: record.number,
        summary: summary(name, record),
    });
    listing::page(request, "Endpoints", listed.collect())
}
