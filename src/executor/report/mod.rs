//! The presentation of measurements, for people and GitLab: pages, a note, files of values, and lines for the log. Pure: data in, text out.
//!
//! Nothing here is fetched or executed by a browser: the pages have their style and their drawings inside, and no script.

mod chart;
mod curve;
mod html;
mod labels;
mod matrix;
mod model;
mod model_note;
mod model_page;
mod model_values;
mod page;
mod parts;
mod spark;
mod values;
mod versions;
mod words;

pub use curve::{Across, Curve, Unit};
pub use labels::labels;
pub use model::{
    Better, ConfusionMatrix, EndpointCheck, EndpointFigures, HistoryPoint, LearningCurve, MetricChange, MetricRow,
    MetricState, ModelReport, ModelVerdict, PAGE_LINK, PlannedDeployment, ReportLink, TrainingFigures,
};
pub use model_note::{model_note, note_marker, note_pipeline};
pub use model_page::model_page;
pub use model_values::model_values;
pub use page::{JobPage, PAGE_START, page};
pub use parts::{JobPhase, LONGEST_NAME, LONGEST_TEXT};
pub use spark::{better, metric_line};
pub use values::{FinalValues, METRICS_JSON_START, METRICS_TEXT_START, open_metrics, values_json};
pub use words::{change as change_words, state as state_words};
