//! Tells how people get into a running container, and how long a failed one is kept.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::arn::Arn;
use crate::base::human::{human_duration, utc_time};
use crate::base::node::{NodeId, Nodes};
use crate::base::plain;
use crate::config::prices::Price;
use crate::session::Session;
use crate::session::output::NodeOutput;
use crate::session::state::SessionState;

/// Longest wait that a container may claim.
const LONGEST: Duration = Duration::from_hours(24);
/// Longest path that a container may name, in bytes.
const LONGEST_PATH: usize = 200;

/// A container that is kept after its script has failed, as its node reports it.
#[derive(Debug, Clone)]
pub(super) struct KeptContainer {
    pub(super) node: NodeId,
    pub(super) code: i32,
    /// Size of the script's output, which is printed first.
    pub(super) bytes: u64,
    /// Milliseconds since 1970.
    pub(super) until: u64,
    /// The file that ends the wait.
    pub(super) release: String,
}

/// Prints the command that opens a shell on each node, if the job lets people in.
pub(super) fn tell_shells(session: &Session<'_>, nodes: impl Iterator<Item = NodeId>) {
    nodes.filter_map(|node| shell(session, node)).for_each(|line| session.printer.line(line));
}

/// Tells of the containers whose output is printed, takes them off the list, and returns their nodes.
pub(super) fn tell_printed(
    session: &Session<'_>,
    nodes: &Nodes<NodeOutput>,
    kept: &mut Vec<KeptContainer>,
) -> Vec<NodeId> {
    let is_printed = |kept: &mut KeptContainer| nodes.get(kept.node).is_none_or(|node| node.bytes() >= kept.bytes);
    let printed = kept.extract_if(.., is_printed);
    printed.inspect(|kept| tell_kept(session, kept)).map(|kept| kept.node).collect()
}

/// Prints until when the container is kept, what that costs, how to get in and how to end it.
fn tell_kept(session: &Session<'_>, kept: &KeptContainer) {
    let (state, printer) = (&session.state, session.printer);
    let price = Price::of(&instances(state), &session.settings.prices).map(Price::a_minute);
    let [first, rest @ ..] = &words(kept, price.as_deref(), session.clock.now())[..] else { return };
    printer.warn(first);
    match shell(session, kept.node) {
        Some(shell) => printer.line(shell),
        None => printer.line("Nobody can get in: set `SAGEMAKER_REMOTE_DEBUG` to `true` as well, unless the script has started a server of its own"),
    }
    for line in rest {
        printer.line(line);
    }
}

/// The instances of the training job, by type and number.
fn instances(state: &SessionState) -> Vec<(&str, u32)> {
    let groups = &state.request().instance_groups;
    if groups.is_empty() {
        return vec![(state.instance_type(), u32::try_from(state.nodes().len()).unwrap_or(u32::MAX))];
    }
    groups.iter().map(|group| (group.instance_type.as_str(), group.count)).collect()
}

fn shell(session: &Session<'_>, node: NodeId) -> Option<String> {
    let region = session.state.arn().filter(|_| session.state.request().remote_debug).and_then(Arn::parse)?.region;
    Some(command(&session.job_name(), region, node))
}

fn command(job: &str, region: &str, node: NodeId) -> String {
    format!("Shell in {node}: aws ssm start-session --region {region} --target sagemaker-training-job:{job}_{node}")
}

fn words(kept: &KeptContainer, price: Option<&str>, now: SystemTime) -> [String; 2] {
    let KeptContainer { node, code, until, release, .. } = kept;
    let until =
        UNIX_EPOCH + Duration::from_millis(*until).min(now.duration_since(UNIX_EPOCH).unwrap_or_default() + LONGEST);
    let left = human_duration(until.duration_since(now).unwrap_or_default());
    let price = price.map(|price| format!(", at {price} a minute")).unwrap_or_default();
    [
        format!(
            "the script failed with exit code {code} on {node}; the container is kept until {} UTC ({left}){price}, if the job's `timeout` allows it",
            utc_time(until)
        ),
        format!(
            "To end this earlier: `touch {}` in the container, or cancel the job",
            plain::line(release, LONGEST_PATH)
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_job_node_and_region() {
        assert_eq!(
            command("gitlab-1-2-ab", "eu-west-1", NodeId::at(1)),
            "Shell in algo-2: aws ssm start-session --region eu-west-1 --target sagemaker-training-job:gitlab-1-2-ab_algo-2"
        );
    }

    #[test]
    fn a_kept_container_has_its_end_and_its_price() {
        let now = UNIX_EPOCH + Duration::from_hours(1);
        let release = "/tmp/r\n".to_owned();
        let kept = KeptContainer { node: NodeId::LEADER, code: 3, bytes: 0, until: 5_400_000, release };
        let [first, last] = words(&kept, Some("$0.04"), now);
        assert_eq!(
            first,
            "the script failed with exit code 3 on algo-1; the container is kept until 01:30:00 UTC (30 min), at $0.04 a minute, if the job's `timeout` allows it"
        );
        assert!(last.contains("`touch /tmp/r"), "{last}");
        let [first, _] = words(&KeptContainer { until: u64::MAX, ..kept.clone() }, None, now);
        assert!(first.contains("(24 h), if"), "{first}");
        let [first, _] = words(&KeptContainer { until: 0, ..kept }, None, now);
        assert!(first.contains("(0 s), if"), "{first}");
    }
}
