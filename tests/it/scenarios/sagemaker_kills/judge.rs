//! Scripts that record their actions, and the check of a job by these records.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::rc::Rc;

use super::notes::Notes;

/// Bytes that a kill between a write and its note may print twice, as docs/SEMANTICS.md says.
const PRINTED_TWICE: usize = 4096;

/// A script of numbered steps. Each step prints, makes a file in the project, and notes its number, in this order. SIGTERM ends it
/// with one line. It uses the shell alone: a program in it would be ended by a signal too.
pub(in crate::scenarios) struct Script {
    name: &'static str,
    steps: Vec<String>,
    code: i32,
    /// Number of the GitLab job.
    job: u64,
    notes: Rc<Notes>,
}

impl Script {
    /// Reads a line of the project, prints slowly, then many bytes at once, then slowly again.
    pub(in crate::scenarios) fn main(job: u64, code: i32, notes: &Rc<Notes>) -> Self {
        let line = |number: usize| format!("line {number} {} \u{e9}\u{1f916}\n", "x".repeat(number * 37 % 90));
        let mut steps = vec!["arrived\n".to_owned()];
        steps.extend((1..=5).map(line));
        // More than may be printed twice.
        steps.push((1000..1300).map(line).collect());
        steps.extend((6..=40).map(line));
        Self { name: "main", steps, code, job, notes: Rc::clone(notes) }
    }

    pub(in crate::scenarios) fn after(job: u64, notes: &Rc<Notes>) -> Self {
        let steps = (1..=8).map(|number| format!("after {number}\n")).collect();
        Self { name: "after", steps, code: 0, job, notes: Rc::clone(notes) }
    }

    fn ended(&self) -> String {
        format!("{} was ended\n", self.name)
    }

    pub(in crate::scenarios) fn text(&self) -> String {
        let (name, job, port) = (self.name, self.job, self.notes.port);
        let mut text = format!("trap 'printf \"{}\"; exit 1' TERM\n", self.ended().replace('\n', "\\n"));
        let _ = writeln!(text, "exec 9<>/dev/tcp/127.0.0.1/{port}; echo {job} {name} began >&9");
        for (number, step) in self.steps.iter().enumerate() {
            if step == "arrived\n" {
                text.push_str("read -r line <input/text; echo \"$line\"\n");
            } else {
                let _ = writeln!(text, "printf %s '{step}'");
            }
            let _ = writeln!(text, "echo 'made by step {number}' >out/{name}-{number}");
            // Nothing comes from there: a pause that needs no program.
            let _ = writeln!(text, "echo {job} {name} step {number} >&9; read -rt 0.03 line <&9");
        }
        let _ = writeln!(text, "exit {}", self.code);
        text
    }

    fn noted(&self, what: &str) -> usize {
        self.notes.count(&format!("{} {} {what}", self.job, self.name))
    }

    /// How often it was begun.
    pub(in crate::scenarios) fn begun(&self) -> usize {
        self.noted("began")
    }

    /// `true` for the begin of what a whole run prints, with the line of a run that was ended or without it.
    pub(in crate::scenarios) fn is_begin(&self, printed: &[u8]) -> bool {
        let printed = printed.strip_suffix(self.ended().as_bytes()).unwrap_or(printed);
        self.steps.concat().as_bytes().starts_with(printed)
    }

    /// `true` when all that it prints is there.
    pub(in crate::scenarios) fn is_whole(&self, printed: &[u8]) -> bool {
        printed.starts_with(self.steps.concat().as_bytes())
    }

    /// `true` for the begin of what a run prints and of what `next` prints behind it, each with the line of a run that was ended or
    /// without it.
    pub(in crate::scenarios) fn is_cut_before(&self, printed: &[u8], next: &Self) -> bool {
        let whole = self.steps.concat();
        let same = printed.iter().zip(whole.as_bytes()).take_while(|(one, other)| one == other).count();
        let rest = &printed[same..];
        let rest = rest.strip_prefix(self.ended().as_bytes()).unwrap_or(rest);
        next.is_begin(rest)
    }

    /// `true` for the begin of a run that was ended, and after it what a whole run and the script `next` print.
    pub(in crate::scenarios) fn ends_with_whole_run(&self, printed: &[u8], next: &Self) -> bool {
        let whole = self.steps.concat() + &next.steps.concat();
        printed.strip_suffix(whole.as_bytes()).is_some_and(|first| self.is_begin(first))
    }

    /// Texts that it may have printed, by what it noted.
    fn possible(&self, fate: Fate) -> Vec<String> {
        let (count, all) = (self.noted("step"), self.steps.len());
        let printed = |steps: usize| self.steps[..steps].concat();
        let (whole, ended) = (printed(all), self.ended());
        match fate {
            Fate::Whole => vec![whole],
            Fate::Absent => vec![String::new()],
            Fate::Ended if count == all => vec![whole.clone(), whole + &ended],
            Fate::Ended => {
                let mut texts = vec![printed(count) + &ended, printed(count + 1) + &ended];
                // It was ended before its first line, or never begun.
                texts.extend((count == 0).then(String::new));
                texts
            }
        }
    }

    /// Numbers of the steps whose files must be on the host, at least and at most.
    fn files(&self, fate: Fate) -> (usize, usize) {
        let count = self.noted("step");
        match fate {
            Fate::Whole => (self.steps.len(), self.steps.len()),
            Fate::Absent => (0, 0),
            Fate::Ended => (count, (count + 1).min(self.steps.len())),
        }
    }

    fn is_begun_as(&self, fate: Fate) {
        let (begun, count) = (self.noted("began"), self.noted("step"));
        let is_right = match fate {
            Fate::Whole => begun == 1 && count == self.steps.len(),
            Fate::Absent => begun == 0,
            Fate::Ended => begun <= 1,
        };
        assert!(is_right, "`{}` was begun {begun} times and noted {count} steps ({fate:?})", self.name);
    }
}

/// What became of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scenarios) enum Fate {
    /// It ran to its own end.
    Whole,
    /// Something may have ended it at any time, also before it began.
    Ended,
    /// It was not to be run.
    Absent,
}

/// What must have come back to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scenarios) enum Results {
    /// All that the scripts made.
    All,
    /// Nothing fetched them, or a kill ended that: each file that is there is whole.
    Some,
}

/// The output of one call, and whether a kill ended it.
pub(in crate::scenarios) struct Piece {
    pub(in crate::scenarios) bytes: Vec<u8>,
    pub(in crate::scenarios) killed: bool,
}

/// Holds a job's output, files and notes against its scripts; bytes that were printed twice.
pub(in crate::scenarios) fn judge(
    scripts: &[(&Script, Fate)],
    pieces: &[Piece],
    results: Results,
    project: &Path,
) -> usize {
    for (script, fate) in scripts {
        script.is_begun_as(*fate);
    }
    let mut texts = vec![String::new()];
    for (script, fate) in scripts {
        let possible = script.possible(*fate);
        texts = texts.iter().flat_map(|text| possible.iter().map(move |next| text.clone() + next)).collect();
    }
    let twice = texts.iter().find_map(|text| repeated(pieces, text.as_bytes()));
    let files = files(project);
    let counts: Vec<_> = scripts.iter().map(|(script, fate)| (script.name, *fate, script.noted("step"))).collect();
    assert!(twice.is_some(), "the output is none of {} possible ones; {counts:?}\n{}", texts.len(), shown(pieces));
    for (script, fate) in scripts {
        let (least, most) = script.files(*fate);
        let there = files.keys().filter(|name| name.starts_with(&format!("{}-", script.name))).count();
        let least = if results == Results::All { least } else { 0 };
        assert!((least..=most).contains(&there), "{there} files of `{}`, expected {least} to {most}", script.name);
        for (name, text) in &files {
            if let Some(number) = name.strip_prefix(&format!("{}-", script.name)) {
                assert_eq!(text, &format!("made by step {number}\n"), "{name} is not whole");
            }
        }
    }
    twice.unwrap_or_default()
}

/// Bytes that stand twice at the seams of killed calls; `None` when the pieces do not make up the text.
fn repeated(pieces: &[Piece], text: &[u8]) -> Option<usize> {
    let (mut at, mut twice, mut killed) = (0, 0, false);
    for piece in pieces {
        let most = if killed { PRINTED_TWICE.min(at) } else { 0 };
        let back = (0..=most).find(|back| text[at - back..].starts_with(&piece.bytes))?;
        twice += back.min(piece.bytes.len());
        at = at.max(at - back + piece.bytes.len());
        killed = piece.killed;
    }
    (at == text.len()).then_some(twice)
}

fn files(project: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(project.join("out")).into_iter().flatten().flatten();
    let file = |entry: std::fs::DirEntry| {
        (entry.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(entry.path()).unwrap())
    };
    entries.map(file).collect()
}

fn shown(pieces: &[Piece]) -> String {
    let mut text = String::new();
    for piece in pieces.iter().filter(|piece| !piece.bytes.is_empty()) {
        let printed = String::from_utf8_lossy(&piece.bytes);
        // The block in the middle says nothing to a reader.
        let lines = printed.split_inclusive('\n').filter(|line| !line.starts_with("line 1") || line.len() < 100);
        let _ =
            writeln!(text, "--- {} bytes, killed: {}\n{}", piece.bytes.len(), piece.killed, lines.collect::<String>());
    }
    text
}

#[test]
fn the_judge_sees_gaps_and_long_repeats() {
    let text = (1..2000).map(|number| number.to_string()).collect::<Vec<_>>().join("\n").into_bytes();
    let judged = |parts: &[&[u8]]| {
        let piece = |part: &&[u8]| Piece { bytes: part.to_vec(), killed: true };
        repeated(&parts.iter().map(piece).collect::<Vec<_>>(), &text)
    };
    assert_eq!(judged(&[&text[..5000], &text[5000..]]), Some(0));
    assert_eq!(judged(&[&text[..5000], &text[4000..]]), Some(1000));
    assert_eq!(judged(&[&text[..5000], b"", &text[5000..]]), Some(0));
    assert_eq!(judged(&[&text[..5000], &text[5001..]]), None);
    assert_eq!(judged(&[&text[..5000], &text[900..]]), None, "more than one write");
    assert_eq!(judged(&[&text[..5000]]), None);
}
