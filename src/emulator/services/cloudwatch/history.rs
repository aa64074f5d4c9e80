//! The history of alarms.

use std::sync::Arc;

use serde_json::{Value, json};

use super::alarms::{is_of, page};
use super::records::CloudWatch;
use crate::caller::Caller;
use crate::protocol::{Answer, epoch_seconds, milliseconds, text};

/// The changes of one alarm or of all, the newest first unless the request says otherwise.
pub(super) fn describe(cloudwatch: &Arc<CloudWatch>, request: &Value, caller: &Caller) -> Answer {
    let mut records = cloudwatch.records.lock();
    cloudwatch.evaluate(&mut records);
    let named = text(request, "AlarmName");
    let own = records.alarms.iter().filter(|(key, _)| is_of(key, caller) && named.is_none_or(|name| name == key.name));
    let all = own.flat_map(|(key, alarm)| alarm.changes.iter().map(move |change| (key, change)));
    let wanted = all.filter(|(_, change)| {
        text(request, "HistoryItemType").is_none_or(|kind| kind == change.kind)
            && milliseconds(request, "StartDate").is_none_or(|start| change.at_ms >= start)
            && milliseconds(request, "EndDate").is_none_or(|end| change.at_ms <= end)
    });
    let mut found: Vec<_> = wanted.collect();
    found.sort_by_key(|(_, change)| change.at_ms);
    if text(request, "ScanBy") != Some("TimestampAscending") {
        found.reverse();
    }
    let shown = found.into_iter().map(|(key, change)| {
        json!({
            "AlarmName": key.name,
            "AlarmType": "MetricAlarm",
            "Timestamp": epoch_seconds(change.at_ms),
            "HistoryItemType": change.kind,
            "HistorySummary": change.summary,
            "HistoryData": change.data,
        })
    });
    let (shown, next) = page(request, "history", shown.collect())?;
    Ok(Some(json!({"AlarmHistoryItems": shown, "NextToken": next})))
}
