//! The operations on metrics and their data.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::alarms::invalid;
use super::metrics::{MetricKey, MetricSample, MetricSeries, Statistic};
use super::records::CloudWatch;
use crate::caller::Caller;
use crate::clock;
use crate::paging::cut;
use crate::protocol::{Answer, ApiError, epoch_seconds, milliseconds, text};

/// Metrics of a page of `ListMetrics`.
const PAGE: usize = 500;
/// Entries of `MetricData`, and of the `Values` of one of them.
const MOST_DATA: usize = 1000;
const MOST_VALUES: usize = 150;
/// Age of data in milliseconds that is taken, and how far it may be ahead.
const OLDEST_MS: u64 = 14 * 86_400_000;
const NEWEST_MS: u64 = 2 * 3_600_000;
/// Queries of `GetMetricData`.
const MOST_QUERIES: usize = 500;
/// Data points of one answer of `GetMetricStatistics`.
const MOST_POINTS: u64 = 1440;

fn bad_value(message: impl Into<String>) -> ApiError {
    ApiError::new("InvalidParameterValue", message)
}

pub(super) fn put(cloudwatch: &Arc<CloudWatch>, request: &Value, caller: &Caller) -> Answer {
    let all = read_data(request, (&caller.account, &caller.region), clock::now_ms())?;
    let mut records = cloudwatch.records.lock();
    for (key, unit, sample) in all {
        records.metrics.entry(key).or_default().add(&unit, sample);
    }
    Ok(None)
}

/// The samples of `PutMetricData`, each with its metric and unit.
fn read_data(
    request: &Value,
    (account, region): (&str, &str),
    now_ms: u64,
) -> Result<Vec<(MetricKey, String, MetricSample)>, ApiError> {
    let namespace = text(request, "Namespace").unwrap_or_default();
    if namespace.starts_with("AWS/") {
        return Err(bad_value("The value AWS/ for parameter Namespace is invalid: it is reserved for AWS."));
    }
    let data = request["MetricData"].as_array().map(Vec::as_slice).unwrap_or_default();
    within("MetricData", data.len(), MOST_DATA)?;
    let mut all = Vec::new();
    for (number, datum) in (1..).zip(data) {
        let path = format!("MetricData.member.{number}");
        let at_ms = milliseconds(datum, "Timestamp").unwrap_or(now_ms);
        let limits = [
            (at_ms < now_ms.saturating_sub(OLDEST_MS), "within the past two weeks"),
            (at_ms > now_ms + NEWEST_MS, "no more than two hours in the future"),
        ];
        if let Some((_, words)) = limits.into_iter().find(|(is_broken, _)| *is_broken) {
            return Err(bad_value(format!("The parameter {path}.Timestamp must specify a time {words}.")));
        }
        let key = MetricKey::of(datum, Some(namespace), account, region);
        let unit = text(datum, "Unit").unwrap_or("None").to_owned();
        all.extend(samples(datum, &path, at_ms)?.into_iter().map(|sample| (key.clone(), unit.clone(), sample)));
    }
    Ok(all)
}

fn within(collection: &str, size: usize, most: usize) -> Result<(), ApiError> {
    if size <= most {
        return Ok(());
    }
    Err(bad_value(format!("The collection {collection} must not have a size greater than {most}.")))
}

/// The samples of a `MetricDatum`: of `Value`, of `Values` and `Counts`, or of `StatisticValues`.
fn samples(datum: &Value, path: &str, at_ms: u64) -> Result<Vec<MetricSample>, ApiError> {
    let kinds = ["Value", "Values", "StatisticValues"];
    let mut given = kinds.into_iter().filter(|name| !datum[*name].is_null());
    if let (Some(one), Some(other)) = (given.next(), given.next()) {
        return Err(ApiError::new(
            "InvalidParameterCombination",
            format!(
                "The parameters {path}.{one} and {path}.{other} are mutually exclusive and you have specified both."
            ),
        ));
    }
    let numbers = |name: &str, is_count: bool| {
        let all = datum[name].as_array()?.iter().filter_map(Value::as_f64);
        let checked = (1..).zip(all).map(|(number, value)| {
            let part = format!("{path}.{name}.member.{number}");
            if is_count { checked_count(value, &part) } else { checked_value(value, &part) }
        });
        Some(checked.collect::<Result<Vec<_>, _>>())
    };
    if let Some(value) = datum["Value"].as_f64() {
        return Ok(vec![MetricSample::of(at_ms, checked_value(value, &format!("{path}.Value"))?, 1.0)]);
    }
    if let Some(values) = numbers("Values", false).transpose()? {
        within(&format!("{path}.Values"), values.len(), MOST_VALUES)?;
        let counts = numbers("Counts", true).transpose()?.unwrap_or_else(|| vec![1.0; values.len()]);
        if counts.len() != values.len() {
            return Err(bad_value(format!(
                "The parameters {path}.Values and {path}.Counts must have the same number of entries."
            )));
        }
        return Ok(values
            .into_iter()
            .zip(counts)
            .map(|(value, count)| MetricSample::of(at_ms, value, count))
            .collect());
    }
    let set = &datum["StatisticValues"];
    let part = |name: &str| set[name].as_f64();
    match (part("SampleCount"), part("Sum"), part("Minimum"), part("Maximum")) {
        (Some(count), Some(sum), Some(least), Some(most)) => {
            checked_count(count, &format!("{path}.StatisticValues.SampleCount"))?;
            Ok(vec![MetricSample { at_ms, count, sum, least, most }])
        }
        _ => Err(ApiError::new(
            "MissingParameter",
            "At least one of the parameters Value, Values and StatisticValues must be specified.",
        )),
    }
}

fn checked_value(value: f64, path: &str) -> Result<f64, ApiError> {
    let is_valid = value.abs() <= 2_f64.powi(360);
    is_valid.then_some(value).ok_or_else(|| bad_value(format!("The value {value:?} for parameter {path} is invalid.")))
}

fn checked_count(count: f64, path: &str) -> Result<f64, ApiError> {
    let is_valid = count >= 0.0;
    is_valid.then_some(count).ok_or_else(|| bad_value(format!("The value {count:?} for parameter {path} is invalid.")))
}

/// A stretch of time that a request asks for, cut into periods.
struct Stretch {
    /// In milliseconds, like the others.
    start: u64,
    end: u64,
    period: u64,
}

impl Stretch {
    fn of(request: &Value, period: u64) -> Result<Self, ApiError> {
        if !matches!(period, 1 | 5 | 10 | 20 | 30) && !period.is_multiple_of(60) {
            return Err(bad_value("The parameter Period must be 1, 5, 10, 20, 30, or a multiple of 60."));
        }
        let time = |name: &str| milliseconds(request, name).unwrap_or_default();
        let (start_ms, end_ms, period_ms) = (time("StartTime"), time("EndTime"), period * 1000);
        if start_ms >= end_ms {
            return Err(invalid("The parameter StartTime must be less than the parameter EndTime."));
        }
        Ok(Self { start: start_ms - start_ms % period_ms, end: end_ms, period: period_ms })
    }

    /// The periods that have samples, with their starts.
    fn periods(&self, series: Option<&MetricSeries>, unit: Option<&str>) -> Vec<(u64, Vec<MetricSample>)> {
        let mut periods: Vec<(u64, Vec<MetricSample>)> = Vec::new();
        let mut samples = series.map(|series| series.between(unit, self.start, self.end)).unwrap_or_default();
        samples.sort_by_key(|sample| sample.at_ms);
        for sample in samples {
            let start_ms = sample.at_ms - sample.at_ms % self.period;
            match periods.last_mut() {
                Some((same, all)) if *same == start_ms => all.push(sample),
                _ => periods.push((start_ms, vec![sample])),
            }
        }
        periods
    }
}

pub(super) fn statistics(cloudwatch: &Arc<CloudWatch>, request: &Value, caller: &Caller) -> Answer {
    let words = ["Statistics", "ExtendedStatistics"].map(|name| request[name].as_array().cloned().unwrap_or_default());
    if words.iter().all(Vec::is_empty) {
        return Err(ApiError::new(
            "MissingParameter",
            "The parameter Statistics or ExtendedStatistics must be specified.",
        ));
    }
    let stretch = Stretch::of(request, request["Period"].as_u64().unwrap_or(60))?;
    if (stretch.end - stretch.start) / stretch.period > MOST_POINTS {
        let message = format!(
            "You have requested more than {MOST_POINTS} datapoints, which exceeds the limit: use a longer Period or a shorter time."
        );
        return Err(ApiError::new("InvalidParameterCombination", message));
    }
    let key = MetricKey::of(request, None, &caller.account, &caller.region);
    let records = cloudwatch.records.lock();
    let series = records.metrics.get(&key);
    let unit = text(request, "Unit").or(series.map(MetricSeries::unit));
    let mut points = Vec::new();
    for (start_ms, samples) in stretch.periods(series, text(request, "Unit")) {
        let mut point = json!({"Timestamp": epoch_seconds(start_ms), "Unit": unit});
        let mut extended = Map::new();
        for (words, is_extended) in words.iter().zip([false, true]) {
            for word in words.iter().filter_map(Value::as_str) {
                let number = statistic(word)?.of(&samples);
                if is_extended {
                    extended.insert(word.to_owned(), json!(number))
                } else {
                    point[word] = json!(number);
                    None
                };
            }
        }
        if !extended.is_empty() {
            point["ExtendedStatistics"] = Value::Object(extended);
        }
        points.push(point);
    }
    Ok(Some(json!({"Label": key.name, "Datapoints": points})))
}

fn statistic(word: &str) -> Result<Statistic, ApiError> {
    Statistic::parse(word).ok_or_else(|| invalid(format!("The statistic {word} is not valid, or not emulated.")))
}

fn check_queries(queries: &[Value]) -> Result<(), ApiError> {
    within("MetricDataQueries", queries.len(), MOST_QUERIES)?;
    let mut names = BTreeSet::new();
    if queries.iter().all(|query| names.insert(text(query, "Id"))) {
        return Ok(());
    }
    Err(invalid("The values for parameter id in MetricDataQueries are not unique."))
}

pub(super) fn get(cloudwatch: &Arc<CloudWatch>, request: &Value, caller: &Caller) -> Answer {
    let queries = request["MetricDataQueries"].as_array().map(Vec::as_slice).unwrap_or_default();
    check_queries(queries)?;
    let records = cloudwatch.records.lock();
    let mut results = Vec::new();
    for query in queries {
        let stat = &query["MetricStat"];
        if !stat.is_object() {
            return Err(invalid("Expressions in MetricDataQueries are not emulated: give a MetricStat."));
        }
        if query["ReturnData"] == false {
            continue;
        }
        let stretch = Stretch::of(request, stat["Period"].as_u64().unwrap_or(60))?;
        let statistic = statistic(text(stat, "Stat").unwrap_or_default())?;
        let key = MetricKey::of(&stat["Metric"], None, &caller.account, &caller.region);
        let periods = stretch.periods(records.metrics.get(&key), text(stat, "Unit"));
        let mut points: Vec<(u64, f64)> =
            periods.into_iter().filter_map(|(start_ms, samples)| Some((start_ms, statistic.of(&samples)?))).collect();
        if text(request, "ScanBy") != Some("TimestampAscending") {
            points.reverse();
        }
        let most = request["MaxDatapoints"].as_u64().and_then(|most| usize::try_from(most).ok());
        points.truncate(most.unwrap_or(usize::MAX));
        results.push(json!({
            "Id": query["Id"],
            "Label": text(query, "Label").unwrap_or(&key.name),
            "Timestamps": points.iter().map(|(start_ms, _)| epoch_seconds(*start_ms)).collect::<Vec<_>>(),
            "Values": points.iter().map(|(_, value)| value).collect::<Vec<_>>(),
            "StatusCode": "Complete",
        }));
    }
    Ok(Some(json!({"MetricDataResults": results, "Messages": []})))
}

pub(super) fn list(cloudwatch: &Arc<CloudWatch>, request: &Value, caller: &Caller) -> Answer {
    let records = cloudwatch.records.lock();
    let is_wanted = |key: &MetricKey| {
        let mut filters = request["Dimensions"].as_array().into_iter().flatten();
        key.account == caller.account
            && key.region == caller.region
            && text(request, "Namespace").is_none_or(|namespace| key.namespace == namespace)
            && text(request, "MetricName").is_none_or(|name| key.name == name)
            && filters.all(|filter| {
                let found = key.dimensions.get(text(filter, "Name").unwrap_or_default());
                found.is_some_and(|found| text(filter, "Value").is_none_or(|value| found == value))
            })
    };
    let found = records.metrics.keys().filter(|key| is_wanted(key)).map(MetricKey::shown).collect();
    let bad_token = || bad_value("The parameter NextToken is invalid.");
    let (shown, next) = cut(text(request, "NextToken"), PAGE, "metrics", found).ok_or_else(bad_token)?;
    Ok(Some(json!({"Metrics": shown, "NextToken": next})))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn refusal(data: &[Value]) -> String {
        match read_data(&json!({"Namespace": "N", "MetricData": data}), ("1", "r"), NOW_MS) {
            Err(error) => format!("{}: {}", error.code, error.message),
            Ok(all) => all.len().to_string(),
        }
    }

    fn at(seconds: f64) -> Value {
        json!({"MetricName": "M", "Value": 1, "Timestamp": 1_700_000_000.0 + seconds})
    }

    #[test_case(json!({"Value": 1}) => "1"; "a value")]
    #[test_case(json!({"Values": [1, 2], "Counts": [3, 0.5]}) => "2"; "values")]
    #[test_case(json!({"Value": 1, "Values": [1]}) => "InvalidParameterCombination: The parameters MetricData.member.1.Value and MetricData.member.1.Values are mutually exclusive and you have specified both."; "two kinds")]
    #[test_case(json!({"Values": vec![1; 151]}) => "InvalidParameterValue: The collection MetricData.member.1.Values must not have a size greater than 150."; "too many values")]
    #[test_case(json!({"Values": [1], "Counts": [-1]}) => "InvalidParameterValue: The value -1.0 for parameter MetricData.member.1.Counts.member.1 is invalid."; "a negative count")]
    #[test_case(json!({"Values": [1], "Counts": [1, 2]}) => "InvalidParameterValue: The parameters MetricData.member.1.Values and MetricData.member.1.Counts must have the same number of entries."; "another number of counts")]
    #[test_case(json!({"Value": 1e110}) => "InvalidParameterValue: The value 1e110 for parameter MetricData.member.1.Value is invalid."; "a huge value")]
    #[test_case(json!({"Values": [-1e110]}) => "InvalidParameterValue: The value -1e110 for parameter MetricData.member.1.Values.member.1 is invalid."; "a huge negative value")]
    #[test_case(json!({"StatisticValues": {"SampleCount": -1, "Sum": 1, "Minimum": 1, "Maximum": 1}}) => "InvalidParameterValue: The value -1.0 for parameter MetricData.member.1.StatisticValues.SampleCount is invalid."; "a negative number of samples")]
    #[test_case(json!({}) => "MissingParameter: At least one of the parameters Value, Values and StatisticValues must be specified."; "none")]
    fn a_datum_has_one_kind_of_values_within_their_limits(datum: Value) -> String {
        refusal(&[datum])
    }

    #[test_case(1000 => "1000")]
    #[test_case(1001 => "InvalidParameterValue: The collection MetricData must not have a size greater than 1000.")]
    fn a_request_has_a_limit(number: usize) -> String {
        refusal(&vec![json!({"Value": 1}); number])
    }

    #[test_case(-1_209_600.0 => "1")]
    #[test_case(-1_209_601.0 => "InvalidParameterValue: The parameter MetricData.member.1.Timestamp must specify a time within the past two weeks.")]
    #[test_case(7200.0 => "1")]
    #[test_case(7201.0 => "InvalidParameterValue: The parameter MetricData.member.1.Timestamp must specify a time no more than two hours in the future.")]
    fn a_datum_is_of_this_time(seconds: f64) -> String {
        refusal(&[at(seconds)])
    }

    #[test]
    fn queries_have_their_own_names_and_a_limit() {
        let queries = |names: &[&str]| names.iter().map(|name| json!({"Id": name})).collect::<Vec<_>>();
        assert!(check_queries(&queries(&["a", "b"])).is_ok());
        let error = check_queries(&queries(&["a", "b", "a"])).unwrap_err();
        assert_eq!(error.message, "The values for parameter id in MetricDataQueries are not unique.");
        let error = check_queries(&vec![json!({}); 501]).unwrap_err();
        assert_eq!(error.message, "The collection MetricDataQueries must not have a size greater than 500.");
    }
}
