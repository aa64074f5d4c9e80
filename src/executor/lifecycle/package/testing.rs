//! Packages for tests of commands that read one.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::metadata::{MODEL_ARCHIVE, PackageMetadata, SCHEMA, canonical};
use super::writing::{PackageWriter, Packing, sha256};
use crate::lifecycle::hex::hex;

/// The parts of a package.
pub(crate) struct TestPackage {
    pub(crate) manifest: Value,
    /// Texts by name: samples below `deploy/`, metrics below `model/metrics/`.
    pub(crate) files: Vec<(&'static str, String)>,
    pub(crate) model: Vec<u8>,
    /// Where the model lies that is no part of the package.
    pub(crate) reference: Option<&'static str>,
    pub(crate) package_arn: Option<String>,
    pub(crate) project: Option<&'static str>,
}

impl TestPackage {
    /// Hash of the model's archive.
    pub(crate) fn model_sha256(&self) -> String {
        hex(&sha256(&self.model[..]).unwrap())
    }

    /// Writes the package into the folder.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let image = self.manifest["model"]["image"].as_str().unwrap();
        let archive = match self.reference {
            Some(uri) => json!({"sha256": self.model_sha256(), "bytes": self.model.len(), "uri": uri}),
            None => json!({"sha256": self.model_sha256(), "bytes": self.model.len(), "file": MODEL_ARCHIVE}),
        };
        let metadata: PackageMetadata = serde_json::from_value(json!({
            "schema": SCHEMA,
            "name": "stable-20261129T045233Z.zip",
            "kind": "stable",
            "created_at": "2026-11-29T04:52:33Z",
            "program_version": "0.1.0",
            "project": self.project,
            "commit": {"id": "0123456789abcdef0123456789abcdef01234567", "created_at": "2026-11-29T04:52:33Z"},
            "pipeline": {"id": "5"},
            "model": {
                "group": "wine", "package_arn": self.package_arn, "image": image, "image_digest": image.split_once('@').unwrap().1,
                "environment": {}, "content_types": [], "response_types": [], "archive": archive,
            },
            "metrics": {},
            "submodules": {},
            "files": {},
        }))
        .unwrap();
        let path = folder.join(&metadata.name);
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = PackageWriter::new(&file);
        writer.add_text("deploy/manifest.json", self.manifest.to_string().as_bytes()).unwrap();
        writer.add_text("deploy/model.json", &canonical(&metadata.model).unwrap()).unwrap();
        for (name, text) in &self.files {
            writer.add_text(name, text.as_bytes()).unwrap();
        }
        if self.reference.is_some() {
            writer.add_text("model/reference.json", &canonical(&metadata.model.archive).unwrap()).unwrap();
        } else {
            let mode = super::metadata::FileMode::Plain;
            writer.add(MODEL_ARCHIVE, mode, &self.model[..], self.model.len() as u64, Packing::AsIs).unwrap();
        }
        writer.finish(metadata).unwrap();
        path
    }
}
