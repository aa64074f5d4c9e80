//! Tags of the session that creates a training job. SageMaker carries them over to the session of the job's role, whose policy
//! names by them what the job may reach.

/// The session's id: its objects, its training jobs and their log streams begin with it.
pub const SESSION: &str = "sme-session";
/// The scope of the project's packs.
pub const PROJECT: &str = "sme-project";
/// `true` for a job of a protected ref, `false` for others; no key holds it, so that operators may use it in policies of their own.
pub const PROTECTED: &str = "sme-protected";
/// The scope of the job's checkpoints; only jobs that keep some have the tag.
pub const CHECKPOINTS: &str = "sme-checkpoints";
/// All of them: a trust policy may ask for these and refuse others.
pub const ALL: [&str; 4] = [SESSION, PROJECT, PROTECTED, CHECKPOINTS];
