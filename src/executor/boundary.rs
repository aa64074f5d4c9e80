//! The boundary around each stage and command: a signal becomes a cancellation, a panic an error, and the end of a
//! typed command an exit code.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use anyhow::Context as _;
use futures::FutureExt as _;

use crate::base::exit_codes;
use crate::base::failure::{self, Failure, Kind};
use crate::base::signals::{Cancellation, Signals};
use crate::ui::Printer;

/// Runs `work` and cancels it on signals.
///
/// # Errors
/// Those of `work`; a [`Failure`] with a hint when it panics.
pub async fn guarded<F, Fut>(work: F) -> anyhow::Result<()>
where
    F: FnOnce(Cancellation) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let signals = Signals::install().context("failed to install the signal handlers")?;
    let cancellation = Cancellation::default();
    let result = tokio::select! {
        result = AssertUnwindSafe(work(cancellation.clone())).catch_unwind() => result,
        never = signals.watch(&cancellation) => match never {},
    };
    match result {
        Ok(result) => result,
        Err(panic) => Err(Failure::system(format!("a bug in sagemaker-executor: {}", panic_text(&*panic)))
            .hint("please report it with the lines above")
            .into()),
    }
}

/// Runs a command that a person typed, and prints its error. A script's own failure is not printed: its output shows
/// it.
pub async fn command<F, Fut>(printer: &Printer, work: F) -> ExitCode
where
    F: FnOnce(Cancellation) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let Err(error) = guarded(work).await else { return ExitCode::from(exit_codes::DONE) };
    let kind = failure::kind_of(&error);
    match kind {
        Kind::Script { .. } => {}
        Kind::User | Kind::System | Kind::Verdict { .. } | Kind::Canceled => printer.failure(&error),
    }
    ExitCode::from(exit_codes::of(kind))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panicked without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_failure_of_ours_with_its_text() {
        let error = guarded(async |_| -> anyhow::Result<()> { panic!("index {}", 7) }).await.unwrap_err();
        assert_eq!(failure::kind_of(&error), Kind::System);
        assert_eq!(
            failure::render(&error),
            "error: a bug in sagemaker-executor: index 7\n  hint: please report it with the lines above"
        );
    }

    #[tokio::test]
    async fn a_signal_reaches_the_work() {
        let work = guarded(async |cancellation| {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT)?;
            cancellation.token().cancelled().await;
            Err(Failure::canceled("interrupted").into())
        });
        assert_eq!(failure::kind_of(&work.await.unwrap_err()), Kind::Canceled);
    }

    #[tokio::test]
    async fn each_end_of_a_command_has_its_code() {
        let printer = Printer::standard();
        let code =
            async |error: Option<Failure>| command(&printer, async |_| error.map_or(Ok(()), |e| Err(e.into()))).await;
        assert_eq!(code(None).await, ExitCode::from(exit_codes::DONE));
        assert_eq!(code(Some(Failure::script(42))).await, ExitCode::from(42));
        assert_eq!(code(Some(Failure::script(300))).await, ExitCode::from(1));
        assert_eq!(code(Some(Failure::user("no"))).await, ExitCode::from(exit_codes::MISTAKE));
        assert_eq!(code(Some(Failure::system("no"))).await, ExitCode::from(exit_codes::TROUBLE));
        assert_eq!(code(Some(Failure::canceled("no"))).await, ExitCode::from(exit_codes::CANCELED));
    }
}
