//! Filters the lines of `gitlab_runner_env` from a container to those that host stages may get. Pure.
//!
//! The runner reads the file with `while read -r line; do export "$line"; done`. So bash interprets the lines: it drops NUL bytes,
//! strips blanks at both ends, and fails the stage at an invalid name; an array subscript would even run commands.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::names::{self, Reach};

/// Longest variable that Linux passes to a program, in bytes, including `=` and the final NUL.
const LONGEST: usize = 128 * 1024;

/// Returns the allowed lines and a warning about the others; `None` when all lines are allowed.
pub fn filtered(content: &[u8]) -> Option<(Vec<u8>, String)> {
    let mut kept = Vec::with_capacity(content.len());
    let mut refused = BTreeSet::new();
    let (mut nameless, mut changed) = (0, false);
    let mut lengths = BTreeMap::new();
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        match judge(line, &mut lengths) {
            LineDecision::Keep => kept.extend_from_slice(line),
            LineDecision::Empty => changed = true,
            LineDecision::Refused(name) => {
                changed = true;
                refused.insert(name);
            }
            LineDecision::NoAssignment => {
                changed = true;
                nameless += 1;
            }
        }
    }
    changed.then(|| (kept, explain(&refused, nameless)))
}

enum LineDecision {
    Keep,
    /// An empty line: dropped, since the runner would fail at it.
    Empty,
    Refused(String),
    NoAssignment,
}

/// `lengths`: the length of each variable so far.
fn judge(line: &[u8], lengths: &mut BTreeMap<String, usize>) -> LineDecision {
    let line: Vec<u8> = line.iter().copied().filter(|byte| *byte != 0).collect();
    let line = trimmed(&line);
    if line.is_empty() {
        return LineDecision::Empty;
    }
    let end = line.iter().position(|byte| *byte == b'=').unwrap_or(line.len());
    let name = line.get(..end).unwrap_or_default();
    // `A+=x` adds to `A`, `A` alone changes nothing.
    let added = if end < line.len() { name.strip_suffix(b"+") } else { None };
    let is_new = end < line.len() && added.is_none();
    let name = added.unwrap_or(name);
    match std::str::from_utf8(name) {
        Ok(name) if names::is_name(name) => {
            let before = if is_new { 0 } else { lengths.get(name).copied().unwrap_or_default() };
            let length = before.saturating_add(line.len());
            if names::reach(name) == Reach::Anyone && length < LONGEST {
                lengths.insert(name.to_owned(), length);
                LineDecision::Keep
            } else {
                LineDecision::Refused(name.to_owned())
            }
        }
        // Not shown: a line without a name may be a secret value.
        _ => LineDecision::NoAssignment,
    }
}

/// The line without the blanks that bash's `read` strips.
fn trimmed(line: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n');
    let start = line.iter().position(|byte| !is_blank(byte)).unwrap_or(line.len());
    let end = line.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    line.get(start..end).unwrap_or_default()
}

fn explain(refused: &BTreeSet<String>, nameless: usize) -> String {
    const MOST: usize = 20;
    let short = |name: &String| name.chars().take(60).collect::<String>();
    let mut parts = Vec::new();
    if !refused.is_empty() {
        let shown: Vec<_> = refused.iter().take(MOST).map(short).collect();
        let more = if refused.len() > MOST { format!(" and {} more", refused.len() - MOST) } else { String::new() };
        parts.push(format!(
            "variables that stages on the runner's host do not take from a container: {}{more}",
            shown.join(", ")
        ));
    }
    if nameless > 0 {
        parts.push(format!("{nameless} lines that are no `KEY=value`"));
    }
    if parts.is_empty() { String::new() } else { format!("left out of `gitlab_runner_env`: {}", parts.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn becomes(content: &str, kept: &str, said: &[&str]) {
        let (found, text) =
            filtered(content.as_bytes()).unwrap_or_else(|| (content.as_bytes().to_vec(), String::new()));
        assert_eq!(String::from_utf8(found).unwrap(), kept, "{text}");
        assert!(said.iter().all(|part| text.contains(part)), "{text}");
        assert_eq!(said.is_empty(), text.is_empty(), "{text}");
    }

    #[test]
    fn other_lines_stay_byte_for_byte() {
        for content in
            ["", "A=1\n", "A=1\r\nB = x\n".split('B').next().unwrap(), "  A=\tx  \nA=2\nA+=3\nB\nC==\n", "A=no end"]
        {
            assert!(filtered(content.as_bytes()).is_none(), "{content:?}");
        }
        assert!(filtered(b"A=\xff\xfe\n").is_none());
    }

    #[test]
    fn what_steers_the_host_is_left_out_and_named() {
        becomes("A=1\nPATH=$CI_PROJECT_DIR/out:/bin\nB=2\n", "A=1\nB=2\n", &["PATH"]);
        becomes(" \tLD_PRELOAD=x\nHOME+=/x\nGIT_DIR\nPATH\n", "", &["GIT_DIR, HOME, LD_PRELOAD, PATH"]);
        becomes(
            "GIT_CONFIG_COUNT=1\nhttps_proxy=p\nCI_JOB_ID=1\nFF_X=1\nX=1",
            "X=1",
            &["CI_JOB_ID, FF_X, GIT_CONFIG_COUNT, https_proxy"],
        );
        // bash drops NUL bytes.
        becomes("PA\0TH=x\nA\0B=1\n", "A\0B=1\n", &["PATH"]);
        // bash evaluates, and so executes, a value assigned to its own integer variables.
        becomes("RANDOM=a[$(id)]\nOPTIND=1\nSRANDOM=1\nHISTCMD=1\n", "", &["HISTCMD, OPTIND, RANDOM, SRANDOM"]);
        // Also without a last newline: a later line may follow.
        becomes("A=1\nBASH_ENV=x", "A=1\n", &["BASH_ENV"]);
    }

    #[test]
    fn what_bash_would_fail_at_or_run_is_left_out_and_counted() {
        becomes(
            "a[$(id)]=1\n-p\nexport X=1\nKEY =v\nBASH_FUNC_f%%=() { id; }\n1A=x\né=1\nA-B=secret\n",
            "",
            &["8 lines that are no"],
        );
        becomes("\n  \nA=1\n\n", "A=1\n", &[]);
    }

    #[test]
    fn a_value_that_no_program_could_be_started_with_is_left_out() {
        let line = |length: usize| format!("A={}\n", "x".repeat(length - 3));
        becomes(&line(LONGEST), &line(LONGEST), &[]);
        becomes(&line(LONGEST + 1), "", &["A"]);
        // Also when the length is reached in several steps.
        let again = line(LONGEST / 2 + 1);
        let more = again.replace('=', "+=");
        becomes(&more.repeat(3), &more, &["A"]);
        becomes(&again.repeat(3), &again.repeat(3), &[]);
    }

    #[test]
    fn a_long_list_is_cut() {
        let many = (0..50).fold(String::new(), |all, number| format!("{all}CI_{number}=1\n"));
        becomes(&many, "", &["CI_0, CI_1", "and 30 more"]);
    }
}
