//! The measurements of an agent while scripts ran: a message that it stores once, before it leaves.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::metric::{MOST_METRICS, is_metric_name};
use crate::base::node::NodeId;
use crate::base::seal::Label;
use crate::base::series::Series;
use crate::protocol::keys::SessionKeys;
use crate::protocol::mailbox::{self, Envelope, MailboxError};

/// A quantity of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gauge {
    /// Share of all cores, in percent; of its quota in a container that has one.
    Cpu,
    /// In percent of the container's limit, or of the machine.
    Memory,
    /// Used part of the volume, in percent.
    Disk,
    /// Mean over all GPUs, in percent.
    Gpu,
    /// Used memory of all GPUs, in percent.
    GpuMemory,
    /// Bytes a second.
    Received,
    /// Bytes a second.
    Sent,
}

impl Gauge {
    pub const ALL: [Self; 7] =
        [Self::Cpu, Self::Memory, Self::Gpu, Self::GpuMemory, Self::Disk, Self::Received, Self::Sent];

    /// The name in messages and files; it never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Gpu => "gpu",
            Self::GpuMemory => "gpu_memory",
            Self::Received => "received",
            Self::Sent => "sent",
        }
    }

    pub fn is_percent(self) -> bool {
        !matches!(self, Self::Received | Self::Sent)
    }
}

/// A processor whose use is below this is idle.
pub const IDLE_BELOW_PERCENT: u32 = 10;
/// Time between two samples of the machine. A series merges its points when there are many.
pub const SAMPLED_EVERY: Duration = Duration::from_secs(10);
/// The first samples come sooner, so that a short script has some.
pub const FIRST_SAMPLES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// The time that so many samples stand for.
pub fn sampled_time(samples: u32) -> Duration {
    let first: Duration = FIRST_SAMPLES.into_iter().zip(0..samples).map(|(pause, _)| pause).sum();
    first + SAMPLED_EVERY * samples.saturating_sub(2)
}

/// The GPUs of a machine, and how often they were idle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuUse {
    /// Of the first one.
    pub name: String,
    pub samples: u32,
    /// For each GPU, the samples in which it was idle.
    pub idle: Vec<u32>,
}

/// Most GPUs, and the longest name of one, that a driver takes from a container.
const MOST_GPUS: usize = 64;
const GPU_NAME: usize = 64;

/// All of it, of one start of the container. Times are in milliseconds since the agent began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurements {
    /// By [`Gauge::name`].
    #[serde(default)]
    pub machine: BTreeMap<String, Series>,
    /// By the names that the job gave them.
    #[serde(default)]
    pub metrics: BTreeMap<String, Series>,
    #[serde(default)]
    pub gpu: Option<GpuUse>,
}

impl Measurements {
    pub fn is_empty(&self) -> bool {
        self.machine.is_empty() && self.metrics.is_empty()
    }

    pub fn gauge(&self, gauge: Gauge) -> Option<&Series> {
        self.machine.get(gauge.name())
    }

    /// Adds those of the container's next start.
    pub fn extend(&mut self, later: &Self) {
        let from = self.machine.values().chain(self.metrics.values()).map(Series::end).max().unwrap_or(0);
        for (all, later) in [(&mut self.machine, &later.machine), (&mut self.metrics, &later.metrics)] {
            for (name, series) in later {
                all.entry(name.clone()).or_default().extend(series, from);
            }
        }
        if let Some(later) = &later.gpu {
            let all = self.gpu.get_or_insert_default();
            all.name.clone_from(&later.name);
            all.samples = all.samples.saturating_add(later.samples);
            all.idle.resize(all.idle.len().max(later.idle.len()), 0);
            for (idle, later) in all.idle.iter_mut().zip(&later.idle) {
                *idle = idle.saturating_add(*later);
            }
        }
    }

    /// Leaves out what no agent of ours sends: a container may have stored it.
    fn checked(mut self) -> Self {
        self.machine.retain(|name, series| Gauge::ALL.iter().any(|gauge| gauge.name() == name) && series.is_sound());
        let mut names = 0;
        self.metrics.retain(|name, series| {
            let is_kept = is_metric_name(name) && series.is_sound() && names < MOST_METRICS;
            names += usize::from(is_kept);
            is_kept
        });
        let is_sound = |gpu: &GpuUse| {
            (1..=MOST_GPUS).contains(&gpu.idle.len()) && gpu.idle.iter().all(|idle| *idle <= gpu.samples)
        };
        self.gpu = self.gpu.take().filter(is_sound).map(|gpu| {
            let is_plain = |c: &char| c.is_ascii_alphanumeric() || " -_.".contains(*c);
            GpuUse { name: gpu.name.chars().filter(is_plain).take(GPU_NAME).collect(), ..gpu }
        });
        self
    }
}

pub fn encode_measurements(keys: &SessionKeys, node: NodeId, restarts: u32, body: &Measurements) -> Vec<u8> {
    let (seal, seq) = (keys.seal(), restarts);
    mailbox::encode(seal, Label::measurements(node, seq), &Envelope { version: mailbox::version(seal), seq, body })
}

/// The presentable part of a message: series that are not well-formed are left out.
pub fn decode_measurements(
    keys: &SessionKeys,
    node: NodeId,
    restarts: u32,
    bytes: &[u8],
) -> Result<Measurements, MailboxError> {
    let (key, label) = (keys.measurements(node, restarts), Label::measurements(node, restarts));
    mailbox::decode(keys.seal(), label, &key, restarts, bytes).map(Measurements::checked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seal::{Seal, SealKey};

    const NODE: NodeId = NodeId::LEADER;

    fn keys() -> SessionKeys {
        SessionKeys::new("k", Seal::Keyed(SealKey::new([7; 32])))
    }

    fn series(values: &[f64]) -> Series {
        let mut series = Series::default();
        (0..).zip(values).for_each(|(at, value)| series.push(at, *value));
        series
    }

    fn measured() -> Measurements {
        Measurements {
            machine: BTreeMap::from([("cpu".to_owned(), series(&[50.0]))]),
            metrics: BTreeMap::from([("loss".to_owned(), series(&[0.5, 0.25]))]),
            gpu: Some(GpuUse { name: "NVIDIA A10G".to_owned(), samples: 10, idle: vec![4] }),
        }
    }

    /// Driver and agent may be of different versions, so this may not change.
    #[test]
    fn the_message_is_as_documented_and_of_one_start() {
        let bytes = encode_measurements(&keys(), NODE, 1, &measured());
        let text = std::str::from_utf8(&bytes).unwrap().split_once('\n').unwrap().1;
        insta::assert_snapshot!(text, @r#"{"version":2,"seq":1,"body":{"machine":{"cpu":{"points":[[0,1,50.0,50.0,50.0]],"per_point":1,"first":50.0,"last":50.0}},"metrics":{"loss":{"points":[[0,1,0.5,0.5,0.5],[1,1,0.25,0.25,0.25]],"per_point":1,"first":0.5,"last":0.25}},"gpu":{"name":"NVIDIA A10G","samples":10,"idle":[4]}}}"#);
        assert_eq!(decode_measurements(&keys(), NODE, 1, &bytes).unwrap(), measured());
        assert!(matches!(decode_measurements(&keys(), NODE, 0, &bytes), Err(MailboxError::Forged(_))));
    }

    #[test]
    fn what_a_container_bent_is_left_out() {
        let mut hostile = measured();
        hostile.machine.insert("<b>".to_owned(), series(&[1.0]));
        hostile.metrics.insert("a b".to_owned(), series(&[1.0]));
        hostile.metrics.extend((0..60).map(|number| (format!("z{number:02}"), series(&[1.0]))));
        hostile.gpu = Some(GpuUse { name: "<A10G>".to_owned(), samples: 1, idle: vec![1] });
        let bytes = encode_measurements(&keys(), NODE, 0, &hostile);
        let text = String::from_utf8(bytes).unwrap().split_once('\n').unwrap().1.replacen("[0,1,0.5", "[9,1,0.5", 1);
        let tag = keys().seal().tag(Label::measurements(NODE, 0), text.as_bytes()).unwrap();
        let shown = decode_measurements(&keys(), NODE, 0, format!("{tag}\n{text}").as_bytes()).unwrap();
        assert_eq!(shown.machine.keys().collect::<Vec<_>>(), ["cpu"]);
        assert!(
            shown.metrics.len() == MOST_METRICS && !shown.metrics.contains_key("loss"),
            "{:?}",
            shown.metrics.keys()
        );
        assert_eq!(shown.gpu.unwrap().name, "A10G");
    }

    #[test]
    fn a_restarted_container_goes_on() {
        let mut all = measured();
        all.extend(&measured());
        assert_eq!(all.metrics["loss"].count(), 4);
        assert_eq!(all.gpu, Some(GpuUse { name: "NVIDIA A10G".to_owned(), samples: 20, idle: vec![8] }));
        assert_eq!(all.gauge(Gauge::Cpu).unwrap().count(), 2);
    }

    /// The longest message fits into the bound of all messages.
    #[test]
    fn the_whole_stays_under_two_megabytes() {
        let full = series(&(0..5000).map(|number| 1.0 / 3.0 + f64::from(number)).collect::<Vec<_>>());
        let all = Measurements {
            machine: Gauge::ALL.map(|gauge| (gauge.name().to_owned(), full.clone())).into(),
            metrics: (0..MOST_METRICS).map(|number| (format!("metric{number}"), full.clone())).collect(),
            gpu: None,
        };
        assert!(encode_measurements(&keys(), NODE, 0, &all).len() < 2_000_000);
    }
}
