//! The time in which the processors of a job's machine were idle, for programs that read the report. Pure.

use serde::Serialize;

use crate::protocol::measurements::{Gauge, IDLE_BELOW_PERCENT, Measurements, sampled_time};

/// Seconds in which the use was under a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdleTime {
    /// The mark.
    below_percent: u32,
    /// While scripts ran.
    measured_seconds: u64,
    /// All cores together, by the means of neighbouring samples.
    cpu_seconds: Option<u64>,
    /// For each GPU.
    gpu_seconds: Vec<u64>,
}

impl IdleTime {
    /// `None`: nothing was measured.
    pub(super) fn of(measured: &Measurements) -> Option<Self> {
        let seconds = |samples: u32| sampled_time(samples).as_secs();
        let cpu = measured.gauge(Gauge::Cpu).map(|series| {
            let counted = series.points().iter().map(|point| (point.count, point.mean < f64::from(IDLE_BELOW_PERCENT)));
            counted.fold((0_u32, 0_u32), |(all, idle), (count, is_idle)| {
                (all.saturating_add(count), idle.saturating_add(if is_idle { count } else { 0 }))
            })
        });
        let gpu = measured.gpu.as_ref().filter(|gpu| gpu.samples > 0);
        let samples = cpu.map(|(all, _)| all).max(gpu.map(|gpu| gpu.samples))?;
        let share = |(all, idle): (u32, u32)| seconds(samples) * u64::from(idle.min(all)) / u64::from(all.max(1));
        Some(Self {
            below_percent: IDLE_BELOW_PERCENT,
            measured_seconds: seconds(samples),
            cpu_seconds: cpu.map(share),
            gpu_seconds: gpu.iter().flat_map(|gpu| gpu.idle.iter().map(|idle| share((gpu.samples, *idle)))).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::series::Series;
    use crate::protocol::measurements::GpuUse;

    #[test]
    fn idle_time_is_the_time_under_the_mark() {
        let mut measured = Measurements::default();
        assert_eq!(IdleTime::of(&measured), None);
        let mut cpu = Series::default();
        for (at, value) in [(1, 50.0), (5, 9.0), (15, 10.0), (25, 2.0)] {
            cpu.push(at * 1000, value);
        }
        measured.machine.insert("cpu".to_owned(), cpu);
        let idle = IdleTime::of(&measured).unwrap();
        assert_eq!((idle.measured_seconds, idle.cpu_seconds, idle.gpu_seconds), (25, Some(12), vec![]));
        // Those of the GPUs may be more.
        measured.gpu = Some(GpuUse { name: "A10G".to_owned(), samples: 362, idle: vec![304, 0, 362] });
        let idle = IdleTime::of(&measured).unwrap();
        assert_eq!((idle.measured_seconds, idle.gpu_seconds), (3605, vec![3027, 0, 3605]));
    }
}
