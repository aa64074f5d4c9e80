//! The identities that access keys stand for.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::iam::Document;
use crate::partition::partition;
use crate::tags::TagMap;

/// The identity behind an access key.
#[derive(Debug, Clone)]
pub(crate) enum Identity {
    /// May do everything that no bucket policy denies.
    Administrator,
    /// The caller of a request without a signature.
    Anonymous,
    /// A user of the account, by name.
    User {
        name: String,
        arn: String,
        id: String,
    },
    Session(RoleSession),
}

/// A session of a role.
#[derive(Debug, Clone)]
pub(crate) struct RoleSession {
    pub(crate) role_arn: String,
    pub(crate) role_id: String,
    pub(crate) name: String,
    /// Tags of the session, without those of the role.
    pub(crate) tags: TagMap,
    /// Keys of tags that the next session of a chain keeps.
    pub(crate) transitive: BTreeSet<String>,
    /// Narrows what the role's policies allow.
    pub(crate) policy: Option<Arc<Document>>,
    /// `None` for a session that lasts as long as the emulator or its job.
    pub(crate) expires_ms: Option<u64>,
    /// The training job in whose containers the session is.
    pub(crate) job: Option<String>,
}

impl RoleSession {
    pub(crate) fn new(role_arn: &str, role_id: &str, name: &str) -> Self {
        Self {
            role_arn: role_arn.to_owned(),
            role_id: role_id.to_owned(),
            name: name.to_owned(),
            tags: TagMap::new(),
            transitive: BTreeSet::new(),
            policy: None,
            expires_ms: None,
            job: None,
        }
    }

    /// `arn:aws:sts::...:assumed-role/NAME/SESSION`; the role's path is not part of it.
    pub(crate) fn arn(&self) -> String {
        let mut parts = self.role_arn.split(':');
        let partition = parts.nth(1).unwrap_or("aws");
        let account = parts.nth(2).unwrap_or_default();
        format!("arn:{partition}:sts::{account}:assumed-role/{}/{}", role_name(&self.role_arn), self.name)
    }
}

/// The account in an ARN; `None` when it has none.
pub(crate) fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|account| !account.is_empty())
}

/// The last part of a role's ARN.
pub(crate) fn role_name(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
}

impl Identity {
    /// The name that AWS gives the identity, in the partition of the region.
    pub(crate) fn arn(&self, account: &str, region: &str) -> String {
        match self {
            Identity::Administrator => format!("arn:{}:iam::{account}:user/test", partition(region)),
            Identity::Anonymous => "anonymous".to_owned(),
            Identity::User { arn, .. } => arn.clone(),
            Identity::Session(session) => session.arn(),
        }
    }

    /// The ARN that policies name: that of the role for its sessions.
    pub(crate) fn principal_arn(&self, account: &str, region: &str) -> String {
        match self {
            Identity::Session(session) => session.role_arn.clone(),
            other => other.arn(account, region),
        }
    }

    /// The unique id, `ROLE-ID:SESSION` for a session.
    pub(crate) fn user_id(&self) -> String {
        match self {
            Identity::Administrator => "AIDAEMULATOR".to_owned(),
            Identity::Anonymous => "anonymous".to_owned(),
            Identity::User { id, .. } => id.clone(),
            Identity::Session(session) => format!("{}:{}", session.role_id, session.name),
        }
    }

    /// The account of a user or role; `None` for an identity of the emulator's own account.
    pub(crate) fn account(&self) -> Option<&str> {
        match self {
            Identity::Administrator | Identity::Anonymous => None,
            Identity::User { arn, .. } => account_of(arn),
            Identity::Session(session) => account_of(&session.role_arn),
        }
    }

    /// The training job in whose container the caller is.
    pub(crate) fn job(&self) -> Option<&str> {
        self.session()?.job.as_deref()
    }

    pub(crate) fn session(&self) -> Option<&RoleSession> {
        match self {
            Identity::Session(session) => Some(session),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_named_by_its_role_without_the_path() {
        let session = RoleSession::new("arn:aws-cn:iam::123456789012:role/ci/train", "AROA1", "SageMaker");
        let identity = Identity::Session(session);
        assert_eq!(identity.arn("0", "cn-north-1"), "arn:aws-cn:sts::123456789012:assumed-role/train/SageMaker");
        assert_eq!(identity.principal_arn("0", "cn-north-1"), "arn:aws-cn:iam::123456789012:role/ci/train");
        assert_eq!(identity.user_id(), "AROA1:SageMaker");
    }
}
