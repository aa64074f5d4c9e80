//! Prints the phases of a training job as sections of the job log while the first container stage waits: provisioning,
//! download. Pure functions derive the phases from SageMaker's transitions and their times.

use std::time::{Duration, Instant, SystemTime};

use crate::base::human::{human_duration, ordinal};
use crate::cloud::{SecondaryStatus, TrainingJob, Transition};
use crate::session::phase::InstancePhase;
use crate::ui::{Printer, Progress};

/// Interval of the status line while nothing changes: GitLab Runner notices a cancel soon only while there is output.
const REMINDER: Duration = Duration::from_secs(10);
/// Longest time between two `DescribeTrainingJob` calls, and so between the beginning of a phase and its first
/// sighting.
const BETWEEN_LOOKS: Duration = Duration::from_mins(2);

/// The phase of a status in which the stage waits: a container that has started is awaited like its image, until its agent is ready.
fn awaited(status: &SecondaryStatus) -> Option<InstancePhase> {
    match InstancePhase::of(status)? {
        InstancePhase::Provisioning => Some(InstancePhase::Provisioning),
        InstancePhase::Download | InstancePhase::Training => Some(InstancePhase::Download),
        InstancePhase::Upload => None,
    }
}

/// How often SageMaker looked for instances.
pub(super) fn starts(job: &TrainingJob) -> usize {
    spans(&job.transitions).iter().filter(|span| span.phase == InstancePhase::Provisioning).count()
}

/// A phase, from its beginning to the beginning of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    phase: InstancePhase,
    from: SystemTime,
    to: Option<SystemTime>,
}

/// Returns the phases so far, in order; adjacent entries of one phase are merged.
fn spans(transitions: &[Transition]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for transition in transitions {
        let (Some(from), phase) = (transition.started, awaited(&transition.status)) else { continue };
        match spans.last_mut() {
            Some(last) if Some(last.phase) == phase => continue,
            Some(last) if last.to.is_none() => last.to = Some(from),
            _ => {}
        }
        spans.extend(phase.map(|phase| Span { phase, from, to: None }));
    }
    spans
}

/// The open section.
#[derive(Debug)]
struct Open {
    phase: InstancePhase,
    nth: usize,
    name: String,
    /// Time printed as its beginning.
    shown: SystemTime,
    /// Its beginning by SageMaker's clock, which may differ from the host's.
    from: Option<SystemTime>,
    seen: Instant,
}

impl Open {
    /// Time to print as the end, so that the section lasts as long as by SageMaker's clock.
    fn end(&self, to: SystemTime) -> SystemTime {
        let lasted = to.duration_since(self.from.unwrap_or(self.shown)).unwrap_or_default();
        self.shown + lasted
    }

    /// The same by the host's clock, limited to the time in which the phase was seen.
    fn end_by_host(&self, now: Instant, wall: SystemTime) -> SystemTime {
        let least = self.shown + now.saturating_duration_since(self.seen);
        if self.from.is_none() { wall.max(least) } else { wall.clamp(least, least + BETWEEN_LOOKS) }
    }
}

/// Shows that the stage waits: a spinner on a terminal, one collapsed section per phase in a job log.
#[derive(Debug)]
pub(super) struct Waiting {
    printer: Printer,
    instance: String,
    spinner: Option<Progress>,
    /// Number of sections ended.
    ended: usize,
    open: Option<Open>,
    /// Names of the sections so far.
    names: Vec<String>,
    /// Number of the training job in the session.
    job: u32,
    since: SystemTime,
    state: String,
    /// When the current status began, by the service's clock.
    state_since: Option<SystemTime>,
    said: String,
    said_at: Option<Instant>,
}

impl Waiting {
    /// `since`: when the training job was created, by the host's clock.
    pub(super) fn new(printer: &Printer, instance: &str, job: u32, since: SystemTime, now: Instant) -> Self {
        let task = "Waiting for the training job";
        let spinner = printer.is_terminal().then(|| Progress::start(printer, task, None, now));
        Self {
            printer: printer.clone(),
            instance: instance.to_owned(),
            spinner,
            ended: 0,
            open: None,
            names: Vec::new(),
            job,
            since,
            state: "Starting".to_owned(),
            state_since: None,
            said: String::new(),
            said_at: None,
        }
    }

    /// Waits once more, from the `start`-th start of the containers on, counted from 1: the earlier ones have been told. `None`: there was none.
    pub(super) fn again(
        printer: &Printer,
        instance: &str,
        number: u32,
        job: &TrainingJob,
        start: usize,
        now: Instant,
    ) -> Option<Self> {
        let spans = spans(&job.transitions);
        let is_start = |(_, span): &(usize, &Span)| span.phase == InstancePhase::Provisioning;
        let (ended, span) = spans.iter().enumerate().filter(is_start).nth(start.checked_sub(1)?)?;
        Some(Self { ended, ..Self::new(printer, instance, number, span.from, now) })
    }

    /// Takes a new status of the job.
    pub(super) fn observe(&mut self, job: &TrainingJob, now: Instant) {
        self.state = match &job.message {
            Some(message) => format!("{}: {message}", job.secondary),
            None => job.secondary.to_string(),
        };
        self.state_since = job.transitions.last().and_then(|last| last.started);
        if self.spinner.is_some() {
            return;
        }
        let spans = spans(&job.transitions);
        while let Some(span) = spans.get(self.ended) {
            let before = spans.iter().take(self.ended + 1);
            let start = before.filter(|span| span.phase == InstancePhase::Provisioning).count();
            self.open(span, self.ended, start, now);
            let Some(to) = span.to else { break };
            self.close(to);
        }
    }

    /// Prints the status when it is new, and again at intervals. The caller calls this on every turn.
    pub(super) fn tick(&mut self, now: Instant, wall: SystemTime) {
        if let Some(spinner) = &mut self.spinner {
            spinner.state(&self.state, now);
            return;
        }
        let is_reminder = self.said_at.is_some_and(|at| now.saturating_duration_since(at) >= REMINDER);
        if self.said != self.state || is_reminder {
            self.begin_unseen(now);
            let elapsed = wall.duration_since(self.state_since.unwrap_or(self.since)).unwrap_or_default();
            self.printer.line(format!("{} ({})", self.state, human_duration(elapsed)));
            self.said.clone_from(&self.state);
            self.said_at = Some(now);
        }
    }

    /// Takes note that SageMaker did not answer once the agent was ready: says in the open section what is unknown.
    pub(super) fn unanswered(&mut self, why: &str, now: Instant) {
        if self.spinner.is_none() && self.open.as_ref().is_none_or(|open| open.phase == InstancePhase::Provisioning) {
            self.begin_unseen(now);
            self.printer.line(format!("When the download began is not known, so its time is part of this: {why}"));
        }
    }

    /// Ends the waiting. `ready`: when the agent came up, by the service's clock.
    pub(super) fn finish(mut self, outcome: &str, ready: Option<SystemTime>, now: Instant, wall: SystemTime) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish(outcome, now);
        } else if let Some(open) = &self.open {
            let end = match ready {
                Some(ready) if open.from.is_some() => open.end(ready),
                // The two clocks agree, as far as can be seen.
                Some(ready) if ready >= open.shown && ready <= wall => ready,
                _ => open.end_by_host(now, wall),
            };
            self.end_section(end);
        }
    }

    /// Begins the first section before SageMaker has answered.
    fn begin_unseen(&mut self, now: Instant) {
        if self.open.is_none() && self.ended == 0 {
            self.begin_section(InstancePhase::Provisioning, 0, 1, self.since, None, now);
        }
    }

    fn open(&mut self, span: &Span, nth: usize, start: usize, now: Instant) {
        if let Some(open) = &mut self.open {
            if (open.phase, open.nth) == (span.phase, nth) {
                open.from.get_or_insert(span.from);
                return;
            }
            self.close(span.from);
        }
        self.begin_section(span.phase, nth, start, span.from, Some(span.from), now);
    }

    /// `start`: number of the start of the containers that is awaited, from 1.
    fn begin_section(
        &mut self,
        phase: InstancePhase,
        nth: usize,
        start: usize,
        shown: SystemTime,
        from: Option<SystemTime>,
        now: Instant,
    ) {
        let (title, name) = match phase {
            InstancePhase::Provisioning => (format!("Provisioning {}", self.instance), "provisioning"),
            InstancePhase::Download | InstancePhase::Training | InstancePhase::Upload => {
                ("Downloading image and input".to_owned(), "download")
            }
        };
        let nth_start = ordinal(u32::try_from(start).unwrap_or(u32::MAX));
        let title = if start > 1 { format!("{title}, {nth_start} start") } else { title };
        // Unique in a job: an interrupted instance is provisioned twice.
        let mut name = format!("sagemaker_{name}");
        if self.job > 1 {
            name = format!("{name}_job_{}", self.job);
        }
        if start > 1 {
            name = format!("{name}_start_{start}");
        }
        if self.names.contains(&name) {
            name = format!("{name}_{}", self.names.len());
        }
        self.printer.begin_section(&name, shown, &title);
        self.names.push(name.clone());
        self.open = Some(Open { phase, nth, name, shown, from, seen: now });
    }

    fn close(&mut self, to: SystemTime) {
        if let Some(end) = self.open.as_ref().map(|open| open.end(to)) {
            self.end_section(end);
        }
    }

    fn end_section(&mut self, at: SystemTime) {
        if let Some(open) = self.open.take() {
            self.ended = open.nth + 1;
            self.printer.end_section(&open.name, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::cloud::JobStatus;
    use crate::cloud::testing::example_job;

    fn second(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn job(transitions: &[(&str, u64, &str)]) -> TrainingJob {
        let last = transitions.last().unwrap();
        TrainingJob {
            message: Some(last.2.into()),
            transitions: transitions
                .iter()
                .map(|(status, at, message)| Transition {
                    status: (*status).into(),
                    started: Some(second(*at)),
                    message: Some((*message).into()),
                })
                .collect(),
            ..example_job("x", JobStatus::InProgress, last.0.into())
        }
    }

    #[test]
    fn each_phase_is_a_section_with_the_services_own_times() {
        let (printer, captured) = Printer::captured();
        let start = Instant::now();
        let mut waiting = Waiting::new(&printer, "ml.g5.xlarge", 1, second(100), start);
        waiting.tick(start, second(103));
        let starting = ("Starting", 100, "Launching requested ML instances");
        waiting.observe(&job(&[starting]), start);
        waiting.tick(start + Duration::from_secs(3), second(106));
        waiting.tick(start + Duration::from_secs(12), second(115));
        waiting.tick(start + Duration::from_secs(13), second(116));
        let pending = ("Pending", 160, "Insufficient capacity error from EC2");
        waiting.observe(&job(&[starting, pending]), start);
        waiting.tick(start + Duration::from_mins(1), second(163));
        let training = ("Training", 220, "Downloading the training image");
        waiting.observe(&job(&[starting, pending, ("Downloading", 200, "Downloading input data"), training]), start);
        waiting.tick(start + Duration::from_secs(121), second(224));
        waiting.finish("ready", Some(second(250)), start, second(251));
        insta::assert_snapshot!(captured.text().replace(['\r', '\x1b'], ""), @r"
        section_start:100:sagemaker_provisioning[collapsed=true][0KProvisioning ml.g5.xlarge
        Starting (3 s)
        Starting: Launching requested ML instances (6 s)
        Starting: Launching requested ML instances (16 s)
        Pending: Insufficient capacity error from EC2 (3 s)
        section_end:200:sagemaker_provisioning[0K
        section_start:200:sagemaker_download[collapsed=true][0KDownloading image and input
        Training: Downloading the training image (4 s)
        section_end:250:sagemaker_download[0K
        ");
    }

    #[test]
    fn an_interruption_has_sections_of_its_own() {
        let (printer, captured) = Printer::captured();
        let start = Instant::now();
        let first = [("Starting", 100, ""), ("Training", 120, ""), ("Interrupted", 300, "Spot")];
        let mut waiting = Waiting::again(&printer, "ml.g5.xlarge", 1, &job(&first), 2, start).unwrap();
        waiting.observe(&job(&first), start);
        waiting.tick(start, second(305));
        let later = [&first[..], &[("Starting", 310, "Launching"), ("Downloading", 330, "")]].concat();
        waiting.observe(&job(&later), start);
        waiting.finish("ready", Some(second(340)), start, second(341));
        insta::assert_snapshot!(captured.text().replace(['\r', '\x1b'], ""), @r"
        section_start:300:sagemaker_provisioning_start_2[collapsed=true][0KProvisioning ml.g5.xlarge, 2nd start
        Interrupted: Spot (5 s)
        section_end:330:sagemaker_provisioning_start_2[0K
        section_start:330:sagemaker_download_start_2[collapsed=true][0KDownloading image and input, 2nd start
        section_end:340:sagemaker_download_start_2[0K
        ");
    }

    /// Two waits that were shorter than the time between two looks at the job.
    #[test]
    fn interruptions_that_no_look_saw_have_sections_too() {
        let (printer, captured) = Printer::captured();
        let start = Instant::now();
        let seen = job(&[
            ("Starting", 100, ""),
            ("Training", 120, ""),
            ("Interrupted", 300, "Spot"),
            ("Starting", 310, ""),
            ("Training", 330, ""),
            ("Interrupted", 400, "Spot"),
            ("Downloading", 410, ""),
            ("Training", 415, ""),
        ]);
        assert_eq!(starts(&seen), 3);
        let mut waiting = Waiting::again(&printer, "ml.g5.xlarge", 1, &seen, 2, start).unwrap();
        waiting.observe(&seen, start);
        waiting.finish("ready", Some(second(420)), start, second(500));
        assert_eq!(
            sections(&captured.text()),
            [
                ("sagemaker_provisioning_start_2".to_owned(), 300, 330),
                ("sagemaker_download_start_2".to_owned(), 330, 400),
                ("sagemaker_provisioning_start_3".to_owned(), 400, 410),
                ("sagemaker_download_start_3".to_owned(), 410, 420),
            ]
        );
        assert!(Waiting::again(&printer, "ml.g5.xlarge", 1, &seen, 4, start).is_none());
    }

    #[test]
    fn phases_follow_the_transitions_whatever_is_missed() {
        let times = |transitions: &[(&str, u64, &str)]| -> Vec<(InstancePhase, SystemTime, Option<SystemTime>)> {
            spans(&job(transitions).transitions).iter().map(|span| (span.phase, span.from, span.to)).collect()
        };
        assert_eq!(
            times(&[("Starting", 1, ""), ("Training", 5, ""), ("Interrupted", 8, ""), ("Starting", 9, "")]),
            [
                (InstancePhase::Provisioning, second(1), Some(second(5))),
                (InstancePhase::Download, second(5), Some(second(8))),
                (InstancePhase::Provisioning, second(8), None)
            ]
        );
        assert_eq!(
            times(&[("Starting", 1, ""), ("Pondering", 3, ""), ("Training", 5, "")]),
            [(InstancePhase::Provisioning, second(1), Some(second(3))), (InstancePhase::Download, second(5), None)]
        );
    }

    /// Name, beginning and end of each section.
    fn sections(text: &str) -> Vec<(String, u64, u64)> {
        let mut found: Vec<(String, u64, u64)> = Vec::new();
        for line in text.lines() {
            let mut parts = line.split(['\r', '[']).next().unwrap_or_default().split(':');
            let (Some(kind), Some(at), Some(name)) = (parts.next(), parts.next(), parts.next()) else { continue };
            let at = at.trim().parse().unwrap_or(0);
            match kind {
                "section_start" => found.push((name.to_owned(), at, 0)),
                "section_end" => found.iter_mut().rfind(|section| section.0 == name).unwrap().2 = at,
                _ => {}
            }
        }
        found
    }

    /// Waits from second 1000 of the host's clock on, sees `transitions` when the agent is ready, and ends `ended` seconds later.
    fn waited(transitions: &[(&str, u64, &str)], ready: Option<u64>, ended: u64) -> Vec<(String, u64)> {
        let (printer, captured) = Printer::captured();
        let start = Instant::now();
        let end = start + Duration::from_secs(ended);
        let mut waiting = Waiting::new(&printer, "ml.g5.xlarge", 1, second(1000), start);
        waiting.tick(start, second(1000));
        if !transitions.is_empty() {
            waiting.observe(&job(transitions), end);
        }
        waiting.finish("ready", ready.map(second), end, second(1000 + ended));
        sections(&captured.text()).into_iter().map(|(name, from, to)| (name, to.saturating_sub(from))).collect()
    }

    fn named<const N: usize>(sections: [(&str, u64); N]) -> Vec<(String, u64)> {
        sections.map(|(name, seconds)| (format!("sagemaker_{name}"), seconds)).to_vec()
    }

    #[test]
    fn phases_between_two_looks_have_the_services_own_times() {
        let phases = [("Starting", 1000, ""), ("Downloading", 1006, ""), ("Training", 1014, "")];
        assert_eq!(waited(&phases, Some(1014), 14), named([("provisioning", 6), ("download", 8)]));
        // The stage began long after the agent was ready, as behind a slow clone.
        assert_eq!(waited(&phases, Some(1014), 300), named([("provisioning", 6), ("download", 8)]));
        let pending = [("Starting", 1000, ""), ("Pending", 1003, ""), ("Downloading", 1006, "")];
        assert_eq!(waited(&pending, Some(1014), 14), named([("provisioning", 6), ("download", 8)]));
        let again = [phases[0], phases[1], phases[2], ("Restarting", 1020, ""), ("Downloading", 1025, "")];
        let all = named([("provisioning", 6), ("download", 14), ("provisioning_start_2", 5), ("download_start_2", 3)]);
        assert_eq!(waited(&again, Some(1028), 30), all);
    }

    #[test]
    fn the_clock_of_the_host_may_be_another() {
        for shift in [0, 5000] {
            let phases = [("Starting", shift, ""), ("Downloading", shift + 6, ""), ("Training", shift + 14, "")];
            assert_eq!(waited(&phases, Some(shift + 14), 15), named([("provisioning", 6), ("download", 8)]));
        }
        // When the agent came up is not known: the download lasted at least from its first look on, and two minutes more at most.
        let phases = [("Starting", 5000, ""), ("Downloading", 5006, "")];
        assert_eq!(waited(&phases, None, 14), named([("provisioning", 6), ("download", 0)]));
    }

    #[test]
    fn what_is_not_known_is_said() {
        let (printer, captured) = Printer::captured();
        let start = Instant::now();
        let mut waiting = Waiting::new(&printer, "ml.g5.xlarge", 1, second(1000), start);
        waiting.unanswered("throttled", start);
        waiting.finish("ready", Some(second(1014)), start, second(1020));
        let text = captured.text();
        assert!(text.contains("When the download began is not known"), "{text}");
        assert_eq!(sections(&text), [("sagemaker_provisioning".to_owned(), 1000, 1014)]);
    }
}
