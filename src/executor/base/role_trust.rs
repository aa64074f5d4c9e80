//! Decides whether the trust policy of a role lets a service, or a caller of the account, assume it. Pure.

use serde_json::Value;

use super::policy_statement::{self, Facts, StatementReach, principals, texts};

/// The action of whoever assumes a role.
pub const ASSUME: &str = "sts:AssumeRole";
/// The action of whoever gives the session of a role tags, besides [`ASSUME`].
pub const TAG_SESSION: &str = "sts:TagSession";

/// An answer about the trust policy of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    Given,
    Refused,
    /// It depends on a condition, or on a form of policy that is not evaluated.
    Conditional,
}

/// Tells whether a service may do the action. A statement with `Deny` wins over all with `Allow`.
pub fn of_service(policy: &str, service: &str, action: &str) -> Trust {
    of_service_with(policy, service, action, &[])
}

/// The same with facts about the request, which decide about conditions on them.
pub fn of_service_with(policy: &str, service: &str, action: &str, facts: &Facts<'_>) -> Trust {
    of(policy, action, facts, |statement| {
        let principal = &statement["Principal"];
        if !statement["NotPrincipal"].is_null() {
            StatementReach::Perhaps
        } else if principal == "*" || texts(&principal["Service"]).any(|name| name == service || name == "*") {
            StatementReach::Yes
        } else {
            StatementReach::No
        }
    })
}

/// Tells whether a user or role of the account may do the action, as far as the trust policy decides. A policy that names the account leaves the
/// decision to the caller's own policies. Facts about the request decide about conditions on them.
pub fn of_caller(policy: &str, (caller, account): (&str, &str), action: &str, facts: &Facts<'_>) -> Trust {
    of(policy, action, facts, |statement| principals(statement, caller, account))
}

fn of(policy: &str, action: &str, facts: &Facts<'_>, named: impl Fn(&Value) -> StatementReach) -> Trust {
    let Ok(policy) = serde_json::from_str::<Value>(policy) else { return Trust::Conditional };
    let statements = policy_statement::statements(&policy);
    let reached = |effect: &str| {
        let of_effect = statements.iter().filter(|one| one["Effect"] == effect);
        of_effect.map(|one| reach(one, action, facts, &named)).max().unwrap_or(StatementReach::No)
    };
    match (reached("Deny"), reached("Allow")) {
        (StatementReach::Yes, _) | (_, StatementReach::No) => Trust::Refused,
        (StatementReach::No, StatementReach::Yes) => Trust::Given,
        _ => Trust::Conditional,
    }
}

fn reach(
    statement: &Value,
    action: &str,
    facts: &Facts<'_>,
    named: impl Fn(&Value) -> StatementReach,
) -> StatementReach {
    if !policy_statement::is_about(statement, action) {
        return StatementReach::No;
    }
    named(statement).min(policy_statement::conditions(statement, facts))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_pass_by_value, reason = "each row makes its value")]

    use serde_json::json;
    use test_case::test_case;

    use super::*;

    const SERVICE: &str = "sagemaker.amazonaws.com";

    fn statement(effect: &str, action: &str) -> Value {
        json!({"Effect": effect, "Principal": {"Service": SERVICE}, "Action": action})
    }

    #[test_case(&["sts:AssumeRole"] => Trust::Given)]
    #[test_case(&["sts:Assume*"] => Trust::Given; "wildcard")]
    #[test_case(&["STS:assumerol?"] => Trust::Given; "case")]
    #[test_case(&["*"] => Trust::Given; "all")]
    #[test_case(&["sts:TagSession"] => Trust::Refused; "other action")]
    #[test_case(&[] => Trust::Refused; "nothing")]
    fn an_action_is_allowed(actions: &[&str]) -> Trust {
        of_service(
            &json!({"Statement": [{"Effect": "Allow", "Principal": {"Service": ["a", SERVICE]}, "Action": actions}]})
                .to_string(),
            SERVICE,
            ASSUME,
        )
    }

    #[test_case(json!([statement("Allow", "*"), statement("Deny", "sts:*")]) => Trust::Refused; "denied too")]
    #[test_case(json!([statement("Allow", "*"), {"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}]) => Trust::Refused; "denied to all")]
    #[test_case(json!([statement("Allow", "*"), {"Effect": "Deny", "Principal": {"AWS": "1"}, "Action": "*"}]) => Trust::Given; "denied to others")]
    #[test_case(json!([statement("Allow", "*"), {"Effect": "Deny", "Principal": "*", "Action": "*", "Condition": {"Bool": {"a": "b"}}}]) => Trust::Conditional; "denied on a condition")]
    #[test_case(json!({"Effect": "Allow", "Principal": {"Service": SERVICE}, "Action": "*", "Condition": {"StringEquals": {"a": "b"}}}) => Trust::Conditional; "allowed on a condition")]
    #[test_case(json!({"Effect": "Allow", "NotPrincipal": {"AWS": "1"}, "Action": "*"}) => Trust::Conditional; "all but some")]
    #[test_case(json!([statement("Allow", "*"), {"Effect": "Deny", "NotPrincipal": {"AWS": "1"}, "Action": "*", "Condition": {"Bool": {"known": "false"}}}]) => Trust::Given; "denied to all but some on a condition that does not hold")]
    #[test_case(json!({"Effect": "Allow", "Principal": {"Service": SERVICE}, "NotAction": "iam:*"}) => Trust::Given; "all but other actions")]
    #[test_case(json!({"Effect": "Allow", "Principal": {"Service": SERVICE}, "NotAction": "sts:*"}) => Trust::Refused; "all but this action")]
    #[test_case(json!({"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "*"}) => Trust::Refused; "other service")]
    fn statements_say(statements: Value) -> Trust {
        of_service_with(&json!({ "Statement": statements }).to_string(), SERVICE, ASSUME, &[("known", "true")])
    }

    #[test]
    fn a_policy_that_cannot_be_read_is_unknown() {
        assert_eq!(of_service("", SERVICE, ASSUME), Trust::Conditional);
    }

    #[test]
    fn a_caller_is_named_by_its_arn_or_its_account() {
        let policy = |principal: &str| {
            let statement = json!({"Effect": "Allow", "Principal": {"AWS": principal}, "Action": [ASSUME]});
            json!({ "Statement": statement }).to_string()
        };
        let host = "arn:aws:iam::123456789012:role/host";
        let of = |principal: &str, action: &str| of_caller(&policy(principal), (host, "123456789012"), action, &[]);
        for principal in [host, "123456789012", "arn:aws:iam::123456789012:root", "*"] {
            assert_eq!(of(principal, ASSUME), Trust::Given, "{principal}");
        }
        assert_eq!(of("arn:aws:iam::123456789012:role/other", ASSUME), Trust::Refused);
        assert_eq!(of(host, TAG_SESSION), Trust::Refused);
        let statement = json!({"Effect": "Allow", "Principal": {"AWS": host}, "Action": ASSUME,
                               "Condition": {"StringLike": {"sts:RoleSessionName": "gitlab-*"}}});
        let policy = json!({ "Statement": statement }).to_string();
        let with = |facts: &Facts<'_>| of_caller(&policy, (host, "123456789012"), ASSUME, facts);
        assert_eq!((with(&[]), with(&[("sts:RoleSessionName", "gitlab-1")])), (Trust::Conditional, Trust::Given));
        assert_eq!(with(&[("sts:RoleSessionName", "other")]), Trust::Refused);
    }
}
