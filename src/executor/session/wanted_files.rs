//! The files of the container that later stages of the job read.

use crate::gitlab::JobContext;
use crate::protocol::project::{Rule, Selection, Trees};
use crate::workspace;

/// File at the top of the project in which a job may leave variables for the executor.
pub(super) const ENV_FILE: &str = "sagemaker.env";

/// Selects the paths that later host stages of the job read. The runner expands their variables within the stage, so
/// only variables whose values it passed to this process (`expanded`), and that cannot change until then, are expanded
/// here.
pub fn selection(job: &JobContext, expanded: impl Fn(&str) -> Option<String>) -> Selection {
    let value = |name: &str| {
        let mut same = job.variables.iter().filter(|variable| variable.key == name).peekable();
        let is_known = name == "CI_PROJECT_DIR" || same.peek().is_some();
        // In a stage a file variable holds a path instead of the content, and orders must hold no secrets.
        let is_plain =
            same.all(|variable| !variable.file && !variable.masked) && !job.secrets.iter().any(|key| key == name);
        expanded(name).filter(|_| is_known && is_plain)
    };
    let artifacts = job.artifacts.iter().map(|artifact| Rule {
        include: artifact.paths.clone(),
        exclude: artifact.exclude.clone(),
        untracked: artifact.untracked,
        follow: artifact.format == "raw",
        ..Rule::default()
    });
    let pushed = job.cache.iter().filter(|cache| cache.policy != "pull");
    let caches =
        pushed.map(|cache| Rule { include: cache.paths.clone(), untracked: cache.untracked, ..Rule::default() });
    let own = Rule { include: vec![ENV_FILE.to_owned()], ..Rule::default() };
    let rules = artifacts.chain(caches).map(|rule| rule.with_values(&value)).chain([own]).collect();
    Selection { rules, ..Selection::default() }
}

/// `true` when the job names the file in its artifacts or reports.
pub(super) fn names_file(selection: Option<&Selection>, trees: &Trees, name: &str) -> bool {
    // The last rule is the executor's own.
    let rules = selection.map(|selection| selection.rules.as_slice()).and_then(|rules| rules.split_last());
    rules.is_some_and(|(_, rules)| workspace::is_named(rules, trees, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_definition_selects_for_itself() {
        let job = r#"{"id": 1, "job_info": {"project_id": 2},
            "variables": [{"key": "OUT", "value": "out"}, {"key": "KEY", "value": "k", "file": true},
                          {"key": "TOKEN", "value": "t", "masked": true}],
            "artifacts": [{"paths": ["$OUT/*", "$KEY", "$TOKEN", "$HOME"], "exclude": ["$CI_PROJECT_DIR/out/x"]},
                          {"paths": ["report.xml"], "artifact_format": "raw"}, {"untracked": true}],
            "cache": [{"paths": ["kept"], "policy": "pull-push"}, {"paths": ["seen"], "policy": "pull"}]}"#;
        let job: JobContext = serde_json::from_str(job).unwrap();
        let expanded = |name: &str| (name != "UNSET").then(|| format!("/{name}"));
        let rule = |include: &[&str]| Rule {
            include: include.iter().map(|path| (*path).to_owned()).collect(),
            ..Rule::default()
        };
        let archive = Rule {
            exclude: vec!["/CI_PROJECT_DIR/out/x".to_owned()],
            variables: vec!["OUT".to_owned(), "CI_PROJECT_DIR".to_owned()],
            ..rule(&["/OUT/*", "$KEY", "$TOKEN", "$HOME"])
        };
        let report = Rule { follow: true, ..rule(&["report.xml"]) };
        let untracked = Rule { untracked: true, ..Rule::default() };
        assert_eq!(
            selection(&job, expanded).rules,
            [archive, report, untracked, rule(&["kept"]), rule(&["sagemaker.env"])]
        );
    }
}
