//! Names and ARNs of models, endpoint configurations and endpoints.

use crate::caller::Caller;
use crate::partition::partition;
use crate::protocol::ApiError;

/// The three kinds of resources of this service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ServingKind {
    Model,
    Config,
    Endpoint,
}

impl ServingKind {
    /// As in ARNs.
    fn path(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Config => "endpoint-config",
            Self::Endpoint => "endpoint",
        }
    }

    /// As in errors.
    fn words(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Config => "endpoint configuration",
            Self::Endpoint => "endpoint",
        }
    }
}

/// A resource by its name within an account and a region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServingName {
    pub(super) kind: ServingKind,
    pub(super) account: String,
    pub(super) region: String,
    pub(super) name: String,
}

impl ServingName {
    pub(super) fn new(kind: ServingKind, name: &str, caller: &Caller) -> Self {
        Self { kind, account: caller.account.clone(), region: caller.region.clone(), name: name.to_owned() }
    }

    pub(super) fn arn(&self) -> String {
        let Self { kind, account, region, name } = self;
        format!("arn:{}:sagemaker:{region}:{account}:{}/{name}", partition(region), kind.path())
    }

    pub(super) fn absent(&self) -> ApiError {
        ApiError::validation(format!("Could not find {} \"{}\".", self.kind.words(), self.arn()))
    }

    pub(super) fn present(&self) -> ApiError {
        ApiError::validation(format!("Cannot create already existing {} \"{}\".", self.kind.words(), self.arn()))
    }
}
