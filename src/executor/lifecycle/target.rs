//! Arguments that every command about a project has, and the part of the manifest that they select.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;

use super::CommandInputs;
use super::id_token::{JobToken, JobUser};
use super::manifest::{Endpoint, Manifest, ManifestText, ModelEntry};
use super::pipeline::Pipeline;
use super::tier;
use crate::base::arn::Arn;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{Access, EndpointKind, SettingsFile};
use crate::config::env::Environment;

const CI_ENVIRONMENT_TIER: &str = "CI_ENVIRONMENT_TIER";
const DEFAULT_MANIFEST: &str = "manifest.json";
/// The part of the manifest that only those who register, package or deploy a package use.
pub(super) const IMAGE: [&str; 1] = ["model.image"];

#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// The project's manifest
    #[arg(long, value_name = "FILE", default_value = DEFAULT_MANIFEST)]
    pub(crate) manifest: PathBuf,
    /// The entry of `environments` to use; `CI_ENVIRONMENT_NAME` when absent
    #[arg(long, visible_alias = "targets", value_name = "NAME")]
    pub(crate) environment: Option<String>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(super) struct ConnectionArgs {
    /// One endpoint for all services of AWS: an emulator, or a private network's. `AWS_ENDPOINT_URL` when absent and the job has no id
    /// token
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    /// PEM file with more root certificates. `AWS_CA_BUNDLE` when absent and the job has no id token
    #[arg(long, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
}

impl ConnectionArgs {
    /// The way to AWS, without region and bucket.
    pub(crate) fn access(&self, inputs: &CommandInputs) -> Access {
        let variable = |name: &str| inputs.env.get(name).map(str::to_owned);
        Access {
            endpoint_url: self.endpoint_url.clone().or_else(|| variable("AWS_ENDPOINT_URL")),
            ca_bundle: self.ca_bundle.clone().or_else(|| variable("AWS_CA_BUNDLE").map(PathBuf::from)),
            endpoints: EndpointKind {
                fips: inputs.env.is_on("AWS_USE_FIPS_ENDPOINT"),
                dual_stack: inputs.env.is_on("AWS_USE_DUALSTACK_ENDPOINT"),
            },
            settings: SettingsFile::Manifest,
            ..Access::default()
        }
    }

    /// The target of a command without a manifest.
    pub(crate) fn target(&self, inputs: &CommandInputs) -> ProjectTarget {
        ProjectTarget {
            manifest: Manifest::default(),
            folder: PathBuf::new(),
            environment: None,
            pipeline: Pipeline::of(&inputs.env),
            access: self.access(inputs),
        }
    }
}

/// The manifest as the environment makes it, and how its account is reached.
pub(crate) struct ProjectTarget {
    pub(crate) manifest: Manifest,
    /// The manifest's folder, to which its paths are relative.
    pub(crate) folder: PathBuf,
    /// The name of its environment.
    pub(crate) environment: Option<String>,
    pub(crate) pipeline: Pipeline,
    pub(crate) access: Access,
}

impl TargetArgs {
    /// The name of the environment: the option, or the job's own.
    pub(crate) fn environment(&self, inputs: &CommandInputs) -> Option<String> {
        let named = self.environment.clone().filter(|name| !name.is_empty());
        named.or_else(|| Pipeline::of(&inputs.env).environment)
    }

    /// Reads the manifest, with the entry of the environment applied.
    ///
    /// # Errors
    /// Failures of the user that name file and key.
    pub(crate) fn load(&self, inputs: &CommandInputs) -> anyhow::Result<ProjectTarget> {
        self.load_text(&ManifestText::read(&self.manifest)?, inputs)
    }

    /// As [`TargetArgs::load`], of a manifest whose text is known.
    pub(crate) fn load_text(&self, text: &ManifestText, inputs: &CommandInputs) -> anyhow::Result<ProjectTarget> {
        let environment = self.environment(inputs);
        let manifest = text.manifest(environment.as_deref(), &inputs.env)?;
        let folder = self.manifest.parent().unwrap_or(Path::new("")).to_owned();
        Ok(ProjectTarget { folder, ..self.target(manifest, environment, inputs) })
    }

    /// As [`TargetArgs::load`], for a command about versions and endpoints, which have their image already: mistakes in `model.image` do not
    /// count. Where the pipeline builds the image, only some jobs have its address.
    pub(crate) fn load_without_image(&self, inputs: &CommandInputs) -> anyhow::Result<ProjectTarget> {
        let environment = self.environment(inputs);
        let text = ManifestText::read(&self.manifest)?;
        let manifest = text.manifest_without(&IMAGE, environment.as_deref(), &inputs.env)?;
        let folder = self.manifest.parent().unwrap_or(Path::new("")).to_owned();
        Ok(ProjectTarget { folder, ..self.target(manifest, environment, inputs) })
    }

    /// As [`TargetArgs::load`]; an empty manifest when none is named and there is none. Mistakes in `model.image` do not count.
    pub(crate) fn load_if_present(&self, inputs: &CommandInputs) -> anyhow::Result<ProjectTarget> {
        self.load_without(&IMAGE, inputs)
    }

    /// As [`TargetArgs::load_if_present`]; mistakes in parts that the command does not use do not count. Such parts may name by variables
    /// what the command is yet to make.
    pub(crate) fn load_without(&self, unused: &[&str], inputs: &CommandInputs) -> anyhow::Result<ProjectTarget> {
        if self.is_absent() {
            if let Some(environment) = self.environment(inputs) {
                let environment = plain::line(&environment, 100);
                let failure =
                    Failure::user(format!("there is no {DEFAULT_MANIFEST} with the environment {environment}"));
                let hint = "let the job have the manifest, or leave out `--environment`, and `environment:` of the job, which sets `CI_ENVIRONMENT_NAME`";
                return Err(failure.hint(hint).into());
            }
            inputs.printer.line(format!("There is no {DEFAULT_MANIFEST}: what the command line says is used alone"));
            return Ok(self.target(Manifest::default(), None, inputs));
        }
        let environment = self.environment(inputs);
        let text = ManifestText::read(&self.manifest)?;
        let manifest = text.manifest_without(unused, environment.as_deref(), &inputs.env)?;
        let folder = self.manifest.parent().unwrap_or(Path::new("")).to_owned();
        Ok(ProjectTarget { folder, ..self.target(manifest, environment, inputs) })
    }

    /// As [`TargetArgs::load`]; an empty manifest when none is named and there is none, also where an environment is named.
    pub(crate) fn load_or_empty(&self, inputs: &CommandInputs) -> anyhow::Result<ProjectTarget> {
        if self.is_absent() {
            return Ok(self.target(Manifest::default(), self.environment(inputs), inputs));
        }
        self.load(inputs)
    }

    /// Tells whether the manifest is not named, and none is in the folder.
    fn is_absent(&self) -> bool {
        let found = std::fs::symlink_metadata(&self.manifest);
        self.manifest == Path::new(DEFAULT_MANIFEST) && found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    /// A manifest, with the way to the account of its environment.
    pub(crate) fn target(
        &self,
        manifest: Manifest,
        environment: Option<String>,
        inputs: &CommandInputs,
    ) -> ProjectTarget {
        let connection = self.connection.access(inputs);
        let EndpointKind { fips, dual_stack } = connection.endpoints;
        let endpoints = EndpointKind {
            fips: fips || manifest.target.use_fips_endpoint,
            dual_stack: dual_stack || manifest.target.use_dualstack_endpoint,
        };
        let access = Access {
            endpoints,
            region: manifest.target.region.clone(),
            bucket: manifest.target.bucket.clone().unwrap_or_default(),
            prefix: manifest.target.prefix.clone().unwrap_or_default(),
            kms_key_id: manifest.target.key.clone(),
            ..connection
        };
        ProjectTarget { manifest, folder: PathBuf::new(), environment, pipeline: Pipeline::of(&inputs.env), access }
    }
}

impl ProjectTarget {
    /// The account of the environment, which commands need that decide by the registry.
    ///
    /// # Errors
    /// No environment is named, or its entry has no account.
    pub(crate) fn require_account(&self) -> Result<&str, Failure> {
        let account = self.manifest.target.account.as_deref().filter(|_| self.environment.is_some());
        account.ok_or_else(|| self.unnamed("account"))
    }

    /// Works with the job's id token. Its project is proven by it; that of the variables is not.
    pub(crate) fn work_as(&mut self, token: JobToken) -> JobUser {
        let user = token.work_as(&mut self.access);
        if !user.project.is_empty() {
            self.pipeline.project = Some(user.project.clone());
        }
        user
    }

    /// Tells whether the environment takes approved versions alone.
    pub(crate) fn needs_approval(&self, env: &Environment) -> bool {
        let name = self.environment.as_deref().unwrap_or_default();
        tier::needs_approval(self.manifest.target.tier, name, env.get(CI_ENVIRONMENT_TIER))
    }

    /// Refuses an environment without a bucket.
    ///
    /// # Errors
    /// No environment is named, or its entry has no bucket.
    pub(crate) fn require_bucket(&self) -> Result<(), Failure> {
        let is_there = self.environment.is_some() && self.manifest.target.bucket.is_some();
        is_there.then_some(()).ok_or_else(|| self.unnamed("bucket"))
    }

    /// The failure of a command that needs a key of the environment's entry.
    pub(crate) fn unnamed(&self, key: &str) -> Failure {
        let failure = match &self.environment {
            Some(name) => Failure::user(format!("the environment {} has no `{key}`", plain::line(name, 100))),
            None => Failure::user(format!("no environment is named, so that there is no `{key}`")),
        };
        failure.hint(format!("set `environments.<name>.{key}` in the manifest, and give `--environment NAME`"))
    }

    /// The manifest's model.
    ///
    /// # Errors
    /// The manifest has none.
    pub(crate) fn model(&self) -> anyhow::Result<&ModelEntry> {
        self.manifest.model.as_ref().ok_or_else(|| {
            Failure::user("the manifest has no `model`")
                .hint("add `model` with `group` and `image` to the manifest")
                .into()
        })
    }

    /// The manifest's endpoint.
    ///
    /// # Errors
    /// The manifest has none.
    pub(crate) fn endpoint(&self) -> Result<&Endpoint, Failure> {
        self.manifest.endpoint.as_ref().ok_or_else(|| {
            Failure::user("the manifest has no `endpoint`").hint("add `endpoint` with `name` to the manifest")
        })
    }

    /// Refuses credentials of another account than the manifest's, which must name one: what is absent in another account may exist
    /// in the right one.
    pub(crate) async fn check_account(&self, inputs: &CommandInputs) -> anyhow::Result<()> {
        let expected = self.require_account()?;
        let caller = inputs.connect.identity(&self.access).await?.arn().await?;
        let actual = Arn::parse(&caller).map(|arn| arn.account).unwrap_or_default();
        if actual == expected {
            return Ok(());
        }
        let failure =
            Failure::user(format!("the credentials are of account {}, not {expected}", plain::line(actual, 20)));
        Err(failure.hint("change `environments.<name>.account` in the manifest, or the job's credentials").into())
    }
}
