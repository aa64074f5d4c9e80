//! Decides whether the trust policy of a role lets a service assume it. Pure.

use regex::RegexBuilder;
use serde_json::Value;

const ASSUME: &str = "sts:AssumeRole";

/// Whether a service may assume a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Given,
    Refused,
    /// It depends on a condition, or on a form of policy that is not evaluated.
    Conditional,
}

/// How far a statement is about the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    No,
    Perhaps,
    Yes,
}

/// A statement with `Deny` wins over all with `Allow`.
pub(super) fn of_service(policy: &str, service: &str) -> Trust {
    let Ok(policy) = serde_json::from_str::<Value>(policy) else { return Trust::Conditional };
    let reached = |effect: &str| {
        let statements = one_or_many(&policy["Statement"]).into_iter();
        let reaches: Vec<_> = statements.filter(|one| one["Effect"] == effect).map(|one| reach(one, service)).collect();
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

fn reach(statement: &Value, service: &str) -> Reach {
    let has = |patterns: &Value| texts(patterns).any(|pattern| matches(pattern, ASSUME));
    let is_about_action = match &statement["NotAction"] {
        Value::Null => has(&statement["Action"]),
        others => !has(others),
    };
    let principal = &statement["Principal"];
    let names_service = texts(&principal["Service"]).any(|name| name == service || name == "*");
    if !is_about_action {
        Reach::No
    } else if !statement["NotPrincipal"].is_null() {
        Reach::Perhaps
    } else if !(names_service || principal == "*") {
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
        of_service(&json!({ "Statement": statements }).to_string(), SERVICE)
    }

    #[test]
    fn a_policy_that_cannot_be_read_is_unknown() {
        assert_eq!(of_service("", SERVICE), Trust::Conditional);
    }
}
