//! Statements of IAM policies: whether one is about an action, and whether its conditions hold. Pure.

use regex::RegexBuilder;
use serde_json::Value;

/// The reach of a statement, or of its conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatementReach {
    No,
    /// It depends on a condition, or on a form of policy, that is not evaluated.
    Perhaps,
    Yes,
}

/// Keys of conditions with their values, as AWS would find them in a request. A key with several values stands several times.
pub type Facts<'a> = [(&'a str, &'a str)];

/// The statements of a policy; none of a text that is no policy.
pub fn statements(policy: &Value) -> Vec<&Value> {
    one_or_many(&policy["Statement"]).into_iter().filter(|one| one.is_object()).collect()
}

/// Tells whether a statement is about an action.
pub fn is_about(statement: &Value, action: &str) -> bool {
    let has = |patterns: &Value| texts(patterns).any(|pattern| matches(pattern, action, true));
    match &statement["NotAction"] {
        Value::Null => has(&statement["Action"]),
        others => !has(others),
    }
}

/// Tells whether a statement is about a resource.
pub fn is_on(statement: &Value, resource: &str) -> bool {
    let has = |patterns: &Value| texts(patterns).any(|pattern| matches(pattern, resource, false));
    match &statement["NotResource"] {
        Value::Null => has(&statement["Resource"]),
        others => !has(others),
    }
}

/// The reach of a statement of a resource's policy for a role, by its principals. It is `Perhaps` for a statement with `NotPrincipal`.
pub fn principals(statement: &Value, role: &str, account: &str) -> StatementReach {
    let principal = &statement["Principal"];
    let root = format!(":iam::{account}:root");
    let names = |name: &str| name == "*" || name == role || name == account || name.ends_with(&root);
    if !statement["NotPrincipal"].is_null() {
        StatementReach::Perhaps
    } else if principal == "*" || texts(&principal["AWS"]).any(names) {
        StatementReach::Yes
    } else {
        StatementReach::No
    }
}

/// Tells whether all conditions of a statement hold. A key without a fact, and an operator other than those on texts, may hold.
pub fn conditions(statement: &Value, facts: &Facts<'_>) -> StatementReach {
    each_condition(statement, facts).map(|(_, reach)| reach).min().unwrap_or(StatementReach::Yes)
}

/// Tells of each condition of a statement whether it holds, by its key.
pub fn each_condition<'a>(
    statement: &'a Value,
    facts: &'a Facts<'_>,
) -> impl Iterator<Item = (&'a str, StatementReach)> {
    let operators = statement["Condition"].as_object().into_iter().flatten();
    operators.flat_map(move |(operator, keys)| {
        let keys = keys.as_object().into_iter().flatten();
        keys.map(move |(key, values)| (key.as_str(), condition(operator, key, values, facts)))
    })
}

fn condition(operator: &str, key: &str, values: &Value, facts: &Facts<'_>) -> StatementReach {
    let known: Vec<&str> =
        facts.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| *value).collect();
    let (quantity, operator) = operator.split_once(':').unwrap_or(("", operator));
    let is_single = known.len() == 1;
    if known.is_empty() || (quantity.is_empty() && !is_single) {
        return StatementReach::Perhaps;
    }
    let values: Vec<String> = one_or_many(values)
        .into_iter()
        .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        .collect();
    if values.iter().any(|value| value.contains("${")) {
        return StatementReach::Perhaps;
    }
    let each = known.iter().map(|fact| holds(operator.trim_end_matches("IfExists"), &values, fact));
    let Some(each) = each.collect::<Option<Vec<bool>>>() else { return StatementReach::Perhaps };
    let holds = match quantity {
        "" | "ForAnyValue" => each.contains(&true),
        "ForAllValues" => !each.contains(&false),
        _ => return StatementReach::Perhaps,
    };
    if holds { StatementReach::Yes } else { StatementReach::No }
}

/// Tells whether an operator holds for one value of a request; `None` for an operator that is not evaluated.
fn holds(operator: &str, values: &[String], fact: &str) -> Option<bool> {
    let any = |is_same: &dyn Fn(&str) -> bool| values.iter().any(|value| is_same(value));
    match operator {
        "StringEquals" => Some(any(&|value| value == fact)),
        "StringNotEquals" => Some(!any(&|value| value == fact)),
        "StringEqualsIgnoreCase" | "Bool" => Some(any(&|value| value.eq_ignore_ascii_case(fact))),
        "StringNotEqualsIgnoreCase" => Some(!any(&|value| value.eq_ignore_ascii_case(fact))),
        "StringLike" | "ArnLike" | "ArnEquals" => Some(any(&|value| matches(value, fact, false))),
        "StringNotLike" | "ArnNotLike" | "ArnNotEquals" => Some(!any(&|value| matches(value, fact, false))),
        _ => None,
    }
}

/// Tells whether a name fits a pattern with `*` and `?`.
fn matches(pattern: &str, name: &str, in_any_case: bool) -> bool {
    let pattern = regex::escape(pattern).replace("\\*", ".*").replace("\\?", ".");
    let pattern = RegexBuilder::new(&format!("^{pattern}$")).case_insensitive(in_any_case).build();
    pattern.is_ok_and(|pattern| pattern.is_match(name))
}

/// The items of a list, or the one value that stands in place of a list.
pub fn one_or_many(value: &Value) -> Vec<&Value> {
    value.as_array().map_or_else(|| vec![value], |list| list.iter().collect())
}

/// The texts among them.
pub fn texts(value: &Value) -> impl Iterator<Item = &str> {
    one_or_many(value).into_iter().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_pass_by_value, reason = "each row makes its value")]

    use serde_json::json;
    use test_case::test_case;

    use super::*;

    #[test_case(json!({}) => StatementReach::Yes; "none")]
    #[test_case(json!({"StringEquals": {"aws:sourceaccount": ["1", "2"]}}) => StatementReach::Yes; "one of a list")]
    #[test_case(json!({"StringEquals": {"aws:SourceAccount": "9"}}) => StatementReach::No; "another")]
    #[test_case(json!({"StringNotEquals": {"aws:SourceAccount": "9"}}) => StatementReach::Yes; "not another")]
    #[test_case(json!({"ArnLike": {"aws:SourceArn": "arn:aws:sagemaker:*:2:*"}}) => StatementReach::Yes; "pattern")]
    #[test_case(json!({"ArnNotLikeIfExists": {"aws:SourceArn": "arn:aws:sagemaker:*:2:*"}}) => StatementReach::No; "not a pattern")]
    #[test_case(json!({"Bool": {"aws:SecureTransport": false}}) => StatementReach::No; "boolean")]
    #[test_case(json!({"StringEquals": {"aws:SourceVpce": "vpce-1"}}) => StatementReach::Perhaps; "no fact")]
    #[test_case(json!({"NumericLessThan": {"aws:SourceAccount": "9"}}) => StatementReach::Perhaps; "operator on numbers")]
    #[test_case(json!({"StringEquals": {"aws:SourceAccount": "${aws:PrincipalAccount}"}}) => StatementReach::Perhaps; "variable")]
    #[test_case(json!({"StringEquals": {"a:b": "1", "aws:SourceAccount": "9"}}) => StatementReach::No; "one fails beside an unknown one")]
    #[test_case(json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b", "c"]}}) => StatementReach::Yes; "all of several values")]
    #[test_case(json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}) => StatementReach::No; "one of several values is another")]
    #[test_case(json!({"ForAnyValue:StringEquals": {"aws:TagKeys": ["b"]}}) => StatementReach::Yes; "any of several values")]
    #[test_case(json!({"ForAnyValue:StringEquals": {"aws:TagKeys": ["c"]}}) => StatementReach::No; "none of several values")]
    #[test_case(json!({"StringEquals": {"aws:TagKeys": ["a"]}}) => StatementReach::Perhaps; "several values without a quantity")]
    #[test_case(json!({"Sometimes:StringEquals": {"aws:TagKeys": ["a", "b"]}}) => StatementReach::Perhaps; "unknown quantity")]
    fn conditions_hold(condition: Value) -> StatementReach {
        let facts = [
            ("aws:SourceAccount", "2"),
            ("aws:SourceArn", "arn:aws:sagemaker:eu-west-1:2:training-job/a"),
            ("aws:SecureTransport", "true"),
            ("aws:TagKeys", "a"),
            ("aws:TagKeys", "b"),
        ];
        conditions(&json!({ "Condition": condition }), &facts)
    }

    #[test]
    fn a_statement_is_about_actions_and_resources() {
        let statement = json!({"Action": "s3:put*", "NotResource": ["arn:aws:s3:::b/agents/*"]});
        assert!(is_about(&statement, "s3:PutObject") && !is_about(&statement, "s3:GetObject"));
        assert!(is_on(&statement, "arn:aws:s3:::b/a") && !is_on(&statement, "arn:aws:s3:::b/agents/a"));
    }
}
