//! The bill of a training job: its phases, the seconds that SageMaker bills, and the cost. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::base::arn::Arn;
use crate::base::human::human_duration;
use crate::cloud::{SecondaryStatus, TrainingJob};
use crate::config::prices::Price;
use crate::session::phase::InstancePhase;

/// The smallest cost that is told.
const CENT: f64 = 0.01;

/// Time of a training job in one secondary status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedPhase {
    pub status: SecondaryStatus,
    pub started: SystemTime,
    pub seconds: u64,
}

/// A bill of one training job.
#[derive(Debug, Clone, PartialEq)]
pub struct Bill {
    /// By type and number.
    pub instances: Vec<(String, u32)>,
    pub is_spot: bool,
    /// SageMaker's own figures. Otherwise those of the phases, up to now while the job runs.
    pub is_final: bool,
    pub has_ended: bool,
    pub phases: Vec<TimedPhase>,
    /// How often instances came up.
    pub starts: usize,
    /// Billed seconds of one instance. `None`: of spot instances only SageMaker knows them.
    pub billable: Option<u64>,
    /// Percent of the training time that a spot job does not pay for.
    pub saved: Option<u64>,
    /// Billed seconds of the instances in the warm pool after the job, once these have ended.
    pub pool: Option<u64>,
    /// Of all instances.
    pub price: Option<Price>,
    pub region: String,
    /// The session's training jobs before this one that may cost something.
    pub earlier: Vec<EarlierJob>,
}

/// A training job that another one of the same session came after.
#[derive(Debug, Clone, PartialEq)]
pub struct EarlierJob {
    pub name: String,
    pub status: SecondaryStatus,
    pub bill: Bill,
}

impl Bill {
    /// The bill at this time; `own` are the operator's prices.
    pub fn of(job: &TrainingJob, now: SystemTime, own: &BTreeMap<String, f64>) -> Self {
        let has_ended = job.status.is_terminal();
        let instances = job.instances.clone();
        let phases = phases(job, now);
        let is_waiting: Vec<bool> = phases
            .iter()
            .filter_map(|phase| Some(InstancePhase::of(&phase.status)? == InstancePhase::Provisioning))
            .collect();
        let begun = usize::from(is_waiting.first() == Some(&false));
        // SageMaker may leave all these figures out after an early failure.
        let came_up = job.training_started.or_else(|| first_billed(&phases));
        let end = if has_ended {
            phases.last().map_or(now, |last| last.started + Duration::from_secs(last.seconds))
        } else {
            now
        };
        let told = job.billable_seconds.filter(|_| has_ended);
        let billable = match came_up {
            _ if told.is_some() => told,
            None => Some(0),
            Some(_) if job.is_spot => None,
            // An instance that came up is billed: SageMaker counts whole seconds, and no part of one for nothing.
            Some(start) => Some(job.training_seconds.unwrap_or_else(|| seconds(start, end)).max(1)),
        };
        Self {
            is_spot: job.is_spot,
            is_final: has_ended && (told.is_some() || came_up.is_none()),
            has_ended,
            starts: begun + is_waiting.windows(2).filter(|pair| pair[0] && !pair[1]).count(),
            saved: saved(job),
            billable,
            pool: job.pool_seconds,
            price: Price::of(&instances, own),
            region: Arn::parse(&job.arn).map(|arn| arn.region.to_owned()).unwrap_or_default(),
            instances,
            phases,
            earlier: Vec::new(),
        }
    }

    /// When the first instance was up, if one is known to have been.
    pub fn billed_since(&self) -> Option<SystemTime> {
        first_billed(&self.phases)
    }

    /// With the bills of the session's training jobs before this one; those that cost nothing are left out.
    #[must_use]
    pub fn with_earlier(self, earlier: Vec<EarlierJob>) -> Self {
        Self { earlier: earlier.into_iter().filter(|job| job.bill.billable != Some(0)).collect(), ..self }
    }

    /// The cost of all training jobs of the session. `None`: that of one is not known, or their prices have two sources.
    pub fn total_cost(&self) -> Option<f64> {
        let source = self.price?.source;
        let earlier = self
            .earlier
            .iter()
            .map(|job| job.bill.cost().filter(|_| job.bill.price.map(|price| price.source) == Some(source)));
        [self.cost()].into_iter().chain(earlier).sum()
    }

    /// A line of the job's log for each earlier training job.
    pub fn earlier_lines(&self) -> impl Iterator<Item = String> {
        self.earlier
            .iter()
            .map(|job| format!("Training job {} before it ({}): {}", job.name, job.status, job.bill.line()))
    }

    /// The cost of all training jobs in one line of the job's log, when there are several.
    pub fn total_line(&self) -> Option<String> {
        let (price, total) = (self.price.filter(|_| !self.earlier.is_empty())?, self.total_cost()?);
        Some(format!("All {} training jobs of this job cost {}", self.earlier.len() + 1, amount_words(price, total)))
    }

    /// The cost of all instances, without that of the warm pool.
    pub fn cost(&self) -> Option<f64> {
        Some(self.price?.cost(self.billable?))
    }

    /// Seconds of waiting for instances, which are not billed.
    pub fn waited(&self) -> u64 {
        self.total(InstancePhase::Provisioning)
    }

    /// Seconds on instances, by the phases.
    pub fn ran(&self) -> u64 {
        [InstancePhase::Download, InstancePhase::Training, InstancePhase::Upload]
            .into_iter()
            .map(|phase| self.total(phase))
            .sum()
    }

    fn total(&self, phase: InstancePhase) -> u64 {
        let of_phase = self.phases.iter().filter(|timed| InstancePhase::of(&timed.status) == Some(phase));
        of_phase.map(|timed| timed.seconds).sum()
    }

    /// The phases in one line of the job's log.
    pub fn phase_line(&self) -> String {
        let all = InstancePhase::ALL.into_iter();
        let known = all.map(|phase| (phase.words(), self.total(phase))).filter(|(_, seconds)| *seconds > 0);
        let words: Vec<_> = known.map(|(words, seconds)| format!("{words} {}", duration(seconds))).collect();
        format!("SageMaker: {}", if words.is_empty() { "less than a second".to_owned() } else { words.join(", ") })
    }

    /// The billed time and the cost in one line of the job's log.
    pub fn line(&self) -> String {
        let about = if self.is_final { "" } else { "about " };
        let ran = if self.is_spot && self.starts > 0 {
            let starts = if self.starts == 1 { "1 start".to_owned() } else { format!("{} starts", self.starts) };
            let (ran, waited) = (duration(self.ran()), duration(self.waited()));
            format!("Trained {about}{ran} in {starts}, waited {waited}. ")
        } else {
            String::new()
        };
        let Some(billable) = self.billable else {
            let words = if self.has_ended {
                "SageMaker does not tell the billed time of this training job"
            } else {
                "SageMaker tells the billed time of spot instances when the training job has ended"
            };
            return format!("{ran}{words}");
        };
        match (billable, self.has_ended) {
            (0, true) => return format!("{ran}Nothing is billed: no instance came up"),
            (0, false) => return format!("{ran}Nothing is billed so far: no instance has come up"),
            _ => {}
        }
        let pool = self.pool.map(|seconds| format!("; the warm pool after it: {}", duration(seconds)));
        let pool = pool.unwrap_or_default();
        let (instances, cost, source) = (self.instance_words(), self.cost_words(), self.source_words());
        format!("{ran}Billed {about}{} of {instances}, {cost}{pool}{source}", duration(billable))
    }

    /// The reason why the billed time is an estimate, when it is one.
    fn source_words(&self) -> &'static str {
        match (self.is_final, self.has_ended) {
            (true, _) => "",
            (false, true) => "; an estimate by the training's times: SageMaker has not told the billed time",
            (false, false) => "; an estimate by the training's times: the training job has not ended",
        }
    }

    fn cost_words(&self) -> String {
        let (Some(price), Some(cost)) = (self.price, self.cost()) else {
            return "whose price is not known".to_owned();
        };
        let saved = self.saved.map(|percent| format!("{percent} % saved, ")).unwrap_or_default();
        format!("{} ({saved}{})", amount_words(price, cost), price.source_words(&self.region))
    }

    fn instance_words(&self) -> String {
        let one = |(name, count): &(String, u32)| if *count == 1 { name.clone() } else { format!("{count} x {name}") };
        self.instances.iter().map(one).collect::<Vec<_>>().join(" and ")
    }
}

fn amount_words(price: Price, cost: f64) -> String {
    if cost < CENT { format!("less than {}", price.amount(CENT)) } else { format!("about {}", price.amount(cost)) }
}

/// When the first instance was up, by the phases.
fn first_billed(phases: &[TimedPhase]) -> Option<SystemTime> {
    let is_up = |phase: &&TimedPhase| {
        matches!(InstancePhase::of(&phase.status), Some(InstancePhase::Download | InstancePhase::Training))
    };
    phases.iter().find(is_up).map(|phase| phase.started)
}

/// The saving of a spot job as SageMaker computes it.
fn saved(job: &TrainingJob) -> Option<u64> {
    let (training, billable) = (job.training_seconds?, job.billable_seconds?);
    (job.is_spot && training > 0).then(|| 100 - (billable.min(training) * 100).div_ceil(training))
}

/// The phases of a job; the last one of a job that has not ended lasts until now.
fn phases(job: &TrainingJob, now: SystemTime) -> Vec<TimedPhase> {
    let known: Vec<_> = job.transitions.iter().filter_map(|one| Some((&one.status, one.started?))).collect();
    let ends = known.iter().skip(1).map(|(_, started)| *started).chain([now]);
    let timed = known.iter().zip(ends).map(|((status, started), end)| TimedPhase {
        status: (*status).clone(),
        started: *started,
        seconds: seconds(*started, end),
    });
    // The end of a job is no phase.
    timed.take(known.len() - usize::from(job.status.is_terminal() && !known.is_empty())).collect()
}

/// Whole seconds between two times, rounded.
fn seconds(from: SystemTime, to: SystemTime) -> u64 {
    (to.duration_since(from).unwrap_or_default() + Duration::from_millis(500)).as_secs()
}

fn duration(seconds: u64) -> String {
    human_duration(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::cloud::testing::example_job;
    use crate::cloud::{JobStatus, Transition};

    fn second(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn job(status: JobStatus, transitions: &[(&str, u64)]) -> TrainingJob {
        let transitions = transitions.iter().map(|(status, at)| Transition {
            status: (*status).into(),
            started: Some(second(*at)),
            message: None,
        });
        let instances = vec![("ml.g5.2xlarge".to_owned(), 1)];
        let example = example_job("x", status, SecondaryStatus::Training);
        TrainingJob { transitions: transitions.collect(), instances, ..example }
    }

    /// Waits 252 s, downloads 100 s, trains 5 h 51 min, uploads 80 s.
    const GOOD: [(&str, u64); 5] =
        [("Starting", 0), ("Downloading", 252), ("Training", 352), ("Uploading", 21_412), ("Completed", 21_492)];

    fn bill(job: &TrainingJob, now: u64) -> Bill {
        Bill::of(job, second(now), &BTreeMap::new())
    }

    #[test]
    fn a_job_that_has_ended_has_sagemakers_own_figures() {
        let mut job = job(JobStatus::Completed, &GOOD);
        (job.training_started, job.training_seconds) = (Some(second(252)), Some(21_240));
        job.billable_seconds = Some(21_240);
        let bill = bill(&job, 99_999);
        assert_eq!(
            bill.phase_line(),
            "SageMaker: waiting for instances 4 min 12 s, download 1 min 40 s, training 5 h 51 min, upload 1 min 20 s"
        );
        assert_eq!(bill.line(), "Billed 5 h 54 min of ml.g5.2xlarge, about $8.94 (list price of us-east-1)");
        let exact = 21_240.0 / 3600.0 * 1.515;
        assert!((bill.cost().unwrap() - exact).abs() < 1e-9);
        assert_eq!((bill.starts, bill.waited(), bill.ran()), (1, 252, 21_240));
        job.arn = job.arn.replace("eu-west-1", "us-east-1");
        job.instances[0].1 = 2;
        job.pool_seconds = Some(90);
        let two = Bill::of(&job, second(0), &BTreeMap::new());
        assert_eq!(
            two.line(),
            "Billed 5 h 54 min of 2 x ml.g5.2xlarge, about $17.88 (list price); the warm pool after it: 1 min 30 s"
        );
        assert!((two.cost().unwrap() - 2.0 * exact).abs() < 1e-9);
        let own = BTreeMap::from([("ml.g5.2xlarge".to_owned(), 1.0)]);
        assert!(Bill::of(&job, second(0), &own).line().contains(", about 11.80 (the operator's price)"));
    }

    #[test]
    fn a_job_that_runs_on_has_the_figures_so_far() {
        let mut job = job(JobStatus::InProgress, &GOOD[..4]);
        job.training_started = Some(second(252));
        let bill = bill(&job, 21_452);
        assert!(!bill.is_final);
        assert!(bill.phase_line().ends_with("upload 40 s"), "{}", bill.phase_line());
        assert!(bill.line().starts_with("Billed about 5 h 53 min of ml.g5.2xlarge, about $8.92"), "{}", bill.line());
        assert!(bill.line().ends_with("; an estimate by the training's times: the training job has not ended"));
        job.is_spot = true;
        let bill = super::Bill::of(&job, second(21_452), &BTreeMap::new());
        assert_eq!(
            bill.line(),
            "Trained about 5 h 53 min in 1 start, waited 4 min 12 s. SageMaker tells the billed time of spot instances when the \
             training job has ended"
        );
        assert_eq!((bill.billable, bill.cost(), bill.saved), (None, None, None));
    }

    #[test]
    fn a_spot_job_tells_its_starts_and_its_saving() {
        let transitions = [
            ("Starting", 0),
            ("Downloading", 340),
            ("Training", 400),
            ("Interrupted", 9400),
            ("Starting", 9410),
            ("Downloading", 10_500),
            ("Training", 10_600),
            ("Uploading", 22_900),
            ("Completed", 22_920),
        ];
        let mut job = job(JobStatus::Completed, &transitions);
        (job.is_spot, job.training_started) = (true, Some(second(340)));
        (job.training_seconds, job.billable_seconds) = (Some(21_600), Some(6480));
        assert_eq!(
            bill(&job, 0).line(),
            "Trained 5 h 58 min in 2 starts, waited 24 min. Billed 1 h 48 min of ml.g5.2xlarge, about $2.73 (70 % saved, list price \
             of us-east-1)"
        );
        assert!((bill(&job, 0).cost().unwrap() - 6480.0 / 3600.0 * 1.515).abs() < 1e-9);
    }

    #[test]
    fn a_job_without_an_instance_costs_nothing() {
        for is_spot in [false, true] {
            let mut job = job(JobStatus::Stopped, &[("Starting", 0), ("Stopping", 60), ("Stopped", 61)]);
            job.is_spot = is_spot;
            let line = bill(&job, 70).line();
            assert!(line.ends_with("Nothing is billed: no instance came up"), "{line}");
            assert!(bill(&job, 70).is_final);
            job.status = JobStatus::InProgress;
            assert_eq!(bill(&job, 70).billable, Some(0));
            assert!(bill(&job, 70).line().ends_with("Nothing is billed so far: no instance has come up"));
        }
    }

    /// A job of less than a second, before and after its end: `doctor --job` has one.
    #[test]
    fn an_instance_that_came_up_costs_a_second_at_least() {
        let transitions = [("Starting", 0), ("Downloading", 252), ("Training", 252), ("Completed", 252)];
        for (status, count) in [(JobStatus::InProgress, 3), (JobStatus::Completed, 4)] {
            let bill = bill(&job(status, &transitions[..count]), 252);
            assert_eq!(bill.billable, Some(1));
            assert!(bill.line().starts_with("Billed about 1 s of ml.g5.2xlarge, less than $0.01 ("), "{}", bill.line());
        }
    }

    /// `BillableTimeInSeconds`, and even `TrainingStartTime`, may be absent after an early failure.
    #[test]
    fn a_job_without_sagemakers_figures_costs_what_its_phases_say() {
        let mut job = job(JobStatus::Failed, &[("Starting", 0), ("Downloading", 252), ("Failed", 852)]);
        for training_started in [Some(second(252)), None] {
            job.training_started = training_started;
            let bill = bill(&job, 99_999);
            assert_eq!((bill.billable, bill.is_final), (Some(600), false));
            let line = "Billed about 10 min of ml.g5.2xlarge, about $0.25 (list price of us-east-1); an estimate by the training's \
                        times: SageMaker has not told the billed time";
            assert_eq!(bill.line(), line);
        }
        job.is_spot = true;
        let bill = bill(&job, 99_999);
        assert_eq!((bill.billable, bill.cost(), bill.is_final), (None, None, false));
        assert!(
            bill.line().ends_with("SageMaker does not tell the billed time of this training job"),
            "{}",
            bill.line()
        );
    }

    #[test]
    fn the_jobs_that_were_replaced_are_billed_too() {
        let ended = |status, billable, name: &str| {
            let mut job = job(status, &GOOD);
            name.clone_into(&mut job.instances[0].0);
            job.billable_seconds = Some(billable);
            bill(&job, 0)
        };
        let earlier = |billable, name: &str| EarlierJob {
            name: "x".to_owned(),
            status: SecondaryStatus::Failed,
            bill: ended(JobStatus::Failed, billable, name),
        };
        let last = || ended(JobStatus::Completed, 3600, "ml.g5.2xlarge");
        assert_eq!((last().total_line(), last().total_cost()), (None, last().cost()));
        assert_eq!(last().with_earlier(vec![earlier(0, "ml.g5.2xlarge")]), last(), "no instance came up");
        let all = last().with_earlier(vec![earlier(1800, "ml.c5.2xlarge"), earlier(0, "ml.m5.large")]);
        let lines: Vec<_> = all.earlier_lines().collect();
        assert_eq!(
            lines,
            [
                "Training job x before it (Failed): Billed 30 min of ml.c5.2xlarge, about $0.20 (list price of us-east-1)"
            ]
        );
        assert!((all.total_cost().unwrap() - 1.719).abs() < 1e-9);
        assert_eq!(all.total_line().unwrap(), "All 2 training jobs of this job cost about $1.72");
        let unknown = last().with_earlier(vec![earlier(1800, "ml.new.large")]);
        assert_eq!((unknown.total_cost(), unknown.total_line()), (None, None));
    }

    #[test]
    fn a_type_of_no_list_has_no_price() {
        let mut job = job(JobStatus::Completed, &GOOD);
        "ml.new.large".clone_into(&mut job.instances[0].0);
        job.billable_seconds = Some(60);
        assert_eq!(bill(&job, 0).line(), "Billed 1 min of ml.new.large, whose price is not known");
        (job.instances[0].0, job.billable_seconds) = ("ml.m5.large".to_owned(), Some(20));
        assert_eq!(bill(&job, 0).line(), "Billed 20 s of ml.m5.large, less than $0.01 (list price of us-east-1)");
    }

    #[test]
    fn groups_of_instances_are_added_up() {
        let mut job = job(JobStatus::Completed, &GOOD);
        job.instances = vec![("ml.c5.2xlarge".to_owned(), 2), ("ml.g5.2xlarge".to_owned(), 1)];
        job.billable_seconds = Some(3600);
        let line = "Billed 1 h of 2 x ml.c5.2xlarge and ml.g5.2xlarge, about $2.33 (list price of us-east-1)";
        assert_eq!(bill(&job, 0).line(), line);
    }

    #[test]
    fn times_that_are_missing_or_in_disorder_are_no_phases() {
        let mut job = job(JobStatus::InProgress, &GOOD[..3]);
        job.transitions[1].started = None;
        assert_eq!(bill(&job, 400).phases.len(), 2);
        assert_eq!(bill(&job, 100).phases[1].seconds, 0, "a clock behind that of SageMaker");
        assert!(bill(&TrainingJob { transitions: Vec::new(), ..job }, 0).phases.is_empty());
    }
}
