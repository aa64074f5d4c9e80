//! The files below `/opt/ml`: writes configuration and channels before the container starts, uploads results after its end.
//!
//! All functions block and run on the blocking pool. They use the store and the file system, never a container.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::location::S3Location;
use super::platform::PlatformStore;
use crate::protocol::text;
use crate::store::Stored;

/// Smaller files are never shared, in bytes.
const SHARED_FROM: u64 = 1 << 20;

/// One of the hosts of a job.
#[derive(Debug, Clone)]
pub(crate) struct HostPlace {
    /// Counted from 0.
    pub(crate) index: usize,
    pub(crate) count: usize,
    pub(crate) instance_type: String,
    /// Directory that becomes `/opt/ml`.
    pub(crate) opt_ml: PathBuf,
}

impl HostPlace {
    /// `algo-1` and so on.
    pub(crate) fn hostname(&self) -> String {
        format!("algo-{}", self.index + 1)
    }
}

/// Fills `/opt/ml` of a host: folders, configuration files, checkpoints and channels. With a folder for `shared` files,
/// large files of channels are hard links to one copy there.
pub(crate) fn prepare(
    store: &PlatformStore,
    request: &Value,
    place: &HostPlace,
    shared: Option<&Path>,
) -> anyhow::Result<()> {
    for folder in ["input/config", "input/data", "model", "output/data", "output/metrics/sagemaker"] {
        let path = place.opt_ml.join(folder);
        std::fs::create_dir_all(&path).with_context(|| format!("failed to create {}", path.display()))?;
    }
    let mut files = vec![
        ("hyperparameters", request.get("HyperParameters").cloned().unwrap_or_else(|| json!({}))),
        ("resourceconfig", resource_config(place)),
        ("inputdataconfig", input_data_config(request)),
    ];
    if let Some(checkpoints) = request.get("CheckpointConfig") {
        let path = text(checkpoints, "LocalPath").unwrap_or("/opt/ml/checkpoints/");
        files.push(("checkpointconfig", json!({"LocalPath": path})));
        std::fs::create_dir_all(place.opt_ml.join("checkpoints")).context("failed to create the checkpoint folder")?;
        if let Some(from) = text(checkpoints, "S3Uri").and_then(S3Location::parse) {
            copy_down(store, &from, &place.opt_ml.join("checkpoints"), (0, 1), None)?;
        }
    }
    for (name, content) in files {
        let path = place.opt_ml.join(format!("input/config/{name}.json"));
        std::fs::write(&path, content.to_string()).with_context(|| format!("failed to write {}", path.display()))?;
    }
    for channel in request.get("InputDataConfig").and_then(Value::as_array).into_iter().flatten() {
        let name = text(channel, "ChannelName").unwrap_or_default();
        let folder = place.opt_ml.join("input/data").join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        let Some(source) = channel.pointer("/DataSource/S3DataSource") else { continue };
        let Some(from) = text(source, "S3Uri").and_then(S3Location::parse) else { continue };
        let share = match text(source, "S3DataDistributionType") {
            Some("ShardedByS3Key") => (place.index, place.count),
            _ => (0, 1),
        };
        match text(source, "S3DataType") {
            Some("ManifestFile") => copy_manifest(store, &from, &folder, share),
            _ => copy_down(store, &from, &folder, share, shared),
        }
        .with_context(|| format!("failed to download the channel {name}"))?;
        if mode_of(request, channel) == "FastFile" {
            make_read_only(&folder).with_context(|| format!("failed to protect the channel {name}"))?;
        }
    }
    Ok(())
}

/// Uploads the files that the container left, also after a failure or stop. `model` and `output/data` of all hosts are merged,
/// as on the service, where equal names overwrite each other.
pub(crate) fn collect(store: &PlatformStore, request: &Value, job: &str, places: &[HostPlace]) -> anyhow::Result<()> {
    let target = request.pointer("/OutputDataConfig/S3OutputPath").and_then(Value::as_str).unwrap_or_default();
    let target = S3Location::parse(target).context("failed to understand the S3 output path")?;
    let base = target.key.trim_end_matches('/');
    let base = if base.is_empty() { job.to_owned() } else { format!("{base}/{job}") };
    let loose = request.pointer("/OutputDataConfig/CompressionType").and_then(Value::as_str) == Some("NONE");
    for (folder, name) in [("model", "model"), ("output/data", "output")] {
        let mut files = BTreeMap::new();
        for place in places {
            gather(&place.opt_ml.join(folder), Path::new(""), &mut files)?;
        }
        if files.is_empty() {
            continue;
        }
        if loose {
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

/// Uploads the checkpoints of all hosts to the job's `S3Uri`.
pub(crate) fn save_checkpoints(store: &PlatformStore, request: &Value, places: &[HostPlace]) -> anyhow::Result<()> {
    let Some(target) = request.pointer("/CheckpointConfig/S3Uri").and_then(Value::as_str).and_then(S3Location::parse)
    else {
        return Ok(());
    };
    for place in places {
        let mut files = BTreeMap::new();
        gather(&place.opt_ml.join("checkpoints"), Path::new(""), &mut files)?;
        for (relative, path) in files.iter().filter(|(_, path)| path.is_file()) {
            let key = format!("{}/{}", target.key.trim_end_matches('/'), relative.display());
            let key = key.trim_start_matches('/');
            store.put_file(&target.bucket, key, path).with_context(|| format!("failed to upload {key}"))?;
        }
    }
    Ok(())
}

/// The first 1,024 characters of the container's `output/failure`.
pub(crate) fn failure_text(place: &HostPlace) -> String {
    let content = std::fs::read(place.opt_ml.join("output/failure")).unwrap_or_default();
    String::from_utf8_lossy(&content).chars().take(1024).collect()
}

fn mode_of<'a>(request: &'a Value, channel: &'a Value) -> &'a str {
    let of_job = request.pointer("/AlgorithmSpecification/TrainingInputMode").and_then(Value::as_str);
    text(channel, "InputMode").or(of_job).unwrap_or("File")
}

fn resource_config(place: &HostPlace) -> Value {
    let mut hosts: Vec<String> = (1..=place.count).map(|number| format!("algo-{number}")).collect();
    hosts.sort();
    json!({
        "current_group_name": "homogeneousCluster",
        "current_host": place.hostname(),
        "current_instance_type": place.instance_type,
        "hosts": hosts,
        "instance_groups": [{
            "hosts": hosts,
            "instance_group_name": "homogeneousCluster",
            "instance_type": place.instance_type,
        }],
        "network_interface_name": "eth0",
    })
}

fn input_data_config(request: &Value) -> Value {
    let channels = request.get("InputDataConfig").and_then(Value::as_array).into_iter().flatten();
    let entries: serde_json::Map<String, Value> = channels
        .map(|channel| {
            let distribution =
                channel.pointer("/DataSource/S3DataSource/S3DataDistributionType").and_then(Value::as_str);
            let mut entry = json!({
                "TrainingInputMode": mode_of(request, channel),
                "S3DistributionType": distribution.unwrap_or("FullyReplicated"),
                "RecordWrapperType": text(channel, "RecordWrapperType").unwrap_or("None"),
            });
            if let Some(kind) = text(channel, "ContentType") {
                entry["ContentType"] = json!(kind);
            }
            (text(channel, "ChannelName").unwrap_or_default().to_owned(), entry)
        })
        .collect();
    Value::Object(entries)
}

/// Downloads the objects below a prefix; with several hosts, only the share of this one.
fn copy_down(
    store: &PlatformStore,
    from: &S3Location,
    folder: &Path,
    share: (usize, usize),
    shared: Option<&Path>,
) -> anyhow::Result<()> {
    let mine = store.objects(from)?.into_iter().enumerate().filter(|(index, _)| index % share.1 == share.0);
    for (_, (key, stored)) in mine {
        write_down(&stored, folder, relative_to(&from.key, &key), shared)?;
    }
    Ok(())
}

/// A manifest is a list: first a prefix, then names below it.
fn copy_manifest(store: &PlatformStore, from: &S3Location, folder: &Path, share: (usize, usize)) -> anyhow::Result<()> {
    let manifest = store.object(&from.bucket, &from.key)?;
    let mut content = Vec::new();
    for (path, _) in manifest.files() {
        content.extend(std::fs::read(path)?);
    }
    let entries: Vec<Value> = serde_json::from_slice(&content).context("failed to read the manifest as a JSON list")?;
    let (first, names) = entries.split_first().context("failed to use the manifest: it is empty")?;
    let prefix = text(first, "prefix").and_then(S3Location::parse).context("failed to find the manifest's prefix")?;
    for name in names.iter().filter_map(Value::as_str).skip(share.0).step_by(share.1) {
        let stored = store.object(&prefix.bucket, &format!("{}{name}", prefix.key))?;
        write_down(&stored, folder, name, None)?;
    }
    Ok(())
}

/// The path of a key below the folder of its channel.
fn relative_to<'a>(prefix: &str, key: &'a str) -> &'a str {
    let rest = key.strip_prefix(prefix).unwrap_or(key);
    if prefix.is_empty() || prefix.ends_with('/') {
        return rest;
    }
    if let Some(below) = rest.strip_prefix('/') {
        return below;
    }
    // The prefix ends within a name: paths are relative to its folder.
    let parent = prefix.rfind('/').map_or(0, |at| at + 1);
    key.get(parent..).unwrap_or(rest)
}

/// Writes an object as a plain file: S3 keeps no mode bits.
fn write_down(stored: &Stored, folder: &Path, relative: &str, shared: Option<&Path>) -> anyhow::Result<()> {
    if relative.is_empty() {
        return Ok(());
    }
    let path = Path::new(relative);
    if !path.components().all(|component| matches!(component, Component::Normal(_))) {
        bail!("failed to place the object {relative}: its key is not a plain path");
    }
    let target = folder.join(path);
    if relative.ends_with('/') {
        return std::fs::create_dir_all(&target).with_context(|| format!("failed to create {}", target.display()));
    }
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("failed to create {}", parent.display()))?;
    }
    let files = stored.files();
    // A body's name is never given to another one.
    let name = files.first().and_then(|(body, _)| body.file_name());
    let (Some(shared), Some(name), true) = (shared, name, stored.object.bytes >= SHARED_FROM) else {
        return fill(&files, &target);
    };
    let one = shared.join(name);
    if !one.exists() {
        // Written completely before it is renamed, because several containers may create it at once.
        std::fs::create_dir_all(shared).with_context(|| format!("failed to create {}", shared.display()))?;
        let fresh = tempfile::NamedTempFile::new_in(shared).context("failed to create a temporary file")?;
        fill(&files, fresh.path())?;
        fresh.persist(&one).with_context(|| format!("failed to create {}", one.display()))?;
    }
    std::fs::hard_link(&one, &target).with_context(|| format!("failed to create {}", target.display()))
}

fn fill(files: &[(PathBuf, u64)], target: &Path) -> anyhow::Result<()> {
    let mut out = std::fs::File::create(target).with_context(|| format!("failed to create {}", target.display()))?;
    for (source, _) in files {
        let mut source = std::fs::File::open(source).context("failed to open an object's body")?;
        io::copy(&mut source, &mut out).with_context(|| format!("failed to write {}", target.display()))?;
    }
    out.set_permissions(std::fs::Permissions::from_mode(0o644))
        .with_context(|| format!("failed to set the mode of {}", target.display()))
}

fn make_read_only(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            make_read_only(&entry?.path())?;
        }
        return std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o555));
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444))
}

/// Files, folders and links below a folder, by their relative path; links are not followed.
fn gather(folder: &Path, relative: &Path, files: &mut BTreeMap<PathBuf, PathBuf>) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = relative.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            gather(&entry.path(), &name, files)?;
        }
        if kind.is_dir() || kind.is_file() || kind.is_symlink() {
            files.insert(name, entry.path());
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn keys_land_below_their_channel() {
        let cases = [
            ("a/", "a/x", "x"),
            ("a", "a/x/y", "x/y"),
            ("a/fi", "a/file.csv", "file.csv"),
            ("a/file.csv", "a/file.csv", "file.csv"),
            ("", "x", "x"),
            ("a/", "a/", ""),
        ];
        for (prefix, key, path) in cases {
            assert_eq!(relative_to(prefix, key), path, "{prefix} {key}");
        }
    }

    #[test]
    fn a_key_cannot_leave_its_channel() {
        let folder = tempfile::tempdir().unwrap();
        let store = PlatformStore::unlimited(Store::open(folder.path().join("s3")).unwrap());
        store.store().create_bucket("b").unwrap();
        let source = folder.path().join("source");
        std::fs::write(&source, "x").unwrap();
        store.put_file("b", "in/../../evil", &source).unwrap();
        let from = S3Location::parse("s3://b/in/").unwrap();
        let channel = folder.path().join("channel/deep");
        assert!(copy_down(&store, &from, &channel, (0, 1), None).is_err());
        assert!(!folder.path().join("evil").exists());
    }

    #[test]
    fn large_files_are_links_to_one_copy_only_when_asked_for() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let store = PlatformStore::unlimited(Store::open(folder.path().join("s3")).unwrap());
        store.store().create_bucket("bucket").unwrap();
        let large = vec![7; usize::try_from(SHARED_FROM).unwrap()];
        for (key, content) in [("c/large", large.as_slice()), ("c/small", b"x")] {
            let source = folder.path().join("source");
            std::fs::write(&source, content).unwrap();
            store.put_file("bucket", key, &source).unwrap();
        }
        let from = S3Location::parse("s3://bucket/c/").unwrap();
        let shared = folder.path().join("shared");
        let inode = |job: &str, name: &str, shared: Option<&Path>| {
            let channel = folder.path().join(job);
            copy_down(&store, &from, &channel, (0, 1), shared).unwrap();
            let found = std::fs::metadata(channel.join(name)).unwrap();
            assert_eq!(found.mode() & 0o777, 0o644);
            found.ino()
        };
        assert_eq!(inode("one", "large", Some(&shared)), inode("two", "large", Some(&shared)));
        assert_eq!(std::fs::read(folder.path().join("two/large")).unwrap(), large);
        assert_ne!(inode("three", "small", Some(&shared)), inode("four", "small", Some(&shared)));
        assert_ne!(inode("five", "large", None), inode("six", "large", None));
        let stored = store.object("bucket", "c/large").unwrap().files();
        assert_ne!(std::fs::metadata(&stored[0].0).unwrap().ino(), inode("seven", "large", Some(&shared)));
    }

    #[test]
    fn ten_hosts_are_sorted_as_words() {
        let place = HostPlace { index: 0, count: 10, instance_type: "ml.m5.large".into(), opt_ml: PathBuf::new() };
        let config = resource_config(&place);
        assert_eq!(config["hosts"][1], "algo-10");
        assert_eq!(config["current_host"], "algo-1");
    }
}
