//! Tags of the creator role's session, which SageMaker carries over to the session of the training job's role.

/// The session's id, which is also the name of its first training job.
pub(super) const SESSION: &str = "sme-session";
/// The scope of the project's packs.
pub(super) const PROJECT: &str = "sme-project";
/// `true` for a job of a protected ref.
pub(super) const PROTECTED: &str = "sme-protected";

pub(super) const ALL: [&str; 3] = [SESSION, PROJECT, PROTECTED];

/// The tag's value, in a policy of a principal that has it.
pub(super) fn variable(tag: &str) -> String {
    format!("${{aws:PrincipalTag/{tag}}}")
}
