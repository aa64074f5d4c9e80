//! The job payload of a try, in GitLab's form.

use std::ffi::OsString;

use anyhow::Context as _;
use serde_json::json;

use super::place::{PROJECT_ID, Place};

pub(super) fn payload(image: Option<&str>, place: &Place, command: &[OsString]) -> anyhow::Result<String> {
    let shown: Vec<_> = command.iter().map(|part| part.to_string_lossy()).collect();
    let payload = json!({
        "id": std::process::id(),
        "token": place.root.display().to_string(),
        "job_info": {"name": "try", "project_id": PROJECT_ID, "project_full_path": "try"},
        "runner_info": {"timeout": 3600},
        "image": {"name": image.unwrap_or_default()},
        "steps": [{"name": "script", "script": [shown.join(" ")]}],
        "artifacts": [{"paths": ["**/*"], "untracked": true}],
    });
    serde_json::to_string(&payload).context("failed to write the payload")
}
