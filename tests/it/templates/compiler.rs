//! Compiles pipelines as GitLab does, with gitlab-ci-local in a folder that has the components: the whole text, and the jobs of one kind
//! of pipeline. No job runs, and nothing is fetched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use super::component::folder;
use crate::conformance::{shown, skipped};

/// The programs that `.ci/compiler` installs.
pub(crate) struct Compiler {
    node: PathBuf,
    program: PathBuf,
    modules: PathBuf,
    schema: PathBuf,
}

/// One job of a pipeline, as the compiler lists it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) stage: String,
    pub(super) when: String,
    pub(super) may_fail: bool,
    /// Jobs of the pipeline.
    pub(super) needs: Vec<String>,
}

impl Compiler {
    /// `None` where the programs are not installed; a line says so.
    pub(crate) fn find(test: &str) -> Option<Self> {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/compiler");
        let found = Self {
            node: tools.join("python/bin/node"),
            program: tools.join("node_modules/gitlab-ci-local/dist/index.js"),
            modules: tools.join("node_modules"),
            schema: tools.join("python/bin/check-jsonschema"),
        };
        let is_there = [&found.node, &found.program, &found.schema].iter().all(|path| path.exists());
        if !is_there {
            skipped(test, "no compiler of pipelines: run .ci/compiler, which needs Python and the package indexes");
        }
        is_there.then_some(found)
    }

    /// The compiler itself, without arguments.
    pub(crate) fn program(&self) -> Command {
        let mut program = Command::new(&self.node);
        program.arg(&self.program);
        program
    }

    /// Checks files against GitLab's schema.
    #[track_caller]
    pub(super) fn check_schema(&self, files: &[PathBuf]) {
        let ended = Command::new(&self.schema)
            .args(["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"])
            .args(files)
            .output()
            .unwrap();
        assert!(ended.status.success(), "{}", shown(&ended));
    }

    /// Which of `paths` match one of `patterns`, as the compiler matches `rules:changes`.
    #[track_caller]
    pub(crate) fn matching(&self, patterns: &Value, paths: &[&str]) -> Vec<String> {
        let script = "const m = require(process.argv[1]); const [patterns, paths] = JSON.parse(process.argv[2]); \
                      console.log(JSON.stringify(paths.filter((path) => m.some(path, patterns, {dot: true}))));";
        let request = Value::from(vec![patterns.clone(), paths.to_vec().into()]).to_string();
        let module = self.modules.join("micromatch");
        let ended = Command::new(&self.node).arg("-e").arg(script).arg(module).arg(request).output().unwrap();
        assert!(ended.status.success(), "{}", shown(&ended));
        serde_json::from_slice(&ended.stdout).unwrap()
    }
}

/// A repository with the components in it. The compiler leaves files in it, so it compiles one pipeline at a time.
pub(super) struct Project<'a> {
    compiler: &'a Compiler,
    folder: TempDir,
    home: TempDir,
}

impl<'a> Project<'a> {
    /// A project with these files besides, which rules look for.
    #[track_caller]
    pub(super) fn new(compiler: &'a Compiler, files: &[&str]) -> Self {
        let project = Self { compiler, folder: tempfile::tempdir().unwrap(), home: tempfile::tempdir().unwrap() };
        for entry in std::fs::read_dir(folder().join("templates")).unwrap() {
            let entry = entry.unwrap();
            let to = project.folder.path().join("templates").join(entry.file_name());
            std::fs::create_dir_all(&to).unwrap();
            std::fs::copy(entry.path().join("template.yml"), to.join("template.yml")).unwrap();
        }
        for path in files {
            project.file(
                path, "
",
            );
        }
        project.file(".gitlab-ci.yml", "stages: [test]\n");
        let commands: [&[&str]; 6] = [
            &["init", "--quiet", "--initial-branch", "main"],
            &["remote", "add", "origin", "git@gitlab.invalid:ml/wine.git"],
            &["add", "--all"],
            &["commit", "--quiet", "--message", "Begin"],
            &["update-ref", "refs/remotes/origin/main", "HEAD"],
            &["symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main"],
        ];
        for arguments in commands {
            let ended = project.command("git").args(arguments).output().unwrap();
            assert!(ended.status.success(), "{arguments:?}: {}", shown(&ended));
        }
        project
    }

    pub(super) fn file(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A program in the project with an environment of its own.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.home.path())
            .envs([("GIT_AUTHOR_NAME", "x"), ("GIT_AUTHOR_EMAIL", "x@example.com")])
            .envs([("GIT_COMMITTER_NAME", "x"), ("GIT_COMMITTER_EMAIL", "x@example.com")]);
        command
    }

    fn compile(&self, pipeline: &str, arguments: &[String]) -> Output {
        self.file(".gitlab-ci.yml", pipeline);
        // The schema that the compiler brings wants a tag in `tags`, which GitLab does not; GitLab's own is checked apart.
        // Node may end before a pipe has taken more than 64 KiB; a file takes all.
        let told = self.home.path().join("stdout");
        let ended = self
            .command(&self.compiler.node)
            .arg(&self.compiler.program)
            .arg("--home")
            .arg(self.home.path())
            .arg("--json-schema-validation=false")
            // A commit of the tests changes whatever its pipeline asks for.
            .arg("--evaluate-rule-changes=false")
            .args(arguments)
            .stdout(std::fs::File::create(&told).unwrap())
            .output()
            .unwrap();
        Output { stdout: std::fs::read(told).unwrap(), ..ended }
    }

    /// The pipeline with everything that it includes.
    #[track_caller]
    pub(super) fn whole(&self, pipeline: &str) -> String {
        let ended = self.compile(pipeline, &["--preview".to_owned()]);
        assert!(ended.status.success(), "{pipeline}\n{}", shown(&ended));
        String::from_utf8(ended.stdout).unwrap()
    }

    /// What the compiler says about a pipeline that it refuses.
    #[track_caller]
    pub(super) fn refused(&self, pipeline: &str) -> String {
        let ended = self.compile(pipeline, &["--list-json".to_owned()]);
        assert!(!ended.status.success(), "{pipeline}\n{}", shown(&ended));
        shown(&ended)
    }

    /// The jobs of a pipeline with these variables, which GitLab would not refuse.
    #[track_caller]
    pub(super) fn jobs(&self, pipeline: &str, variables: &BTreeMap<&str, &str>) -> Vec<Listed> {
        let (jobs, missing) = self.jobs_and_missing(pipeline, variables);
        assert_eq!(missing, Vec::<String>::new(), "GitLab refuses the pipeline {variables:?}:\n{pipeline}");
        jobs
    }

    /// The jobs, and each need that the pipeline lacks and that is not optional, for which GitLab makes no pipeline at all.
    #[track_caller]
    pub(super) fn jobs_and_missing(
        &self,
        pipeline: &str,
        variables: &BTreeMap<&str, &str>,
    ) -> (Vec<Listed>, Vec<String>) {
        let set = variables.iter().flat_map(|(name, value)| ["--variable".to_owned(), format!("{name}={value}")]);
        let names = variables.keys().copied().collect::<Vec<_>>().join(",");
        let arguments = ["--list-json", "--ignore-predefined-vars", &names].map(str::to_owned);
        let ended = self.compile(pipeline, &arguments.into_iter().chain(set).collect::<Vec<_>>());
        assert!(ended.status.success(), "{pipeline}\n{variables:?}\n{}", shown(&ended));
        let listed: Vec<Value> = serde_json::from_slice(&ended.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let is_there = |name: &Value| listed.iter().any(|job| job["name"] == *name && job["when"] != "never");
        let needs = |job: &Value| job["needs"].as_array().cloned().unwrap_or_default();
        let mut missing = Vec::new();
        for job in listed.iter().filter(|job| job["when"] != "never") {
            let lacks = |need: &Value| !is_there(&need["job"]) && need["optional"] != true;
            let lacking = needs(job).into_iter().filter(lacks);
            missing.extend(lacking.map(|need| format!("{} needs {}", text(&job["name"]), text(&need["job"]))));
        }
        let job = |job: &Value| Listed {
            name: text(&job["name"]),
            stage: text(&job["stage"]),
            when: text(&job["when"]),
            may_fail: job["allow_failure"] == true,
            needs: needs(job).iter().map(|need| &need["job"]).filter(|name| is_there(name)).map(text).collect(),
        };
        (listed.iter().map(job).collect(), missing)
    }
}
