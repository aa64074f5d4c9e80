//! Prints how a script ended: in one line, and for several nodes in a section with a line for each.

use std::time::{Duration, SystemTime};

use crate::base::human::{human_bytes, human_duration};
use crate::base::node::Nodes;
use crate::metrics;
use crate::session::Session;
use crate::session::failure_reasons::LossKind;
use crate::session::machine::Conclusion;
use crate::session::output::NodeOutput;

pub(super) fn tell(session: &Session<'_>, run: u32, nodes: &Nodes<NodeOutput>, conclusion: &Conclusion) {
    let (printer, stage) = (session.printer, session.state.run().map_or("", |run| run.stage.as_str()));
    let Some((result, is_failure)) = result(conclusion) else { return };
    let start = nodes.rows().filter_map(|node| node.started).min();
    let is_told = matches!(conclusion, Conclusion::Exited { .. } | Conclusion::Interrupted);
    if !is_told && start.is_none() {
        // Nothing is known to have begun.
        return;
    }
    let by_now =
        || start.filter(|_| !is_told).map(|start| session.clock.now().duration_since(start).unwrap_or_default());
    let told = nodes.rows().filter_map(|node| session.clock.now().duration_since(node.exited?).ok()).max();
    if let (Some(delay), Conclusion::Exited { .. }) = (told, conclusion) {
        metrics::observe(&metrics::TRACE_DELAY, &[], delay.as_secs_f64());
    }
    let times = |node: &NodeOutput| NodeTimes { started: node.started, exited: node.exited, ran: node.ran };
    let ran = longest_run(nodes.rows().map(times)).or_else(by_now);
    let end = start.zip(ran).map(|(start, ran)| start + ran);
    let ran = ran.map(|ran| format!(" after {}", human_duration(ran))).unwrap_or_default();
    let output = output_words(nodes.rows().map(NodeOutput::bytes).sum());
    printer.outcome(&label(stage), &format!("{result}{ran}, {output}"), is_failure);
    if let (Some(start), Some(end), true) = (start, end, nodes.len() > 1) {
        let name = format!("sagemaker_running_{run}");
        printer.begin_section(&name, start, &format!("The script on each of {} nodes", nodes.len()));
        for (id, node) in nodes.iter() {
            let code = node.code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
            printer.line(format!("{id}: exit code {code}, {}", output_words(node.bytes())));
        }
        printer.end_section(&name, end);
    }
    if let Conclusion::Exited { code, node, others, .. } = conclusion
        && !others.is_empty()
    {
        let others: Vec<_> = others.iter().map(|(node, code)| format!("{node} (exit code {code})")).collect();
        printer.warn(format!("{node} failed first, with exit code {code}; {} failed too", others.join(", ")));
    }
}

fn output_words(bytes: u64) -> String {
    if bytes == 0 { "no output".to_owned() } else { format!("{} of output", human_bytes(bytes)) }
}

/// The longest time of the script on a node: by the node's own clock, since a report may come minutes after the end that it tells of.
fn longest_run(nodes: impl Iterator<Item = NodeTimes>) -> Option<Duration> {
    let by_host = |times: &NodeTimes| Some(times.exited?.duration_since(times.started?).unwrap_or_default());
    nodes.filter_map(|times| times.ran.or_else(|| by_host(&times))).max()
}

/// When the reports of a node came, and how long the script ran by the last one.
#[derive(Clone, Copy)]
struct NodeTimes {
    started: Option<SystemTime>,
    exited: Option<SystemTime>,
    ran: Option<Duration>,
}

/// How the script ended, and whether that is a failure; `None`: it never began.
fn result(conclusion: &Conclusion) -> Option<(String, bool)> {
    match conclusion {
        Conclusion::Exited { code, .. } | Conclusion::Lost { by: LossKind::Script { code }, .. } => {
            Some((format!("exit code {code}"), *code != 0))
        }
        Conclusion::Interrupted => Some(("interrupted".to_owned(), false)),
        Conclusion::Canceled { code: Some(code) } => Some((format!("stopped, exit code {code}"), true)),
        Conclusion::Canceled { code: None } => Some(("stopped, exit code not known".to_owned(), true)),
        Conclusion::Lost { .. } => Some(("ended with its container, exit code not known".to_owned(), true)),
        Conclusion::NeverBegan => None,
    }
}

/// The stage as authors of jobs know it: `build_script` and `step_script` are the job's `script`.
fn label(stage: &str) -> String {
    match stage {
        "" | "build_script" | "step_script" => "Script:".to_owned(),
        "after_script" => "after_script:".to_owned(),
        step => format!("{}:", step.strip_prefix("step_").unwrap_or(step)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The report of a kept container comes half an hour after the end that it tells of.
    #[test]
    fn the_time_of_a_script_is_that_of_its_report() {
        let start = SystemTime::UNIX_EPOCH;
        let times = |after, ran| NodeTimes {
            started: Some(start),
            exited: Some(start + Duration::from_secs(after)),
            ran: Option::map(ran, Duration::from_millis),
        };
        assert_eq!(
            longest_run([times(1800, Some(900)), times(1800, Some(400))].into_iter()),
            Some(Duration::from_millis(900))
        );
        let older = longest_run([times(7, None), times(1800, Some(400))].into_iter());
        assert_eq!(older, Some(Duration::from_secs(7)), "an older agent does not say");
        assert_eq!(longest_run([NodeTimes { exited: None, ..times(0, None) }].into_iter()), None);
    }

    #[test]
    fn every_end_of_a_script_is_told() {
        let told = |conclusion| result(&conclusion).map(|(text, _)| text).unwrap_or_default();
        let lost = |by| Conclusion::Lost { reason: String::new(), by };
        assert_eq!(told(Conclusion::Canceled { code: Some(143) }), "stopped, exit code 143");
        assert_eq!(told(Conclusion::Canceled { code: None }), "stopped, exit code not known");
        assert_eq!(told(lost(LossKind::User)), "ended with its container, exit code not known");
        assert_eq!(told(lost(LossKind::Script { code: 137 })), "exit code 137");
        assert_eq!(result(&Conclusion::NeverBegan), None);
    }

    #[test]
    fn a_stage_has_the_name_that_its_author_knows() {
        let labels = ["step_script", "build_script", "after_script", "step_release", ""].map(label);
        assert_eq!(labels, ["Script:", "Script:", "after_script:", "release:", "Script:"]);
    }
}
