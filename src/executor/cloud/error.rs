//! What a failed call says: enough for a caller to act on, in the executor's own words. Makes no error itself.

/// A failed call, with what a caller can act on. The text names the operation and the thing, and holds AWS's message.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation}: {message}")]
pub struct CloudError {
    pub kind: CloudErrorKind,
    /// `create training job gitlab-231-...`: verb, thing and its id.
    pub operation: String,
    /// AWS's code and message, or the transport's.
    pub message: String,
    /// The IAM action that was needed, when [`CloudErrorKind::Denied`]: `sagemaker:CreateTrainingJob`.
    pub action: &'static str,
}

impl CloudError {
    /// `true` when `error` comes from a call that may well succeed a moment later: throttled, or out of reach.
    pub fn may_pass(error: &anyhow::Error) -> bool {
        error.chain().filter_map(|cause| cause.downcast_ref::<Self>()).any(|cause| cause.kind.may_pass())
    }
}

/// Chosen from the error code string and its message: most codes are not in the service model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudErrorKind {
    NotFound,
    /// The name or key is taken.
    Exists,
    Throttled,
    /// SageMaker has no instance of the type now; another try may have.
    Capacity,
    /// An account limit: `ResourceLimitExceeded`.
    Quota,
    Denied,
    /// AWS refuses the request because of this parameter.
    Refused(Parameter),
    /// AWS refuses the request as it is, for another reason.
    Invalid,
    /// Connection, timeout, 5xx: after the SDK's own retries.
    Transient,
    Other,
}

/// A parameter of `CreateTrainingJob` that AWS may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    InstanceType,
    Image,
    Role,
}

impl CloudErrorKind {
    /// Another try of the same call, later, may succeed.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Throttled | Self::Transient)
    }
}
