//! Decides the training job of a GitLab job: checks its variables against SageMaker's limits and the operator's.
//!
//! Pure: `JobContext + JobVariables + Settings -> Decision`. Every setting of a job passes through here; a refusal is a
//! user failure that names the variable to change.

use std::collections::BTreeMap;

use crate::base::failure::Failure;
use crate::config::env::{CONTAINER_ENV_PREFIX, JobVariables};
use crate::config::forms::{
    ENVIRONMENT_VALUE, INSTANCES, MAX_RUNTIME, VOLUME_GB, is_environment_name, is_instance_type, is_role_arn,
};
use crate::config::settings::Settings;
use crate::gitlab::JobContext;
use crate::protocol::agent_env;

/// 100 minus those that the executor itself sets.
const ENVIRONMENT_ENTRIES: usize = 85;
/// `TrainingImage`: 255 characters at most.
const IMAGE: usize = 255;

/// Parameters of the training job for one GitLab job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub image: String,
    /// In order of preference, at least one.
    pub instance_types: Vec<String>,
    pub instance_count: u32,
    pub volume_size_gb: u32,
    /// Seconds.
    pub max_runtime: u64,
    pub role_arn: String,
    pub environment: BTreeMap<String, String>,
}

/// Returns the decision, or a failure that says what to change.
pub fn decide(job: &JobContext, wishes: &JobVariables, settings: &Settings) -> Result<Decision, Failure> {
    Ok(Decision {
        image: image(job, settings)?,
        instance_types: instance_types(wishes, settings)?,
        instance_count: in_range(
            "SAGEMAKER_INSTANCE_COUNT",
            wishes.instance_count,
            settings.job.instance_count,
            1..=INSTANCES,
        )?,
        volume_size_gb: in_range(
            "SAGEMAKER_VOLUME_SIZE_GB",
            wishes.volume_size_gb,
            settings.job.volume_size_gb,
            1..=VOLUME_GB,
        )?,
        max_runtime: max_runtime(job, wishes, settings)?,
        role_arn: role_arn(wishes, settings)?,
        environment: environment(job, wishes, settings)?,
    })
}

/// Refuses secrets in the container's environment. `secrets` are the values of masked variables as the runner expanded
/// them, and of those that it resolved from a provider.
pub fn refuse_secrets(wishes: &JobVariables, secrets: &[String]) -> Result<(), Failure> {
    let holds = |value: &String| secrets.iter().any(|secret| value.contains(secret.as_str()));
    match wishes.environment.iter().find(|(_, value)| holds(value)) {
        None => Ok(()),
        Some((name, _)) => Err(masked(&format!("{CONTAINER_ENV_PREFIX}{name}"))),
    }
}

/// Refuses cache keys that would run as commands. The runner writes the key into an unquoted here-document, where the
/// host's shell runs `$(...)` and backquotes, in the key itself or in the value of a variable that it names, such as a
/// branch. `expanded` returns those values.
pub fn refuse_cache_keys(job: &JobContext, expanded: impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
    const DEFAULT: &str = "$CI_JOB_NAME/$CI_COMMIT_REF_NAME";
    for cache in &job.cache {
        let key = if cache.key.is_empty() { DEFAULT } else { &cache.key };
        if runs_in_a_here_document(key) {
            return Err(unsafe_key("the `key` of a cache holds `$(`, a backquote or a line break"));
        }
        for name in names_in(key) {
            if expanded(name).is_some_and(|value| runs_in_a_here_document(&value) || value.contains("${")) {
                return Err(unsafe_key(&format!(
                    "the `key` of a cache names `{name}`, whose value holds `$(`, a backquote or a line break"
                )));
            }
        }
    }
    Ok(())
}

pub fn unsafe_key(what: &str) -> Failure {
    Failure::user(format!("{what}: the runner would run it as a command on its host"))
        .hint("set `cache:key` to plain text or to variables such as `$CI_COMMIT_REF_SLUG`")
}

fn runs_in_a_here_document(text: &str) -> bool {
    ["`", "$(", "$[", "\n"].iter().any(|sign| text.contains(sign))
}

/// Names of variables in a text, `$NAME` or `${NAME}`.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    text.split('$').skip(1).map(|part| {
        let part = part.strip_prefix('{').unwrap_or(part);
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
        part.split_at(end).0
    })
}

fn masked(variable: &str) -> Failure {
    Failure::user(format!("`{variable}` holds the value of a masked variable")).hint(
        "the environment of a training job is readable through the API; masked variables reach the script under their own names",
    )
}

fn image(job: &JobContext, settings: &Settings) -> Result<String, Failure> {
    let image = Some(job.image.name.trim()).filter(|name| !name.is_empty()).or(settings.job.image.as_deref());
    let Some(image) = image else {
        return Err(Failure::user("the job names no training image")
            .hint("set `image:` in the job, or ask the operator for a default in `job.image`"));
    };
    if image.len() > IMAGE || image.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Failure::user(format!("the job's image is not a usable name of at most {IMAGE} characters"))
            .hint("check `image:`; a variable in it may be undefined"));
    }
    Ok(image.to_owned())
}

fn instance_types(wishes: &JobVariables, settings: &Settings) -> Result<Vec<String>, Failure> {
    let named = wishes.instance_types.clone();
    let types = if named.is_empty() { vec![settings.job.instance_type.clone()] } else { named };
    match types.iter().find(|name| !is_instance_type(name)) {
        None => Ok(types),
        Some(wrong) => Err(Failure::user(format!("`{wrong}` is not the name of a SageMaker instance type"))
            .hint("set `SAGEMAKER_INSTANCE_TYPE` to names such as `ml.g5.xlarge`, separated by commas")),
    }
}

fn in_range(
    variable: &str,
    wish: Option<u32>,
    default: u32,
    range: std::ops::RangeInclusive<u32>,
) -> Result<u32, Failure> {
    let value = wish.unwrap_or(default);
    if range.contains(&value) {
        return Ok(value);
    }
    Err(Failure::user(format!("`{variable}` is {value}; it goes from {} to {}", range.start(), range.end())))
}

/// The job's own limit, else GitLab's timeout of the job; at most the operator's and SageMaker's limits.
fn max_runtime(job: &JobContext, wishes: &JobVariables, settings: &Settings) -> Result<u64, Failure> {
    let cap = settings.job.max_runtime_seconds.clamp(1, MAX_RUNTIME);
    match wishes.max_runtime.map(|wish| wish.as_secs()) {
        Some(0) => Err(Failure::user("`SAGEMAKER_MAX_RUNTIME` is below one second")),
        Some(wish) if wish > cap => {
            Err(Failure::user(format!("`SAGEMAKER_MAX_RUNTIME` is {wish} s; the runner allows {cap} s"))
                .hint("lower it, or ask the operator to raise `job.max_runtime_seconds`"))
        }
        Some(wish) => Ok(wish),
        None if job.runner_info.timeout == 0 => Ok(cap),
        None => Ok(job.runner_info.timeout.min(cap)),
    }
}

fn role_arn(wishes: &JobVariables, settings: &Settings) -> Result<String, Failure> {
    let Some(role) = wishes.role_arn.as_ref().or(settings.job.role_arn.as_ref()) else {
        return Err(Failure::system("no IAM role is set for the training job")
            .hint("set `job.role_arn` in the operator's file, or `SAGEMAKER_ROLE_ARN` in the job"));
    };
    if is_role_arn(role) {
        return Ok(role.clone());
    }
    if wishes.role_arn.is_some() {
        return Err(Failure::user("`SAGEMAKER_ROLE_ARN` is not the ARN of an IAM role")
            .hint("`SAGEMAKER_ROLE_ARN`: `arn:aws:iam::<account>:role/<name>`"));
    }
    Err(Failure::system("`job.role_arn` is not the ARN of an IAM role").hint("`arn:aws:iam::<account>:role/<name>`"))
}

/// Merges the operator's entries and the job's, which win. Values of masked variables are refused: the API would make
/// them readable.
fn environment(
    job: &JobContext,
    wishes: &JobVariables,
    settings: &Settings,
) -> Result<BTreeMap<String, String>, Failure> {
    let secrets = job.masked_values(|_| None);
    for (name, value) in &wishes.environment {
        let variable = format!("{CONTAINER_ENV_PREFIX}{name}");
        if !is_environment_name(name) || name.starts_with(agent_env::PREFIX) {
            return Err(Failure::user(format!("`{variable}` does not end in a usable variable name"))
                .hint("letters, digits and `_`, not starting with a digit, not `SAGEMAKER_EXECUTOR_`"));
        }
        // These would redirect the agent's lookup of its role's credentials, and the agent would not start.
        if name.starts_with("AWS_CONTAINER_") {
            return Err(Failure::user(format!("`{variable}` cannot be set")).hint(
                "SageMaker sets this variable so that the agent finds its credentials; export it in the script instead",
            ));
        }
        if value.chars().count() > ENVIRONMENT_VALUE {
            return Err(Failure::user(format!("`{variable}` is longer than {ENVIRONMENT_VALUE} characters"))
                .hint("ordinary job variables have no such limit and reach the script as well"));
        }
        if secrets.iter().any(|secret| value.contains(secret)) {
            return Err(masked(&variable));
        }
    }
    let mut environment = settings.job.environment.clone();
    environment.extend(wishes.environment.clone());
    if environment.len() > ENVIRONMENT_ENTRIES {
        return Err(Failure::user(format!(
            "the training container would get {} environment variables; {ENVIRONMENT_ENTRIES} fit",
            environment.len()
        ))
        .hint("set fewer `SAGEMAKER_ENV_*` variables"));
    }
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::base::failure::Kind;

    fn job() -> JobContext {
        serde_json::from_str(
            r#"{"id": 1, "token": "glcbt-secret", "job_info": {"project_id": 2}, "runner_info": {"timeout": 3600},
                "image": {"name": "img:1"}, "variables": [{"key": "PASSWORD", "value": "hunter22", "masked": true}]}"#,
        )
        .unwrap()
    }

    fn settings() -> Settings {
        toml::from_str("[storage]\nbucket = \"b\"\n[job]\nrole_arn = \"arn:aws-cn:iam::123456789012:role/x/y\"\n")
            .unwrap()
    }

    fn env(name: &str, value: &str) -> JobVariables {
        JobVariables { environment: [(name.to_owned(), value.to_owned())].into(), ..JobVariables::default() }
    }

    #[test]
    fn a_cache_key_that_would_run_on_the_host_is_refused() {
        let judge = |key: &str, value: &str| {
            let job: JobContext = serde_json::from_value(serde_json::json!({
                "id": 1, "job_info": {"project_id": 2}, "cache": [{"key": key, "paths": ["c"]}]
            }))
            .unwrap();
            refuse_cache_keys(&job, |name| ["X", "CI_COMMIT_REF_NAME"].contains(&name).then(|| value.to_owned()))
        };
        for (key, value) in [("", "main"), ("a-$X-${X}_$Y", "a$b"), ("plain", "$(id)"), ("$XY", "`id`"), ("5$", "x")] {
            assert!(judge(key, value).is_ok(), "{key} {value}");
        }
        for (key, value) in
            [("", "$(id)"), ("$X", "`id`"), ("a${X}b", "a\nid"), ("$X", "${x}"), ("$(id)", ""), ("`id`", "")]
        {
            let text = crate::base::failure::render(&judge(key, value).unwrap_err().into());
            assert!(text.contains("`cache:key`") && !text.contains("id)"), "{text}");
        }
    }

    #[test]
    fn defaults_come_from_the_operator_and_the_payload() {
        let decision = decide(&job(), &JobVariables::default(), &settings()).unwrap();
        assert_eq!(decision.image, "img:1");
        assert_eq!(decision.instance_types, ["ml.m5.large"]);
        assert_eq!(decision.max_runtime, 3600);
        assert_eq!(decision.instance_count, 1);
    }

    #[test_case(&JobVariables { instance_types: vec!["g5.xlarge".into()], ..Default::default() }, "SAGEMAKER_INSTANCE_TYPE")]
    #[test_case(&JobVariables { instance_count: Some(0), ..Default::default() }, "SAGEMAKER_INSTANCE_COUNT")]
    #[test_case(&JobVariables { volume_size_gb: Some(20_000), ..Default::default() }, "SAGEMAKER_VOLUME_SIZE_GB")]
    #[test_case(&JobVariables { max_runtime: Some(std::time::Duration::from_hours(25)), ..Default::default() }, "SAGEMAKER_MAX_RUNTIME")]
    #[test_case(&JobVariables { role_arn: Some("arn:aws:iam::1:role/x".into()), ..Default::default() }, "SAGEMAKER_ROLE_ARN")]
    #[test_case(&env("PW", "x-hunter22"), "SAGEMAKER_ENV_PW")]
    #[test_case(&env("SAGEMAKER_EXECUTOR_BUCKET", "mine"), "SAGEMAKER_ENV_SAGEMAKER_EXECUTOR_BUCKET")]
    #[test_case(&env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x"), "SAGEMAKER_ENV_AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")]
    #[test_case(&env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/x"), "SAGEMAKER_ENV_AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")]
    #[test_case(&env("1A", "x"), "SAGEMAKER_ENV_1A")]
    #[test_case(&env("LONG", &"x".repeat(513)), "SAGEMAKER_ENV_LONG")]
    fn a_wrong_wish_is_the_users_and_names_its_variable(wishes: &JobVariables, variable: &str) {
        let failure = decide(&job(), wishes, &settings()).unwrap_err();
        assert_eq!(failure.kind, Kind::User);
        let text = crate::base::failure::render(&failure.into());
        assert!(text.contains(&format!("`{variable}`")) && !text.contains("hunter22"), "{text}");
    }

    #[test]
    fn a_resolved_secret_does_not_reach_the_environment() {
        let secrets = ["from-a-vault".to_owned()];
        let failure = refuse_secrets(&env("PW", "x from-a-vault"), &secrets).unwrap_err();
        assert_eq!(failure.kind, Kind::User);
        let text = crate::base::failure::render(&failure.into());
        assert!(text.contains("`SAGEMAKER_ENV_PW`") && !text.contains("from-a-vault"), "{text}");
        assert!(refuse_secrets(&env("LR", "0.1"), &secrets).is_ok());
    }

    #[test]
    fn a_missing_role_is_the_operators() {
        let mut settings = settings();
        settings.job.role_arn = None;
        let failure = decide(&job(), &JobVariables::default(), &settings).unwrap_err();
        assert_eq!(failure.kind, Kind::System);
        assert!(crate::base::failure::render(&failure.into()).contains("`job.role_arn`"));
    }
}
