//! Decides which secrets of AWS Secrets Manager a job gets: its `SAGEMAKER_SECRET_*`, against `secrets.allow` of the operator's file.
//!
//! Nothing is allowed unless an entry is for the job, by the trusted payload, and for the secret. A merge request of a fork runs the
//! fork's code in the project, so an entry is for one only if it says so.

use serde::Serialize;

use super::identity::JobIdentity;
use super::matching::{matches, mismatch};
use crate::base::failure::Failure;
use crate::base::names::{Reach, reach};
use crate::config::forms::is_environment_name;
use crate::config::job_variables::{JobVariables, SECRET_PREFIX};
use crate::config::rules::{JobMatch, SecretGrant};
use crate::config::settings::Settings;
use crate::gitlab::JobContext;
use crate::secrets::{FORM, SecretReference};

/// Most secrets of a job: the executor's own limit.
const MOST: usize = 32;
/// Names that GitLab, SageMaker, the executor or AWS's SDKs set or read.
const RESERVED: [&str; 9] =
    ["AWS_", "CI_", "CUSTOM_ENV_", "FF_", "GITLAB_CI", "GITLAB_USER_", "RUNNER_", "SAGEMAKER_", "SM_"];

/// A secret that a job gets as a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobSecret {
    /// Of the variable: `DB_PASSWORD`.
    pub name: String,
    #[serde(flatten)]
    pub reference: SecretReference,
}

impl JobSecret {
    /// The job variable that asks for it.
    pub fn set_by(&self) -> String {
        format!("{SECRET_PREFIX}{}", self.name)
    }
}

/// The secrets of a job, all of them granted.
///
/// # Errors
/// Failures of the user that name the variable, and the key of the operator's file that would grant it.
pub fn granted_secrets(
    job: &JobContext,
    wishes: &JobVariables,
    settings: &Settings,
) -> Result<Vec<JobSecret>, Failure> {
    if wishes.secrets.len() > MOST {
        let text = format!("the job asks for {} secrets; {MOST} fit", wishes.secrets.len());
        return Err(Failure::user(text)
            .hint(format!("keep {MOST} variables `{SECRET_PREFIX}*`: a secret may hold several values")));
    }
    let identity = JobIdentity::of(job);
    wishes.secrets.iter().map(|(name, text)| secret(job, &identity, name, text, settings)).collect()
}

/// Patterns of the secrets that a job may ask for.
pub fn granted_ids(identity: &JobIdentity, settings: &Settings) -> Vec<String> {
    let grants = settings.secrets.allow.iter().filter(|grant| refused_by(identity, &grant.jobs).is_none());
    grants.flat_map(|grant| grant.ids.iter().cloned()).collect()
}

fn secret(
    job: &JobContext,
    identity: &JobIdentity,
    name: &str,
    text: &str,
    settings: &Settings,
) -> Result<JobSecret, Failure> {
    let variable = format!("{SECRET_PREFIX}{name}");
    if !is_environment_name(name) {
        return Err(Failure::user(format!("`{variable}` does not end in a usable variable name"))
            .hint("letters, digits and `_` after the prefix, not starting with a digit"));
    }
    if RESERVED.iter().any(|start| name.starts_with(start)) || name == "CI" || reach(name) == Reach::Container {
        return Err(Failure::user(format!(
            "`{variable}` cannot set `{name}`, which GitLab, AWS or the shell has for itself"
        ))
        .hint(format!("choose another name after `{SECRET_PREFIX}`, and set `{name}` from it in the script")));
    }
    if job.variables.iter().any(|known| known.key == name) {
        return Err(Failure::user(format!("the job has the variable `{name}`, and `{variable}` would set it too"))
            .hint(format!("remove one of them: the job's own `{name}` would hide the secret")));
    }
    let reference = SecretReference::parse(text.trim()).map_err(|why| {
        let hint = format!("`{variable}`: {FORM}");
        Failure::user(format!("`{variable}` {why}")).hint(hint)
    })?;
    let secret = JobSecret { name: name.to_owned(), reference };
    if settings.allows_all {
        return Ok(secret);
    }
    check_grant(&secret, identity, &settings.secrets.allow)?;
    Ok(secret)
}

fn check_grant(secret: &JobSecret, identity: &JobIdentity, grants: &[SecretGrant]) -> Result<(), Failure> {
    let id = &secret.reference.id;
    let of_id = || grants.iter().filter(|grant| grant.ids.iter().any(|pattern| matches(pattern, id)));
    if of_id().any(|grant| refused_by(identity, &grant.jobs).is_none()) {
        return Ok(());
    }
    let variable = secret.set_by();
    let protected = if identity.is_protected() { "protected" } else { "not protected" };
    let fork = if identity.fork { ", merge request of a fork" } else { "" };
    let failure = Failure::user(format!(
        "`{variable}` asks for the secret `{id}`, which the operator's file grants to no job of the project `{}`, ref `{}` \
         ({protected}){fork}",
        identity.project, identity.git_ref
    ));
    // Other projects' entries are no business of the job.
    let of_project = |grant: &&SecretGrant| {
        let JobMatch { projects, namespaces, .. } = grant.jobs.clone();
        mismatch(identity, &JobMatch { projects, namespaces, ..JobMatch::default() }).is_none()
    };
    let why = of_id().filter(of_project).find_map(|grant| refused_by(identity, &grant.jobs));
    let failure = match why {
        Some(key) => failure
            .hint(format!("an entry of `secrets.allow` has this secret, and its `match.{key}` is not for this job")),
        None => failure,
    };
    Err(failure.hint(format!(
        "ask the operator for an entry of `secrets.allow` whose `match.projects` and `ids` hold for it, or remove `{variable}`"
    )))
}

/// The key of `match` by which a grant is not for the job.
fn refused_by(identity: &JobIdentity, jobs: &JobMatch) -> Option<&'static str> {
    if identity.fork && jobs.fork != Some(true) {
        return Some("fork");
    }
    mismatch(identity, jobs).map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::base::failure::{Kind, render};

    const GRANT: &str =
        "[[secrets.allow]]\nmatch = { projects = [\"ml/churn\"], protected = true }\nids = [\"ci/churn/*\"]\n";

    fn settings(grants: &str) -> Settings {
        toml::from_str(&format!("[storage]\nbucket = \"b\"\n[job]\n{grants}")).unwrap()
    }

    fn job(project: &str, protected: bool, git_ref: &str) -> JobContext {
        let job = serde_json::json!({
            "id": 1, "job_info": {"project_id": 2, "project_full_path": project},
            "git_info": {"ref": git_ref, "protected": protected},
            "variables": [{"key": "OWN", "value": "x"}],
        });
        serde_json::from_value(job).unwrap()
    }

    fn wishes(name: &str, text: &str) -> JobVariables {
        JobVariables { secrets: [(name.to_owned(), text.to_owned())].into(), ..JobVariables::default() }
    }

    fn refusal(job: &JobContext, name: &str, text: &str, grants: &str) -> String {
        let failure = granted_secrets(job, &wishes(name, text), &settings(grants)).unwrap_err();
        assert_eq!(failure.kind, Kind::User);
        render(&failure.into())
    }

    #[test]
    fn a_secret_is_granted_by_project_ref_and_id() {
        let of = |job: &JobContext, id: &str, grants: &str| {
            granted_secrets(job, &wishes("DB", id), &settings(grants)).is_ok()
        };
        let own = job("ml/churn", true, "main");
        assert!(of(&own, "ci/churn/db#password", GRANT) && of(&job("ML/Churn", true, "main"), "ci/churn/db", GRANT));
        assert!(!of(&own, "ci/churn/db", ""), "the default grants nothing");
        assert!(!of(&own, "ci/house/db", GRANT) && !of(&own, "ci/churn", GRANT) && !of(&own, "ci/churn/a/b", GRANT));
        assert!(!of(&own, "CI/churn/db", GRANT), "names of secrets have a case");
        assert!(!of(&job("ml/house", true, "main"), "ci/churn/db", GRANT));
        assert!(!of(&job("ml/churn", false, "main"), "ci/churn/db", GRANT));
        assert!(!of(&job("", true, "main"), "ci/churn/db", GRANT));
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:ci/churn/db-AbCdEf";
        assert!(!of(&own, arn, GRANT), "an ARN may be of another account, so a pattern of names does not grant it");
        assert!(of(&own, arn, &GRANT.replace("\"ci/", "\"arn:aws:secretsmanager:eu-west-1:123456789012:secret:ci/")));
        let tried = Settings { allows_all: true, ..settings("") };
        assert!(
            granted_secrets(&own, &wishes("DB", "any"), &tried).is_ok(),
            "`try` has the credentials of who runs it"
        );
    }

    #[test]
    fn a_merge_request_of_a_fork_gets_a_secret_only_if_the_entry_says_so() {
        let fork = job("ml/churn", true, "refs/merge-requests/3/head");
        let text = refusal(&fork, "DB", "ci/churn/db", GRANT);
        assert!(text.contains("merge request of a fork") && text.contains("`match.fork`"), "{text}");
        let with_forks = GRANT.replace("protected = true", "fork = true");
        assert!(granted_secrets(&fork, &wishes("DB", "ci/churn/db"), &settings(&with_forks)).is_ok());
    }

    #[test]
    fn a_refusal_tells_what_the_operator_must_change_and_nothing_of_other_projects() {
        let text = refusal(&job("ml/churn", false, "main"), "DB", "ci/churn/db", GRANT);
        for part in [
            "`SAGEMAKER_SECRET_DB`",
            "`ci/churn/db`",
            "`ml/churn`, ref `main` (not protected)",
            "`match.protected`",
            "`secrets.allow`",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = refusal(&job("ml/house", true, "main"), "DB", "ci/churn/db", GRANT);
        assert!(!text.contains("an entry of `secrets.allow` has this secret"), "{text}");
    }

    #[test_case("PATH"; "path")]
    #[test_case("LD_PRELOAD"; "loader")]
    #[test_case("BASH_ENV"; "shell")]
    #[test_case("AWS_SECRET_ACCESS_KEY"; "aws")]
    #[test_case("CI"; "ci")]
    #[test_case("CI_JOB_TOKEN"; "job token")]
    #[test_case("SAGEMAKER_EXECUTOR_BUCKET"; "executor")]
    #[test_case("SM_HOSTS"; "toolkit")]
    fn a_reserved_name_is_refused(name: &str) {
        let text = refusal(&job("ml/churn", true, "main"), name, "ci/churn/db", GRANT);
        assert!(text.contains(&format!("cannot set `{name}`")), "{text}");
    }

    #[test]
    fn other_mistakes_name_the_variable() {
        let own = job("ml/churn", true, "main");
        assert!(refusal(&own, "1A", "ci/churn/db", GRANT).contains("usable variable name"));
        assert!(refusal(&own, "OWN", "ci/churn/db", GRANT).contains("the job has the variable `OWN`"));
        let text = refusal(&own, "DB", "ci/churn db#s3cret", GRANT);
        assert!(text.contains("`SAGEMAKER_SECRET_DB` names no secret") && !text.contains("s3cret"), "{text}");
        let secrets = (0..33).map(|at| (format!("S{at}"), "ci/churn/db".to_owned())).collect();
        let many = JobVariables { secrets, ..JobVariables::default() };
        let failure = granted_secrets(&own, &many, &settings(GRANT)).unwrap_err();
        assert!(failure.message().contains("33 secrets; 32 fit"), "{failure}");
    }
}
