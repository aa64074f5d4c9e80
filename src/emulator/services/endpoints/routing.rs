//! Which instance answers a request: of the old or the new ones, of which variant.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::instance::ServingInstance;
use super::names::ServingName;
use super::records::EndpointRecord;
use crate::authorization::RoleSession;
use crate::services::training::LogPlace;

/// The instance that answers a request.
pub(super) struct Chosen {
    /// The endpoint.
    pub(super) name: ServingName,
    /// Name of the configuration whose instance it is.
    pub(super) config: String,
    /// Number of the variant's instances; `None` when it is serverless.
    pub(super) instances: Option<u32>,
    pub(super) variant: String,
    pub(super) socket: PathBuf,
    pub(super) log: LogPlace,
    /// The session of the model's role.
    pub(super) role: RoleSession,
    pub(super) region: String,
    /// `AsyncInferenceConfig` of the endpoint.
    pub(super) asynchronous: Option<Value>,
    /// Keeps the instance until the request is answered.
    _request: TaskTrackerToken,
}

/// Why no instance answers.
pub(super) enum RoutingRefusal {
    NotInService,
    NoVariant(String),
    NotReady,
}

/// The next instance in turn: first of the new or the old ones, then of a variant by weight.
pub(super) fn route(
    name: &ServingName,
    record: &mut EndpointRecord,
    target: Option<&str>,
) -> Result<Chosen, RoutingRefusal> {
    let number = record.routed;
    record.routed += 1;
    let is_green = is_in_share(number, record.progress.share());
    let fleet =
        record.green.as_ref().filter(|_| is_green).or(record.blue.as_ref()).ok_or(RoutingRefusal::NotInService)?;
    let variants = fleet.variants();
    let index = match target {
        Some(target) => {
            let found = variants.iter().position(|one| one.name == target);
            found.ok_or_else(|| RoutingRefusal::NoVariant(target.to_owned()))?
        }
        None => by_weight(number, &variants.iter().map(|one| one.weight).collect::<Vec<_>>()),
    };
    let variant = variants.get(index).ok_or(RoutingRefusal::NotReady)?;
    let ready: Vec<(&Arc<ServingInstance>, PathBuf)> =
        variant.instances.iter().filter_map(|one| Some((one, one.socket()?))).collect();
    let turn = usize::try_from(number).unwrap_or(0).checked_rem(ready.len()).ok_or(RoutingRefusal::NotReady)?;
    let (instance, socket) = ready.into_iter().nth(turn).ok_or(RoutingRefusal::NotReady)?;
    let instances = variant.instance_type.as_ref().and_then(|_| u32::try_from(variant.instances.len()).ok());
    Ok(Chosen {
        name: name.clone(),
        config: fleet.config_name.clone(),
        instances,
        variant: variant.name.clone(),
        socket,
        log: instance.log.clone(),
        role: variant.order.role.clone(),
        region: variant.order.region.clone(),
        asynchronous: fleet.config.get("AsyncInferenceConfig").cloned(),
        _request: instance.requests.token(),
    })
}

/// Whether a request is one of those that make up a share in percent, evenly spread.
fn is_in_share(number: u64, share: u64) -> bool {
    let number = number % 100;
    (number + 1) * share / 100 > number * share / 100
}

/// The variant of a request: each gets its part of a hundred requests.
#[expect(clippy::cast_precision_loss, reason = "below 100")]
fn by_weight(number: u64, weights: &[f64]) -> usize {
    let sum: f64 = weights.iter().sum();
    // 37 has no factor in common with 100, so a short run of requests is spread as well.
    let mut point = ((number * 37) % 100) as f64 / 100.0 * sum;
    for (index, weight) in weights.iter().enumerate() {
        if point < *weight {
            return index;
        }
        point -= weight;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_kept_in_each_hundred_requests_and_spread() {
        for share in [0, 1, 10, 33, 50, 100] {
            assert_eq!((0..100).filter(|number| is_in_share(*number, share)).count() as u64, share);
        }
        assert_eq!((0..10).filter(|number| is_in_share(*number, 10)).count(), 1);
    }

    #[test]
    fn variants_get_their_weights() {
        let count = |weights: &[f64], index| (0..100).filter(|number| by_weight(*number, weights) == index).count();
        assert_eq!((count(&[3.0, 1.0], 0), count(&[3.0, 1.0], 1)), (75, 25));
        assert_eq!((count(&[0.0, 1.0], 0), count(&[0.0, 1.0], 1)), (0, 100));
        assert_eq!(count(&[0.0], 0), 100, "an only variant without a weight");
    }
}
