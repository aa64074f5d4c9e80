//! Phases of a training job: groups of SageMaker's secondary statuses. Pure.

use crate::cloud::SecondaryStatus;

/// A phase of a training job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InstancePhase {
    /// SageMaker finds instances and starts them; not billed.
    Provisioning,
    /// The instances download image and input.
    Download,
    /// The containers run.
    Training,
    /// The instances upload their outputs, or are about to end.
    Upload,
}

impl InstancePhase {
    /// All phases, in order.
    pub(super) const ALL: [Self; 4] = [Self::Provisioning, Self::Download, Self::Training, Self::Upload];

    /// The words of the job's log.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Provisioning => "waiting for instances",
            Self::Download => "download",
            Self::Training => "training",
            Self::Upload => "upload",
        }
    }

    /// `None` for the end of a job, and for values newer than this program.
    pub(super) fn of(status: &SecondaryStatus) -> Option<Self> {
        match status {
            SecondaryStatus::Starting
            | SecondaryStatus::LaunchingMLInstances
            | SecondaryStatus::PreparingTrainingStack
            | SecondaryStatus::Pending
            | SecondaryStatus::Interrupted
            | SecondaryStatus::Restarting => Some(Self::Provisioning),
            SecondaryStatus::Downloading | SecondaryStatus::DownloadingTrainingImage => Some(Self::Download),
            SecondaryStatus::Training => Some(Self::Training),
            SecondaryStatus::Uploading | SecondaryStatus::Stopping => Some(Self::Upload),
            SecondaryStatus::Stopped
            | SecondaryStatus::Completed
            | SecondaryStatus::Failed
            | SecondaryStatus::Updating
            | SecondaryStatus::MaxRuntimeExceeded
            | SecondaryStatus::MaxWaitTimeExceeded
            | SecondaryStatus::MaxPendingTimeExceeded
            | SecondaryStatus::Other(_) => None,
        }
    }
}
