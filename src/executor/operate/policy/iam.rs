//! `sagemaker-executor policy iam`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::base::failure::Failure;
use crate::config::settings::Settings;
use crate::iam;
use crate::ui::Printer;

#[derive(Debug, Args)]
pub(super) struct IamArgs {
    /// Write each policy into a file of this directory instead, and replace the files that are there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &IamArgs, settings: &Settings, printer: &Printer) -> anyhow::Result<()> {
    let policies = iam::policies(settings)?;
    for (name, policy) in &policies {
        check_size(name, serde_json::to_string(policy)?.len())?;
    }
    for role in iam::roles_beside_the_endpoints(settings) {
        printer.warn(format!(
            "the bucket's policy does not keep {role} to `iam.vpc_endpoint_ids`: a rule without a VPC allows it too; give rules with \
             `allow.subnets` roles of their own"
        ));
    }
    let Some(folder) = &args.out else {
        let text = serde_json::to_string_pretty(&policies)?;
        return Ok(printer.write_data(format!("{text}\n").as_bytes())?);
    };
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    for (name, policy) in &policies {
        let path = folder.join(name);
        std::fs::write(&path, iam::file_text(policy)?)
            .with_context(|| format!("failed to write {}", path.display()))?;
        printer.line(format!("Wrote {}", path.display()));
    }
    Ok(())
}

/// Longest policy in a role, in characters without blanks (IAM quotas): all inline policies of a role together.
const OF_A_ROLE: usize = 10_240;
/// Longest trust policy, as far as the quota can be raised.
const OF_A_TRUST: usize = 4_096;
/// Longest policy of a bucket, in bytes (S3).
const OF_A_BUCKET: usize = 20_480;
/// Longest policy of a key, in bytes (KMS).
const OF_A_KEY: usize = 32_768;

fn check_size(name: &str, size: usize) -> Result<(), Failure> {
    let most = match name {
        name if name.starts_with("bucket") => OF_A_BUCKET,
        name if name.contains("key") => OF_A_KEY,
        name if name.ends_with("-trust.json") => OF_A_TRUST,
        _ => OF_A_ROLE,
    };
    if size <= most {
        return Ok(());
    }
    Err(Failure::system(format!("the policy {name} has {size} characters, and AWS takes {most} at most")).hint(
        "name fewer `allow.roles`, `allow.images` and `allow.subnets` in `[[rules]]`: patterns such as `<registry>/team/**` in place of single images, \
         or another runner host with an operator's file of its own",
    ))
}
