//! Finds a version: by its ARN or number, the newest one, or the one with a certain content.

use std::time::Duration;

use backon::BackoffBuilder as _;
use clap::Args;
use tokio::time::Instant;

use super::lineage::{CONTENT, mark};
use crate::base::arn::Arn;
use crate::base::backoff::backoff;
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{Approval, ModelRegistry, ModelVersion, RegistrationState, VersionSummary};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::target::ProjectTarget;
use crate::lifecycle::version_arn;

const MODEL_PACKAGE_ARN: &str = "MODEL_PACKAGE_ARN";
/// Pages that are searched for a content: the versions of a pipeline are among the newest.
const PAGES: usize = 3;
/// Time until a version is completed.
const LONGEST_WAIT: Duration = Duration::from_mins(15);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct VersionArgs {
    /// The version's ARN; `MODEL_PACKAGE_ARN` when no version is named
    #[arg(long, value_name = "ARN")]
    model_package: Option<String>,
    /// The version's number in the manifest's group
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    /// The newest version of the manifest's group
    #[arg(long)]
    latest: bool,
}

/// A version that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VersionChoice {
    Arn(String),
    Number(u32),
    Newest,
    NewestApproved,
}

impl VersionArgs {
    /// The choice. An ARN must be of the manifest's group and place.
    pub(super) fn read(&self, inputs: &CommandInputs, target: &ProjectTarget) -> anyhow::Result<VersionChoice> {
        self.named(inputs, target)?.ok_or_else(|| {
            Failure::user("no version is named")
                .hint("give `--model-package ARN`, `--version NUMBER` or `--latest`, or set `MODEL_PACKAGE_ARN`")
                .into()
        })
    }

    /// As [`VersionArgs::read`]; `None` when no version is named.
    pub(crate) fn named(
        &self,
        inputs: &CommandInputs,
        target: &ProjectTarget,
    ) -> anyhow::Result<Option<VersionChoice>> {
        if self.latest {
            return Ok(Some(VersionChoice::Newest));
        }
        if let Some(number) = self.version {
            return Ok(Some(VersionChoice::Number(number)));
        }
        let (arn, named) = match (&self.model_package, inputs.env.get(MODEL_PACKAGE_ARN)) {
            (Some(arn), _) => (arn.as_str(), "--model-package"),
            (None, Some(arn)) => (arn, MODEL_PACKAGE_ARN),
            (None, None) => return Ok(None),
        };
        version_arn::check(arn, target)
            .map_err(|what| Failure::user(format!("`{named}` is {}, {what}", plain::line(arn, 300))))?;
        Ok(Some(VersionChoice::Arn(arn.to_owned())))
    }
}

impl VersionChoice {
    /// The region in which to look, if the choice tells it.
    pub(crate) fn region(&self) -> Option<String> {
        match self {
            Self::Arn(arn) => Arn::parse(arn).map(|arn| arn.region.to_owned()),
            Self::Number(_) | Self::Newest | Self::NewestApproved => None,
        }
    }

    /// The version as AWS describes it.
    pub(crate) async fn find(
        &self,
        registry: &dyn ModelRegistry,
        target: &ProjectTarget,
    ) -> anyhow::Result<ModelVersion> {
        let arn = match self {
            Self::Arn(arn) => arn.clone(),
            Self::Newest => newest(registry, &target.model()?.group, None).await?.arn,
            Self::NewestApproved => newest(registry, &target.model()?.group, Some(Approval::Approved)).await?.arn,
            Self::Number(number) => {
                let group = &target.model()?.group;
                let arn = registry.group(group).await?.ok_or_else(|| absent_group(group))?;
                let begin = Arn::parse(&arn).map(|arn| arn.without_resource()).unwrap_or_default();
                format!("{begin}:model-package/{group}/{number}")
            }
        };
        registry.version(&arn).await?.ok_or_else(|| {
            let failure = Failure::user(format!("the registry has no version {}", plain::line(&arn, 300)));
            failure.hint("`sagemaker-executor model latest --status any` names the newest one").into()
        })
    }
}

fn absent_group(group: &str) -> Failure {
    Failure::user(format!("the registry has no model package group `{group}`"))
        .hint("check `model.group` in the manifest; `sagemaker-executor model register` makes the group")
}

/// The newest version that SageMaker has completed.
///
/// # Errors
/// There is none.
pub(super) async fn newest(
    registry: &dyn ModelRegistry,
    group: &str,
    approval: Option<Approval>,
) -> anyhow::Result<VersionSummary> {
    let mut page = None;
    loop {
        let found = registry.versions(group, approval, page).await?;
        if let Some(version) = found.versions.into_iter().find(|version| version.state == RegistrationState::Completed)
        {
            return Ok(version);
        }
        page = found.next;
        if page.is_none() {
            let status = approval.map(|approval| format!(" with the status {}", approval.name())).unwrap_or_default();
            let failure = Failure::user(format!("the group `{group}` has no version{status}"));
            return Err(failure
                .hint("`sagemaker-executor model latest --status any` looks for versions of any status")
                .into());
        }
    }
}

/// The version with the content of this token, among the newest of the group.
pub(super) async fn with_content(
    registry: &dyn ModelRegistry,
    group: &str,
    token: &str,
) -> anyhow::Result<Option<ModelVersion>> {
    let (mark, mut page) = (mark(token), None);
    for _ in 0..PAGES {
        let found = registry.versions(group, None, page).await?;
        for version in found.versions.iter().filter(|version| version.description.ends_with(&mark)) {
            let version = registry.version(&version.arn).await?;
            let is_meant = |version: &ModelVersion| {
                version.metadata.get(CONTENT).is_some_and(|content| content == token)
                    && version.state != RegistrationState::Deleting
            };
            if let Some(version) = version.filter(is_meant) {
                return Ok(Some(version));
            }
        }
        page = found.next;
        if page.is_none() {
            break;
        }
    }
    Ok(None)
}

/// Waits until SageMaker has completed the version.
///
/// # Errors
/// SageMaker fails, with its reasons, or takes too long.
pub(crate) async fn completed(registry: &dyn ModelRegistry, arn: &str) -> anyhow::Result<ModelVersion> {
    let end = Instant::now() + LONGEST_WAIT;
    let mut pauses = backoff(FIRST_PAUSE, LONGEST_PAUSE).build();
    loop {
        // A version that was just made may not be shown yet.
        match registry.version(arn).await? {
            Some(version) if version.state == RegistrationState::Completed => return Ok(version),
            Some(ModelVersion { state: RegistrationState::Failed(reasons), .. }) => {
                let reasons = if reasons.is_empty() { "AWS gives no reason".to_owned() } else { reasons };
                let (arn, reasons) = (plain::line(arn, 300), plain::line(&reasons, 2048));
                let failure = Failure::user(format!("SageMaker failed to register {arn}: {reasons}"));
                return Err(failure
                    .hint("repair the cause, and run the same command again: it makes another version")
                    .into());
            }
            Some(ModelVersion { state: RegistrationState::Deleting, .. }) => {
                return Err(Failure::user(format!("{} is being deleted", plain::line(arn, 300))).into());
            }
            Some(_) | None => {}
        }
        let Some(pause) = pauses.next().filter(|pause| Instant::now() + *pause < end) else {
            let failure =
                Failure::verdict(exit_codes::TRY_LATER, format!("{} is not completed yet", plain::line(arn, 300)));
            return Err(failure.hint("run the same command again: it goes on with the wait").into());
        };
        tokio::time::sleep(pause).await;
    }
}
