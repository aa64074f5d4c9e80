//! Measures while scripts run: values in their output, and the use of the machine. Knows no orders and sends nothing.

mod gpu;
mod machine;
mod metric_lines;
mod sampling;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

pub(super) use metric_lines::MetricLines;
pub(super) use sampling::sample;

use crate::base::metric::MetricDefinition;
use crate::base::series::Series;
use crate::protocol::measurements::{Gauge, GpuUse, Measurements};
use gpu::GpuReading;

/// A GPU whose mean use is below this percentage is idle.
const IDLE_BELOW: f64 = 10.0;

/// What was measured so far; clones share it.
#[derive(Clone)]
pub(super) struct Recorder {
    begun: Instant,
    measured: Arc<Mutex<Measurements>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { begun: Instant::now(), measured: Arc::default() }
    }
}

impl Recorder {
    /// A reader of the output of one script.
    pub(super) fn lines(&self, definitions: &[MetricDefinition]) -> MetricLines {
        MetricLines::new(definitions, self.clone())
    }

    pub(super) fn measured(&self) -> Measurements {
        self.measured.lock().clone()
    }

    fn metric(&self, name: &str, value: f64) {
        let at = self.now();
        push(&mut self.measured.lock().metrics, name, at, value);
    }

    fn gauge(&self, gauge: Gauge, value: f64) {
        let at = self.now();
        push(&mut self.measured.lock().machine, gauge.name(), at, value);
    }

    fn gpus(&self, reading: GpuReading) {
        self.gauge(Gauge::Gpu, reading.busy);
        if let Some(memory) = reading.memory {
            self.gauge(Gauge::GpuMemory, memory);
        }
        let mut measured = self.measured.lock();
        let GpuUse { samples, idle, .. } = measured.gpu.take().unwrap_or_default();
        let idle = idle + u32::from(reading.busy < IDLE_BELOW);
        measured.gpu = Some(GpuUse { name: reading.name, count: reading.count, samples: samples + 1, idle });
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn push(all: &mut BTreeMap<String, Series>, name: &str, at: u64, value: f64) {
    match all.get_mut(name) {
        Some(series) => series.push(at, value),
        None => all.entry(name.to_owned()).or_default().push(at, value),
    }
}
