//! The states of CloudWatch alarms, as a deployment asks for them.

/// Whether alarms are on.
pub(super) trait AlarmStates: Send + Sync {
    /// The first of these alarms that is in the state `ALARM`.
    fn firing(&self, alarms: &[String]) -> Option<String>;
}

/// There are no alarms: `PutMetricAlarm` is not emulated.
#[derive(Debug)]
pub(super) struct NoAlarms;

impl AlarmStates for NoAlarms {
    fn firing(&self, _: &[String]) -> Option<String> {
        None
    }
}
