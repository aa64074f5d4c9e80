//! Course of an update of an endpoint without faults.

use std::time::Duration;

use crate::cloud::{RolloutSpec, TrafficShift};

/// Times since the begin of an update.
#[derive(Debug)]
pub(super) struct Timeline {
    phases: Vec<TimelineStep>,
    /// End of the last phase in which alarms roll back.
    pub(super) watched: Duration,
    /// End of the update.
    pub(super) end: Duration,
}

/// The new variant from one time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimelineStep {
    pub(super) begin: Duration,
    /// Share of the traffic.
    pub(super) percent: u32,
    /// Status of the variant.
    pub(super) status: &'static str,
}

impl Timeline {
    /// Instances take `provisioning` to come into service. Without a rollout they get all traffic then, and the update ends.
    pub(super) fn new(rollout: Option<&RolloutSpec>, provisioning: Duration) -> Self {
        let mut line = Self { phases: Vec::new(), watched: Duration::ZERO, end: Duration::ZERO };
        line.add(0, "Creating", provisioning);
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let termination = match rollout.map(|rollout| rollout.traffic) {
            None => 0,
            Some(TrafficShift::AllAtOnce { wait, termination_wait }) => {
                line.add(100, "Baking", seconds(wait));
                termination_wait
            }
            Some(TrafficShift::Canary { percent, wait, termination_wait }) => {
                line.add(percent, "Baking", seconds(wait));
                line.add(100, "Baking", seconds(wait));
                termination_wait
            }
            Some(TrafficShift::Linear { percent, wait, termination_wait }) => {
                for share in steps(percent) {
                    line.add(share, "Baking", seconds(wait));
                }
                termination_wait
            }
            Some(TrafficShift::Rolling { percent, wait }) => {
                let mut before = 0;
                for share in steps(percent) {
                    if before > 0 {
                        line.add(before, "Creating", provisioning);
                    }
                    line.add(share, "Baking", seconds(wait));
                    before = share;
                }
                0
            }
        };
        line.watched = line.end;
        if termination > 0 {
            line.add(100, "Deleting", seconds(termination));
        }
        line
    }

    fn add(&mut self, percent: u32, status: &'static str, takes: Duration) {
        self.phases.push(TimelineStep { begin: self.end, percent, status });
        self.end += takes;
    }

    /// The phase at a time.
    pub(super) fn phase(&self, at: Duration) -> TimelineStep {
        let begun = self.phases.iter().rev().find(|phase| phase.begin <= at);
        begun.copied().unwrap_or(TimelineStep { begin: Duration::ZERO, percent: 0, status: "Creating" })
    }

    /// Begin of the traffic.
    pub(super) fn traffic(&self) -> Duration {
        self.phases.iter().find(|phase| phase.percent > 0).map_or(self.end, |phase| phase.begin)
    }
}

/// Shares of the traffic after each step of this size.
fn steps(percent: u32) -> impl Iterator<Item = u32> {
    let percent = percent.clamp(1, 100);
    (1..=100_u32.div_ceil(percent)).map(move |step| (step * percent).min(100))
}

/// Waits of a rollout that its limit must exceed, in seconds.
pub(super) fn waits(traffic: TrafficShift) -> u32 {
    let count = |percent| u32::try_from(steps(percent).count()).unwrap_or(u32::MAX);
    match traffic {
        TrafficShift::AllAtOnce { wait, termination_wait } => wait + termination_wait,
        TrafficShift::Canary { wait, termination_wait, .. } => 2 * wait + termination_wait,
        TrafficShift::Linear { percent, wait, termination_wait } => count(percent) * wait + termination_wait,
        TrafficShift::Rolling { percent, wait } => count(percent) * wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(traffic: TrafficShift) -> (Vec<(u64, u32)>, u64, u64) {
        let rollout = RolloutSpec { traffic, limit_seconds: 3600, alarms: Vec::new() };
        let line = Timeline::new(Some(&rollout), Duration::from_mins(1));
        let shares = line.phases.iter().map(|phase| (phase.begin.as_secs(), phase.percent)).collect();
        (shares, line.watched.as_secs(), line.end.as_secs())
    }

    #[test]
    fn each_way_of_moving_traffic_has_its_steps() {
        let all = shares(TrafficShift::AllAtOnce { wait: 10, termination_wait: 5 });
        assert_eq!(all, (vec![(0, 0), (60, 100), (70, 100)], 70, 75));
        let canary = shares(TrafficShift::Canary { percent: 20, wait: 10, termination_wait: 0 });
        assert_eq!(canary, (vec![(0, 0), (60, 20), (70, 100)], 80, 80));
        let linear = shares(TrafficShift::Linear { percent: 40, wait: 10, termination_wait: 0 });
        assert_eq!(linear, (vec![(0, 0), (60, 40), (70, 80), (80, 100)], 90, 90));
        let rolling = shares(TrafficShift::Rolling { percent: 50, wait: 10 });
        assert_eq!(rolling, (vec![(0, 0), (60, 50), (70, 50), (130, 100)], 140, 140));
        assert_eq!(waits(TrafficShift::Rolling { percent: 50, wait: 10 }), 20);
    }
}
