//! The operations on alarms and their tags.

use std::sync::Arc;

use serde_json::{Value, json};

use super::alarm::Alarm;
use super::evaluation::{AlarmRule, AlarmStateValue};
use super::key::AlarmKey;
use super::metrics::MetricKey;
use super::records::{CloudWatch, CloudWatchRecords};
use crate::caller::Caller;
use crate::clock;
use crate::paging::cut;
use crate::protocol::{Answer, ApiError, text};
use crate::services::registry::kept;
use crate::tags::{TagMap, tag_list, tag_map};

/// Members of the request that Describe shows.
const STORED: &[&str] = &[
    "AlarmName",
    "AlarmDescription",
    "ActionsEnabled",
    "OKActions",
    "AlarmActions",
    "InsufficientDataActions",
    "MetricName",
    "Namespace",
    "Statistic",
    "ExtendedStatistic",
    "Dimensions",
    "Period",
    "Unit",
    "EvaluationPeriods",
    "DatapointsToAlarm",
    "Threshold",
    "ComparisonOperator",
    "TreatMissingData",
    "EvaluateLowSampleCountPercentile",
];
/// Members of kinds of alarms that are not emulated.
const NOT_EMULATED: [&str; 4] = ["Metrics", "ThresholdMetricId", "EvaluationCriteria", "EvaluationWindow"];
/// Entries of a page when the request does not say how many.
const PAGE: usize = 50;

pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new("ValidationError", message)
}

pub(super) fn key(request: &Value, caller: &Caller) -> AlarmKey {
    AlarmKey::new(&caller.account, &caller.region, text(request, "AlarmName").unwrap_or_default())
}

pub(super) fn put(cloudwatch: &Arc<CloudWatch>, request: &Value, caller: &Caller) -> Answer {
    if let Some(member) = NOT_EMULATED.into_iter().find(|name| !request[*name].is_null()) {
        return Err(invalid(format!(
            "Alarms with {member} are not emulated: give MetricName, Namespace and Statistic."
        )));
    }
    for required in ["MetricName", "Namespace"] {
        text(request, required)
            .ok_or_else(|| invalid(format!("The parameter {required} is required for a metric alarm.")))?;
    }
    cloudwatch.put_alarm(request, &caller.account, &caller.region)?;
    Ok(None)
}

impl CloudWatch {
    /// Makes or replaces an alarm. An existing one keeps its state and its tags.
    pub(crate) fn put_alarm(&self, request: &Value, account: &str, region: &str) -> Result<(), ApiError> {
        let rule = AlarmRule::parse(request).map_err(invalid)?;
        let metric = MetricKey::of(request, None, account, region);
        let key = AlarmKey::new(account, region, text(request, "AlarmName").unwrap_or_default());
        let now_ms = clock::now_ms();
        let mut definition = kept(request, STORED);
        definition.entry("Dimensions").or_insert_with(|| json!([]));
        let mut records = self.records.lock();
        self.evaluate(&mut records);
        if let Some(alarm) = records.alarms.get_mut(&key) {
            alarm.redefine(definition, rule, metric, now_ms);
            return Ok(());
        }
        self.shared.tags.create(&key.arn(), tag_map(request.get("Tags")));
        let alarm = Alarm::new(definition, rule, metric, now_ms);
        records.alarms.insert(key, alarm);
        Ok(())
    }

    /// Removes alarms that belong to a resource of another service.
    pub(crate) fn forget(&self, account: &str, region: &str, names: &[String]) {
        let mut records = self.records.lock();
        for name in names {
            self.remove(&mut records, &AlarmKey::new(account, region, name));
        }
    }

    fn remove(&self, records: &mut CloudWatchRecords, key: &AlarmKey) {
        records.alarms.remove(key);
        self.shared.tags.remove(&key.arn());
    }
}

pub(super) fn describe(cloudwatch: &Arc<CloudWatch>, request: &Value, caller: &Caller) -> Answer {
    let names = request["AlarmNames"].as_array();
    if names.is_some() && text(request, "AlarmNamePrefix").is_some() {
        return Err(invalid("AlarmNames and AlarmNamePrefix are mutually exclusive."));
    }
    let mut records = cloudwatch.records.lock();
    cloudwatch.evaluate(&mut records);
    // Without types, metric alarms alone.
    let types = request["AlarmTypes"].as_array().filter(|types| !types.is_empty());
    let is_wanted = types.is_none_or(|types| types.contains(&json!("MetricAlarm")));
    let related = ["ChildrenOfAlarmName", "ParentsOfAlarmName"].iter().any(|name| text(request, name).is_some());
    let is_in = |key: &AlarmKey, alarm: &Alarm| {
        let actions = ["OKActions", "AlarmActions", "InsufficientDataActions"].into_iter();
        let mut actions = actions.filter_map(|name| alarm.definition.get(name)?.as_array()).flatten();
        is_of(key, caller)
            && names.is_none_or(|names| names.is_empty() || names.iter().any(|name| *name == key.name.as_str()))
            && text(request, "AlarmNamePrefix").is_none_or(|prefix| key.name.starts_with(prefix))
            && text(request, "StateValue").is_none_or(|state| alarm.shown(key)["StateValue"] == state)
            && text(request, "ActionPrefix")
                .is_none_or(|prefix| actions.any(|action| action.as_str().is_some_and(|one| one.starts_with(prefix))))
    };
    let found = records.alarms.iter().filter(|(key, alarm)| is_wanted && !related && is_in(key, alarm));
    let found: Vec<Value> = found.map(|(key, alarm)| alarm.shown(key)).collect();
    let (shown, next) = page(request, "alarms", found)?;
    Ok(Some(json!({"MetricAlarms": shown, "CompositeAlarms": [], "NextToken": next})))
}

/// The entries of one page, and the token of the next.
pub(super) fn page(request: &Value, kind: &str, all: Vec<Value>) -> Result<(Vec<Value>, Option<String>), ApiError> {
    let limit = request["MaxRecords"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE);
    let bad_token = || ApiError::new("InvalidNextToken", "The next token specified is invalid.");
    cut(text(request, "NextToken"), limit, kind, all).ok_or_else(bad_token)
}

pub(super) fn is_of(key: &AlarmKey, caller: &Caller) -> bool {
    key.account == caller.account && key.region == caller.region
}

/// Deletes all alarms or, when one does not exist, none.
pub(super) fn delete(cloudwatch: &Arc<CloudWatch>, request: &Value, caller: &Caller) -> Answer {
    let mut records = cloudwatch.records.lock();
    let names = request["AlarmNames"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let keys: Vec<_> = names.map(|name| AlarmKey::new(&caller.account, &caller.region, name)).collect();
    let absent: Vec<&str> =
        keys.iter().filter(|key| !records.alarms.contains_key(key)).map(|key| key.name.as_str()).collect();
    if !absent.is_empty() {
        return Err(not_found(format!("Could not find the alarms: [{}]", absent.join(", "))));
    }
    for key in &keys {
        cloudwatch.remove(&mut records, key);
    }
    Ok(None)
}

fn not_found(message: String) -> ApiError {
    ApiError { status: 404, ..ApiError::new("ResourceNotFound", message) }
}

pub(super) fn set_state(cloudwatch: &Arc<CloudWatch>, request: &Value, caller: &Caller) -> Answer {
    let data = text(request, "StateReasonData");
    if data.is_some_and(|data| serde_json::from_str::<Value>(data).is_err()) {
        return Err(ApiError::new("InvalidFormat", "StateReasonData was not valid JSON."));
    }
    let key = key(request, caller);
    let mut records = cloudwatch.records.lock();
    cloudwatch.evaluate(&mut records);
    let absent = || not_found(format!("Could not find the alarm: {}", key.name));
    let alarm = records.alarms.get_mut(&key).ok_or_else(absent)?;
    let state =
        text(request, "StateValue").and_then(AlarmStateValue::parse).unwrap_or(AlarmStateValue::InsufficientData);
    let reason = text(request, "StateReason").unwrap_or_default().to_owned();
    alarm.set(state, reason, data.map(str::to_owned), clock::now_ms());
    Ok(None)
}

fn with_tags(cloudwatch: &CloudWatch, request: &Value, act: impl FnOnce(&mut TagMap) -> Answer) -> Answer {
    let arn = text(request, "ResourceARN").unwrap_or_default();
    let found = arn.contains(":cloudwatch:").then(|| cloudwatch.shared.tags.with(arn, |one| act(&mut one.tags)));
    let absent =
        ApiError { status: 404, ..ApiError::new("ResourceNotFoundException", format!("Unknown resource {arn}")) };
    found.flatten().unwrap_or(Err(absent))
}

pub(super) fn list_tags(cloudwatch: &Arc<CloudWatch>, request: &Value, _: &Caller) -> Answer {
    with_tags(cloudwatch, request, |tags| Ok(Some(json!({"Tags": tag_list(tags)}))))
}

pub(super) fn tag(cloudwatch: &Arc<CloudWatch>, request: &Value, _: &Caller) -> Answer {
    with_tags(cloudwatch, request, |tags| {
        tags.extend(tag_map(request.get("Tags")));
        Ok(Some(json!({})))
    })
}

pub(super) fn untag(cloudwatch: &Arc<CloudWatch>, request: &Value, _: &Caller) -> Answer {
    with_tags(cloudwatch, request, |tags| {
        for key in request["TagKeys"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            tags.remove(key);
        }
        Ok(Some(json!({})))
    })
}
