//! Collects what is measured, for all scripts of the container.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::gpu::GpuReading;
use crate::base::series::Series;
use crate::protocol::measurements::{Gauge, IDLE_BELOW_PERCENT, Measurements};

/// The measurements so far; clones share them.
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
        let count = u32::try_from(reading.busy.len()).unwrap_or(u32::MAX);
        self.gauge(Gauge::Gpu, reading.busy.iter().sum::<f64>() / f64::from(count));
        if let Some(memory) = reading.memory {
            self.gauge(Gauge::GpuMemory, memory);
        }
        let mut measured = self.measured.lock();
        let gpu = measured.gpu.get_or_insert_default();
        gpu.name = reading.name;
        gpu.samples += 1;
        gpu.idle.resize(gpu.idle.len().max(reading.busy.len()), 0);
        for (idle, busy) in gpu.idle.iter_mut().zip(reading.busy) {
            *idle += u32::from(busy < f64::from(IDLE_BELOW_PERCENT));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gpu_is_idle_by_its_own_use() {
        let recorder = Recorder::default();
        for busy in [vec![95.0, 0.0, 0.0, 0.0], vec![95.0, 50.0, 0.0, 0.0]] {
            recorder.gpus(GpuReading { name: "A10G".to_owned(), busy, memory: None });
        }
        let gpu = recorder.measured().gpu.unwrap();
        assert_eq!((gpu.samples, gpu.idle), (2, vec![0, 1, 2, 2]));
        assert_eq!(recorder.measured().gauge(Gauge::Gpu).unwrap().first(), Some(23.75));
    }
}
