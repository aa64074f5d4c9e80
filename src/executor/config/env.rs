//! Reads the environment, as the only module that does.
//!
//! GitLab Runner passes its contract in plain names and every job variable as `CUSTOM_ENV_<KEY>`; a job can never set a
//! name without that prefix. Values are picked by exact name, stripped of the prefix once, trimmed and dropped when
//! blank before `envy` fills the structs: `envy` alone panics on bytes that are not UTF-8, strips a prefix repeatedly,
//! and puts values into its error texts. No error of this module contains a value.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::base::failure::{ExitCodes, Failure};
use crate::config::job_variables::{
    CONTAINER_ENV_PREFIX, INPUT_PREFIX, JOB_VARIABLES, JobVariable, JobVariables, SECRET_PREFIX, number, truth,
};

/// Prefix that GitLab Runner puts before each job variable.
pub const JOB_PREFIX: &str = "CUSTOM_ENV_";

/// The contract between GitLab Runner and a driver.
const CONTRACT: [&str; 4] =
    ["JOB_RESPONSE_FILE", "BUILD_EXIT_CODE_FILE", "BUILD_FAILURE_EXIT_CODE", "SYSTEM_FAILURE_EXIT_CODE"];
/// Set by `config` through the runner's `job_env`, so that a job cannot change it.
pub const SESSION: &str = "SAGEMAKER_EXECUTOR_SESSION";
/// Set by `config` likewise: the slot, the number of the job's directory in its project.
pub const SLOT: &str = "SAGEMAKER_EXECUTOR_SLOT";
/// Set by `config` likewise: the name of the job's folder below the builds and the cache directory.
pub const FOLDER: &str = "SAGEMAKER_EXECUTOR_FOLDER";
/// Set by `try`; its scripts need no GitLab Runner helper.
pub const TRY: &str = "SAGEMAKER_EXECUTOR_TRY";
/// Log filter for operators: `info`, `executor=debug`.
pub const LOG: &str = "SAGEMAKER_EXECUTOR_LOG";
/// The part of a log filter that shows the requests to AWS.
const CALLS: &str = "aws::calls=debug";

/// Snapshot of the process environment at the start. Has no `Debug`: it holds secrets.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Drops variables that are not UTF-8: the executor has none.
    pub fn of_process() -> Self {
        Self::from_pairs(std::env::vars_os())
    }

    pub fn from_pairs(pairs: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self(pairs.into_iter().filter_map(text).collect())
    }

    /// The snapshot with other values of some variables.
    #[must_use]
    pub fn with(&self, variables: BTreeMap<String, String>) -> Self {
        Self(self.0.clone().into_iter().chain(variables).collect())
    }

    /// Value of a name; empty counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Reads the variables that the runner passes to its driver.
    pub fn contract(&self) -> anyhow::Result<Contract> {
        let pairs = CONTRACT.iter().copied().chain([SESSION]).filter_map(|name| self.pair(name, name));
        let raw: RawContract = read(&pairs.collect::<Vec<_>>()).map_err(|name| {
            Failure::system(format!("the runner's variable `{name}` does not hold a number from 1 to 255"))
                .hint("start the driver through GitLab Runner's custom executor, which sets it")
        })?;
        let codes = ExitCodes::default();
        Ok(Contract {
            job_response_file: raw.job_response_file,
            build_exit_code_file: raw.build_exit_code_file,
            exit_codes: ExitCodes {
                build_failure: raw.build_failure_exit_code.unwrap_or(codes.build_failure),
                system_failure: raw.system_failure_exit_code.unwrap_or(codes.system_failure),
            },
            session: raw.sagemaker_executor_session,
        })
    }

    /// Reads the job's `SAGEMAKER_*` variables: untrusted, checked by the policy.
    pub fn job_variables(&self) -> Result<JobVariables, Failure> {
        let pairs = JOB_VARIABLES
            .iter()
            .filter(|variable| !variable.name.ends_with('*'))
            .filter_map(|variable| self.pair(&format!("{JOB_PREFIX}{}", variable.name), variable.name));
        let mut variables: JobVariables = read(&pairs.collect::<Vec<_>>()).map_err(|name| {
            let failure = Failure::user(format!("the job variable `{name}` does not have the form it needs"));
            match JobVariable::of(&name) {
                Some(known) => failure
                    .hint(format!("write `{name}` as in `{}` ({}): {}", known.example, known.kind, known.meaning)),
                None => failure.hint("see `docs/CONFIG.md`"),
            }
        })?;
        variables.environment = self.with_prefix(CONTAINER_ENV_PREFIX);
        variables.inputs = self.with_prefix(INPUT_PREFIX);
        variables.secrets = self.with_prefix(SECRET_PREFIX);
        variables.secrets.retain(|_, value| !value.trim().is_empty());
        variables.inputs.retain(|_, value| !value.trim().is_empty());
        Ok(variables)
    }

    /// The job variables of a prefix, without it.
    fn with_prefix(&self, prefix: &str) -> BTreeMap<String, String> {
        let prefix = format!("{JOB_PREFIX}{prefix}");
        self.0
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?.to_owned(), value.clone())))
            .filter(|(name, _)| !name.is_empty())
            .collect()
    }

    /// Job variables that look like the executor's and are unknown, each with the nearest known name.
    pub fn unknown_wishes(&self) -> Vec<(String, &'static str)> {
        let ours = self.0.keys().filter_map(|name| name.strip_prefix(JOB_PREFIX));
        ours.filter(|name| name.to_ascii_uppercase().starts_with("SAGEMAKER_") && JobVariable::of(name).is_none())
            .map(|name| (name.to_owned(), JobVariable::nearest(&name.to_ascii_uppercase())))
            .collect()
    }

    /// The filter of the program's log; with the requests to AWS when the job asks for them.
    pub fn log_filter(&self) -> Option<String> {
        let filter = self.get(LOG).map(str::to_owned);
        let is_asked = self.job_variable("SAGEMAKER_DEBUG").and_then(|wish| truth(wish.trim())) == Some(true);
        if is_asked { Some(format!("{},{CALLS}", filter.as_deref().unwrap_or("warn"))) } else { filter }
    }

    /// `true` when `try` calls this stage.
    pub fn is_try(&self) -> bool {
        self.get(TRY).is_some()
    }

    /// `PATH` as the runner's host stages search it.
    pub fn path(&self) -> &str {
        self.get("PATH").unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    }

    /// A job variable as the runner passes it.
    pub fn job_variable(&self, name: &str) -> Option<&str> {
        self.get(&format!("{JOB_PREFIX}{name}"))
    }

    /// The environment that a script on the host inherits: no job variable (scripts export them), no variable of the
    /// driver's contract, no AWS credentials.
    pub fn for_host_scripts(&self) -> impl Iterator<Item = (&String, &String)> {
        let hidden = |name: &str| {
            [JOB_PREFIX, "AWS_", "SAGEMAKER_EXECUTOR_"].iter().any(|prefix| name.starts_with(prefix))
                || CONTRACT.contains(&name)
        };
        self.0.iter().filter(move |(name, _)| !hidden(name))
    }

    /// Every variable.
    pub fn all(&self) -> impl Iterator<Item = (String, String)> {
        self.0.clone().into_iter()
    }

    fn pair(&self, from: &str, to: &str) -> Option<(String, String)> {
        let value = self.get(from)?.trim();
        (!value.is_empty()).then(|| (to.to_owned(), value.to_owned()))
    }
}

/// Fills `T` through `envy`. `Err` holds the name of the variable that does not fit: found by reading each alone,
/// because `envy`'s text would contain the value.
fn read<T: DeserializeOwned>(pairs: &[(String, String)]) -> Result<T, String> {
    envy::from_iter(pairs.to_vec()).map_err(|_| {
        let alone = |pair: &&(String, String)| envy::from_iter::<_, T>([(*pair).clone()]).is_err();
        pairs.iter().find(alone).map_or_else(|| "unknown".to_owned(), |(name, _)| name.clone())
    })
}

#[derive(Deserialize)]
struct RawContract {
    job_response_file: Option<PathBuf>,
    build_exit_code_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "exit_code")]
    build_failure_exit_code: Option<u8>,
    #[serde(default, deserialize_with = "exit_code")]
    system_failure_exit_code: Option<u8>,
    sagemaker_executor_session: Option<String>,
}

/// The variables of the runner's contract, read once at the start of a stage.
#[derive(Debug, Clone, Default)]
pub struct Contract {
    /// The job as GitLab sent it; absent only when the runner could not make its temporary directory.
    pub job_response_file: Option<PathBuf>,
    pub build_exit_code_file: Option<PathBuf>,
    pub exit_codes: ExitCodes,
    /// The session id that `config` set.
    pub session: Option<String>,
}

fn exit_code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    match number(deserializer)? {
        Some(0) => Err(serde::de::Error::custom("zero means success")),
        code => Ok(code),
    }
}

/// The size of a unit test: `long` when `LONG_TESTS` is set, as in the gate.
#[cfg(test)]
pub(crate) fn short_or_long<T>(short: T, long: T) -> T {
    if Environment::of_process().get("LONG_TESTS").is_some() { long } else { short }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::from_pairs(pairs.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn names_that_are_not_utf8_do_not_disturb() {
        use std::os::unix::ffi::OsStringExt as _;
        let odd = OsString::from_vec(vec![0xff, 0xfe]);
        let env = Environment::from_pairs([(odd.clone(), "x".into()), ("CUSTOM_ENV_X".into(), odd)]);
        assert!(env.job_variables().is_ok());
    }

    #[test]
    fn a_prefix_is_stripped_once_and_a_lowercase_twin_is_another_variable() {
        let env = environment(&[
            ("CUSTOM_ENV_CUSTOM_ENV_SAGEMAKER_ROLE_ARN", "shadow"),
            ("CUSTOM_ENV_sagemaker_role_arn", "twin"),
            ("CUSTOM_ENV_SAGEMAKER_ROLE_ARN", "arn"),
        ]);
        assert_eq!(env.job_variables().unwrap().role_arn.as_deref(), Some("arn"));
    }

    #[test]
    fn empty_variables_are_absent_and_lists_are_trimmed() {
        let env = environment(&[
            ("CUSTOM_ENV_SAGEMAKER_INSTANCE_COUNT", ""),
            ("CUSTOM_ENV_SAGEMAKER_VOLUME_SIZE_GB", "  "),
            ("CUSTOM_ENV_SAGEMAKER_INSTANCE_TYPE", "ml.g5.xlarge, ml.g5.2xlarge,"),
            ("CUSTOM_ENV_SAGEMAKER_MAX_RUNTIME", "1h 30m"),
            ("CUSTOM_ENV_SAGEMAKER_ENV_LR", "0.1"),
        ]);
        let variables = env.job_variables().unwrap();
        assert_eq!(variables.instance_count, None);
        assert_eq!(variables.instance_types, ["ml.g5.xlarge", "ml.g5.2xlarge"]);
        assert_eq!(variables.max_runtime, Some(Duration::from_mins(90)));
        assert_eq!(variables.environment.get("LR").map(String::as_str), Some("0.1"));
    }

    #[test]
    fn an_error_names_the_variable_and_never_its_value() {
        let env =
            environment(&[("CUSTOM_ENV_SAGEMAKER_ROLE_ARN", "arn"), ("CUSTOM_ENV_SAGEMAKER_INSTANCE_COUNT", "s3cret")]);
        let error = crate::base::failure::render(&env.job_variables().unwrap_err().into());
        assert!(error.contains("`SAGEMAKER_INSTANCE_COUNT`") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn a_misspelt_wish_is_told_with_the_name_that_was_meant() {
        let misspelt = [
            ("SAGEMAKER_INSTANCE_TYPES", "SAGEMAKER_INSTANCE_TYPE"),
            ("SAGEMAKER_INSTANCE", "SAGEMAKER_INSTANCE_TYPE"),
            ("SAGEMAKER_INSTANCES_COUNT", "SAGEMAKER_INSTANCE_COUNT"),
            ("sagemaker_volume_size", "SAGEMAKER_VOLUME_SIZE_GB"),
            ("SAGEMAKER_MAX_RUN_TIME", "SAGEMAKER_MAX_RUNTIME"),
            ("SAGEMAKER_MAX_RUNTIME_SECONDS", "SAGEMAKER_MAX_RUNTIME"),
            ("SAGEMAKER_ROLE", "SAGEMAKER_ROLE_ARN"),
            ("SAGEMAKER_ENVIRONMENT_LR", "SAGEMAKER_ENV_*"),
            ("SAGEMAKER_ENV_", "SAGEMAKER_ENV_*"),
            ("SAGEMAKER_ENVS_LR", "SAGEMAKER_ENV_*"),
        ];
        for (name, meant) in misspelt {
            let found = environment(&[(&format!("CUSTOM_ENV_{name}"), "x")]).unknown_wishes();
            assert_eq!(found, [(name.to_owned(), meant)]);
        }
        let known = environment(&[
            ("CUSTOM_ENV_SAGEMAKER_INSTANCE_TYPE", "x"),
            ("CUSTOM_ENV_SAGEMAKER_ENV_LR", "x"),
            ("SAGEMAKER_EXECUTOR_SESSION", "x"),
            ("CUSTOM_ENV_MODEL", "x"),
        ]);
        assert_eq!(known.unknown_wishes(), []);
    }

    #[test]
    fn a_job_may_ask_for_the_requests_to_aws() {
        let filter = |pairs: &[(&str, &str)]| environment(pairs).log_filter();
        let asked = ("CUSTOM_ENV_SAGEMAKER_DEBUG", "true");
        assert_eq!(filter(&[asked]).as_deref(), Some("warn,aws::calls=debug"));
        assert_eq!(filter(&[asked, (LOG, "info")]).as_deref(), Some("info,aws::calls=debug"));
        assert_eq!(filter(&[("CUSTOM_ENV_SAGEMAKER_DEBUG", "false"), (LOG, "info")]).as_deref(), Some("info"));
        assert_eq!(filter(&[("SAGEMAKER_DEBUG", "true")]), None, "no variable of the job");
    }

    #[test]
    fn exit_codes_come_from_the_environment() {
        let env = environment(&[("BUILD_FAILURE_EXIT_CODE", "77"), ("SYSTEM_FAILURE_EXIT_CODE", "78")]);
        assert_eq!(env.contract().unwrap().exit_codes, ExitCodes { build_failure: 77, system_failure: 78 });
        assert!(environment(&[("BUILD_FAILURE_EXIT_CODE", "0")]).contract().is_err());
    }
}
