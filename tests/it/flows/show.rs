//! Shows what a pipeline does, for people: the trace of each job as it ends, in a file and on standard error.

use std::path::{Path, PathBuf};

use executor::config::env::Environment;
use regex::Regex;

use super::event::PipelineFacts;
use super::pipeline::{EndedJob, Pipeline};
use super::schedule::JobState;
use crate::support::waiting::tell;

/// The variable with the folder of results, which `.ci/demo` sets.
const FOLDER: &str = "DEMO_RESULTS";

/// Where results go; `None` in a test.
pub(super) fn folder() -> Option<PathBuf> {
    Environment::of_process().get(FOLDER).map(PathBuf::from)
}

/// Text of a trace without colors and markers of sections.
fn plain(trace: &str) -> String {
    let marks = Regex::new("section_(?:start|end):[0-9]+:[^\\r\\n]*\\r|\\x1b\\[[0-9;]*[A-Za-z]|\\r").unwrap();
    marks.replace_all(trace, "").into_owned()
}

/// Shows a job that ended. One that ran again has a number behind its name.
pub(super) fn job(facts: &PipelineFacts, name: &str, ended: &EndedJob) {
    let Some(folder) = folder() else { return };
    let folder = folder.join(format!("pipeline-{}", facts.id));
    let again = (2..).map(|run| format!("{name}-{run}"));
    let is_new = |name: &String| !folder.join(format!("{name}.log")).exists();
    let name = &std::iter::once(name.to_owned()).chain(again).find(is_new).expect("numbers have no end");
    let trace = plain(&ended.outcome.text());
    write(&folder.join(format!("{name}.log")), trace.as_bytes());
    for artifact in ended.outcome.artifacts.iter().filter(|artifact| artifact.kind == "archive") {
        for (path, bytes) in artifact.files() {
            write(&folder.join(name).join(path), &bytes);
        }
    }
    tell(&format!("\n---- pipeline {}, job {name}\n{trace}", facts.id));
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("results are in a folder")).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Shows a table, in a file and on standard error.
pub(super) fn table(name: &str, rows: &[[String; 2]]) {
    let width = rows.iter().map(|[first, _]| first.chars().count()).max().unwrap_or_default();
    let line = |[first, second]: &[String; 2]| format!("{first:width$}  {second}");
    let lines = rows.iter().map(line).collect::<Vec<_>>().join("\n") + "\n";
    if let Some(folder) = folder() {
        write(&folder.join(format!("{name}.txt")), lines.as_bytes());
        tell(&format!("\n==== {name}\n{lines}"));
    }
}

/// The jobs of a pipeline with their states.
pub(super) fn pipeline(pipeline: &Pipeline<'_>) {
    let state = |state: JobState| format!("{state:?}").to_lowercase();
    let row = |(name, found): (&str, JobState)| [name.to_owned(), state(found)];
    let head = [format!("pipeline {}", pipeline.facts.id), pipeline.facts.event.told()];
    let rows: Vec<_> = std::iter::once(head).chain(pipeline.schedule.states().map(row)).collect();
    table(&format!("pipeline-{}", pipeline.facts.id), &rows);
}
