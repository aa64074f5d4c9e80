//! Writes the note into the merge request, or edits the one of an earlier run. What fails is a warning: the files are written.

use super::merge_request;
use crate::base::failure::{Failure, render};
use crate::gitlab::api::{GitLabError, Note};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::gitlab::{GitLabProject, GitLabWork};
use crate::report::note_pipeline;

/// A note to publish.
pub(super) struct Publishing<'a> {
    pub(super) inputs: &'a CommandInputs,
    pub(super) token_variable: &'a str,
    pub(super) marker: &'a str,
    pub(super) body: &'a str,
    pub(super) pipeline: Option<u64>,
}

/// What is to be done with the notes of a merge request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoteStep {
    Create,
    Edit(u64),
    /// It is there as it is to be.
    Keep,
    /// It is of this pipeline, which is newer.
    Newer(u64),
}

impl Publishing<'_> {
    /// Publishes the note and tells how it went.
    pub(super) async fn run(&self) {
        let printer = &self.inputs.printer;
        let merge_request = match merge_request::of_job(&self.inputs.env) {
            Ok(number) => number,
            Err(why) => return printer.line(format!("There is no note: {why}")),
        };
        match self.publish(merge_request).await {
            Ok(done) => printer.line(done),
            Err(error) => {
                let text = render(&error);
                let text = text.strip_prefix("error: ").unwrap_or(&text);
                printer.warn(format!("the merge request has no note of this report: {text}"));
            }
        }
    }

    async fn publish(&self, merge_request: u64) -> anyhow::Result<String> {
        let project = GitLabProject::with_access_token(&self.inputs.env, self.token_variable)?.ok_or_else(|| {
            Failure::user(format!("`{}` is not set, and a job token cannot write notes", self.token_variable)).hint(format!(
                "set `{}` to a project access token with the scope `api` and the role Reporter (Settings > Access tokens); a protected variable reaches protected branches alone",
                self.token_variable
            ))
        })?;
        let failed = |error: GitLabError| project.failure(GitLabWork::Notes, error);
        let gitlab = project.connect(self.inputs)?;
        let own = gitlab.user().await.map_err(failed)?;
        let notes = gitlab.notes(merge_request).await.map_err(failed)?;
        Ok(match self.step(&notes, own) {
            NoteStep::Create => {
                gitlab.create_note(merge_request, self.body).await.map_err(failed)?;
                format!("Wrote a note into the merge request !{merge_request}")
            }
            NoteStep::Edit(note) => {
                gitlab.edit_note(merge_request, note, self.body).await.map_err(failed)?;
                format!("Edited the note of the merge request !{merge_request}")
            }
            NoteStep::Keep => format!("The note of the merge request !{merge_request} is as it must be"),
            NoteStep::Newer(pipeline) => {
                format!("The note of the merge request !{merge_request} stays: it is of the newer pipeline {pipeline}")
            }
        })
    }

    /// The newest note with the marker that the token's own user wrote. Anybody can write the marker; the notes of others stay.
    fn step(&self, notes: &[Note], own: u64) -> NoteStep {
        let is_own = |note: &&Note| !note.is_system && note.author == own && first_line(&note.body) == self.marker;
        let Some(note) = notes.iter().filter(is_own).max_by_key(|note| note.id) else { return NoteStep::Create };
        match (note_pipeline(&note.body), self.pipeline) {
            (Some(shown), Some(pipeline)) if shown > pipeline => NoteStep::Newer(shown),
            // GitLab stores a note without blanks at its end.
            _ if note.body.trim_end() == self.body.trim_end() => NoteStep::Keep,
            _ => NoteStep::Edit(note.id),
        }
    }
}

fn first_line(body: &str) -> &str {
    body.lines().next().unwrap_or_default().trim_end()
}
