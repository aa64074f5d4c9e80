//! The caller of a request, and how each service wants its requests signed.

/// The caller of one request, as its signature proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The training job in whose container the caller is; `None` for the user.
    pub(crate) job: Option<String>,
    pub(crate) account: String,
    pub(crate) region: String,
}

impl Caller {
    /// The name that AWS gives the caller.
    pub(crate) fn arn(&self) -> String {
        let account = &self.account;
        match self.job {
            Some(_) => format!("arn:aws:sts::{account}:assumed-role/emulator/SageMaker"),
            None => format!("arn:aws:iam::{account}:user/test"),
        }
    }
}

#[cfg(test)]
impl Caller {
    /// The user, as the tests of the services call.
    pub(crate) fn user() -> Self {
        Self { job: None, account: "000000000000".to_owned(), region: "us-east-1".to_owned() }
    }
}

/// The form of a service's errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireProtocol {
    Json,
    Query,
    S3,
}

/// How a service wants its requests signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signing {
    pub(crate) protocol: WireProtocol,
    /// The service in the scope of the credential; `None` takes any.
    pub(crate) service: Option<&'static str>,
}
