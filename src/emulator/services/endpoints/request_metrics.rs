//! The metrics of CloudWatch that a request to an endpoint leaves.

use std::time::Duration;

use hyper::StatusCode;

use super::routing::Chosen;
use crate::services::cloudwatch::CloudWatch;

const NAMESPACE: &str = "AWS/SageMaker";

/// Records a request with the status of the container's answer; `None` when it did not answer.
pub(super) fn record(
    cloudwatch: &CloudWatch,
    chosen: &Chosen,
    status: Option<StatusCode>,
    [model, overhead]: [Duration; 2],
) {
    let is = |held: bool| if held { 1.0 } else { 0.0 };
    let mut values = vec![
        ("Invocations", 1.0, "None"),
        ("Invocation4XXErrors", is(status.is_some_and(|status| status.is_client_error())), "None"),
        ("Invocation5XXErrors", is(status.is_none_or(|status| status.is_server_error())), "None"),
        ("InvocationModelErrors", is(status.is_none_or(|status| !status.is_success())), "None"),
        ("ModelLatency", microseconds(model), "Microseconds"),
        ("OverheadLatency", microseconds(overhead), "Microseconds"),
    ];
    if let Some(instances) = chosen.instances {
        values.push(("InvocationsPerInstance", 1.0 / f64::from(instances.max(1)), "None"));
    }
    let name = &chosen.name;
    // The fleets of a deployment are told apart by the name of their configuration.
    let dimensions = [
        ("EndpointName", name.name.as_str()),
        ("VariantName", &chosen.variant),
        ("EndpointConfigName", &chosen.config),
    ];
    let [endpoint, variant, _] = dimensions;
    for dimensions in [&[endpoint, variant][..], &dimensions] {
        cloudwatch.record((&name.account, &name.region), NAMESPACE, dimensions, &values);
    }
}

#[expect(clippy::cast_precision_loss, reason = "at most an hour")]
fn microseconds(time: Duration) -> f64 {
    time.as_micros() as f64
}
