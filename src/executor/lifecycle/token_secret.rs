//! The access token of a command, from a secret of AWS Secrets Manager: `{gitlab_url, gitlab_token, gitlab_project_id}`.
//!
//! The secret itself says for which GitLab its token is. Who starts a pipeline can set `CI_API_V4_URL`, and the token would go there;
//! and variables that name proxies and certificate authorities, behind which another server would read secret and token.

use std::path::PathBuf;

use clap::Args;

use super::CommandInputs;
use super::gitlab::GitLabProject;
use super::identity::IdentityArgs;
use super::redirecting;
use super::target::ProjectTarget;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::Access;
use crate::config::env::Environment;
use crate::secrets::{self, FORM, Reader, SecretReference, SecretRequest};

/// In place of `--token-secret`.
pub(super) const TOKEN_SECRET_VARIABLE: &str = "GITLAB_TOKEN_SECRET";
const URL_FIELD: &str = "gitlab_url";
const TOKEN_FIELD: &str = "gitlab_token";
const PROJECT_FIELD: &str = "gitlab_project_id";

#[derive(Debug, Default, Args)]
pub(super) struct TokenSecretArgs {
    /// Secret of AWS Secrets Manager with an access token, as `ci/gitlab#gitlab_token`: a JSON object that also has `gitlab_url` and
    /// `gitlab_project_id`, which must be those of the job. `GITLAB_TOKEN_SECRET` when absent
    #[arg(long, value_name = "ID#FIELD")]
    token_secret: Option<String>,
    /// PEM file with more certificate authorities of GitLab, for the token of a secret: it goes to no server that a variable such as
    /// `CI_SERVER_TLS_CA_FILE` vouches for
    #[arg(long, value_name = "FILE")]
    gitlab_ca_file: Option<PathBuf>,
}

impl TokenSecretArgs {
    /// The project in GitLab, with the token; `None` when no secret is named. The role of the job's id token reads the secret where the
    /// job has one.
    ///
    /// # Errors
    /// The secret cannot be read, lacks a field, or is for another GitLab or project; or a variable may lead it to another server.
    pub(super) async fn project(
        &self,
        inputs: &CommandInputs,
        identity: &IdentityArgs,
        target: &ProjectTarget,
    ) -> anyhow::Result<Option<GitLabProject>> {
        let env = &inputs.env;
        let named = self.token_secret.as_deref().or_else(|| env.get(TOKEN_SECRET_VARIABLE)).map(str::trim);
        let Some(text) = named.filter(|text| !text.is_empty()) else { return Ok(None) };
        let reference = SecretReference::parse(text).map_err(|why| {
            Failure::user(format!("`{TOKEN_SECRET_VARIABLE}` {why}")).hint(format!("`{TOKEN_SECRET_VARIABLE}`: {FORM}"))
        })?;
        let token_field = reference.field.clone().unwrap_or_else(|| TOKEN_FIELD.to_owned());
        let request = |field: &str| SecretRequest {
            set_by: TOKEN_SECRET_VARIABLE.to_owned(),
            reference: SecretReference { field: Some(field.to_owned()), ..reference.clone() },
        };
        let mut access = Access { fixed_servers: true, ..target.access.clone() };
        redirecting::refuse(env, "reads the secret")?;
        if let Some(token) = identity.token(inputs, target)? {
            token.work_as(&mut access);
        }
        let store = inputs.connect.secrets(&access).await?;
        let requests = [request(&token_field), request(URL_FIELD), request(PROJECT_FIELD)];
        let values = secrets::read(&*store, &requests, Reader::Job).await?;
        let [token, url, project] = values.as_slice() else {
            anyhow::bail!("a secret has other fields than were asked for")
        };
        check(env, &reference.id, url.text(), project.text())?;
        let (token, ca_file) = (token.text().trim().to_owned(), self.gitlab_ca_file.clone());
        Ok(Some(GitLabProject::with_secret_token(env, token, TOKEN_SECRET_VARIABLE, ca_file)?))
    }
}

/// Refuses a token that would go to another GitLab than the secret names, or to another project.
fn check(env: &Environment, id: &str, url: &str, project: &str) -> Result<(), Failure> {
    let is_same = |one: &str| origin(one).is_some_and(|of_job| Some(of_job) == origin(url));
    for name in ["CI_SERVER_URL", "CI_API_V4_URL"] {
        let of_job = env.get(name).map(str::trim).unwrap_or_default();
        if of_job.is_empty() || !is_same(of_job) {
            let (of_job, url) = (plain::line(of_job, 200), plain::line(url, 200));
            return Err(Failure::user(format!(
                "the token of the secret `{id}` is for the GitLab `{url}` (`{URL_FIELD}`), and `{name}` of the job is `{of_job}`"
            ))
            .hint(format!(
                "run the command in a job of that GitLab, and do not set `{name}` yourself; or store the address of this GitLab, as \
                 `CI_SERVER_URL` has it, in `{URL_FIELD}` of the secret"
            )));
        }
    }
    let of_job = env.get("CI_PROJECT_ID").unwrap_or_default().trim();
    if of_job == project.trim() {
        return Ok(());
    }
    let (of_job, project) = (plain::line(of_job, 50), plain::line(project, 50));
    Err(Failure::user(format!(
        "the token of the secret `{id}` is for the project {project} (`{PROJECT_FIELD}`), and `CI_PROJECT_ID` of the job is `{of_job}`"
    ))
    .hint(format!("name the secret of this project in `{TOKEN_SECRET_VARIABLE}`, or change `{PROJECT_FIELD}` in the secret")))
}

/// Scheme, host and port of an address of the web; `None` for every unusual form.
fn origin(text: &str) -> Option<(String, String, u16)> {
    let (scheme, rest) = text.trim().split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    if !authority.bytes().all(is_plain) {
        return None;
    }
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an address of IPv6 are within brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, usual),
    };
    (!host.is_empty()).then(|| (scheme, host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::render;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::from_pairs(pairs.iter().map(|(name, value)| (name.into(), value.into())))
    }

    const JOB: [(&str, &str); 3] = [
        ("CI_SERVER_URL", "https://gitlab.example.com"),
        ("CI_API_V4_URL", "https://gitlab.example.com/api/v4"),
        ("CI_PROJECT_ID", "42"),
    ];

    fn checked(changes: &[(&str, &str)], url: &str, project: &str) -> Result<(), String> {
        let env = environment(&[&JOB[..], changes].concat());
        check(&env, "ci/gitlab", url, project).map_err(|failure| render(&failure.into()))
    }

    #[test]
    fn the_token_goes_to_the_gitlab_that_the_secret_names() {
        for url in
            ["https://gitlab.example.com", "https://GitLab.example.com:443/", "https://gitlab.example.com/gitlab"]
        {
            assert_eq!(checked(&[], url, " 42\n"), Ok(()), "{url}");
        }
        for url in [
            "http://gitlab.example.com",
            "https://gitlab.example.com.evil.example",
            "https://gitlab.example.com@evil.example",
            "https://evil.example\\@gitlab.example.com",
            "gitlab.example.com",
            "",
        ] {
            let text = checked(&[], url, "42").unwrap_err();
            assert!(text.contains("`CI_SERVER_URL`") && text.contains("`gitlab_url`"), "{url}: {text}");
        }
        let text = checked(&[("CI_API_V4_URL", "https://evil.example/api/v4")], JOB[0].1, "42").unwrap_err();
        assert!(text.contains("`CI_API_V4_URL` of the job is `https://evil.example/api/v4`"), "{text}");
        let text = checked(&[("CI_API_V4_URL", "")], JOB[0].1, "42").unwrap_err();
        assert!(text.contains("`CI_API_V4_URL`"), "{text}");
    }

    #[test]
    fn the_token_is_for_the_project_of_the_job() {
        let text = checked(&[], JOB[0].1, "43").unwrap_err();
        assert!(text.contains("the project 43") && text.contains("`GITLAB_TOKEN_SECRET`"), "{text}");
    }

    #[test]
    fn an_origin_has_a_port() {
        let of = |text: &str| origin(text).map(|(_, host, port)| (host, port));
        assert_eq!(of("http://127.0.0.1:8080/x"), Some(("127.0.0.1".to_owned(), 8080)));
        assert_eq!(of("https://[::1]:8443"), Some(("[::1]".to_owned(), 8443)));
        assert_eq!(of("https://[::1]"), Some(("[::1]".to_owned(), 443)));
        for wrong in ["https://", "https://:1", "https://a:x", "ftp://a", "a"] {
            assert_eq!(origin(wrong), None, "{wrong}");
        }
    }
}
