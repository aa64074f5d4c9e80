//! The things that a deployment makes: model, configuration, alarms, scaling and rollout, from the manifest and a version. Pure.
//!
//! Model and configuration have the hash of their content in their names, so that equal ones have equal names.

use std::collections::BTreeMap;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::deployed_package::DeployedPackage;
use super::ownership::{self, SPECIFICATION, VERSION, tag_value};
use super::scaling::{SavedScaling, VARIANT};
use crate::base::failure::Failure;
use crate::cloud::{
    AlarmMetric, AsynchronousOutput, EndpointAlarm, EndpointConfiguration, ModelSource, ModelVersion, RolloutSpec,
    ServedModel, TrafficShift, VariantCapacity,
};
use crate::lifecycle::hex::hex;
use crate::lifecycle::manifest::{Asynchronous, Endpoint, Strategy};
use crate::lifecycle::model::approvals::ApprovalRule;
use crate::lifecycle::model::version_image;
use crate::lifecycle::target::ProjectTarget;

/// Longest name of a model, configuration or endpoint.
const LONGEST_NAME: usize = 63;
/// Digits of the hash in names.
const DIGITS: usize = 12;
/// Ends of the names of alarms.
const ERRORS_END: &str = "5xx";
const LATENCY_END: &str = "latency";
/// Seconds of an alarm's period.
const PERIOD: u32 = 60;

/// Everything that a deployment makes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DeploymentSpecification {
    pub(super) endpoint: String,
    /// SHA-256 of the content of model and configuration, in hexadecimal digits.
    pub(super) hash: String,
    pub(super) model: ServedModel,
    pub(super) config: EndpointConfiguration,
    /// Alarms to make.
    pub(super) alarms: Vec<EndpointAlarm>,
    pub(super) scaling: Option<SavedScaling>,
    /// `None` for serverless endpoints. It names all alarms.
    pub(super) rollout: Option<RolloutSpec>,
    pub(super) tags: BTreeMap<String, String>,
    /// ARN of the version.
    pub(super) version: String,
    /// Image and model of the version.
    pub(super) image: String,
    pub(super) model_data_url: String,
    /// `None` for a version that comes from no package.
    pub(super) package: Option<DeployedPackage>,
}

impl DeploymentSpecification {
    /// `approvals`: those that the version needs. SageMaker makes the model from the version itself then.
    ///
    /// # Errors
    /// The manifest has no role or no bucket for the environment.
    pub(super) fn new(
        target: &ProjectTarget,
        endpoint: &Endpoint,
        version: &ModelVersion,
        package: Option<&DeployedPackage>,
        approvals: Option<ApprovalRule>,
    ) -> Result<Self, Failure> {
        let by_version = approvals.is_some();
        let place = &target.manifest.target;
        let role = place.role.clone().ok_or_else(|| target.unnamed("role"))?;
        let image = version_image(version);
        let source = if by_version {
            ModelSource::Package(version.arn.clone())
        } else {
            ModelSource::Container { image: image.clone(), model_data_url: Some(version.model_data_url.clone()) }
        };
        let environment = if by_version { BTreeMap::new() } else { version.environment.clone() };
        let mut model = ServedModel {
            name: String::new(),
            arn: String::new(),
            source,
            environment,
            role,
            subnets: place.subnets.clone(),
            security_groups: place.security_groups.clone(),
            network_isolation: place.network_isolation,
            tags: BTreeMap::new(),
        };
        let mut config = configuration(target, endpoint);
        let hash = hash((&endpoint.name, &version.arn, package), &model, &config, approvals);
        let digits = hash.get(..DIGITS).unwrap_or_default();
        let mut tags = tags(target, (&endpoint.name, &version.arn, package), &hash);
        tags.extend(approvals.map(ownership::approvals_tag));
        model.name = name(&endpoint.name, &format!("-m-{digits}"));
        model.tags.clone_from(&tags);
        config.name = name(&endpoint.name, &format!("-{digits}"));
        config.model.clone_from(&model.name);
        config.tags.clone_from(&tags);
        let alarms = alarms(endpoint, &tags);
        let names = alarms.iter().map(|alarm| &alarm.name).chain(&endpoint.alarms.names).cloned().collect();
        Ok(Self {
            endpoint: endpoint.name.clone(),
            rollout: rollout(endpoint, names),
            scaling: SavedScaling::wanted(endpoint, VARIANT),
            hash,
            model,
            config,
            alarms,
            tags,
            version: version.arn.clone(),
            image,
            model_data_url: version.model_data_url.clone(),
            package: package.cloned(),
        })
    }

    /// Names of all alarms that guard a deployment.
    pub(super) fn alarm_names(&self) -> &[String] {
        self.rollout.as_ref().map(|rollout| rollout.alarms.as_slice()).unwrap_or_default()
    }
}

/// The part of an endpoint's name that stands in the names of its configurations.
pub(crate) fn stem(endpoint: &str) -> &str {
    endpoint.get(..LONGEST_NAME - "-m-".len() - DIGITS).unwrap_or(endpoint).trim_end_matches('-')
}

/// The model's name that belongs to a configuration's; `None` for a configuration that is none of the endpoint's.
pub(super) fn model_of_config(endpoint: &str, config: &str) -> Option<String> {
    let digits = config.strip_prefix(stem(endpoint))?.strip_prefix('-')?;
    let is_hash = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| format!("{}-m-{digits}", stem(endpoint)))
}

/// Names of the alarms that this program makes for an endpoint.
pub(crate) fn own_alarms(endpoint: &str) -> [String; 2] {
    [ERRORS_END, LATENCY_END].map(|end| alarm_name(endpoint, end))
}

fn alarm_name(endpoint: &str, end: &str) -> String {
    format!("{endpoint}-{end}")
}

fn name(endpoint: &str, end: &str) -> String {
    format!("{}{end}", stem(endpoint))
}

fn configuration(target: &ProjectTarget, endpoint: &Endpoint) -> EndpointConfiguration {
    let (capacity, instances) = match (&endpoint.instances, &endpoint.serverless) {
        (Some(instances), _) => (
            VariantCapacity::Instances { instance_type: instances.instance_type.clone(), count: instances.count },
            Some(instances),
        ),
        (None, serverless) => {
            let serverless = serverless.as_ref();
            let capacity = VariantCapacity::Serverless {
                memory_mb: serverless.map_or(0, |serverless| serverless.memory_mb),
                max_concurrency: serverless.map_or(0, |serverless| serverless.max_concurrency),
                provisioned_concurrency: serverless.and_then(|serverless| serverless.provisioned_concurrency),
            };
            (capacity, None)
        }
    };
    let key = target.manifest.target.key.clone();
    EndpointConfiguration {
        name: String::new(),
        arn: String::new(),
        model: String::new(),
        variant: VARIANT.to_owned(),
        capacity,
        download_timeout_seconds: instances.and_then(|instances| instances.download_timeout_seconds),
        startup_timeout_seconds: instances.and_then(|instances| instances.startup_timeout_seconds),
        kms_key_id: key
            .clone()
            .filter(|_| instances.is_some_and(|instances| !has_local_storage(&instances.instance_type))),
        asynchronous: endpoint.asynchronous.as_ref().map(|places| asynchronous(target, &endpoint.name, places, key)),
        variants: 1,
        tags: BTreeMap::new(),
    }
}

/// Types with local storage encrypt it themselves, and take no key (`CreateEndpointConfig`, `KmsKeyId`): a `d` stands behind their
/// generation, or all types of the family have it.
fn has_local_storage(instance_type: &str) -> bool {
    let family = instance_type.split('.').nth(1).unwrap_or_default();
    let generation = family.find(|one: char| one.is_ascii_digit()).unwrap_or(family.len());
    let suffix = family.get(generation..).unwrap_or_default();
    let all = ["g5", "g6", "gr6", "p5", "p6", "trn1", "trn2"];
    suffix.contains('d') || all.iter().any(|one| family.starts_with(one))
}

fn asynchronous(
    target: &ProjectTarget,
    endpoint: &str,
    places: &Asynchronous,
    kms_key_id: Option<String>,
) -> AsynchronousOutput {
    let access = &target.access;
    let prefix = if access.prefix.is_empty() { String::new() } else { format!("{}/", access.prefix) };
    let usual = |what: &str| format!("s3://{}/{prefix}asynchronous/{endpoint}/{what}", access.bucket);
    AsynchronousOutput {
        output: places.answers.clone().unwrap_or_else(|| usual("answers")),
        failures: Some(places.failures.clone().unwrap_or_else(|| usual("failures"))),
        max_concurrent: places.max_concurrent,
        kms_key_id,
    }
}

/// The hash of everything that a model and a configuration cannot change later. Maps of JSON are in the order of their keys.
fn hash(
    (endpoint, version, package): (&str, &str, Option<&DeployedPackage>),
    model: &ServedModel,
    config: &EndpointConfiguration,
    approvals: Option<ApprovalRule>,
) -> String {
    let source = match &model.source {
        ModelSource::Package(arn) => json!({"package": arn}),
        ModelSource::Container { image, model_data_url } => json!({"image": image, "data": model_data_url}),
        ModelSource::Other => json!(null),
    };
    let capacity = match &config.capacity {
        VariantCapacity::Instances { instance_type, count } => json!({"type": instance_type, "count": count}),
        VariantCapacity::Serverless { memory_mb, max_concurrency, provisioned_concurrency } => {
            json!({"memory": memory_mb, "concurrency": max_concurrency, "provisioned": provisioned_concurrency})
        }
    };
    let asynchronous = config.asynchronous.as_ref().map(|places| {
        let AsynchronousOutput { output, failures, max_concurrent, kms_key_id } = places;
        json!({"output": output, "failures": failures, "concurrent": max_concurrent, "key": kms_key_id})
    });
    let mut content = json!({
        "endpoint": endpoint,
        "version": version,
        "model": {
            "source": source,
            "environment": model.environment,
            "role": model.role,
            "subnets": model.subnets,
            "security_groups": model.security_groups,
            "isolated": model.network_isolation,
        },
        "config": {
            "variant": config.variant,
            "capacity": capacity,
            "download_timeout": config.download_timeout_seconds,
            "startup_timeout": config.startup_timeout_seconds,
            "key": config.kms_key_id,
            "asynchronous": asynchronous,
        },
    });
    // Without one the hash stays what it was before there were packages.
    if let Some(package) = package {
        content["package"] = json!(package.sha256);
    }
    // Tags of a configuration stay: another rule needs another configuration. One approval needs none, as before there were tags.
    if let Some(rule) = approvals.filter(|rule| *rule != ApprovalRule::default()) {
        content["approvals"] = json!(rule.text());
    }
    hex(&Sha256::digest(content.to_string()))
}

fn tags(
    target: &ProjectTarget,
    (endpoint, version, package): (&str, &str, Option<&DeployedPackage>),
    hash: &str,
) -> BTreeMap<String, String> {
    let mut tags = ownership::tags(target, endpoint);
    if let Some(package) = package {
        tags.extend(ownership::package_tags(package));
    }
    tags.extend([(VERSION, version), (SPECIFICATION, hash)].map(|(name, text)| (name.to_owned(), tag_value(text))));
    tags
}

/// The alarms that the manifest asks for.
pub(super) fn alarms(endpoint: &Endpoint, tags: &BTreeMap<String, String>) -> Vec<EndpointAlarm> {
    let alarm = |end: &str, metric: AlarmMetric, threshold: f64, what: &str| EndpointAlarm {
        name: alarm_name(&endpoint.name, end),
        description: format!("{what} of the endpoint {}. It rolls a deployment back.", endpoint.name),
        endpoint: endpoint.name.clone(),
        variant: VARIANT.to_owned(),
        metric,
        threshold,
        period_seconds: PERIOD,
        periods: 1,
        tags: tags.clone(),
    };
    let errors = endpoint.alarms.errors_5xx.map(|most| {
        alarm(
            ERRORS_END,
            AlarmMetric::Errors5xx,
            most,
            &format!("More than {most} answers with status 5xx in a minute"),
        )
    });
    // `ModelLatency` is in microseconds.
    let latency = endpoint.alarms.latency_p95_ms.map(|most| {
        alarm(LATENCY_END, AlarmMetric::LatencyP95, most * 1000.0, &format!("p95 of the latency above {most} ms"))
    });
    errors.into_iter().chain(latency).collect()
}

fn rollout(endpoint: &Endpoint, alarms: Vec<String>) -> Option<RolloutSpec> {
    endpoint.instances.as_ref()?;
    let deployment = &endpoint.deployment;
    let (wait, percent) = (endpoint.step_wait(), deployment.step_percent.unwrap_or_default());
    let termination_wait = deployment.termination_wait_seconds.unwrap_or_default();
    let traffic = match deployment.strategy {
        Strategy::AllAtOnce => TrafficShift::AllAtOnce { wait, termination_wait },
        Strategy::Canary => TrafficShift::Canary { percent, wait, termination_wait },
        Strategy::Linear => TrafficShift::Linear { percent, wait, termination_wait },
        Strategy::Rolling => TrafficShift::Rolling { percent, wait },
    };
    Some(RolloutSpec { traffic, limit_seconds: endpoint.deployment_limit(), alarms })
}

/// Whether an alarm is as wanted. AWS does not show tags.
pub(super) fn is_same_alarm(shown: &EndpointAlarm, wanted: &EndpointAlarm) -> bool {
    let shown = EndpointAlarm { tags: wanted.tags.clone(), ..shown.clone() };
    shown == *wanted
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use super::super::ledger::LedgerScaling;
    use super::*;
    use crate::cloud::Access;
    use crate::cloud::testing::example_version;
    use crate::lifecycle::manifest::{EnvironmentEntry, Manifest};
    use crate::lifecycle::pipeline::Pipeline;

    type Change = fn(&mut Value, &mut EnvironmentEntry);

    fn made(change: impl FnOnce(&mut Value, &mut EnvironmentEntry), by_package: bool) -> DeploymentSpecification {
        let mut endpoint = json!({"name": "wine", "instances": {"type": "ml.m5.large", "count": 2}});
        let role = Some("arn:aws:iam::123456789012:role/serve".to_owned());
        let mut place = EnvironmentEntry { role, ..EnvironmentEntry::default() };
        change(&mut endpoint, &mut place);
        let endpoint: Endpoint = serde_json::from_value(endpoint).unwrap();
        let target = ProjectTarget {
            manifest: Manifest { target: place, ..Manifest::default() },
            folder: PathBuf::new(),
            environment: Some("prod".to_owned()),
            pipeline: Pipeline { id: Some("7".to_owned()), ..Pipeline::default() },
            access: Access { bucket: "models".to_owned(), prefix: "wine".to_owned(), ..Access::default() },
        };
        let approvals = by_package.then(ApprovalRule::default);
        DeploymentSpecification::new(&target, &endpoint, &example_version(), None, approvals).unwrap()
    }

    #[test]
    fn another_rule_of_approvals_is_another_configuration_that_remembers_it() {
        let rule = |text: &str| Some(ApprovalRule::of_text(text));
        let made = |approvals| {
            let place = EnvironmentEntry { role: Some("r".to_owned()), ..EnvironmentEntry::default() };
            let target = ProjectTarget {
                manifest: Manifest { target: place, ..Manifest::default() },
                folder: PathBuf::new(),
                environment: Some("prod".to_owned()),
                pipeline: Pipeline::default(),
                access: Access::default(),
            };
            let endpoint: Endpoint = serde_json::from_value(json!({"name": "wine"})).unwrap();
            let made = DeploymentSpecification::new(&target, &endpoint, &example_version(), None, approvals).unwrap();
            (made.config.name, ownership::approvals(&made.config.tags))
        };
        let rules = [None, rule("1"), rule("2"), rule("2 no-self")];
        let names: std::collections::BTreeSet<_> = rules.map(|rule| made(rule).0).into();
        assert_eq!(names.len(), rules.len());
        for rule in rules {
            assert_eq!(made(rule).1, rule);
        }
    }

    #[test]
    fn equal_content_has_equal_names_and_other_content_others() {
        let base = made(|_, _| {}, true);
        // Names must stay what they are: another one would deploy every endpoint again.
        assert_eq!((base.model.name.as_str(), base.config.name.as_str()), ("wine-m-53d5d30f677c", "wine-53d5d30f677c"));
        assert_eq!(model_of_config("wine", &base.config.name), Some(base.model.name.clone()));
        let alike = made(|endpoint, _| endpoint["alarms"] = json!({"errors_5xx": 1}), true);
        assert_eq!(alike.config.name, base.config.name);
        let changes: [Change; 6] = [
            |endpoint, _| endpoint["instances"]["count"] = json!(3),
            |endpoint, _| endpoint["instances"]["startup_timeout_seconds"] = json!(90),
            |endpoint, _| endpoint["asynchronous"] = json!({}),
            |_, place| place.network_isolation = true,
            |_, place| place.role = Some("arn:aws:iam::123456789012:role/other".to_owned()),
            |_, place| place.key = Some("alias/models".to_owned()),
        ];
        for change in changes {
            assert_ne!(made(change, true).config.name, base.config.name);
        }
        assert_ne!(made(|_, _| {}, false).config.name, base.config.name);
    }

    #[test]
    fn a_long_name_is_cut_and_stays_apart_from_others() {
        let named = |name: &str| made(|endpoint, _| endpoint["name"] = json!(name), true);
        let [one, other] = ["a", "b"].map(|end| named(&format!("{}{end}", "w".repeat(62))));
        assert_eq!((one.model.name.len(), one.config.name.len()), (63, 61));
        assert_ne!(one.config.name, other.config.name);
        assert_eq!(model_of_config(&one.endpoint, &one.config.name), Some(one.model.name.clone()));
        for foreign in ["wine-eu-0123456789ab", "wine-0123456789a", "wine-0123456789xy", "other-0123456789ab"] {
            assert_eq!(model_of_config("wine", foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_serverless_endpoint_has_no_rollout_and_its_concurrency_is_scaled() {
        let serverless = made(
            |endpoint, place| {
                *endpoint = json!({
                    "name": "wine",
                    "serverless": {"memory_mb": 2048, "max_concurrency": 5, "provisioned_concurrency": 2},
                    "autoscaling": {"min": 1, "max": 4, "target": 0.7},
                });
                place.key = Some("alias/models".to_owned());
            },
            true,
        );
        assert_eq!((serverless.rollout, serverless.config.kms_key_id), (None, None));
        let scaling = serverless.scaling.unwrap();
        assert_eq!(scaling.text(), "1 to 4 concurrent requests");
        assert_eq!(
            LedgerScaling::of_saved(&scaling).unwrap().metric,
            "SageMakerVariantProvisionedConcurrencyUtilization"
        );
    }

    #[test]
    fn alarms_and_waits_are_as_the_manifest_says() {
        let made = made(
            |endpoint, _| {
                endpoint["alarms"] = json!({"errors_5xx": 5, "latency_p95_ms": 200, "names": ["mine"]});
                endpoint["deployment"] = json!({"strategy": "linear", "step_percent": 25});
            },
            true,
        );
        assert_eq!(made.alarm_names(), ["wine-5xx", "wine-latency", "mine"]);
        assert_eq!(made.alarms[1].threshold.to_bits(), 200_000_f64.to_bits());
        let rollout = made.rollout.unwrap();
        assert_eq!(rollout.traffic, TrafficShift::Linear { percent: 25, wait: 300, termination_wait: 0 });
        assert_eq!(rollout.limit_seconds, 4 * 300 + 1800);
    }

    #[test]
    fn answers_of_asynchronous_requests_lie_in_the_bucket() {
        let places = made(|endpoint, _| endpoint["asynchronous"] = json!({"max_concurrent": 4}), true);
        let places = places.config.asynchronous.unwrap();
        assert_eq!(places.output, "s3://models/wine/asynchronous/wine/answers");
        assert_eq!(places.failures.as_deref(), Some("s3://models/wine/asynchronous/wine/failures"));
    }

    #[test]
    fn types_with_local_storage_take_no_key() {
        let with =
            ["ml.m5d.large", "ml.g4dn.xlarge", "ml.g5.xlarge", "ml.p4d.24xlarge", "ml.c6gd.large", "ml.trn1.2xlarge"];
        let without = ["ml.m5.large", "ml.c6g.large", "ml.inf2.xlarge", "ml.p3.2xlarge"];
        assert!(with.into_iter().all(has_local_storage) && !without.into_iter().any(has_local_storage));
    }
}
