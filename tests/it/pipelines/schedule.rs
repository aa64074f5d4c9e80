//! Which job of a pipeline is next, as GitLab decides it for jobs with `needs`. No I/O.

use std::collections::BTreeMap;

/// A job of one pipeline, with the jobs of it that it needs.
#[derive(Debug, Clone)]
pub(super) struct PlannedJob {
    pub(super) name: String,
    /// `on_success`, `on_failure`, `always` or `manual`.
    pub(super) when: String,
    pub(super) may_fail: bool,
    pub(super) needs: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobState {
    Waiting,
    /// Somebody has to start it.
    Manual,
    /// It was started by hand, and runs next.
    Started,
    Succeeded,
    Failed,
    Skipped,
}

#[derive(Debug)]
pub(super) struct Schedule {
    jobs: Vec<PlannedJob>,
    states: BTreeMap<String, JobState>,
}

/// How the jobs that one needs have ended together.
enum Before {
    Running,
    Success,
    Failure,
    Skipped,
}

impl Schedule {
    /// # Panics
    /// When a job needs one that the pipeline lacks: GitLab makes no such pipeline.
    #[track_caller]
    pub(super) fn new(jobs: Vec<PlannedJob>) -> Self {
        for job in &jobs {
            let missing = job.needs.iter().find(|need| jobs.iter().all(|job| job.name != **need));
            assert_eq!(missing, None, "{} needs a job that the pipeline lacks", job.name);
        }
        let states = jobs.iter().map(|job| (job.name.clone(), JobState::Waiting)).collect();
        Self { jobs, states }
    }

    pub(super) fn state(&self, name: &str) -> JobState {
        self.states[name]
    }

    pub(super) fn states(&self) -> impl Iterator<Item = (&str, JobState)> {
        self.jobs.iter().map(|job| (job.name.as_str(), self.states[&job.name]))
    }

    /// The next job to run; `None` when all have ended or wait for somebody.
    pub(super) fn next(&mut self) -> Option<String> {
        loop {
            let started = self.jobs.iter().find(|job| self.states[&job.name] == JobState::Started);
            if let Some(job) = started {
                return Some(job.name.clone());
            }
            let waiting = self.jobs.iter().filter(|job| self.states[&job.name] == JobState::Waiting);
            let ready =
                waiting.map(|job| (job, self.before(job))).find(|(_, before)| !matches!(before, Before::Running));
            let (job, before) = ready?;
            let runs = match (job.when.as_str(), before) {
                ("always", _) | ("on_failure", Before::Failure) | ("on_success", Before::Success) => {
                    return Some(job.name.clone());
                }
                ("manual", Before::Success) => JobState::Manual,
                _ => JobState::Skipped,
            };
            self.states.insert(job.name.clone(), runs);
        }
    }

    /// In GitLab's order (`Gitlab::Ci::Status::Composite`): one need that does not run at all, skipped or waiting for a click that nothing
    /// holds up, skips the job, whatever the others do.
    fn before(&self, job: &PlannedJob) -> Before {
        let needs = || {
            let planned =
                |need: &String| self.jobs.iter().find(|job| job.name == *need).expect("needs are of the pipeline");
            job.needs.iter().map(move |need| (self.states[need], planned(need).may_fail))
        };
        if needs().any(|(state, may_fail)| state == JobState::Skipped || state == JobState::Manual && may_fail) {
            return Before::Skipped;
        }
        if needs().any(|(state, _)| matches!(state, JobState::Waiting | JobState::Started | JobState::Manual)) {
            return Before::Running;
        }
        let is_failure = |(state, may_fail): (JobState, bool)| state == JobState::Failed && !may_fail;
        if needs().any(is_failure) { Before::Failure } else { Before::Success }
    }

    /// Starts a manual job, and lets those after it wait for it.
    #[track_caller]
    pub(super) fn play(&mut self, name: &str) {
        assert_eq!(self.state(name), JobState::Manual, "{name} cannot be started: {:?}", self.states);
        self.start(name);
    }

    /// Runs a job again that has ended, and those after it that were skipped.
    #[track_caller]
    pub(super) fn retry(&mut self, name: &str) {
        assert!(matches!(self.state(name), JobState::Succeeded | JobState::Failed), "{name} has not ended");
        self.start(name);
    }

    fn start(&mut self, name: &str) {
        self.states.insert(name.to_owned(), JobState::Started);
        for state in self.states.values_mut().filter(|state| **state == JobState::Skipped) {
            *state = JobState::Waiting;
        }
    }

    pub(super) fn ended(&mut self, name: &str, is_success: bool) {
        let state = if is_success { JobState::Succeeded } else { JobState::Failed };
        self.states.insert(name.to_owned(), state);
    }
}

#[cfg(test)]
fn job(name: &str, when: &str, needs: &[&str]) -> PlannedJob {
    PlannedJob {
        name: name.to_owned(),
        when: when.to_owned(),
        may_fail: when == "manual",
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
    }
}

/// Runs all jobs that can run; those of `failing` fail.
#[cfg(test)]
fn ran(schedule: &mut Schedule, failing: &[&str]) -> Vec<String> {
    let mut ran = Vec::new();
    while let Some(next) = schedule.next() {
        schedule.ended(&next, !failing.contains(&next.as_str()));
        ran.push(next);
    }
    ran
}

#[test]
fn jobs_run_after_what_they_need() {
    let jobs = || {
        vec![
            job("release", "on_success", &["package"]),
            job("train", "on_success", &[]),
            job("package", "on_success", &["train", "gate"]),
            job("gate", "on_success", &["train"]),
            job("clean", "on_failure", &["gate"]),
            job("report", "always", &["gate", "package"]),
        ]
    };
    assert_eq!(ran(&mut Schedule::new(jobs()), &[]), ["train", "gate", "package", "release", "report"]);
    let mut schedule = Schedule::new(jobs());
    assert_eq!(ran(&mut schedule, &["gate"]), ["train", "gate", "clean", "report"]);
    assert_eq!(schedule.state("release"), JobState::Skipped);
}

#[test]
fn a_manual_job_runs_when_it_is_started_and_those_after_it_then() {
    let mut schedule = Schedule::new(vec![
        job("train", "manual", &[]),
        job("gate", "on_success", &["train"]),
        PlannedJob { may_fail: false, ..job("deploy", "manual", &[]) },
        job("test", "on_success", &["deploy"]),
    ]);
    assert_eq!(ran(&mut schedule, &[]), Vec::<String>::new());
    assert_eq!((schedule.state("gate"), schedule.state("test")), (JobState::Skipped, JobState::Waiting));
    schedule.play("train");
    assert_eq!(ran(&mut schedule, &[]), ["train", "gate"]);
    schedule.play("deploy");
    assert_eq!(ran(&mut schedule, &[]), ["deploy", "test"]);
}

/// `on_failure` runs after a failure alone: a failed deployment skips the tests, and a job that needs both is skipped too.
#[test]
fn one_skipped_need_skips_a_job_whatever_the_others_did() {
    let mut schedule = Schedule::new(vec![
        job("deploy", "on_success", &[]),
        job("test", "on_success", &["deploy"]),
        job("clean", "on_failure", &["deploy", "test"]),
        job("clean-deploy", "on_failure", &["deploy"]),
        job("clean-test", "on_failure", &["test"]),
    ]);
    assert_eq!(ran(&mut schedule, &["deploy"]), ["deploy", "clean-deploy"]);
    assert_eq!(schedule.state("clean"), JobState::Skipped);
}

#[test]
#[should_panic(expected = "gate needs a job that the pipeline lacks")]
fn a_need_that_is_not_there_is_an_error() {
    Schedule::new(vec![job("gate", "on_success", &["train"])]);
}
