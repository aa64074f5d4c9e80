//! Findings of the checks as plain data, and the report made of them. No I/O.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::base::plain;

/// Longest text of a finding, in bytes.
const LONGEST: usize = 2000;
/// The section of `docs/TROUBLESHOOTING.md` with a row for each check.
const ROWS: &str = "docs/TROUBLESHOOTING.md#findings-of-doctor";

/// Each check by its id, in the order of an installation. `docs/TROUBLESHOOTING.md` has a row for each; a test compares the two.
pub const CHECKS: &[&str] = &[
    "config.file",
    "config.mode",
    "config.syntax",
    "config.runners",
    "config.executor",
    "config.stages",
    "config.program",
    "config.arguments",
    "config.operator_file",
    "config.prepare_timeout",
    "config.cleanup_timeout",
    "config.kill_timeout",
    "config.shutdown_timeout",
    "config.concurrent",
    "config.token",
    "config.shared_token",
    "config.url",
    "config.tls_ca",
    "config.shell",
    "config.environment",
    "config.feature_flag",
    "config.debug_trace",
    "config.directories",
    "config.unknown_key",
    "runner.program",
    "runner.version",
    "runner.user",
    "operator.file",
    "operator.mode",
    "operator.role",
    "host.shell",
    "host.git",
    "host.bubblewrap",
    "host.sandbox",
    "host.metadata",
    "host.sweep_timer",
    "host.state_dir",
    "host.builds_dir",
    "host.cache_dir",
    "host.files",
    "host.space",
    "host.inodes",
    "host.proxy",
    "host.clock",
    "aws.credentials",
    "aws.expiry",
    "aws.account",
    "aws.partition",
    "aws.host_role",
    "aws.actions",
    "bucket.exists",
    "bucket.region",
    "bucket.encryption",
    "bucket.public_access",
    "bucket.versioning",
    "bucket.lifecycle",
    "bucket.policy",
    "kms.key",
    "kms.policy",
    "role.creator",
    "role.exists",
    "role.trust",
    "role.tags",
    "role.pass",
    "role.permissions",
    "network.subnet",
    "network.security_group",
    "network.vpc",
    "network.s3",
    "quota.training",
    "quota.spot",
    "quota.warm_pool",
    "image.exists",
    "image.region",
    "image.platform",
    "agent.stored",
    "job.run",
];

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CheckVerdict {
    Ok,
    /// Jobs run, and something is worse than it could be.
    Warning,
    /// Some job fails, or something is open that must be closed.
    Failure,
    /// The check could not be made.
    Skipped,
}

/// One check with its result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DoctorFinding {
    pub(super) id: &'static str,
    pub(super) verdict: CheckVerdict,
    /// The thing that was looked at: a runner, a path, an ARN.
    pub(super) subject: String,
    pub(super) text: String,
    /// The key, command or permission to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) change: Option<String>,
    /// A statement for a policy of IAM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) statement: Option<Value>,
    /// The row about it, for a finding that asks for a change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) row: Option<String>,
}

impl DoctorFinding {
    fn new(id: &'static str, verdict: CheckVerdict, subject: &str, text: &str, change: Option<&str>) -> Self {
        debug_assert!(CHECKS.contains(&id), "{id} is no check");
        let line = |text: &str| plain::line(text, LONGEST);
        let row = change.map(|_| format!("{ROWS}, row `{id}`"));
        Self { id, verdict, subject: line(subject), text: line(text), change: change.map(line), statement: None, row }
    }

    pub(super) fn ok(id: &'static str, subject: impl AsRef<str>, text: impl AsRef<str>) -> Self {
        Self::new(id, CheckVerdict::Ok, subject.as_ref(), text.as_ref(), None)
    }

    pub(super) fn warning(
        id: &'static str,
        subject: impl AsRef<str>,
        text: impl AsRef<str>,
        change: impl AsRef<str>,
    ) -> Self {
        Self::new(id, CheckVerdict::Warning, subject.as_ref(), text.as_ref(), Some(change.as_ref()))
    }

    pub(super) fn failure(
        id: &'static str,
        subject: impl AsRef<str>,
        text: impl AsRef<str>,
        change: impl AsRef<str>,
    ) -> Self {
        Self::new(id, CheckVerdict::Failure, subject.as_ref(), text.as_ref(), Some(change.as_ref()))
    }

    /// A check that another one, or a permission, stands in the way of.
    pub(super) fn skipped(id: &'static str, subject: impl AsRef<str>, text: impl AsRef<str>) -> Self {
        Self::new(id, CheckVerdict::Skipped, subject.as_ref(), text.as_ref(), None)
    }

    /// A check that needs the result of another one.
    pub(super) fn waiting(id: &'static str, on: &str) -> Self {
        Self::skipped(id, "", format!("needs `{on}`, which has failed or was skipped"))
    }

    pub(super) fn with_statement(mut self, statement: Value) -> Self {
        self.statement = Some(statement);
        self
    }

    #[cfg(test)]
    pub(super) fn asks_for_a_change(&self) -> bool {
        matches!(self.verdict, CheckVerdict::Warning | CheckVerdict::Failure)
    }
}

/// Facts that only a real account shows, and how an operator can see them.
pub(super) const NOT_CHECKED: &[&str] = &[
    "that SageMaker takes the request for a training job, and that it finds an instance: `--job` settles both",
    "that policies of the organization (SCP, RCP) and of VPC endpoints, conditions in the policies of bucket, keys and roles that only AWS knows, \
     and destinations of security groups leave jobs what the roles allow: `--job` settles it for the default role",
    "with `iam.vpc_endpoint_ids`: whether SageMaker's own look at the agent's channel comes from the VPC: `--job` settles it",
    "with `aws.creator_role_arn`: that the tags of the creator's session reach the job's role (`SessionChainingConfig`): `--job` settles it; \
     that they survive when SageMaker renews the credentials of a job of several days: no check settles it",
    "that a Lambda function of `job.image_credentials_lambda_arn` lets SageMaker in to the registry: a job with an image from there settles it",
    "that GitLab accepts the runner's token: `gitlab-runner verify` settles it",
    "the price of an instance: the bill settles it, `allow.max_cost` goes by `[prices]`",
];

/// All findings of one run.
#[derive(Debug, Serialize)]
pub(super) struct DoctorReport {
    pub(super) failures: usize,
    pub(super) warnings: usize,
    pub(super) findings: Vec<DoctorFinding>,
    pub(super) not_checked: &'static [&'static str],
}

impl DoctorReport {
    pub(super) fn of(mut findings: Vec<DoctorFinding>) -> Self {
        // Those of one check stay in their order.
        findings.sort_by_key(|finding| CHECKS.iter().position(|id| *id == finding.id));
        let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
        let (failures, warnings) = (count(CheckVerdict::Failure), count(CheckVerdict::Warning));
        Self { failures, warnings, findings, not_checked: NOT_CHECKED }
    }

    /// The report for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut topic = "";
        for finding in &self.findings {
            let of_finding = finding.id.split('.').next().unwrap_or_default();
            if of_finding != topic {
                topic = of_finding;
                let _ = writeln!(text, "{}", title(topic));
            }
            write_finding(&mut text, finding);
        }
        text.push_str("Not checked here, because only a real account, or a job, shows it:\n");
        for one in self.not_checked {
            let _ = writeln!(text, "  - {one}");
        }
        let passed = self.findings.iter().filter(|finding| finding.verdict == CheckVerdict::Ok).count();
        let skipped = self.findings.len() - passed - self.failures - self.warnings;
        let [failures, warnings, passed] = [(self.failures, "failure"), (self.warnings, "warning"), (passed, "check")]
            .map(|(number, word)| counted(number as u64, word));
        let _ = write!(text, "{failures}, {warnings}, {passed} passed, {skipped} skipped");
        text
    }
}

/// A number with its word: `1 day`, `2 days`.
pub(super) fn counted(number: impl Into<u64>, word: &str) -> String {
    let number = number.into();
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

fn write_finding(text: &mut String, finding: &DoctorFinding) {
    let label = match finding.verdict {
        CheckVerdict::Ok => "ok     ",
        CheckVerdict::Warning => "warning",
        CheckVerdict::Failure => "FAILURE",
        CheckVerdict::Skipped => "skipped",
    };
    let subject = if finding.subject.is_empty() { String::new() } else { format!("{}: ", finding.subject) };
    // Writing to a `String` cannot fail.
    let _ = writeln!(text, "  {label}  {}  {subject}{}", finding.id, finding.text);
    if let Some(change) = &finding.change {
        let _ = writeln!(text, "           change: {change}");
    }
    if let Some(statement) = &finding.statement {
        let _ = writeln!(text, "           statement: {statement}");
    }
    if let Some(row) = &finding.row {
        let _ = writeln!(text, "           see {row}");
    }
}

fn title(topic: &str) -> &'static str {
    match topic {
        "config" => "GitLab Runner's config.toml",
        "runner" => "GitLab Runner",
        "operator" => "The operator's file",
        "host" => "This host",
        "aws" => "Credentials and permissions",
        "bucket" => "The bucket",
        "kms" => "Keys",
        "role" => "Roles",
        "network" => "The network of the jobs",
        "quota" => "Quotas of instances",
        "image" => "Images",
        "agent" => "The agent",
        _ => "A training job",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_and_names_what_to_change() {
        let report = DoctorReport::of(vec![
            DoctorFinding::ok("config.file", "f", "read"),
            DoctorFinding::failure("host.git", "git", "is not\nthere", "install `git`"),
            DoctorFinding::waiting("agent.stored", "bucket.exists"),
        ]);
        assert_eq!((report.failures, report.warnings), (1, 0));
        let text = report.text();
        assert!(text.contains("FAILURE  host.git  git: is not; there\n           change: install `git`\n"), "{text}");
        assert!(text.contains("row `host.git`") && text.ends_with("1 failure, 0 warnings, 1 check passed, 1 skipped"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["findings"][0]["verdict"], "ok");
        assert_eq!(json["findings"][2].get("change"), None);
    }
}
