//! Counts what the processes of a runner host do, for Prometheus.
//!
//! `counts` adds up in this process, `spool` brings the sums of all processes together on the disk, `text` makes the file that the
//! node exporter reads. `catalog` is the table of the metrics. Nothing is counted until [`begin`] is called.

mod catalog;
mod counts;
mod sample;
mod spool;
mod text;

pub use catalog::{
    API_CALLS, API_SECONDS, BILLED_SECONDS, COST, JOB_SECONDS, JOBS, METRICS, Metric, MetricForm, OPEN_LABELS, ORPHANS,
    OUTPUT_BYTES, PROVISIONING_SECONDS, QUEUE_SECONDS, RECEIVED_BYTES, SENT_BYTES, STAGES, SWEEPS, TRACE_DELAY,
};
pub use counts::{add, adopt, begin, flush, is_on, observe, shows_projects};
pub use sample::Sums;
pub use spool::{CountsPlace, Unwritten};
