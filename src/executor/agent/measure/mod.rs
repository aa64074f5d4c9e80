//! Measures while scripts run: values in their output, and the use of the machine. Knows no orders and sends nothing.

mod gpu;
mod machine;
mod metric_lines;
mod recorder;
mod sampling;

pub(super) use metric_lines::MetricLines;
pub(super) use recorder::Recorder;
pub(super) use sampling::sample;
