//! Alarms of CloudWatch over the SDK.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_cloudwatch::operation::put_metric_alarm::builders::PutMetricAlarmFluentBuilder;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{AlarmType, ComparisonOperator, Dimension, MetricAlarm, StateValue, Statistic, Tag};
use executor::base::plain;
use executor::cloud::{AlarmMetric, AlarmSight, AlarmState, CloudError, CloudErrorKind, EndpointAlarm, MetricAlarms};

use super::clients::Clients;

const NAMESPACE: &str = "AWS/SageMaker";
/// No requests are no errors.
const WITHOUT_DATA: &str = "notBreaching";
/// Most alarms that AWS lists in one page.
const PAGE: i32 = 100;
/// Longest reason that is kept, in bytes.
const LONGEST_TEXT: usize = 4096;

#[derive(Debug)]
pub(super) struct AwsAlarms {
    clients: Arc<Clients>,
}

impl AwsAlarms {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }

    /// The alarm as it is.
    async fn alarm(&self, name: &str) -> Result<Option<MetricAlarm>, CloudError> {
        let call = self.clients.call("look at", format!("alarm {name}"), "cloudwatch:DescribeAlarms");
        let request = self.clients.metrics().describe_alarms().alarm_names(name).alarm_types(AlarmType::MetricAlarm);
        let reply = request.send().await.map_err(|error| call.failed(&error))?;
        Ok(reply.metric_alarms.unwrap_or_default().into_iter().next())
    }
}

#[async_trait]
impl MetricAlarms for AwsAlarms {
    async fn alarms(&self, names: &[String]) -> Result<Vec<AlarmSight>, CloudError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let call = self.clients.call("look at", format!("alarms {}", names.join(", ")), "cloudwatch:DescribeAlarms");
        let request = self.clients.metrics().describe_alarms().set_alarm_names(Some(names.to_vec()));
        let request = request.alarm_types(AlarmType::MetricAlarm).alarm_types(AlarmType::CompositeAlarm);
        let mut pages = request.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| call.failed(&error))?;
            found.extend(page.metric_alarms.unwrap_or_default().into_iter().map(sight));
            found.extend(page.composite_alarms.unwrap_or_default().into_iter().map(|alarm| AlarmSight {
                definition: None,
                changed: time(alarm.alarm_configuration_updated_timestamp),
                state: state(alarm.state_value.as_ref()),
                reason: plain::line(alarm.state_reason.as_deref().unwrap_or_default(), LONGEST_TEXT),
                name: alarm.alarm_name.unwrap_or_default(),
                arn: alarm.alarm_arn.unwrap_or_default(),
            }));
        }
        Ok(found)
    }

    async fn all_alarms(&self) -> Result<Vec<AlarmSight>, CloudError> {
        let call = self.clients.call("list", "the alarms".to_owned(), "cloudwatch:DescribeAlarms");
        let request = self.clients.metrics().describe_alarms().alarm_types(AlarmType::MetricAlarm).max_records(PAGE);
        let mut pages = request.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| call.failed(&error))?;
            found.extend(page.metric_alarms.unwrap_or_default().into_iter().map(sight));
        }
        Ok(found)
    }

    /// `PutMetricAlarm` replaces everything, so that the settings of an operator are read before, and written again.
    async fn put_alarm(&self, alarm: &EndpointAlarm) -> Result<(), CloudError> {
        let there = self.alarm(&alarm.name).await?;
        let call = self.clients.call("write", format!("alarm {}", alarm.name), "cloudwatch:PutMetricAlarm");
        let dimension = |name: &str, value: &str| Dimension::builder().name(name).value(value).build();
        let tags = alarm.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
        let request = self
            .clients
            .metrics()
            .put_metric_alarm()
            .alarm_name(&alarm.name)
            .alarm_description(&alarm.description)
            .namespace(NAMESPACE)
            .dimensions(dimension("EndpointName", &alarm.endpoint))
            .dimensions(dimension("VariantName", &alarm.variant))
            .period(alarm.period_seconds.cast_signed())
            .evaluation_periods(alarm.periods.cast_signed())
            .datapoints_to_alarm(alarm.periods.cast_signed())
            .threshold(alarm.threshold)
            .comparison_operator(ComparisonOperator::GreaterThanThreshold)
            .treat_missing_data(WITHOUT_DATA)
            .set_tags((!alarm.tags.is_empty()).then(|| tags.collect()));
        let request = match alarm.metric {
            AlarmMetric::Errors5xx => request.metric_name("Invocation5XXErrors").statistic(Statistic::Sum),
            AlarmMetric::LatencyP95 => request.metric_name("ModelLatency").extended_statistic("p95"),
        };
        let request = match there {
            Some(there) => with_settings_of(there, request),
            None => request,
        };
        request.send().await.map(|_| ()).map_err(|error| call.failed(&error))
    }

    /// One after the other: AWS refuses a list with a name that does not exist.
    async fn delete_alarms(&self, names: &[String]) -> Result<(), CloudError> {
        for name in names {
            let call = self.clients.call("delete", format!("alarm {name}"), "cloudwatch:DeleteAlarms");
            let request = self.clients.metrics().delete_alarms().alarm_names(name).customize();
            let reply = request.config_override(self.clients.alarm_deletion()).send().await;
            match reply.map_err(|error| call.failed(&error)) {
                Err(error) if error.kind == CloudErrorKind::NotFound => {}
                answer => {
                    answer?;
                }
            }
        }
        Ok(())
    }

    async fn alarm_tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError> {
        let call = self.clients.call("list the tags of", arn, "cloudwatch:ListTagsForResource");
        let reply = self.clients.metrics().list_tags_for_resource().resource_arn(arn).send().await;
        let tags = reply.map_err(|error| call.failed(&error))?.tags.unwrap_or_default();
        Ok(tags.into_iter().filter_map(|tag| Some((tag.key?, tag.value?))).collect())
    }
}

fn time(at: Option<DateTime>) -> Option<SystemTime> {
    at.and_then(|at| SystemTime::try_from(at).ok())
}

fn sight(alarm: MetricAlarm) -> AlarmSight {
    AlarmSight {
        definition: definition(&alarm),
        changed: time(alarm.alarm_configuration_updated_timestamp),
        state: state(alarm.state_value.as_ref()),
        reason: plain::line(alarm.state_reason.as_deref().unwrap_or_default(), LONGEST_TEXT),
        name: alarm.alarm_name.unwrap_or_default(),
        arn: alarm.alarm_arn.unwrap_or_default(),
    }
}

/// The request with the settings of the alarm that [`EndpointAlarm`] does not have: what it does when its state changes.
fn with_settings_of(there: MetricAlarm, request: PutMetricAlarmFluentBuilder) -> PutMetricAlarmFluentBuilder {
    request
        .set_actions_enabled(there.actions_enabled)
        .set_alarm_actions(there.alarm_actions)
        .set_ok_actions(there.ok_actions)
        .set_insufficient_data_actions(there.insufficient_data_actions)
        .set_evaluate_low_sample_count_percentile(there.evaluate_low_sample_count_percentile)
}

fn state(value: Option<&StateValue>) -> AlarmState {
    match value {
        Some(StateValue::Ok) => AlarmState::Ok,
        Some(StateValue::Alarm) => AlarmState::Alarm,
        _ => AlarmState::InsufficientData,
    }
}

/// The alarm in the form that [`AwsAlarms::put_alarm`] writes.
fn definition(alarm: &MetricAlarm) -> Option<EndpointAlarm> {
    let metric = match (alarm.metric_name()?, alarm.statistic(), alarm.extended_statistic()) {
        ("Invocation5XXErrors", Some(Statistic::Sum), None) => AlarmMetric::Errors5xx,
        ("ModelLatency", None, Some("p95")) => AlarmMetric::LatencyP95,
        _ => return None,
    };
    let number = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok());
    let dimension = |name: &str| {
        let found = alarm.dimensions().iter().find(|dimension| dimension.name() == Some(name))?;
        found.value().map(str::to_owned)
    };
    let is_ours = alarm.namespace() == Some(NAMESPACE)
        && alarm.dimensions().len() == 2
        && alarm.comparison_operator() == Some(&ComparisonOperator::GreaterThanThreshold)
        && alarm.treat_missing_data() == Some(WITHOUT_DATA)
        && alarm.datapoints_to_alarm().is_none_or(|points| Some(points) == alarm.evaluation_periods());
    let written = EndpointAlarm {
        name: alarm.alarm_name()?.to_owned(),
        description: alarm.alarm_description().unwrap_or_default().to_owned(),
        endpoint: dimension("EndpointName")?,
        variant: dimension("VariantName")?,
        metric,
        threshold: alarm.threshold()?,
        period_seconds: number(alarm.period())?,
        periods: number(alarm.evaluation_periods())?,
        tags: BTreeMap::new(),
    };
    is_ours.then_some(written)
}

#[cfg(test)]
mod tests {
    use axum::response::Response;
    use minicbor::Encoder;

    use super::*;
    use crate::stub::Stub;

    fn alarm() -> EndpointAlarm {
        EndpointAlarm {
            name: "churn-5xx".to_owned(),
            description: "errors".to_owned(),
            endpoint: "churn".to_owned(),
            variant: "AllTraffic".to_owned(),
            metric: AlarmMetric::Errors5xx,
            threshold: 5.5,
            period_seconds: 60,
            periods: 2,
            tags: BTreeMap::new(),
        }
    }

    fn answer(status: u16, body: Vec<u8>) -> Response {
        let reply = Response::builder().status(status).header("smithy-protocol", "rpc-v2-cbor");
        reply.header("content-type", "application/cbor").body(body.into()).unwrap()
    }

    fn refusal(code: &str) -> Response {
        let mut body = Encoder::new(Vec::new());
        body.map(2).unwrap().str("__type").unwrap().str(code).unwrap();
        body.str("message").unwrap().str("no").unwrap();
        answer(400, body.into_writer())
    }

    /// A reply of `DescribeAlarms` with an alarm as AWS keeps it, and a composite one.
    fn described(wanted: &EndpointAlarm, without_data: &str) -> Response {
        let mut body = Encoder::new(Vec::new());
        let texts = |body: &mut Encoder<Vec<u8>>, pairs: &[(&str, &str)]| {
            for (key, value) in pairs {
                body.str(key).unwrap().str(value).unwrap();
            }
        };
        body.map(2).unwrap().str("MetricAlarms").unwrap().array(1).unwrap().map(18).unwrap();
        texts(&mut body, &[("AlarmName", &wanted.name), ("AlarmArn", "arn:1"), ("AlarmDescription", "errors")]);
        texts(&mut body, &[("StateValue", "ALARM"), ("StateReason", "above"), ("MetricName", "Invocation5XXErrors")]);
        texts(&mut body, &[("Namespace", NAMESPACE), ("Statistic", "Sum"), ("TreatMissingData", without_data)]);
        texts(&mut body, &[("ComparisonOperator", "GreaterThanThreshold")]);
        for (key, value) in [("Period", 60), ("EvaluationPeriods", 2), ("DatapointsToAlarm", 2)] {
            body.str(key).unwrap().i32(value).unwrap();
        }
        body.str("ActionsEnabled").unwrap().bool(false).unwrap();
        for name in ["AlarmActions", "OKActions"] {
            body.str(name).unwrap().array(1).unwrap().str(&format!("arn:{name}")).unwrap();
        }
        body.str("Threshold").unwrap().f64(wanted.threshold).unwrap();
        body.str("Dimensions").unwrap().array(2).unwrap();
        for (name, value) in [("EndpointName", "churn"), ("VariantName", "AllTraffic")] {
            texts(body.map(2).unwrap(), &[("Name", name), ("Value", value)]);
        }
        body.str("CompositeAlarms").unwrap().array(1).unwrap().map(2).unwrap();
        texts(&mut body, &[("AlarmName", "all"), ("StateValue", "OK")]);
        answer(200, body.into_writer())
    }

    #[tokio::test]
    async fn an_alarm_is_written_without_data_off_and_above_its_threshold_on() {
        let stub = Stub::start().await;
        let port = AwsAlarms::new(Arc::clone(&stub.clients));
        stub.answer(|_| Some(answer(200, vec![0xa0])));
        port.put_alarm(&alarm()).await.unwrap();
        let tags = BTreeMap::from([("Project".to_owned(), "churn".to_owned())]);
        port.put_alarm(&EndpointAlarm { metric: AlarmMetric::LatencyP95, tags, ..alarm() }).await.unwrap();
        let mut seen = stub.seen();
        seen.retain(|seen| !seen.uri.ends_with("/operation/DescribeAlarms"));
        assert!(seen[0].uri.ends_with("/operation/PutMetricAlarm"), "{}", seen[0].uri);
        let text = |number: usize| minicbor::display(&seen[number].body).to_string();
        for part in [
            r#""AlarmName": "churn-5xx""#,
            r#""Namespace": "AWS/SageMaker""#,
            r#""MetricName": "Invocation5XXErrors""#,
            r#""Statistic": "Sum""#,
            r#""TreatMissingData": "notBreaching""#,
            r#""ComparisonOperator": "GreaterThanThreshold""#,
            r#""Threshold": 5.5"#,
            r#""Period": 60"#,
            r#""EvaluationPeriods": 2"#,
            r#""Value": "AllTraffic""#,
        ] {
            assert!(text(0).contains(part), "{part}: {}", text(0));
        }
        assert!(text(1).contains(r#""ModelLatency""#) && text(1).contains(r#""p95""#), "{}", text(1));
        assert!(!text(1).contains("Statistic\": \"Sum") && text(1).contains(r#""Project""#), "{}", text(1));
    }

    #[tokio::test]
    async fn a_changed_alarm_keeps_the_actions_that_an_operator_added() {
        let stub = Stub::start().await;
        let port = AwsAlarms::new(Arc::clone(&stub.clients));
        stub.push(described(&alarm(), "missing"));
        stub.push(answer(200, vec![0xa0]));
        port.put_alarm(&EndpointAlarm { threshold: 9.5, ..alarm() }).await.unwrap();
        let text = minicbor::display(&stub.seen()[1].body).to_string();
        for part in [
            r#""arn:AlarmActions""#,
            r#""arn:OKActions""#,
            r#""ActionsEnabled": false"#,
            r#""Threshold": 9.5"#,
            r#""TreatMissingData": "notBreaching""#,
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[tokio::test]
    async fn an_alarm_of_this_form_is_read_back_and_others_are_told_apart() {
        let stub = Stub::start().await;
        let port = AwsAlarms::new(Arc::clone(&stub.clients));
        assert_eq!(port.alarms(&[]).await.unwrap(), []);
        let names = [alarm().name, "all".to_owned()];
        stub.push(described(&alarm(), "notBreaching"));
        let found = port.alarms(&names).await.unwrap();
        let first = AlarmSight {
            name: "churn-5xx".to_owned(),
            arn: "arn:1".to_owned(),
            state: AlarmState::Alarm,
            reason: "above".to_owned(),
            definition: Some(alarm()),
            changed: None,
        };
        assert_eq!(found[0], first);
        assert_eq!((found[1].name.as_str(), found[1].state, &found[1].definition), ("all", AlarmState::Ok, &None));
        stub.push(described(&alarm(), "missing"));
        assert_eq!(port.alarms(&names).await.unwrap()[0].definition, None);
    }

    #[tokio::test]
    async fn a_deletion_passes_over_what_is_not_there() {
        let stub = Stub::start().await;
        let port = AwsAlarms::new(Arc::clone(&stub.clients));
        stub.push(refusal("ResourceNotFound"));
        stub.push(answer(200, vec![0xa0]));
        port.delete_alarms(&["a".to_owned(), "b".to_owned()]).await.unwrap();
        assert_eq!(stub.seen().len(), 2);
        stub.push(refusal("AccessDenied"));
        let error = port.delete_alarms(&["a".to_owned()]).await.unwrap_err();
        assert_eq!((error.kind, error.action), (CloudErrorKind::Denied, "cloudwatch:DeleteAlarms"));
    }
}
