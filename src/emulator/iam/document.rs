//! Documents of policies: their form, and whether a statement speaks of a request.

use serde_json::{Map, Value};

use super::conditions::{self, Condition};
use super::keys::{ConditionKeys, Question};
use super::pattern::{ARN_PARTS, Syntax, TextPattern};
use super::principals::{Naming, Principal, Principals, texts};

/// Kind of a policy: the thing that it is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PolicyKind {
    /// A user or a role.
    Identity,
    /// A bucket or another resource.
    Resource,
    /// A role, to say who may assume it.
    Trust,
    /// A session, when it began.
    Session,
    Boundary,
}

impl PolicyKind {
    /// Whether its statements say whom they are about.
    fn names_principals(self) -> bool {
        matches!(self, Self::Resource | Self::Trust)
    }
}

/// A policy that was found to be well formed.
#[derive(Debug)]
pub(crate) struct Document {
    statements: Vec<Statement>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

#[derive(Debug)]
struct Statement {
    /// `Sid`, empty without one.
    sid: String,
    effect: Effect,
    principals: Option<Principals>,
    actions: Listed,
    /// `None` for the policy of a role, which is about the role alone.
    resources: Option<Listed>,
    conditions: Vec<Condition>,
}

/// `Action` and `Resource`, or `NotAction` and `NotResource`.
#[derive(Debug)]
struct Listed {
    negated: bool,
    patterns: Vec<TextPattern>,
}

impl Document {
    /// Reads a policy of a kind. The error says what AWS would refuse, or what the emulator does not know.
    pub(crate) fn parse(kind: PolicyKind, policy: &Value) -> Result<Self, String> {
        let policy = policy.as_object().ok_or("a policy is a JSON object")?;
        only_members(policy, &["Version", "Id", "Statement"])?;
        let variables = match policy.get("Version").map_or(Some("2008-10-17"), Value::as_str) {
            Some("2012-10-17") => true,
            Some("2008-10-17") => false,
            _ => return Err("`Version` is neither \"2012-10-17\" nor \"2008-10-17\"".to_owned()),
        };
        let statements = match policy.get("Statement") {
            Some(Value::Array(statements)) => statements.iter().collect(),
            Some(statement) => vec![statement],
            None => return Err("a policy needs a `Statement`".to_owned()),
        };
        let statements = statements.into_iter().enumerate();
        let statements = statements.map(|(index, statement)| {
            Statement::parse(kind, statement, variables).map_err(|error| format!("statement {}: {error}", index + 1))
        });
        Ok(Self { statements: statements.collect::<Result<_, _>>()? })
    }

    /// Whether a statement refuses a request.
    pub(super) fn denies(&self, principal: &Principal, question: &Question) -> bool {
        self.naming(Effect::Deny, principal, question).is_some()
    }

    /// Closest match of the caller by the statements that allow a request; `None` when no statement allows it.
    pub(super) fn allows(&self, principal: &Principal, question: &Question) -> Option<Naming> {
        self.naming(Effect::Allow, principal, question)
    }

    /// `Sid` of each statement that allows a request.
    pub(crate) fn allowing(&self, principal: &Principal, question: &Question) -> impl Iterator<Item = &str> {
        let statements = self.statements.iter().filter(|statement| statement.effect == Effect::Allow);
        let found = statements.filter(|statement| statement.naming(principal, question).is_some());
        found.map(|statement| statement.sid.as_str())
    }

    fn naming(&self, effect: Effect, principal: &Principal, question: &Question) -> Option<Naming> {
        let statements = self.statements.iter().filter(|statement| statement.effect == effect);
        let found = statements.filter_map(|statement| statement.naming(principal, question));
        // An account in a refusal is everyone in it.
        found.max()
    }
}

impl Statement {
    fn parse(kind: PolicyKind, statement: &Value, variables: bool) -> Result<Self, String> {
        let statement = statement.as_object().ok_or("a statement is an object")?;
        only_members(
            statement,
            &[
                "Sid",
                "Effect",
                "Principal",
                "NotPrincipal",
                "Action",
                "NotAction",
                "Resource",
                "NotResource",
                "Condition",
            ],
        )?;
        let effect = match statement.get("Effect").and_then(Value::as_str) {
            Some("Allow") => Effect::Allow,
            Some("Deny") => Effect::Deny,
            _ => return Err("`Effect` is neither \"Allow\" nor \"Deny\"".to_owned()),
        };
        let principals = either(statement, "Principal", "NotPrincipal")?;
        let principals = principals.map(|(negated, value)| Principals::parse(value, negated)).transpose()?;
        match principals {
            None if kind.names_principals() => return Err("the policy of a resource needs a `Principal`".to_owned()),
            Some(_) if !kind.names_principals() => {
                return Err("only the policy of a resource has a `Principal`".to_owned());
            }
            Some(Principals::NotThese(_)) if effect == Effect::Allow => {
                return Err("`NotPrincipal` is for \"Deny\" alone".to_owned());
            }
            _ => {}
        }
        let (negated, actions) = either(statement, "Action", "NotAction")?.ok_or("a statement needs an `Action`")?;
        let actions = Listed { negated, patterns: each(actions, "Action", action)? };
        let resources = match either(statement, "Resource", "NotResource")? {
            Some(_) if kind == PolicyKind::Trust => {
                return Err("the trust policy of a role has no `Resource`".to_owned());
            }
            Some((negated, resources)) => {
                let patterns = each(resources, "Resource", |text| resource(text, variables))?;
                Some(Listed { negated, patterns })
            }
            None if kind == PolicyKind::Trust => None,
            None => return Err("a statement needs a `Resource`".to_owned()),
        };
        let conditions = match statement.get("Condition") {
            Some(element) => conditions::parse(element, variables)?,
            None => Vec::new(),
        };
        let sid = statement.get("Sid").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { sid, effect, principals, actions, resources, conditions })
    }

    /// Closeness of the statement's match of the caller when it is about the request; that of a policy without principals, as itself.
    fn naming(&self, principal: &Principal, question: &Question) -> Option<Naming> {
        let keys = question.keys;
        let about = self.actions.matches(|pattern| pattern.matches_any_case(question.action, keys))
            && self.resources.as_ref().is_none_or(|resources| resources.speak_of(question.resource, keys))
            && self.conditions.iter().all(|condition| condition.holds(keys));
        let naming = self.principals.as_ref().map_or(Some(Naming::Caller), |principals| principals.naming(principal));
        naming.filter(|_| about)
    }
}

impl Listed {
    fn matches(&self, is: impl Fn(&TextPattern) -> bool) -> bool {
        self.patterns.iter().any(is) != self.negated
    }

    fn speak_of(&self, resource: &str, keys: &ConditionKeys) -> bool {
        self.matches(|pattern| pattern.matches(resource, keys))
    }
}

fn only_members(object: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("a policy has no element `{name}` here")),
        None => Ok(()),
    }
}

/// An element or its negation, and whether it is the negation.
fn either<'a>(of: &'a Map<String, Value>, name: &str, negation: &str) -> Result<Option<(bool, &'a Value)>, String> {
    match (of.get(name), of.get(negation)) {
        (Some(_), Some(_)) => Err(format!("a statement has `{name}` or `{negation}`, not both")),
        (Some(value), None) => Ok(Some((false, value))),
        (None, Some(value)) => Ok(Some((true, value))),
        (None, None) => Ok(None),
    }
}

fn each(
    value: &Value,
    name: &str,
    read: impl Fn(&str) -> Result<TextPattern, String>,
) -> Result<Vec<TextPattern>, String> {
    texts(value, name)?.iter().map(|text| read(text)).collect()
}

fn action(text: &str) -> Result<TextPattern, String> {
    let service =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let well_formed =
        text == "*" || text.split_once(':').is_some_and(|(name, action)| service(name) && !action.is_empty());
    if !well_formed {
        return Err(format!("the action `{text}` has not the form service:Action"));
    }
    TextPattern::parse(text, Syntax { wildcards: true, variables: false })
}

/// An ARN; parts that are missing at its end are `*`.
fn resource(text: &str, variables: bool) -> Result<TextPattern, String> {
    if text != "*" && !text.starts_with("arn:") {
        return Err(format!("the resource `{text}` is neither an ARN nor \"*\""));
    }
    let missing = if text == "*" { 0 } else { ARN_PARTS - text.splitn(ARN_PARTS, ':').count() };
    TextPattern::parse(&format!("{text}{}", ":*".repeat(missing)), Syntax { wildcards: true, variables })
}
