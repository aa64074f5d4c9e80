//! `sagemaker-executor model latest`: finds the newest version, or one by its number.

use clap::{Args, ValueEnum};

use super::version_data::VersionData;
use super::versions::{VersionChoice, newest};
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{Approval, ModelRegistry, ModelVersion, RegistrationState};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::IdentityArgs;
use crate::lifecycle::output::OutputArgs;
use crate::lifecycle::target::{ProjectTarget, TargetArgs};

#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
pub(super) struct LatestArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Status of the version
    #[arg(long, value_name = "STATUS", default_value = "approved")]
    status: Status,
    /// The version with this number in the place of the newest one; it must have the status
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    Approved,
    Pending,
    Rejected,
    Any,
}

pub(super) async fn run(inputs: &CommandInputs, args: LatestArgs) -> anyhow::Result<()> {
    args.output.check(std::slice::from_ref(&args.target.manifest))?;
    let mut target = args.target.load_without_image(inputs)?;
    if let Some(token) = args.identity.token(inputs, &target)? {
        token.work_as(&mut target.access);
    }
    let model = target.model()?;
    let approval = match args.status {
        Status::Approved => Some(Approval::Approved),
        Status::Pending => Some(Approval::Pending),
        Status::Rejected => Some(Approval::Rejected),
        Status::Any => None,
    };
    target.check_account(inputs).await?;
    let registry = inputs.connect.registry(&target.access).await?;
    let version = if let Some(number) = args.version {
        numbered(&*registry, &target, number, approval).await?
    } else {
        let found = newest(&*registry, &model.group, approval).await?;
        let version = registry.version(&found.arn).await?;
        version.ok_or_else(|| Failure::user(format!("{} was deleted meanwhile", found.arn)))?
    };
    args.output.leave(&VersionData::new("found", &version), &inputs.printer)
}

/// The version with this number, if SageMaker has completed it and it has the status.
async fn numbered(
    registry: &dyn ModelRegistry,
    target: &ProjectTarget,
    number: u32,
    approval: Option<Approval>,
) -> anyhow::Result<ModelVersion> {
    let version = VersionChoice::Number(number).find(registry, target).await?;
    let arn = plain::line(&version.arn, 300);
    if version.state != RegistrationState::Completed {
        let failure = Failure::user(format!("SageMaker has not completed {arn}"));
        return Err(failure.hint("give `--version` another number, or run the command again later").into());
    }
    match approval {
        Some(wanted) if wanted != version.approval => {
            let (is, wanted) = (version.approval.name(), wanted.name());
            let failure = Failure::user(format!("{arn} has the status {is}, not {wanted}"));
            Err(failure.hint(format!("approve it with `sagemaker-executor model approve --version {number}`, give `--version` another number, or `--status any`")).into())
        }
        _ => Ok(version),
    }
}
