//! Progress bar of a transfer on a terminal.

use std::time::Duration;

use crate::ui::{self, Printer};
use crate::workspace::TransferProgress;

/// Time between two updates of the bar.
const MOVE: Duration = Duration::from_millis(200);

/// Runs a transfer and shows its progress on a terminal.
pub(super) async fn with_bar<T>(
    printer: &Printer,
    task: &str,
    progress: &TransferProgress,
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
