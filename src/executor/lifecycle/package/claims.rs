//! Whether `metadata.json` agrees with itself and with the files that it names. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::metadata::{MODEL_ARCHIVE, PackageMetadata, PackagedFile, canonical};
use super::naming::{self, is_hash};
use crate::lifecycle::{hex::hex, model};

/// Checks everything about a package that other places say too.
///
/// # Errors
/// The first claim that does not hold.
pub(super) fn check(metadata: &PackageMetadata) -> anyhow::Result<()> {
    let PackageMetadata { name, kind, merge_request, commit, created_at, model, files, .. } = metadata;
    anyhow::ensure!(naming::is_commit(&commit.id), "metadata.json has no id of a commit");
    anyhow::ensure!(
        merge_request.as_deref().is_none_or(naming::is_number),
        "metadata.json has no number of a merge request"
    );
    let time = humantime::parse_rfc3339(created_at).ok();
    let named = time.map(|time| naming::name(*kind, merge_request.as_deref(), &commit.id, time));
    anyhow::ensure!(named.as_ref() == Some(name), "metadata.json has another name than kind, commit and time give");
    let has_digest = model::image_digest(&model.image).is_ok_and(|digest| digest == model.image_digest);
    let is_plain = !model.image.contains(|letter: char| letter.is_control() || letter.is_whitespace());
    anyhow::ensure!(has_digest && is_plain, "metadata.json has an image without its digest");
    let archive = &model.archive;
    let is_packed = match &archive.file {
        Some(file) => files.get(MODEL_ARCHIVE).is_some_and(|packed| {
            file == MODEL_ARCHIVE && packed.sha256 == archive.sha256 && Some(packed.bytes) == archive.bytes
        }),
        None => !files.contains_key(MODEL_ARCHIVE) && is_file(files, "model/reference.json", archive)?,
    };
    // The same model has one text of its hash, in tags and records too.
    anyhow::ensure!(
        is_packed && is_hash(&archive.sha256),
        "metadata.json names another model than the one in the package"
    );
    anyhow::ensure!(is_file(files, "deploy/model.json", model)?, "deploy/model.json is not the model of metadata.json");
    Ok(())
}

/// Whether the file of this name is the document.
fn is_file(files: &BTreeMap<String, PackagedFile>, name: &str, document: &impl Serialize) -> anyhow::Result<bool> {
    let sha256 = hex(&Sha256::digest(canonical(document)?));
    Ok(files.get(name).is_some_and(|file| file.sha256 == sha256))
}
