//! The files that a container leaves: uploads the model and the output after its end, and reads its failure text.
//!
//! All functions block and run on the blocking pool.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::Value;

use super::hosts::{HostPlace, files_below};
use super::job::has_loose_results;
use super::location::S3Location;
use super::platform::PlatformStore;

/// Uploads the files that the container left, also after a failure or stop. `model` and `output/data` of all hosts are merged,
/// as on the service, where equal names overwrite each other. An empty folder makes no object.
pub(super) fn collect(store: &PlatformStore, request: &Value, job: &str, places: &[HostPlace]) -> anyhow::Result<()> {
    let target = request.pointer("/OutputDataConfig/S3OutputPath").and_then(Value::as_str).unwrap_or_default();
    let target = S3Location::parse(target).context("failed to understand the S3 output path")?;
    let base = target.key.trim_end_matches('/');
    let base = if base.is_empty() { job.to_owned() } else { format!("{base}/{job}") };
    for (folder, name) in [("model", "model"), ("output/data", "output")] {
        let mut files = BTreeMap::new();
        for place in places {
            files.extend(files_below(&place.opt_ml, folder)?);
        }
        if files.is_empty() {
            continue;
        }
        if has_loose_results(request) {
            let folder = if name == "output" { "data" } else { name };
            for (relative, path) in files.iter().filter(|(_, path)| path.is_file()) {
                let key = format!("{base}/output/{folder}/{}", relative.display());
                store.put_file(&target.bucket, &key, path).with_context(|| format!("failed to upload {key}"))?;
            }
            continue;
        }
        let archive = tempfile::NamedTempFile::new().context("failed to create a temporary archive")?;
        pack(&files, archive.as_file()).with_context(|| format!("failed to pack {name}.tar.gz"))?;
        let key = format!("{base}/output/{name}.tar.gz");
        store.put_file(&target.bucket, &key, archive.path()).with_context(|| format!("failed to upload {key}"))?;
    }
    Ok(())
}

/// The first 1,024 characters of the container's `output/failure`.
pub(super) fn failure_text(place: &HostPlace) -> String {
    let content = std::fs::read(place.opt_ml.join("output/failure")).unwrap_or_default();
    String::from_utf8_lossy(&content).chars().take(1024).collect()
}

fn pack(files: &BTreeMap<PathBuf, PathBuf>, out: &std::fs::File) -> io::Result<()> {
    let gzip = flate2::write::GzEncoder::new(io::BufWriter::new(out), flate2::Compression::fast());
    let mut archive = tar::Builder::new(gzip);
    archive.follow_symlinks(false);
    for (relative, path) in files {
        archive.append_path_with_name(path, relative)?;
    }
    io::Write::flush(&mut archive.into_inner()?.finish()?)
}
