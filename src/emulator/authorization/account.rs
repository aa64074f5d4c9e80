//! The users and roles of an account, from the output of `aws iam get-account-authorization-details`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::iam::{Document, PolicyKind};
use crate::protocol::text;
use crate::tags::{TagMap, tag_map};

/// The session of a role lasts an hour at most, unless the role says otherwise.
const MAX_SESSION_SECONDS: u64 = 3600;

/// The users and roles of one account, by name.
#[derive(Debug, Default)]
pub(crate) struct IamAccount {
    pub(crate) users: BTreeMap<String, IamEntity>,
    pub(crate) roles: BTreeMap<String, IamEntity>,
}

/// A user, or a role with its trust policy.
#[derive(Debug)]
pub(crate) struct IamEntity {
    pub(crate) arn: String,
    /// `AIDA...` or `AROA...`.
    pub(crate) id: String,
    pub(crate) tags: TagMap,
    pub(crate) policies: Vec<Document>,
    pub(crate) boundary: Option<Document>,
    /// Of a role alone.
    pub(crate) trust: Option<Document>,
    /// The trust policy as it was given, as JSON.
    pub(crate) trust_text: String,
    pub(crate) max_session_seconds: u64,
}

/// Parts of the output that the entities refer to.
struct Shared<'a> {
    managed: BTreeMap<&'a str, &'a Value>,
    groups: BTreeMap<&'a str, &'a Value>,
}

impl IamAccount {
    /// Reads the output of the command; an error says which entity and policy it does not understand.
    pub(crate) fn parse(details: &Value) -> Result<Self, String> {
        if !["UserDetailList", "RoleDetailList"].iter().any(|name| details[*name].is_array()) {
            return Err("it has neither `UserDetailList` nor `RoleDetailList`".to_owned());
        }
        let managed = list(details, "Policies").filter_map(|policy| {
            let versions = list(policy, "PolicyVersionList");
            let default = versions.into_iter().find(|version| version["IsDefaultVersion"] == true)?;
            Some((text(policy, "Arn")?, default.get("Document")?))
        });
        let groups = list(details, "GroupDetailList").filter_map(|group| Some((text(group, "GroupName")?, group)));
        let shared = Shared { managed: managed.collect(), groups: groups.collect() };
        Ok(Self {
            users: entities(details, "UserDetailList", "UserName", &shared)?,
            roles: entities(details, "RoleDetailList", "RoleName", &shared)?,
        })
    }

    /// The role of an ARN.
    pub(crate) fn role(&self, arn: &str) -> Option<&IamEntity> {
        self.roles.values().find(|role| role.arn == arn)
    }

    /// The account ids in the ARNs of users and roles.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.users.values().chain(self.roles.values()).filter_map(|one| one.arn.split(':').nth(4))
    }
}

fn entities(
    details: &Value,
    list_name: &str,
    name: &str,
    shared: &Shared<'_>,
) -> Result<BTreeMap<String, IamEntity>, String> {
    let read = |one| {
        let name = text(one, name).ok_or_else(|| format!("an entry of `{list_name}` has no `{name}`"))?;
        let entity = IamEntity::parse(one, shared).map_err(|error| format!("{name}: {error}"))?;
        Ok((name.to_owned(), entity))
    };
    list(details, list_name).map(read).collect()
}

impl IamEntity {
    fn parse(one: &Value, shared: &Shared<'_>) -> Result<Self, String> {
        let is_role = one.get("AssumeRolePolicyDocument").is_some();
        let arn = text(one, "Arn").ok_or("it has no `Arn`")?;
        let mut policies = policies(one, shared)?;
        for group in list(one, "GroupList").filter_map(Value::as_str) {
            let group = shared.groups.get(group).ok_or_else(|| format!("its group {group} is not listed"))?;
            policies.extend(self::policies(group, shared)?);
        }
        let boundary = one.get("PermissionsBoundary").and_then(|boundary| text(boundary, "PermissionsBoundaryArn"));
        Ok(Self {
            arn: arn.to_owned(),
            id: text(one, if is_role { "RoleId" } else { "UserId" }).unwrap_or("AIDAEMULATOR").to_owned(),
            tags: tag_map(one.get("Tags")),
            policies,
            boundary: boundary.map(|arn| managed(PolicyKind::Boundary, arn, shared)).transpose()?,
            trust: one
                .get("AssumeRolePolicyDocument")
                .map(|trust| document(PolicyKind::Trust, "the trust policy", trust))
                .transpose()?,
            trust_text: one.get("AssumeRolePolicyDocument").map(ToString::to_string).unwrap_or_default(),
            max_session_seconds: one["MaxSessionDuration"].as_u64().unwrap_or(MAX_SESSION_SECONDS),
        })
    }
}

/// The policies inside a user, role or group, and those attached to it.
fn policies(one: &Value, shared: &Shared<'_>) -> Result<Vec<Document>, String> {
    let inline = ["UserPolicyList", "RolePolicyList", "GroupPolicyList"].into_iter().flat_map(|name| list(one, name));
    let inline = inline.map(|policy| {
        document(PolicyKind::Identity, text(policy, "PolicyName").unwrap_or_default(), &policy["PolicyDocument"])
    });
    let attached = list(one, "AttachedManagedPolicies");
    let attached =
        attached.map(|policy| managed(PolicyKind::Identity, text(policy, "PolicyArn").unwrap_or_default(), shared));
    inline.chain(attached).collect()
}

fn managed(kind: PolicyKind, arn: &str, shared: &Shared<'_>) -> Result<Document, String> {
    let found = shared.managed.get(arn).ok_or_else(|| format!("the policy {arn} is not in `Policies`"))?;
    document(kind, arn, found)
}

fn document(kind: PolicyKind, name: &str, value: &Value) -> Result<Document, String> {
    Document::parse(kind, value).map_err(|error| format!("{name}: {error}"))
}

fn list<'a>(of: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    of.get(name).and_then(Value::as_array).into_iter().flatten()
}
