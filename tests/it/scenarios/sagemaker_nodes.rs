//! Jobs on several instances: the nodes find each other, work together, end together, and send what they have made.

use std::path::Path;
use std::time::Duration;

use super::sagemaker_desk::{BUILD_FAILURE, Desk, Ended};
use crate::support::job::{Artifacts, Job};
use crate::support::waiting::poll;

fn example(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples").join(name)).unwrap()
}

/// Runs a script on so many nodes.
fn on_nodes(count: usize, script: &str) -> Ended {
    let mut desk = Desk::new(&Job::new().script(["true"]));
    desk.set("SAGEMAKER_INSTANCE_COUNT", &count.to_string());
    let desk = desk.prepared();
    let ended = desk.run("build_script", script);
    desk.close();
    ended
}

/// The loss that each node has printed; it must be one.
#[track_caller]
fn loss_of(ended: &Ended, nodes: usize) -> String {
    let out = ended.passed().out();
    let losses: Vec<&str> = out.lines().filter_map(|line| Some(line.split_once("loss ")?.1)).collect();
    assert!(losses.len() == nodes && losses.iter().all(|loss| *loss == losses[0]), "{ended}");
    losses[0].to_owned()
}

/// Each node has an address of its own and the port of the first one, so two jobs of a host may use the same port.
#[test]
fn two_nodes_train_to_the_loss_of_one() {
    let script = format!("cat >train.py <<'EOF'\n{}EOF\npython3 train.py", example("train_nodes.py"));
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| on_nodes(1, &script));
        let two = on_nodes(2, &script);
        (one.join().unwrap(), two)
    });
    assert_eq!(loss_of(&two, 2), loss_of(&one, 1));
}

/// Debian's `python3-torch` suffices. Version 1.13 fails under Python 3.11 without files for the output.
#[test]
fn torchrun_works_unchanged() {
    let has_torch = std::process::Command::new("/usr/bin/env")
        .args([
            "-i",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "python3",
            "-c",
            "import torch",
        ])
        .output()
        .is_ok_and(|output| output.status.success());
    if !has_torch {
        eprintln!("SKIPPED: python3 of this machine has no torch");
        return;
    }
    let script = format!(
        "cat >train.py <<'EOF'\n{}EOF\npython3 -m torch.distributed.run --nnodes=$NNODES --node_rank=$NODE_RANK --nproc_per_node=1 \
         --master_addr=$MASTER_ADDR --master_port=$MASTER_PORT --redirects=1 --tee=1 --log_dir=logs train.py",
        example("train_torch.py")
    );
    assert_eq!(loss_of(&on_nodes(2, &script), 2), loss_of(&on_nodes(1, &script), 1));
}

/// Ten nodes start, speak with the first one and end; the ranks are those of SageMaker's order, and the first one is the one whose
/// lines have no name.
#[test]
fn ten_nodes_meet() {
    let script = "cat >meet.py <<'EOF'\n\
        import os, socket, time\n\
        at = (os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']))\n\
        rank, nodes = os.environ['NODE_RANK'], int(os.environ['NNODES'])\n\
        if rank == '0':\n\
        \x20   with socket.create_server(at) as server:\n\
        \x20       for _ in range(nodes - 1): print('met', server.accept()[0].makefile().read())\n\
        else:\n\
        \x20   while True:\n\
        \x20       try: connection = socket.create_connection(at); break\n\
        \x20       except OSError: time.sleep(0.1)\n\
        \x20   connection.sendall((rank + ' ' + os.environ['SM_CURRENT_HOST']).encode())\n\
        \x20   print('told from', connection.getsockname()[0])\n\
        EOF\npython3 meet.py";
    let ended = on_nodes(10, script);
    let out = ended.passed().out();
    let mut met: Vec<&str> = out.lines().filter(|line| line.starts_with("met ")).collect();
    met.sort_unstable();
    let expected =
        ["met 1 algo-10".to_owned()].into_iter().chain((2..10).map(|rank| format!("met {rank} algo-{rank}")));
    assert!(met.iter().copied().eq(expected), "{ended}");
    assert_eq!(
        out.lines().filter(|line| line.starts_with("[algo-") && line.contains("told from 127.")).count(),
        9,
        "{ended}"
    );
}

const WRITE: &str = "mkdir out; echo $NODE_RANK >out/rank; [ $NODE_RANK = 0 ] || echo more >out/more";

fn desk_of_two<const N: usize>(paths: [&str; N], results: &str) -> Desk {
    let mut desk = Desk::new(&Job::new().script(["true"]).artifacts(Artifacts::paths(paths)));
    desk.set("SAGEMAKER_INSTANCE_COUNT", "2");
    desk.set("SAGEMAKER_RESULTS", results);
    desk.prepared()
}

fn file(desk: &Desk, path: &str) -> Option<String> {
    std::fs::read_to_string(desk.project().join(path)).ok()
}

/// The files of each other node are in a folder of its name; those of the first one are where its script wrote them.
#[test]
fn every_node_sends_its_results() {
    let desk = desk_of_two(["out/", "algo-*/out/r*"], "all");
    let ended = desk.run("build_script", &format!("{WRITE}; mkdir -p algo-2/out; echo taken >algo-2/out/rank"));
    ended
        .passed()
        .says("Results of algo-2, in algo-2/: 1 file,")
        .hides("stay")
        .says("The first node has written files into `algo-2/`, which is for the files of algo-2");
    let read = ["out/rank", "algo-2/out/rank", "out/more", "algo-2/out/more"].map(|path| file(&desk, path));
    assert_eq!(read, [Some("0\n".to_owned()), Some("1\n".to_owned()), None, None]);
    desk.close();
}

/// The files of the other nodes stay there, and the job log says so.
#[test]
fn files_that_stay_on_other_nodes_are_told() {
    let desk = desk_of_two(["out/"], "leader");
    let ended = desk.run("build_script", WRITE);
    ended
        .passed()
        .says("2 files that `artifacts` or `cache` name stay on other nodes")
        .says("`out/more` of algo-2, `out/rank` of algo-2");
    assert_eq!((file(&desk, "out/rank").as_deref(), file(&desk, "out/more")), (Some("0\n"), None));
    desk.close();
}

/// The paths name no folder of a node.
#[test]
fn all_nodes_send_nothing_without_a_path_for_them() {
    let desk = desk_of_two(["out/"], "all");
    let ended = desk.run("build_script", WRITE);
    let why = "2 files that `artifacts` or `cache` name stay on other nodes, because the paths of other nodes begin with their folder";
    ended.passed().says(why).says("To keep them, name folders of nodes in the paths, such as `algo-2/` or `algo-*/`");
    assert_eq!((file(&desk, "out/rank").as_deref(), file(&desk, "algo-2/out/rank")), (Some("0\n"), None));
    desk.close();
}

/// A file where a folder of a node comes: refused before the script, and after it when the script has written it.
#[test]
fn a_file_in_the_place_of_a_nodes_folder_is_a_mistake_of_the_job() {
    let desk = desk_of_two(["out/", "algo-*"], "all");
    let refusal = "the project has a file `algo-2`, but the files of the node algo-2 go into a folder `algo-2/`";
    desk.put("algo-2", b"taken");
    let ended = desk.run("build_script", WRITE);
    ended.with_code(BUILD_FAILURE).one_error().says(refusal);
    desk.run("after_script", WRITE).with_code(BUILD_FAILURE).says(refusal);
    std::fs::remove_file(desk.project().join("algo-2")).unwrap();
    let ended = desk.run("build_script", &format!("{WRITE}; [ $NODE_RANK = 1 ] || echo taken >algo-2"));
    ended.with_code(BUILD_FAILURE).one_error().says(refusal).says("rename the file");
    desk.close();
}

/// Larger than what is sent before SageMaker could end the container of another node.
const LARGE: u64 = 30_000_000;

/// Runs a script that fails on a node; then the training job has failed as well.
fn failed(desk: &Desk, script: &str) {
    desk.run("build_script", script).with_code(BUILD_FAILURE).hides("error: ");
    let status = || desk.training_job()["TrainingJobStatus"].as_str() == Some("Failed");
    assert!(poll(Duration::from_secs(30), || status().then_some(())).is_some(), "{}", desk.training_job());
}

fn size(desk: &Desk, path: &str) -> Option<u64> {
    std::fs::metadata(desk.project().join(path)).ok().map(|file| file.len())
}

/// The failure of one container ends those of the others: it comes after the results of each.
#[test]
fn a_node_that_fails_leaves_the_others_time_to_send() {
    let desk = desk_of_two(["out"], "leader");
    failed(&desk, &format!("[ $NODE_RANK = 0 ] && head -c {LARGE} /dev/urandom >out; exit $NODE_RANK"));
    assert_eq!(size(&desk, "out"), Some(LARGE));
    desk.close();
}

#[test]
fn the_results_of_every_node_come_although_all_fail() {
    let desk = desk_of_two(["out", "algo-*/out"], "all");
    failed(
        &desk,
        &format!("if [ $NODE_RANK = 0 ]; then echo small >out; else head -c {LARGE} /dev/urandom >out; fi; exit 1"),
    );
    assert_eq!([size(&desk, "out"), size(&desk, "algo-2/out")], [Some(6), Some(LARGE)]);
    desk.close();
}

/// Each group has its own instances; the script tells them apart, and the trace and the rule's bounds name all of them.
#[test]
fn groups_of_different_types() {
    let groups = "data=ml.c5.2xlarge x 2, train=ml.g5.xlarge x 1";
    let mut desk = Desk::new(&Job::new().script(["true"]));
    desk.set("SAGEMAKER_INSTANCE_GROUPS", groups);
    desk.config().passed();
    let prepared = desk.prepare();
    prepared.passed().says("Instance: 2 x ml.c5.2xlarge (data) and 1 x ml.g5.xlarge (train, 1 A10G GPU), ");
    std::fs::create_dir_all(desk.project()).unwrap();
    let resources = desk.training_job()["ResourceConfig"].clone();
    assert!(
        resources.get("InstanceType").is_none() && resources["InstanceGroups"][1]["InstanceCount"] == 1,
        "{resources}"
    );
    let ended = desk
        .run("build_script", "echo $NODE_RANK of $NNODES in $SM_CURRENT_INSTANCE_GROUP on $SM_CURRENT_INSTANCE_TYPE");
    let out = ended.passed().out();
    for line in [
        "0 of 3 in data on ml.c5.2xlarge\n",
        "[algo-2] 1 of 3 in data on ml.c5.2xlarge\n",
        "[algo-3] 2 of 3 in train on ml.g5.xlarge\n",
    ] {
        assert!(out.contains(line), "{line:?} is missing\n{ended}");
    }
    desk.close();
}
