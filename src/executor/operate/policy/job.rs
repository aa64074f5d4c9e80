//! The job that `policy explain` is asked about: a payload of GitLab, or the fields of one.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::gitlab::JobContext;

#[derive(Debug, Args)]
pub(super) struct JobArgs {
    /// A job's payload, as GitLab Runner writes it for the driver (`JOB_RESPONSE_FILE`); it holds secrets
    #[arg(long, value_name = "FILE", conflicts_with_all = ["project", "git_ref", "protected", "fork", "instance"])]
    payload: Option<PathBuf>,
    /// Full path of the project, such as `ml/churn`
    #[arg(long, value_name = "PATH", required_unless_present = "payload")]
    project: Option<String>,
    /// Branch or tag, or `refs/merge-requests/1/head` for a merge request of the project itself; left out with `--fork`
    #[arg(long = "ref", value_name = "REF", required_unless_present_any = ["payload", "fork"])]
    git_ref: Option<String>,
    /// The ref is protected
    #[arg(long)]
    protected: bool,
    /// The job is of a merge request from another project
    #[arg(long, conflicts_with_all = ["protected", "git_ref"])]
    fork: bool,
    /// Host of the GitLab instance, with its port if it has one
    #[arg(long, value_name = "HOST", default_value = "gitlab.com", value_parser = host)]
    instance: String,
    /// Image of the job, as in `image:`
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Variable of the job, such as `SAGEMAKER_INSTANCE_TYPE=ml.g5.xlarge`; it wins over the payload's; may be repeated
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,
}

fn host(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('/') {
        return Err("write the host alone, as in gitlab.example.com:8443".to_owned());
    }
    Ok(text.to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write it as NAME=VALUE".to_owned())
}

impl JobArgs {
    /// The job, as the driver would read it.
    pub(super) fn context(&self) -> anyhow::Result<JobContext> {
        let mut job = match &self.payload {
            Some(path) => JobContext::read(path)?,
            None => self.described()?,
        };
        if let Some(image) = &self.image {
            job.image.name.clone_from(image);
        }
        Ok(job)
    }

    fn described(&self) -> anyhow::Result<JobContext> {
        let git_ref = self.git_ref.as_deref().unwrap_or("refs/merge-requests/1/head");
        // A merge request without an entry of its source project counts as one from a fork.
        let source = json!({"key": "CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "value": "0"});
        let project = self.project.as_deref().unwrap_or_default();
        Ok(serde_json::from_value(json!({
            "id": 0,
            "job_info": {"project_id": 0, "project_full_path": project},
            "git_info": {"ref": git_ref, "protected": self.protected, "repo_url": format!("https://{}/", self.instance)},
            "variables": if self.fork { json!([]) } else { json!([source]) },
        }))?)
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = (String, String)> {
        self.variables.iter().cloned()
    }
}
