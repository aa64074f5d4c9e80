//! Detects that GitLab Runner, the caller of this process, has gone. A killed runner notifies no one: its drivers live
//! on in process groups of their own, and no cleanup follows.
//!
//! `PR_SET_PDEATHSIG` is not used: it fires when the thread ends that started this process, and the runner's threads
//! come and go.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context as _;
use backon::{ConstantBuilder, Retryable as _};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Pid;
use tokio::time::Instant;

use crate::base::failure::Failure;
use crate::base::process;
use crate::base::signals::Cancellation;
use crate::stages::{Context, cleanup};

/// Interval of the checks.
const LOOK: Duration = Duration::from_secs(1);
/// Time after the job's timeout in which the runner may still end a stage: it waits 5 min for one that was told to end.
const AFTER_TIMEOUT: Duration = Duration::from_mins(10);
/// Time between SIGTERM and SIGKILL of a host script whose runner has gone.
const GRACE: Duration = Duration::from_secs(10);
/// Three attempts to close the session; the rest is left to a sweep.
const CLEANUPS: ConstantBuilder = ConstantBuilder::new().with_delay(Duration::from_secs(5)).with_max_times(2);

/// How the caller was found to have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// No process reads stdout.
    Reader,
    /// Another process has become the parent.
    Parent,
    /// The job's own time limit has long passed.
    Timeout,
}

impl Gone {
    fn reason(self) -> &'static str {
        match self {
            Gone::Reader => "the reader of the job's output has gone",
            Gone::Parent => "the process that started this stage has gone",
            Gone::Timeout => "the job's `timeout` has long passed and nobody has ended this stage",
        }
    }
}

/// The caller, as observed at the start.
struct Caller {
    /// stdout when it is a pipe, as from the runner. A stage that writes into a file has no reader to lose.
    output: Option<OwnedFd>,
    parent: Option<Pid>,
    deadline: Option<Instant>,
}

impl Caller {
    fn of(context: &Context) -> Self {
        let timeout = context.job().map_or(0, |job| job.runner_info.timeout);
        Self {
            output: context.printer.output_pipe(),
            parent: rustix::process::getppid(),
            deadline: (timeout > 0).then(|| Instant::now() + Duration::from_secs(timeout) + AFTER_TIMEOUT),
        }
    }

    /// Completes when the caller has gone.
    async fn gone(&self, cancellation: &Cancellation) -> Gone {
        let mut orphaned = false;
        loop {
            if self.lost_its_reader() {
                return Gone::Reader;
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Gone::Timeout;
            }
            // After a SIGTERM, which a wrapper script also gets and dies of, a new parent does not mean a dead runner;
            // without a pipe the caller may have started the stage and left on purpose.
            let is_orphan = self.output.is_some() && !cancellation.asked() && rustix::process::getppid() != self.parent;
            if is_orphan && orphaned {
                return Gone::Parent;
            }
            orphaned = is_orphan;
            tokio::time::sleep(LOOK).await;
        }
    }

    fn lost_its_reader(&self) -> bool {
        let Some(output) = &self.output else { return false };
        let mut polled = [PollFd::new(output, PollFlags::empty())];
        rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok()
            && polled.iter().any(|pipe| pipe.revents().contains(PollFlags::ERR))
    }
}

/// Runs a stage's work while its caller is there. Once the caller has gone, ends the processes that the stage started
/// on the host, and closes the session like `cleanup`: its training job, its scripts and orders, its record.
pub async fn guarded<Fut>(context: Context, work: impl FnOnce(Context) -> Fut) -> anyhow::Result<()>
where
    Fut: Future<Output = anyhow::Result<()>>,
{
    let caller = Caller::of(&context);
    // Dropped before the session is closed: it may hold the session's lock.
    let mut work = Box::pin(work(context.clone()));
    let gone = tokio::select! {
        result = &mut work => {
            if !context.printer.is_broken() && !caller.lost_its_reader() {
                return result;
            }
            Gone::Reader
        }
        gone = caller.gone(&context.cancellation) => gone,
    };
    tracing::warn!("{}, so the job is ended", gone.reason());
    process::end_family(GRACE).await;
    drop(work);
    (|| cleanup::run(context.clone()))
        .retry(CLEANUPS)
        .await
        .with_context(|| format!("{}, and the job could not be ended", gone.reason()))?;
    Err(Failure::system(format!("{}, so the training job was stopped", gone.reason())).into())
}

#[cfg(test)]
mod tests {
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    const LONG: Duration = Duration::from_hours(2);

    /// Programs that other tests start in the meantime do not inherit its ends. Until such a program runs, the forked
    /// child of this process holds both.
    fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
        pipe_with(PipeFlags::CLOEXEC)
    }

    /// Waits, in real time, until no process has a reading end: two hours of the paused clock pass within milliseconds.
    fn wait_until_nobody_reads(out: &OwnedFd) {
        rustix::event::poll(&mut [PollFd::new(out, PollFlags::empty())], None).unwrap();
    }

    fn caller(output: Option<OwnedFd>) -> Caller {
        Caller { output, parent: rustix::process::getppid(), deadline: None }
    }

    async fn seen(caller: &Caller, cancellation: &Cancellation) -> Option<Gone> {
        tokio::time::timeout(LONG, caller.gone(cancellation)).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_is_gone_when_nobody_reads_the_output() {
        let (reader, out) = pipe().unwrap();
        let caller = caller(Some(out));
        assert_eq!(seen(&caller, &Cancellation::default()).await, None);
        drop(reader);
        wait_until_nobody_reads(caller.output.as_ref().unwrap());
        assert_eq!(seen(&caller, &Cancellation::default()).await, Some(Gone::Reader));
    }

    /// `exec > >(tee log)` before the driver: the reader outlives the runner.
    #[tokio::test(start_paused = true)]
    async fn another_parent_is_a_sign_where_there_is_a_pipe_and_no_signal() {
        let (_reader, out) = pipe().unwrap();
        let mut caller = caller(Some(out));
        caller.parent = Some(rustix::process::getpid());
        assert_eq!(seen(&caller, &Cancellation::default()).await, Some(Gone::Parent));
        let canceled = Cancellation::default();
        canceled.raise();
        assert_eq!(seen(&caller, &canceled).await, None, "a wrapper dies of the signal and the driver has its grace");
        caller.output = None;
        assert_eq!(seen(&caller, &Cancellation::default()).await, None, "output goes into a file");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_does_not_outlive_the_jobs_own_time() {
        let deadline = Some(Instant::now() + Duration::from_hours(1));
        let caller = Caller { deadline, ..caller(None) };
        assert_eq!(seen(&caller, &Cancellation::default()).await, Some(Gone::Timeout));
        assert_eq!(Some(Instant::now()), deadline);
    }
}
