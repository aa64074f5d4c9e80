//! The operations on projects.

use std::sync::Arc;

use serde_json::{Value, json};

use super::records::{CodeBuild, ProjectKey, ProjectRecord, invalid, project_not_found};
use super::role::service_role;
use crate::authorization::sent_tags;
use crate::caller::Caller;
use crate::clock;
use crate::protocol::{Answer, ApiError, epoch_seconds, text};

/// Minutes that a build may run, and wait for a machine, unless the project says otherwise.
const TIMEOUT: u64 = 60;
const QUEUED_TIMEOUT: u64 = 480;

pub(super) fn create(service: &Arc<CodeBuild>, request: &Value, caller: &Caller) -> Answer {
    let key = ProjectKey::new(text(request, "name").unwrap_or_default(), caller);
    check(service, request, caller, &key)?;
    let mut state = service.state();
    if state.projects.contains_key(&key) {
        return Err(ApiError::new("ResourceAlreadyExistsException", format!("Project already exists: {}", key.arn())));
    }
    let now_ms = clock::now_ms();
    let project =
        ProjectRecord { definition: with_defaults(request), created_ms: now_ms, modified_ms: now_ms, builds: 0 };
    service.shared.tags.create(&key.arn(), sent_tags(request));
    let shown = description(service, &key, &project);
    state.projects.insert(key, project);
    Ok(Some(json!({"project": shown})))
}

fn with_defaults(request: &Value) -> Value {
    let mut definition = request.clone();
    for (member, value) in [("timeoutInMinutes", TIMEOUT), ("queuedTimeoutInMinutes", QUEUED_TIMEOUT)] {
        if definition[member].is_null() {
            definition[member] = json!(value);
        }
    }
    let environment = &mut definition["environment"];
    if environment["privilegedMode"].is_null() {
        environment["privilegedMode"] = json!(false);
    }
    if environment["imagePullCredentialsType"].is_null() {
        environment["imagePullCredentialsType"] = json!("CODEBUILD");
    }
    if environment["environmentVariables"].is_null() {
        environment["environmentVariables"] = json!([]);
    }
    definition
}

/// The service's checks besides the shapes: the role, and the kind of the source.
fn check(service: &CodeBuild, request: &Value, caller: &Caller, key: &ProjectKey) -> Result<(), ApiError> {
    if let Some(role) = text(request, "serviceRole") {
        service_role(&service.shared.authority, role, caller, &key.arn(), "AWSCodeBuild")?;
    }
    let source = &request["source"];
    match text(source, "type") {
        None | Some("NO_SOURCE") => {}
        Some("S3") if text(source, "location").is_some_and(|place| place.contains('/')) => {}
        Some("S3") => return Err(invalid("Invalid project source: location must be a valid S3 source")),
        Some(other) => return Err(invalid(format!("Invalid project source: type {other} is not emulated"))),
    }
    Ok(())
}

fn description(service: &CodeBuild, key: &ProjectKey, project: &ProjectRecord) -> Value {
    let mut shown = project.definition.clone();
    shown["arn"] = json!(key.arn());
    shown["created"] = epoch_seconds(project.created_ms);
    shown["lastModified"] = epoch_seconds(project.modified_ms);
    let tags = service.shared.tags.with(&key.arn(), |one| one.tags.clone()).unwrap_or_default();
    shown["tags"] = tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    shown
}

/// Replaces the members that the request has.
pub(super) fn update(service: &Arc<CodeBuild>, request: &Value, caller: &Caller) -> Answer {
    let key = ProjectKey::new(text(request, "name").unwrap_or_default(), caller);
    if !service.state().projects.contains_key(&key) {
        return Err(project_not_found(&key));
    }
    check(service, request, caller, &key)?;
    let mut state = service.state();
    let project = state.projects.get_mut(&key).ok_or_else(|| project_not_found(&key))?;
    let mut definition = project.definition.clone();
    for (member, value) in request.as_object().into_iter().flatten() {
        definition[member] = value.clone();
    }
    project.definition = with_defaults(&definition);
    project.modified_ms = clock::now_ms();
    if !request["tags"].is_null() {
        let sent = sent_tags(request);
        service.shared.tags.with(&key.arn(), |one| one.tags = sent);
    }
    Ok(Some(json!({"project": description(service, &key, project)})))
}

#[expect(clippy::unnecessary_wraps, reason = "every operation has this form")]
pub(super) fn get(service: &Arc<CodeBuild>, request: &Value, caller: &Caller) -> Answer {
    let state = service.state();
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for name in request["names"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let key = ProjectKey::new(name, caller);
        match state.projects.get(&key) {
            Some(project) => found.push(description(service, &key, project)),
            None => absent.push(name),
        }
    }
    Ok(Some(json!({"projects": found, "projectsNotFound": absent})))
}

/// Deletes a project; one that is absent is no error. Its builds stay.
#[expect(clippy::unnecessary_wraps, reason = "every operation has this form")]
pub(super) fn delete(service: &Arc<CodeBuild>, request: &Value, caller: &Caller) -> Answer {
    let key = ProjectKey::new(text(request, "name").unwrap_or_default(), caller);
    service.state().projects.remove(&key);
    service.shared.tags.remove(&key.arn());
    Ok(Some(json!({})))
}
