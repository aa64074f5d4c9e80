//! Tells why the runner ended a stage, from the job's time limits and the time passed: the signal itself has no reason.
//! Pure.

use std::time::Duration;

use crate::base::failure::Failure;
use crate::base::human::human_duration;
use crate::gitlab::BuildStage;

/// GitLab Runner's own limit of an `after_script`.
const AFTER_SCRIPT: Duration = Duration::from_mins(5);
/// A limit counts as reached this long before its end: the runner began to count earlier than this process.
const EARLY: Duration = Duration::from_secs(15);

/// Time limits of a stage, and the time passed when it was canceled.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimits<'a> {
    pub(super) stage: &'a BuildStage,
    /// The job's `timeout`; zero when it has none.
    pub(super) job: Duration,
    /// Time since the job's payload was written.
    pub(super) job_ran: Duration,
    /// `RUNNER_SCRIPT_TIMEOUT`, or `RUNNER_AFTER_SCRIPT_TIMEOUT` for that stage.
    pub(super) script: Option<Duration>,
    /// Time since the stage began.
    pub(super) stage_ran: Duration,
    /// A person calls the stages, not GitLab Runner.
    pub(super) is_try: bool,
}

impl TimeLimits<'_> {
    fn reached(limit: Duration, ran: Duration) -> bool {
        !limit.is_zero() && ran + EARLY.min(limit / 4) >= limit
    }

    /// The job's `timeout` is over: no stage follows.
    pub(super) fn is_job_over(&self) -> bool {
        Self::reached(self.job, self.job_ran)
    }

    /// The failure of a canceled stage; `what` says what was ended, the script or the wait for an instance.
    pub(super) fn failure(self, what: &str) -> Failure {
        let is_after = *self.stage == BuildStage::AfterScript;
        let script = self.script.or(is_after.then_some(AFTER_SCRIPT));
        let over = |name: &str, limit: Duration| format!("the {name} of {} is over, so {what}", human_duration(limit));
        if self.is_job_over() {
            return Failure::canceled(over("job's `timeout`", self.job))
                .hint("raise `timeout` of the job, or the maximum in the settings of the project or the runner");
        }
        match script.filter(|limit| Self::reached(*limit, self.stage_ran)) {
            Some(limit) => {
                let name = if is_after { "RUNNER_AFTER_SCRIPT_TIMEOUT" } else { "RUNNER_SCRIPT_TIMEOUT" };
                Failure::canceled(over(&format!("`{name}`"), limit)).hint(format!("raise the job's variable `{name}`"))
            }
            None if self.is_try => Failure::canceled(format!("the job was interrupted, so {what}")),
            None => Failure::canceled(format!("the job was canceled, or GitLab Runner was stopped, so {what}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::base::failure::{Kind, render};

    #[test_case(&BuildStage::Script, 3600, 1200, None, 1100 => "error: the job was canceled, or GitLab Runner was stopped, so it ended"; "canceled")]
    #[test_case(&BuildStage::Script, 0, 1200, None, 1100 => "error: the job was canceled, or GitLab Runner was stopped, so it ended"; "no limit")]
    #[test_case(&BuildStage::Script, 3600, 3590, None, 3400 => "error: the job's `timeout` of 1 h is over, so it ended"; "job timeout")]
    #[test_case(&BuildStage::Script, 10, 7, None, 6 => "error: the job was canceled, or GitLab Runner was stopped, so it ended"; "a short limit is not rounded up")]
    #[test_case(&BuildStage::Script, 3600, 700, Some(600), 600 => "error: the `RUNNER_SCRIPT_TIMEOUT` of 10 min is over, so it ended"; "script timeout")]
    #[test_case(&BuildStage::AfterScript, 3600, 900, None, 300 => "error: the `RUNNER_AFTER_SCRIPT_TIMEOUT` of 5 min is over, so it ended"; "after_script timeout")]
    #[test_case(&BuildStage::AfterScript, 3600, 900, Some(600), 300 => "error: the job was canceled, or GitLab Runner was stopped, so it ended"; "a longer after_script")]
    fn each_end_has_its_words(stage: &BuildStage, job: u64, ran: u64, script: Option<u64>, stage_ran: u64) -> String {
        let [job, job_ran, stage_ran] = [job, ran, stage_ran].map(Duration::from_secs);
        let limits =
            TimeLimits { stage, job, job_ran, script: script.map(Duration::from_secs), stage_ran, is_try: false };
        let failure = limits.failure("it ended");
        assert_eq!(failure.kind, Kind::Canceled);
        render(&failure.into()).lines().next().unwrap().to_owned()
    }
}
