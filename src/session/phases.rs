//! The phases of a training job as sections of the job log: provisioning and download, while the first container stage
//! waits. What the phases are is decided purely, from SageMaker's own transitions and times.

use std::time::{Duration, Instant, SystemTime};

use crate::cloud::{TrainingJob, Transition};
use crate::ui::{Printer, Progress, human_duration};

/// While nothing changes a line comes this often: GitLab Runner notices a cancel soon only while there is output.
const REMINDER: Duration = Duration::from_secs(10);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// SageMaker looks for an instance and starts it; not billed.
    Provisioning,
    /// The instance fetches image and input, and starts the container; billed.
    Download,
}

impl Phase {
    /// Of a `SecondaryStatus`; `None` for those that are no waiting, and for values newer than this program.
    fn of(status: &str) -> Option<Self> {
        match status {
            "Starting"
            | "LaunchingMLInstances"
            | "PreparingTrainingStack"
            | "Pending"
            | "Interrupted"
            | "Restarting" => Some(Self::Provisioning),
            "Downloading" | "DownloadingTrainingImage" | "Training" => Some(Self::Download),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Download => "download",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Provisioning => "Provisioning",
            Self::Download => "Downloading image and input",
        }
    }
}

/// A phase from its beginning to the beginning of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    phase: Phase,
    from: SystemTime,
    to: Option<SystemTime>,
}

/// The phases so far, in order; neighbours of one phase are one.
fn spans(transitions: &[Transition]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for transition in transitions {
        let (Some(from), phase) = (transition.started, Phase::of(&transition.status)) else { continue };
        match spans.last_mut() {
            Some(last) if Some(last.phase) == phase => continue,
            Some(last) if last.to.is_none() => last.to = Some(from),
            _ => {}
        }
        spans.extend(phase.map(|phase| Span { phase, from, to: None }));
    }
    spans
}

/// Shows the waiting. On a terminal a spinner; in a job log one collapsed section a phase.
#[derive(Debug)]
pub(super) struct Waiting {
    printer: Printer,
    instance: String,
    spinner: Option<Progress>,
    /// Sections that were ended.
    ended: usize,
    open: Option<(Phase, usize)>,
    since: SystemTime,
    state: String,
    said: String,
    said_at: Option<Instant>,
}

impl Waiting {
    /// `since`: when the training job was created.
    pub(super) fn new(printer: &Printer, instance: &str, since: SystemTime, now: Instant) -> Self {
        let task = "Waiting for the training job";
        let spinner = printer.is_terminal().then(|| Progress::start(printer, task, None, now));
        Self {
            printer: printer.clone(),
            instance: instance.to_owned(),
            spinner,
            ended: 0,
            open: None,
            since,
            state: "Starting".to_owned(),
            said: String::new(),
            said_at: None,
        }
    }

    /// Takes what SageMaker says of the job.
    pub(super) fn observe(&mut self, job: &TrainingJob) {
        self.state = match &job.message {
            Some(message) => format!("{}: {message}", job.secondary),
            None => job.secondary.clone(),
        };
        if self.spinner.is_some() {
            return;
        }
        let spans = spans(&job.transitions);
        while let Some(span) = spans.get(self.ended) {
            self.open(span.phase, self.ended, span.from);
            let Some(to) = span.to else { break };
            self.close(to);
        }
    }

    /// Says the state when it is new, and now and then again. Call it on every turn.
    pub(super) fn tick(&mut self, now: Instant, wall: SystemTime) {
        if let Some(spinner) = &mut self.spinner {
            spinner.state(&self.state, now);
            return;
        }
        let is_reminder = self.said_at.is_some_and(|at| now.saturating_duration_since(at) >= REMINDER);
        if self.said != self.state || is_reminder {
            if self.open.is_none() {
                self.open(Phase::Provisioning, self.ended, self.since);
            }
            let elapsed = wall.duration_since(self.since).unwrap_or_default();
            self.printer.line(format!("{} ({})", self.state, human_duration(elapsed)));
            self.said.clone_from(&self.state);
            self.said_at = Some(now);
        }
    }

    /// The waiting is over.
    pub(super) fn finish(mut self, outcome: &str, now: Instant, wall: SystemTime) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish(outcome, now);
        } else if self.open.is_some() {
            self.close(wall);
        }
    }

    fn open(&mut self, phase: Phase, nth: usize, from: SystemTime) {
        if self.open == Some((phase, nth)) {
            return;
        }
        if self.open.is_some() {
            self.close(from);
        }
        self.open = Some((phase, nth));
        let title = match phase {
            Phase::Provisioning => format!("{} {}", phase.title(), self.instance),
            Phase::Download => phase.title().to_owned(),
        };
        self.printer.begin_section(&section(phase, nth), from, &title);
    }

    fn close(&mut self, to: SystemTime) {
        if let Some((phase, nth)) = self.open.take() {
            self.ended = nth + 1;
            self.printer.end_section(&section(phase, nth), to);
        }
    }
}

/// Unique in a job: an interrupted instance is provisioned twice.
fn section(phase: Phase, nth: usize) -> String {
    match nth {
        0 | 1 => format!("sagemaker_{}", phase.name()),
        _ => format!("sagemaker_{}_{nth}", phase.name()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::cloud::JobStatus;

    fn second(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn job(transitions: &[(&str, u64, &str)]) -> TrainingJob {
        let last = transitions.last().unwrap();
        TrainingJob {
            name: "x".into(),
            arn: "arn".into(),
            status: JobStatus::InProgress,
            secondary: last.0.into(),
            message: Some(last.2.into()),
            failure_reason: None,
            created: None,
            training_seconds: None,
            billable_seconds: None,
            transitions: transitions
                .iter()
                .map(|(status, at, message)| Transition {
                    status: (*status).into(),
                    started: Some(second(*at)),
                    message: Some((*message).into()),
                })
                .collect(),
        }
    }

    #[test]
    fn each_phase_is_a_section_with_the_services_own_times() {
        let (printer, captured) = Printer::captured();
        let start = Instant::now();
        let mut waiting = Waiting::new(&printer, "ml.g5.xlarge", second(100), start);
        waiting.tick(start, second(103));
        let starting = ("Starting", 100, "Launching requested ML instances");
        waiting.observe(&job(&[starting]));
        waiting.tick(start + Duration::from_secs(3), second(106));
        waiting.tick(start + Duration::from_secs(12), second(115));
        waiting.tick(start + Duration::from_secs(13), second(116));
        let pending = ("Pending", 160, "Insufficient capacity error from EC2");
        waiting.observe(&job(&[starting, pending]));
        waiting.tick(start + Duration::from_mins(1), second(163));
        let training = ("Training", 220, "Downloading the training image");
        waiting.observe(&job(&[starting, pending, ("Downloading", 200, "Downloading input data"), training]));
        waiting.tick(start + Duration::from_secs(121), second(224));
        waiting.finish("ready", start, second(250));
        insta::assert_snapshot!(captured.text().replace(['\r', '\x1b'], ""), @r"
        section_start:100:sagemaker_provisioning[collapsed=true][0KProvisioning ml.g5.xlarge
        Starting (3 s)
        Starting: Launching requested ML instances (6 s)
        Starting: Launching requested ML instances (16 s)
        Pending: Insufficient capacity error from EC2 (1 min 3 s)
        section_end:200:sagemaker_provisioning[0K
        section_start:200:sagemaker_download[collapsed=true][0KDownloading image and input
        Training: Downloading the training image (2 min 4 s)
        section_end:250:sagemaker_download[0K
        ");
    }

    #[test]
    fn phases_follow_the_transitions_whatever_is_missed() {
        let times = |transitions: &[(&str, u64, &str)]| -> Vec<(Phase, SystemTime, Option<SystemTime>)> {
            spans(&job(transitions).transitions).iter().map(|span| (span.phase, span.from, span.to)).collect()
        };
        assert_eq!(
            times(&[("Starting", 1, ""), ("Training", 5, ""), ("Interrupted", 8, ""), ("Starting", 9, "")]),
            [
                (Phase::Provisioning, second(1), Some(second(5))),
                (Phase::Download, second(5), Some(second(8))),
                (Phase::Provisioning, second(8), None)
            ]
        );
        assert_eq!(
            times(&[("Starting", 1, ""), ("Pondering", 3, ""), ("Training", 5, "")]),
            [(Phase::Provisioning, second(1), Some(second(3))), (Phase::Download, second(5), None)]
        );
    }
}
