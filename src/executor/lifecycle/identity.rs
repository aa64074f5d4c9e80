//! The GitLab user who runs a command, from the job's id token.
//!
//! A job can write anything into a variable, so the claims count only when AWS has accepted the token: the command works with
//! the credentials that AWS gave for it.

use base64_simd::URL_SAFE_NO_PAD;
use clap::Args;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::CommandInputs;
use super::hex::hex;
use crate::base::arn::Arn;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{Access, WebIdentity};

const ROLE_ARN: &str = "AWS_ROLE_ARN";
/// Variables that decide who answers in the place of AWS, by their begins. Who starts a pipeline can set them: another server accepts
/// every token, and gets to know the real one.
const REDIRECTING: [&str; 2] = ["AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"];

#[derive(Debug, Args)]
pub(super) struct IdentityArgs {
    /// Variable with the job's id token, which `id_tokens:` makes
    #[arg(long, value_name = "VARIABLE", default_value = "SAGEMAKER_ID_TOKEN")]
    id_token_env: String,
    /// Role to assume with the id token; `AWS_ROLE_ARN` when absent
    #[arg(long, value_name = "ARN")]
    role_arn: Option<String>,
}

/// A token with the claims that it makes.
pub(crate) struct JobToken {
    identity: WebIdentity,
    user: JobUser,
}

/// The user of a job, as GitLab says in its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobUser {
    /// Digits. Names can be changed, and taken by others.
    pub(crate) id: String,
    /// The begin of the hash of the token's issuer: users of two GitLab servers can have one id.
    pub(crate) issuer: String,
    pub(crate) login: String,
    pub(crate) project: String,
    pub(crate) pipeline: String,
    pub(crate) job: String,
}

impl IdentityArgs {
    /// The job's token; `None` when it has none.
    ///
    /// # Errors
    /// The token is none of GitLab, there is no role to assume with it, or a variable may lead it to another server.
    pub(crate) fn token(&self, inputs: &CommandInputs) -> anyhow::Result<Option<JobToken>> {
        let Some(token) = inputs.env.get(&self.id_token_env) else { return Ok(None) };
        let user = user_of(token).ok_or_else(|| {
            Failure::user(format!("`{}` holds no id token of GitLab", self.id_token_env)).hint(self.example())
        })?;
        let mut names = inputs.env.all().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name);
        if let Some(name) = names.find(|name| REDIRECTING.iter().any(|begin| name.starts_with(begin))) {
            let name = plain::line(&name, 100);
            let failure = Failure::user(format!(
                "`{name}` is set: a variable must not choose the server that accepts the job's id token"
            ));
            return Err(failure
                .hint(format!("remove `{name}`; for an emulator or a private network give `--endpoint-url URL` and `--ca-bundle FILE`"))
                .into());
        }
        let role_arn = self.role_arn.as_deref().or_else(|| inputs.env.get(ROLE_ARN)).unwrap_or_default();
        if Arn::parse(role_arn).is_none_or(|arn| arn.service != "iam" || !arn.resource.starts_with("role/")) {
            let failure = Failure::user("there is no role to assume with the id token");
            return Err(failure
                .hint(format!("set `{ROLE_ARN}` in the job, or `--role-arn`, to the ARN of a role"))
                .into());
        }
        let identity = WebIdentity {
            role_arn: role_arn.to_owned(),
            token: token.to_owned(),
            session_name: format!("gitlab-user-{}-job-{}", user.id, user.job),
        };
        Ok(Some(JobToken { identity, user }))
    }

    /// As [`IdentityArgs::token`], for a command that needs one.
    ///
    /// # Errors
    /// There is no token.
    pub(crate) fn required(&self, inputs: &CommandInputs) -> anyhow::Result<JobToken> {
        self.token(inputs)?.ok_or_else(|| {
            Failure::user(format!(
                "the job has no id token, which says who approves: `{}` is not set",
                self.id_token_env
            ))
            .hint(self.example())
            .into()
        })
    }

    fn example(&self) -> String {
        let name = &self.id_token_env;
        format!(
            "add to the job: `id_tokens: {{{name}: {{aud: sts.amazonaws.com}}}}`, with the audience that the role trusts"
        )
    }
}

impl JobUser {
    /// Tells the user from every other one.
    pub(crate) fn key(&self) -> String {
        format!("{}@{}", self.id, self.issuer)
    }
}

impl JobToken {
    /// Makes `access` use the token. The user is proven as soon as a port was made with it.
    pub(crate) fn work_as(self, access: &mut Access) -> JobUser {
        access.web_identity = Some(self.identity);
        self.user
    }
}

/// The claims of the token's second part. AWS checks the signature.
fn user_of(token: &str) -> Option<JobUser> {
    let mut parts = token.trim().split('.');
    let (_, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    let claims = URL_SAFE_NO_PAD.decode_to_vec(claims.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let text = |name: &str| match claims.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    // They become parts of names.
    let id = |name: &str| {
        text(name).filter(|id| !id.is_empty() && id.len() <= 20 && id.bytes().all(|byte| byte.is_ascii_digit()))
    };
    Some(JobUser {
        id: id("user_id")?,
        issuer: hex(&Sha256::digest(text("iss")?)[..4]),
        login: text("user_login")?,
        project: text("project_path").unwrap_or_default(),
        pipeline: id("pipeline_id")?,
        job: id("job_id")?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode_to_string(claims.to_string()))
    }

    #[test]
    fn the_user_is_that_of_the_claims() {
        let claims = json!({"iss": "https://gitlab.com", "user_id": "42", "user_login": "jane", "project_path": "g/p", "pipeline_id": "7", "job_id": 8});
        let user = user_of(&token(&claims)).unwrap();
        assert_eq!((user.key().as_str(), user.login.as_str(), user.job.as_str()), ("42@e7be96a5", "jane", "8"));
    }

    #[test]
    fn other_texts_have_no_user() {
        let base = json!({"iss": "https://gitlab.com", "user_id": "42", "user_login": "jane", "pipeline_id": "7", "job_id": "8"});
        let with = |name: &str, value: Value| {
            let mut claims = base.clone();
            claims[name] = value;
            token(&claims)
        };
        for text in [
            String::new(),
            "glpat-abc".to_owned(),
            "a.b.c".to_owned(),
            format!("{}.more", token(&base)),
            with("user_id", json!("42 user=other")),
            with("user_id", Value::Null),
            with("iss", Value::Null),
            with("job_id", json!([1])),
            with("pipeline_id", json!("")),
        ] {
            assert_eq!(user_of(&text), None, "{text}");
        }
    }
}
