//! Runs the current script again, in the same stage, after SageMaker started the container again: as after an interruption of a
//! spot instance. The script gets another run number, so that output, reports and exit codes of the two runs are never mixed.

use std::time::SystemTime;

use crate::base::human::{ordinal, utc_time};
use crate::base::signals::Cancellation;
use crate::cloud::{SecondaryStatus, Transition};
use crate::protocol::mailbox::Order;
use crate::session::Session;
use crate::session::event::SessionEvent;
use crate::session::phase::InstancePhase;
use crate::session::workspace_upload::WorkspaceUpload;

/// Sends the project to the new container and begins another run, which the caller orders. Prints one line about it.
pub async fn begin(
    session: &mut Session<'_>,
    upload: &WorkspaceUpload,
    cancellation: &Cancellation,
) -> anyhow::Result<()> {
    let Some(current) = session.state.run().cloned() else { return Ok(()) };
    let nodes = session.state.nodes().len();
    let job = session.jobs.describe(&session.job_name()).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "failed to look up why the container was started again");
        None
    });
    let transitions = job.map(|job| job.transitions).unwrap_or_default();
    let line = explanation(interrupted_at(&transitions), nodes, current.repeated + 2);
    upload.send_once(session, cancellation).await?;
    if nodes > 1 {
        // A node that had not begun it must not begin it now.
        session.order(&Order::Cancel { run: current.run }).await?;
    }
    session.apply(SessionEvent::RunRepeated)?;
    session.printer.warn(line);
    Ok(())
}

fn explanation(interrupted: Option<SystemTime>, nodes: usize, nth: u32) -> String {
    let cause = match interrupted {
        Some(at) => {
            let time = utc_time(at);
            if nodes > 1 {
                format!("the spot instances were interrupted at {time} UTC; SageMaker started new ones, and")
            } else {
                format!("the spot instance was interrupted at {time} UTC; SageMaker started a new one, and")
            }
        }
        None => "SageMaker started the container again, and".to_owned(),
    };
    format!("{cause} the script runs again ({} run)", ordinal(nth))
}

/// When a spot interruption ended the start of the containers before the last one. `None`: something else did.
fn interrupted_at(transitions: &[Transition]) -> Option<SystemTime> {
    let mut before = transitions.iter().rev().skip_while(|transition| is_running(&transition.status));
    let cause = before.find(|transition| !is_starting(&transition.status))?;
    (cause.status == SecondaryStatus::Interrupted).then_some(cause.started)?
}

/// When a spot interruption ended the last start of the containers, while the next one has not come.
pub(super) fn without_instance_since(transitions: &[Transition]) -> Option<SystemTime> {
    let last = transitions.last()?;
    interrupted_at(transitions).filter(|_| !is_running(&last.status))
}

fn is_running(status: &SecondaryStatus) -> bool {
    InstancePhase::of(status).is_some_and(|phase| phase != InstancePhase::Provisioning)
}

fn is_starting(status: &SecondaryStatus) -> bool {
    let is_cause = matches!(status, SecondaryStatus::Interrupted | SecondaryStatus::Restarting);
    InstancePhase::of(status) == Some(InstancePhase::Provisioning) && !is_cause
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn found(statuses: &[SecondaryStatus]) -> Option<u64> {
        second(interrupted_at(&transitions(statuses)))
    }

    fn second(at: Option<SystemTime>) -> Option<u64> {
        at.map(|at| at.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    fn transitions(statuses: &[SecondaryStatus]) -> Vec<Transition> {
        let transition = |(second, status): (u64, &SecondaryStatus)| Transition {
            status: status.clone(),
            started: Some(UNIX_EPOCH + Duration::from_secs(second)),
            message: None,
        };
        (0..).zip(statuses).map(transition).collect()
    }

    #[test]
    fn the_cause_is_the_status_before_the_last_start() {
        use SecondaryStatus::{Downloading, Interrupted, Pending, Starting, Training};
        let first = [Starting, Downloading, Training];
        assert_eq!(found(&first), None);
        let spot = [&first[..], &[Interrupted, Starting, Pending, Downloading, Training]].concat();
        assert_eq!(found(&spot), Some(3));
        assert_eq!(found(&spot[..5]), Some(3), "not running yet");
        assert_eq!(found(&[&spot[..], &[Starting, Downloading, Training]].concat()), None, "an error later on");
        assert_eq!(found(&[&spot[..], &[Interrupted, Starting]].concat()), Some(8));
    }

    #[test]
    fn an_interruption_lasts_until_the_next_instance_downloads() {
        use SecondaryStatus::{Downloading, Interrupted, Pending, Starting, Training};
        let lasts = |statuses: &[SecondaryStatus]| second(without_instance_since(&transitions(statuses)));
        let spot = [Starting, Training, Interrupted, Starting, Pending, Downloading, Training];
        let found: Vec<_> = (0..=spot.len()).map(|count| lasts(&spot[..count])).collect();
        assert_eq!(found, [None, None, None, Some(2), Some(2), Some(2), None, None]);
    }

    #[test]
    fn one_line_says_what_happened() {
        let at = Some(UNIX_EPOCH + Duration::from_secs(43_384));
        assert_eq!(
            explanation(at, 1, 2),
            "the spot instance was interrupted at 12:03:04 UTC; SageMaker started a new one, and the script runs again (2nd run)"
        );
        assert_eq!(
            explanation(at, 2, 3),
            "the spot instances were interrupted at 12:03:04 UTC; SageMaker started new ones, and the script runs again (3rd run)"
        );
        assert_eq!(
            explanation(None, 1, 11),
            "SageMaker started the container again, and the script runs again (11th run)"
        );
    }
}
