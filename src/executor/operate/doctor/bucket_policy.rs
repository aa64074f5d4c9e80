//! Checks of the policy of the bucket: whom it lets in, whom it keeps out, and who may replace the agent. Pure.

use serde_json::Value;

use super::report::DoctorFinding;
use crate::base::policy_statement::{self, Facts, StatementReach, texts};

const ID: &str = "bucket.policy";
const APPLY: &str = "apply `bucket-policy.json` of `sagemaker-executor policy iam`";
/// A user of another account, whom a bucket of CI must not let in.
const FOREIGN: &Facts<'_> = &[
    ("aws:PrincipalArn", "arn:aws:iam::000000000000:user/doctor-foreign"),
    ("aws:PrincipalAccount", "000000000000"),
    ("aws:SecureTransport", "true"),
];

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
    let Ok(policy) = serde_json::from_str::<Value>(policy) else {
        return DoctorFinding::skipped(ID, of.bucket, "has a policy that is not JSON");
    };
    let statements = policy_statement::statements(&policy);
    if statements.iter().any(|one| is_open(one)) {
        let text = "has a policy that lets everybody in: a statement with `Allow` for the principal `*`, or for all but some, without a \
                    condition that keeps others out";
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
    if denials.iter().any(|one| keeps_the_agent(one, of)) {
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
    named.min(policy_statement::conditions(statement, &of_request(role, account)))
}

/// The statement keeps a role of the account that is neither host nor job from writing the agent. A condition that is not evaluated counts as
/// protection only where it is about who asks: one on encryption or on the network keeps no role of the account out.
fn keeps_the_agent(statement: &Value, of: &BucketUse<'_>) -> bool {
    let partition = of.place.split(':').nth(1).unwrap_or("aws");
    let (stranger, agent) =
        (format!("arn:{partition}:iam::{}:role/doctor-stranger", of.account), format!("{}/agents/a", of.place));
    let keeps = |(key, reach): (&str, StatementReach)| match reach {
        StatementReach::Yes => true,
        StatementReach::Perhaps => is_about_the_caller(key),
        StatementReach::No => false,
    };
    policy_statement::is_about(statement, "s3:PutObject")
        && policy_statement::is_on(statement, &agent)
        && policy_statement::principals(statement, &stranger, of.account) != StatementReach::No
        && policy_statement::each_condition(statement, &of_request(&stranger, of.account)).all(keeps)
}

/// A key of conditions that tells roles of one account apart.
fn is_about_the_caller(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["aws:principalarn", "aws:userid"].contains(&key.as_str()) || key.starts_with("aws:principaltag/")
}

/// Facts about a request of a role.
fn of_request<'a>(role: &'a str, account: &'a str) -> [(&'a str, &'a str); 3] {
    [("aws:PrincipalArn", role), ("aws:PrincipalAccount", account), ("aws:SecureTransport", "true")]
}

/// The statement lets everybody in. Conditions that are not evaluated may keep others out.
fn is_open(statement: &Value) -> bool {
    let principal = &statement["Principal"];
    let is_all =
        !statement["NotPrincipal"].is_null() || principal == "*" || texts(&principal["AWS"]).any(|one| one == "*");
    statement["Effect"] == "Allow" && is_all && policy_statement::conditions(statement, FOREIGN) == StatementReach::Yes
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

    fn allow(condition: Value) -> Value {
        json!({"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*", "Condition": condition})
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
    #[test_case(json!([deny("s3:PutObject", json!({"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}}))]) => Warning; "encryption alone keeps nobody out")]
    #[test_case(json!([deny("s3:*", json!({"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}))]) => Warning; "an endpoint alone keeps no role out")]
    #[test_case(json!([deny("s3:*", json!({"StringNotEquals": {"aws:SourceVpce": "vpce-1"}, "ArnNotEquals": {"aws:PrincipalArn": HOST}}))]) => Warning; "the host's role or an endpoint")]
    #[test_case(json!([deny("s3:*", json!({"StringNotEquals": {"aws:PrincipalOrgID": "o-1"}}))]) => Warning; "all of the organization may write")]
    #[test_case(json!([deny("s3:PutObject", json!({"StringNotLike": {"aws:userid": "AROA1:*"}}))]) => Ok; "the host by its id")]
    #[test_case(json!([deny("s3:PutObject", json!({"StringNotEquals": {"AWS:PrincipalTag/ci": "host"}}))]) => Ok; "the host by a tag")]
    #[test_case(json!([deny("s3:PutObject", json!({"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::1:role/host*"}}))]) => Ok; "the host by a pattern")]
    #[test_case(json!([deny("s3:PutObject", json!({"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::1:role/*"}}))]) => Warning; "a pattern of all roles")]
    #[test_case(json!([{"Effect": "Deny", "NotPrincipal": {"AWS": [HOST, "arn:aws:iam::1:root"]}, "Action": "s3:PutObject", "Resource": "*"}]) => Ok; "all but the host")]
    #[test_case(json!([{"Effect": "Deny", "NotPrincipal": {"AWS": "1"}, "Action": "s3:PutObject", "Resource": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]) => Warning; "all but some without TLS")]
    #[test_case(json!([kept(), allow(json!({"Bool": {"aws:SecureTransport": "true"}}))]) => Failure; "open to all with TLS")]
    #[test_case(json!([kept(), allow(json!({"ArnNotEquals": {"aws:PrincipalArn": HOST}}))]) => Failure; "open to all but one")]
    #[test_case(json!([kept(), {"Effect": "Allow", "NotPrincipal": {"AWS": HOST}, "Action": "s3:*", "Resource": "*"}]) => Failure; "open to all but a principal")]
    #[test_case(json!([kept(), allow(json!({"StringEquals": {"aws:PrincipalOrgID": "o-1"}}))]) => Ok; "open to an organization")]
    #[test_case(json!([kept(), allow(json!({"StringEquals": {"aws:PrincipalAccount": "1"}}))]) => Ok; "open to the account")]
    fn a_policy_is_judged(statements: Value) -> CheckVerdict {
        let jobs = ["arn:aws:iam::1:role/train".to_owned()];
        let of = BucketUse { bucket: "b", place: "arn:aws:s3:::b/p", account: "1", host: Some(HOST), jobs: &jobs };
        judge(Some(&json!({ "Statement": statements }).to_string()), &of).verdict
    }

    #[test]
    fn a_policy_that_cannot_be_read_is_not_judged() {
        let of = BucketUse { bucket: "b", place: "arn:aws:s3:::b/p", account: "1", host: None, jobs: &[] };
        assert_eq!(judge(Some("{"), &of).verdict, CheckVerdict::Skipped);
    }
}
