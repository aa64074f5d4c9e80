//! The files below `/opt/ml` before a container starts: folders, configuration and channels.
//!
//! All functions block and run on the blocking pool. They use the store and the file system, never a container.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::checkpoints;
use super::download::{link_down, objects_of, write_down};
use super::file_systems;
use super::hosts::{HostPlace, INTERFACE, POOL_CACHE, empty, fresh_folder};
use super::pipes::PipeChannel;
use super::platform::PlatformStore;
use crate::config::EmulatorConfig;
use crate::host::{BindMount, Leftovers};
use crate::protocol::text;

/// The channels of a host that are not files of `/opt/ml`.
#[derive(Debug, Default)]
pub(super) struct HostChannels {
    pub(super) mounts: Vec<BindMount>,
    pub(super) pipes: Vec<PipeChannel>,
}

/// Fills `/opt/ml` of a host: folders, configuration files and channels.
pub(super) fn prepare(
    store: &PlatformStore,
    request: &Value,
    place: &HostPlace,
    config: &EmulatorConfig,
) -> anyhow::Result<HostChannels> {
    empty(place)?;
    for folder in ["input/config", "input/data", "model", "output/data", "output/metrics/sagemaker"] {
        fresh_folder(&place.opt_ml, folder)?;
    }
    if let Some(cache) = POOL_CACHE.strip_prefix("/opt/ml/").filter(|_| place.leftovers == Leftovers::None) {
        fresh_folder(&place.opt_ml, cache)?;
    }
    let mut files = vec![
        ("hyperparameters", request.get("HyperParameters").cloned().unwrap_or_else(|| json!({}))),
        ("resourceconfig", resource_config(place)),
        ("inputdataconfig", input_data_config(request)),
    ];
    if let Some(checkpoints) = request.get("CheckpointConfig") {
        let path = text(checkpoints, "LocalPath").unwrap_or("/opt/ml/checkpoints/");
        files.push(("checkpointconfig", json!({"LocalPath": path})));
    }
    for (name, content) in files {
        let path = place.opt_ml.join(format!("input/config/{name}.json"));
        std::fs::write(&path, content.to_string()).with_context(|| format!("failed to write {}", path.display()))?;
    }
    let mut channels = HostChannels::default();
    channels.mounts.extend(checkpoints::mount(request, place));
    for channel in request.get("InputDataConfig").and_then(Value::as_array).into_iter().flatten() {
        let name = text(channel, "ChannelName").unwrap_or_default();
        prepare_channel(store, request, place, config, channel, &mut channels)
            .with_context(|| format!("failed to download the channel {name}"))?;
    }
    Ok(channels)
}

fn prepare_channel(
    store: &PlatformStore,
    request: &Value,
    place: &HostPlace,
    config: &EmulatorConfig,
    channel: &Value,
    channels: &mut HostChannels,
) -> anyhow::Result<()> {
    let name = text(channel, "ChannelName").unwrap_or_default();
    if let Some(source) = channel.pointer("/DataSource/FileSystemDataSource") {
        fresh_folder(&place.opt_ml.join("input/data"), name)?;
        channels.mounts.push(file_systems::mount(&config.file_systems, source, name)?);
        return Ok(());
    }
    let Some(source) = channel.pointer("/DataSource/S3DataSource") else { return Ok(()) };
    let objects = objects_of(store, source, (place.index, place.count))?;
    match mode_of(request, channel) {
        "Pipe" => {
            let objects = objects.into_iter().map(|(_, stored)| stored).collect();
            channels.pipes.push(PipeChannel::create(&place.opt_ml.join("input/data"), channel, objects)?);
        }
        "FastFile" => {
            fresh_folder(&place.opt_ml.join("input/data"), name)?;
            let view = fresh_folder(&place.folder(), &format!("views/{name}"))?;
            let shared = config.shared_folder();
            objects.iter().try_for_each(|(relative, stored)| link_down(stored, &view, relative, &shared))?;
            let at = Path::new("/opt/ml/input/data").join(name);
            channels.mounts.push(BindMount { from: view, at, writable: false });
        }
        _ => {
            let folder = fresh_folder(&place.opt_ml.join("input/data"), name)?;
            let shared = config.share_channels.then(|| config.shared_folder());
            objects
                .iter()
                .try_for_each(|(relative, stored)| write_down(stored, &folder, relative, shared.as_deref()))?;
        }
    }
    Ok(())
}

fn mode_of<'a>(request: &'a Value, channel: &'a Value) -> &'a str {
    let of_job = request.pointer("/AlgorithmSpecification/TrainingInputMode").and_then(Value::as_str);
    text(channel, "InputMode").or(of_job).unwrap_or("File")
}

fn resource_config(place: &HostPlace) -> Value {
    let sorted = |numbers: std::ops::Range<usize>| {
        let mut hosts: Vec<String> = numbers.map(|number| format!("algo-{}", number + 1)).collect();
        hosts.sort();
        hosts
    };
    let (mut start, mut groups, mut own) = (0, Vec::new(), None);
    for group in &place.groups {
        let hosts = start..start + group.count;
        own = own.or_else(|| hosts.contains(&place.index).then_some(group));
        start = hosts.end;
        groups.push(json!({
            "hosts": sorted(hosts), "instance_group_name": group.name, "instance_type": group.instance_type,
        }));
    }
    json!({
        "current_group_name": own.map(|group| &group.name),
        "current_host": place.hostname(),
        "current_instance_type": own.map(|group| &group.instance_type),
        "hosts": sorted(0..place.count),
        "instance_groups": groups,
        "network_interface_name": INTERFACE,
    })
}

fn input_data_config(request: &Value) -> Value {
    let channels = request.get("InputDataConfig").and_then(Value::as_array).into_iter().flatten();
    let entries: serde_json::Map<String, Value> = channels
        .map(|channel| {
            let distribution =
                channel.pointer("/DataSource/S3DataSource/S3DataDistributionType").and_then(Value::as_str);
            let mut entry = json!({
                "TrainingInputMode": mode_of(request, channel),
                "S3DistributionType": distribution.unwrap_or("FullyReplicated"),
                "RecordWrapperType": text(channel, "RecordWrapperType").unwrap_or("None"),
            });
            if let Some(kind) = text(channel, "ContentType") {
                entry["ContentType"] = json!(kind);
            }
            (text(channel, "ChannelName").unwrap_or_default().to_owned(), entry)
        })
        .collect();
    Value::Object(entries)
}

#[cfg(test)]
mod tests {
    use super::super::hosts::HostGroup;
    use super::*;

    #[test]
    fn ten_hosts_are_sorted_as_words() {
        let place = HostPlace::new(0, &HostGroup::plain(10), Path::new(""));
        let config = resource_config(&place);
        assert_eq!(config["hosts"][1], "algo-10");
        assert_eq!(config["current_host"], "algo-1");
        assert_eq!(config["current_group_name"], "homogeneousCluster");
    }

    #[test]
    fn each_host_knows_the_groups_and_its_own() {
        let group = |name: &str, instance_type: &str, count| HostGroup {
            name: name.to_owned(),
            instance_type: instance_type.to_owned(),
            count,
        };
        let groups = [group("data", "ml.c5.xlarge", 2), group("train", "ml.g5.xlarge", 1)];
        let config = resource_config(&HostPlace::new(2, &groups, Path::new("")));
        let own = ["current_group_name", "current_instance_type", "current_host"].map(|name| config[name].clone());
        assert_eq!(own, ["train", "ml.g5.xlarge", "algo-3"]);
        assert_eq!(config["hosts"], json!(["algo-1", "algo-2", "algo-3"]));
        assert_eq!(config["instance_groups"][0]["hosts"], json!(["algo-1", "algo-2"]));
    }
}
