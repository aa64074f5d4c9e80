//! Decides which job of a pipeline is next, as GitLab does: by `needs` where a job has them, else by stages. No I/O.
//!
//! The rules are those of GitLab's sources: `lib/gitlab/ci/status/composite.rb` joins the states of the jobs before a job, and
//! `app/services/ci/process_build_service.rb` says which of these let it run.

use std::collections::BTreeMap;

/// When a job runs, once those before it have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunsWhen {
    OnSuccess,
    OnFailure,
    Always,
    Manual,
}

impl RunsWhen {
    #[track_caller]
    pub(super) fn of(text: &str) -> Self {
        match text {
            "on_success" => Self::OnSuccess,
            "on_failure" => Self::OnFailure,
            "always" => Self::Always,
            "manual" => Self::Manual,
            other => panic!("`when: {other}` is not run here"),
        }
    }
}

/// `allow_failure` of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MayFail {
    No,
    Yes,
    /// With these exit codes alone.
    With(Vec<i64>),
}

/// A job of one pipeline.
#[derive(Debug, Clone)]
pub(super) struct PlannedJob {
    pub(super) name: String,
    /// The number of its stage.
    pub(super) stage: usize,
    pub(super) runs_when: RunsWhen,
    pub(super) may_fail: MayFail,
    /// The jobs of the pipeline that it needs; `None` for all of earlier stages.
    pub(super) needs: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobState {
    /// Waits for others.
    Created,
    /// Waits for somebody who starts it.
    Manual,
    /// Somebody started it.
    Started,
    Success,
    Failed,
    /// Failed, as it may.
    Warning,
    Skipped,
}

/// How the jobs before a job have ended together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Running,
    Success,
    Failed,
    Skipped,
}

/// The jobs of a pipeline, in the order of their stages, with their states.
#[derive(Debug)]
pub(super) struct Schedule {
    jobs: Vec<PlannedJob>,
    states: BTreeMap<String, JobState>,
}

impl Schedule {
    #[track_caller]
    pub(super) fn new(mut jobs: Vec<PlannedJob>) -> Self {
        jobs.sort_by_key(|job| job.stage);
        let states: BTreeMap<_, _> = jobs.iter().map(|job| (job.name.clone(), JobState::Created)).collect();
        for job in &jobs {
            let missing = job.needs.iter().flatten().find(|need| !states.contains_key(*need));
            assert_eq!(missing, None, "{} needs a job that the pipeline lacks, so GitLab would refuse it", job.name);
        }
        Self { jobs, states }
    }

    #[track_caller]
    pub(super) fn state(&self, name: &str) -> JobState {
        *self.states.get(name).unwrap_or_else(|| panic!("the pipeline has no job {name}: {:?}", self.states))
    }

    pub(super) fn states(&self) -> impl Iterator<Item = (&str, JobState)> {
        self.jobs.iter().map(|job| (job.name.as_str(), self.states[&job.name]))
    }

    /// The next job to run. `None` when all have ended or wait for somebody.
    pub(super) fn next(&mut self) -> Option<String> {
        loop {
            let started = self.jobs.iter().find(|job| self.states[&job.name] == JobState::Started);
            if let Some(job) = started {
                return Some(job.name.clone());
            }
            let created = self.jobs.iter().filter(|job| self.states[&job.name] == JobState::Created);
            let decided = created.map(|job| (job, self.before(job))).find(|(_, before)| *before != Before::Running);
            let (job, before) = decided?;
            let goes_on = match job.runs_when {
                RunsWhen::Always => true,
                RunsWhen::OnFailure => before == Before::Failed,
                // A stage that did not run stops no later one, but a needed job does.
                RunsWhen::OnSuccess | RunsWhen::Manual => before == Before::Success,
            };
            let state = match (goes_on, job.runs_when) {
                (false, _) => JobState::Skipped,
                (true, RunsWhen::Manual) => JobState::Manual,
                (true, _) => return Some(job.name.clone()),
            };
            self.states.insert(job.name.clone(), state);
        }
    }

    /// One need that does not run at all skips the job at once, whatever the others do: one that was skipped, and one that somebody has to
    /// start and that may fail, which GitLab counts as ignored (`any_skipped_or_ignored?`). When that one is started, the job is decided
    /// anew. By stages, neither holds anything up.
    fn before(&self, job: &PlannedJob) -> Before {
        let is_before = |other: &&PlannedJob| match &job.needs {
            Some(needs) => needs.contains(&other.name),
            None => other.stage < job.stage,
        };
        let mut together = Before::Success;
        let mut is_running = false;
        for other in self.jobs.iter().filter(is_before) {
            match self.states[&other.name] {
                JobState::Created | JobState::Started => is_running = true,
                // `allow_failure:exit_codes` ignores no job that has not run.
                JobState::Manual if other.may_fail != MayFail::Yes => is_running = true,
                JobState::Manual | JobState::Skipped if job.needs.is_some() => return Before::Skipped,
                JobState::Failed => together = Before::Failed,
                JobState::Manual | JobState::Skipped | JobState::Success | JobState::Warning => {}
            }
        }
        if is_running { Before::Running } else { together }
    }

    /// Starts a manual job. Those that were skipped are decided anew.
    #[track_caller]
    pub(super) fn play(&mut self, name: &str) {
        assert_eq!(self.state(name), JobState::Manual, "{name} cannot be started: {:?}", self.states);
        self.start(name);
    }

    /// Starts a job again that has ended. Those that were skipped are decided anew; those that ran stay as they are.
    #[track_caller]
    pub(super) fn retry(&mut self, name: &str) {
        let has_ended = matches!(self.state(name), JobState::Success | JobState::Failed | JobState::Warning);
        assert!(has_ended, "{name} has not ended: {:?}", self.states);
        self.start(name);
    }

    fn start(&mut self, name: &str) {
        self.states.insert(name.to_owned(), JobState::Started);
        for state in self.states.values_mut().filter(|state| **state == JobState::Skipped) {
            *state = JobState::Created;
        }
    }

    /// Takes the end of a job, with the exit code of a failed script.
    pub(super) fn ended(&mut self, name: &str, is_success: bool, exit_code: Option<i64>) {
        let job = self.jobs.iter().find(|job| job.name == name).expect("a job of the pipeline ended");
        let is_allowed = match &job.may_fail {
            MayFail::No => false,
            MayFail::Yes => true,
            MayFail::With(codes) => exit_code.is_some_and(|code| codes.contains(&code)),
        };
        let state = match (is_success, is_allowed) {
            (true, _) => JobState::Success,
            (false, true) => JobState::Warning,
            (false, false) => JobState::Failed,
        };
        self.states.insert(name.to_owned(), state);
    }
}

#[cfg(test)]
fn job(name: &str, stage: usize, runs_when: RunsWhen, needs: Option<&[&str]>) -> PlannedJob {
    PlannedJob {
        name: name.to_owned(),
        stage,
        runs_when,
        may_fail: if runs_when == RunsWhen::Manual { MayFail::Yes } else { MayFail::No },
        needs: needs.map(|needs| needs.iter().map(|need| (*need).to_owned()).collect()),
    }
}

/// Runs all that can run; those of `failing` fail with code 10.
#[cfg(test)]
fn ran(schedule: &mut Schedule, failing: &[&str]) -> Vec<String> {
    let mut ran = Vec::new();
    while let Some(next) = schedule.next() {
        let is_success = !failing.contains(&next.as_str());
        schedule.ended(&next, is_success, (!is_success).then_some(10));
        ran.push(next);
    }
    ran
}

#[test]
fn jobs_with_needs_run_after_those_alone() {
    use RunsWhen::{Always, OnFailure, OnSuccess};
    let jobs = || {
        vec![
            job("release", 3, OnSuccess, Some(&["package"])),
            job("train", 1, OnSuccess, Some(&[])),
            job("package", 2, OnSuccess, Some(&["train", "gate"])),
            job("gate", 1, OnSuccess, Some(&["train"])),
            job("clean", 3, OnFailure, Some(&["gate"])),
            job("report", 3, Always, Some(&["gate", "package"])),
        ]
    };
    assert_eq!(ran(&mut Schedule::new(jobs()), &[]), ["train", "gate", "package", "release", "report"]);
    let mut schedule = Schedule::new(jobs());
    assert_eq!(ran(&mut schedule, &["gate"]), ["train", "gate", "clean", "report"]);
    assert_eq!((schedule.state("gate"), schedule.state("release")), (JobState::Failed, JobState::Skipped));
}

#[test]
fn jobs_without_needs_run_by_stages() {
    use RunsWhen::{Always, Manual, OnFailure, OnSuccess};
    let jobs = || {
        vec![
            job("test", 0, OnSuccess, None),
            job("ask", 0, Manual, None),
            job("train", 1, OnSuccess, None),
            job("mend", 2, OnFailure, None),
            job("report", 3, OnSuccess, None),
            job("tell", 3, Always, None),
        ]
    };
    let mut schedule = Schedule::new(jobs());
    assert_eq!(ran(&mut schedule, &[]), ["test", "train", "report", "tell"]);
    assert_eq!((schedule.state("ask"), schedule.state("mend")), (JobState::Manual, JobState::Skipped));
    assert_eq!(ran(&mut Schedule::new(jobs()), &["train"]), ["test", "train", "mend", "tell"]);
    // One that must be started holds all that follow.
    let mut held = jobs();
    held[1].may_fail = MayFail::No;
    let mut schedule = Schedule::new(held);
    assert_eq!(ran(&mut schedule, &[]), ["test"]);
    schedule.play("ask");
    assert_eq!(ran(&mut schedule, &[]), ["ask", "train", "report", "tell"]);
}

#[test]
fn a_job_is_skipped_until_the_manual_job_that_it_needs_is_started() {
    use RunsWhen::{Always, Manual, OnSuccess};
    let jobs = |may_fail| {
        vec![
            PlannedJob { may_fail, ..job("train", 0, Manual, None) },
            job("gate", 1, OnSuccess, Some(&["train"])),
            job("report", 1, Always, Some(&["gate"])),
        ]
    };
    let mut schedule = Schedule::new(jobs(MayFail::Yes));
    assert_eq!(ran(&mut schedule, &[]), ["report"]);
    assert_eq!((schedule.state("train"), schedule.state("gate")), (JobState::Manual, JobState::Skipped));
    schedule.play("train");
    assert_eq!(ran(&mut schedule, &[]), ["train", "gate"]);
    // One that may not fail, or with some exit codes alone, is waited for.
    for may_fail in [MayFail::No, MayFail::With(vec![30])] {
        let mut schedule = Schedule::new(jobs(may_fail));
        assert_eq!(ran(&mut schedule, &[]), Vec::<String>::new());
        assert_eq!((schedule.state("train"), schedule.state("gate")), (JobState::Manual, JobState::Created));
        schedule.play("train");
        assert_eq!(ran(&mut schedule, &[]), ["train", "gate", "report"]);
    }
}

/// `on_failure` runs after a failure alone: a failed deployment skips the tests, and a job that needs both is skipped too.
#[test]
fn one_skipped_need_skips_a_job_whatever_the_others_did() {
    use RunsWhen::{OnFailure, OnSuccess};
    let mut schedule = Schedule::new(vec![
        job("deploy", 0, OnSuccess, Some(&[])),
        job("test", 1, OnSuccess, Some(&["deploy"])),
        job("clean", 2, OnFailure, Some(&["deploy", "test"])),
        job("clean-deploy", 2, OnFailure, Some(&["deploy"])),
        job("clean-test", 2, OnFailure, Some(&["test"])),
    ]);
    assert_eq!(ran(&mut schedule, &["deploy"]), ["deploy", "clean-deploy"]);
    assert_eq!(schedule.state("clean"), JobState::Skipped);
}

#[test]
fn a_retried_job_lets_those_run_that_were_skipped() {
    use RunsWhen::OnSuccess;
    let mut schedule = Schedule::new(vec![
        job("deploy", 0, OnSuccess, Some(&[])),
        job("test", 1, OnSuccess, Some(&["deploy"])),
        job("lint", 1, OnSuccess, Some(&[])),
    ]);
    assert_eq!(ran(&mut schedule, &["deploy"]), ["deploy", "lint"]);
    schedule.retry("deploy");
    assert_eq!(ran(&mut schedule, &[]), ["deploy", "test"]);
    // What ran stays, also when the job before it runs again.
    schedule.retry("deploy");
    assert_eq!(ran(&mut schedule, &[]), ["deploy"]);
}

#[test]
#[should_panic(expected = "gate needs a job that the pipeline lacks")]
fn a_need_that_is_not_there_is_an_error() {
    Schedule::new(vec![job("gate", 0, RunsWhen::OnSuccess, Some(&["train"]))]);
}

#[test]
fn a_failure_that_is_allowed_stops_nothing() {
    use RunsWhen::OnSuccess;
    for (codes, after) in [(vec![10], JobState::Success), (vec![11], JobState::Skipped)] {
        let mut first = job("lint", 0, OnSuccess, None);
        first.may_fail = MayFail::With(codes);
        let mut schedule = Schedule::new(vec![first, job("train", 1, OnSuccess, Some(&["lint"]))]);
        ran(&mut schedule, &["lint"]);
        assert_eq!(schedule.state("train"), after);
    }
}
