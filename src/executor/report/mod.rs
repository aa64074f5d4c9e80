//! The presentation of a job's measurements, for people and GitLab: a page, files of final values, and lines for the log. Pure: data in, text out.
//!
//! Nothing here is fetched or executed by a browser: the page has its style and its drawings inside, and no script.

mod chart;
mod curve;
mod html;
mod page;
mod spark;
mod values;

pub use curve::{Curve, Unit};
pub use page::{JobPage, JobPhase, PAGE_START, page};
pub use spark::metric_line;
pub use values::{FinalValues, METRICS_JSON_START, METRICS_TEXT_START, open_metrics, values_json};
