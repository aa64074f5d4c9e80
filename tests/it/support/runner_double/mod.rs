//! The runner double: GitLab Runner's side of the custom executor contract, for machines without GitLab Runner.
//!
//! It takes a job from the GitLab double, calls the driver as the runner does (same stages, environment, exit codes,
//! signals, time limits; shorter pauses before retries), writes the trace and reports the result. Two things it leaves
//! out: `FF_TIMESTAMPS` and connections other than to the double. Helper commands in stage scripts are a bash stand-in.

mod call;
mod executor;
mod scope;
mod script;
mod sources;
mod stages;
mod trace;
mod variables;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::gitlab::FinalUpdate;
use super::job::{Job, Trigger};
use super::world::{Executor as WantedExecutor, World};
use call::Failed;
use executor::Executor;
use scope::{End, Scope};
use stages::lines;
use trace::Trace;

const GREEN: &str = "\x1b[32;1m";
const RED: &str = "\x1b[31;1m";
const YELLOW: &str = "\x1b[0;33m";
/// The runner pauses 3 s between attempts of preparation and 5 s and more between those of a stage.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const PREPARE_ATTEMPTS: usize = 3;
const AFTER_SCRIPT_LIMIT: Duration = Duration::from_mins(5);

/// Runs the next job of the world's queue; returns the log.
pub(crate) fn run(world: &World, job: &Job, wanted: WantedExecutor) -> String {
    let shared = world.gitlab.shared();
    let (id, mut payload) = shared.take_job().expect("the job was enqueued");
    // The runner's own type has no fields here, so the driver sees an empty object.
    payload["inputs"] = serde_json::json!({});
    let first = variables::Variables::expand(variables::of_payload(&payload), "");
    payload["image"]["name"] = first.expand_text(payload["image"]["name"].as_str().unwrap_or_default()).into();
    let prefixes = lines(&payload["features"]["token_mask_prefixes"]);
    let trace = Arc::new(Trace::new(Arc::clone(&shared), id, world.settings.output_limit, first.masked(), &prefixes));
    shared.update_job(id, FinalUpdate { state: "running".to_owned(), ..FinalUpdate::default() });
    trace.say("", "Running with gitlab-runner 19.4.0 (double)");

    let limit = payload["runner_info"]["timeout"].as_u64().filter(|seconds| *seconds > 0).unwrap_or(7200);
    let scope = Scope::new(None, Some(Duration::from_secs(limit)));
    let over = AtomicBool::new(false);
    let interrupted = AtomicBool::new(false);
    let run_scope = Scope::new(Some(&scope), None);
    {
        let mut targets = trace.targets.lock().expect("no holder panics");
        targets.cancel = Some(scope.clone());
        targets.abort = Some(scope.clone());
    }
    let result = std::thread::scope(|threads| {
        if let Some((text, _)) = job.triggers().iter().find(|(_, trigger)| *trigger == Trigger::InterruptRunner) {
            threads.spawn(|| {
                super::waiting::poll(world.settings.deadline, || {
                    if world.gitlab.question(id, |record| record.trace.contains(text)) {
                        interrupted.store(true, Ordering::SeqCst);
                        run_scope.cancel();
                        return Some(());
                    }
                    over.load(Ordering::SeqCst).then_some(())
                });
            });
        }
        let result = run_job(world, (&payload, wanted), &trace, &scope, &run_scope);
        over.store(true, Ordering::SeqCst);
        result
    });
    let result = match (result, scope.ended()) {
        (_, None) if interrupted.load(Ordering::SeqCst) => {
            Err(Failed::Build { reason: "runner_interrupted", code: 0, text: "aborted: terminated".to_owned() })
        }
        (Err(failed), Some(_))
            if matches!(failed, Failed::Build { reason: "script_failure", .. }) && !entered(&trace) =>
        {
            Err(failed)
        }
        (_, Some(End::Canceled)) => Err(canceled()),
        (_, Some(End::TimedOut)) => Err(timed_out(limit)),
        (result, None) => result,
    };
    let update = match &result {
        Ok(()) => {
            trace.say(GREEN, "Job succeeded");
            FinalUpdate { state: "success".to_owned(), ..FinalUpdate::default() }
        }
        Err(Failed::Build { reason, code, text }) => {
            trace.say(RED, &format!("ERROR: Job failed: {text}"));
            FinalUpdate {
                state: "failed".to_owned(),
                failure_reason: Some(known_reason(reason, &lines(&payload["features"]["failure_reasons"]))),
                exit_code: Some(*code),
                checksum: None,
            }
        }
        Err(Failed::System { text }) => {
            trace.say(RED, &format!("ERROR: Job failed (system failure): {text}"));
            FinalUpdate {
                state: "failed".to_owned(),
                failure_reason: Some("runner_system_failure".to_owned()),
                ..FinalUpdate::default()
            }
        }
    };
    shared.update_job(id, update);
    format!("runner double: {result:?}")
}

/// Whether preparation is over: after a cancel, only a failure of preparation is kept.
fn entered(trace: &Trace) -> bool {
    trace.contains_section("prepare_script")
}

fn canceled() -> Failed {
    Failed::Build { reason: "job_canceled", code: 0, text: "canceled".to_owned() }
}

fn timed_out(seconds: u64) -> Failed {
    let text =
        format!("execution took longer than {} seconds", humantime::format_duration(Duration::from_secs(seconds)));
    Failed::Build { reason: "job_execution_timeout", code: 0, text }
}

/// A reason that GitLab does not list is sent as another.
fn known_reason(reason: &str, known: &[String]) -> String {
    match reason {
        reason if known.iter().any(|name| name == reason) => reason.to_owned(),
        "script_failure" | "runner_system_failure" | "job_execution_timeout" => reason.to_owned(),
        "configuration_error" => "script_failure".to_owned(),
        _ => "unknown_failure".to_owned(),
    }
}

/// Preparation, stages and cleanup of one job.
fn run_job(
    world: &World,
    payload: (&serde_json::Value, WantedExecutor),
    trace: &Arc<Trace>,
    scope: &Scope,
    run_scope: &Scope,
) -> Result<(), Failed> {
    let executor = trace
        .section("prepare_executor", "Preparing the \"custom\" executor", || prepare(world, payload, trace, scope))?;
    let result = Stages { executor: &executor, trace, scope: run_scope.clone() }.all();
    executor.cleanup();
    result
}

fn prepare<'a>(
    world: &'a World,
    (payload, wanted): (&serde_json::Value, WantedExecutor),
    trace: &'a Arc<Trace>,
    scope: &Scope,
) -> Result<Executor<'a>, Failed> {
    let mut last = Failed::System { text: "never tried".to_owned() };
    for _ in 0..PREPARE_ATTEMPTS {
        let mut executor = Executor::new(world, payload, wanted, trace);
        match executor.prepare(scope) {
            Ok(()) => return Ok(executor),
            Err(failed) => last = failed,
        }
        executor.cleanup();
        match &last {
            Failed::Build { .. } => return Err(last),
            Failed::System { text } => {
                if scope.ended().is_some() {
                    return Err(last);
                }
                trace.say(RED, &format!("ERROR: Preparation failed: {text}"));
                trace.say(GREEN, "Will be retried in 3s ...");
            }
        }
        super::waiting::pause(RETRY_PAUSE);
    }
    Err(last)
}

/// The run stages of one job.
struct Stages<'a> {
    executor: &'a Executor<'a>,
    trace: &'a Arc<Trace>,
    scope: Scope,
}

impl Stages<'_> {
    fn all(&self) -> Result<(), Failed> {
        let variables = self.executor.variables();
        self.stage("prepare_script", &self.scope).map_err(|failed| match failed {
            Failed::System { text } => Failed::System { text: format!("prepare environment: {text}") },
            build @ Failed::Build { .. } => build,
        })?;
        let sources_limit = self.executor.get_sources_limit();
        let sources = Scope::new(Some(&self.scope), sources_limit);
        let mut result = self.attempts("get_sources", &sources, variables.number("GET_SOURCES_ATTEMPTS", 1));
        if result.is_err() && self.scope.ended().is_none() && sources.ended() == Some(End::TimedOut) {
            let text = format!("job get sources timeout: exceeded timeout of {sources_limit:?}");
            return Err(Failed::Build { reason: "job_execution_timeout", code: 0, text });
        }
        for (stage, key) in
            [("restore_cache", "RESTORE_CACHE_ATTEMPTS"), ("download_artifacts", "ARTIFACT_DOWNLOAD_ATTEMPTS")]
        {
            result = result.and_then(|()| self.attempts(stage, &self.scope, variables.number(key, 1)));
        }
        result = result.and_then(|()| self.user_scripts());
        let on = |success: &'static str, failure: &'static str| if result.is_ok() { success } else { failure };
        let cache = self.stage(on("archive_cache", "archive_cache_on_failure"), &self.scope);
        let artifacts = self.stage(on("upload_artifacts_on_success", "upload_artifacts_on_failure"), &self.scope);
        // The runner notes a failure of the last stage in its own log only.
        let _ = self.stage("cleanup_file_variables", &self.scope);
        result.and(cache).and(artifacts)
    }

    fn attempts(&self, stage: &str, scope: &Scope, attempts: usize) -> Result<(), Failed> {
        let mut result = Ok(());
        for attempt in 0..attempts.clamp(1, 10) {
            if attempt > 0 {
                super::waiting::pause(RETRY_PAUSE);
            }
            result = if attempt == 1 && stage == "get_sources" { self.stage("clear_worktree", scope) } else { Ok(()) };
            result = result.and_then(|()| self.stage(stage, scope));
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn user_scripts(&self) -> Result<(), Failed> {
        let limit = |key: &str| humantime::parse_duration(&self.executor.variables().get(key)).ok();
        let script_scope = Scope::new(Some(&self.scope), limit("RUNNER_SCRIPT_TIMEOUT"));
        self.trace.targets.lock().expect("no holder panics").cancel = Some(script_scope.clone());
        let mut result = Ok(());
        for stage in self.executor.user_stages() {
            result = self.stage(&stage, &script_scope);
            if result.is_err() {
                break;
            }
        }
        let mut status = if result.is_ok() { "success" } else { "failed" };
        match (self.scope.ended(), script_scope.ended()) {
            (None, Some(End::Canceled)) => {
                result = Err(canceled());
                status = "canceled";
                self.trace.say(YELLOW, "WARNING: script canceled externally (UI, API)");
            }
            (None, Some(End::TimedOut)) => {
                let text = "script timeout: context deadline exceeded".to_owned();
                result = Err(Failed::Build { reason: "job_execution_timeout", code: 0, text });
                status = "timedout";
            }
            _ => {}
        }
        self.executor.set_status(status);
        let after_scope =
            Scope::new(Some(&self.scope), Some(limit("RUNNER_AFTER_SCRIPT_TIMEOUT").unwrap_or(AFTER_SCRIPT_LIMIT)));
        if let Err(failed) = self.stage("after_script", &after_scope)
            && self.scope.ended().is_none()
        {
            if self.executor.variables().get("AFTER_SCRIPT_IGNORE_ERRORS") == "false" {
                result = result.and(Err(failed));
            } else {
                let text = match failed {
                    Failed::Build { text, .. } | Failed::System { text } => text,
                };
                self.trace
                    .say(YELLOW, &format!("WARNING: after_script failed, but job will continue unaffected: {text}"));
            }
        }
        result
    }

    fn stage(&self, stage: &str, scope: &Scope) -> Result<(), Failed> {
        if scope.ended().is_some() {
            return Err(Failed::System { text: "context canceled".to_owned() });
        }
        let Some(script) = self.executor.script(stage) else { return Ok(()) };
        let result = self.trace.section(stage, headline(stage), || self.executor.run(stage, &script, scope));
        if scope.ended() == Some(End::TimedOut) {
            let text = format!("WARNING: {stage} could not run to completion because the timeout was exceeded.");
            self.trace.say(YELLOW, &text);
        }
        result
    }
}

fn headline(stage: &str) -> &'static str {
    match stage {
        "prepare_script" => "Preparing environment",
        "get_sources" => "Getting source from Git repository",
        "clear_worktree" => "Deleting all tracked and untracked files due to source fetch failure",
        "restore_cache" => "Restoring cache",
        "download_artifacts" => "Downloading artifacts",
        "after_script" => "Running after_script",
        "archive_cache" => "Saving cache for successful job",
        "archive_cache_on_failure" => "Saving cache for failed job",
        "upload_artifacts_on_failure" => "Uploading artifacts for failed job",
        "upload_artifacts_on_success" => "Uploading artifacts for successful job",
        "cleanup_file_variables" => "Cleaning up project directory and file based variables",
        _ => "Executing a stage of the job script",
    }
}
