//! Decides the data of a training job: checkpoints, input channels, and the place of its model.

use std::collections::BTreeMap;

use super::bounded::switched;
use super::bounds::JobBounds;
use super::decision::{DataDecision, JobInput};
use super::identity::JobIdentity;
use super::matching::matches;
use super::refusal::{asked, listed};
use crate::base::failure::Failure;
use crate::cloud::{Channel, ChannelSource};
use crate::config::input_channels::{self, CHANNELS, ModelOutput};
use crate::config::job_variables::{INPUT_PREFIX, JobVariables};
use crate::config::settings::Settings;
use crate::gitlab::JobContext;

const CHECKPOINTS_REF: &str = "SAGEMAKER_CHECKPOINTS_REF";
const MODEL_OUTPUT: &str = "SAGEMAKER_MODEL_OUTPUT";
/// Longest name of a branch or tag, in bytes.
const REF: usize = 1024;

pub(super) fn data(
    job: &JobContext,
    wishes: &JobVariables,
    settings: &Settings,
    bounds: &JobBounds,
) -> Result<DataDecision, Failure> {
    Ok(DataDecision {
        checkpoints_ref: checkpoints_ref(job, wishes, bounds)?,
        inputs: inputs(wishes, settings, bounds)?,
        model_output: model_output(wishes, settings, bounds)?,
    })
}

fn checkpoints_ref(job: &JobContext, wishes: &JobVariables, bounds: &JobBounds) -> Result<Option<String>, Failure> {
    if !switched("SAGEMAKER_CHECKPOINTS", "checkpoints", wishes.checkpoints, bounds.checkpoints, bounds)? {
        return Ok(None);
    }
    // All forks of a project share one scope.
    if wishes.checkpoints_ref.is_some() && JobIdentity::of(job).fork {
        return Err(Failure::user(format!("`{CHECKPOINTS_REF}` is not for the merge requests of forks"))
            .hint(format!("remove `{CHECKPOINTS_REF}`: the job then uses the checkpoints of its own merge request")));
    }
    let name = wishes.checkpoints_ref.as_ref().unwrap_or(&job.git_info.git_ref);
    if name.len() > REF || name.chars().any(char::is_control) {
        return Err(Failure::user(format!("`{CHECKPOINTS_REF}` is not the name of a branch or tag"))
            .hint(format!("write `{CHECKPOINTS_REF}` as in `main`")));
    }
    Ok(Some(name.clone()))
}

/// The operator's channels and the job's, which replace those of the same name.
fn inputs(wishes: &JobVariables, settings: &Settings, bounds: &JobBounds) -> Result<Vec<JobInput>, Failure> {
    let mut channels = BTreeMap::new();
    for (name, uri) in &settings.job.inputs {
        let channel = input_channels::channel(name, uri)
            .map_err(|wrong| Failure::system(format!("`job.inputs.{name}` {}", wrong.why)).hint(wrong.change))?;
        channels.insert(channel.name.clone(), JobInput { set_by: format!("job.inputs.{name}"), channel });
    }
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for (name, uri) in &wishes.inputs {
        let variable = format!("{INPUT_PREFIX}{name}");
        let channel = input_channels::channel(name, uri)
            .map_err(|wrong| Failure::user(format!("`{variable}` {}", wrong.why)).hint(wrong.change))?;
        Place { variable: &variable, uri: &place(&channel), globs: &bounds.inputs, key: "inputs" }
            .check(settings, bounds)?;
        if let Some(other) = variables.insert(channel.name.clone(), variable.clone()) {
            return Err(Failure::user(format!("`{other}` and `{variable}` are the same channel, `{}`", channel.name))
                .hint(format!("remove one of them, or give `{variable}` another name")));
        }
        channels.insert(channel.name.clone(), JobInput { set_by: variable, channel });
    }
    if channels.len() > CHANNELS {
        return Err(Failure::user(format!("the job has {} input channels; {CHANNELS} fit", channels.len()))
            .hint(format!("set fewer `{INPUT_PREFIX}*` variables")));
    }
    for JobInput { set_by, channel } in channels.values() {
        if matches!(channel.source, ChannelSource::FileSystem { .. }) && bounds.network.is_none() {
            return Err(Failure::user(format!("`{set_by}` is a file system, and the job is in no VPC"))
                .hint("ask the operator to set `job.subnets` and `job.security_group_ids`, from which the file system is reached"));
        }
    }
    Ok(channels.into_values().collect())
}

/// The URI of a channel, as rules compare it: without query and without a slash at its end.
fn place(channel: &Channel) -> String {
    use crate::cloud::FileSystemKind::{Efs, FsxLustre};
    let uri = match &channel.source {
        ChannelSource::S3 { uri, .. } | ChannelSource::Listed { uri } => uri.clone(),
        ChannelSource::FileSystem { kind: Efs, id, path, .. } => format!("efs://{id}{path}"),
        ChannelSource::FileSystem { kind: FsxLustre, id, path, .. } => format!("fsx://{id}{path}"),
    };
    uri.trim_end_matches('/').to_owned()
}

/// A place that a job asks for, and the globs that allow it.
struct Place<'a> {
    variable: &'a str,
    /// Without a slash at its end.
    uri: &'a str,
    globs: &'a [String],
    /// The key in `allow`.
    key: &'static str,
}

impl Place<'_> {
    fn check(&self, settings: &Settings, bounds: &JobBounds) -> Result<(), Failure> {
        let Self { variable, uri, globs, key } = self;
        let own = settings.own_place();
        let (bucket, folder) = (own.bucket, format!("s3://{}/{}", own.bucket, own.prefix));
        if own.meets(uri) {
            return Err(Failure::user(format!(
                "`{variable}` asks for `{uri}`, and the executor's own objects are in `{folder}`"
            ))
            .hint(format!("set `{variable}` to a folder of another bucket, or to one beside `{folder}`")));
        }
        let Some(glob) = globs.iter().find(|glob| is_allowed(glob, uri)) else {
            return Err(asked(bounds, variable, &format!("`{uri}`"), &listed(globs), key));
        };
        // IAM cannot take the executor's objects out of such a pattern, so `policy iam` closes the bucket for it.
        let is_open = |glob: &String| is_allowed(glob, uri) && !own.is_reached_by(glob);
        if settings.allows_all || !own.shares_bucket(uri) || globs.iter().any(is_open) {
            return Ok(());
        }
        Err(Failure::user(format!(
            "`{variable}` asks for `{uri}` in the executor's bucket, for which `{glob}` does not hold: it also stands for the executor's own objects"
        ))
        .hint(format!(
            "set `{variable}` to a folder of another bucket, or ask the operator to name the folder in `allow.{key}`, as in `s3://{bucket}/data/**`"
        )))
    }
}

/// A glob for what lies in a folder also allows the folder itself: the same objects are read.
fn is_allowed(glob: &str, place: &str) -> bool {
    matches(glob, place) || (glob.ends_with("/**") && matches(glob, &format!("{place}/")))
}

fn model_output(
    wishes: &JobVariables,
    settings: &Settings,
    bounds: &JobBounds,
) -> Result<Option<ModelOutput>, Failure> {
    let Some(wish) = &wishes.model_output else {
        let output = bounds.model_output.as_deref().map(input_channels::model_output).transpose();
        return output.map_err(|wrong| Failure::system(format!("`job.model_output` {}", wrong.why)).hint(wrong.change));
    };
    let output = input_channels::model_output(wish)
        .map_err(|wrong| Failure::user(format!("`{MODEL_OUTPUT}` {}", wrong.why)).hint(wrong.change))?;
    let globs: Vec<String> = bounds.model_outputs.iter().map(|glob| glob.trim_end_matches('/').to_owned()).collect();
    let uri = output.folder.trim_end_matches('/');
    Place { variable: MODEL_OUTPUT, uri, globs: &globs, key: "model_outputs" }.check(settings, bounds)?;
    Ok(Some(output))
}
