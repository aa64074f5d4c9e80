//! The task of one endpoint: shows its state what happens, and does what the state asks for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::names::ServingName;
use super::records::{EndpointRecord, Endpoints};
use super::rollout::{DeploymentEffect, FleetState, Sight};
use crate::clock;

/// Time between two looks at the alarms of a deployment.
const ALARMS: Duration = Duration::from_millis(100);

/// Drives an endpoint until it is deleted or the emulator ends.
pub(super) async fn drive(endpoints: Arc<Endpoints>, name: ServingName, changed: Arc<Notify>) {
    while let Some(pause) = advance(&endpoints, &name) {
        let pause = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed.notified() => {}
            () = pause => {}
            () = endpoints.platform.shared.shutdown.cancelled() => return,
        }
    }
}

/// Changes the state as far as it goes now, and returns the time until it may change by itself; `None` when the endpoint is gone.
#[expect(clippy::option_option, reason = "gone, or there with or without a time")]
fn advance(endpoints: &Arc<Endpoints>, name: &ServingName) -> Option<Option<Duration>> {
    let mut records = endpoints.records();
    let record = records.endpoints.get_mut(name)?;
    loop {
        let instances = record.green.as_ref().or(record.blue.as_ref()).map_or(FleetState::Ready, |fleet| fleet.state());
        let watched = record.progress.watched();
        let cloudwatch = &endpoints.platform.cloudwatch;
        let alarm = if watched.is_empty() { None } else { cloudwatch.firing(&name.account, &name.region, watched) };
        let now_ms = clock::now_ms();
        let sight = Sight { now_ms, instances: &instances, alarm: alarm.as_deref() };
        match record.progress.advance(sight) {
            None => {
                let due = record.progress.due_ms(now_ms).map(|due| Duration::from_millis(due - now_ms));
                let alarms = (!record.progress.watched().is_empty()).then_some(ALARMS);
                return Some(due.into_iter().chain(alarms).min());
            }
            Some(DeploymentEffect::Remove) => break,
            Some(effect) => apply(record, effect),
        }
    }
    let record = records.endpoints.remove(name)?;
    record.blue.into_iter().chain(record.green).for_each(|fleet| fleet.end());
    endpoints.platform.shared.tags.remove(&name.arn());
    None
}

fn apply(record: &mut EndpointRecord, effect: DeploymentEffect) {
    record.modified_ms = clock::now_ms();
    let ended = match effect {
        DeploymentEffect::Commit => {
            let green = record.green.take();
            std::mem::replace(&mut record.blue, green)
        }
        // A failed creation keeps what Describe shows.
        DeploymentEffect::Discard if record.blue.is_none() => {
            record.blue = record.green.take();
            record.blue.clone()
        }
        DeploymentEffect::Discard | DeploymentEffect::Remove => record.green.take(),
    };
    if let Some(fleet) = ended {
        fleet.end();
    }
}
