//! The audit log: one JSON line for each decision of `prepare` about a job. It holds no value of a masked variable and none of `SAGEMAKER_ENV_*`.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::base::failure::{Failure, Kind};
use crate::base::files;
use crate::config::policy::{self, Decision, JobIdentity};
use crate::gitlab::JobContext;
use crate::session::SessionId;
use crate::stages::Context;

/// Appends the line. A decision that cannot be written down is not carried out.
pub(super) fn write(
    context: &Context,
    id: &SessionId,
    job: &JobContext,
    decided: &Result<Decision, Failure>,
) -> Result<(), Failure> {
    let path = context.settings.audit_file();
    let mut line = line(context, id, job, decided).to_string();
    line.push('\n');
    let written = (|| {
        if let Some(folder) = path.parent().filter(|_| context.settings.audit.file.is_none()) {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = files::open_to_append(&path, 0o600)?;
        // One write, so that lines of jobs at once do not mix.
        file.write_all(line.as_bytes())
    })();
    written.map_err(|error: std::io::Error| {
        Failure::system(format!("failed to write the decision about this job to {}", path.display()))
            .hint("let the runner's user append to the file: `audit.file` in the operator's file, else `audit.log` in `runner.state_dir`")
            .caused_by(error)
    })
}

fn line(context: &Context, id: &SessionId, job: &JobContext, decided: &Result<Decision, Failure>) -> Value {
    let identity = JobIdentity::of(job);
    let mut line = json!({
        "time": humantime::format_rfc3339_millis(context.clock.now()).to_string(),
        "session": id.as_str(),
        "gitlab": identity.instance,
        "project": identity.project,
        "project_id": job.job_info.project_id.0,
        "job_id": job.id.0,
        "pipeline_id": job.job_info.pipeline_id,
        "user_id": job.job_info.user_id,
        "ref": identity.git_ref,
        "protected": identity.protected,
        "fork": identity.fork,
    });
    let mut more = match decided {
        Ok(decision) => json!({
            "decision": "allowed",
            "rule": decision.rule,
            "image": decision.image,
            "instance_types": decision.instance_types,
            "instance_count": decision.instance_count,
            "instance_groups": decision.instance_groups,
            "volume_size_gb": decision.volume_size_gb,
            "max_runtime_seconds": decision.max_runtime,
            "role_arn": decision.role_arn,
            "subnets": decision.network.as_ref().map(|network| &network.subnets),
            "environment": decision.environment.keys().collect::<Vec<_>>(),
            "capacity": decision.capacity,
            "data": decision.data,
            "secrets": decision.secrets,
        }),
        Err(failure) => json!({
            "decision": if failure.kind == Kind::User { "refused" } else { "failed" },
            "rule": rule(context, &identity),
            "reason": failure.message(),
        }),
    };
    // Identity and rule do not come from variables, so that no job can hide them behind a masked one.
    let mut secrets = job.masked_values(|name| context.env.job_variable(name).map(str::to_owned));
    // One value may begin with another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    for name in ["reason", "image", "instance_types", "instance_groups", "capacity", "data", "secrets"] {
        if let Some(value) = more.get_mut(name) {
            mask(value, &secrets);
        }
    }
    if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
        line.extend(more);
    }
    line
}

/// Replaces secrets in a text, or in all texts of a list or an object, that may come from masked variables.
fn mask(value: &mut Value, secrets: &[String]) {
    match value {
        Value::String(text) => {
            *text = secrets.iter().fold(std::mem::take(text), |text, secret| text.replace(secret.as_str(), "[MASKED]"));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, secrets)),
        Value::Object(entries) => entries.values_mut().for_each(|entry| mask(entry, secrets)),
        _ => {}
    }
}

fn rule(context: &Context, identity: &JobIdentity) -> Option<String> {
    policy::bounds_of(identity, &context.settings).ok()?.rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_begins_with_another_is_masked_whole() {
        let secrets = ["abcdefghTAIL".to_owned(), "abcdefgh".to_owned()];
        let mut value = json!(["r.example/abcdefghTAIL", "abcdefgh", "plain"]);
        mask(&mut value, &secrets);
        assert_eq!(value, json!(["r.example/[MASKED]", "[MASKED]", "plain"]));
    }
}
