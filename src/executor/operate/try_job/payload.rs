//! The job payload of a try, in GitLab's form.

use anyhow::Context as _;
use serde_json::json;

use super::place::{PROJECT_ID, Place};
use super::shared::TIMEOUT;

/// `image`: unless the operator file's counts.
pub(super) fn payload(image: Option<&str>, place: &Place, command: &str) -> anyhow::Result<String> {
    // Names the session, so it differs between tries. It is masked in the output, so it must not be text of a path.
    let token = blake3::hash(place.root.as_os_str().as_encoded_bytes()).to_hex();
    let payload = json!({
        "id": std::process::id(),
        "token": token.as_str(),
        "job_info": {"name": "try", "project_id": PROJECT_ID, "project_full_path": "try"},
        "runner_info": {"timeout": TIMEOUT.as_secs()},
        "image": {"name": image.unwrap_or_default()},
        "steps": [{"name": "script", "script": [command]}],
        "artifacts": [{"paths": ["**/*"], "untracked": true}],
    });
    serde_json::to_string(&payload).context("failed to write the payload")
}
