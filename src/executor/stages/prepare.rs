//! `prepare`: checks the job and the host, and creates the training job without waiting for it, so that provisioning
//! overlaps with clone, cache and artifact download.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::base::failure::Failure;
use crate::base::names::{self, Reach};
use crate::config::policy::{self, Decision, ModelOutput};
use crate::gitlab::{BuildStage, JobContext};
use crate::metrics;
use crate::protocol::project::Trees;
use crate::sandbox;
use crate::session::create::Launched;
use crate::session::directories::JobDirectories;
use crate::session::event::SessionEvent;
use crate::session::exchange::Exchange as _;
use crate::session::spec::AgentInputs;
use crate::session::state::SessionState;
use crate::session::{
    self, Session, SessionId, agent_delivery, create, earlier_attempts, input_check, isolated, job_limit, left_over,
    project_scope, queue, retention, spec,
};
use crate::stages::job_secrets::{self, JobSecrets};
use crate::stages::{Context, announcement, audit, host_script, shared_token};
use crate::workspace::{self, Base};

/// Pause between two looks whether another job of the rule has ended.
const TURN_PAUSE: Duration = Duration::from_secs(2);
/// Time that remains for the creation of the training job after the last look.
const TIME_TO_CREATE: Duration = Duration::from_mins(1);

pub async fn run(context: Context) -> anyhow::Result<()> {
    let until = Instant::now() + create::PATIENCE;
    let job = context.job()?;
    let settings = &context.settings;
    if context.contract.session.is_none() && context.trees(&job).is_err() {
        return Err(Failure::system("the runner called `prepare` without `config`, which tells it the directories of the job")
            .hint("set `config_exec` and `config_args` in `[runners.custom]` of `config.toml`, as `runner-config/config.toml` does")
            .into());
    }
    let id = context.session(&job)?;
    let decided = decide(&context, &job);
    if !context.env.is_try() {
        audit::write(&context, &id, &job, &decided)?;
    }
    let mut decision = decided?;
    refuse_flags(&context, &job)?;
    check_host(&context, &job)?;
    if settings.sandbox.enabled && !context.env.is_try() {
        sandbox::check(context.env.path()).await?;
    }
    tell_about_variables(&context, &job);
    tell_about_proxies(&context, &job);
    tell_about_decision(&context, &job, &decision);
    check_secrets(&context, &decision).await?;
    look_for_data(&context, &mut decision).await?;
    let new = SessionState::new(session::job_key(&job), decision.instance_count as usize)
        .with_runner_slot(shared_token::runner_slot(&context.env));
    wait_for_turn(&context, &id, &decision, until).await?;
    let (jobs, objects) = context.session_ports().await?;
    let mut session = Session::open(id, jobs, objects, context.host(), new)?;
    let _hold = session.records.hold(&session.id, &context.clock).await;
    shared_token::warn(&session);
    session.take_place()?;
    earlier_attempts::close_all(&session, session.state().job_key(), &*context.connect).await;
    set_up(&context, &mut session, &job, until).await?;
    let objects = session.objects.clone();
    let scope = project_scope::of_session(session.state().scope(), &job);
    let checkpoints = project_scope::of_checkpoints(&*objects, &job, &decision.data).await?;
    let agent = AgentInputs {
        keys: &session.keys(),
        files: session.state().agent(),
        scope: &scope,
        checkpoints: checkpoints.as_deref(),
        stage: None,
    };
    let spec = spec::training_job(&session.id, &job, &decision, settings, &*objects, agent);
    let wishes = announcement::lines(&spec);
    let types = types(&session, &decision);
    let warned = retention::warn(&*objects, &settings.runner.state_dir, &context.printer, context.clock.now());
    if decision.network_isolation {
        warned.await;
        session.apply(SessionEvent::Isolated)?;
        context.printer.line(isolated::announcement(&job));
        context.printer.line(format!("Instance: {}, image: {}", types.join(" or "), decision.image));
    } else {
        let launched = create::launch(&mut session, spec, &types, until, &context.cancellation);
        let (launched, ()) = tokio::join!(launched, warned);
        match launched? {
            Launched::Created => metrics::observe(&metrics::QUEUE_SECONDS, &[], 0.0),
            Launched::Refused(refused) => {
                queue::begin(&mut session, refused, Duration::from_secs(decision.capacity.queue_timeout))?;
            }
        }
        announce(&context, &session, &decision);
    }
    for line in wishes {
        context.printer.line(line);
    }
    tokio::select! {
        () = left_over::close_all(&session, &*context.connect) => {}
        () = context.cancellation.token().cancelled() => {}
    }
    Ok(())
}

/// Delivers the agent, opens the session for it, and finds the scope of the project's packs.
async fn set_up(context: &Context, session: &mut Session<'_>, job: &JobContext, until: Instant) -> anyhow::Result<()> {
    let (objects, exchange) = (session.objects.clone(), session.exchange());
    let job_key = session.state().job_key().to_owned();
    let opened = async {
        exchange.open(context.settings.lease(), &job_key).await.context("failed to open the session for its agents")
    };
    let agent = agent_delivery::deliver_until(&*objects, &context.settings, &context.printer, until);
    let scope = async {
        project_scope::of_job(&*objects, job).await.context("failed to find the scope of the project's packs")
    };
    let (agent, (), scope) = tokio::select! {
        done = async { tokio::try_join!(agent, opened, scope) } => done?,
        () = context.cancellation.token().cancelled() => {
            return Err(Failure::canceled("canceled while the agent was uploaded").into());
        }
    };
    // The `open` object is the first sign of life in the bucket.
    context.lease_note(&session.id).write();
    session.apply(SessionEvent::AgentDelivered(&agent))?;
    // A session of a version without places keeps the scope of that version.
    if session.state().place().is_some() {
        session.apply(SessionEvent::ScopeFound(&scope))?;
    }
    Ok(())
}

/// Decides the parameters of the training job, or refuses the job.
fn decide(context: &Context, job: &JobContext) -> Result<Decision, Failure> {
    let value = |name: &str| context.env.job_variable(name).map(str::to_owned);
    let wishes = context.env.job_variables()?;
    policy::refuse_secrets(&wishes, &job.masked_values(value))?;
    policy::refuse_cache_keys(job, value)?;
    policy::decide(job, &wishes, &context.settings)
}

/// Reads the job's secrets and drops them: their mistakes are told before a training job costs money.
async fn check_secrets(context: &Context, decision: &Decision) -> anyhow::Result<()> {
    let secrets = JobSecrets::read(context, &decision.secrets).await?;
    secrets.check(context, &context.env.job_variables()?)?;
    job_secrets::tell(context, &decision.secrets);
    Ok(())
}

/// Looks for what SageMaker reads and for the bucket of the model, before a training job costs money.
async fn look_for_data(context: &Context, decision: &mut Decision) -> anyhow::Result<()> {
    let (data, settings) = (&mut decision.data, &context.settings);
    if data.inputs.is_empty() && data.model_output.is_none() {
        return Ok(());
    }
    let port = context.connect.input_data(&settings.access()).await?;
    input_check::check(&*port, &mut data.inputs).await?;
    if let Some(ModelOutput { folder, .. }) = &data.model_output {
        let place = |uri: &str| uri.split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
        let is_usual = settings.job.model_output.as_ref().is_some_and(|usual| place(usual) == place(folder));
        let set_by = if is_usual { "job.model_output" } else { "SAGEMAKER_MODEL_OUTPUT" };
        input_check::check_output(&*port, set_by, folder).await?;
    }
    Ok(())
}

/// Waits until fewer jobs of the rule than `allow.max_jobs` have a session on this host.
async fn wait_for_turn(context: &Context, id: &SessionId, decision: &Decision, until: Instant) -> anyhow::Result<()> {
    let (Some(rule), Some(most)) = (&decision.rule, decision.max_jobs) else { return Ok(()) };
    let state_dir = &context.settings.runner.state_dir;
    let mut is_told = false;
    while !job_limit::reserve(state_dir, rule, most, id, context.clock.now())? {
        if !std::mem::replace(&mut is_told, true) {
            context.printer.line(format!("Waiting: the rule `{rule}` allows {most} jobs at once on this host"));
        }
        if Instant::now() + TIME_TO_CREATE > until {
            return Err(Failure::system(format!(
                "the rule `{rule}` allows {most} jobs at once on this host, and that many did not end in time"
            ))
            .hint("retry the job later, or ask the operator to raise `allow.max_jobs` of this rule")
            .into());
        }
        tokio::select! {
            () = tokio::time::sleep(TURN_PAUSE) => {}
            () = context.cancellation.token().cancelled() => {
                return Err(Failure::canceled("canceled while the job waited for its turn").into());
            }
        }
    }
    Ok(())
}

/// Instance types to request. A second `prepare` of the session begins with the type that the first one reached.
fn types(session: &Session<'_>, decision: &Decision) -> Vec<String> {
    let is_created = session.state().arn().is_some();
    if is_created { session.state().types() } else { decision.requests() }
}

/// Prints the head of the job's log.
fn announce(context: &Context, session: &Session<'_>, decision: &Decision) {
    let (name, state) = (session.job_name(), session.state());
    let instances = match state.request().instance_groups.as_slice() {
        [] => announcement::instances(&state.shown_types(), state.nodes().len()),
        groups => announcement::groups(groups),
    };
    let head = announcement::Head {
        name: &name,
        arn: state.arn(),
        instances,
        image: &decision.image,
        max_runtime: decision.max_runtime,
        has_console: context.settings.aws.endpoint_url.is_none(),
    };
    head.lines().into_iter().for_each(|line| context.printer.line(line));
}

/// The runner passes the flag's effective value, from the job or its own configuration.
fn refuse_flags(context: &Context, job: &JobContext) -> Result<(), Failure> {
    let is_on = |value: &str| ["1", "t", "true"].contains(&value.to_ascii_lowercase().as_str());
    if context.env.job_variable(ESCAPES).is_some_and(is_on) {
        return Err(escapes_refused(job.variables.iter().any(|variable| variable.key == ESCAPES)));
    }
    Ok(())
}

const ESCAPES: &str = "FF_POSIXLY_CORRECT_ESCAPES";

/// Failure for a script written with the flag.
pub(super) fn escapes_refused(by_job: bool) -> Failure {
    let message = format!(
        "the runner's feature flag `{ESCAPES}` is on: with it the runner quotes variables so that a value can run as a command on \
         the runner's host"
    );
    let hint = format!("set `{ESCAPES} = false` in `[runners.feature_flags]` of the runner's `config.toml`");
    if by_job {
        return Failure::user(message).hint(format!("remove the variable `{ESCAPES}` from the job")).hint(hint);
    }
    Failure::system(message).hint(hint)
}

/// Names variables that have less effect than the job's author may expect.
fn tell_about_variables(context: &Context, job: &JobContext) {
    let mut own: Vec<&str> = job.variables.iter().map(|variable| variable.key.as_str()).collect();
    own.retain(|name| names::reach(name) == Reach::Container);
    own.sort_unstable();
    own.dedup();
    if !own.is_empty() {
        context
            .printer
            .line(format!("For the container alone, not for stages on the runner's host: {}", own.join(", ")));
    }
    for (name, nearest) in context.env.unknown_wishes() {
        context.printer.warn(format!(
            "the job variable `{name}` is not known and has no effect on the training job; did you mean `{nearest}`?"
        ));
    }
}

/// Prints the policy's warnings, and one when nothing can tell that the model was lost.
fn tell_about_decision(context: &Context, job: &JobContext, decision: &Decision) {
    decision.warnings.iter().for_each(|warning| context.printer.warn(warning));
    // The runner ignores a failed `after_script`, and calls no stage that could fail the job instead when there are no artifacts.
    let has_after_script = job.container_stages().contains(&BuildStage::AfterScript);
    if decision.data.model_output.is_some() && has_after_script && job.artifacts.is_empty() && !context.env.is_try() {
        context.printer.warn(
            "this job succeeds even if its model is not uploaded: GitLab Runner ignores a failed `after_script`. Add `artifacts:` to the \
             job, as a `dotenv` report of `sagemaker.env`, or move the commands of `after_script` to the end of `script`",
        );
    }
}

/// In the sandbox a job's proxy is out of reach. The prelude keeps it away, which not every shell reads.
fn tell_about_proxies(context: &Context, job: &JobContext) {
    let settings = &context.settings;
    if !settings.sandbox.enabled || context.env.is_try() || host_script::takes_prelude(&settings.runner.shell) {
        return;
    }
    let is_proxy = |name: &&str| host_script::PROXIES.contains(name);
    if let Some(name) = job.variables.iter().map(|variable| variable.key.as_str()).find(is_proxy) {
        context.printer.warn(format!(
            "with the job's `{name}` host stages have no network: they reach only the proxy of their sandbox. Remove the variable from the \
             job, or set `runner.shell` to `bash` in the operator's file, and `shell` in `config.toml`"
        ));
    }
}

/// Checks the needs of the host stages, because one clear error here is better than a confusing one in a later stage.
fn check_host(context: &Context, job: &JobContext) -> anyhow::Result<()> {
    let settings = &context.settings;
    let (directories, trees) = (context.directories(job), context.trees(job).ok());
    restore_access(context, &directories, trees.as_ref());
    directories.check_access()?;
    for removed in directories.remove_links(trees.as_ref())? {
        context.printer.warn(format!("{removed}, which an earlier job left, was removed"));
    }
    let shell = settings.runner.shell.as_str();
    let git = ("git", "or add its folder to the PATH of the runner's service; sources are fetched on the host");
    let shell = (shell, "or set `runner.shell` in the operator's file to `bash`");
    // `try` lists the sources itself.
    let needed = std::iter::once(shell).chain((!context.env.is_try()).then_some(git));
    for (program, otherwise) in needed {
        if find(context.env.path(), program).is_none() {
            return Err(Failure::system(format!("`{program}` is not in the runner's PATH"))
                .hint(format!("install `{program}` on the runner host, {otherwise}"))
                .into());
        }
    }
    if job.needs_helper() && !context.env.is_try() && find(context.env.path(), HELPER).is_none() {
        return Err(Failure::system(format!(
            "`{HELPER}` is not in the runner's PATH, and the job has artifacts, a cache or artifacts of other jobs, which it moves"
        ))
        .hint(format!(
            "put the folder of `{HELPER}` into the PATH of the runner's service (`Environment=PATH=...` in its systemd unit), or link \
             the program into a folder of it: `{}`",
            context.env.path()
        ))
        .into());
    }
    if !job.services.is_empty() {
        context.printer.warn("`services:` are not available in a SageMaker training job and are ignored");
    }
    Ok(())
}

/// Restores access to the project's directories after an earlier job changed their modes. Stages report what cannot be
/// restored.
fn restore_access(context: &Context, directories: &JobDirectories, trees: Option<&Trees>) {
    let settings = &context.settings;
    let unlock = |base: &Path, path: &Path| Base::open(base)?.map_or(Ok(()), |base| base.unlock(path));
    let cache = directories.cache();
    let slot = trees.and_then(|trees| trees.project_here().parent());
    let opened = slot
        .map_or(Ok(()), |slot| unlock(&settings.runner.builds_dir, slot))
        .and_then(|()| unlock(&settings.runner.cache_dir, &cache))
        .and_then(|()| workspace::make_cache_usable(&settings.runner.cache_dir, &cache));
    match opened {
        Ok(lines) => lines.into_iter().for_each(|line| context.printer.warn(line)),
        Err(error) => tracing::warn!(error = format!("{error:#}"), "failed to open the project's directories"),
    }
}

/// The program that moves caches and artifacts in the host stages, called by this bare name.
pub(super) const HELPER: &str = "gitlab-runner";

pub(super) fn find(path: &str, program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return is_executable(Path::new(program)).then(|| PathBuf::from(program));
    }
    path.split(':').map(|dir| Path::new(dir).join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
