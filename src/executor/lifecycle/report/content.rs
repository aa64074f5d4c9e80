//! Puts the content of a report together: what was judged, the files of other jobs, and what the job's variables say.

use std::fmt::Write as _;
use std::path::Path;

use super::inputs::ReportFigures;
use crate::base::plain;
use crate::lifecycle::CommandInputs;
use crate::lifecycle::gate::Appraisal;
use crate::lifecycle::model::without_credentials;
use crate::lifecycle::target::ProjectTarget;
use crate::report::{LONGEST_NAME, LONGEST_TEXT, ModelReport, PAGE_LINK, ReportLink};

/// Digits of a commit that people read.
const SHORT_COMMIT: usize = 8;

/// Where a report is made.
pub(super) struct ReportContent<'a> {
    pub(super) inputs: &'a CommandInputs,
    pub(super) target: &'a ProjectTarget,
    pub(super) name: &'a str,
    /// The file of the page.
    pub(super) html: Option<&'a Path>,
}

impl ReportContent<'_> {
    pub(super) fn assemble(&self, appraisal: Appraisal, figures: ReportFigures) -> ModelReport {
        let mut curves = figures.curves;
        curves.extend(appraisal.drawn.curves);
        ModelReport {
            title: plain::line(self.name, LONGEST_NAME),
            place: self.place(),
            has_metrics: appraisal.has_metrics,
            verdict: appraisal.verdict,
            comparison: appraisal.comparison,
            has_baseline: appraisal.has_baseline,
            facts: self.facts(),
            links: self.links(),
            metrics: appraisal.rows,
            left_out: appraisal.left_out,
            curves,
            matrix: appraisal.drawn.matrix,
            trainings: figures.trainings,
            endpoints: figures.endpoints,
            plan: figures.plan,
        }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.inputs.env.get(name)
    }

    /// `ml/wine at 0123abcd on main, pipeline 12`.
    fn place(&self) -> String {
        let pipeline = &self.target.pipeline;
        let commit = pipeline.commit.as_deref().map(|commit| commit.get(..SHORT_COMMIT).unwrap_or(commit));
        let parts = [
            pipeline.project.clone(),
            commit.map(|commit| format!("at {commit}")),
            self.variable("CI_COMMIT_REF_NAME").map(|name| format!("on {name}")),
            pipeline.id.as_ref().map(|id| format!("in pipeline {id}")),
        ];
        let text = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
        if text.is_empty() { "Outside of GitLab CI".to_owned() } else { plain::line(&text, LONGEST_TEXT) }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let facts = [
            ("Environment", self.target.environment.as_deref()),
            ("Version in the registry", self.variable("MODEL_PACKAGE_ARN")),
            ("Package", self.variable("PACKAGE_NAME")),
            ("SHA-256 of the package", self.variable("PACKAGE_SHA256")),
        ];
        facts.into_iter().filter_map(|(name, fact)| Some((name, plain::line(fact?, LONGEST_TEXT)))).collect()
    }

    fn links(&self) -> Vec<ReportLink> {
        let job = self.variable("CI_JOB_URL");
        let page = job.zip(self.artifact()).map(|(job, file)| format!("{job}/artifacts/file/{file}"));
        let links = [
            (PAGE_LINK, page.as_deref()),
            ("Job", job),
            ("Pipeline", self.variable("CI_PIPELINE_URL")),
            ("Package", self.variable("PACKAGE_URL")),
        ];
        links.into_iter().filter_map(|(name, url)| ReportLink::new(name, &without_credentials(url?))).collect()
    }

    /// The page's path in an address among the artifacts of the job, which are below the project's folder.
    fn artifact(&self) -> Option<String> {
        let project = Path::new(self.variable("CI_PROJECT_DIR")?).canonicalize().ok()?;
        let file = std::path::absolute(self.html?).ok()?;
        let place = file.parent()?.canonicalize().ok()?.join(file.file_name()?);
        Some(encoded(place.strip_prefix(project).ok()?))
    }
}

/// A path as an address has it: all but plain letters are encoded.
fn encoded(path: &Path) -> String {
    path.as_os_str().as_encoded_bytes().iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}
