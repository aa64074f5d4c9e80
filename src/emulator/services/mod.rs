//! The emulated services, and the routing of requests to them.

mod autoscaling;
mod cloudwatch;
mod codebuild;
mod ec2;
mod ecr;
mod endpoints;
mod form;
mod iam;
mod kms;
mod logs;
mod quotas;
mod registry;
mod s3;
mod scalable_targets;
mod secrets;
mod sts;
mod tagging;
mod training;

use std::sync::Arc;

use hyper::{Method, Request};
use s3s::Body;

use self::autoscaling::ApplicationAutoscaling;
use self::cloudwatch::{CloudWatch, CloudWatchWire, WireFormat, cbor_operation};
use self::codebuild::CodeBuild;
use self::ec2::Ec2;
use self::ecr::{Distribution, ImageStore, distribution_operation};
use self::endpoints::{Endpoints, Runtime, runtime_operation};
use self::iam::Iam;
use self::kms::Kms;
use self::logs::Logs;
use self::quotas::ServiceQuotas;
use self::registry::Registry;
use self::s3::S3;
use self::secrets::SecretVault;
use self::sts::Sts;
use self::tagging::Tagging;
use self::training::Training;
use super::caller::{Signing, WireProtocol};
use super::model::Model;
use super::protocol::{ApiError, Reply, json_reply};
use super::service::{ApiCall, JsonService as _, Service};
use super::shared::Shared;
use super::store::Store;

/// All services, with the state that the emulator's own paths show.
pub(crate) struct Services {
    json: Vec<Arc<dyn Service>>,
    s3: Arc<dyn Service>,
    sts: Arc<dyn Service>,
    iam: Arc<dyn Service>,
    ec2: Arc<dyn Service>,
    cloudwatch_cbor: Arc<dyn Service>,
    cloudwatch_query: Arc<dyn Service>,
    runtime: Arc<dyn Service>,
    distribution: Arc<dyn Service>,
    unknown: Arc<dyn Service>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) training: Arc<Training>,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) store: Arc<Store>,
}

impl Services {
    pub(crate) fn new(shared: &Arc<Shared>, store: Arc<Store>) -> Self {
        let logs = Arc::new(Logs::new(shared.config.seed, &shared.config.quirks));
        let images = Arc::new(ImageStore::new(shared));
        let training = Arc::new(Training::new(shared, &store, &logs, &images));
        let registry = Arc::new(Registry::new(shared));
        let cloudwatch = Arc::new(CloudWatch::new(shared));
        let endpoints = Arc::new(Endpoints::new(shared, &store, &logs, &images, &registry, &cloudwatch));
        let autoscaling = ApplicationAutoscaling::new(shared, &endpoints, &cloudwatch);
        let wire = |format| CloudWatchWire { service: Arc::clone(&cloudwatch), format };
        let secrets = Arc::new(SecretVault::new(shared));
        let builds = CodeBuild::new(shared, &store, &logs, &images, &secrets);
        let tagging = Arc::new(Tagging(Arc::clone(shared)));
        Self {
            json: vec![
                Arc::new(Arc::clone(&training)),
                Arc::new(registry),
                Arc::new(Arc::clone(&endpoints)),
                Arc::new(tagging),
                Arc::new(Arc::clone(&logs)),
                Arc::new(Arc::clone(&images)),
                Arc::new(Arc::new(ServiceQuotas(Arc::clone(shared)))),
                Arc::new(wire(WireFormat::Json)),
                Arc::new(Arc::new(autoscaling)),
                Arc::new(Arc::clone(&secrets)),
                Arc::new(Arc::new(builds)),
                Arc::new(Kms(Arc::clone(shared))),
            ],
            s3: Arc::new(S3::new(shared, Arc::clone(&store))),
            sts: Arc::new(Sts { shared: Arc::clone(shared), store: Arc::clone(&store) }),
            iam: Arc::new(Iam(Arc::clone(shared))),
            ec2: Arc::new(Ec2(Arc::clone(shared))),
            cloudwatch_cbor: Arc::new(wire(WireFormat::Cbor)),
            cloudwatch_query: Arc::new(wire(WireFormat::Query)),
            runtime: Arc::new(Runtime(endpoints)),
            distribution: Arc::new(Distribution(Arc::clone(&images))),
            unknown: Arc::new(Unknown),
            logs,
            training,
            images,
            store,
        }
    }

    /// The service that a request is for, and the operation's name.
    pub(crate) async fn route(&self, request: &mut Request<Body>) -> anyhow::Result<(&Arc<dyn Service>, String)> {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        if let Some(target) = header("x-amz-target") {
            let (target, operation) = target.split_once('.').unwrap_or((target, ""));
            let service = self.json.iter().find(|one| one.serves(target, operation));
            return Ok((service.unwrap_or(&self.unknown), operation.to_owned()));
        }
        let (method, path) = (request.method(), request.uri().path());
        let form = header("content-type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        let query = request.uri().query().unwrap_or_default();
        let presigned = method == Method::GET && query.split('&').any(|pair| pair.starts_with("Action="));
        if path == "/" && (presigned || method == Method::POST && form) {
            // All of them have the query protocol, and no operation has the name of one of another.
            let of_cloudwatch = CloudWatch::OPERATIONS.iter().map(|(name, _)| *name);
            let others = iam::OPERATIONS.iter().chain(sts::OPERATIONS).chain(ec2::OPERATIONS);
            let known: Vec<_> = others.copied().chain(of_cloudwatch).collect();
            let operation = form::operation(request, &known, "UnknownStsOperation").await?;
            let service = match operation.as_str() {
                name if iam::OPERATIONS.contains(&name) => &self.iam,
                name if ec2::OPERATIONS.contains(&name) => &self.ec2,
                name if Model::cloudwatch().operations.contains_key(name) => &self.cloudwatch_query,
                _ => &self.sts,
            };
            return Ok((service, operation));
        }
        if let Some(operation) = cbor_operation(request) {
            return Ok((&self.cloudwatch_cbor, operation.to_owned()));
        }
        if let Some(operation) = runtime_operation(request) {
            return Ok((&self.runtime, operation.to_owned()));
        }
        // No bucket has so short a name.
        if let Some(operation) = distribution_operation(method, path) {
            return Ok((&self.distribution, operation.to_owned()));
        }
        Ok((&self.s3, s3::operation(method, path, query, request.headers()).to_owned()))
    }
}

/// Answers unknown operations.
struct Unknown;

#[async_trait::async_trait]
impl Service for Unknown {
    fn signing(&self) -> Signing {
        Signing { protocol: WireProtocol::Json, service: None }
    }

    async fn call(&self, _: ApiCall) -> anyhow::Result<Reply> {
        Ok(json_reply(Err(ApiError::unknown_operation())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EmulatorConfig;

    #[test]
    fn each_operation_of_the_tables_has_one_service_and_the_other_way_round() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared::new(EmulatorConfig::new(folder.path()), String::new()).unwrap();
        let services = Services::new(&Arc::new(shared), Arc::new(Store::open(folder.path().join("s3")).unwrap()));
        let mut handled = 0;
        for model in Model::all() {
            for operation in model.operations.keys() {
                let services = services.json.iter().filter(|one| one.serves(&model.target, operation)).count();
                assert_eq!(services, 1, "{operation}");
                handled += 1;
            }
        }
        let listed = [
            Training::OPERATIONS.len(),
            Registry::OPERATIONS.len(),
            Endpoints::OPERATIONS.len(),
            Tagging::OPERATIONS.len(),
            Logs::OPERATIONS.len(),
            ImageStore::OPERATIONS.len(),
            ServiceQuotas::OPERATIONS.len(),
            CloudWatch::OPERATIONS.len(),
            ApplicationAutoscaling::OPERATIONS.len(),
            SecretVault::OPERATIONS.len(),
            CodeBuild::OPERATIONS.len(),
        ];
        assert_eq!(handled, listed.iter().sum::<usize>());
    }
}
