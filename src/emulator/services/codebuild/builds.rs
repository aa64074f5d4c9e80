//! The operations on builds.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::life;
use super::records::{BuildRecord, CodeBuild, ProjectKey, invalid, project_not_found};
use super::role::service_role;
use crate::authorization::Identity;
use crate::caller::Caller;
use crate::clock;
use crate::paging::cut;
use crate::protocol::{Answer, ApiError, text};

/// Time for which a token gives back the build that it began.
const TOKEN_LIFE: Duration = Duration::from_mins(5);
/// Ids of a page, as at AWS.
const PAGE: usize = 100;

/// The member of a project that each member of `StartBuild` replaces: a path of members.
const OVERRIDES: &[(&str, &[&str])] = &[
    ("sourceTypeOverride", &["source", "type"]),
    ("sourceLocationOverride", &["source", "location"]),
    ("buildspecOverride", &["source", "buildspec"]),
    ("environmentTypeOverride", &["environment", "type"]),
    ("imageOverride", &["environment", "image"]),
    ("computeTypeOverride", &["environment", "computeType"]),
    ("privilegedModeOverride", &["environment", "privilegedMode"]),
    ("imagePullCredentialsTypeOverride", &["environment", "imagePullCredentialsType"]),
    ("serviceRoleOverride", &["serviceRole"]),
    ("timeoutInMinutesOverride", &["timeoutInMinutes"]),
    ("queuedTimeoutInMinutesOverride", &["queuedTimeoutInMinutes"]),
    ("encryptionKeyOverride", &["encryptionKey"]),
    ("artifactsOverride", &["artifacts"]),
    ("logsConfigOverride", &["logsConfig"]),
    ("sourceVersion", &["sourceVersion"]),
];

/// The project's definition with what the request puts over it.
fn overridden(project: &Value, request: &Value) -> Value {
    let mut definition = project.clone();
    for (name, path) in OVERRIDES {
        if !request[*name].is_null() {
            let place = path.iter().fold(&mut definition, |at, member| &mut at[*member]);
            *place = request[*name].clone();
        }
    }
    let variables = &mut definition["environment"]["environmentVariables"];
    let over = request["environmentVariablesOverride"].as_array().into_iter().flatten();
    let mut all: Vec<Value> = variables.as_array().cloned().unwrap_or_default();
    for one in over {
        all.retain(|known| known["name"] != one["name"]);
        all.push(one.clone());
    }
    for one in &mut all {
        if one["type"].is_null() {
            one["type"] = json!("PLAINTEXT");
        }
    }
    *variables = json!(all);
    definition
}

pub(super) fn start(service: &Arc<CodeBuild>, request: &Value, caller: &Caller) -> Answer {
    let key = ProjectKey::new(text(request, "projectName").unwrap_or_default(), caller);
    let token = text(request, "idempotencyToken").map(|token| (key.clone(), token.to_owned()));
    let mut state = service.state();
    let project = state.projects.get(&key).cloned().ok_or_else(|| project_not_found(&key))?;
    if let Some(known) = token.as_ref().and_then(|token| state.tokens.get(token)).and_then(|id| state.builds.get(id))
        && known.begun_ms.saturating_add(u64::try_from(TOKEN_LIFE.as_millis()).unwrap_or(u64::MAX)) > clock::now_ms()
    {
        if known.request != *request {
            return Err(invalid("Idempotency token was used with other parameters"));
        }
        return Ok(Some(json!({"build": known.description()})));
    }
    let definition = overridden(&project.definition, request);
    let id = format!("{}:{}", key.name, service.shared.next_id());
    let arn = key.resource("build", &id);
    let session = format!("AWSCodeBuild-{}", id.rsplit(':').next().unwrap_or_default());
    let role = text(&definition, "serviceRole").unwrap_or_default();
    let role = service_role(&service.shared.authority, role, caller, &arn, &session)?;
    let mut build = BuildRecord {
        number: project.builds + 1,
        project: key.clone(),
        id: id.clone(),
        definition,
        role,
        initiator: initiator(caller),
        begun_ms: clock::now_ms(),
        ended_ms: None,
        status: "IN_PROGRESS",
        phases: Vec::new(),
        request: request.clone(),
        stop: service.shared.shutdown.child_token(),
    };
    build.begin("SUBMITTED");
    build.end("SUCCEEDED", None);
    build.begin("QUEUED");
    let shown = build.description();
    if let Some(project) = state.projects.get_mut(&key) {
        project.builds += 1;
    }
    state.tokens.extend(token.map(|token| (token, id.clone())));
    state.builds.insert(id, build.clone());
    drop(state);
    let own = Arc::clone(service);
    service.shared.tasks.spawn(async move { life::run(&own, &build).await });
    Ok(Some(json!({"build": shown})))
}

/// A user's name, or role and session.
fn initiator(caller: &Caller) -> String {
    match &*caller.identity {
        Identity::User { name, .. } => name.clone(),
        Identity::Session(_) => caller.arn().rsplit(":assumed-role/").next().unwrap_or_default().to_owned(),
        Identity::Administrator | Identity::Anonymous => "test".to_owned(),
    }
}

/// `true` when the build is of the caller's account and region.
fn is_own(build: &BuildRecord, caller: &Caller) -> bool {
    build.project.account == caller.account && build.project.region == caller.region
}

pub(super) fn get(service: &Arc<CodeBuild>, request: &Value, caller: &Caller) -> Answer {
    let state = service.state();
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for id in request["ids"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        // An ARN names a build too.
        let id = id.rsplit("build/").next().unwrap_or(id);
        if !id.contains(':') {
            return Err(invalid(format!("Invalid build ID: {id}")));
        }
        match state.builds.get(id).filter(|build| is_own(build, caller)) {
            Some(build) => found.push(build.description()),
            None => absent.push(id),
        }
    }
    Ok(Some(json!({"builds": found, "buildsNotFound": absent})))
}

pub(super) fn stop(service: &Arc<CodeBuild>, request: &Value, caller: &Caller) -> Answer {
    let id = text(request, "id").unwrap_or_default();
    let state = service.state();
    let build = state.builds.get(id.rsplit("build/").next().unwrap_or(id)).filter(|build| is_own(build, caller));
    let build =
        build.ok_or_else(|| ApiError::new("ResourceNotFoundException", format!("Build cannot be found: {id}")))?;
    build.stop.cancel();
    Ok(Some(json!({"build": build.description()})))
}

/// The ids of a project's builds, the newest first unless asked otherwise.
pub(super) fn list(service: &Arc<CodeBuild>, request: &Value, caller: &Caller) -> Answer {
    let key = ProjectKey::new(text(request, "projectName").unwrap_or_default(), caller);
    let state = service.state();
    if !state.projects.contains_key(&key) {
        return Err(project_not_found(&key));
    }
    let mut of_project: Vec<_> = state.builds.values().filter(|build| build.project == key).collect();
    of_project.sort_by_key(|build| build.number);
    if text(request, "sortOrder") != Some("ASCENDING") {
        of_project.reverse();
    }
    let ids = of_project.iter().map(|build| json!(build.id)).collect();
    let (shown, next) =
        cut(text(request, "nextToken"), PAGE, "builds", ids).ok_or_else(|| invalid("Invalid next token"))?;
    Ok(Some(json!({"ids": shown, "nextToken": next})))
}
