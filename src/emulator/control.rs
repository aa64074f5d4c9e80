//! The emulator's own paths, which AWS does not have.

use hyper::{Method, Request, StatusCode};
use s3s::Body;
use serde_json::{Value, json};

use super::faults::FaultPlan;
use super::gate::Gate;
use super::protocol::{Reply, reply};
use super::roles::ROLE_PATH;
use super::service::read;

/// `DELETE <this><bucket>/<prefix>` deletes objects, as a lifecycle rule does.
const OBJECTS_PATH: &str = "/_emulator/objects/";

/// Whether a request is for the emulator itself.
pub(crate) fn is_own(path: &str) -> bool {
    path.starts_with("/_emulator/") || path.starts_with(ROLE_PATH)
}

/// Answers the emulator's own requests: role credentials, the fault plan, counts of requests, log events with their times of
/// ingestion, and deletion as by a lifecycle rule.
pub(crate) async fn own(gate: &Gate, request: Request<Body>) -> anyhow::Result<Reply> {
    let answer = |status, value: Value| reply(status, "application/json", value.to_string());
    let failed = |status, message: String| answer(status, json!({"message": message}));
    let path = request.uri().path().to_owned();
    Ok(match (request.method(), path.as_str()) {
        (&Method::GET, "/_emulator/requests") => answer(StatusCode::OK, json!(gate.counts())),
        (&Method::GET, "/_emulator/logs") => {
            let query = request.uri().query().unwrap_or_default();
            let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default();
            reply(StatusCode::OK, "application/jsonl", gate.services.logs.dump(prefix))
        }
        (&Method::DELETE, path) if path.starts_with(OBJECTS_PATH) => {
            let (bucket, prefix) =
                path.strip_prefix(OBJECTS_PATH).and_then(|rest| rest.split_once('/')).unwrap_or_default();
            match gate.services.store.expire(bucket, prefix) {
                Ok(expired) => answer(StatusCode::OK, json!({"expired": expired})),
                Err(error) => failed(StatusCode::NOT_FOUND, error.to_string()),
            }
        }
        (&Method::GET, "/_emulator/health") => answer(StatusCode::OK, json!({})),
        (&Method::PUT, "/_emulator/faults") => {
            let body = read(request.into_body()).await?;
            match serde_json::from_slice::<FaultPlan>(&body) {
                Ok(plan) => {
                    gate.set_faults(plan);
                    answer(StatusCode::OK, json!({}))
                }
                Err(error) => failed(StatusCode::BAD_REQUEST, format!("failed to read the fault plan: {error}")),
            }
        }
        (method, path) => {
            let (roles, account) = (&gate.shared.roles, &gate.shared.config.account);
            let session = path.strip_prefix(ROLE_PATH).filter(|_| method == Method::GET);
            match session.and_then(|session| roles.credentials(session, account)) {
                Some(credentials) => answer(StatusCode::OK, credentials),
                None => failed(StatusCode::NOT_FOUND, "no such resource".to_owned()),
            }
        }
    })
}
