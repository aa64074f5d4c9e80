//! The element `Principal` of policies that belong to a resource, and which callers it names.

use serde_json::Value;

/// The caller of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Principal<'a> {
    /// `arn:aws:sts::..:assumed-role/ROLE/SESSION`, `arn:aws:iam::..:user/USER`, `..:root`, or an identity provider's.
    pub(crate) arn: &'a str,
    /// The role of a session.
    pub(crate) role_arn: Option<&'a str>,
    pub(crate) account: &'a str,
    /// The service that calls in its own name: `sagemaker.amazonaws.com`.
    pub(crate) service: Option<&'a str>,
}

impl Principal<'_> {
    /// `true` for the account itself, which no identity policy limits.
    pub(super) fn is_root(&self) -> bool {
        self.service.is_none() && self.arn.ends_with(":root")
    }
}

/// Closeness of an element's match of a caller. Later ones outweigh earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Naming {
    /// By its account, which leaves the decision to the policies of its identities.
    Account,
    /// By its role: session policies and the permissions boundary still limit it.
    Role,
    /// As itself, or as everyone.
    Caller,
}

/// The principals of one statement.
#[derive(Debug)]
pub(super) enum Principals {
    These(Vec<Named>),
    /// Everyone but these.
    NotThese(Vec<Named>),
}

#[derive(Debug)]
pub(super) enum Named {
    Everyone,
    Account(String),
    /// A user, a role, or a session.
    Arn(String),
    Service(String),
    Federated(String),
}

impl Principals {
    /// Reads the value of `Principal`, or of `NotPrincipal` when `negated`.
    pub(super) fn parse(value: &Value, negated: bool) -> Result<Self, String> {
        let mut named = Vec::new();
        match value {
            Value::String(text) if text == "*" => named.push(Named::Everyone),
            Value::Object(kinds) if !kinds.is_empty() => {
                for (kind, names) in kinds {
                    for name in texts(names, kind)? {
                        named.push(Named::parse(kind, &name)?);
                    }
                }
            }
            _ => return Err(format!("a principal is \"*\" or an object such as {{\"AWS\": ..}}, not {value}")),
        }
        Ok(if negated { Self::NotThese(named) } else { Self::These(named) })
    }

    /// Closeness of the element's match of a caller; `None` when it does not.
    pub(super) fn naming(&self, caller: &Principal) -> Option<Naming> {
        match self {
            Self::These(named) => named.iter().filter_map(|name| name.naming(caller)).max(),
            // A caller is left out of a refusal only when its account, its role and its own ARN are all named.
            Self::NotThese(named) => {
                let found = |wanted| named.iter().any(|name| name.naming(caller) == Some(wanted));
                let itself = found(Naming::Caller);
                let left_out = match (caller.service, caller.role_arn) {
                    (Some(_), _) => itself,
                    (None, Some(_)) => itself && found(Naming::Role) && found(Naming::Account),
                    (None, None) => itself && (caller.is_root() || found(Naming::Account)),
                };
                (!left_out).then_some(Naming::Caller)
            }
        }
    }
}

impl Named {
    fn parse(kind: &str, name: &str) -> Result<Self, String> {
        let account = |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
        match kind {
            "AWS" if name == "*" => Ok(Self::Everyone),
            "AWS" if account(name) => Ok(Self::Account(name.to_owned())),
            // The unique id that stands where a role or user was deleted.
            "AWS" if name.len() > 16 && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                Ok(Self::Arn(name.to_owned()))
            }
            "AWS" | "Federated" | "Service" if name.contains(['*', '?']) => Err(format!(
                "the principal `{name}` has a wildcard, which is allowed only as the whole name in \"AWS\""
            )),
            "AWS" => match name.splitn(6, ':').collect::<Vec<_>>()[..] {
                ["arn", _, "iam", "", id, "root"] if account(id) => Ok(Self::Account(id.to_owned())),
                ["arn", _, "iam" | "sts", "", id, rest] if account(id) && rest.contains('/') => {
                    Ok(Self::Arn(name.to_owned()))
                }
                _ => Err(format!("the principal `{name}` is no account, user, role or session")),
            },
            "Service" => Ok(Self::Service(name.to_owned())),
            "Federated" => Ok(Self::Federated(name.to_owned())),
            _ => Err(format!("the emulator does not know principals of the kind `{kind}`")),
        }
    }

    fn naming(&self, caller: &Principal) -> Option<Naming> {
        let (named, naming) = match self {
            Self::Everyone => (true, Naming::Caller),
            Self::Service(name) => (caller.service == Some(name), Naming::Caller),
            Self::Federated(arn) => (caller.service.is_none() && caller.arn == arn, Naming::Caller),
            Self::Arn(_) | Self::Account(_) if caller.service.is_some() => (false, Naming::Caller),
            Self::Arn(arn) if caller.role_arn == Some(arn) => (true, Naming::Role),
            Self::Arn(arn) => (caller.arn == arn, Naming::Caller),
            Self::Account(id) if caller.is_root() => (caller.account == id, Naming::Caller),
            Self::Account(id) => (caller.account == id && !caller.arn.contains(":oidc-provider/"), Naming::Account),
        };
        named.then_some(naming)
    }
}

/// One text or a list of texts.
pub(super) fn texts(value: &Value, name: &str) -> Result<Vec<String>, String> {
    let texts = match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(values) => values.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    texts.filter(|texts| !texts.is_empty()).ok_or_else(|| format!("`{name}` is neither a text nor a list of texts"))
}
