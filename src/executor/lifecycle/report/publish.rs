//! Writes the note into the merge request, or edits the one of an earlier run. What fails is a warning: the files are written.

use super::merge_request;
use crate::base::failure::{Failure, render};
use crate::gitlab::api::{GitLabError, GitLabErrorKind, Note};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::gitlab::{GitLabProject, GitLabWork};
use crate::lifecycle::identity::IdentityArgs;
use crate::lifecycle::target::ProjectTarget;
use crate::lifecycle::token_secret::{TOKEN_SECRET_VARIABLE, TokenSecretArgs};
use crate::report::note_pipeline;

/// A note to publish.
pub(super) struct Publishing<'a> {
    pub(super) inputs: &'a CommandInputs,
    pub(super) token_variable: &'a str,
    pub(super) secret: &'a TokenSecretArgs,
    /// Of the job that reads the secret.
    pub(super) identity: &'a IdentityArgs,
    pub(super) target: &'a ProjectTarget,
    pub(super) marker: &'a str,
    pub(super) body: &'a str,
    pub(super) pipeline: Option<u64>,
}

/// The next step with the notes that a merge request has of this report: one stays.
#[derive(Debug, PartialEq, Eq)]
struct Settlement<'a> {
    /// The oldest of them, which all jobs that run at once choose alike.
    keep: &'a Note,
    /// The text that it is to have.
    body: &'a str,
    /// The newer pipeline that this text is of.
    newer: Option<u64>,
    /// The others: of jobs that ran at once.
    delete: Vec<u64>,
}

impl Settlement<'_> {
    fn is_edited(&self) -> bool {
        // GitLab stores a note without blanks at its end.
        self.keep.body.trim_end() != self.body.trim_end()
    }
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

    /// The project, with the token of the secret or of the variable.
    async fn project(&self) -> anyhow::Result<GitLabProject> {
        let env = &self.inputs.env;
        if let Some(project) = self.secret.project(self.inputs, self.identity, self.target).await? {
            return Ok(project);
        }
        let project = GitLabProject::with_access_token(env, self.token_variable)?.ok_or_else(|| {
            Failure::user(format!("`{}` is not set, and a job token cannot write notes", self.token_variable)).hint(format!(
                "set `{}` to a project access token with the scope `api` and the role Reporter (Settings > Access tokens), or `{TOKEN_SECRET_VARIABLE}` to a secret with one; a protected variable reaches protected branches alone",
                self.token_variable
            ))
        });
        Ok(project?)
    }

    async fn publish(&self, merge_request: u64) -> anyhow::Result<String> {
        let project = self.project().await?;
        let failed = |error: GitLabError| project.failure(GitLabWork::Notes, error);
        let gitlab = project.connect(self.inputs)?;
        let own = gitlab.user().await.map_err(failed)?;
        let mut notes = gitlab.notes(merge_request).await.map_err(failed)?;
        let is_new = self.settlement(&notes, own).is_none();
        if is_new {
            let created = gitlab.create_note(merge_request, self.body).await;
            // Another job may have written one meanwhile; and a note whose reply is lost is there.
            notes = match (created, gitlab.notes(merge_request).await) {
                (Ok(_), Err(_)) => return Ok(wrote(merge_request)),
                (Err(error), Err(_)) => return Err(failed(error).into()),
                (Err(error), Ok(notes)) if self.settlement(&notes, own).is_none() => return Err(failed(error).into()),
                (_, Ok(notes)) => notes,
            };
        }
        let Some(settlement) = self.settlement(&notes, own) else { return Ok(wrote(merge_request)) };
        if settlement.is_edited() {
            gitlab.edit_note(merge_request, settlement.keep.id, settlement.body).await.map_err(failed)?;
        }
        for note in &settlement.delete {
            let deleted = gitlab.delete_note(merge_request, *note).await;
            // Another job deleted a note that is not found.
            if let Err(error) =
                deleted.or_else(|error| if error.kind == GitLabErrorKind::NotFound { Ok(()) } else { Err(error) })
            {
                self.inputs.printer.warn(format!("a second note of this report stays: {error}"));
            }
        }
        Ok(match settlement.newer {
            Some(pipeline) => {
                format!("The note of the merge request !{merge_request} stays: it is of the newer pipeline {pipeline}")
            }
            None if is_new => wrote(merge_request),
            None if settlement.is_edited() => format!("Edited the note of the merge request !{merge_request}"),
            None => format!("The note of the merge request !{merge_request} is as it must be"),
        })
    }

    /// `None` when no note has the marker and was written by the token's own user. Anybody can write the marker; the notes of others stay.
    fn settlement<'a>(&'a self, notes: &'a [Note], own: u64) -> Option<Settlement<'a>> {
        let is_own = |note: &&Note| !note.is_system && note.author == own && first_line(&note.body) == self.marker;
        let mut ours: Vec<&Note> = notes.iter().filter(is_own).collect();
        ours.sort_by_key(|note| note.id);
        let (keep, others) = ours.split_first()?;
        let newest = ours.iter().max_by_key(|note| (note_pipeline(&note.body), note.id))?;
        let newer = note_pipeline(&newest.body).filter(|shown| self.pipeline.is_some_and(|pipeline| *shown > pipeline));
        let body = if newer.is_some() { &newest.body } else { self.body };
        Some(Settlement { keep, body, newer, delete: others.iter().map(|note| note.id).collect() })
    }
}

fn wrote(merge_request: u64) -> String {
    format!("Wrote a note into the merge request !{merge_request}")
}

fn first_line(body: &str) -> &str {
    body.lines().next().unwrap_or_default().trim_end()
}
