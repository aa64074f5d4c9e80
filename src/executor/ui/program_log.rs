//! The program's own log, for operators.

use std::io::{self, Write};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use super::operator_log::{self, OperatorLayer};
use super::printer::Printer;
use crate::base::failure::Failure;

/// Without a filter of the operator. Metrics that cannot be written are nothing for the log of a job.
const DEFAULT: &str = "warn,executor::metrics=off";
/// Limits of libraries: below a warning they show requests with headers and bodies, in which there are secrets. The warnings of
/// `aws_config` repeat, as a dump of its types, what an error says that follows. Requests to AWS are on stderr as text, not as fields too.
const LIBRARIES: [&str; 5] = ["aws_=warn", "aws_config=error", "hyper=warn", "rustls=warn", "aws::api=off"];

/// Sends the program's own log to stderr through `printer`. `filter` is the value of `SAGEMAKER_EXECUTOR_LOG`:
/// `debug`, or `info,executor::trace=debug`; warnings alone when it is absent or empty. The first call of a
/// process counts.
///
/// # Errors
/// A [`Failure`] with a hint when the filter cannot be understood.
pub fn init_tracing(printer: &Printer, filter: Option<&str>) -> anyhow::Result<()> {
    let filter = filter.filter(|filter| !filter.trim().is_empty()).unwrap_or(DEFAULT);
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::system("failed to read the log filter")
            .hint("set `SAGEMAKER_EXECUTOR_LOG` to `error`, `warn`, `info`, `debug` or `trace`")
            .caused_by(error)
    })?;
    let filter = LIBRARIES.into_iter().filter_map(|limit| limit.parse().ok()).fold(filter, EnvFilter::add_directive);
    let printer = printer.clone();
    let people = fmt::layer()
        .with_ansi(false)
        .without_time()
        .log_internal_errors(false)
        .with_writer(move || LogWriter(printer.clone()))
        .with_filter(filter);
    // The operator's file is not read yet, so whether there is a log is asked at each event.
    let taken =
        dynamic_filter_fn(|metadata, _| operator_log::takes(metadata))
            .with_max_level_hint(LevelFilter::DEBUG)
            .with_callsite_filter(|metadata| {
                if operator_log::is_own(metadata) { Interest::sometimes() } else { Interest::never() }
            });
    let operators = OperatorLayer.with_filter(taken);
    // A second subscriber is refused, and the first one goes on.
    let _ = tracing_subscriber::registry().with(people).with(operators).try_init();
    Ok(())
}

/// One event a write, as a line for people.
struct LogWriter(Printer);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.line(String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::render;

    #[test]
    fn a_bad_log_filter_is_an_error_with_a_hint() {
        let (printer, _) = Printer::captured();
        let error = init_tracing(&printer, Some("=,=")).unwrap_err();
        assert!(render(&error).contains("`SAGEMAKER_EXECUTOR_LOG`"), "{error}");
    }

    #[test]
    fn the_limits_of_libraries_are_understood() {
        use tracing_subscriber::filter::Directive;
        assert!(LIBRARIES.iter().all(|limit| limit.parse::<Directive>().is_ok()));
    }
}
