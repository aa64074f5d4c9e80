//! The variables by which a script finds its node, the other nodes and its data: those of SageMaker's training toolkit, whose names
//! and forms these are (`environment.py`), and those that `torchrun` and `deepspeed` take.
//!
//! The toolkit's variables about its own entry point are left out: a job has a script instead. Hyperparameters are never sent.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::process::Command;

use super::node::ThisNode;
use crate::config::env::Environment;
use crate::protocol::bootstrap;

/// As in SageMaker's own launchers.
const MASTER_PORT: &str = "7777";
/// Python's `logging.INFO`.
const LOG_LEVEL: u32 = 20;
const INPUTS: &str = "/opt/ml/input/config/inputdataconfig.json";
/// Time limit of the program that lists the Neuron cores.
const LISTING: Duration = Duration::from_secs(20);

/// The processors of this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Processors {
    cpus: usize,
    gpus: usize,
    neurons: u64,
}

/// Reads the rest of what the variables are made of, and makes them.
pub(super) async fn of_node(node: &ThisNode, container: &Environment) -> BTreeMap<String, String> {
    let inputs = std::fs::read(INPUTS).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    variables(node, inputs, processors().await, container)
}

/// `inputs` is the content of `inputdataconfig.json`; `container` gives the container's own variables. Those that say where nodes
/// meet may be chosen; those that tell one node from another may not.
fn variables(
    node: &ThisNode,
    mut inputs: Map<String, Value>,
    processors: Processors,
    container: &Environment,
) -> BTreeMap<String, String> {
    inputs.remove(bootstrap::CHANNEL);
    let hosts = node.ranked();
    let master = hosts.first().copied().unwrap_or(&node.host);
    let (addr, port) =
        (container.get("MASTER_ADDR").unwrap_or(master), container.get("MASTER_PORT").unwrap_or(MASTER_PORT));
    let rank = hosts.iter().position(|host| *host == node.host).unwrap_or(0);
    let mut variables = of_toolkit(node, &inputs, processors, container);
    variables.insert("training_env".to_owned(), training_env(node, &variables, container, master));
    variables.extend(channels(&inputs).map(|(name, path)| (format!("channel_{name}"), json!(path))));
    // Of SageMaker's newer launcher, which has no toolkit in the image.
    variables.extend([("host_count".to_owned(), json!(hosts.len())), ("master_addr".to_owned(), json!(addr))]);
    variables.extend([("current_host_rank".to_owned(), json!(rank)), ("master_port".to_owned(), json!(port))]);
    let named = variables.into_iter().map(|(name, value)| (format!("SM_{}", name.to_uppercase()), text(&value)));
    let launched = [
        ("MASTER_ADDR".to_owned(), addr.to_owned()),
        ("MASTER_PORT".to_owned(), port.to_owned()),
        ("NNODES".to_owned(), hosts.len().to_string()),
        ("NODE_RANK".to_owned(), rank.to_string()),
    ];
    named.chain(launched).collect()
}

fn of_toolkit(
    node: &ThisNode,
    inputs: &Map<String, Value>,
    processors: Processors,
    container: &Environment,
) -> Map<String, Value> {
    let resource = |name: &str, usual: Value| node.resources.get(name).cloned().unwrap_or(usual);
    let group = resource("current_group_name", json!("homogeneousCluster"));
    let groups = node.resources.get("instance_groups").and_then(Value::as_array).cloned().unwrap_or_default();
    let name_of = |group: &Value| group["instance_group_name"].clone();
    let own = groups.iter().find(|one| name_of(one) == group).map(|one| one["hosts"].clone());
    let by_name = groups.iter().filter_map(|one| Some((name_of(one).as_str()?.to_owned(), one.clone())));
    let log_level = container.get("SAGEMAKER_CONTAINER_LOG_LEVEL").and_then(|level| level.parse().ok());
    let values = json!({
        "channels": channels(inputs).map(|(name, _)| name).collect::<Vec<_>>(),
        "current_host": node.host,
        "current_instance_group": group,
        "current_instance_group_hosts": own.unwrap_or_else(|| json!([])),
        "current_instance_type": resource("current_instance_type", json!("local")),
        "distribution_instance_groups": [],
        "framework_params": {},
        "hosts": node.ranked(),
        "hps": {},
        "input_config_dir": "/opt/ml/input/config",
        "input_data_config": inputs,
        "input_dir": "/opt/ml/input",
        "instance_groups": groups.iter().map(name_of).collect::<Vec<_>>(),
        "instance_groups_dict": by_name.collect::<Map<_, _>>(),
        "is_hetero": groups.len() > 1,
        "log_level": log_level.unwrap_or(LOG_LEVEL),
        "model_dir": "/opt/ml/model",
        "network_interface_name": resource("network_interface_name", json!("eth0")),
        "num_cpus": processors.cpus,
        "num_gpus": processors.gpus,
        "num_neurons": processors.neurons,
        "output_data_dir": "/opt/ml/output/data",
        "output_dir": "/opt/ml/output",
        "output_intermediate_dir": "/opt/ml/output/intermediate",
        "resource_config": node.resources,
        "user_args": [],
    });
    let Value::Object(mut values) = values else { return Map::new() };
    values.extend(node.resources.get("topology").map(|topology| ("topology".to_owned(), topology.clone())));
    values
}

/// `SM_TRAINING_ENV`: the toolkit's description of all of it.
fn training_env(node: &ThisNode, variables: &Map<String, Value>, container: &Environment, master: &str) -> Value {
    let mut all = variables.clone();
    let renamed = [("hps", "hyperparameters"), ("framework_params", "additional_framework_parameters")];
    for (from, to) in renamed {
        let value = all.remove(from).unwrap_or_default();
        all.insert(to.to_owned(), value);
    }
    for absent in ["channels", "user_args"] {
        all.remove(absent);
    }
    let inputs = all.get("input_data_config").and_then(Value::as_object).cloned().unwrap_or_default();
    let paths: Map<_, _> = channels(&inputs).map(|(name, path)| (name.to_owned(), json!(path))).collect();
    all.insert("channel_input_dirs".to_owned(), Value::Object(paths));
    all.insert("distribution_hosts".to_owned(), json!([]));
    all.insert("is_master".to_owned(), json!(node.host == master));
    all.insert("master_hostname".to_owned(), json!(master));
    all.insert("job_name".to_owned(), json!(container.get("TRAINING_JOB_NAME")));
    all.entry("topology").or_insert_with(|| json!([]));
    Value::Object(all)
}

/// The input channels with their directories, sorted.
fn channels(inputs: &Map<String, Value>) -> impl Iterator<Item = (&str, String)> {
    inputs.keys().map(|name| (name.as_str(), bootstrap::data_dir().join(name).display().to_string()))
}

/// As the toolkit writes a value: text as it is, all else as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

async fn processors() -> Processors {
    Processors {
        cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        gpus: devices("nvidia"),
        neurons: if devices("neuron") > 0 { neuron_cores().await } else { 0 },
    }
}

/// The device files of a kind that the container has: `/dev/nvidia0` and so on.
fn devices(kind: &str) -> usize {
    let names = std::fs::read_dir(Path::new("/dev")).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let is_one = |name: &str| {
        name.strip_prefix(kind).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    names.filter(|name| name.to_str().is_some_and(is_one)).count()
}

/// The sum over all devices, as the driver's own program tells it; 0 when it cannot.
async fn neuron_cores() -> u64 {
    let mut command = Command::new("neuron-ls");
    command.arg("-j").stdin(std::process::Stdio::null()).kill_on_drop(true);
    let Ok(Ok(output)) = tokio::time::timeout(LISTING, command.output()).await else { return 0 };
    let devices: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    devices.iter().filter_map(|device| device["nc_count"].as_u64()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESSORS: Processors = Processors { cpus: 4, gpus: 8, neurons: 0 };

    fn of(host: &str, container: &[(&str, &str)]) -> BTreeMap<String, String> {
        let groups = json!([
            {"instance_group_name": "train", "instance_type": "ml.g5.xlarge", "hosts": ["algo-10", "algo-2"]},
            {"instance_group_name": "data", "instance_type": "ml.c5.xlarge", "hosts": ["algo-1"]},
        ]);
        let resources = json!({
            "current_group_name": "train", "current_host": host, "current_instance_type": "ml.g5.xlarge",
            "hosts": ["algo-2", "algo-10", "algo-1"], "instance_groups": groups, "network_interface_name": "eth1",
        });
        let inputs =
            json!({"train": {"TrainingInputMode": "File"}, (bootstrap::CHANNEL): {"TrainingInputMode": "File"}});
        let pairs = container.iter().map(|(name, value)| (name.into(), value.into()));
        let inputs = inputs.as_object().unwrap().clone();
        variables(&ThisNode::of(resources).unwrap(), inputs, PROCESSORS, &Environment::from_pairs(pairs))
    }

    #[test]
    fn torchrun_finds_its_node_and_the_first_one() {
        let rows = [("algo-1", "0"), ("algo-10", "1"), ("algo-2", "2")];
        for (host, rank) in rows {
            let of = of(host, &[("NODE_RANK", "7"), ("SM_HOSTS", "[]")]);
            let read = ["MASTER_ADDR", "MASTER_PORT", "NNODES", "NODE_RANK", "SM_CURRENT_HOST", "SM_HOSTS"];
            let hosts = r#"["algo-1","algo-10","algo-2"]"#;
            assert_eq!(read.map(|name| of[name].as_str()), ["algo-1", MASTER_PORT, "3", rank, host, hosts]);
        }
    }

    #[test]
    fn the_job_chooses_where_its_nodes_meet() {
        let of = of("algo-2", &[("MASTER_ADDR", "algo-2"), ("MASTER_PORT", "29500")]);
        let read = ["MASTER_ADDR", "SM_MASTER_ADDR", "MASTER_PORT", "SM_MASTER_PORT"].map(|name| of[name].as_str());
        assert_eq!(read, ["algo-2", "algo-2", "29500", "29500"]);
    }

    /// Names and forms are those of the toolkit's `to_env_vars`.
    #[test]
    fn the_toolkits_variables_have_its_forms() {
        let of = of("algo-2", &[("TRAINING_JOB_NAME", "job"), ("SAGEMAKER_CONTAINER_LOG_LEVEL", "10")]);
        let expected = [
            ("SM_CHANNELS", r#"["train"]"#),
            ("SM_CHANNEL_TRAIN", "/opt/ml/input/data/train"),
            ("SM_CURRENT_INSTANCE_GROUP", "train"),
            ("SM_CURRENT_INSTANCE_GROUP_HOSTS", r#"["algo-10","algo-2"]"#),
            ("SM_CURRENT_INSTANCE_TYPE", "ml.g5.xlarge"),
            ("SM_HPS", "{}"),
            ("SM_INPUT_CONFIG_DIR", "/opt/ml/input/config"),
            ("SM_INPUT_DATA_CONFIG", r#"{"train":{"TrainingInputMode":"File"}}"#),
            ("SM_INPUT_DIR", "/opt/ml/input"),
            ("SM_INSTANCE_GROUPS", r#"["train","data"]"#),
            ("SM_IS_HETERO", "true"),
            ("SM_LOG_LEVEL", "10"),
            ("SM_MODEL_DIR", "/opt/ml/model"),
            ("SM_NETWORK_INTERFACE_NAME", "eth1"),
            ("SM_NUM_CPUS", "4"),
            ("SM_NUM_GPUS", "8"),
            ("SM_NUM_NEURONS", "0"),
            ("SM_OUTPUT_DATA_DIR", "/opt/ml/output/data"),
            ("SM_OUTPUT_DIR", "/opt/ml/output"),
            ("SM_USER_ARGS", "[]"),
        ];
        for (name, value) in expected {
            assert_eq!(of.get(name).map(String::as_str), Some(value), "{name}");
        }
        let groups: Value = serde_json::from_str(&of["SM_INSTANCE_GROUPS_DICT"]).unwrap();
        assert_eq!(groups["data"]["hosts"], json!(["algo-1"]));
        let resources: Value = serde_json::from_str(&of["SM_RESOURCE_CONFIG"]).unwrap();
        assert_eq!(resources["current_host"], "algo-2");
        let all: Value = serde_json::from_str(&of["SM_TRAINING_ENV"]).unwrap();
        let read = ["master_hostname", "job_name", "is_master", "hyperparameters"].map(|name| all[name].clone());
        assert_eq!(read, [json!("algo-1"), json!("job"), json!(false), json!({})]);
        assert_eq!(all["channel_input_dirs"], json!({"train": "/opt/ml/input/data/train"}));
        assert!(!of.contains_key("SM_TOPOLOGY") && all["topology"] == json!([]));
    }
}
