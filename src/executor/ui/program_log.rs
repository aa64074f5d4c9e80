//! The program's own log, for operators.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;

use super::printer::Printer;
use crate::base::failure::Failure;

const DEFAULT: &str = "warn";
/// Limits of libraries: below a warning they show requests with headers and bodies, in which there are secrets. The warnings of
/// `aws_config` repeat, as a dump of its types, what an error says that follows.
const LIBRARIES: [&str; 4] = ["aws_=warn", "aws_config=error", "hyper=warn", "rustls=warn"];

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
    // A second subscriber is refused, and the first one goes on.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .without_time()
        .log_internal_errors(false)
        .with_writer(move || LogWriter(printer.clone()))
        .try_init();
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
