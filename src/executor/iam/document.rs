//! Policy documents in the form that IAM reads, with a stable order of everything in them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// A policy of a role, a trust policy, or a policy of a bucket or key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyDocument {
    version: &'static str,
    statement: Vec<PolicyStatement>,
}

impl PolicyDocument {
    pub(super) fn of(statements: impl IntoIterator<Item = PolicyStatement>) -> Self {
        Self { version: "2012-10-17", statement: statements.into_iter().collect() }
    }
}

/// One statement; built by the functions below, in the order of IAM's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyStatement {
    sid: Cow<'static, str>,
    effect: Effect,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<Principal>,
    action: OneOrMore,
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    resource: OneOrMore,
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    not_resource: OneOrMore,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    condition: BTreeMap<&'static str, BTreeMap<String, OneOrMore>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Effect {
    Allow,
    Deny,
}

/// Principals of a trust policy or a resource's policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) enum Principal {
    #[serde(rename = "AWS")]
    Aws(OneOrMore),
    Service(&'static str),
}

impl Principal {
    pub(super) fn everyone() -> Self {
        Self::Aws("*".into())
    }
}

/// Text, or a list of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OneOrMore(Vec<String>);

impl OneOrMore {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for OneOrMore {
    fn from(text: &str) -> Self {
        Self(vec![text.to_owned()])
    }
}

impl From<String> for OneOrMore {
    fn from(text: String) -> Self {
        Self(vec![text])
    }
}

impl From<Vec<String>> for OneOrMore {
    fn from(texts: Vec<String>) -> Self {
        Self(texts)
    }
}

impl From<&[&str]> for OneOrMore {
    fn from(texts: &[&str]) -> Self {
        Self(texts.iter().map(|text| (*text).to_owned()).collect())
    }
}

impl<const N: usize> From<[&str; N]> for OneOrMore {
    fn from(texts: [&str; N]) -> Self {
        Self(texts.map(str::to_owned).to_vec())
    }
}

impl<const N: usize> From<[String; N]> for OneOrMore {
    fn from(texts: [String; N]) -> Self {
        Self(texts.to_vec())
    }
}

impl Serialize for OneOrMore {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            more => more.serialize(serializer),
        }
    }
}

impl PolicyStatement {
    pub(super) fn allow(sid: impl Into<Cow<'static, str>>, action: impl Into<OneOrMore>) -> Self {
        Self::new(sid.into(), Effect::Allow, action.into())
    }

    pub(super) fn deny(sid: impl Into<Cow<'static, str>>, action: impl Into<OneOrMore>) -> Self {
        Self::new(sid.into(), Effect::Deny, action.into())
    }

    fn new(sid: Cow<'static, str>, effect: Effect, action: OneOrMore) -> Self {
        let (resource, not_resource) = Default::default();
        Self { sid, effect, principal: None, action, resource, not_resource, condition: BTreeMap::new() }
    }

    pub(super) fn of(mut self, principal: Principal) -> Self {
        self.principal = Some(principal);
        self
    }

    pub(super) fn on(mut self, resource: impl Into<OneOrMore>) -> Self {
        self.resource = resource.into();
        self
    }

    /// On everything else.
    pub(super) fn on_all_but(mut self, resource: impl Into<OneOrMore>) -> Self {
        self.not_resource = resource.into();
        self
    }

    /// Adds a condition; all that a statement has must hold, and of a list one value.
    pub(super) fn when(mut self, operator: &'static str, key: impl Into<String>, values: impl Into<OneOrMore>) -> Self {
        self.condition.entry(operator).or_default().insert(key.into(), values.into());
        self
    }
}
