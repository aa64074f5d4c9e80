//! The boundary to AWS in the executor's own words: one port for each capability, with its types, and [`CloudError`].
//!
//! Stages, session and agent know these traits only, and take the ports that they use. `aws` is the one implementation that
//! names `aws_*` crates, `testing` holds fakes with plans of faults. Every method retries transient faults itself (the SDK's own
//! retries); callers decide about everything else by [`CloudErrorKind`].

mod connect;
mod error;
mod jobs;
mod logs;
mod objects;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use connect::Connect;
pub use error::{CloudError, CloudErrorKind, Parameter};
pub use jobs::{
    Channel, JobStatus, Network, SecondaryStatus, TrainingJob, TrainingJobSpec, TrainingJobSummary, TrainingJobs,
    Transition,
};
pub use logs::{FILTER_STREAMS, FilterPage, JobLogs, LogClient, LogEvent, StreamPage};
pub use objects::{Listed, MOST_BYTES, ObjectStore};

/// Where and how to reach AWS. `None` means what the SDK's default chain finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    pub region: Option<String>,
    /// One endpoint for all services (an emulator, path-style S3); AWS's own when `None`.
    pub endpoint_url: Option<String>,
    /// Bucket of everything the executor stores, and the key prefix in it (no leading or trailing slash).
    pub bucket: String,
    pub prefix: String,
    /// KMS key for every object; the bucket's default encryption when `None`.
    pub kms_key_id: Option<String>,
    /// PEM file of extra trusted roots (images without CA files; TLS inspection in a VPC).
    pub ca_bundle: Option<std::path::PathBuf>,
}
