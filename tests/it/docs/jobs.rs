//! The fragments of the pages for authors of jobs and the example pipelines hold variables that exist, and the operator's sample allows what they ask for.

use executor::config::env::Environment;
use executor::config::job_variables::{JOB_VARIABLES, JobVariable};
use executor::config::policy;
use executor::config::settings::Settings;
use executor::gitlab::JobContext;
use regex::Regex;
use serde_json::json;

use super::{OPERATOR_FILE, read};
use crate::support::pipeline::{PipelineJob, jobs};

/// What the report of an earlier job sets.
const REPORTED: (&str, &str) =
    ("$SAGEMAKER_MODEL_URI", "s3://example-models/churn/gitlab-231-4711-0123abcd/output/model.tar.gz");

/// The pages for authors of jobs, in the order in which they are read.
pub(crate) const PAGES: [&str; 8] = [
    "docs/WHY.md",
    "docs/FIRST-JOB.md",
    "docs/JOBS.md",
    "docs/LONG-JOBS.md",
    "docs/SPOT.md",
    "docs/DATA.md",
    "docs/NODES.md",
    "docs/COST.md",
];

/// The sample with its rule for training, in a VPC.
fn settings() -> Settings {
    let sample = read(OPERATOR_FILE);
    let rule = Regex::new("(?m)^#   (.*)$").unwrap();
    assert!(rule.is_match(&sample), "the sample has a rule for training");
    let text = rule
        .replace_all(&sample, "$1")
        .replace("\nsubnets = []", "\nsubnets = [\"subnet-0a\"]")
        .replace("\nsecurity_group_ids = []", "\nsecurity_group_ids = [\"sg-0a\"]");
    toml::from_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

fn fragments(page: &str) -> Vec<String> {
    let block = Regex::new(r"(?s)```yaml\n(.*?)```").unwrap();
    block.captures_iter(page).map(|found| found[1].to_owned()).collect()
}

#[track_caller]
fn is_allowed(job: &PipelineJob, settings: &Settings) {
    let payload = json!({
        "id": 4711, "job_info": {"name": job.name, "project_id": 231, "project_full_path": "ml/churn"},
        "git_info": {"ref": "main", "protected": true, "repo_url": "https://t:t@gitlab.example.com/ml/churn.git"},
        "image": {"name": job.image}
    });
    let payload: JobContext = serde_json::from_value(payload).unwrap();
    let mut pairs = Vec::new();
    for (name, value) in &job.variables {
        assert!(!name.starts_with("SAGEMAKER_") || JobVariable::of(name).is_some(), "{}: {name}", job.name);
        pairs.push((format!("CUSTOM_ENV_{name}").into(), value.replace(REPORTED.0, REPORTED.1).into()));
    }
    let wishes = Environment::from_pairs(pairs).job_variables().unwrap();
    match policy::decide(&payload, &wishes, settings) {
        Ok(decision) => {
            assert_eq!(decision.rule.as_deref(), Some("training"));
            assert_eq!(decision.warnings, Vec::<String>::new(), "{job:?}");
        }
        Err(refusal) => panic!("{}\n{job:?}", executor::base::failure::render(&refusal.into())),
    }
}

#[test]
fn the_examples_for_authors_of_jobs_are_allowed() {
    let (page, settings) = (PAGES.map(read).join("\n"), settings());
    let fragments = fragments(&page);
    let others = page.matches("```text\n").count() + page.matches("```sh\n").count();
    assert_eq!(
        fragments.len() + others,
        page.matches("```").count() / 2,
        "a block is neither YAML, nor a log, nor commands"
    );
    for text in fragments.iter().chain([&read("docs/examples/landing-zone.gitlab-ci.yml")]) {
        let jobs = jobs(text);
        assert!(!jobs.is_empty(), "{text}");
        for job in jobs {
            assert!(!job.image.is_empty() && !job.script.is_empty(), "{job:?}");
            is_allowed(&job, &settings);
        }
    }
    for variable in JOB_VARIABLES {
        assert!(page.contains(variable.name.trim_end_matches('*')), "the pages lack {}", variable.name);
    }
    for named in Regex::new(r"\bSAGEMAKER_[A-Z_]+\b").unwrap().find_iter(&page) {
        let is_reported =
            ["TRAINING_JOB_NAME", "TRAINING_JOB_ARN", "MODEL_URI", "TRAINING_SECONDS", "BILLABLE_SECONDS"]
                .contains(&named.as_str().trim_start_matches("SAGEMAKER_"));
        assert!(is_reported || JobVariable::of(named.as_str()).is_some(), "{}", named.as_str());
    }
}

/// The first example begins near the top, and its data and spot instances are five lines.
#[test]
fn the_first_screen_is_five_lines_to_copy() {
    let page = read("docs/JOBS.md");
    let (before, _) = page.split_once("```yaml").unwrap();
    assert!(before.lines().count() < 12, "the example is on the first screen");
    let first = &jobs(&fragments(&page)[0])[0];
    assert_eq!(first.variables.len(), 5, "{first:?}");
    assert!(first.variables.iter().all(|(name, _)| name.starts_with("SAGEMAKER_")));
}
