//! The operations on metrics and their data.

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
/// Data points of one answer of `GetMetricStatistics`.
const MOST_POINTS: u64 = 1440;

fn bad_value(message: impl Into<String>) -> ApiError {
    ApiError::new("InvalidParameterValue", message)
}

pub(super) fn put(cloudwatch: &Arc<CloudWatch>, request: &Value, caller: &Caller) -> Answer {
    let namespace = text(request, "Namespace").unwrap_or_default();
    if namespace.starts_with("AWS/") {
        return Err(bad_value("The value AWS/ for parameter Namespace is invalid: it is reserved for AWS."));
    }
    let mut all = Vec::new();
    for datum in request["MetricData"].as_array().into_iter().flatten() {
        let at_ms = milliseconds(datum, "Timestamp").unwrap_or_else(clock::now_ms);
        let key = MetricKey::of(datum, Some(namespace), &caller.account, &caller.region);
        let unit = text(datum, "Unit").unwrap_or("None").to_owned();
        all.extend(samples(datum, at_ms)?.into_iter().map(|sample| (key.clone(), unit.clone(), sample)));
    }
    let mut records = cloudwatch.records.lock();
    for (key, unit, sample) in all {
        records.metrics.entry(key).or_default().add(&unit, sample);
    }
    Ok(None)
}

/// The samples of a `MetricDatum`: of `Value`, of `Values` and `Counts`, or of `StatisticValues`.
fn samples(datum: &Value, at_ms: u64) -> Result<Vec<MetricSample>, ApiError> {
    let numbers =
        |name: &str| datum[name].as_array().map(|all| all.iter().filter_map(Value::as_f64).collect::<Vec<_>>());
    if let Some(value) = datum["Value"].as_f64() {
        return Ok(vec![MetricSample::of(at_ms, value, 1.0)]);
    }
    if let Some(values) = numbers("Values") {
        let counts = numbers("Counts").unwrap_or_else(|| vec![1.0; values.len()]);
        if counts.len() != values.len() {
            return Err(bad_value("The parameters Values and Counts must have the same number of entries."));
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
        (Some(count), Some(sum), Some(least), Some(most)) => Ok(vec![MetricSample { at_ms, count, sum, least, most }]),
        _ => Err(ApiError::new(
            "MissingParameter",
            "At least one of the parameters Value, Values and StatisticValues must be specified.",
        )),
    }
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

pub(super) fn get(cloudwatch: &Arc<CloudWatch>, request: &Value, caller: &Caller) -> Answer {
    let records = cloudwatch.records.lock();
    let mut results = Vec::new();
    for query in request["MetricDataQueries"].as_array().into_iter().flatten() {
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
