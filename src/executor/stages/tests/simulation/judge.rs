//! Checks that a simulated session kept the promises of `docs/SEMANTICS.md`.

use std::path::Path;

use super::plan::Plan;
use super::runner::{Called, Outcome};
use super::world::{Ledger, World};
use crate::base::node::NodeId;

/// Files that the script leaves below `model/`.
pub(super) const RESULTS: [&str; 3] = ["metrics", "optimizer", "weights"];

/// Checks a whole session: the output of the host's processes, in order, and how each ended.
pub(super) fn judge(plan: &Plan, world: &World, calls: &[Called], project: &Path) -> Result<(), String> {
    let ledger = world.ledger();
    if let Some(crowd) = ledger.crowds.first() {
        return Err(format!("two training jobs at a time: {crowd}"));
    }
    let most = if plan.may_rerun { 1 + ledger.interruptions } else { 1 };
    if let Some(((node, script), times)) = ledger.begun.iter().find(|(_, times)| **times > most) {
        return Err(format!("{node} began {:?} {times} times", String::from_utf8_lossy(script)));
    }
    let printed: Vec<u8> = calls.iter().flat_map(|call| call.printed.iter().copied()).collect();
    let is_complete = judge_output(plan, &ledger, &printed)?;
    judge_ends(plan, calls)?;
    judge_rest(plan, calls, &is_complete)?;
    judge_codes(plan, &ledger, calls, &is_complete)?;
    judge_results(&ledger, calls, project)
}

/// By run: `true` when its whole output was printed.
type Complete = Vec<(u32, bool)>;

/// Checks that each node's output is printed run by run, in order, once.
fn judge_output(plan: &Plan, ledger: &Ledger, printed: &[u8]) -> Result<Complete, String> {
    let mut complete = Complete::new();
    for node in (0..plan.nodes).map(NodeId::at) {
        let own = if plan.nodes == 1 { printed.to_vec() } else { of_node(printed, node) };
        let mut rest = own.as_slice();
        for ((run, _), written) in ledger.runs.iter().filter(|((_, of), _)| *of == node) {
            let same = rest.iter().zip(&written.bytes).take_while(|(one, other)| one == other).count();
            rest = &rest[same..];
            complete.push((*run, same == written.bytes.len()));
        }
        if !rest.is_empty() {
            let at = own.len() - rest.len();
            return Err(format!("{node}: out of order, or twice, from byte {at} on: {:?}", text(rest)));
        }
    }
    Ok(complete)
}

fn of_node(printed: &[u8], node: NodeId) -> Vec<u8> {
    let mark = format!("[{node}] ");
    let lines = printed.split_inclusive(|byte| *byte == b'\n');
    let own = lines.filter_map(|line| match node {
        NodeId::LEADER => (!line.starts_with(b"[algo-")).then_some(line),
        _ => line.strip_prefix(mark.as_bytes()),
    });
    own.flatten().copied().collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned()
}

/// Checks that no stage fails by itself without a fault, a cancel or a container that leaves.
fn judge_ends(plan: &Plan, calls: &[Called]) -> Result<(), String> {
    let is_excused = |call: &Called| match call.outcome {
        Outcome::Done | Outcome::Killed => true,
        Outcome::Script(_) => call.stage == "build_script" || !plan.is_calm(),
        Outcome::Canceled => plan.cancel.is_some(),
        Outcome::Lost => !plan.is_calm(),
    };
    match calls.iter().find(|call| !is_excused(call)) {
        Some(Called { stage, outcome, why, .. }) => Err(format!("{stage} ended as {outcome:?}: {why}")),
        None => Ok(()),
    }
}

/// Checks that the stage after a killed one, a host stage too, ends its script and prints the rest.
fn judge_rest(plan: &Plan, calls: &[Called], complete: &Complete) -> Result<(), String> {
    let uploaded = |call: &Called| call.stage.starts_with("upload_artifacts") && call.outcome == Outcome::Done;
    if !plan.is_calm() || !calls.iter().any(uploaded) {
        return Ok(());
    }
    match complete.iter().find(|(_, is_complete)| !is_complete) {
        Some((run, _)) => Err(format!("the rest of run {run} was never printed")),
        None => Ok(()),
    }
}

/// Checks that a stage with an exit code has the script's true one, and has printed its whole output.
fn judge_codes(plan: &Plan, ledger: &Ledger, calls: &[Called], complete: &Complete) -> Result<(), String> {
    for call in calls.iter().filter(|call| ["build_script", "after_script"].contains(&call.stage)) {
        let is_after_script = call.stage == "after_script";
        let code = match call.outcome {
            Outcome::Done => 0,
            Outcome::Script(code) => code,
            Outcome::Killed | Outcome::Canceled | Outcome::Lost => continue,
        };
        if plan.is_calm() && !is_after_script && code != plan.code {
            return Err(format!("{} ended with {code} in place of {}", call.stage, plan.code));
        }
        let mut runs: Vec<_> = ledger.runs.iter().filter(|(_, run)| run.is_after_script == is_after_script).collect();
        // Of a script that ran again after an interruption, the last run counts.
        let last = runs.last().map_or(0, |((run, _), _)| *run);
        runs.retain(|((run, _), _)| *run == last);
        if runs.is_empty() && is_after_script && code == 0 {
            // Skipped: no script ran.
            continue;
        }
        let is_lost = plan.leaves.is_some() && [137, 1].contains(&code);
        let has_ended = |code: i32| runs.iter().any(|(_, run)| run.ended.is_some_and(|ended| ended.code == code));
        if !has_ended(code) && !is_lost {
            return Err(format!("{} ended with {code}, its script did not", call.stage));
        }
        if is_after_script || is_lost {
            continue;
        }
        if code == 0 && runs.iter().any(|(_, run)| run.ended.is_none_or(|ended| ended.code != 0)) {
            return Err("the stage succeeded, and not each node's script".to_owned());
        }
        if runs.iter().any(|((run, _), _)| complete.contains(&(*run, false))) {
            return Err(format!("{} ended with {code} and its output is not complete", call.stage));
        }
    }
    Ok(())
}

/// Checks that the results are complete or absent, and present when host stages rely on them.
fn judge_results(ledger: &Ledger, calls: &[Called], project: &Path) -> Result<(), String> {
    let found: Vec<_> =
        RESULTS.iter().filter_map(|name| std::fs::read_to_string(project.join("model").join(name)).ok()).collect();
    let is_whole = |text: &String| {
        let line = text.lines().next().unwrap_or_default();
        text.lines().count() == 200 && text.lines().all(|other| other == line) && line.ends_with(" of the job")
    };
    if !(found.is_empty() || found.len() == RESULTS.len() && found.iter().all(is_whole)) {
        return Err(format!("{} of {} results are there", found.len(), RESULTS.len()));
    }
    if ledger.runs.is_empty() && !found.is_empty() {
        return Err("results of a script that never ran".to_owned());
    }
    let uploaded = |call: &Called| call.stage == "upload_artifacts_on_success" && call.outcome == Outcome::Done;
    if calls.iter().any(uploaded) && found.is_empty() {
        return Err("a successful job uploads artifacts that are not there".to_owned());
    }
    Ok(())
}

/// Checks that nothing is left after the last pass.
pub(super) fn judge_end(world: &World, sessions: &[String], slots: usize) -> Result<(), String> {
    let alive = world.alive();
    let mut objects = world.memory.objects.keys();
    objects.retain(|key| key.starts_with(&world.folder));
    // A session that requested no job may leave its key, which opens nothing.
    if objects.iter().all(|key| key.ends_with("/open")) {
        objects.clear();
    }
    if !alive.is_empty() || !objects.is_empty() || !sessions.is_empty() || slots > 0 {
        return Err(format!("left: jobs {alive:?}, objects {objects:?}, sessions {sessions:?}, {slots} slots"));
    }
    Ok(())
}
