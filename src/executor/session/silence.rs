//! Tells in the job's log, while a script writes nothing, that it is followed still.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::human::human_duration;
use crate::base::node::Nodes;
use crate::session::Session;
use crate::session::output::NodeOutput;

/// Time without a line of any kind before one is printed.
const INTERVAL: Duration = Duration::from_mins(10);

/// Time since the last output, and since the last line about it.
#[derive(Debug)]
pub(super) struct Silence {
    heard: Instant,
    told: Instant,
}

impl Silence {
    pub(super) fn new(now: Instant) -> Self {
        Self { heard: now, told: now }
    }

    /// Some output of the script has arrived.
    pub(super) fn heard(&mut self, now: Instant) {
        (self.heard, self.told) = (now, now);
    }

    /// Prints a line when one is due.
    pub(super) fn tell(&mut self, session: &Session<'_>, nodes: &Nodes<NodeOutput>) {
        let Some(silent) = self.due(Instant::now()) else { return };
        let began = nodes.rows().filter_map(|node| node.started).min();
        let ran = began.and_then(|began| session.clock.now().duration_since(began).ok());
        session.printer.line(line(ran, silent, session.lease_renewed.age(), session.settings.lease()));
    }

    /// The time since the last output, when a line about it is due.
    fn due(&mut self, now: Instant) -> Option<Duration> {
        let is_due = now.duration_since(self.told) >= INTERVAL;
        is_due.then(|| {
            self.told = now;
            now.duration_since(self.heard)
        })
    }
}

/// `ran`: since the script began. `renewed`: since the last renewal of the lease, which lasts for `lease`.
fn line(ran: Option<Duration>, silent: Duration, renewed: Option<Duration>, lease: Duration) -> String {
    let ran = ran.map_or_else(|| "running".to_owned(), |ran| format!("running for {}", human_duration(ran)));
    let lease = match renewed {
        Some(age) if age > lease * 2 / 3 => {
            format!(", lease not renewed for {} of {}", human_duration(age), human_duration(lease))
        }
        Some(_) => ", lease fine".to_owned(),
        None => String::new(),
    };
    format!("[sagemaker] {ran}, last output {} ago{lease}", human_duration(silent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_silent_minutes_have_a_line_each() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        let mut due = |minutes: u64| silence.due(start + Duration::from_mins(minutes)).map(|age| age.as_secs() / 60);
        assert_eq!([9, 10, 11, 19, 20].map(&mut due), [None, Some(10), None, None, Some(20)]);
        silence.heard(start + Duration::from_mins(21));
        let mut due = |minutes: u64| silence.due(start + Duration::from_mins(minutes)).map(|age| age.as_secs() / 60);
        assert_eq!([30, 31].map(&mut due), [None, Some(10)]);
    }

    #[test]
    fn the_line_tells_time_age_and_lease() {
        let minutes = Duration::from_mins;
        let line = |renewed| line(Some(minutes(180)), minutes(10), renewed, minutes(15));
        assert_eq!(line(Some(minutes(4))), "[sagemaker] running for 3 h, last output 10 min ago, lease fine");
        assert_eq!(line(None), "[sagemaker] running for 3 h, last output 10 min ago");
        assert!(
            line(Some(minutes(11))).ends_with("lease not renewed for 11 min of 15 min"),
            "{}",
            line(Some(minutes(11)))
        );
    }
}
