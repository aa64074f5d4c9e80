//! Prints how a script ended: in one line, and for several nodes in a section with a line for each.

use std::time::Duration;

use crate::base::human::{human_bytes, human_duration};
use crate::base::node::Nodes;
use crate::session::Session;
use crate::session::machine::Conclusion;
use crate::session::output::NodeOutput;

pub(super) fn tell(session: &Session<'_>, run: u32, nodes: &Nodes<NodeOutput>, conclusion: &Conclusion) {
    let (printer, stage) = (session.printer, session.state.run().map_or("", |run| run.stage.as_str()));
    let (result, is_failure) = match conclusion {
        Conclusion::Exited { code, .. } => (format!("exit code {code}"), *code != 0),
        _ => ("interrupted".to_owned(), false),
    };
    let start = nodes.rows().filter_map(|node| node.started).min();
    let ran = longest_run(nodes);
    let end = start.zip(ran).map(|(start, ran)| start + ran);
    let ran = ran.map(|ran| format!(" after {}", human_duration(ran))).unwrap_or_default();
    let bytes = human_bytes(nodes.rows().map(NodeOutput::bytes).sum());
    printer.outcome(&label(stage), &format!("{result}{ran}, {bytes} of output"), is_failure);
    if let (Some(start), Some(end), true) = (start, end, nodes.len() > 1) {
        let name = format!("sagemaker_running_{run}");
        printer.begin_section(&name, start, &format!("The script on each of {} nodes", nodes.len()));
        for (id, node) in nodes.iter() {
            let code = node.code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
            printer.line(format!("{id}: exit code {code}, {} of output", human_bytes(node.bytes())));
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

/// The longest time of the script on a node: by the node's own clock, since a report may come minutes after the end that it tells of.
pub(super) fn longest_run(nodes: &Nodes<NodeOutput>) -> Option<Duration> {
    let by_host = |node: &NodeOutput| Some(node.exited?.duration_since(node.started?).unwrap_or_default());
    nodes.rows().filter_map(|node| node.ran.or_else(|| by_host(node))).max()
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

    #[test]
    fn a_stage_has_the_name_that_its_author_knows() {
        let labels = ["step_script", "build_script", "after_script", "step_release", ""].map(label);
        assert_eq!(labels, ["Script:", "Script:", "after_script:", "release:", "Script:"]);
    }
}
