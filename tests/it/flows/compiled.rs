//! The jobs of a pipeline as gitlab-ci-local compiles them of a commit: its components included by tag from a repository beside it, its
//! rules decided.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::event::{HOST, PipelineFacts, expanded};
use super::schedule::{MayFail, PlannedJob, RunsWhen};
use crate::conformance::shown;
use crate::support::gitlab::Repository;
use crate::templates::compiler::Compiler;
use crate::templates::yaml::{documents, texts};

/// The project of the components.
pub(super) const COMPONENTS: &str = "ml/components";
/// Keywords at the top of a pipeline that are no jobs.
const GLOBAL: [&str; 6] = ["default", "include", "spec", "stages", "variables", "workflow"];

/// A job of a pipeline.
#[derive(Debug, Clone)]
pub(super) struct CompiledJob {
    pub(super) name: String,
    pub(super) stage: String,
    pub(super) needs: Option<Vec<Need>>,
    /// The job with what it inherits.
    pub(super) keywords: Value,
}

/// A job that another one needs.
#[derive(Debug, Clone)]
pub(super) struct Need {
    pub(super) job: String,
    pub(super) with_artifacts: bool,
}

/// A compiled pipeline.
#[derive(Debug)]
pub(super) struct Compiled {
    /// `variables` of the pipeline.
    pub(super) variables: Vec<(String, String)>,
    pub(super) jobs: Vec<CompiledJob>,
    pub(super) planned: Vec<PlannedJob>,
}

/// Compiles the pipeline of a commit. `variables` are those that rules may ask for.
#[track_caller]
pub(super) fn compiled(
    compiler: &Compiler,
    repository: &Repository,
    components: &Path,
    facts: &PipelineFacts,
    variables: &[(String, String)],
) -> Compiled {
    let commit = Commit::check_out(compiler, repository, components, facts);
    let listed = commit.told("--list-json", variables);
    // With the variables of the rule of `workflow` that holds.
    let whole = commit.told("--preview", variables);
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    read(&documents(&whole, "the compiled pipeline").remove(0), &listed)
}

/// Tells whether the `workflow` of a commit that changes these files lets a pipeline begin. The compiler decides rules of jobs alone, so a job has
/// those of the workflow, without the ones whose `changes` no file matches.
#[track_caller]
pub(super) fn starts(
    compiler: &Compiler,
    repository: &Repository,
    components: &Path,
    facts: &PipelineFacts,
    variables: &[(String, String)],
    changed: &[&str],
) -> bool {
    let commit = Commit::check_out(compiler, repository, components, facts);
    let mut whole = documents(&commit.told("--preview", variables), "the compiled pipeline").remove(0);
    let mut rules = whole["workflow"]["rules"].take();
    let rules = rules.as_array_mut().expect("the flow has a workflow");
    rules.retain(|rule| rule["changes"].is_null() || !compiler.matching(&rule["changes"]["paths"], changed).is_empty());
    for rule in rules.iter_mut() {
        let rule = rule.as_object_mut().expect("a rule has keys");
        for key in ["changes", "auto_cancel", "variables"] {
            rule.remove(key);
        }
    }
    let job = json!({"this-pipeline": {"script": ["true"], "rules": rules}});
    std::fs::write(commit.project.join(".gitlab-ci.yml"), job.to_string()).unwrap();
    let listed: Vec<Value> = serde_json::from_str(&commit.told("--list-json", variables)).unwrap();
    listed.iter().any(|job| job["name"] == "this-pipeline" && job["when"] != "never")
}

/// A commit in a folder of its own.
struct Commit<'a> {
    compiler: &'a Compiler,
    home: PathBuf,
    project: PathBuf,
    _folder: tempfile::TempDir,
}

impl<'a> Commit<'a> {
    #[track_caller]
    fn check_out(compiler: &'a Compiler, repository: &Repository, components: &Path, facts: &PipelineFacts) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (home, project) = (folder.path().join("home"), folder.path().join("project"));
        std::fs::create_dir(&home).unwrap();
        let settings = format!(
            "[user]\n\tname = x\n\temail = x@example.com\n[url \"file://{}\"]\n\tinsteadOf = ssh://git@{HOST}:22/{COMPONENTS}\n",
            components.display()
        );
        std::fs::write(home.join(".gitconfig"), settings).unwrap();
        repository.check_out(&facts.sha, &project, &format!("git@{HOST}:{}.git", facts.project.path));
        Self { compiler, home, project, _folder: folder }
    }

    /// The compiler's words about the pipeline with these variables.
    #[track_caller]
    fn told(&self, what: &str, variables: &[(String, String)]) -> String {
        let mut program = self.compiler.program();
        program.current_dir(&self.project).env_clear().env("HOME", &self.home).arg("--home").arg(&self.home);
        program.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        // The schema that the compiler brings wants a tag in `tags`, which GitLab does not.
        program.arg("--json-schema-validation=false").arg("--evaluate-rule-changes=false").arg(what);
        let names = variables.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",");
        program.args(["--ignore-predefined-vars", &names]);
        for (name, value) in variables {
            program.arg("--variable").arg(format!("{name}={value}"));
        }
        // Node may end before a pipe has taken more than 64 KiB; a file takes all.
        let told = self.home.join("stdout");
        let ended = program.stdout(std::fs::File::create(&told).unwrap()).output().unwrap();
        assert!(ended.status.success(), "{}", shown(&ended));
        std::fs::read_to_string(told).unwrap()
    }
}

/// Jobs of the whole pipeline that are not left out by their rules.
#[track_caller]
fn read(whole: &Value, listed: &[Value]) -> Compiled {
    let stages = texts(&whole["stages"]);
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
    let there: Vec<&Value> = listed.iter().filter(|job| job["when"] != "never").collect();
    let job = |listed: &&Value| {
        let name = text(&listed["name"]);
        let keywords = whole[&name].clone();
        assert!(keywords.is_object() && !GLOBAL.contains(&name.as_str()), "{name} is no job: {whole}");
        let need = |need: &Value| Need { job: text(&need["job"]), with_artifacts: need["artifacts"] != false };
        let is_there = |need: &&Value| need["optional"] != true || there.iter().any(|job| job["name"] == need["job"]);
        let needs = listed["needs"].as_array().map(|needs| needs.iter().filter(is_there).map(need).collect());
        CompiledJob { name, stage: text(&listed["stage"]), needs, keywords }
    };
    let jobs: Vec<CompiledJob> = there.iter().map(job).collect();
    let plan = |(job, listed): (&CompiledJob, &&Value)| PlannedJob {
        name: job.name.clone(),
        stage: stages.iter().position(|stage| *stage == job.stage).expect("a job is in a stage"),
        runs_when: RunsWhen::of(&text(&listed["when"])),
        may_fail: match &listed["allow_failure"] {
            Value::Bool(true) => MayFail::Yes,
            Value::Object(codes) => MayFail::With(numbers(&codes["exit_codes"])),
            _ => MayFail::No,
        },
        needs: job.needs.as_ref().map(|needs| needs.iter().map(|need| need.job.clone()).collect()),
    };
    let planned = jobs.iter().zip(&there).map(plan).collect();
    Compiled { variables: variables(&whole["variables"]), jobs, planned }
}

fn numbers(value: &Value) -> Vec<i64> {
    value.as_array().map_or_else(|| value.as_i64().into_iter().collect(), |all| all.iter().flat_map(numbers).collect())
}

/// `variables` as texts, also of those with a description.
fn variables(of: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let value = |value: &Value| text(value.get("value").unwrap_or(value));
    of.as_object().into_iter().flatten().map(|(name, given)| (name.clone(), value(given))).collect()
}

impl CompiledJob {
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        variables(&self.keywords["variables"])
    }

    pub(super) fn lines(&self, keyword: &str) -> Vec<String> {
        texts(&self.keywords[keyword]).into_iter().map(str::to_owned).collect()
    }

    pub(super) fn image(&self) -> &str {
        let image = &self.keywords["image"];
        image["name"].as_str().or(image.as_str()).unwrap_or_default()
    }

    /// Whether a runner with this tag takes it.
    pub(super) fn has_tag(&self, tag: &str) -> bool {
        texts(&self.keywords["tags"]).contains(&tag)
    }

    /// The name of each id token, with its audience.
    pub(super) fn id_tokens(&self) -> Vec<(&str, &str)> {
        let tokens = self.keywords["id_tokens"].as_object().into_iter().flatten();
        tokens.map(|(name, token)| (name.as_str(), token["aud"].as_str().expect("a token has an audience"))).collect()
    }

    /// The environment, with its variables replaced by those of the job.
    pub(super) fn environment(&self, variables: &std::collections::BTreeMap<String, String>) -> Option<JobEnvironment> {
        let given = &self.keywords["environment"];
        let name = given["name"].as_str().or(given.as_str())?;
        let text = |key: &str| given[key].as_str().map(|text| expanded(text, variables));
        Some(JobEnvironment {
            name: expanded(name, variables),
            action: text("action").unwrap_or_else(|| "start".to_owned()),
            tier: text("deployment_tier"),
            url: given["url"].as_str().map(str::to_owned),
            on_stop: text("on_stop"),
            auto_stop_in: text("auto_stop_in"),
        })
    }
}

/// `environment` of a job.
#[derive(Debug, Clone)]
pub(super) struct JobEnvironment {
    pub(super) name: String,
    /// `start`, `stop`, `access`, ...
    pub(super) action: String,
    pub(super) tier: Option<String>,
    /// Before its variables are replaced, which the job's dotenv report may give.
    pub(super) url: Option<String>,
    pub(super) on_stop: Option<String>,
    pub(super) auto_stop_in: Option<String>,
}

#[test]
fn rules_leave_jobs_and_optional_needs_out() {
    let whole = serde_json::json!({
        "stages": [".pre", "test", "train", ".post"],
        "variables": {"A": {"value": "a", "description": "x"}, "B": 1},
        "lint": {"stage": "test", "script": ["true"]},
        "train": {"stage": "train", "script": "true", "environment": {"name": "review/$REF", "action": "access"}},
    });
    let listed = serde_json::json!([
        {"name": "lint", "stage": "test", "when": "never", "allow_failure": false, "needs": null},
        {"name": "train", "stage": "train", "when": "manual", "allow_failure": {"exit_codes": [3]},
         "needs": [{"job": "lint", "artifacts": false, "optional": true}]},
    ]);
    let found = read(&whole, listed.as_array().unwrap());
    assert_eq!(found.variables, [("A".to_owned(), "a".to_owned()), ("B".to_owned(), "1".to_owned())]);
    let [job] = found.jobs.as_slice() else { panic!("{found:?}") };
    assert!(job.needs.as_ref().unwrap().is_empty() && job.lines("script") == ["true"], "{job:?}");
    assert_eq!((found.planned[0].stage, &found.planned[0].may_fail), (2, &MayFail::With(vec![3])));
    let variables = [("REF".to_owned(), "better".to_owned())].into();
    let environment = job.environment(&variables).unwrap();
    assert_eq!((environment.name.as_str(), environment.action.as_str()), ("review/better", "access"));
}
