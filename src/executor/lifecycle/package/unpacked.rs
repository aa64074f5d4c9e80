//! A package for a deployment: every file compared with its hash, and those of `deploy/` in a folder of their own.

use std::fs::File;
use std::io::Seek as _;
use std::path::Path;

use tempfile::TempDir;

use super::content::packed_metrics;
use super::metadata::{FileMode, MODEL_ARCHIVE, PackageMetadata};
use super::reading::OpenedPackage;
use crate::base::failure::Failure;
use crate::base::human::human_bytes;
use crate::base::plain;
use crate::lifecycle::fetching::{no_room, temporary};
use crate::lifecycle::manifest::{ManifestText, ModelEntry};
use crate::lifecycle::model::{self, MOST_BYTES, MetricsFile};

/// The folder with what a deployment needs.
const DEPLOY: &str = "deploy/";
const MANIFEST: &str = "deploy/manifest.json";
/// Most bytes of the manifest and the samples together: samples have at most 256 MiB, as `endpoint test` reads them.
const MOST_DEPLOYED: u64 = 272 << 20;
/// Most files of a manifest and samples, as `package` writes them.
const MOST_FILES: usize = 10_010;

/// A package whose bytes are as they were packed.
#[derive(Debug)]
pub(crate) struct UnpackedPackage {
    opened: OpenedPackage,
    folder: TempDir,
}

impl UnpackedPackage {
    /// Opens a package, which has the hash `expected` by each of the places that say so, compares all its files with their hashes, and
    /// unpacks `deploy/`. `name` is the package's in messages.
    ///
    /// # Errors
    /// Failures of the user: the file is no package, was changed, is another one, or cannot be deployed.
    pub(crate) fn read(file: &Path, name: &str, expected: &[(String, String)]) -> anyhow::Result<Self> {
        let mut opened = OpenedPackage::open_as(file, name)?;
        for (place, hash) in expected {
            if *hash != opened.sha256 {
                let shown = plain::line(name, 300);
                let message = format!("the package {shown} has the SHA-256 {}, and {place} says {hash}", opened.sha256);
                return Err(Failure::user(message)
                    .hint("let `needs:artifacts` bring the package of the job that set the hash, or give the hash of the one that you mean with `--package-sha256`")
                    .into());
            }
        }
        check_size(name, file.metadata()?.len())?;
        opened.verify()?;
        let folder = tempfile::tempdir().map_err(no_room)?;
        unpack(&mut opened, name, folder.path())?;
        Ok(Self { opened, folder })
    }

    pub(crate) fn metadata(&self) -> &PackageMetadata {
        &self.opened.metadata
    }

    /// Of the whole file.
    pub(crate) fn sha256(&self) -> &str {
        &self.opened.sha256
    }

    /// The folder of the manifest and the samples.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The manifest as it was packed.
    ///
    /// # Errors
    /// It is no text, or too large.
    pub(crate) fn manifest(&self) -> anyhow::Result<ManifestText> {
        let content = std::fs::read(self.folder().join("manifest.json"))?;
        Ok(ManifestText::of_file(&Path::new(&self.metadata().name).join(MANIFEST), content)?)
    }

    /// The files of metrics that the manifest names, in its order, as far as the package has them.
    ///
    /// # Errors
    /// A file is not as it was packed, or too large.
    pub(crate) fn metrics(&mut self, model: &ModelEntry) -> anyhow::Result<Vec<MetricsFile>> {
        model::check_metrics(&model.metrics)?;
        let mut found = Vec::new();
        for name in model.metrics.iter().map(|name| packed_metrics(name)) {
            let Some(bytes) = self.metadata().files.get(&name).map(|file| file.bytes) else { continue };
            model::check_metrics_size(&name, bytes)?;
            let mut content = Vec::new();
            self.opened.copy(&name, &mut content)?;
            found.push(MetricsFile::new(name, content)?);
        }
        Ok(found)
    }

    /// The model's archive in a file without a name.
    ///
    /// # Errors
    /// The package has none, or there is no room in `TMPDIR`.
    pub(crate) fn archive(&mut self) -> anyhow::Result<File> {
        let mut file = temporary()?;
        self.opened.copy(MODEL_ARCHIVE, &mut file)?;
        file.rewind()?;
        Ok(file)
    }
}

/// Refuses a package that S3 does not take in one request.
pub(crate) fn check_size(name: &str, bytes: u64) -> Result<(), Failure> {
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    let (shown, size, most) = (plain::line(name, 300), human_bytes(bytes), human_bytes(MOST_BYTES));
    Err(Failure::user(format!("the package {shown} has {size}, and S3 takes at most {most} in one request"))
        .hint("leave the model out with a smaller `--embed-model` of `package`, or sources by `package.exclude`"))
}

/// Writes the files of `deploy/` into the folder. Their names and links were checked when the package was opened.
fn unpack(package: &mut OpenedPackage, name: &str, folder: &Path) -> anyhow::Result<()> {
    let refused = |why: &str| {
        Failure::user(format!("the package {} cannot be deployed: {why}", plain::line(name, 300)))
            .hint("make it again with `sagemaker-executor package`")
    };
    let deployed: Vec<_> = package.metadata.files.iter().filter(|(name, _)| name.starts_with(DEPLOY)).collect();
    let bytes: u64 = deployed.iter().map(|(_, file)| file.bytes).sum();
    if deployed.iter().any(|(_, file)| file.mode == FileMode::Link) {
        return Err(refused("`deploy/` has a link").into());
    }
    if !package.metadata.files.contains_key(MANIFEST) {
        return Err(refused(&format!("it has no {MANIFEST}")).into());
    }
    if bytes > MOST_DEPLOYED || deployed.len() > MOST_FILES {
        return Err(refused("`deploy/` has more than manifest and samples may have").into());
    }
    let names: Vec<_> = deployed.into_iter().map(|(name, _)| name.clone()).collect();
    for name in names {
        let path = folder.join(name.strip_prefix(DEPLOY).unwrap_or(&name));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(no_room)?;
        }
        let mut file = File::create_new(&path).map_err(no_room)?;
        package.copy(&name, &mut file)?;
    }
    Ok(())
}
