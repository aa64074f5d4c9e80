//! Decides the environment of the training container: the operator's entries and the job's `SAGEMAKER_ENV_*`.

use std::collections::BTreeMap;

use super::bounds::JobBounds;
use super::refusal::{asked, listed};
use crate::base::failure::Failure;
use crate::config::forms::{ENVIRONMENT_VALUE, is_environment_name};
use crate::config::job_variables::{CONTAINER_ENV_PREFIX, INPUT_PREFIX, JobVariables};
use crate::config::policy::matching::matches;
use crate::config::settings::Settings;
use crate::gitlab::JobContext;
use crate::protocol::agent_env;

/// 100 minus those that the executor itself sets.
const ENVIRONMENT_ENTRIES: usize = 85;
/// Names that no job may set: they lead AWS's SDKs, the agent among them, to other credentials or endpoints, or load libraries into it.
const NEVER: [&str; 2] = ["AWS_", "LD_"];

/// Refuses secrets in all texts that the API or a refusal shows. `secrets` are the values of masked variables as the runner expanded
/// them, and of those that it resolved from a provider.
pub fn refuse_secrets(wishes: &JobVariables, secrets: &[String]) -> Result<(), Failure> {
    let holds = |value: &String| secrets.iter().any(|secret| value.contains(secret.as_str()));
    // A refusal would show its entries one by one, in which nothing masks it.
    let lists =
        [("SAGEMAKER_INSTANCE_TYPE", &wishes.instance_types), ("SAGEMAKER_INSTANCE_GROUPS", &wishes.instance_groups)];
    for (name, list) in lists {
        let text = list.join(",").replace(' ', "");
        if secrets.iter().any(|secret| text.contains(&secret.replace(' ', ""))) {
            return Err(masked(name));
        }
    }
    if wishes.metrics.as_ref().is_some_and(holds) {
        return Err(Failure::user("`SAGEMAKER_METRICS` holds the value of a masked variable").hint(
            "the definitions of metrics are readable through the API; choose a `SAGEMAKER_METRICS` without that text",
        ));
    }
    let texts = [
        ("SAGEMAKER_CHECKPOINTS_REF", &wishes.checkpoints_ref),
        ("SAGEMAKER_TRAINING_PLAN", &wishes.training_plan),
        ("SAGEMAKER_MODEL_OUTPUT", &wishes.model_output),
    ];
    let texts = texts.iter().filter_map(|(name, value)| Some(((*name).to_owned(), value.as_ref()?)));
    let prefixed = |prefix: &'static str| move |(name, value)| (format!("{prefix}{name}"), value);
    let inputs = wishes.inputs.iter().map(prefixed(INPUT_PREFIX));
    let environment = wishes.environment.iter().map(prefixed(CONTAINER_ENV_PREFIX));
    match texts.chain(inputs).chain(environment).find(|(_, value)| holds(value)) {
        None => Ok(()),
        Some((variable, _)) => Err(masked(&variable)),
    }
}

fn masked(variable: &str) -> Failure {
    Failure::user(format!("`{variable}` holds the value of a masked variable")).hint(
        "the environment of a training job is readable through the API; masked variables reach the script under their own names",
    )
}

/// Merges the operator's entries and the job's, which win; each of the `channels` gets an entry too. Values of masked variables are refused: the API would make
/// them readable.
pub(super) fn environment(
    job: &JobContext,
    wishes: &JobVariables,
    settings: &Settings,
    bounds: &JobBounds,
    channels: usize,
) -> Result<BTreeMap<String, String>, Failure> {
    let secrets = job.masked_values(|_| None);
    for (name, value) in &wishes.environment {
        check_name(name, bounds)?;
        let variable = format!("{CONTAINER_ENV_PREFIX}{name}");
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
    let entries = environment.len() + channels;
    if entries > ENVIRONMENT_ENTRIES {
        return Err(Failure::user(format!(
            "the training container would get {entries} environment variables; {ENVIRONMENT_ENTRIES} fit"
        ))
        .hint("set fewer `SAGEMAKER_ENV_*` and `SAGEMAKER_INPUT_*` variables"));
    }
    Ok(environment)
}

fn check_name(name: &str, bounds: &JobBounds) -> Result<(), Failure> {
    let variable = format!("{CONTAINER_ENV_PREFIX}{name}");
    if !is_environment_name(name) || name.starts_with(agent_env::PREFIX) {
        return Err(Failure::user(format!("`{variable}` does not end in a usable variable name"))
            .hint("letters, digits and `_`, not starting with a digit, not `SAGEMAKER_EXECUTOR_`"));
    }
    if NEVER.iter().any(|start| name.starts_with(start)) {
        return Err(Failure::user(format!("`{variable}` cannot be set; no job may set names that begin with `AWS_` or `LD_` this way")).hint(
            "they would lead the agent to other credentials, endpoints or libraries; export the variable in the script instead",
        ));
    }
    match &bounds.environment {
        Some(allowed) if !allowed.iter().any(|pattern| matches(pattern, name)) => {
            Err(asked(bounds, &variable, &format!("the name `{name}`"), &listed(allowed), "environment"))
        }
        _ => Ok(()),
    }
}
