//! The inputs of a build: the manifest's `image`, changed by the command line. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use super::context::ContextLimits;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::config::env::Environment;
use crate::lifecycle::manifest::{ImageBuilder, ImageEntry, holds_secret, is_secret_name};
use crate::lifecycle::target::ProjectTarget;

/// Parts of the manifest that no command about images uses.
pub(super) const UNUSED_PARTS: [&str; 3] = ["model", "endpoint", "package"];
/// Fewest characters of a line of a secret, so that it can be masked.
const SHORTEST_SECRET: usize = 4;

/// Options of the command line about the image.
#[derive(Debug, Default, Args)]
pub(super) struct SpecArgs {
    /// Repository in the registry of the environment's account, such as `team/train`; `image.repository` of the manifest when absent
    #[arg(long, value_name = "NAME")]
    pub(super) repository: Option<String>,
    /// The Dockerfile; `image.dockerfile` of the manifest when absent
    #[arg(long, value_name = "FILE")]
    pub(super) dockerfile: Option<PathBuf>,
    /// Folder whose files the Dockerfile may copy; `image.context` of the manifest when absent
    #[arg(long, value_name = "DIR")]
    pub(super) context: Option<PathBuf>,
    /// Stage of the Dockerfile that becomes the image; `image.target` of the manifest, else the last one
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// Argument of the Dockerfile, besides `image.args` of the manifest; without a value that of the variable of this name. It is in the image's history: give no secret
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) build_arg: Vec<String>,
    /// Secret of the Dockerfile's `RUN --mount=type=secret`, from a variable, besides `image.secrets` of the manifest: `id=NAME,env=VARIABLE`
    #[arg(long, value_name = "SECRET")]
    pub(super) secret: Vec<String>,
    /// Tags by format, such as `build-{pipeline}-{short_sha}`, separated by commas, in place of `image.tags` of the manifest
    #[arg(long, value_name = "FORMAT", value_delimiter = ',')]
    pub(super) tag: Vec<String>,
    /// Builder; `image.builder` of the manifest, else buildah
    #[arg(long, value_name = "BUILDER")]
    pub(super) via: Option<ImageBuilder>,
    /// Repository that keeps the layers of earlier builds; `image.cache` of the manifest when absent
    #[arg(long, value_name = "NAME")]
    pub(super) cache: Option<String>,
}

/// The inputs of a build.
#[derive(Debug, PartialEq)]
pub(super) struct BuildSpec {
    pub(super) repository: String,
    pub(super) dockerfile: PathBuf,
    pub(super) context: PathBuf,
    pub(super) target: Option<String>,
    pub(super) args: BTreeMap<String, String>,
    /// Variables that hold secrets, by the ids of these.
    pub(super) secrets: BTreeMap<String, String>,
    /// Formats of the tags.
    pub(super) tags: Vec<String>,
    pub(super) builder: ImageBuilder,
    pub(super) cache: Option<String>,
    /// Bytes.
    pub(super) limit_bytes: u64,
    pub(super) limit_files: u64,
}

/// The value of a build's secret. Has no `Debug`.
pub(super) struct BuildSecret {
    pub(super) id: String,
    pub(super) value: String,
}

impl BuildSpec {
    /// Puts manifest and command line together.
    ///
    /// # Errors
    /// Failures of the user that name the flag: no repository, an argument without a value, one that is a secret.
    pub(super) fn of(args: &SpecArgs, target: &ProjectTarget, env: &Environment) -> Result<Self, Failure> {
        let entry = target.manifest.image.clone().unwrap_or_default();
        let ImageEntry {
            repository, dockerfile, context, cache, builder, context_limit_mb, context_limit_files, ..
        } = entry;
        let repository = args.repository.clone().or(Some(repository).filter(|name| !name.is_empty()));
        let repository = repository.ok_or_else(|| {
            Failure::user("no repository is named for the image")
                .hint("add `image` with `repository` to the manifest, or give `--repository NAME`")
        })?;
        check_repository(&repository, "--repository")?;
        let cache = args.cache.clone().or(cache);
        if let Some(cache) = &cache {
            check_repository(cache, "--cache")?;
        }
        let mut build_args = entry.args;
        for text in &args.build_arg {
            let (name, value) = build_arg(text, env)?;
            build_args.insert(name, value);
        }
        for (name, value) in &build_args {
            check_arg(name, value)?;
        }
        let mut secrets = entry.secrets;
        if let Some(id) = secrets.keys().find(|id| !is_id(id)) {
            let shown = plain::line(id, 100);
            return Err(Failure::user(format!("`{shown}` is no id of a secret: it has letters, digits and `._-`"))
                .hint("change the key in `image.secrets` of the manifest to the `id` of `RUN --mount=type=secret,id=NAME`"));
        }
        for text in &args.secret {
            let (id, variable) = secret(text)?;
            secrets.insert(id, variable);
        }
        Ok(Self {
            repository,
            dockerfile: args.dockerfile.clone().unwrap_or_else(|| target.folder.join(dockerfile)),
            context: args.context.clone().unwrap_or_else(|| target.folder.join(context)),
            target: args.target.clone().or(entry.target),
            args: build_args,
            secrets,
            tags: if args.tag.is_empty() { entry.tags } else { args.tag.clone() },
            builder: args.via.unwrap_or(builder),
            cache,
            limit_bytes: u64::from(context_limit_mb) << 20,
            limit_files: u64::from(context_limit_files),
        })
    }

    pub(super) fn limits(&self) -> ContextLimits {
        ContextLimits { bytes: self.limit_bytes, files: self.limit_files }
    }

    /// The values of the secrets.
    ///
    /// # Errors
    /// Failures of the user that name the variable: it has no value, or one that cannot be masked.
    pub(super) fn secret_values(&self, env: &Environment) -> Result<Vec<BuildSecret>, Failure> {
        let value = |(id, variable): (&String, &String)| {
            let shown = plain::line(variable, 100);
            let value = env.get(variable).ok_or_else(|| {
                Failure::user(format!(
                    "the build's secret `{}` needs the variable `{shown}`, which is not set",
                    plain::line(id, 100)
                ))
                .hint(format!(
                    "set `{shown}` in the job, masked, or remove the secret from `image.secrets` and `--secret`"
                ))
            })?;
            let is_short = |line: &str| !line.trim().is_empty() && line.trim().len() < SHORTEST_SECRET;
            if value.trim().is_empty() || value.lines().any(is_short) {
                return Err(Failure::user(format!("the variable `{shown}` has a line of fewer than {SHORTEST_SECRET} characters, which cannot be masked in the output"))
                    .hint(format!("set `{shown}` to a longer secret")));
            }
            Ok(BuildSecret { id: id.clone(), value: value.to_owned() })
        };
        self.secrets.iter().map(value).collect()
    }
}

/// Names of repositories in ECR have small letters, digits and single `._-/` between them, 2 to 256 characters.
fn check_repository(name: &str, flag: &str) -> Result<(), Failure> {
    let is_word = |part: &str| {
        let is_inner = |one: char| one.is_ascii_lowercase() || one.is_ascii_digit();
        !part.is_empty()
            && part.starts_with(is_inner)
            && part.ends_with(is_inner)
            && part.chars().all(|one| is_inner(one) || "._-".contains(one))
    };
    if (2..=256).contains(&name.len()) && name.split('/').all(is_word) {
        return Ok(());
    }
    let shown = plain::line(name, 100);
    Err(Failure::user(format!("`{shown}` is no name of a repository: it has small letters, digits and `._-/`")).hint(
        format!("change `{flag}`, or its key of `image` in the manifest, to the name alone, without the registry"),
    ))
}

fn build_arg(text: &str, env: &Environment) -> Result<(String, String), Failure> {
    if let Some((name, value)) = text.split_once('=') {
        return Ok((name.to_owned(), value.to_owned()));
    }
    let shown = plain::line(text, 100);
    if is_secret_name(text) {
        return Err(in_history(&shown));
    }
    let value = env.get(text).ok_or_else(|| {
        Failure::user(format!("the build argument `{shown}` has no value, and there is no variable of this name"))
            .hint(format!("set the variable `{shown}`, or give `--build-arg {shown}=VALUE`"))
    })?;
    Ok((text.to_owned(), value.to_owned()))
}

fn check_arg(name: &str, value: &str) -> Result<(), Failure> {
    let shown = plain::line(name, 100);
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    if !is_name {
        return Err(Failure::user(format!("`{shown}` is no name of a build argument: it has letters, digits and `_`"))
            .hint("change `--build-arg NAME=VALUE`, or `image.args` in the manifest"));
    }
    if is_secret_name(name) || holds_secret(value) {
        return Err(in_history(&shown));
    }
    Ok(())
}

fn in_history(name: &str) -> Failure {
    Failure::user(format!("the build argument `{name}` looks like a secret, and arguments are in the image's history"))
        .hint(format!(
            "give it as `--secret id={name},env={name}`, and read it with `RUN --mount=type=secret,id={name}`"
        ))
}

/// Ids become names of files.
fn is_id(id: &str) -> bool {
    !id.is_empty() && !id.starts_with('.') && id.chars().all(|one| one.is_ascii_alphanumeric() || "._-".contains(one))
}

/// `id=NAME,env=VARIABLE`
fn secret(text: &str) -> Result<(String, String), Failure> {
    let (mut id, mut variable) = (None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("id", value)) => id = Some(value),
            Some(("env", value)) => variable = Some(value),
            _ => {}
        }
    }
    match (id.filter(|id| is_id(id)), variable.filter(|name| !name.is_empty())) {
        (Some(id), Some(variable)) => Ok((id.to_owned(), variable.to_owned())),
        // The text may be the secret itself.
        _ => Err(Failure::user("a `--secret` does not have the form `id=NAME,env=VARIABLE`")
            .hint("write `--secret id=pip,env=PIP_INDEX_PASSWORD`, with the name of a variable, not its value")),
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::lifecycle::manifest::Manifest;

    fn environment() -> Environment {
        let pairs =
            [("BASE_IMAGE", "r.example/base@sha256:0"), ("API_TOKEN", "s3cret-token"), ("SHORT", "long enough\nabc")];
        Environment::from_pairs(pairs.map(|(name, value)| (name.into(), value.into())))
    }

    fn target(image: Option<ImageEntry>) -> ProjectTarget {
        ProjectTarget {
            manifest: Manifest { image, ..Manifest::default() },
            folder: PathBuf::from("project"),
            environment: None,
            pipeline: crate::lifecycle::pipeline::Pipeline::default(),
            access: crate::cloud::Access::default(),
        }
    }

    fn of(args: &SpecArgs) -> Result<BuildSpec, String> {
        let image = ImageEntry { repository: "team/train".to_owned(), ..ImageEntry::default() };
        BuildSpec::of(args, &target(Some(image)), &environment()).map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn the_command_line_changes_the_manifest() {
        let plain = of(&SpecArgs::default()).unwrap();
        assert_eq!(plain.dockerfile, PathBuf::from("project/Dockerfile"));
        assert_eq!((plain.context, plain.tags), (PathBuf::from("project/."), vec!["{short_sha}".to_owned()]));
        assert_eq!((plain.builder, plain.limit_bytes), (ImageBuilder::Buildah, 512 << 20));
        let args = SpecArgs {
            repository: Some("serve".to_owned()),
            dockerfile: Some("serving.Dockerfile".into()),
            build_arg: vec!["BASE_IMAGE".to_owned(), "A=b=c".to_owned()],
            secret: vec!["id=pip,env=API_TOKEN".to_owned()],
            tag: vec!["latest".to_owned()],
            via: Some(ImageBuilder::Codebuild),
            ..SpecArgs::default()
        };
        let changed = of(&args).unwrap();
        assert_eq!((changed.repository.as_str(), changed.dockerfile), ("serve", PathBuf::from("serving.Dockerfile")));
        assert_eq!(changed.args["BASE_IMAGE"], "r.example/base@sha256:0");
        assert_eq!((changed.args["A"].as_str(), changed.tags[0].as_str()), ("b=c", "latest"));
        let values = BuildSpec { secrets: changed.secrets, ..of(&SpecArgs::default()).unwrap() };
        let values = values.secret_values(&environment()).unwrap();
        assert_eq!((values[0].id.as_str(), values[0].value.as_str()), ("pip", "s3cret-token"));
    }

    #[test]
    fn without_a_repository_there_is_no_image() {
        let failure = BuildSpec::of(&SpecArgs::default(), &target(None), &environment()).unwrap_err();
        assert_eq!(failure.message(), "no repository is named for the image");
    }

    #[test_case(&["--build-arg", "API_TOKEN"], "looks like a secret"; "variable with a secret")]
    #[test_case(&["--build-arg", "API_TOKEN=x"], "looks like a secret"; "name of a secret with a value")]
    #[test_case(&["--build-arg", "A=glpat-abcdefghijklmnop"], "looks like a secret"; "secret value")]
    #[test_case(&["--build-arg", "ABSENT"], "no variable of this name"; "absent variable")]
    #[test_case(&["--build-arg", "A-B=1"], "is no name of a build argument"; "name")]
    #[test_case(&["--secret", "id=pip,src=/etc/shadow"], "does not have the form"; "secret from a file")]
    #[test_case(&["--secret", "id=../x,env=A"], "does not have the form"; "id with a path")]
    #[test_case(&["--secret", "glpat-abcdefghijklmnop"], "does not have the form"; "a value in the place of a name")]
    #[test_case(&["--repository", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/a:1"], "is no name of a repository"; "uri")]
    #[test_case(&["--repository", "Team"], "is no name of a repository"; "capital letter")]
    fn another_command_line_is_an_error(arguments: &[&str], said: &str) {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: SpecArgs,
        }
        let line = <Line as clap::Parser>::parse_from(["x"].iter().chain(arguments));
        let error = of(&line.args).unwrap_err();
        assert!(error.contains(said) && !error.contains("glpat"), "{error}");
    }

    #[test]
    fn the_manifest_is_asked_as_the_command_line() {
        let said = |image: ImageEntry| {
            let image = ImageEntry { repository: "team/train".to_owned(), ..image };
            let spec = BuildSpec::of(&SpecArgs::default(), &target(Some(image)), &environment());
            spec.unwrap_err().message().to_owned()
        };
        let pair = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let argument = said(ImageEntry { args: pair("PIP_PASSWORD", "x"), ..ImageEntry::default() });
        assert!(argument.contains("`PIP_PASSWORD` looks like a secret"), "{argument}");
        let secret = said(ImageEntry { secrets: pair("x,src=/etc/passwd", "V"), ..ImageEntry::default() });
        assert!(secret.contains("`x,src=/etc/passwd` is no id of a secret"), "{secret}");
    }

    #[test_case("ABSENT", "`ABSENT`, which is not set"; "absent")]
    #[test_case("SHORT", "cannot be masked"; "a short line")]
    fn a_secret_needs_a_value_that_can_be_masked(variable: &str, said: &str) {
        let args = SpecArgs { secret: vec![format!("id=a,env={variable}")], ..SpecArgs::default() };
        let Err(failure) = of(&args).unwrap().secret_values(&environment()) else { panic!("it has no value") };
        assert!(failure.message().contains(said) && !failure.message().contains("long enough"), "{failure}");
    }
}
