//! How an emulator behaves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::faults::FaultPlan;
use super::host::{Image, Profile};
use super::quirks::Quirks;

/// Folder of the data directory for files that containers share.
const SHARED: &str = "shared";

/// Time a job spends in each phase, besides its real work; none by default.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    pub starting: Duration,
    pub pending: Duration,
    pub downloading: Duration,
    pub training: Duration,
    pub uploading: Duration,
}

/// How an emulator behaves.
#[derive(Debug, Clone)]
pub struct EmulatorConfig {
    /// Loopback only; port 0 takes a free one.
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    pub buckets: Vec<String>,
    pub account: String,
    /// Roots of images by their name.
    pub images: BTreeMap<String, Image>,
    /// User, environment and size of the root of images by their name.
    pub profiles: BTreeMap<String, Profile>,
    /// Whether an image that is not listed fails its job.
    pub strict_images: bool,
    pub delays: Delays,
    pub stop_grace: Duration,
    pub quirks: Quirks,
    /// Requests a second by operation, over the built-in quotas; 0 lifts one.
    pub quotas: BTreeMap<String, f64>,
    pub faults: FaultPlan,
    /// Whether large files of channels are links to one copy for all containers.
    pub share_channels: bool,
    pub seed: u64,
}

impl EmulatorConfig {
    /// The defaults of the command line.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let second = Duration::from_secs(1);
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: data_dir.into(),
            buckets: Vec::new(),
            account: "000000000000".to_owned(),
            images: BTreeMap::new(),
            profiles: BTreeMap::new(),
            strict_images: false,
            delays: Delays {
                starting: second,
                downloading: second,
                training: second,
                uploading: second,
                ..Delays::default()
            },
            stop_grace: Duration::from_mins(2),
            quirks: Quirks::default(),
            quotas: BTreeMap::new(),
            faults: FaultPlan::default(),
            share_channels: false,
            seed: 1,
        }
    }

    /// Without any delay of jobs and logs; the other quirks stay.
    #[must_use]
    pub fn without_delays(mut self) -> Self {
        self.delays = Delays::default();
        self.quirks.batch_delay = Duration::ZERO;
        self.quirks.ingestion_lag = Duration::ZERO;
        self
    }

    /// The files that containers of an image start from.
    pub(crate) fn image(&self, name: &str) -> Option<Image> {
        match self.images.get(name) {
            Some(image) => Some(image.clone()),
            None => (!self.strict_images).then_some(Image::Host),
        }
    }

    /// Where the files are that containers share.
    pub(crate) fn shared_folder(&self) -> PathBuf {
        self.data_dir.join(SHARED)
    }
}
