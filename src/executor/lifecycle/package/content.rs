//! The content of a package: gathered first, then written in one order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::committed::CommittedProject;
use super::documents;
use super::entry_name;
use super::git::{FileContents, NotedCommits, PackedCommit, Repository};
use super::metadata::{
    CommitOrigin, FileMode, MODEL_ARCHIVE, PackageMetadata, PackagedModel, PipelineOrigin, SCHEMA, canonical,
};
use super::model_archive::FoundModel;
use super::naming::{self, PackageKind};
use super::placing::UnplacedFile;
use super::reading::LARGEST_LINK;
use super::samples;
use super::selection::{self, LARGEST_SEARCHED, SelectedSources, SourceFile, SourceWarnings};
use super::writing::{self, PackageWriter, Packing};
use crate::base::failure::Failure;
use crate::base::plain;
use crate::lifecycle::manifest::{ManifestText, ModelEntry};
use crate::lifecycle::target::ProjectTarget;
use crate::lifecycle::{CommandInputs, gate, model};

/// A file that is no source.
#[derive(Debug)]
enum OtherFile {
    Text(Vec<u8>),
    /// The id of a file of the commit.
    Committed(String),
}

/// Everything that becomes a package.
#[derive(Debug)]
pub(super) struct PackageContent {
    repository: Repository,
    sources: SelectedSources,
    others: BTreeMap<String, OtherFile>,
    archive: Option<File>,
    metadata: PackageMetadata,
    changed: Vec<String>,
    warnings: SourceWarnings,
}

/// A package that was written.
#[derive(Debug)]
pub(super) struct WrittenPackage {
    pub(super) name: String,
    pub(super) file: PathBuf,
    pub(super) hash: [u8; 32],
    pub(super) bytes: u64,
    pub(super) metadata: PackageMetadata,
    pub(super) warnings: Vec<String>,
}

impl PackageContent {
    /// Gathers what becomes the package, without the contents of large files.
    ///
    /// # Errors
    /// Failures of the user: something is missing, or cannot be packed.
    pub(super) fn gather(
        inputs: &CommandInputs,
        target: &ProjectTarget,
        project: CommittedProject,
        kind: PackageKind,
        found: FoundModel,
    ) -> anyhow::Result<Self> {
        let model = target.model()?;
        let CommittedProject { repository, commit, entries, files, manifest_name, manifest } = project;
        let sources = selection::select(entries, &target.manifest.package.clone().unwrap_or_default())?;
        let noted = repository.noted(&commit.id, naming::base_commit(&inputs.env).as_deref())?;
        let changed = repository.changed()?;
        let mut others = BTreeMap::new();
        let evidence = match found.metrics {
            Some(ref registered) => registered.clone(),
            None => model::metrics(target)?.iter().map(model::MetricsFile::source).collect(),
        };
        let metrics = gate::numbers(model, &evidence)?;
        for (name, source) in model.metrics.iter().zip(evidence) {
            put(&mut others, packed_metrics(name), OtherFile::Text(source.bytes))?;
        }
        let (packaged, archive) = packaged(model, found)?;
        if archive.is_none() {
            put(&mut others, "model/reference.json".to_owned(), OtherFile::Text(canonical(&packaged.archive)?))?;
        }
        put(&mut others, "deploy/model.json".to_owned(), OtherFile::Text(canonical(&packaged)?))?;
        let mut contents = repository.contents()?;
        let mut read = |id: &str| contents.read(id, samples::LARGEST_READ);
        let mut deployed = samples::find(&files, named_samples(inputs, &manifest).into_iter(), &mut read)?;
        let manifest_id = files.get(&manifest_name).context("the commit has no manifest")?;
        let twice = deployed.insert("manifest.json".to_owned(), manifest_id.clone());
        if twice.is_some_and(|other| other != *manifest_id) {
            return Err(two_files("deploy/manifest.json").into());
        }
        for (name, id) in deployed {
            put(&mut others, format!("deploy/{name}"), OtherFile::Committed(id))?;
        }
        let mut warnings = SourceWarnings::default();
        for (id, subject) in &noted.commits {
            warnings.look(&format!("docs/RELEASE_NOTES.md ({})", id.get(..8).unwrap_or(id)), Some(subject.as_bytes()));
        }
        if let Some(archive) = &archive {
            warnings.look_into(archive)?;
        }
        let origin = Origin { inputs, target, kind, commit: &commit };
        let metadata = origin.metadata(packaged, metrics, sources.submodules.clone())?;
        put_documents(&mut others, &metadata, &noted)?;
        Ok(Self { repository, sources, others, archive, metadata, changed, warnings })
    }

    /// Writes the package into the folder, whole or not at all.
    pub(super) fn write(self, folder: &Path) -> anyhow::Result<WrittenPackage> {
        let Self { repository, sources, others, archive, metadata, changed, mut warnings } = self;
        let name = metadata.name.clone();
        check_names(sources.files.iter().map(|file| format!("source/{}", file.path)).chain(others.keys().cloned()))?;
        let failed = |error: std::io::Error| {
            Failure::user(format!("failed to write the package into {}", folder.display()))
                .hint("make room there, or change `--output-dir`")
                .caused_by(error)
        };
        let unplaced = UnplacedFile::new(folder, &name).map_err(failed)?;
        let mut writer = PackageWriter::new(unplaced.file());
        let mut contents = repository.contents()?;
        check_links(&mut contents, &sources.files)?;
        others.into_iter().try_for_each(|(name, file)| file.write(&name, &mut writer, &mut contents, &mut warnings))?;
        if let Some(archive) = archive {
            let bytes = archive.metadata()?.len();
            writer.add(MODEL_ARCHIVE, FileMode::Plain, archive, bytes, Packing::AsIs)?;
        }
        for SourceFile { path, mode, id } in &sources.files {
            add_committed(&mut writer, &mut contents, &format!("source/{path}"), (*mode, id), (path, &mut warnings))?;
        }
        let submodules = metadata.submodules.clone();
        let metadata = writer.finish(metadata)?;
        let file = folder.join(&name);
        if file.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let failure = Failure::user(format!("{} exists, and is no regular file", file.display()));
            return Err(failure.hint("remove it, or change `--output-dir`").into());
        }
        unplaced.place(folder, &name).map_err(failed)?;
        let written = File::open(&file)?;
        let bytes = written.metadata()?.len();
        let hash = writing::sha256(&written).context("failed to read the package")?;
        Ok(WrittenPackage { name, file, hash, bytes, metadata, warnings: warnings.lines(&submodules, &changed) })
    }
}

impl OtherFile {
    fn write(
        self,
        name: &str,
        writer: &mut PackageWriter<'_>,
        contents: &mut FileContents,
        warnings: &mut SourceWarnings,
    ) -> anyhow::Result<()> {
        match self {
            Self::Text(text) => {
                // Commits are looked at one by one, to name them.
                if !name.starts_with("docs/") {
                    warnings.look(name, Some(&text));
                }
                writer.add_text(name, &text)
            }
            Self::Committed(id) => add_committed(writer, contents, name, (FileMode::Plain, &id), (name, warnings)),
        }
    }
}

fn put(others: &mut BTreeMap<String, OtherFile>, name: String, file: OtherFile) -> Result<(), Failure> {
    if others.contains_key(&name) {
        return Err(two_files(&name));
    }
    others.insert(name, file);
    Ok(())
}

fn two_files(name: &str) -> Failure {
    Failure::user(format!("the package would have two files of the name {}", plain::line(name, 300)))
        .hint("rename the file of samples or metrics, and name it so in the manifest")
}

fn put_documents(
    others: &mut BTreeMap<String, OtherFile>,
    metadata: &PackageMetadata,
    noted: &NotedCommits,
) -> Result<(), Failure> {
    let texts =
        [("RELEASE_NOTES.md", documents::release_notes(metadata, noted)), ("USAGE.md", documents::usage(metadata))];
    texts
        .into_iter()
        .try_for_each(|(name, text)| put(others, format!("docs/{name}"), OtherFile::Text(text.into_bytes())))
}

/// Name in the package of a file of metrics that the manifest names.
pub(super) fn packed_metrics(name: &str) -> String {
    let name = name.trim_start_matches("./");
    let packed = entry_name::mistake(name).map_or_else(|| name.to_owned(), |_| name.replace(['/', '\\', '.'], "_"));
    format!("model/metrics/{packed}")
}

/// The samples that the manifest names, in each of its environments.
fn named_samples(inputs: &CommandInputs, text: &ManifestText) -> Vec<String> {
    let environments = text.environments();
    let mut named = Vec::new();
    for environment in environments.iter().map(|name| Some(name.as_str())).chain([None]) {
        let endpoint = text.of(environment, &inputs.env).manifest.endpoint;
        named.extend(endpoint.and_then(|endpoint| endpoint.test).into_iter().flat_map(|test| test.samples));
    }
    named.sort();
    named.dedup();
    named
}

/// The model for `metadata.json` and `deploy/model.json`, and its archive if that is packed.
fn packaged(model: &ModelEntry, found: FoundModel) -> anyhow::Result<(PackagedModel, Option<File>)> {
    let FoundModel { archive, content, package_arn, image, .. } = found;
    let image = image.unwrap_or_else(|| model.image.clone());
    let image_digest = model::image_digest(&image)?.to_owned();
    let packaged = PackagedModel {
        group: model.group.clone(),
        package_arn,
        image,
        image_digest,
        environment: model.environment.clone(),
        content_types: model.content_types.clone(),
        response_types: model.response_types.clone(),
        archive,
    };
    Ok((packaged, content))
}

/// Where a package comes from.
struct Origin<'a> {
    inputs: &'a CommandInputs,
    target: &'a ProjectTarget,
    kind: PackageKind,
    commit: &'a PackedCommit,
}

impl Origin<'_> {
    fn metadata(
        &self,
        model: PackagedModel,
        metrics: BTreeMap<String, String>,
        submodules: BTreeMap<String, String>,
    ) -> Result<PackageMetadata, Failure> {
        let (env, pipeline) = (&self.inputs.env, &self.target.pipeline);
        let committed = naming::time_of(self.commit.seconds).ok_or_else(|| undated(self.commit))?;
        let time = naming::pipeline_time(env).unwrap_or(committed);
        // Where the name is without it, its number may change while the name does not.
        let merge_request = naming::merge_request(env).filter(|_| self.kind == PackageKind::Candidate);
        let url = |url: &Option<String>| url.as_deref().map(model::without_credentials);
        Ok(PackageMetadata {
            schema: SCHEMA.to_owned(),
            name: naming::name(self.kind, merge_request.as_deref(), &self.commit.id, time),
            kind: self.kind,
            created_at: naming::rfc3339(time),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            project: pipeline.project.clone(),
            merge_request,
            commit: CommitOrigin {
                id: self.commit.id.clone(),
                created_at: naming::rfc3339(committed),
                reference: env.get("CI_COMMIT_REF_NAME").map(str::to_owned),
                repository: url(&pipeline.repository),
            },
            pipeline: pipeline.id.clone().map(|id| PipelineOrigin { id, url: url(&pipeline.url) }),
            model,
            metrics,
            submodules,
            files: BTreeMap::new(),
        })
    }
}

fn undated(commit: &PackedCommit) -> Failure {
    Failure::user(format!(
        "the commit {} has a date that no package can have: {} seconds after 1970, which is in the year 10000 or later",
        commit.id, commit.seconds
    ))
    .hint("give the commit the present date, as `git commit --amend --no-edit --reset-author` does, and push it")
}

/// Adds a file of the commit, and looks at it for what people should know; `shown` is its name for them.
fn add_committed(
    writer: &mut PackageWriter<'_>,
    contents: &mut FileContents,
    name: &str,
    (mode, id): (FileMode, &str),
    (shown, warnings): (&str, &mut SourceWarnings),
) -> anyhow::Result<()> {
    let (bytes, mut content) = contents.open(id)?;
    if bytes <= LARGEST_SEARCHED {
        let mut text = Vec::new();
        content.read_to_end(&mut text).with_context(|| format!("failed to read {name} from git"))?;
        warnings.look(shown, Some(&text));
        writer.add(name, mode, text.as_slice(), bytes, Packing::Compressed)?;
    } else {
        warnings.look(shown, None);
        writer.add(name, mode, content, bytes, Packing::Compressed)?;
    }
    contents.close()
}

/// Refuses names that would overwrite each other where the package is unpacked.
fn check_names(names: impl Iterator<Item = String>) -> Result<(), Failure> {
    let names: Vec<_> = names.collect();
    let Some((one, other)) = entry_name::alike(names.iter().map(String::as_str)) else { return Ok(()) };
    Err(Failure::user(entry_name::alike_text(one, other))
        .hint("rename one of them, or leave it out by `package.exclude` in the manifest"))
}

/// Refuses links that leave the project, also by way of other links.
fn check_links(contents: &mut FileContents, files: &[SourceFile]) -> anyhow::Result<()> {
    let mut targets = BTreeMap::new();
    for SourceFile { path, mode, id } in files {
        // An empty target is refused.
        let target = match mode {
            FileMode::Link => Some(contents.read(id, LARGEST_LINK)?.and_then(|text| String::from_utf8(text).ok())),
            FileMode::Plain | FileMode::Executable => None,
        };
        targets.insert(format!("source/{path}"), target.map(Option::unwrap_or_default));
    }
    let Some((name, why)) = entry_name::unsafe_name(&targets) else { return Ok(()) };
    Err(Failure::user(format!("{} {why}", plain::line(name, 300)))
        .hint("replace the link by a file, or leave it out by `package.exclude` in the manifest")
        .into())
}
