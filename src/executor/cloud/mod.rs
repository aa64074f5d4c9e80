//! The boundary to AWS in the executor's own words: one port for each capability, with its types, and [`CloudError`].
//!
//! Stages, session and agent know these traits only, and take the ports that they use. `aws` is the one implementation that
//! names `aws_*` crates, `testing` holds fakes with plans of faults. Every method retries transient faults itself (the SDK's own
//! retries); callers decide about everything else by [`CloudErrorKind`].

mod access;
mod connect;
mod error;
mod jobs;
mod logs;
mod objects;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use access::Access;
pub use connect::Connect;
pub use error::{CloudError, CloudErrorKind, Parameter};
pub use jobs::{
    Channel, JobStatus, Network, SecondaryStatus, TrainingJob, TrainingJobSpec, TrainingJobSummary, TrainingJobs,
    Transition,
};
pub use logs::{FILTER_STREAMS, FilterPage, JobLogs, LogClient, LogEvent, StreamPage};
pub use objects::{Listed, MOST_BYTES, ObjectStore};
