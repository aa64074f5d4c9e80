//! Port of CloudWatch's alarms. `aws` and `testing` implement it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;

use super::error::CloudError;

/// The alarms of one account and region.
#[async_trait]
pub trait MetricAlarms: Send + Sync {
    /// The alarms with these names, of metrics and composite ones; those that do not exist are missing.
    async fn alarms(&self, names: &[String]) -> Result<Vec<AlarmSight>, CloudError>;
    /// All metric alarms of the account and region: all pages.
    async fn all_alarms(&self) -> Result<Vec<AlarmSight>, CloudError>;
    /// Makes or replaces an alarm.
    async fn put_alarm(&self, alarm: &EndpointAlarm) -> Result<(), CloudError>;
    /// Names that do not exist are no error.
    async fn delete_alarms(&self, names: &[String]) -> Result<(), CloudError>;
    /// Tags of an alarm, by ARN.
    async fn alarm_tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError>;
}

/// An alarm as `DescribeAlarms` says.
#[derive(Debug, Clone, PartialEq)]
pub struct AlarmSight {
    pub name: String,
    pub arn: String,
    pub state: AlarmState,
    /// AWS's words about the state.
    pub reason: String,
    /// The alarm in the form that this program makes; `None` when it has another one.
    pub definition: Option<EndpointAlarm>,
    /// Last change of what it is; its state does not count.
    pub changed: Option<SystemTime>,
}

/// The value of `StateValue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmState {
    Ok,
    Alarm,
    InsufficientData,
}

impl AlarmState {
    /// The word of AWS.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Alarm => "ALARM",
            Self::InsufficientData => "INSUFFICIENT_DATA",
        }
    }
}

/// An alarm about a variant of an endpoint, on above its threshold. Without data it is off.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointAlarm {
    pub name: String,
    pub description: String,
    pub endpoint: String,
    pub variant: String,
    pub metric: AlarmMetric,
    /// In the metric's unit.
    pub threshold: f64,
    /// Seconds of one period, a multiple of 60.
    pub period_seconds: u32,
    /// Periods that are looked at, all of which must be above the threshold.
    pub periods: u32,
    /// Not in what `DescribeAlarms` says.
    pub tags: BTreeMap<String, String>,
}

/// Metric and statistic of the namespace `AWS/SageMaker`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmMetric {
    /// Sum of `Invocation5XXErrors`.
    Errors5xx,
    /// p95 of `ModelLatency`, in microseconds.
    LatencyP95,
}
