//! A transfer with a bar beside it, where people look at a terminal.

use std::time::Duration;

use crate::ui::{self, Printer};
use crate::workspace::Progress;

/// How often a bar moves.
const MOVE: Duration = Duration::from_millis(200);

/// Shows on a terminal how far a transfer is.
pub(super) async fn with_bar<T>(
    printer: &Printer,
    task: &str,
    progress: &Progress,
    transfer: impl Future<Output = T>,
) -> T {
    let Some(mut bar) = ui::Progress::on_terminal(printer, task, std::time::Instant::now()) else {
        return transfer.await;
    };
    tokio::pin!(transfer);
    loop {
        tokio::select! {
            done = &mut transfer => return done,
            () = tokio::time::sleep(MOVE) => bar.bytes_of(progress.content(), progress.total()),
        }
    }
}
