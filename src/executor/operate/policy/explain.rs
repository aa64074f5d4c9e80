//! `sagemaker-executor policy explain`: the decision of `prepare` for a job, without the job.

use std::ffi::OsString;

use clap::Args;
use serde::Serialize;

use super::job;
use crate::base::human::human_duration;
use crate::config::env::{Environment, JOB_PREFIX};
use crate::config::job_variables::JobVariables;
use crate::config::policy::{self, Decision, JobBounds, JobIdentity, Switch, bounds_of, mismatch, rule_of};
use crate::config::rules::{Choice, ImageTags, PolicyRule};
use crate::config::settings::Settings;
use crate::gitlab::JobContext;
use crate::ui::Printer;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    job: job::JobArgs,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// A rule before the one that decides.
#[derive(Debug, Serialize)]
struct PassedOver<'a> {
    rule: &'a str,
    /// The first condition that does not hold.
    because: String,
}

/// All that is known of the decision.
#[derive(Debug, Serialize)]
struct Explanation<'a> {
    job: JobIdentity,
    /// `None`: no rule is for the job, or the file has none.
    rule: Option<&'a str>,
    passed_over: Vec<PassedOver<'a>>,
    bounds: Option<JobBounds>,
    /// Patterns of the secrets that the job may have.
    secrets: Vec<String>,
    /// Of a job whose variables are known.
    request: Option<Decision>,
    /// The largest cost of the request, in words. `None`: the price is not known.
    cost: Option<String>,
    /// Why the job is refused.
    refusal: Option<String>,
}

pub(super) fn run(args: &ExplainArgs, settings: &Settings, printer: &Printer) -> anyhow::Result<()> {
    let mut job = args.job.context()?;
    let identity = JobIdentity::of(&job);
    let rule = rule_of(&identity, &settings.rules).map(|rule| rule.name.as_str());
    let passed_over = settings.rules.iter().map_while(|rule| passed_over(rule, &identity)).collect();
    let bounds = bounds_of(&identity, settings);
    let decision = bounds.as_ref().ok().map(|bounds| {
        // Where any image will do, a question without one still has an answer.
        let is_free = bounds.images.is_none() && bounds.image_tags != ImageTags::Refuse;
        if is_free && job.image.name.is_empty() && settings.job.image.is_none() {
            NO_IMAGE.clone_into(&mut job.image.name);
        }
        wishes(&job, &args.job, printer).and_then(|wishes| Ok(policy::decide(&job, &wishes, settings)?))
    });
    let (bounds, refusal) = match bounds {
        Ok(bounds) => (Some(bounds), None),
        Err(refusal) => (None, Some(anyhow::Error::from(refusal))),
    };
    let (request, refusal) = match decision {
        Some(Ok(request)) => (Some(request), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, refusal),
    };
    let explanation = Explanation {
        secrets: policy::granted_ids(&identity, settings),
        job: identity,
        rule,
        passed_over,
        bounds,
        cost: request.as_ref().and_then(|request| cost_words(request, &job, settings)),
        request,
        refusal: refusal.as_ref().map(|error| format!("{error:#}")),
    };
    if args.json {
        printer.write_data(format!("{}\n", serde_json::to_string_pretty(&explanation)?).as_bytes())?;
    } else {
        printer.write_data(explanation.text(settings.rules.is_empty()).as_bytes())?;
    }
    refusal.map_or(Ok(()), Err)
}

/// The largest cost of the request.
fn cost_words(request: &Decision, job: &JobContext, settings: &Settings) -> Option<String> {
    let jobs = policy::training_jobs(request, job);
    let (price, cost) = policy::largest_cost(request, jobs, settings)?;
    let region = settings.aws.region.as_deref().unwrap_or_default();
    let number = match jobs {
        _ if request.network_isolation && job.container_stages().is_empty() => " for each container stage".to_owned(),
        1 => String::new(),
        jobs => format!(" for {jobs} training jobs, one for each container stage"),
    };
    Some(format!("at most {}{number} ({})", price.amount(cost), price.source_words(region)))
}

/// Why a rule is not for the job; `None` if it is.
fn passed_over<'a>(rule: &'a PolicyRule, job: &JobIdentity) -> Option<PassedOver<'a>> {
    let (key, value) = mismatch(job, &rule.jobs)?;
    let because = match key {
        "protected" | "fork" => format!("the job is {value}, against `match.{key}`"),
        _ => format!("`match.{key}` does not match `{value}`"),
    };
    Some(PassedOver { rule: &rule.name, because })
}

/// Stands for the image of a job for which none was given.
const NO_IMAGE: &str = "not-given";

/// Variables of the job, as the runner would pass them on. Those that name others are not expanded.
fn wishes(job: &JobContext, args: &job::JobArgs, printer: &Printer) -> anyhow::Result<JobVariables> {
    let of_payload = job.variables.iter().map(|variable| (variable.key.clone(), variable.value.clone()));
    let pair = |(name, value): (String, String)| (OsString::from(format!("{JOB_PREFIX}{name}")), OsString::from(value));
    let environment = Environment::from_pairs(of_payload.chain(args.variables()).map(pair));
    for (name, nearest) in environment.unknown_wishes() {
        printer.warn(format!("the job variable `{name}` is not known and has no effect; did you mean `{nearest}`?"));
    }
    let variables = environment.job_variables()?;
    policy::refuse_secrets(&variables, &job.masked_values(|_| None))?;
    policy::refuse_cache_keys(job, |_| None)?;
    Ok(variables)
}

impl Explanation<'_> {
    fn text(&self, has_no_rules: bool) -> String {
        let mut lines = vec![job_words(&self.job)];
        lines.push(match self.rule {
            Some(rule) => format!("Rule: `{rule}`"),
            None if has_no_rules => "Rule: none, the operator's file has no `rules`".to_owned(),
            None => "Rule: none is for this job".to_owned(),
        });
        lines.extend(self.passed_over.iter().map(|over| format!("  not `{}`: {}", over.rule, over.because)));
        if let Some(bounds) = &self.bounds {
            lines.push("Allowed:".to_owned());
            lines.extend(words(bounds).into_iter().map(|(name, value)| format!("  {name}: {value}")));
            lines.push(format!(
                "  secrets: {}",
                if self.secrets.is_empty() { "none".to_owned() } else { quoted(&self.secrets) }
            ));
        }
        if let Some(request) = &self.request {
            lines.push("Request:".to_owned());
            lines.extend(request_words(request).into_iter().map(|(name, value)| format!("  {name}: {value}")));
            lines.extend(self.cost.iter().map(|cost| format!("  cost: {cost}")));
        }
        lines.join("\n") + "\n"
    }
}

fn job_words(job: &JobIdentity) -> String {
    let protected = if job.is_protected() { "protected" } else { "not protected" };
    let fork = if job.fork { ", merge request of a fork" } else { "" };
    format!("Job: project `{}`, ref `{}` ({protected}){fork}, GitLab `{}`", job.project, job.git_ref, job.instance)
}

/// `a`, `b`.
fn quoted(list: &[String]) -> String {
    list.iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(", ")
}

/// The bounds in words.
fn words(bounds: &JobBounds) -> Vec<(&'static str, String)> {
    let list = |values: &[String]| if values.is_empty() { "none".to_owned() } else { quoted(values) };
    let all = |values: &Option<Vec<String>>| values.as_ref().map_or("all".to_owned(), |values| list(values));
    let tags = match bounds.image_tags {
        ImageTags::Allow => "allowed",
        ImageTags::Warn => "allowed, with a warning",
        ImageTags::Refuse => "refused: a digest is required",
    };
    let network = match &bounds.network {
        None => "no VPC".to_owned(),
        Some(network) => format!("{} with {}", quoted(&network.subnets), quoted(&network.security_group_ids)),
    };
    let mut words = vec![
        ("instance types", list(&bounds.instance_types)),
        ("instances", format!("at most {}", bounds.instance_count.most)),
        ("volume", format!("at most {} GB", bounds.volume_size_gb.most)),
        ("run time", format!("at most {}", human_duration(std::time::Duration::from_secs(bounds.max_runtime)))),
        ("roles", list(&bounds.roles)),
        ("images", all(&bounds.images)),
        ("images named by a tag", tags.to_owned()),
        ("network", network),
        ("`SAGEMAKER_ENV_*`", all(&bounds.environment) + ", never `AWS_*` and `LD_*`"),
        ("regions", all(&bounds.regions)),
    ];
    words.extend(wish_words(bounds));
    words.extend(bounds.max_jobs.map(|most| ("jobs at once", format!("at most {most} on this host"))));
    words.extend(bounds.max_cost.map(|most| ("cost", format!("at most {most}"))));
    words
}

/// The bounds of capacity and data in words.
fn wish_words(bounds: &JobBounds) -> Vec<(&'static str, String)> {
    let time = |seconds| human_duration(std::time::Duration::from_secs(seconds));
    let list = |values: &[String]| if values.is_empty() { "none".to_owned() } else { quoted(values) };
    let switch = |switch: Switch| match switch.choice {
        Choice::Allow if switch.default => "allowed, and used unless the job says otherwise",
        Choice::Allow => "allowed",
        Choice::Only => "always",
        Choice::Refuse => "refused",
    };
    vec![
        ("spot instances", switch(bounds.spot).to_owned()),
        ("checkpoints", switch(bounds.checkpoints).to_owned()),
        ("network isolation", switch(bounds.network_isolation).to_owned()),
        ("retries by SageMaker", format!("at most {}", bounds.retries.most)),
        ("keep-alive", format!("at most {}", time(bounds.keep_alive.most))),
        ("training plans", list(&bounds.training_plans)),
        ("wait for the quota", format!("at most {}", time(bounds.queue_timeout.most))),
        ("wait for instances", format!("at most {}", time(bounds.max_pending.most))),
        ("remote debugging", switch(bounds.remote_debug).to_owned()),
        ("container kept after a failure", format!("at most {}", time(bounds.keep_on_failure.most))),
        ("`SAGEMAKER_INPUT_*`", list(&bounds.inputs)),
        ("model outputs", list(&bounds.model_outputs)),
    ]
}

fn request_words(request: &Decision) -> Vec<(&'static str, String)> {
    let names: Vec<String> = request.environment.keys().cloned().collect();
    let mut words = vec![
        ("instance types", quoted(&request.requests())),
        ("instances", request.instance_count.to_string()),
        ("volume", format!("{} GB", request.volume_size_gb)),
        ("run time", human_duration(std::time::Duration::from_secs(request.max_runtime))),
        ("role", format!("`{}`", request.role_arn)),
        ("image", if request.image == NO_IMAGE { "not given".to_owned() } else { format!("`{}`", request.image) }),
        ("environment", if names.is_empty() { "none".to_owned() } else { quoted(&names) }),
    ];
    words.extend(wishes_of(request));
    words.extend(request.warnings.iter().map(|text| ("warning", text.clone())));
    words
}

/// The parts of a request that not every job has.
fn wishes_of(request: &Decision) -> Vec<(&'static str, String)> {
    let time = |seconds| human_duration(std::time::Duration::from_secs(seconds));
    let (capacity, data) = (&request.capacity, &request.data);
    let channels: Vec<String> = data.inputs.iter().map(|input| input.channel.name.clone()).collect();
    let secrets: Vec<String> =
        request.secrets.iter().map(|one| format!("{} from {}", one.name, one.reference.id)).collect();
    let wishes = [
        ("spot instances", capacity.spot_max_wait.map(|wait| format!("{} of waiting and running", time(wait)))),
        ("retries by SageMaker", (capacity.retries > 0).then(|| capacity.retries.to_string())),
        ("keep-alive", (capacity.keep_alive > 0).then(|| time(capacity.keep_alive))),
        ("training plan", capacity.training_plan.clone()),
        ("wait for instances", capacity.max_pending.map(time)),
        ("remote debugging", request.debug.remote.then(|| "yes".to_owned())),
        (
            "container kept after a failure",
            (request.debug.keep_on_failure > 0).then(|| time(request.debug.keep_on_failure)),
        ),
        ("network", request.network_isolation.then(|| "none".to_owned())),
        ("checkpoints of the ref", data.checkpoints_ref.as_ref().map(|name| format!("`{name}`"))),
        ("secrets", (!secrets.is_empty()).then(|| quoted(&secrets))),
        ("input channels", (!channels.is_empty()).then(|| quoted(&channels))),
        ("model output", data.model_output.as_ref().map(|output| output.folder.clone())),
    ];
    wishes.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_network_each_container_stage_costs_a_training_job() {
        let words = |steps: &[&str], isolated: bool| {
            let text = format!(
                "[storage]\nbucket = \"b\"\n[job]\nrole_arn = \"arn:aws:iam::123456789012:role/x\"\nimage = \"img\"\n\
                 max_runtime_seconds = 3600\nnetwork_isolation = {isolated}\n[prices]\n\"ml.m5.large\" = 1.5\n"
            );
            let settings: Settings = toml::from_str(&text).unwrap();
            let steps: Vec<_> = steps.iter().map(|name| serde_json::json!({"name": name, "script": ["x"]})).collect();
            let job = serde_json::json!({"id": 1, "job_info": {"project_id": 2}, "steps": steps});
            let job: JobContext = serde_json::from_value(job).unwrap();
            let request = policy::decide(&job, &JobVariables::default(), &settings).unwrap();
            cost_words(&request, &job, &settings).unwrap()
        };
        let both = ["script", "after_script"];
        assert!(words(&both, false).starts_with("at most 1.50 ("), "{}", words(&both, false));
        let two = words(&both, true);
        assert!(two.starts_with("at most 3.00 for 2 training jobs, one for each container stage ("), "{two}");
        assert!(words(&both[..1], true).starts_with("at most 1.50 ("));
        assert!(words(&[], true).starts_with("at most 1.50 for each container stage ("));
    }
}
