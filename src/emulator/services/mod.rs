//! The services that are emulated, and which of them a request is for.

mod logs;
mod s3;
mod sts;
mod tagging;
mod training;

use std::fmt;
use std::sync::Arc;

use hyper::{Method, Request};
use s3s::Body;

use self::logs::Logs;
use self::s3::S3;
use self::sts::Sts;
use self::tagging::Tagging;
use self::training::Training;
#[cfg(test)]
pub(crate) use self::training::ship;
use super::protocol::{ApiError, Reply, json_reply};
use super::roles::Roles;
use super::service::{Call, JsonService, Service};
use super::shared::Shared;
use super::store::Store;
use super::tags::Tags;

/// All services, with what the emulator's own paths show of them.
pub(crate) struct Services {
    json: Vec<Route>,
    s3: Arc<dyn Service>,
    sts: Arc<dyn Service>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) store: Arc<Store>,
    pub(crate) roles: Arc<Roles>,
}

/// Operations of the JSON protocol, and the service that answers them.
struct Route {
    target: &'static str,
    operations: Vec<&'static str>,
    service: Arc<dyn Service>,
}

/// The service that a request is for.
pub(crate) struct Target {
    pub(crate) service: Arc<dyn Service>,
    /// Whether it speaks the JSON protocol.
    pub(crate) json: bool,
}

impl Services {
    pub(crate) fn new(shared: &Arc<Shared>, store: Arc<Store>) -> Self {
        let (tags, roles) = (Arc::new(Tags::default()), Arc::new(Roles::default()));
        let logs = Arc::new(Logs::new(shared.config.seed, &shared.config.quirks));
        let tagging = Arc::new(Tagging { shared: Arc::clone(shared), tags: Arc::clone(&tags) });
        let training = Arc::new(Training::new(shared, &store, &logs, tags, &roles));
        Self {
            json: vec![route(&training), route(&tagging), route(&logs)],
            s3: Arc::new(S3::new(Arc::clone(&store))),
            sts: Arc::new(Sts),
            logs,
            store,
            roles,
        }
    }

    /// The service that a request is for, and the operation's name.
    pub(crate) fn route(&self, request: &Request<Body>) -> (Target, String) {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        if let Some(target) = header("x-amz-target") {
            let (target, operation) = target.split_once('.').unwrap_or((target, ""));
            let known = self.json.iter().find(|one| one.target == target && one.operations.contains(&operation));
            let service = known.map_or_else(|| Arc::new(Unknown) as Arc<dyn Service>, |one| Arc::clone(&one.service));
            return (Target { service, json: true }, operation.to_owned());
        }
        let (path, form) = (request.uri().path(), header("content-type"));
        if request.method() == Method::POST
            && path == "/"
            && form.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
        {
            return (Target { service: Arc::clone(&self.sts), json: false }, sts::OPERATION.to_owned());
        }
        let operation =
            s3::operation(request.method(), path, request.uri().query().unwrap_or_default(), request.headers());
        (Target { service: Arc::clone(&self.s3), json: false }, operation.to_owned())
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("logs", &self.logs).field("store", &self.store).finish_non_exhaustive()
    }
}

fn route<T: JsonService>(service: &Arc<T>) -> Route {
    Route {
        target: &T::model().target,
        operations: T::OPERATIONS.iter().map(|(name, _)| *name).collect(),
        service: Arc::new(Arc::clone(service)),
    }
}

/// Answers operations that no service has.
struct Unknown;

#[async_trait::async_trait]
impl Service for Unknown {
    async fn call(&self, _: Call) -> anyhow::Result<Reply> {
        Ok(json_reply(Err(ApiError::unknown_operation())))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::EmulatorConfig;
    use crate::model::Model;

    #[test]
    fn each_operation_of_the_tables_has_one_service_and_the_other_way_round() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared::new(EmulatorConfig::new(folder.path()), String::new());
        let services = Services::new(&Arc::new(shared), Arc::new(Store::open(folder.path().join("s3")).unwrap()));
        let routed: Vec<_> =
            services.json.iter().flat_map(|one| one.operations.iter().map(|name| (one.target, *name))).collect();
        let listed = [Model::sagemaker(), Model::logs()];
        let listed = listed.iter().flat_map(|one| one.operations().map(|name| (one.target.as_str(), name)));
        assert_eq!(routed.len(), routed.iter().collect::<BTreeSet<_>>().len(), "{routed:?}");
        assert_eq!(routed.into_iter().collect::<BTreeSet<_>>(), listed.collect::<BTreeSet<_>>());
    }
}
