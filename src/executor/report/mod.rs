//! What people and GitLab read of a job's measurements: a page, files of final values, and lines for the log. Pure: data in, text out.
//!
//! Nothing here is fetched or executed by a browser: the page has its style and its drawings inside, and no script.

mod chart;
mod html;
mod page;
mod spark;
mod values;

pub use page::{JobPage, JobPhase, page};
pub use spark::{best, metric_line};
pub use values::{FinalValues, open_metrics, values_json};

/// Word in the first line of each file that is written, by which a later job knows it.
pub const MARK: &str = "sagemaker-executor";

use crate::base::series::Series;

/// What the numbers of a curve are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Plain,
    /// From 0 to 100.
    Percent,
    BytesPerSecond,
}

/// A series with its name.
#[derive(Debug, Clone, Copy)]
pub struct Curve<'a> {
    pub name: &'a str,
    pub unit: Unit,
    pub series: &'a Series,
}
