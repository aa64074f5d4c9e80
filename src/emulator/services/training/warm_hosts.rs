//! Instances that a job has left for others, and what a job must share with that one to get them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::host::discard;
use crate::tags::TagMap;

/// The instances that a job has left, in a warm pool.
#[derive(Debug)]
pub(super) struct WarmHosts {
    /// The job that left them.
    pub(super) job: String,
    pub(super) instance_type: String,
    pub(super) count: u64,
    /// The image whose containers ran on them.
    pub(super) image: String,
    /// Files of that job, and among them those of the hosts.
    pub(super) folder: PathBuf,
    pub(super) hosts: PathBuf,
    /// Properties in which a job must be equal.
    pub(super) matching: Value,
    pub(super) since: Instant,
    pub(super) until: Instant,
}

/// The properties that a job must share with the one that left a pool, as "Matching training jobs" of the developer guide lists
/// them: the image and the values of session tags are none of them.
pub(super) fn matching(request: &Value, region: &str, tags: &TagMap) -> Value {
    let resources = &request["ResourceConfig"];
    let sorted = |list: &Value| -> BTreeSet<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let is_on = |flag: &str| request[flag] == true;
    json!({
        "region": region,
        "RoleArn": request["RoleArn"],
        "InstanceType": resources["InstanceType"],
        "InstanceCount": resources["InstanceCount"],
        "VolumeSizeInGB": resources["VolumeSizeInGB"],
        "VolumeKmsKeyId": resources["VolumeKmsKeyId"],
        "SecurityGroupIds": sorted(&request["VpcConfig"]["SecurityGroupIds"]),
        "Subnets": sorted(&request["VpcConfig"]["Subnets"]),
        "EnableInterContainerTrafficEncryption": is_on("EnableInterContainerTrafficEncryption"),
        "EnableNetworkIsolation": is_on("EnableNetworkIsolation"),
        "SessionKeys": tags.keys().collect::<Vec<_>>(),
    })
}

/// The time for which a request wants its instances kept.
pub(super) fn keep_alive(request: &Value) -> Option<Duration> {
    let seconds = request.pointer("/ResourceConfig/KeepAlivePeriodInSeconds").and_then(Value::as_u64);
    seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

impl WarmHosts {
    /// Moves the hosts' files to another job. Blocks.
    pub(super) fn move_to(self, folder: &Path) -> anyhow::Result<()> {
        let moved = folder.parent().map_or(Ok(()), std::fs::create_dir_all);
        let moved = moved.and_then(|()| std::fs::rename(&self.hosts, folder));
        moved.with_context(|| format!("failed to move {}", self.hosts.display()))?;
        discard(&self.folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_matches_by_the_keys_of_its_tags_and_not_by_their_values_or_its_image() {
        let request = |image: &str, size: u64| {
            json!({"RoleArn": "role", "AlgorithmSpecification": {"TrainingImage": image},
                   "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": size}})
        };
        let tags = |key: &str, value: &str| TagMap::from([(key.to_owned(), value.to_owned())]);
        let one = matching(&request("a", 5), "eu-west-1", &tags("project", "1"));
        assert_eq!(one, matching(&request("b", 5), "eu-west-1", &tags("project", "2")));
        assert_ne!(one, matching(&request("a", 6), "eu-west-1", &tags("project", "1")));
        assert_ne!(one, matching(&request("a", 5), "eu-west-1", &tags("team", "1")));
        assert_ne!(one, matching(&request("a", 5), "eu-west-2", &tags("project", "1")));
    }
}
