//! Bears calls that AWS refuses because of the driver's credentials, for one lease: in a job of days they are renewed, rotated, or
//! denied for minutes by a policy that changes. Longer is of no use, because the agent leaves when its lease is not renewed.

use std::time::Duration;

use humantime::format_duration;
use tokio::time::Instant;

use crate::base::failure::Failure;
use crate::base::signals::Cancellation;
use crate::cloud::{CloudError, CloudErrorKind};
use crate::protocol::mailbox::Order;
use crate::session::Session;
use crate::session::event::SessionEvent;
use crate::session::exchange::Exchange as _;

/// Pause between two tries of a call that nothing else repeats.
const PAUSE: Duration = Duration::from_secs(5);
/// The job log tells of refusals that have lasted this long.
const TELL_AFTER: Duration = Duration::from_mins(1);

/// Refused calls of one kind, in a row.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    since: Option<Instant>,
    /// Such a call was answered before, so its permission is there.
    has_passed: bool,
    is_told: bool,
}

impl Refusals {
    /// Such a call was answered to an earlier process.
    pub(super) fn permission_is_there(&mut self) {
        self.has_passed = true;
    }

    /// `true` when a failed call may be answered later.
    pub(super) fn may_end(&self, kind: CloudErrorKind) -> bool {
        kind.may_pass() || may_end(kind, self.has_passed)
    }

    /// A call was answered.
    pub(super) fn passed(&mut self, session: &Session<'_>) {
        if self.is_told {
            session.printer.line("AWS accepts the credentials of the runner host again");
        }
        *self = Self { has_passed: true, ..Self::default() };
    }

    /// Takes a failed call. `Ok`: the caller tries again later.
    ///
    /// # Errors
    /// The error itself when a repetition does not help; a system failure when AWS has refused the credentials for one lease.
    pub(super) fn bear(&mut self, session: &Session<'_>, error: impl Into<anyhow::Error>) -> anyhow::Result<()> {
        let error = error.into();
        let Some(failed) = error.chain().find_map(|cause| cause.downcast_ref::<CloudError>()) else {
            return Err(error);
        };
        if failed.kind.may_pass() {
            tracing::debug!(error = %failed, "a call failed, and is tried again");
            return Ok(());
        }
        if !self.may_end(failed.kind) {
            return Err(error);
        }
        let lease = session.settings.lease();
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= lease {
            let (what, hint) = lasting(failed, lease);
            return Err(Failure::system(what).hint(hint).caused_by(error).into());
        }
        if since.elapsed() >= TELL_AFTER && !std::mem::replace(&mut self.is_told, true) {
            session.printer.warn(format!(
                "AWS refuses the credentials of the runner host; the job waits {} for others: {failed}",
                format_duration(lease)
            ));
        }
        tracing::debug!(error = %failed, "AWS refuses the credentials");
        Ok(())
    }
}

/// `true` when the refusal may end by itself. `has_passed`: the permission was there before.
fn may_end(kind: CloudErrorKind, has_passed: bool) -> bool {
    match kind {
        CloudErrorKind::Unauthenticated => true,
        CloudErrorKind::Denied => has_passed,
        _ => false,
    }
}

/// The one cause of a stage whose calls have failed for longer than a lease, and a hint.
pub(super) fn lasting(error: &CloudError, lease: Duration) -> (String, String) {
    let lease = format_duration(lease);
    if error.kind.may_pass() {
        let hint = "look at the runner host's way to S3".to_owned();
        return (format!("the bucket could not be reached for {lease}"), hint);
    }
    let hint = if error.kind == CloudErrorKind::Denied {
        format!("allow the runner host's role `{}` again, as in `runner-config/iam/`", error.action)
    } else {
        "give the host an instance profile, or a profile whose file or `credential_process` is renewed: keys of a session end after 1 to \
         12 hours, and the environment of a service does not change; a longer `limits.lease_seconds` bears longer gaps"
            .to_owned()
    };
    (format!("AWS has refused the credentials of the runner host for {lease}"), hint)
}

/// Sends an order, and bears refused calls and faults for one lease. A cancel ends the wait.
///
/// # Errors
/// A refusal that a repetition does not help; a system failure when refusals have lasted for one lease; the last fault after that
/// time; a cancel.
pub async fn order(session: &mut Session<'_>, order: &Order, cancel: &Cancellation) -> anyhow::Result<()> {
    let number = persist(session, cancel, async || session.exchange().send(&session.state, order).await).await?;
    session.apply(SessionEvent::OrderStored { number, order })
}

/// Stores the script of a run, as [`order`] sends an order.
pub async fn deliver_script(session: &Session<'_>, run: u32, body: &[u8], cancel: &Cancellation) -> anyhow::Result<()> {
    persist(session, cancel, async || Ok(session.exchange().deliver_script(run, body.to_vec()).await?)).await
}

async fn persist<T>(
    session: &Session<'_>,
    cancel: &Cancellation,
    call: impl AsyncFn() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut refusals = Refusals { has_passed: session.state.any_ready(), ..Refusals::default() };
    let (begun, lease) = (Instant::now(), session.settings.lease());
    loop {
        let error = match call().await {
            Err(error) if !cancel.asked() => error,
            outcome => return outcome,
        };
        if let Some(failed) = CloudError::passing(&error).filter(|_| begun.elapsed() >= lease) {
            let (what, hint) = lasting(failed, lease);
            return Err(Failure::system(what).hint(hint).caused_by(error).into());
        }
        refusals.bear(session, error)?;
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = cancel.token().cancelled() => {
                return Err(Failure::canceled("canceled while AWS refused the credentials of the runner host").into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_that_never_was_there_is_not_waited_for() {
        assert!(may_end(CloudErrorKind::Unauthenticated, false));
        assert!(may_end(CloudErrorKind::Denied, true));
        assert!(!may_end(CloudErrorKind::Denied, false));
        assert!(!may_end(CloudErrorKind::Invalid, true));
    }
}
