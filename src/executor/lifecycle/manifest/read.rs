//! Reads the manifest and applies the entry of one environment.

use std::path::Path;

use super::types::Manifest;
use crate::base::failure::Failure;
use crate::config::env::Environment;

/// Reads the manifest and applies the entry of `environment`, if there is one.
///
/// # Errors
/// Failures of the user: the file is absent, is no JSON, or has a key that is unknown or of another type.
pub(crate) fn load(file: &Path, environment: Option<&str>, _env: &Environment) -> anyhow::Result<Manifest> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::user(format!("failed to read the manifest {}", file.display()))
            .hint("name the file with `--manifest FILE`")
            .caused_by(error)
    })?;
    let mut manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| Failure::user(format!("{}: {error}", file.display())))?;
    if let Some(name) = environment {
        manifest.target = manifest
            .environments
            .get(name)
            .cloned()
            .ok_or_else(|| Failure::user(format!("{}: `environments` has no entry `{name}`", file.display())))?;
    }
    Ok(manifest)
}
