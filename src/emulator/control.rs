//! The emulator's own paths, which AWS does not have.

use hyper::{Method, Request, StatusCode};
use s3s::Body;
use serde_json::{Value, json};

use super::authentication::authenticate;
use super::caller::{OWN_SERVICE, Signing, WireProtocol};
use super::credentials::ROLE_PATH;
use super::faults::{FaultPlan, JobTrouble};
use super::gate::Gate;
use super::protocol::{ApiError, Reply, json_reply, reply};
use super::service::read;
use super::shared::LAYERS_PATH;
use super::sigv4::query_pairs;

/// `DELETE <this><bucket>/<prefix>` deletes objects, as a lifecycle rule does.
const OBJECTS_PATH: &str = "/_emulator/objects/";

/// `POST <this><bucket>/<prefix>?seconds=N` makes objects that much older.
const AGE_PATH: &str = "/_emulator/age/";

/// `POST <this><job>` reclaims the instances of a spot job.
/// Faults of a training job that come at once.
const STRIKES: [(&str, JobTrouble); 3] = [
    ("/_emulator/interrupt/", JobTrouble::SpotInterruption { after_ms: 0, spread_ms: 0, grace_ms: None }),
    ("/_emulator/kill/", JobTrouble::Kill { after_ms: 0 }),
    ("/_emulator/host-failure/", JobTrouble::HostFailure { after_ms: 0 }),
];

/// Whether a request is for the emulator itself.
pub(crate) fn is_own(path: &str) -> bool {
    path.starts_with("/_emulator/") || path.starts_with(ROLE_PATH)
}

/// How requests for the emulator itself are signed.
const SIGNING: Signing = Signing { protocol: WireProtocol::Json, service: Some(OWN_SERVICE) };

/// Answers the emulator's own requests: role credentials, configurations of images, the fault plan, counts of requests, decisions of IAM, log events with their times of
/// ingestion, faults of a job that come at once, deletion as by a lifecycle rule, and the age of objects. All but the first, the one for health and the configurations of images are for the administrator alone.
pub(crate) async fn own(gate: &Gate, request: Request<Body>) -> anyhow::Result<Reply> {
    let path = request.uri().path();
    if path == "/_emulator/health" || path.starts_with(ROLE_PATH) || path.starts_with(LAYERS_PATH) {
        return Ok(open(gate, &request));
    }
    match authenticate(&gate.shared, SIGNING, request).await? {
        Ok((request, caller)) if caller.is_administrator() => administrators(gate, request).await,
        Ok(_) => Ok(json_reply(Err(ApiError::new(
            "AccessDeniedException",
            "the paths of the emulator are for the profile `default` alone",
        )))),
        Err(error) => Ok(json_reply(Err(error))),
    }
}

/// Answers what is not signed: the path to a role's credentials is the proof itself, and that of an image's configuration has a digest.
fn open(gate: &Gate, request: &Request<Body>) -> Reply {
    let answer = |status, value: Value| reply(status, "application/json", value.to_string());
    let path = request.uri().path();
    if request.method() != Method::GET {
        return not_found();
    }
    if path == "/_emulator/health" {
        return answer(StatusCode::OK, json!({}));
    }
    if let Some(digest) = path.strip_prefix(LAYERS_PATH) {
        let content = gate.services.images.layer(digest);
        return content.map_or_else(not_found, |content| reply(StatusCode::OK, "application/octet-stream", content));
    }
    let credentials = gate.shared.keys.served(path);
    credentials.map_or_else(not_found, |credentials| answer(StatusCode::OK, credentials))
}

fn not_found() -> Reply {
    reply(StatusCode::NOT_FOUND, "application/json", json!({"message": "no such resource"}).to_string())
}

async fn administrators(gate: &Gate, request: Request<Body>) -> anyhow::Result<Reply> {
    let answer = |status, value: Value| reply(status, "application/json", value.to_string());
    let failed = |status, message: String| answer(status, json!({"message": message}));
    let path = request.uri().path().to_owned();
    Ok(match (request.method(), path.as_str()) {
        (&Method::GET, "/_emulator/requests") => answer(StatusCode::OK, json!(gate.counts())),
        (&Method::GET, "/_emulator/iam") => answer(StatusCode::OK, gate.shared.authority.decided()),
        (&Method::GET, "/_emulator/statements") => answer(StatusCode::OK, gate.shared.authority.statements()),
        (&Method::GET, "/_emulator/logs") => {
            let query = query_pairs(request.uri().query().unwrap_or_default());
            let prefix = query.into_iter().find_map(|(name, value)| (name == "prefix").then_some(value));
            reply(StatusCode::OK, "application/jsonl", gate.services.logs.dump(&prefix.unwrap_or_default()))
        }
        (&Method::POST, path) if path.starts_with(AGE_PATH) => {
            let query = query_pairs(request.uri().query().unwrap_or_default());
            let seconds = query.into_iter().find_map(|(name, value)| (name == "seconds").then_some(value));
            let place = path.strip_prefix(AGE_PATH).and_then(|rest| rest.split_once('/'));
            match (place, seconds.and_then(|seconds| seconds.parse::<u64>().ok())) {
                (Some((bucket, prefix)), Some(seconds)) => {
                    match gate.services.store.age(bucket, prefix, seconds.saturating_mul(1000)) {
                        Ok(aged) => answer(StatusCode::OK, json!({"aged": aged})),
                        Err(error) => failed(StatusCode::NOT_FOUND, error.to_string()),
                    }
                }
                _ => failed(StatusCode::BAD_REQUEST, "the path needs a bucket, and `seconds` a number".to_owned()),
            }
        }
        (&Method::POST, path) => {
            let strike = STRIKES.into_iter().find_map(|(prefix, trouble)| Some((path.strip_prefix(prefix)?, trouble)));
            match strike {
                None => not_found(),
                Some((job, trouble)) if gate.services.training.strike(job, trouble.clone()) => {
                    answer(StatusCode::OK, json!({}))
                }
                Some((job, _)) => failed(StatusCode::CONFLICT, format!("{job} has no containers that this can hit")),
            }
        }
        (&Method::DELETE, path) if path.starts_with(OBJECTS_PATH) => {
            let (bucket, prefix) =
                path.strip_prefix(OBJECTS_PATH).and_then(|rest| rest.split_once('/')).unwrap_or_default();
            match gate.services.store.expire(bucket, prefix) {
                Ok(expired) => answer(StatusCode::OK, json!({"expired": expired})),
                Err(error) => failed(StatusCode::NOT_FOUND, error.to_string()),
            }
        }
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
        _ => not_found(),
    })
}
