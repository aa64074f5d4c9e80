//! Checks the CI templates as text: only variables that exist, and no YAML that GitLab and people read differently.

use std::path::{Path, PathBuf};

use executor::config::job_variables::JobVariable;
use regex::Regex;

fn templates() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("ci-templates");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| (path.clone(), std::fs::read_to_string(path).unwrap());
    let templates: Vec<_> = paths.map(read).collect();
    assert!(!templates.is_empty());
    templates
}

#[test]
fn templates_set_only_variables_that_exist() {
    let name = Regex::new(r"\bSAGEMAKER_[A-Z_]+\b").unwrap();
    for (path, text) in templates() {
        let mut found = 0;
        for variable in name.find_iter(&text).map(|found| found.as_str()) {
            found += 1;
            assert!(JobVariable::of(variable).is_some(), "{}: {variable}", path.display());
        }
        assert!(found > 0, "{} sets nothing of ours", path.display());
    }
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
    for (path, text) in templates() {
        let (head, body) = text.split_once("\n---\n").unwrap();
        for (key, input, line) in [
            ("timeout", "timeout", "  timeout: $[[ inputs.timeout ]]"),
            ("RUNNER_SCRIPT_TIMEOUT", "script_timeout", "    RUNNER_SCRIPT_TIMEOUT: \"$[[ inputs.script_timeout ]]\""),
        ] {
            let found: Vec<_> = body.lines().filter(|line| line.trim_start().starts_with(&format!("{key}:"))).collect();
            assert_eq!(found, [line], "{}", path.display());
            let declared =
                Regex::new(&format!("(?m)^    {input}:\\n +description: .*\\n +default: \"\"\\n +regex: (.*)$"))
                    .unwrap();
            let form = Regex::new(&declared.captures(head).unwrap_or_else(|| panic!("{input}: {head}"))[1]).unwrap();
            assert!(
                form.is_match("") && form.is_match("8h") && form.is_match("1h30m") && !form.is_match("8 hours"),
                "{form}"
            );
        }
    }
}

/// Templates are included: a job that would run by itself appears in every pipeline.
#[test]
fn templates_hold_hidden_jobs_only() {
    let top = Regex::new(r"(?m)^([A-Za-z.][A-Za-z0-9_.-]*):").unwrap();
    let input = Regex::new(r"\$\[\[ inputs\.([a-z_]+) \]\]").unwrap();
    for (path, text) in templates() {
        let (head, body) = text.split_once("\n---\n").unwrap_or(("", &text));
        assert!(head.is_empty() || head.contains("spec:"), "{}", path.display());
        let keys: Vec<_> = top.captures_iter(body).map(|found| found[1].to_owned()).collect();
        assert!(!keys.is_empty() && keys.iter().all(|key| key.starts_with('.')), "{}: {keys:?}", path.display());
        // Every input that is used is declared.
        for used in input.captures_iter(body) {
            assert!(head.contains(&format!("\n    {}:\n", &used[1])), "{}: input {}", path.display(), &used[1]);
        }
    }
}
