//! Decides whether the trust policy of a role lets a service, or a caller of the account, assume it. Pure.

use regex::RegexBuilder;
use serde_json::Value;

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

/// How far a statement is about the principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    No,
    Perhaps,
    Yes,
}

/// Tells whether a service may do the action. A statement with `Deny` wins over all with `Allow`.
pub fn of_service(policy: &str, service: &str, action: &str) -> Trust {
    of(policy, action, |principal| texts(&principal["Service"]).any(|name| name == service || name == "*"))
}

/// Tells whether a user or role of the account may do the action, as far as the trust policy decides. A policy that names the account leaves the
/// decision to the caller's own policies.
pub fn of_caller(policy: &str, caller: &str, account: &str, action: &str) -> Trust {
    let root = format!(":iam::{account}:root");
    let names = |name: &str| name == caller || name == "*" || name == account || name.ends_with(&root);
    of(policy, action, |principal| texts(&principal["AWS"]).any(names))
}

fn of(policy: &str, action: &str, names: impl Fn(&Value) -> bool) -> Trust {
    let Ok(policy) = serde_json::from_str::<Value>(policy) else { return Trust::Conditional };
    let reached = |effect: &str| {
        let statements = one_or_many(&policy["Statement"]).into_iter();
        let reaches: Vec<_> =
            statements.filter(|one| one["Effect"] == effect).map(|one| reach(one, action, &names)).collect();
        let has = |reach| reaches.contains(&reach);
        if has(Reach::Yes) {
            Reach::Yes
        } else if has(Reach::Perhaps) {
            Reach::Perhaps
        } else {
            Reach::No
        }
    };
    match (reached("Deny"), reached("Allow")) {
        (Reach::Yes, _) | (_, Reach::No) => Trust::Refused,
        (Reach::No, Reach::Yes) => Trust::Given,
        _ => Trust::Conditional,
    }
}

fn reach(statement: &Value, action: &str, names: impl Fn(&Value) -> bool) -> Reach {
    let has = |patterns: &Value| texts(patterns).any(|pattern| matches(pattern, action));
    let is_about_action = match &statement["NotAction"] {
        Value::Null => has(&statement["Action"]),
        others => !has(others),
    };
    let principal = &statement["Principal"];
    if !is_about_action {
        Reach::No
    } else if !statement["NotPrincipal"].is_null() {
        Reach::Perhaps
    } else if !(names(principal) || principal == "*") {
        Reach::No
    } else if statement["Condition"].as_object().is_some_and(|conditions| !conditions.is_empty()) {
        Reach::Perhaps
    } else {
        Reach::Yes
    }
}

/// Whether the name of an action fits a pattern with `*` and `?`, in any case.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern = regex::escape(pattern).replace("\\*", ".*").replace("\\?", ".");
    let pattern = RegexBuilder::new(&format!("^{pattern}$")).case_insensitive(true).build();
    pattern.is_ok_and(|pattern| pattern.is_match(name))
}

fn one_or_many(value: &Value) -> Vec<&Value> {
    value.as_array().map_or_else(|| vec![value], |list| list.iter().collect())
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    one_or_many(value).into_iter().filter_map(Value::as_str)
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
    #[test_case(json!({"Effect": "Allow", "Principal": {"Service": SERVICE}, "NotAction": "iam:*"}) => Trust::Given; "all but other actions")]
    #[test_case(json!({"Effect": "Allow", "Principal": {"Service": SERVICE}, "NotAction": "sts:*"}) => Trust::Refused; "all but this action")]
    #[test_case(json!({"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "*"}) => Trust::Refused; "other service")]
    fn statements_say(statements: Value) -> Trust {
        of_service(&json!({ "Statement": statements }).to_string(), SERVICE, ASSUME)
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
        let of = |principal: &str, action: &str| of_caller(&policy(principal), host, "123456789012", action);
        for principal in [host, "123456789012", "arn:aws:iam::123456789012:root", "*"] {
            assert_eq!(of(principal, ASSUME), Trust::Given, "{principal}");
        }
        assert_eq!(of("arn:aws:iam::123456789012:role/other", ASSUME), Trust::Refused);
        assert_eq!(of(host, TAG_SESSION), Trust::Refused);
    }
}
