//! Checks the project of components in `ci-templates`: its text, its rules, its examples, and the pipelines that GitLab would make of it.

mod checks;
mod compiled;
pub(crate) mod compiler;
mod component;
pub(crate) mod examples;
mod image;
mod lint;
mod own_pipeline;
pub(crate) mod scripts;
mod shell;
mod variables;
pub(crate) mod yaml;

use std::path::PathBuf;

use executor::config::job_variables::JobVariable;
use regex::Regex;

/// The text of each component.
fn templates() -> Vec<(PathBuf, String)> {
    let paths = std::fs::read_dir(component::folder().join("templates")).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| (path.clone(), std::fs::read_to_string(path.join("template.yml")).unwrap());
    let templates: Vec<_> = paths.map(read).collect();
    assert!(!templates.is_empty());
    templates
}

#[test]
fn templates_set_only_variables_that_exist() {
    let name = Regex::new(r"\bSAGEMAKER_[A-Z_]+\b").unwrap();
    let mut found = 0;
    for (path, text) in templates() {
        // The id token is named by its job.
        for variable in name.find_iter(&text).map(|found| found.as_str()).filter(|name| *name != "SAGEMAKER_ID_TOKEN") {
            found += 1;
            assert!(JobVariable::of(variable).is_some(), "{}: {variable}", path.display());
        }
    }
    assert!(found > 3);
}

#[test]
fn templates_are_plain_yaml() {
    for (path, text) in templates() {
        assert!(text.ends_with('\n') && !text.contains('\t') && !text.contains('\r'), "{}", path.display());
        for (number, line) in text.lines().enumerate() {
            let place = format!("{}:{}", path.display(), number + 1);
            assert_eq!(line, line.trim_end(), "{place}");
            let content = line.trim_start();
            assert_eq!((line.len() - content.len()) % 2, 0, "{place}: odd indentation");
            // Variables are strings: bare numbers and booleans would be refused by older GitLab versions.
            if let Some((key, value)) = content.split_once(": ")
                && key.chars().all(|c| c.is_ascii_uppercase() || c == '_')
            {
                assert!(value.parse::<f64>().is_err() && !["true", "false"].contains(&value), "{place}: {value}");
            }
        }
    }
}

/// A project that sets no input keeps its own timeout: GitLab reads `timeout:` without a value as absent, and refuses a variable without
/// one, which must be an empty text.
#[test]
fn no_limit_is_set_that_the_project_does_not_ask_for() {
    let job = &component::components()["job"];
    for (key, input, line) in [
        ("timeout", "timeout", "  timeout: $[[ inputs.timeout ]]"),
        ("RUNNER_SCRIPT_TIMEOUT", "script_timeout", "    RUNNER_SCRIPT_TIMEOUT: \"$[[ inputs.script_timeout ]]\""),
    ] {
        let found: Vec<_> = job.body.lines().filter(|line| line.trim_start().starts_with(&format!("{key}:"))).collect();
        assert_eq!(found, [line]);
        assert_eq!(job.inputs[input]["default"], "");
        let form = Regex::new(job.inputs[input]["regex"].as_str().unwrap()).unwrap();
        assert!(
            form.is_match("") && form.is_match("8h") && form.is_match("1h30m") && !form.is_match("8 hours"),
            "{form}"
        );
    }
}

/// The base is included: a job that would run by itself appears in every pipeline.
#[test]
fn the_base_of_training_jobs_is_hidden() {
    let all = component::components();
    let pipeline = all["job"].interpolated(&serde_json::Map::new());
    let keys: Vec<_> = pipeline.as_object().unwrap().keys().collect();
    assert_eq!(keys, [".sagemaker"]);
}
