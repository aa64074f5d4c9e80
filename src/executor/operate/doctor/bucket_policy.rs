//! Checks of the policy of the bucket: whom it lets in, whom it keeps out, and who may replace the agent. Pure.

use serde_json::Value;

use super::report::DoctorFinding;
use crate::base::policy_statement::{self, Facts, StatementReach, texts};

const ID: &str = "bucket.policy";
const APPLY: &str = "apply `bucket-policy.json` of `sagemaker-executor policy iam`";

/// The bucket and its users.
pub(super) struct BucketUse<'a> {
    pub(super) bucket: &'a str,
    /// `arn:PARTITION:s3:::BUCKET/PREFIX`, without a slash at the end.
    pub(super) place: &'a str,
    pub(super) account: &'a str,
    /// Role or user of the runner hosts; `None` when it is unknown.
    pub(super) host: Option<&'a str>,
    /// Roles of training jobs.
    pub(super) jobs: &'a [String],
}

/// The finding about a policy; `None` stands for a bucket without one.
pub(super) fn judge(policy: Option<&str>, of: &BucketUse<'_>) -> DoctorFinding {
    let Some(policy) = policy else {
        let text =
            "has no policy: every role of the account that may write objects can replace the agent that all jobs run";
        return DoctorFinding::warning(ID, of.bucket, text, APPLY);
    };
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    let statements = policy_statement::statements(&policy);
    if statements.iter().any(|one| is_open(one)) {
        let text =
            "has a policy that lets everybody in: a statement with `Allow` for the principal `*`, without a condition";
        return DoctorFinding::failure(ID, of.bucket, text, format!("remove the statement, and {APPLY}"));
    }
    let denials: Vec<&Value> = statements.into_iter().filter(|one| one["Effect"] == "Deny").collect();
    for (role, action, key) in uses(of) {
        let resource = format!("{}{key}", of.place);
        let resource = if action == "s3:ListBucket" { bucket_of(of.place) } else { &resource };
        let denied =
            denials.iter().find(|one| denial(one, role, of.account, (action, resource)) == StatementReach::Yes);
        if let Some(statement) = denied {
            let name = statement["Sid"].as_str().map_or_else(|| "a statement".to_owned(), |sid| format!("`{sid}`"));
            let text = format!("has a policy that denies {role} {action} on {resource}: jobs fail ({name})");
            let change = format!("remove or narrow that statement; {APPLY}");
            return DoctorFinding::failure(ID, of.bucket, text, change);
        }
    }
    let (stranger, agent) = (format!("{}-stranger", of.host.unwrap_or("role/")), format!("{}/agents/a", of.place));
    let is_kept = |one: &&Value| denial(one, &stranger, of.account, ("s3:PutObject", &agent)) != StatementReach::No;
    if denials.iter().any(is_kept) {
        return DoctorFinding::ok(ID, of.bucket, "has a policy, which keeps the agent to the runner hosts");
    }
    let text = "has a policy that does not keep the agent to the runner hosts: every role of the account that may write objects can replace \
                what all jobs run";
    DoctorFinding::warning(ID, of.bucket, text, APPLY)
}

/// The actions of hosts and jobs, by role, action and key.
fn uses<'a>(of: &'a BucketUse<'_>) -> impl Iterator<Item = (&'a str, &'static str, &'static str)> {
    const OF_HOST: [(&str, &str); 6] = [
        ("s3:ListBucket", ""),
        ("s3:GetObject", "/sessions/a"),
        ("s3:PutObject", "/sessions/a"),
        ("s3:DeleteObject", "/sessions/a"),
        ("s3:PutObject", "/agents/a"),
        ("s3:PutObject", "/projects/a"),
    ];
    const OF_JOB: [(&str, &str); 2] = [("s3:GetObject", "/agents/a"), ("s3:GetObject", "/projects/a")];
    let of_host = of.host.into_iter().flat_map(|role| OF_HOST.map(|(action, key)| (role, action, key)));
    of_host.chain(of.jobs.iter().flat_map(|role| OF_JOB.map(|(action, key)| (role.as_str(), action, key))))
}

/// The bucket's own ARN.
fn bucket_of(place: &str) -> &str {
    place.split('/').next().unwrap_or(place)
}

/// The reach of a statement with `Deny` for a role's action on a resource. Conditions on what is not known here may hold.
fn denial(statement: &Value, role: &str, account: &str, (action, resource): (&str, &str)) -> StatementReach {
    if !policy_statement::is_about(statement, action) || !policy_statement::is_on(statement, resource) {
        return StatementReach::No;
    }
    let named = policy_statement::principals(statement, role, account);
    if named != StatementReach::Yes {
        return named;
    }
    let facts: &Facts<'_> =
        &[("aws:PrincipalArn", role), ("aws:PrincipalAccount", account), ("aws:SecureTransport", "true")];
    policy_statement::conditions(statement, facts)
}

/// The statement lets everybody in.
fn is_open(statement: &Value) -> bool {
    let principal = &statement["Principal"];
    let is_all = principal == "*" || texts(&principal["AWS"]).any(|one| one == "*");
    statement["Effect"] == "Allow" && statement["Condition"].is_null() && is_all
}

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_pass_by_value, reason = "each row makes its value")]

    use serde_json::json;
    use test_case::test_case;

    use super::*;
    use crate::operate::doctor::report::CheckVerdict::{self, Failure, Ok, Warning};

    const HOST: &str = "arn:aws:iam::1:role/host";

    fn kept() -> Value {
        json!({"Effect": "Deny", "Principal": "*", "Action": ["s3:PutObject"], "Resource": "arn:aws:s3:::b/p/agents/*",
               "Condition": {"ArnNotEquals": {"aws:PrincipalArn": HOST}}})
    }

    fn deny(action: &str, condition: Value) -> Value {
        json!({"Sid": "Stop", "Effect": "Deny", "Principal": {"AWS": "*"}, "Action": action, "Resource": ["arn:aws:s3:::b", "arn:aws:s3:::b/*"],
               "Condition": condition})
    }

    #[test_case(json!([kept()]) => Ok; "the agent is kept")]
    #[test_case(json!([]) => Warning; "nothing")]
    #[test_case(json!({"Effect": "Allow", "Principal": {"AWS": "1"}, "Action": "s3:*", "Resource": "*"}) => Warning; "the agent is not kept")]
    #[test_case(json!([kept(), {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*"}]) => Failure; "open")]
    #[test_case(json!([kept(), deny("s3:PutObject", Value::Null)]) => Failure; "all are kept from writing")]
    #[test_case(json!([kept(), deny("s3:*", json!({"StringNotEquals": {"aws:PrincipalArn": "arn:aws:iam::1:role/else"}}))]) => Failure; "all but another")]
    #[test_case(json!([kept(), deny("s3:*", json!({"Bool": {"aws:SecureTransport": "false"}}))]) => Ok; "requests without TLS")]
    #[test_case(json!([kept(), deny("s3:*", json!({"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}))]) => Ok; "a condition that nobody here knows")]
    fn a_policy_is_judged(statements: Value) -> CheckVerdict {
        let jobs = ["arn:aws:iam::1:role/train".to_owned()];
        let of = BucketUse { bucket: "b", place: "arn:aws:s3:::b/p", account: "1", host: Some(HOST), jobs: &jobs };
        judge(Some(&json!({ "Statement": statements }).to_string()), &of).verdict
    }
}
