//! Collects what is measured, for all scripts of the container.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::gpu::GpuReading;
use crate::base::series::Series;
use crate::protocol::measurements::{Gauge, GpuUse, Measurements};

/// A GPU whose mean use is below this percentage is idle.
const IDLE_BELOW: f64 = 10.0;

/// What was measured so far; clones share it.
#[derive(Clone)]
pub(crate) struct Recorder {
    begun: Instant,
    measured: Arc<Mutex<Measurements>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { begun: Instant::now(), measured: Arc::default() }
    }
}

impl Recorder {
    pub(crate) fn measured(&self) -> Measurements {
        self.measured.lock().clone()
    }

    pub(super) fn metric(&self, name: &str, value: f64) {
        let at = self.now();
        push(&mut self.measured.lock().metrics, name, at, value);
    }

    pub(super) fn gauge(&self, gauge: Gauge, value: f64) {
        let at = self.now();
        push(&mut self.measured.lock().machine, gauge.name(), at, value);
    }

    pub(super) fn gpus(&self, reading: GpuReading) {
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
