//! Errors of the ports: a failed call and its kind.

/// A failed call, with the kind by which a caller decides. The text names the operation and its object, and contains
/// AWS's message.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation}: {message}")]
pub struct CloudError {
    pub kind: CloudErrorKind,
    /// Verb, noun and id: `create training job gitlab-231-...`.
    pub operation: String,
    /// AWS's code and message, or the transport's.
    pub message: String,
    /// The missing IAM permission, when [`CloudErrorKind::Denied`]: `sagemaker:CreateTrainingJob`. Empty when AWS does not
    /// accept the credentials, so that no permission would help.
    pub action: &'static str,
}

impl CloudError {
    /// `true` when `error` comes from a call that may succeed when repeated: throttled, or no connection.
    pub fn may_pass(error: &anyhow::Error) -> bool {
        Self::passing(error).is_some()
    }

    /// The cause that may pass by itself.
    pub fn passing(error: &anyhow::Error) -> Option<&Self> {
        error.chain().filter_map(|cause| cause.downcast_ref::<Self>()).find(|cause| cause.kind.may_pass())
    }
}

/// Derived from the error code and its message: most codes are not in the service model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudErrorKind {
    NotFound,
    /// The name or key is taken.
    Exists,
    Throttled,
    /// SageMaker has no instance of the type at the moment; a retry may get one.
    Capacity,
    /// An account limit: `ResourceLimitExceeded`.
    Quota,
    Denied,
    /// There are no credentials, or AWS does not accept them.
    Unauthenticated,
    /// AWS refuses the request because of this parameter.
    Refused(Parameter),
    /// AWS refuses the request for another reason.
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
    /// A KMS key, of the volume or of the output.
    Key,
    /// Subnets or security groups.
    Network,
}

impl CloudErrorKind {
    /// `true` when the same call may succeed later.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Throttled | Self::Transient)
    }
}
