//! Errors of GitLab's API: a failed call and its kind.

/// A failed call. The text names the operation and its object, and contains GitLab's message; never a token.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation}: {message}")]
pub struct GitLabError {
    pub kind: GitLabErrorKind,
    /// Verb, noun and name: `create release stable-20261129T045233Z`.
    pub operation: String,
    /// The status and GitLab's message, or the transport's.
    pub message: String,
}

/// Derived from the status of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitLabErrorKind {
    /// 401: no token, or one that is expired, or of another kind.
    Unauthenticated,
    /// 403: the token's scope or role is not enough, or the project does not allow it.
    Denied,
    /// 404: also for what the token may not see.
    NotFound,
    /// 409, or 400 that says that the name is taken.
    Exists,
    /// 413: larger than GitLab, or the server before it, takes.
    TooLarge,
    /// 429, after the adapter's own repetitions.
    Throttled,
    /// 400, 422: GitLab does not take a value of the request.
    Refused,
    /// The answer is not one of GitLab's API: a redirect, an untrusted certificate, another form.
    Invalid,
    /// Connection, timeout, 5xx: after the adapter's own repetitions.
    Transient,
}
