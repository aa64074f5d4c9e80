//! The GitLab user who runs a command, from the job's id token.
//!
//! A job can write anything into a variable, so the claims count only when AWS has accepted the token: the command works with
//! the credentials that AWS gave for it.

use clap::Args;

pub(crate) use super::id_token::{JobToken, JobUser};

use super::CommandInputs;
use super::id_token::{JobIdToken, session_name};
use super::target::ProjectTarget;
use super::{redirecting, region};
use crate::base::arn::Arn;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::WebIdentity;
use crate::config::env::Environment;

/// Variables of the id token that are looked for in this order, unless the command line names another one.
const ID_TOKENS: [&str; 2] = ["SAGEMAKER_ID_TOKEN", "AWS_ID_TOKEN"];
const ROLE_ARN: &str = "AWS_ROLE_ARN";
#[derive(Debug, Args)]
pub(super) struct IdentityArgs {
    /// Variable with the job's id token, which `id_tokens:` makes; `SAGEMAKER_ID_TOKEN`, else `AWS_ID_TOKEN`, when absent
    #[arg(long, value_name = "VARIABLE")]
    id_token_env: Option<String>,
    /// Role to assume with the id token; `environments.<name>.job_role` of the manifest, else `AWS_ROLE_ARN`, when absent
    #[arg(long, value_name = "ARN")]
    role_arn: Option<String>,
}

impl IdentityArgs {
    /// The variable of the token, and its value where it is set.
    fn variable<'a>(&'a self, env: &'a Environment) -> (&'a str, Option<&'a str>) {
        let names = self.id_token_env.as_deref().map_or_else(|| ID_TOKENS.to_vec(), |name| vec![name]);
        let set = names.iter().find_map(|name| Some((*name, env.get(name)?)));
        set.map_or((names.first().copied().unwrap_or_default(), None), |(name, value)| (name, Some(value)))
    }

    /// The job's token as it is, where it has one.
    pub(crate) fn text<'a>(&'a self, env: &'a Environment) -> Option<&'a str> {
        self.variable(env).1
    }

    /// The claims of the job's token, without a role to use it for; `None` when the job has none.
    pub(crate) fn claims(&self, env: &Environment) -> Option<JobIdToken> {
        self.variable(env).1.and_then(JobIdToken::parse)
    }

    /// The job's token; `None` when it has none.
    ///
    /// # Errors
    /// The token is none of GitLab, there is no role of the environment's account to assume with it, or a variable may lead it to
    /// another server.
    pub(crate) fn token(&self, inputs: &CommandInputs, target: &ProjectTarget) -> anyhow::Result<Option<JobToken>> {
        let (name, Some(text)) = self.variable(&inputs.env) else { return Ok(None) };
        let read = JobIdToken::parse(text).and_then(|token| Some((token.user()?, token.shown())));
        let Some((user, claims)) = read else {
            let failure = Failure::user(format!("`{name}` holds no id token of GitLab"));
            return Err(failure.hint(example(name)).into());
        };
        redirecting::refuse(&inputs.env, "accepts the job's id token")?;
        let role_arn = self.role(&inputs.env, target)?.to_owned();
        let identity =
            WebIdentity { role_arn, token: text.trim().to_owned(), session_name: session_name(&user), claims };
        Ok(Some(JobToken::new(identity, user)))
    }

    /// As [`IdentityArgs::token`], for a command that needs one to know the user.
    ///
    /// # Errors
    /// There is no token.
    pub(crate) fn required(&self, inputs: &CommandInputs, target: &ProjectTarget) -> anyhow::Result<JobToken> {
        self.token(inputs, target)?
            .ok_or_else(|| self.absent(&inputs.env, "the job has no id token, which says who approves").into())
    }

    /// The failure of a command that needs a token.
    pub(crate) fn absent(&self, env: &Environment, what: &str) -> Failure {
        let name = self.variable(env).0;
        Failure::user(format!("{what}: `{name}` is not set")).hint(example(name))
    }

    /// The role of the environment.
    fn role<'a>(&'a self, env: &'a Environment, target: &'a ProjectTarget) -> Result<&'a str, Failure> {
        let of_target = &target.manifest.target;
        let named = self.role_arn.as_deref().or(of_target.job_role.as_deref()).or_else(|| env.get(ROLE_ARN));
        let named = named.unwrap_or_default();
        let is_role = |arn: &Arn| {
            let is_account = arn.account.len() == 12 && arn.account.bytes().all(|digit| digit.is_ascii_digit());
            // It becomes a part of messages.
            let is_one_word = named.bytes().all(|letter| letter.is_ascii_graphic());
            is_one_word
                && arn.partition.starts_with("aws")
                && arn.service == "iam"
                && is_account
                && arn.resource.starts_with("role/")
        };
        let Some(role) = Arn::parse(named).filter(is_role) else {
            let failure = Failure::user("there is no role to assume with the id token");
            let hint = format!(
                "set `{ROLE_ARN}` in the job, `environments.<name>.job_role` in the manifest, or `--role-arn`, to the ARN of a role"
            );
            return Err(failure.hint(hint));
        };
        let elsewhere = |what: &str, of_role: &str, own: &str| {
            let named = plain::line(named, 200);
            let failure =
                Failure::user(format!("the role {named} is of {what} {of_role}, and the environment of {own}"));
            failure.hint(format!(
                "name a role of {what} {own} in `{ROLE_ARN}`, which can have another value for each environment of GitLab, in \
                 `environments.<name>.job_role` of the manifest, or in `--role-arn`"
            ))
        };
        if let Some(account) = of_target.account.as_deref().filter(|account| *account != role.account) {
            return Err(elsewhere("the account", role.account, account));
        }
        let partition = of_target.region.as_deref().map(region::partition);
        match partition.filter(|partition| *partition != role.partition) {
            Some(partition) => Err(elsewhere("the partition", &plain::line(role.partition, 20), partition)),
            None => Ok(named),
        }
    }
}

fn example(name: &str) -> String {
    format!(
        "add to the job: `id_tokens: {{{name}: {{aud: sts.amazonaws.com}}}}`, with the audience that the role trusts"
    )
}

#[cfg(test)]
mod tests;
