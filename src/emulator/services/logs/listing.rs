//! Lists streams and groups.

use std::sync::Arc;

use serde_json::{Value, json};

use super::groups::{Logs, invalid_token, limit, named_group_and_name};
use crate::caller::Caller;
use crate::partition::partition;
use crate::protocol::{Answer, ApiError, text};

pub(super) fn describe_streams(logs: &Arc<Logs>, request: &Value, caller: &Caller) -> Answer {
    let prefix = text(request, "logStreamNamePrefix");
    let by_time = text(request, "orderBy") == Some("LastEventTime");
    if prefix.is_some() && by_time {
        return Err(ApiError::new(
            "InvalidParameterException",
            "Cannot order by LastEventTime with a logStreamNamePrefix.",
        ));
    }
    let mut groups = logs.groups.lock();
    let (group_name, group) = named_group_and_name(&mut groups, request)?;
    let mut streams: Vec<_> =
        group.streams.iter().filter(|(name, _)| prefix.is_none_or(|prefix| name.starts_with(prefix))).collect();
    if by_time {
        streams.sort_by_key(|(_, stream)| stream.events().last().map(|event| event.place));
    }
    if request.get("descending").and_then(Value::as_bool).unwrap_or(false) {
        streams.reverse();
    }
    let offset = offset(request)?;
    let limit = limit(request, 50);
    let page: Vec<Value> = streams
        .iter()
        .skip(offset)
        .take(limit)
        .map(|(name, stream)| {
            let mut entry = json!({
                "logStreamName": name,
                "creationTime": stream.created,
                "arn": format!("{}:log-stream:{name}", group_arn(caller, group_name)),
                "storedBytes": 0,
            });
            if let (Some(first), Some(last)) = (stream.events().first(), stream.events().last()) {
                entry["firstEventTimestamp"] = first.place.timestamp.into();
                entry["lastEventTimestamp"] = last.place.timestamp.into();
                entry["lastIngestionTime"] = last.place.ingested.into();
            }
            entry
        })
        .collect();
    let mut answer = json!({"logStreams": page});
    if offset + limit < streams.len() {
        answer["nextToken"] = format!("o/{}", offset + limit).into();
    }
    Ok(Some(answer))
}

pub(super) fn describe_groups(logs: &Arc<Logs>, request: &Value, caller: &Caller) -> Answer {
    let prefix = text(request, "logGroupNamePrefix").unwrap_or_default();
    let part = text(request, "logGroupNamePattern").unwrap_or_default();
    let groups = logs.groups.lock();
    let chosen: Vec<_> = groups.iter().filter(|(name, _)| name.starts_with(prefix) && name.contains(part)).collect();
    let offset = offset(request)?;
    let limit = limit(request, 50);
    let page: Vec<Value> = chosen
        .iter()
        .skip(offset)
        .take(limit)
        .map(|(name, group)| {
            let arn = group_arn(caller, name);
            json!({
                "logGroupName": name,
                "creationTime": group.created,
                "metricFilterCount": 0,
                "arn": format!("{arn}:*"),
                "logGroupArn": arn,
                "storedBytes": 0,
                "logGroupClass": "STANDARD",
            })
        })
        .collect();
    let mut answer = json!({"logGroups": page});
    if offset + limit < chosen.len() {
        answer["nextToken"] = format!("o/{}", offset + limit).into();
    }
    Ok(Some(answer))
}

pub(super) fn group_arn(Caller { account, region, .. }: &Caller, group: &str) -> String {
    format!("arn:{}:logs:{region}:{account}:log-group:{group}", partition(region))
}

fn offset(request: &Value) -> Result<usize, ApiError> {
    let Some(token) = text(request, "nextToken") else { return Ok(0) };
    token.strip_prefix("o/").and_then(|offset| offset.parse().ok()).ok_or_else(invalid_token)
}
