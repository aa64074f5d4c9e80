//! Runs a pipeline: hands its jobs to the runners in GitLab's order, each with the artifacts and variables of those before it, and
//! keeps what comes of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::compiled::{Compiled, CompiledJob, JobEnvironment, Need, compiled};
use super::event::{PipelineFacts, ProjectName, environment_slug, expanded, expanded_all};
use super::schedule::{JobState, Schedule};
use super::site::{Project, Site, SiteEnvironment};
use crate::support::gitlab_api::TokenKind;
use crate::support::job::{Artifacts, Cache, Job, Origin, Variable};
use crate::support::outcome::Outcome;
use crate::support::world::Executor;
use crate::templates::yaml::texts;

/// The tag of jobs that run in training jobs.
const TAG: &str = "sagemaker";

/// A job that ended.
#[derive(Debug)]
pub(crate) struct EndedJob {
    pub(crate) outcome: Outcome,
    /// Of its dotenv report.
    pub(crate) variables: Vec<(String, String)>,
}

impl EndedJob {
    /// The value that its dotenv report gives to later jobs.
    #[track_caller]
    pub(crate) fn variable(&self, name: &str) -> &str {
        let found = self.variables.iter().find(|(key, _)| key == name);
        &found.unwrap_or_else(|| panic!("no {name} in the dotenv report\n{}", self.outcome)).1
    }

    /// The package that its dotenv report names, of its artifacts.
    #[track_caller]
    pub(crate) fn package(&self) -> Vec<u8> {
        self.file(self.variable("PACKAGE_FILE").trim_start_matches("./"))
    }

    /// A file of its artifacts.
    #[track_caller]
    pub(crate) fn file(&self, path: &str) -> Vec<u8> {
        let mut files = self.outcome.artifact("archive").files();
        files.remove(path).unwrap_or_else(|| panic!("no {path} among the artifacts\n{}", self.outcome))
    }
}

/// A pipeline of a site.
pub(crate) struct Pipeline<'a> {
    site: &'a Site,
    project: Project<'a>,
    pub(super) facts: PipelineFacts,
    compiled: Compiled,
    pub(super) schedule: Schedule,
    pub(super) ended: BTreeMap<String, EndedJob>,
    /// The number of the user who starts its jobs.
    user: &'static str,
}

impl<'a> Pipeline<'a> {
    #[track_caller]
    pub(super) fn new(site: &'a Site, project: Project<'a>, facts: PipelineFacts) -> Self {
        let of_rules = site.of_rules(&facts, project.variables);
        let compiled = compiled(&site.compiler, project.repository, &site.components, &facts, &of_rules);
        let schedule = Schedule::new(compiled.planned.clone());
        Self { site, project, facts, compiled, schedule, ended: BTreeMap::new(), user: "1" }
    }

    /// Lets another user start what comes next.
    pub(crate) fn by(&mut self, user: &'static str) -> &mut Self {
        self.user = user;
        self
    }

    /// Runs every job that needs nobody to start it.
    #[track_caller]
    pub(crate) fn run(&mut self) -> &mut Self {
        while let Some(name) = self.schedule.next() {
            self.run_job(&name, &[]);
        }
        self
    }

    /// Starts a manual job with these variables, and runs what follows.
    #[track_caller]
    pub(crate) fn play(&mut self, name: &str, variables: &[(&str, &str)]) -> &mut Self {
        self.schedule.play(name);
        self.run_job(name, variables);
        self.run()
    }

    /// Runs one job with variables of the pipeline, and none that follows: as where the schedule's other jobs are of no interest.
    #[track_caller]
    pub(crate) fn run_alone(&mut self, name: &str, variables: &[(&str, &str)]) -> &mut Self {
        self.run_job(name, variables);
        self
    }

    /// Runs a job again that has ended, as **Retry** does, and for a deployment of an earlier pipeline the button **Rollback**; then what
    /// was skipped because of it.
    #[track_caller]
    pub(crate) fn retry(&mut self, name: &str) -> &mut Self {
        self.retry_with(name, &[])
    }

    /// [`Pipeline::retry`] with variables, of a manual job.
    #[track_caller]
    pub(crate) fn retry_with(&mut self, name: &str, variables: &[(&str, &str)]) -> &mut Self {
        self.schedule.retry(name);
        self.run_job(name, variables);
        self.run()
    }

    /// The names of jobs in a state, in the order of stages.
    pub(crate) fn in_state(&self, state: JobState) -> Vec<&str> {
        self.schedule.states().filter(|(_, found)| *found == state).map(|(name, _)| name).collect()
    }

    #[track_caller]
    pub(crate) fn job(&self, name: &str) -> &EndedJob {
        self.ended.get(name).unwrap_or_else(|| panic!("{name} did not run: {:?}", self.schedule))
    }

    /// All jobs ran and passed but these, which wait for somebody.
    #[track_caller]
    pub(crate) fn passed_but(&self, manual: &[&str]) -> &Self {
        for (name, state) in self.schedule.states() {
            let expected = if manual.contains(&name) { JobState::Manual } else { JobState::Success };
            let outcome = self.ended.get(name).map(|ended| ended.outcome.to_string()).unwrap_or_default();
            assert_eq!(state, expected, "{name}\n{outcome}");
        }
        self
    }

    /// The jobs with their states, and the traces of those that failed.
    pub(crate) fn told(&self) -> String {
        let failed = |state| matches!(state, JobState::Failed | JobState::Warning);
        let line = |(name, state): (&str, JobState)| {
            let ended = self.ended.get(name).filter(|_| failed(state));
            format!("{name}: {state:?}\n{}", ended.map(|ended| ended.outcome.to_string()).unwrap_or_default())
        };
        self.schedule.states().map(line).collect::<Vec<_>>().concat()
    }

    #[track_caller]
    fn run_job(&mut self, name: &str, given: &[(&str, &str)]) {
        let job = self.compiled.jobs.iter().find(|job| job.name == name).expect("a job of the pipeline").clone();
        let before = self.taken_from(&job);
        let executor = if job.has_tag(TAG) { Executor::Custom } else { Executor::Shell };
        let known = self.known(&job, &before, given);
        let environment = job.environment(&known);
        if let Some(environment) = &environment {
            self.enter(environment);
        }
        let (id, sent) = self.site.world.gitlab.enqueue_made(|id, token| {
            self.site.api.token(token, TokenKind::Job);
            self.payload(&job, id, &before, given, environment.as_ref())
        });
        let outcome = self.site.world.run_queued(id, &sent, executor);
        let is_success = outcome.state.as_deref() == Some("success");
        let variables = dotenv(&outcome);
        self.schedule.ended(name, is_success, outcome.exit_code);
        if let Some(environment) = &environment {
            let known = known.into_iter().chain(variables.iter().cloned()).collect();
            self.leave(environment, is_success, &known);
        }
        let ended = EndedJob { outcome, variables };
        super::show::job(&self.facts, name, &ended);
        self.ended.insert(name.to_owned(), ended);
    }

    /// The jobs whose artifacts and variables this one gets.
    fn taken_from(&self, job: &CompiledJob) -> Vec<String> {
        let stage = |name: &str| self.compiled.planned.iter().find(|job| job.name == name).map(|job| job.stage);
        let earlier = || {
            let earlier = self.compiled.jobs.iter().filter(|other| stage(&other.name) < stage(&job.name));
            earlier.map(|other| other.name.clone()).collect()
        };
        let needed = |needs: &Vec<Need>| {
            let needs = needs.iter().filter(|need| need.with_artifacts);
            needs.map(|need| need.job.clone()).collect()
        };
        let names: Vec<String> = job.needs.as_ref().map_or_else(earlier, needed);
        let wanted = job.keywords["dependencies"].as_array().map(|_| texts(&job.keywords["dependencies"]));
        let is_wanted = |name: &String| wanted.as_ref().is_none_or(|wanted| wanted.contains(&name.as_str()));
        names.into_iter().filter(is_wanted).filter(|name| self.ended.contains_key(name)).collect()
    }

    /// Variables of the job in GitLab's order of precedence, the last of a name counts; without those of an environment.
    fn all_variables(&self, job: &CompiledJob, before: &[String], given: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut all = self.facts.variables();
        all.extend(self.site.freeze());
        all.push(("CI_JOB_NAME".to_owned(), job.name.clone()));
        all.push(("CI_JOB_STAGE".to_owned(), job.stage.clone()));
        all.push(("GITLAB_USER_ID".to_owned(), self.user.to_owned()));
        all.push(("GITLAB_USER_LOGIN".to_owned(), format!("user{}", self.user)));
        all.extend(self.compiled.variables.iter().cloned());
        all.extend(job.variables());
        all.extend(before.iter().flat_map(|name| self.ended[name].variables.iter().cloned()));
        all.extend(given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all
    }

    /// Values of the job's variables and of those of the project that hold for every environment.
    fn known(&self, job: &CompiledJob, before: &[String], given: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut all = self.all_variables(job, before, given);
        let of_project = self.project.variables.iter().filter(|known| known.reaches(None));
        all.extend(of_project.map(|known| (known.variable.key.clone(), known.variable.value.clone())));
        all.extend(self.facts.event.given());
        expanded_all(&all)
    }

    fn payload(
        &self,
        job: &CompiledJob,
        id: u64,
        before: &[String],
        given: &[(&str, &str)],
        environment: Option<&JobEnvironment>,
    ) -> Job {
        let mut all: Vec<Variable> = Vec::new();
        let known = self.known(job, before, given);
        let own = expanded_all(&self.all_variables(job, before, given));
        let depth = own.get("GIT_DEPTH").map_or(20, |depth| depth.parse().unwrap());
        // GitLab sends no variable that the pipeline does not have.
        let is_absent = |name: &str, value: &str| value.is_empty() && name.starts_with("CI_");
        let own = own.into_iter().filter(|(name, value)| !is_absent(name, value));
        all.extend(environment.into_iter().flat_map(of_environment));
        all.extend(own.map(|(name, value)| Variable::new(&name, &value)));
        let name = environment.map(|environment| environment.name.as_str());
        let of_project = self.project.variables.iter().filter(|known| known.reaches(name));
        all.extend(of_project.map(|known| known.variable.clone()));
        all.extend(self.facts.event.given().iter().map(|(name, value)| Variable::new(name, value)));
        for (token, audience) in job.id_tokens() {
            let audience = expanded(audience, &known);
            all.push(Variable::new(token, &self.id_token(id, &audience, environment)).masked());
        }
        if !job.has_tag(TAG) {
            // The shell executor's login shell would set its own.
            all.push(Variable::new("PATH", &self.site.world.path()));
        }
        let mut script = job.lines("before_script");
        script.extend(job.lines("script"));
        let mut sent = Job::new()
            .named(&job.name)
            .image(job.image())
            .sources(self.project.repository, self.facts.event.ref_name(), &self.facts.sha)
            .origin(Origin {
                project_id: self.facts.project.number,
                pipeline_id: self.facts.id,
                stage: job.stage.clone(),
                git_ref: self.facts.event.git_ref(),
                refspecs: self.facts.refspecs(depth),
                depth,
            })
            .step_of("script", script);
        let after = job.lines("after_script");
        if !after.is_empty() {
            sent = sent.step_of("after_script", after);
        }
        for need in before {
            let ended = &self.ended[need];
            if ended.outcome.artifacts.iter().any(|artifact| artifact.kind == "archive") {
                sent = sent.dependency(ended.outcome.id, need);
            }
        }
        let sent = artifacts(&job.keywords["artifacts"]).into_iter().fold(sent, Job::artifacts);
        let sent = caches(&job.keywords["cache"]).into_iter().fold(sent, Job::cache);
        all.into_iter().fold(sent, Job::variable)
    }

    /// The claims that GitLab signs for a job.
    fn id_token(&self, id: u64, audience: &str, environment: Option<&JobEnvironment>) -> String {
        let (name, ref_type) = (self.facts.event.ref_name(), self.facts.event.ref_type());
        let ProjectName { number, path } = self.facts.project;
        let mut claims = json!({
            "sub": format!("project_path:{path}:ref_type:{ref_type}:ref:{name}"),
            "aud": audience,
            "user_id": self.user,
            "user_login": format!("user{}", self.user),
            "project_id": number.to_string(),
            "project_path": path,
            "pipeline_id": self.facts.id.to_string(),
            "job_id": id.to_string(),
            "ref": name,
            "ref_type": ref_type,
            "ref_protected": (name == "main").to_string(),
            "sha": self.facts.sha,
        });
        if let Some(environment) = environment {
            claims["environment"] = environment.name.clone().into();
        }
        self.site.key.token_with(claims)
    }

    /// An environment exists as soon as a job names it.
    fn enter(&self, environment: &JobEnvironment) {
        let mut all = self.project.environments.borrow_mut();
        all.entry(environment.name.clone()).or_insert_with(|| SiteEnvironment {
            tier: environment.tier.clone(),
            url: None,
            is_stopped: true,
            on_stop: None,
            auto_stop_in: None,
            deployments: Vec::new(),
        });
    }

    /// GitLab takes the stop job of the last deployment that ended, also of a failed one (`environment_stop_actions_include_all_finished_deployments`,
    /// always on since 17.0).
    fn leave(&self, environment: &JobEnvironment, is_success: bool, known: &BTreeMap<String, String>) {
        let mut all = self.project.environments.borrow_mut();
        let found = all.get_mut(&environment.name).expect("it was entered");
        match (environment.action.as_str(), is_success) {
            ("start", _) => {
                found.is_stopped = false;
                found.on_stop.clone_from(&environment.on_stop);
                found.auto_stop_in.clone_from(&environment.auto_stop_in);
                if is_success {
                    found.url = environment.url.as_ref().map(|url| expanded(url, known));
                    found.deployments.push(self.facts.id);
                }
            }
            ("stop", true) => found.is_stopped = true,
            _ => {}
        }
    }
}

/// Variables of a job with an environment.
fn of_environment(environment: &JobEnvironment) -> Vec<Variable> {
    let mut own = vec![
        Variable::new("CI_ENVIRONMENT_NAME", &environment.name),
        Variable::new("CI_ENVIRONMENT_SLUG", &environment_slug(&environment.name)),
        Variable::new("CI_ENVIRONMENT_ACTION", &environment.action),
    ];
    own.extend(environment.tier.as_ref().map(|tier| Variable::new("CI_ENVIRONMENT_TIER", tier)));
    own.extend(environment.url.as_ref().map(|url| Variable::new("CI_ENVIRONMENT_URL", url)));
    own
}

/// The archive and the reports, as GitLab asks the runner for them.
fn artifacts(given: &Value) -> Vec<Artifacts> {
    let expire_in = given["expire_in"].as_str().unwrap_or("30 days");
    let when = match given["when"].as_str() {
        None | Some("on_success") => "on_success",
        Some("always") => "always",
        Some("on_failure") => "on_failure",
        Some(other) => panic!("`artifacts:when: {other}` is none"),
    };
    let mut all = Vec::new();
    let paths = texts(&given["paths"]);
    if !paths.is_empty() {
        let exclude = texts(&given["exclude"]);
        let archive = exclude.into_iter().fold(Artifacts::paths(paths), Artifacts::exclude);
        all.push(Artifacts { expire_in: expire_in.to_owned(), ..archive.when(when) });
    }
    for (kind, files) in given["reports"].as_object().into_iter().flatten() {
        let (kind, files) = match kind.as_str() {
            "coverage_report" => (files["coverage_format"].as_str().unwrap_or_default(), texts(&files["path"])),
            kind => (kind, texts(files)),
        };
        let reports = files.into_iter().map(|file| Artifacts::report(kind, file));
        all.extend(reports.map(|report| Artifacts { expire_in: expire_in.to_owned(), ..report }));
    }
    all
}

/// Caches, whose key is their prefix: the files of a key do not change here.
fn caches(given: &Value) -> Vec<Cache> {
    let one = |cache: &Value| Cache {
        key: cache["key"]["prefix"].as_str().or(cache["key"].as_str()).unwrap_or("default").to_owned(),
        paths: texts(&cache["paths"]).into_iter().map(str::to_owned).collect(),
        policy: "pull-push",
        when: "on_success",
    };
    given.as_array().map_or_else(
        || Some(given).filter(|cache| cache.is_object()).map(one).into_iter().collect(),
        |all| all.iter().map(one).collect(),
    )
}

/// The lines `NAME=value` of the dotenv report.
fn dotenv(outcome: &Outcome) -> Vec<(String, String)> {
    let reports = outcome.artifacts.iter().filter(|artifact| artifact.kind == "dotenv");
    let files = reports.flat_map(|report| report.files().into_values());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("a dotenv report is text");
    let pairs = |text: String| {
        let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    files.map(text).flat_map(pairs).collect()
}
