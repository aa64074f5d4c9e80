//! The emulator's own paths, which AWS does not have.

use hyper::{Method, Request, StatusCode};
use s3s::Body;
use serde_json::json;

use super::faults::FaultPlan;
use super::gate::Gate;
use super::protocol::{Reply, reply};
use super::roles::ROLE_PATH;
use super::service::read;

/// `DELETE <this><bucket>/<prefix>` takes objects away, as a lifecycle rule does.
const OBJECTS_PATH: &str = "/_emulator/objects/";

/// Whether a request is for the emulator itself.
pub(crate) fn is_own(path: &str) -> bool {
    path.starts_with("/_emulator/") || path.starts_with(ROLE_PATH)
}

/// What only the emulator has: role credentials, the fault plan, counts, log events with their times of ingestion, expiry.
pub(crate) async fn own(gate: &Gate, request: Request<Body>) -> anyhow::Result<Reply> {
    let json = "application/json";
    let path = request.uri().path().to_owned();
    Ok(match (request.method(), path.as_str()) {
        (&Method::GET, "/_emulator/requests") => reply(StatusCode::OK, json, json!(gate.counts()).to_string()),
        (&Method::GET, "/_emulator/logs") => {
            let query = request.uri().query().unwrap_or_default();
            let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default();
            reply(StatusCode::OK, "application/jsonl", gate.services.logs.dump(prefix))
        }
        (&Method::DELETE, path) if path.starts_with(OBJECTS_PATH) => {
            let (bucket, prefix) =
                path.strip_prefix(OBJECTS_PATH).and_then(|rest| rest.split_once('/')).unwrap_or_default();
            match gate.services.store.expire(bucket, prefix) {
                Ok(expired) => reply(StatusCode::OK, json, json!({"expired": expired}).to_string()),
                Err(error) => reply(StatusCode::NOT_FOUND, json, json!({"message": error.to_string()}).to_string()),
            }
        }
        (&Method::GET, "/_emulator/health") => reply(StatusCode::OK, json, "{}"),
        (&Method::PUT, "/_emulator/faults") => {
            let body = read(request.into_body()).await?;
            match serde_json::from_slice::<FaultPlan>(&body) {
                Ok(plan) => {
                    gate.set_faults(plan);
                    reply(StatusCode::OK, json, "{}")
                }
                Err(error) => {
                    let text = format!("failed to read the fault plan: {error}");
                    reply(StatusCode::BAD_REQUEST, json, json!({"message": text}).to_string())
                }
            }
        }
        (&Method::GET, path) => {
            let (roles, account) = (&gate.shared.roles, &gate.shared.config.account);
            match path.strip_prefix(ROLE_PATH).and_then(|session| roles.credentials(session, account)) {
                Some(credentials) => reply(StatusCode::OK, json, credentials.to_string()),
                None => reply(StatusCode::NOT_FOUND, json, json!({"message": "no such resource"}).to_string()),
            }
        }
        _ => reply(StatusCode::NOT_FOUND, json, json!({"message": "no such resource"}).to_string()),
    })
}
