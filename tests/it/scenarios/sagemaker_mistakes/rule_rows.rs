//! Jobs that ask for more than their rule allows, a row for each bound, and rules that cannot be used.

use super::rows::{Config, File, Line, Make, Mistake, Prepare, of_job, row};
use crate::support::driver::ALLOW_ALL;

const TYPE: &str = "SAGEMAKER_INSTANCE_TYPE";
/// The rule's allowance in the operator's file of the tests.
const ALLOW: &str = "allow = { ";
/// Its name, before `match`.
const NAME: &str = "name = \"all\", ";
const OTHER_ROLE: &str = "arn:aws:iam::000000000000:role/other";

/// Jobs outside the bounds of their rule.
pub(super) const BOUNDS: &[Mistake] = &[
    of_job(
        "type outside the rule",
        &[File("[\"*\"]", "[\"ml.g5.*\", \"ml.m5.large\"]"), Make::Job(TYPE, "ml.p5.48xlarge")],
        &[
            "`SAGEMAKER_INSTANCE_TYPE` asks for `ml.p5.48xlarge`; the rule `all` allows `ml.g5.*`, `ml.m5.large`",
            "widen `allow.instance_types` of the rule `all`",
        ],
    ),
    of_job(
        "second type outside the rule",
        &[File("[\"*\"]", "[\"ml.m5.*\"]"), Make::Job(TYPE, "ml.m5.large, ml.g5.xlarge")],
        &["asks for `ml.g5.xlarge`; the rule `all` allows `ml.m5.*`"],
    ),
    of_job(
        "no type, and the default is not allowed",
        &[File("[\"*\"]", "[\"ml.g5.*\"]")],
        &["the job names no instance type", "`ml.g5.*`", "set `SAGEMAKER_INSTANCE_TYPE`"],
    ),
    of_job(
        "count",
        &[File("max_instance_count = 100", "max_instance_count = 2"), Make::Job("SAGEMAKER_INSTANCE_COUNT", "3")],
        &["`SAGEMAKER_INSTANCE_COUNT` asks for 3; the rule `all` allows at most 2", "`allow.max_instance_count`"],
    ),
    of_job(
        "volume",
        &[File("max_volume_size_gb = 16384", "max_volume_size_gb = 60"), Make::Job("SAGEMAKER_VOLUME_SIZE_GB", "61")],
        &["`SAGEMAKER_VOLUME_SIZE_GB` asks for 61; the rule `all` allows at most 60", "`allow.max_volume_size_gb`"],
    ),
    of_job(
        "run time",
        &[File(ALLOW, "allow = { max_runtime_seconds = 60, "), Make::Job("SAGEMAKER_MAX_RUNTIME", "2m")],
        &["`SAGEMAKER_MAX_RUNTIME` asks for 120 s; the rule `all` allows at most 60 s", "`allow.max_runtime_seconds`"],
    ),
    of_job(
        "role",
        &[Make::Job("SAGEMAKER_ROLE_ARN", OTHER_ROLE)],
        &["`arn:aws:iam::000000000000:role/other`; the rule `all` allows `arn:aws:iam::000000000000:role/train`"],
    ),
    of_job(
        "image",
        &[File(ALLOW, "allow = { images = [\"other.example.com/**\"], ")],
        &["`image` asks for", "the rule `all` allows `other.example.com/**`", "`allow.images`"],
    ),
    of_job(
        "tag of an image",
        &[File(ALLOW, "allow = { image_tags = \"refuse\", ")],
        &["the rule `all` allows images by digest alone", "`<repository>@sha256:<digest>`"],
    ),
    of_job(
        "environment",
        &[File(ALLOW, "allow = { environment = [\"HF_*\"], "), Make::Job("SAGEMAKER_ENV_EPOCHS", "3")],
        &["asks for the name `EPOCHS`; the rule `all` allows `HF_*`", "`allow.environment`"],
    ),
    of_job(
        "environment of AWS's programs",
        &[Make::Job("SAGEMAKER_ENV_AWS_PROFILE", "x")],
        &["`SAGEMAKER_ENV_AWS_PROFILE` cannot be set", "export the variable in the script"],
    ),
    of_job(
        "environment of the loader",
        &[Make::Job("SAGEMAKER_ENV_LD_PRELOAD", "/x.so")],
        &["`SAGEMAKER_ENV_LD_PRELOAD` cannot be set"],
    ),
    of_job(
        "region",
        &[File(ALLOW, "allow = { regions = [\"eu-west-1\"], ")],
        &["run in `us-east-1`; the rule `all` allows `eu-west-1`", "`allow.regions`"],
    ),
    of_job(
        "cost",
        &[Line("prices", "\"ml.m5.large\" = 9000.0"), File(ALLOW, "allow = { max_cost = 1.0, ")],
        &["1 x `ml.m5.large`", "the rule `all` allows 1.00", "`allow.max_cost`"],
    ),
    of_job(
        "a type without a price",
        &[Line("prices", "\"ml.g5.xlarge\" = 1.0"), File(ALLOW, "allow = { max_cost = 1.0, ")],
        &["the price of `ml.m5.large` is not known", "`[prices]`"],
    ),
];

/// Jobs that no rule is for, and jobs of a file without rules.
pub(super) const NO_RULE: &[Mistake] = &[
    of_job(
        "another project",
        &[File(NAME, "name = \"all\", match.projects = [\"ml/*/x\"], ")],
        &["no rule of the operator's file is for this job: project `ml/churn`, ref `main` (protected)", "`[[rules]]`"],
    ),
    of_job("another group", &[File(NAME, "name = \"all\", match.namespaces = [\"m\"], ")], &["no rule of the"]),
    of_job("another ref", &[File(NAME, "name = \"all\", match.refs = [\"Main\", \"v*\"], ")], &["no rule of the"]),
    of_job("unprotected refs alone", &[File(NAME, "name = \"all\", match.protected = false, ")], &["(protected)"]),
    of_job("forks alone", &[File(NAME, "name = \"all\", match.fork = true, ")], &["no rule of the"]),
    of_job(
        "another GitLab",
        &[File(NAME, "name = \"all\", match.instances = [\"gitlab.example.org\"], ")],
        &["no rule of the", "GitLab `"],
    ),
    of_job(
        "no rules: type",
        &[File(ALLOW_ALL, ""), Make::Job(TYPE, "ml.g5.xlarge")],
        &[
            "`SAGEMAKER_INSTANCE_TYPE` asks for `ml.g5.xlarge`; the runner allows `ml.m5.large`",
            "the operator's file has none, so jobs get the values of `[job]`",
        ],
    ),
    of_job(
        "no rules: count",
        &[File(ALLOW_ALL, ""), Make::Job("SAGEMAKER_INSTANCE_COUNT", "2")],
        &["asks for 2; the runner allows at most 1"],
    ),
    of_job(
        "no rules: volume",
        &[File(ALLOW_ALL, ""), Make::Job("SAGEMAKER_VOLUME_SIZE_GB", "51")],
        &["asks for 51; the runner allows at most 50"],
    ),
    of_job(
        "no rules: run time",
        &[File(ALLOW_ALL, ""), Make::Job("SAGEMAKER_MAX_RUNTIME", "25h")],
        &["asks for 90000 s; the runner allows at most 86400 s"],
    ),
    of_job(
        "no rules: role",
        &[File(ALLOW_ALL, ""), Make::Job("SAGEMAKER_ROLE_ARN", OTHER_ROLE)],
        &["`arn:aws:iam::000000000000:role/other`; the runner allows `arn:aws:iam::000000000000:role/train`"],
    ),
];

/// Rules and audit logs that cannot be used. `tests/fixtures/operator-files/invalid` has a file for each key.
pub(super) const RULES: &[Mistake] = &[
    row(
        "a rule behind one for all",
        &[File("} }]", "} }, { name = \"late\" }]")],
        Config,
        &["`rules.late` is never reached", "move it before that rule"],
    ),
    row(
        "no job at once",
        &[File(ALLOW, "allow = { max_jobs = 0, ")],
        Config,
        &["`rules.all.allow.max_jobs` is 0", "set `rules.all.allow.max_jobs`"],
    ),
    row(
        "an empty list of projects",
        &[File(NAME, "name = \"all\", match.projects = [], ")],
        Config,
        &["`rules[0].match.projects`", "remove the key to match all"],
    ),
    row(
        "an audit log that cannot be written",
        &[Line("audit", "file = \"/nowhere/audit.log\"")],
        Prepare,
        &["failed to write the decision about this job to /nowhere/audit.log", "`audit.file`"],
    ),
];
