//! Reads the environment, as the only module that does, and lists every variable that the executor knows.
//!
//! GitLab Runner passes its contract in plain names and every job variable as `CUSTOM_ENV_<KEY>`; a job can never set a
//! name without that prefix. Values are picked by exact name, stripped of the prefix once, trimmed and dropped when
//! blank before `envy` fills the structs: `envy` alone panics on bytes that are not UTF-8, strips a prefix repeatedly,
//! and puts values into its error texts. No error of this module contains a value.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::base::failure::{ExitCodes, Failure};

/// Prefix that GitLab Runner puts before each job variable.
pub const JOB_PREFIX: &str = "CUSTOM_ENV_";
/// Job variables with this prefix become environment variables of the training container.
pub const CONTAINER_ENV_PREFIX: &str = "SAGEMAKER_ENV_";

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

/// The variables that a job may set, in the order of the documentation.
pub const JOB_VARIABLES: [JobVariable; 6] = [
    JobVariable {
        name: "SAGEMAKER_INSTANCE_TYPE",
        meaning: "Instance types in order of preference, separated by commas; the next one is asked for when the quota refuses one, or when there is no capacity before the container ran",
        default: "`job.instance_type`",
    },
    JobVariable {
        name: "SAGEMAKER_INSTANCE_COUNT",
        meaning: "Number of instances, at least 1; the script runs on each of them",
        default: "`job.instance_count`",
    },
    JobVariable {
        name: "SAGEMAKER_VOLUME_SIZE_GB",
        meaning: "Size of the volume in GB, 1 to 16384; without effect on instance types with local NVMe storage",
        default: "`job.volume_size_gb`",
    },
    JobVariable {
        name: "SAGEMAKER_MAX_RUNTIME",
        meaning: "Longest time of the training job after its start: seconds, or a duration such as `2h 30m`",
        default: "the job's `timeout`, at most `job.max_runtime_seconds`",
    },
    JobVariable {
        name: "SAGEMAKER_ROLE_ARN",
        meaning: "IAM role of the training job; the runner host needs `iam:PassRole` for it",
        default: "`job.role_arn`",
    },
    JobVariable {
        name: "SAGEMAKER_ENV_*",
        meaning: "`SAGEMAKER_ENV_NAME` sets `NAME` in the training container; readable by everybody who may describe the job, so a masked variable is refused",
        default: "`job.environment`",
    },
];

/// One row of the variables table in `docs/CONFIG.md`.
#[derive(Debug, Clone, Copy)]
pub struct JobVariable {
    pub name: &'static str,
    pub meaning: &'static str,
    pub default: &'static str,
}

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
            Failure::user(format!("the job variable `{name}` does not have the form it needs"))
                .hint(format!("`{name}`: {}", meaning_of(&name)))
        })?;
        let prefix = format!("{JOB_PREFIX}{CONTAINER_ENV_PREFIX}");
        variables.environment = self
            .0
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?.to_owned(), value.clone())))
            .filter(|(name, _)| !name.is_empty())
            .collect();
        Ok(variables)
    }

    /// Job variables that look like the executor's and are unknown, each with the nearest known name.
    pub fn unknown_wishes(&self) -> Vec<(String, &'static str)> {
        let known = |name: &str| {
            JOB_VARIABLES.iter().any(|variable| variable.name == name)
                || name.strip_prefix(CONTAINER_ENV_PREFIX).is_some_and(|rest| !rest.is_empty())
        };
        let ours = self.0.keys().filter_map(|name| name.strip_prefix(JOB_PREFIX));
        ours.filter(|name| name.to_ascii_uppercase().starts_with("SAGEMAKER_") && !known(name))
            .map(|name| (name.to_owned(), nearest(&name.to_ascii_uppercase())))
            .collect()
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

/// The known variable name nearest to an unknown one.
fn nearest(name: &str) -> &'static str {
    let likeness = |known: &str| {
        // An `ENV` name may have any suffix.
        let length = if known.ends_with('*') { name.len().min(CONTAINER_ENV_PREFIX.len() + 1) } else { name.len() };
        strsim::jaro_winkler(known, name.get(..length).unwrap_or(name))
    };
    let by_likeness = |a: &&JobVariable, b: &&JobVariable| likeness(a.name).total_cmp(&likeness(b.name));
    JOB_VARIABLES.iter().max_by(by_likeness).map_or("", |variable| variable.name)
}

/// Documentation text of a job variable.
fn meaning_of(name: &str) -> &'static str {
    JOB_VARIABLES
        .iter()
        .find(|variable| variable.name == name)
        .map_or("see `docs/CONFIG.md`", |variable| variable.meaning)
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

/// The job's `SAGEMAKER_*` variables. Absent and empty are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct JobVariables {
    #[serde(default, rename = "sagemaker_instance_type", deserialize_with = "list")]
    pub instance_types: Vec<String>,
    #[serde(default, rename = "sagemaker_instance_count", deserialize_with = "number")]
    pub instance_count: Option<u32>,
    #[serde(default, rename = "sagemaker_volume_size_gb", deserialize_with = "number")]
    pub volume_size_gb: Option<u32>,
    #[serde(default, rename = "sagemaker_max_runtime", deserialize_with = "duration")]
    pub max_runtime: Option<Duration>,
    #[serde(default, rename = "sagemaker_role_arn")]
    pub role_arn: Option<String>,
    /// From `SAGEMAKER_ENV_*`, without the prefix.
    #[serde(skip)]
    pub environment: BTreeMap<String, String>,
}

fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
}

fn number<'de, D: Deserializer<'de>, N: FromStr>(deserializer: D) -> Result<Option<N>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|_| serde::de::Error::custom("not a whole number"))
}

fn exit_code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    match number(deserializer)? {
        Some(0) => Err(serde::de::Error::custom("zero means success")),
        code => Ok(code),
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let seconds = text.parse().map(Duration::from_secs);
    seconds
        .or_else(|_| humantime::parse_duration(&text))
        .map(Some)
        .map_err(|_| serde::de::Error::custom("not a duration"))
}

/// The size of a unit test: `long` when `LONG_TESTS` is set, as in the gate.
#[cfg(test)]
pub(crate) fn short_or_long<T>(short: T, long: T) -> T {
    if Environment::of_process().get("LONG_TESTS").is_some() { long } else { short }
}

#[cfg(test)]
mod tests {
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
    fn exit_codes_come_from_the_environment() {
        let env = environment(&[("BUILD_FAILURE_EXIT_CODE", "77"), ("SYSTEM_FAILURE_EXIT_CODE", "78")]);
        assert_eq!(env.contract().unwrap().exit_codes, ExitCodes { build_failure: 77, system_failure: 78 });
        assert!(environment(&[("BUILD_FAILURE_EXIT_CODE", "0")]).contract().is_err());
    }
}
