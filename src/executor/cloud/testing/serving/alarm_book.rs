//! Alarms of a fake, and their states by time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::cloud::{AlarmSight, AlarmState, EndpointAlarm};

/// Time until a new alarm has its first state.
const FIRST_EVALUATION: Duration = Duration::from_mins(1);

/// Alarms by name.
#[derive(Debug, Default)]
pub(super) struct AlarmBook {
    alarms: BTreeMap<String, BookedAlarm>,
}

#[derive(Debug, Default)]
struct BookedAlarm {
    definition: Option<EndpointAlarm>,
    changed: Option<Instant>,
    /// States from a time on, in the order of time.
    states: Vec<(Instant, AlarmState)>,
}

impl BookedAlarm {
    fn state(&self, at: Instant) -> AlarmState {
        let last = self.states.iter().rev().find(|(from, _)| *from <= at);
        last.map_or(AlarmState::InsufficientData, |(_, state)| *state)
    }
}

impl AlarmBook {
    /// Makes or replaces an alarm of this program: its state stays.
    pub(super) fn put(&mut self, alarm: &EndpointAlarm, now: Instant) {
        let booked = self.alarms.entry(alarm.name.clone()).or_insert_with(|| BookedAlarm {
            states: vec![(now, AlarmState::InsufficientData), (now + FIRST_EVALUATION, AlarmState::Ok)],
            ..BookedAlarm::default()
        });
        booked.definition = Some(alarm.clone());
        booked.changed = Some(now);
    }

    /// Sets the state from a time on; an alarm that is not known becomes one of another form.
    pub(super) fn set(&mut self, name: &str, from: Instant, state: AlarmState) {
        let states = &mut self.alarms.entry(name.to_owned()).or_default().states;
        states.push((from, state));
        states.sort_by_key(|(from, _)| *from);
    }

    pub(super) fn remove(&mut self, names: &[String]) {
        self.alarms.retain(|name, _| !names.contains(name));
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.alarms.keys().cloned().collect()
    }

    /// When one of these alarms is on for the first time between the two.
    pub(super) fn first_on(&self, names: &[String], from: Instant, to: Instant) -> Option<(Instant, String)> {
        let of = |name: &String| {
            let alarm = self.alarms.get(name)?;
            let turns =
                alarm.states.iter().filter(|(at, state)| *state == AlarmState::Alarm && *at > from && *at <= to);
            let is_on = alarm.state(from) == AlarmState::Alarm;
            let first = is_on.then_some(from).or_else(|| turns.map(|(at, _)| *at).min())?;
            Some((first, name.clone()))
        };
        names.iter().filter_map(of).min()
    }

    pub(super) fn sight(&self, name: &str, arn: String, now: Instant) -> Option<AlarmSight> {
        let alarm = self.alarms.get(name)?;
        let state = alarm.state(now);
        let definition = alarm.definition.clone().map(|alarm| EndpointAlarm { tags: BTreeMap::new(), ..alarm });
        let reason = format!("The state is {}.", state.name());
        Some(AlarmSight { name: name.to_owned(), arn, state, reason, definition, changed: None })
    }

    /// When the alarm was made or replaced.
    pub(super) fn changed(&self, name: &str) -> Option<Instant> {
        self.alarms.get(name)?.changed
    }

    pub(super) fn tags(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let alarm = self.alarms.get(name)?;
        Some(alarm.definition.as_ref().map(|alarm| alarm.tags.clone()).unwrap_or_default())
    }
}
