//! `credentials trust-policy`: whom the role of an environment trusts. Pure but for the manifest.

use clap::Args;
use serde_json::{Value, json};

use super::issuer_keys::check_issuer;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::lifecycle::identity::IdentityArgs;
use crate::lifecycle::target::{ProjectTarget, TargetArgs};
use crate::lifecycle::{CommandInputs, region};

#[derive(Debug, Args)]
pub(super) struct TrustPolicyArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Account of the role, where the manifest has none for the environment
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// Project whose jobs may assume the role; `CI_PROJECT_PATH` when absent
    #[arg(long, value_name = "GROUP/PROJECT")]
    project: Option<String>,
    /// Branch whose jobs may assume the role; may be repeated. `CI_DEFAULT_BRANCH` when nothing else is named
    #[arg(long = "branch", value_name = "NAME")]
    branches: Vec<String>,
    /// Tag whose jobs may assume the role; may be repeated
    #[arg(long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// The whole `sub` of a job, where the project's id tokens have another one than GitLab's default; may be repeated
    #[arg(long = "subject", value_name = "TEXT")]
    subjects: Vec<String>,
    /// Let the jobs of all branches assume the role, merge requests among them. Not for production
    #[arg(long, conflicts_with_all = ["branches", "tags", "subjects"])]
    any_branch: bool,
    /// `iss` of the id tokens; that of this job's token, else `CI_SERVER_URL`, when absent
    #[arg(long, value_name = "URL")]
    issuer_url: Option<String>,
    /// `aud` of the id tokens
    #[arg(long, value_name = "TEXT", default_value = "sts.amazonaws.com")]
    audience: String,
}

/// The jobs that a role trusts.
#[derive(Debug)]
struct Trusted<'a> {
    partition: &'a str,
    account: &'a str,
    /// Without `https://`.
    issuer: &'a str,
    audience: &'a str,
    /// Exact texts, or one pattern.
    subjects: Vec<String>,
    is_pattern: bool,
}

impl Trusted<'_> {
    fn policy(&self) -> Value {
        let Self { partition, account, issuer, audience, subjects, is_pattern } = self;
        let (subject, audience) =
            (json!({format!("{issuer}:sub"): subjects}), json!({format!("{issuer}:aud"): audience}));
        let condition = if *is_pattern {
            json!({"StringEquals": audience, "StringLike": subject})
        } else {
            json!({"StringEquals": {format!("{issuer}:aud"): self.audience, format!("{issuer}:sub"): subjects}})
        };
        json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Sid": "JobsOfTheProject",
                "Effect": "Allow",
                "Principal": {"Federated": format!("arn:{partition}:iam::{account}:oidc-provider/{issuer}")},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": condition,
            }],
        })
    }
}

/// Refuses what IAM would read as a pattern or a variable, or what is no name at all.
fn check(what: &str, text: &str) -> Result<(), Failure> {
    let is_plain = |one: char| !one.is_control() && !"*?$".contains(one);
    if !text.trim().is_empty() && text.len() <= 1_000 && text.chars().all(is_plain) {
        return Ok(());
    }
    let failure = Failure::user(format!("{what} cannot be trusted exactly: {}", plain::line(text, 100)));
    Err(failure
        .hint("name it without `*`, `?` and `$`, which IAM reads as patterns; for all branches give `--any-branch`"))
}

fn subjects(args: &TrustPolicyArgs, inputs: &CommandInputs) -> Result<Vec<String>, Failure> {
    let project = args.project.as_deref().or_else(|| inputs.env.get("CI_PROJECT_PATH"));
    // Subjects that are given whole name no project.
    let is_used = args.subjects.is_empty() || !args.branches.is_empty() || !args.tags.is_empty();
    let Some(project) = project.or((!is_used).then_some("")) else {
        let failure = Failure::user("no project is named");
        return Err(
            failure.hint("give `--project GROUP/PROJECT`, or run the command in a job, which has `CI_PROJECT_PATH`")
        );
    };
    if is_used {
        check("the project", project)?;
    }
    if args.any_branch {
        return Ok(vec![format!("project_path:{project}:ref_type:branch:ref:*")]);
    }
    let mut branches = args.branches.clone();
    if branches.is_empty() && args.tags.is_empty() && args.subjects.is_empty() {
        let failure = Failure::user("no branch is named");
        let default = inputs.env.get("CI_DEFAULT_BRANCH").map(str::to_owned);
        branches.push(default.ok_or_else(|| failure.hint("give `--branch NAME`, `--tag NAME` or `--any-branch`"))?);
    }
    let of = |kind: &str, names: &[String]| {
        let subject = |name: &String| {
            check(&format!("the {kind}"), name)?;
            Ok(format!("project_path:{project}:ref_type:{kind}:ref:{name}"))
        };
        names.iter().map(subject).collect::<Result<Vec<_>, Failure>>()
    };
    for subject in &args.subjects {
        check("the subject", subject)?;
    }
    Ok([of("branch", &branches)?, of("tag", &args.tags)?, args.subjects.clone()].concat())
}

fn account<'a>(args: &'a TrustPolicyArgs, target: &'a ProjectTarget) -> Result<&'a str, Failure> {
    let account = args.account.as_deref().or(target.manifest.target.account.as_deref());
    let is_account = |id: &&str| id.len() == 12 && id.bytes().all(|digit| digit.is_ascii_digit());
    account.filter(is_account).ok_or_else(|| {
        let failure = Failure::user("no account of twelve digits is named");
        failure.hint("give `--environment NAME` of an entry with `account` in the manifest, or `--account ID`")
    })
}

pub(super) fn run(inputs: &CommandInputs, args: &TrustPolicyArgs) -> anyhow::Result<()> {
    let target = args.target.load_or_empty(inputs)?;
    if args.any_branch && target.needs_approval(&inputs.env) {
        let name = target.environment.as_deref().map(|name| plain::line(name, 100));
        let whose = name.map_or("an environment without a name, which may be production,".to_owned(), |name| name);
        let failure = Failure::user(format!(
            "the role of {whose} cannot trust all branches: anybody who may push one would get it"
        ));
        let failure = match &target.environment {
            Some(_) => failure.hint("give `--branch` with a protected branch, in place of `--any-branch`"),
            None => failure.hint("name the environment by `--environment`, or give `--branch` with a protected branch in place of `--any-branch`"),
        };
        return Err(failure.into());
    }
    let of_job = args.identity.claims(&inputs.env).and_then(|token| token.issuer());
    let issuer = args.issuer_url.clone().or(of_job).or_else(|| inputs.env.get("CI_SERVER_URL").map(str::to_owned));
    let issuer = issuer.ok_or_else(|| {
        Failure::user("the issuer of the id tokens is not known")
            .hint("give `--issuer-url`, the address of GitLab or of its published keys")
    })?;
    let issuer = check_issuer(&issuer)?;
    check("the audience", &args.audience)?;
    let region = target.manifest.target.region.as_deref().or_else(|| inputs.env.get("AWS_REGION")).unwrap_or_default();
    let trusted = Trusted {
        partition: region::partition(region),
        account: account(args, &target)?,
        issuer: issuer.trim_start_matches("https://"),
        audience: &args.audience,
        subjects: subjects(args, inputs)?,
        is_pattern: args.any_branch,
    };
    let text = serde_json::to_string_pretty(&trusted.policy())?;
    Ok(inputs.printer.write_data(format!("{text}\n").as_bytes())?)
}
