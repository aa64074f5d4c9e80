//! The caller of a request, and how each service wants its requests signed.

use std::sync::Arc;

use super::authorization::identity::Identity;

/// The caller of one request, as its signature proves.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) identity: Arc<Identity>,
    pub(crate) account: String,
    pub(crate) region: String,
}

impl Caller {
    /// The caller of a request without a signature.
    pub(crate) fn anonymous(account: &str) -> Self {
        Self { identity: Arc::new(Identity::Anonymous), account: account.to_owned(), region: "us-east-1".to_owned() }
    }

    /// The name that AWS gives the caller.
    pub(crate) fn arn(&self) -> String {
        self.identity.arn(&self.account, &self.region)
    }

    /// Whether the key of the profile `default` signed the request.
    pub(crate) fn is_administrator(&self) -> bool {
        matches!(*self.identity, Identity::Administrator)
    }
}

#[cfg(test)]
impl Caller {
    /// The administrator, as the tests of the services call.
    pub(crate) fn administrator() -> Self {
        let identity = Arc::new(Identity::Administrator);
        Self { identity, account: "000000000000".to_owned(), region: "us-east-1".to_owned() }
    }
}

/// The form of a service's errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireProtocol {
    Json,
    Query,
    S3,
}

/// The service in the scope of credentials for the emulator's own paths.
pub(crate) const OWN_SERVICE: &str = "emulator";

/// How a service wants its requests signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signing {
    pub(crate) protocol: WireProtocol,
    /// The service in the scope of the credential; `None` takes any.
    pub(crate) service: Option<&'static str>,
}
