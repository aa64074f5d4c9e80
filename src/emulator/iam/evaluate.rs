//! The decision on one request, as AWS takes it within one account and between two.

use super::document::{Document, PolicyKind};
use super::keys::Question;
use super::principals::{Naming, Principal};

/// The policies that apply to a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Policies<'a> {
    pub(crate) identity: &'a [Document],
    pub(crate) resource: Option<&'a Document>,
    pub(crate) session: Option<&'a Document>,
    pub(crate) boundary: Option<&'a Document>,
    /// Whether the resource belongs to another account than the caller: then its policy and those of the caller must both allow
    /// the request.
    pub(crate) across: bool,
}

impl<'a> Policies<'a> {
    /// All policies with their kinds, those that belong to the resource first.
    fn all(&self, of_resource: PolicyKind) -> impl Iterator<Item = (PolicyKind, &'a Document)> {
        let resource = self.resource.map(|policy| (of_resource, policy)).into_iter();
        let identity = self.identity.iter().map(|policy| (PolicyKind::Identity, policy));
        let boundary = self.boundary.map(|policy| (PolicyKind::Boundary, policy));
        resource.chain(identity).chain(boundary).chain(self.session.map(|policy| (PolicyKind::Session, policy)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Denied(Denial),
}

/// Reason of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denial {
    /// The kind of policy that refuses it, or lacks a statement that allows it.
    pub(crate) policy: PolicyKind,
    /// Whether a statement refuses it.
    pub(crate) explicit: bool,
    action: String,
}

impl Denial {
    /// The end of AWS's message.
    pub(crate) fn words(&self) -> String {
        let action = &self.action;
        match (self.policy, self.explicit) {
            (PolicyKind::Identity, true) => "with an explicit deny in an identity-based policy".to_owned(),
            (PolicyKind::Resource, true) => "with an explicit deny in a resource-based policy".to_owned(),
            (PolicyKind::Trust, true) => "with an explicit deny in the role trust policy".to_owned(),
            (PolicyKind::Session, true) => "with an explicit deny in a session policy".to_owned(),
            (PolicyKind::Boundary, true) => "with an explicit deny in a permissions boundary".to_owned(),
            (PolicyKind::Identity, false) => format!("because no identity-based policy allows the {action} action"),
            (PolicyKind::Resource, false) => format!("because no resource-based policy allows the {action} action"),
            (PolicyKind::Trust, false) => format!("because no role trust policy allows the {action} action"),
            (PolicyKind::Session, false) => format!("because no session policy allows the {action} action"),
            (PolicyKind::Boundary, false) => format!("because no permissions boundary allows the {action} action"),
        }
    }
}

/// Decides on a request for a resource that its own policy or the caller's may open.
pub(crate) fn evaluate(principal: &Principal, question: &Question, policies: &Policies) -> Verdict {
    if let Some(denial) = explicit_denial(principal, question, policies, PolicyKind::Resource) {
        return Verdict::Denied(denial);
    }
    if principal.is_root() && !policies.across {
        return Verdict::Allowed;
    }
    let naming = policies.resource.and_then(|policy| policy.allows(principal, question));
    if principal.service.is_some() || policies.across && (naming.is_none() || principal.is_root()) {
        return verdict(naming.is_some(), PolicyKind::Resource, question);
    }
    granted(naming, principal, question, policies)
}

/// Decides whether a caller may assume the role whose trust policy is the policy of the resource: the trust policy has to allow
/// it, and where it names only the account, a policy of the caller too.
pub(crate) fn assumes(principal: &Principal, question: &Question, policies: &Policies) -> Verdict {
    if let Some(denial) = explicit_denial(principal, question, policies, PolicyKind::Trust) {
        return Verdict::Denied(denial);
    }
    let naming = policies.resource.and_then(|policy| policy.allows(principal, question));
    if naming.is_none() || principal.service.is_some() || principal.is_root() {
        return verdict(naming.is_some(), PolicyKind::Trust, question);
    }
    granted(naming, principal, question, policies)
}

/// Decides what the trust policy of a role says by itself.
pub(crate) fn trusts(trust: &Document, principal: &Principal, question: &Question) -> Verdict {
    if trust.denies(principal, question) {
        return Verdict::Denied(denial(PolicyKind::Trust, true, question));
    }
    verdict(trust.allows(principal, question).is_some(), PolicyKind::Trust, question)
}

/// Decides by all policies but the refusals in them. A policy of the resource that names the caller as itself needs no other; one
/// that names its role still needs what limits the session. To callers of another account it gives nothing by itself.
fn granted(naming: Option<Naming>, principal: &Principal, question: &Question, policies: &Policies) -> Verdict {
    let naming = naming.filter(|_| !policies.across);
    if naming == Some(Naming::Caller) {
        return Verdict::Allowed;
    }
    let allows = |policy: &Document| policy.allows(principal, question).is_some();
    if naming != Some(Naming::Role) && !policies.identity.iter().any(allows) {
        return verdict(false, PolicyKind::Identity, question);
    }
    let limits = [(PolicyKind::Boundary, policies.boundary), (PolicyKind::Session, policies.session)];
    let missing = limits.into_iter().find(|(_, policy)| policy.is_some_and(|policy| !allows(policy)));
    missing.map_or(Verdict::Allowed, |(kind, _)| verdict(false, kind, question))
}

fn explicit_denial(
    principal: &Principal,
    question: &Question,
    policies: &Policies,
    of_resource: PolicyKind,
) -> Option<Denial> {
    let (kind, _) = policies.all(of_resource).find(|(_, policy)| policy.denies(principal, question))?;
    Some(denial(kind, true, question))
}

fn verdict(allowed: bool, kind: PolicyKind, question: &Question) -> Verdict {
    if allowed { Verdict::Allowed } else { Verdict::Denied(denial(kind, false, question)) }
}

fn denial(policy: PolicyKind, explicit: bool, question: &Question) -> Denial {
    Denial { policy, explicit, action: question.action.to_owned() }
}
