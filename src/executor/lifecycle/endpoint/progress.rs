//! Lines about a change of an endpoint: one for each state, and one a minute while nothing changes.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::human::human_duration;
use crate::base::plain;
use crate::cloud::{EndpointSight, VariantSight};
use crate::ui::Printer;

/// GitLab Runner ends a job that prints nothing for long, and people do too.
const HEARTBEAT: Duration = Duration::from_mins(1);
/// Longest text of AWS in a line, in bytes.
const LONGEST_STATUS: usize = 300;

/// The lines of one wait.
pub(super) struct ChangeLines<'a> {
    printer: &'a Printer,
    started: Instant,
    seen: Option<String>,
    has_said: bool,
    said_at: Instant,
}

impl<'a> ChangeLines<'a> {
    pub(super) fn new(printer: &'a Printer) -> Self {
        let now = Instant::now();
        Self { printer, started: now, seen: None, has_said: false, said_at: now }
    }

    /// Begin of the wait.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Says the state if it is another one than before and AWS is at work, or was, and after a minute in which nothing was said.
    /// `true` if it is another one.
    pub(super) fn tell(&mut self, sight: Option<&EndpointSight>) -> bool {
        let state = sight.map(state).unwrap_or_default();
        let (now, is_new) = (Instant::now(), self.seen.as_ref() != Some(&state));
        let is_worth_a_line = self.has_said || sight.is_some_and(|sight| sight.state.is_changing());
        if !state.is_empty() && ((is_worth_a_line && is_new) || now - self.said_at >= HEARTBEAT) {
            let elapsed = now - self.started;
            let after =
                if elapsed.as_secs() == 0 { String::new() } else { format!(" after {}", human_duration(elapsed)) };
            self.printer.line(format!("{state}{after}"));
            (self.has_said, self.said_at) = (true, now);
        }
        self.seen = Some(state);
        is_new
    }
}

/// One line about an endpoint: its state, and the variants that come.
fn state(sight: &EndpointSight) -> String {
    let config = match &sight.pending_config {
        Some(config) => format!(" to {}", plain::line(config, LONGEST_STATUS)),
        None if sight.config.is_empty() => String::new(),
        None => format!(" on {}", plain::line(&sight.config, LONGEST_STATUS)),
    };
    let variants = if sight.state.is_changing() { &sight.pending_variants } else { &sight.variants };
    let variants = if variants.is_empty() { &sight.variants } else { variants };
    let variants: Vec<_> = variants.iter().filter_map(variant).collect();
    let variants = if variants.is_empty() { String::new() } else { format!(" ({})", variants.join(", ")) };
    format!("{}: {}{config}{variants}", sight.name, sight.state.name())
}

fn variant(variant: &VariantSight) -> Option<String> {
    let status = variant.status.as_deref().map(|status| plain::line(status, LONGEST_STATUS));
    let instances = match (variant.current_instances, variant.desired_instances) {
        (Some(current), Some(desired)) => Some(format!("{current} of {desired} instances")),
        _ => None,
    };
    let parts: Vec<_> = [status, instances].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::EndpointState;

    fn sight(state: EndpointState, status: &str) -> EndpointSight {
        let variant = VariantSight {
            name: "AllTraffic".to_owned(),
            current_instances: Some(1),
            desired_instances: Some(2),
            status: Some(status.to_owned()),
        };
        EndpointSight {
            name: "wine".to_owned(),
            arn: String::new(),
            state,
            config: "wine-1".to_owned(),
            variants: Vec::new(),
            pending_config: Some("wine-2".to_owned()),
            pending_variants: vec![variant],
            images: Vec::new(),
            failure: None,
            created: None,
            modified: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_said_once_and_again_after_a_minute() {
        let (printer, captured) = Printer::captured();
        let mut lines = ChangeLines::new(&printer);
        let baking = sight(EndpointState::Updating, "Baking");
        for seconds in [0, 30, 29, 1, 59, 1] {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            lines.tell(Some(&baking));
        }
        lines.tell(Some(&sight(EndpointState::Updating, "ActivatingTraffic:\u{1b}[2K x")));
        let expected = "wine: Updating to wine-2 (Baking, 1 of 2 instances)\n\
                        wine: Updating to wine-2 (Baking, 1 of 2 instances) after 1 min\n\
                        wine: Updating to wine-2 (Baking, 1 of 2 instances) after 2 min\n\
                        wine: Updating to wine-2 (ActivatingTraffic:\\x1b[2K x, 1 of 2 instances) after 2 min\n";
        assert_eq!(captured.text(), expected);
    }
}
