//! `sagemaker-executor image build`: builds the project's image, unless the registry has that of the same context, and gives it its tags.
//!
//! Before anything is pushed, the tags are compared with what is there. The image is pushed under the tag of its context, and gets the others
//! when it is there whole; a build that ends in between is taken up by the next one.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use regex::Regex;
use tempfile::TempDir;

use super::buildah::{Buildah, ImageSource};
use super::buildah_errors;
use super::built::{BuiltImage, BuiltParts, ImageStatus, ImageUse};
use super::context::{self, CopiedContext};
use super::dockerfile;
use super::fingerprint::{self, BuildInputs};
use super::mounts;
use super::remote::RemoteBuild;
use super::spec::{BuildSecret, BuildSpec, SpecArgs, UNUSED_PARTS};
use super::tag_format;
use super::tagging::{self, TagPlan};
use crate::base::failure::Failure;
use crate::base::human::human_bytes;
use crate::base::plain;
use crate::base::signals::Cancellation;
use crate::cloud::{ImageRepositorySight, StoredImage, TaggedImages};
use crate::lifecycle::identity::IdentityArgs;
use crate::lifecycle::manifest::ImageBuilder;
use crate::lifecycle::output::OutputArgs;
use crate::lifecycle::target::{ProjectTarget, TargetArgs};
use crate::lifecycle::{CommandInputs, until_canceled};

/// Largest Dockerfile, in bytes.
const LARGEST_DOCKERFILE: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    spec: SpecArgs,
    /// Longest time of pulls, build and push together with buildah, such as `45m`; in CodeBuild `image.codebuild.timeout_minutes` of the manifest
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Use of the image: its address is in the variable `TRAINING_IMAGE` or `SERVING_IMAGE` as well as in `IMAGE_URI`
    #[arg(long = "for", value_name = "USE")]
    for_use: Option<ImageUse>,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(inputs: &CommandInputs, args: BuildArgs, cancellation: Cancellation) -> anyhow::Result<()> {
    let prepared = until_canceled(cancellation.clone(), Prepared::of(inputs, &args)).await?;
    let Prepared { target, spec, secrets, tags, store, repository } = &prepared;
    let done = if spec.builder == ImageBuilder::Codebuild {
        let entry = target.manifest.image.as_ref().map(|image| image.codebuild.clone()).unwrap_or_default();
        let remote = RemoteBuild { inputs, target, entry: &entry, spec, store: &**store, repository };
        let has_own = entry.buildspec.is_some();
        let dockerfile = if has_own { String::new() } else { read_dockerfile(&spec.dockerfile)? };
        let bases = bases(&dockerfile, spec)?.into_iter().map(|base| {
            // Without buildah nobody knows which image a tag names now.
            let digest = base.split_once('@').map_or(base.as_str(), |(_, digest)| digest).to_owned();
            (base, digest)
        });
        let bases: Vec<_> = bases.collect();
        remote.run(&dockerfile, &bases, tags.clone(), &cancellation).await?
    } else {
        let output = args.output.dotenv.as_deref();
        let build = Build { inputs, spec, secrets, store: &**store, repository, output };
        build.run(args.timeout, tags.clone(), &cancellation).await?
    };
    let BuiltParts { status, digest, tags, context_tag } = done;
    let image = BuiltImage::new(status, repository, &digest, tags, context_tag, args.for_use);
    args.output.leave(&image, &inputs.printer)
}

/// The inputs that every builder needs.
struct Prepared {
    target: ProjectTarget,
    spec: BuildSpec,
    /// Of a build in the job.
    secrets: Vec<BuildSecret>,
    tags: Vec<String>,
    store: Arc<dyn TaggedImages>,
    repository: ImageRepositorySight,
}

impl Prepared {
    async fn of(inputs: &CommandInputs, args: &BuildArgs) -> anyhow::Result<Self> {
        let mut target = args.target.load_without(&UNUSED_PARTS, inputs)?;
        let spec = BuildSpec::of(&args.spec, &target, &inputs.env)?;
        let tags = tag_format::tags(&spec.tags, |name| inputs.env.get(name))?;
        args.output.check(&[spec.dockerfile.clone(), args.target.manifest.clone()])?;
        if let Some(token) = args.identity.token(inputs, &target)? {
            token.work_as(&mut target.access);
        }
        let secrets = match spec.builder {
            ImageBuilder::Buildah => spec.secret_values(&inputs.env)?,
            ImageBuilder::Codebuild if spec.secrets.is_empty() => Vec::new(),
            ImageBuilder::Codebuild => {
                return Err(Failure::user("a variable of the job cannot be a secret of a build in CodeBuild")
                    .hint("put the secret into Secrets Manager, and name it in `image.codebuild.secrets` in place of `image.secrets` and `--secret`")
                    .into());
            }
        };
        let (store, repository) = repository(inputs, &target, &spec).await?;
        Ok(Self { target, spec, secrets, tags, store, repository })
    }
}

/// The repository that the image goes to.
async fn repository(
    inputs: &CommandInputs,
    target: &ProjectTarget,
    spec: &BuildSpec,
) -> anyhow::Result<(Arc<dyn TaggedImages>, ImageRepositorySight)> {
    if target.environment.is_some() {
        target.check_account(inputs).await?;
    }
    let store = inputs.connect.tagged_images(&target.access).await?;
    let found = store.repository(&spec.repository).await?;
    let repository = found.ok_or_else(|| {
        Failure::user(format!("the registry of the account has no repository {}", spec.repository)).hint(
            "create the repository in the region of the environment, or change `image.repository` in the manifest",
        )
    })?;
    Ok((store, repository))
}

/// One build with buildah.
struct Build<'a> {
    inputs: &'a CommandInputs,
    spec: &'a BuildSpec,
    secrets: &'a [BuildSecret],
    store: &'a dyn TaggedImages,
    repository: &'a ImageRepositorySight,
    /// The file that the command writes.
    output: Option<&'a Path>,
}

impl Build<'_> {
    /// Removes what it made, also after a signal.
    async fn run(
        &self,
        timeout: Duration,
        tags: Vec<String>,
        cancellation: &Cancellation,
    ) -> anyhow::Result<BuiltParts> {
        let folder = tempfile::Builder::new().prefix(context::BUILD_FOLDER).tempdir();
        let folder = folder.context("failed to make a folder for the build")?;
        let dockerfile = read_dockerfile(&self.spec.dockerfile)?;
        let bases = bases(&dockerfile, self.spec)?;
        let context_folder = folder.path().join("context");
        // Awaited to its end, which a signal brings: the folder must not be removed before.
        let copied = self.copy(&context_folder, cancellation).await?;
        let options = dockerfile::run_options(&dockerfile);
        let of_images = mounts::check(&options, &context_folder)?;
        let copied_dockerfile = folder.path().join("Dockerfile");
        std::fs::write(&copied_dockerfile, &dockerfile).context("failed to write the Dockerfile of the build")?;
        let mut work = Work { build: self, folder: Some(folder), timeout, buildah: None, bases: &bases, of_images };
        let files = (copied_dockerfile.as_path(), context_folder.as_path());
        let done = until_canceled(cancellation.clone(), work.run(&dockerfile, &copied, files, tags)).await;
        if let Some(buildah) = work.buildah {
            buildah.remove(cancellation).await;
        }
        done
    }

    async fn copy(&self, folder: &Path, cancellation: &Cancellation) -> anyhow::Result<CopiedContext> {
        std::fs::create_dir(folder).context("failed to make a folder for the context")?;
        let (from, into, limits) = (self.spec.context.clone(), folder.to_owned(), self.spec.limits());
        let (output, canceled) = (self.output.map(Path::to_owned), cancellation.token().clone());
        let copied =
            tokio::task::spawn_blocking(move || context::copy(&from, &into, limits, output.as_deref(), &canceled));
        let copied = copied.await.context("failed to copy the context")??;
        let files = if copied.files == 1 { "a file".to_owned() } else { format!("{} files", copied.files) };
        self.inputs.printer.line(format!("The context has {files}, {}", human_bytes(copied.bytes)));
        Ok(copied)
    }
}

/// The steps of a build that may need buildah, which is started when the first of them does.
struct Work<'a> {
    build: &'a Build<'a>,
    folder: Option<TempDir>,
    timeout: Duration,
    buildah: Option<Buildah>,
    bases: &'a [String],
    /// A mount that needs a mended builder.
    of_images: Option<&'a str>,
}

impl Work<'_> {
    async fn run(
        &mut self,
        dockerfile: &str,
        copied: &CopiedContext,
        (dockerfile_copy, context): (&Path, &Path),
        tags: Vec<String>,
    ) -> anyhow::Result<BuiltParts> {
        let Build { spec, store, repository, inputs, secrets, .. } = *self.build;
        let bases = self.digests().await?;
        let parts = BuildInputs {
            dockerfile: dockerfile.as_bytes(),
            target: spec.target.as_deref(),
            args: &spec.args,
            bases: &bases,
            platform: platform(),
        };
        let context_tag = fingerprint::context_tag(&copied.hash, &parts);
        let looked_for: Vec<_> = tags.iter().chain([&context_tag]).cloned().collect();
        let found = store.tagged(repository, &looked_for).await?;
        let (status, image) = match tagging::decide(repository, &context_tag, &tags, &found)? {
            TagPlan::Reuse(image) => {
                inputs.printer.line("The registry has the image of this context: nothing is built");
                (ImageStatus::Unchanged, image)
            }
            TagPlan::Build => {
                let source = ImageSource {
                    dockerfile: dockerfile_copy,
                    context,
                    target: spec.target.as_deref(),
                    args: &spec.args,
                    secrets,
                    cache: spec.cache.as_deref(),
                };
                (ImageStatus::Built, self.produce(&source, &context_tag).await?)
            }
        };
        tagging::add(store, repository, &image, &tags, &found).await?;
        Ok(BuiltParts { status, digest: image.digest, tags, context_tag })
    }

    /// Builds and pushes the image under the tag of its context. Where another job was faster, its image is taken.
    async fn produce(&mut self, source: &ImageSource<'_>, context_tag: &str) -> anyhow::Result<StoredImage> {
        let Build { store, repository, inputs, .. } = *self.build;
        let of_images = self.of_images;
        let buildah = self.buildah().await?;
        if let Some(option) = of_images {
            buildah.check_mount(option).await?;
        }
        let id = buildah.build(source).await?;
        inputs.printer.line(format!("Pushing the image to {}", repository.uri));
        let image = match buildah.push(&id, context_tag).await {
            Err(error) if buildah_errors::is_taken(&error) => {
                let found = store.tagged(repository, &[context_tag.to_owned()]).await?;
                inputs.printer.line("Another job has pushed the image of this context meanwhile: it is taken");
                found.into_values().next().ok_or(error)?
            }
            digest => {
                let digest = digest?;
                let image = store.image(repository, &digest).await?;
                image.with_context(|| format!("the registry does not have the image {digest} that it took"))?
            }
        };
        Ok(image)
    }

    /// The digest of each base: its name has it, else that of the image which its tag names now.
    async fn digests(&mut self) -> anyhow::Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        for base in self.bases {
            let digest = match base.split_once('@') {
                Some((_, digest)) => digest.to_owned(),
                None => self.buildah().await?.pull(base).await?,
            };
            found.push((base.clone(), digest));
        }
        Ok(found)
    }

    async fn buildah(&mut self) -> anyhow::Result<&Buildah> {
        if let Some(folder) = self.folder.take() {
            let Build { inputs, secrets, store, repository, .. } = *self.build;
            let login = store.login().await?;
            let registry = (repository, &login);
            let prepared =
                Buildah::prepare(&inputs.env, folder, registry, self.bases, secrets, (&inputs.printer, self.timeout))?;
            self.buildah = Some(prepared);
        }
        self.buildah.as_ref().context("buildah was not prepared")
    }
}

/// The platform of the images that are built on this machine.
fn platform() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" }
}

fn read_dockerfile(file: &Path) -> Result<String, Failure> {
    let refused = |why: &str| {
        Failure::user(format!("the Dockerfile {} {why}", file.display()))
            .hint("change `image.dockerfile` in the manifest, or `--dockerfile`")
    };
    let metadata = std::fs::metadata(file).map_err(|error| refused("cannot be read").caused_by(error))?;
    if !metadata.is_file() || metadata.len() > LARGEST_DOCKERFILE {
        return Err(refused("is no file of at most 1 MiB"));
    }
    let bytes = std::fs::read(file).map_err(|error| refused("cannot be read").caused_by(error))?;
    String::from_utf8(bytes).map_err(|_| refused("is not UTF-8 text"))
}

/// The images of others that the Dockerfile needs, which name their registries.
fn bases(dockerfile: &str, spec: &BuildSpec) -> Result<Vec<String>, Failure> {
    let found = dockerfile::bases(dockerfile, &spec.args, spec.target.as_deref());
    let found = found.map_err(|name| {
        let name = plain::line(&name, 100);
        Failure::user(format!(
            "the Dockerfile begins with an image that its argument `{name}` names, which has no value"
        ))
        .hint(format!(
            "set `image.args.{name}` in the manifest to an image by its digest, or give `--build-arg {name}=IMAGE`"
        ))
    })?;
    for base in &found {
        if !dockerfile::names_registry(base) {
            return Err(Failure::user(format!("the base image {} names no registry", plain::line(base, 200))).hint(
                "write its full name, as `REGISTRY/NAME@sha256:DIGEST`: what a short name means depends on the builder",
            ));
        }
        // Words such as `oci:/etc` name files of the machine for a builder.
        if !NAME.is_match(base) {
            return Err(Failure::user(format!(
                "`{}` in the Dockerfile is no name of an image",
                plain::line(base, 200)
            ))
            .hint("write its full name, as `REGISTRY/NAME@sha256:DIGEST`, without a transport and quotation marks"));
        }
    }
    Ok(found)
}

/// Names of images of the OCI distribution specification, with their registry.
static NAME: LazyLock<Regex> = LazyLock::new(|| {
    let word = "[a-z0-9]+(?:(?:[.]|_|__|-+)[a-z0-9]+)*";
    let host = "[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?";
    let version = "(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128}))?";
    Regex::new(&format!("^{host}(?:/{word})+{version}$")).expect("a unit test compiles it")
});

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("r.example/a/b-c__d:1.0_x" => true; "tag")]
    #[test_case("localhost:5000/a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" => true; "digest")]
    #[test_case("oci:/etc" => false; "folder")]
    #[test_case("dir:/tmp/a" => false; "another folder")]
    #[test_case("docker://r.example/a:1" => false; "transport")]
    #[test_case("r.example/a@sha256:0" => false; "short digest")]
    #[test_case("\"r.example/a\"" => false; "quotation marks")]
    #[test_case("r.example/A" => false; "capital letter")]
    fn an_image_has_a_name(name: &str) -> bool {
        NAME.is_match(name)
    }
}
