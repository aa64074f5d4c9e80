//! Questions to IAM's simulator, made of the statements of a generated policy: a policy with these statements answers all with yes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::base::policy_statement::texts;
use crate::cloud::PermissionQuestion;

/// Text in place of a wildcard of a policy, for a resource that a policy with the wildcard allows.
const FILLED: &str = "doctor";
/// The same for the tag of a session, which is the name of its training job.
const FILLED_SESSION: &str = "gitlab-doctor";
const TAG: &str = "aws:PrincipalTag/";

type Context = BTreeMap<String, (&'static str, Vec<String>)>;

/// A statement with `Allow`, and its questions.
#[derive(Debug)]
pub(super) struct AskedStatement {
    pub(super) statement: Value,
    pub(super) questions: Vec<PermissionQuestion>,
}

/// The statements of a policy that allow something, with their questions. What statements of the same policy deny is not asked.
pub(super) fn of_policy(policy: &Value) -> Vec<AskedStatement> {
    let tags = tags(&policy.to_string());
    let is = |statement: &&Value, effect: &str| statement["Effect"] == effect;
    let statements: Vec<&Value> = policy["Statement"].as_array().into_iter().flatten().collect();
    let denials: Vec<Value> =
        statements.iter().copied().filter(|one| is(one, "Deny")).map(|one| with_tags(one, &tags)).collect();
    let mut around: Context =
        tags.iter().map(|(name, value)| (format!("{TAG}{name}"), ("string", vec![value.clone()]))).collect();
    around.extend(denials.iter().flat_map(allowing));
    let asked = statements.into_iter().filter(|one| is(one, "Allow")).map(|statement| AskedStatement {
        questions: questions(&with_tags(statement, &tags), &denials, &around),
        statement: statement.clone(),
    });
    asked.filter(|asked| !asked.questions.is_empty()).collect()
}

/// The same question for each value of a condition on a list, when the question has several; to name those that are not allowed.
pub(super) fn one_by_one(question: &PermissionQuestion) -> Vec<(String, PermissionQuestion)> {
    let lists = question.context.iter().filter(|(_, (kind, values))| *kind == "stringList" && values.len() > 1);
    let single = |key: &String, value: &String| {
        let mut question = question.clone();
        question.context.insert(key.clone(), ("stringList", vec![value.clone()]));
        (format!("{key} = {value}"), question)
    };
    lists.flat_map(|(key, (_, values))| values.iter().map(move |value| single(key, value))).collect()
}

fn questions(statement: &Value, denials: &[Value], around: &Context) -> Vec<PermissionQuestion> {
    let actions: Vec<&str> = texts(&statement["Action"]).collect();
    let mut by_actions: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    for resource in texts(&statement["Resource"]).map(filled) {
        let allowed = |action: &&str| !denials.iter().any(|denial| denies(denial, action, &resource));
        let actions: Vec<String> = actions.iter().copied().filter(allowed).map(str::to_owned).collect();
        if !actions.is_empty() {
            by_actions.entry(actions).or_default().push(resource);
        }
    }
    let conditions = conditions(statement);
    let count = conditions.values().filter(|(kind, _)| *kind != "stringList").map(|(_, values)| values.len()).max();
    let contexts = (0..count.unwrap_or(1)).map(|number| {
        let mut context = around.clone();
        context.extend(conditions.iter().map(|(key, (kind, values))| {
            let values =
                if *kind == "stringList" { values.clone() } else { vec![values[number % values.len()].clone()] };
            (key.clone(), (*kind, values))
        }));
        context
    });
    let of_context = |context: Context| {
        let question = |(actions, resources): (&Vec<String>, &Vec<String>)| PermissionQuestion {
            actions: actions.clone(),
            resources: resources.clone(),
            context: context.clone(),
        };
        by_actions.iter().map(question).collect::<Vec<_>>()
    };
    contexts.flat_map(of_context).collect()
}

/// All values of each condition key of a statement; none of keys that must be absent.
fn conditions(statement: &Value) -> Context {
    let mut context = Context::new();
    for (operator, key, values) in conditions_of(statement) {
        let values: Vec<String> = values.into_iter().filter(|value| !value.contains("${")).map(filled).collect();
        if let Some(kind) = kind_of(operator).filter(|_| !values.is_empty()) {
            context.entry(key.to_owned()).or_insert((kind, values));
        }
    }
    context
}

fn conditions_of(statement: &Value) -> impl Iterator<Item = (&str, &str, Vec<&str>)> {
    let operators = statement["Condition"].as_object().into_iter().flatten();
    let keys =
        operators.flat_map(|(operator, keys)| keys.as_object().into_iter().flatten().map(move |one| (operator, one)));
    keys.map(|(operator, (key, values))| (operator.as_str(), key.as_str(), texts(values).collect()))
}

/// Values with which the conditions of a denial do not hold: `StringNotEquals` with the first value that is excepted.
fn allowing(denial: &Value) -> Vec<(String, (&'static str, Vec<String>))> {
    let negated =
        conditions_of(denial).filter(|(operator, ..)| operator.contains("NotEquals") || operator.contains("NotLike"));
    let first =
        negated.filter_map(|(_, key, values)| Some((key, values.into_iter().find(|value| !value.contains("${"))?)));
    first.map(|(key, value)| (key.to_owned(), ("string", vec![filled(value)]))).collect()
}

/// A statement denies the action without a condition.
fn denies(denial: &Value, action: &str, resource: &str) -> bool {
    let fits = |patterns: &Value, text: &str| {
        let globs = texts(patterns).filter_map(|pattern| globset::Glob::new(pattern).ok());
        globs.map(|glob| glob.compile_matcher()).any(|glob| glob.is_match(text))
    };
    denial["Condition"].is_null() && fits(&denial["Action"], action) && fits(&denial["Resource"], resource)
}

/// Tags of the principal that a policy asks for, each with a value.
fn tags(policy: &str) -> BTreeMap<String, String> {
    let names = policy.split(TAG).skip(1);
    let is_part = |letter: char| letter.is_alphanumeric() || "-_.:/@+=".contains(letter);
    let names: BTreeSet<&str> = names.filter_map(|rest| rest.split(|letter| !is_part(letter)).next()).collect();
    let value = |name: &str| if name.ends_with("session") { FILLED_SESSION } else { FILLED };
    names.into_iter().map(|name| (name.to_owned(), value(name).to_owned())).collect()
}

/// A statement with the values of these tags in place of their variables.
fn with_tags(statement: &Value, tags: &BTreeMap<String, String>) -> Value {
    let mut text = statement.to_string();
    for (name, value) in tags {
        text = text.replace(&format!("${{{TAG}{name}}}"), value);
    }
    serde_json::from_str(&text).unwrap_or_default()
}

/// Type of a condition key, as the simulator names it; `None` for a condition on its absence.
fn kind_of(operator: &str) -> Option<&'static str> {
    let of_list = operator.starts_with("ForAllValues:") || operator.starts_with("ForAnyValue:");
    match operator.split(':').next_back().unwrap_or_default() {
        "Null" => None,
        name if name.starts_with("Numeric") => Some("numeric"),
        name if name.starts_with("Bool") => Some("boolean"),
        _ if of_list => Some("stringList"),
        _ => Some("string"),
    }
}

fn filled(pattern: &str) -> String {
    if pattern == "*" {
        return pattern.to_owned();
    }
    pattern.replace('*', FILLED).replace('?', "0")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_question_fits_the_statement_that_it_is_made_of() {
        let asked = of_policy(&json!({"Statement": [
            {
                "Effect": "Allow",
                "Action": ["sagemaker:CreateTrainingJob"],
                "Resource": "arn:aws:sagemaker:eu-west-1:1:training-job/gitlab-*",
                "Condition": {
                    "ForAllValues:StringLike": {"sagemaker:InstanceTypes": ["ml.m5.*", "ml.g5.xlarge"]},
                    "NumericLessThanEquals": {"sagemaker:MaxRuntimeInSeconds": "86400"},
                    "Null": {"sagemaker:VpcSubnets": "true"},
                    "StringLike": {"aws:RequestTag/x": "${aws:PrincipalTag/sme-session}"},
                },
            },
            {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}},
        ]}));
        let [asked] = &asked[..] else { panic!("{asked:?}") };
        let [question] = &asked.questions[..] else { panic!("{asked:?}") };
        assert_eq!(question.resources, ["arn:aws:sagemaker:eu-west-1:1:training-job/gitlab-doctor"]);
        let values = |key: &str| question.context[key].clone();
        let types = ["ml.m5.doctor", "ml.g5.xlarge"].map(str::to_owned).to_vec();
        assert_eq!(values("sagemaker:InstanceTypes"), ("stringList", types));
        assert_eq!(values("sagemaker:MaxRuntimeInSeconds"), ("numeric", vec!["86400".to_owned()]));
        assert_eq!(values("aws:RequestTag/x").1, ["gitlab-doctor"]);
        assert_eq!(values("aws:PrincipalTag/sme-session").1, ["gitlab-doctor"]);
        assert_eq!(values("aws:SourceVpce").1, ["vpce-1"]);
        assert_eq!(question.context.len(), 5);
        let single = one_by_one(question);
        assert_eq!(single[1].0, "sagemaker:InstanceTypes = ml.g5.xlarge");
    }

    #[test]
    fn each_value_is_asked_and_what_the_policy_denies_is_not() {
        let asked = of_policy(&json!({"Statement": [
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": ["arn:aws:s3:::b/agents/*", "arn:aws:s3:::b/own/*"],
             "Condition": {"StringEquals": {"kms:ViaService": ["s3", "sagemaker"]}}},
            {"Effect": "Deny", "Action": "s3:Put*", "Resource": "arn:aws:s3:::b/agents/*"},
        ]}));
        let asked: Vec<_> = asked[0]
            .questions
            .iter()
            .map(|one| (one.actions.len(), one.resources[0].as_str(), one.context["kms:ViaService"].1[0].as_str()))
            .collect();
        let (agents, own) = ("arn:aws:s3:::b/agents/doctor", "arn:aws:s3:::b/own/doctor");
        assert_eq!(asked, [(1, agents, "s3"), (2, own, "s3"), (1, agents, "sagemaker"), (2, own, "sagemaker")]);
    }
}
