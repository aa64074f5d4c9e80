//! Channels that are not copied, and results.

use serde_json::{Value, json};

use super::{faults, keys, put, request, run, told, training, training_with};

fn s3_channel(name: &str, prefix: &str, mode: &str) -> Value {
    json!({"ChannelName": name, "InputMode": mode,
           "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": format!("s3://bucket/{prefix}")}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_fast_channel_are_there_and_cannot_be_changed() {
    let Some((training, _folder)) = training() else { return };
    put(&training, "in/deep/file", b"content");
    let script = "cd /opt/ml/input/data/fast; (cat deep/file; echo x 2>/dev/null >deep/file || printf ' kept'; \
                  touch new 2>/dev/null || printf ' closed') >/opt/ml/output/failure; exit 1";
    let mut job = request("job", script);
    job["InputDataConfig"] = json!([s3_channel("fast", "in/", "FastFile")]);
    assert_eq!(told(&training, &job).await, "content kept closed");
    let stored = training.store.get("bucket", "in/deep/file", None).unwrap();
    assert_eq!(std::fs::read(&stored.files()[0].0).unwrap(), b"content");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_channel_is_read_once_an_epoch() {
    let Some((training, _folder)) = training() else { return };
    put(&training, "in/1", b"one,");
    put(&training, "in/2", b"two,");
    let script = "cd /opt/ml/input/data; (cat train_0 train_1; ls) | tr '\\n' ' ' >/opt/ml/output/failure; exit 1";
    let mut job = request("job", script);
    job["InputDataConfig"] = json!([s3_channel("train", "in/", "Pipe")]);
    assert_eq!(told(&training, &job).await, "one,two,one,two,train_0 train_1 train_2 ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_is_a_folder_of_the_operator() {
    let files = tempfile::tempdir().unwrap();
    std::fs::create_dir(files.path().join("data")).unwrap();
    std::fs::write(files.path().join("data/file"), "content").unwrap();
    let root = files.path().to_owned();
    let Some((training, _folder)) = training_with(|config| {
        config.file_systems.insert("fs-12345678".to_owned(), root);
    }) else {
        return;
    };
    let from = |id: &str, mode: &str| {
        let source = json!({"FileSystemId": id, "FileSystemType": "EFS", "FileSystemAccessMode": mode, "DirectoryPath": "/data"});
        json!([{"ChannelName": "nfs", "DataSource": {"FileSystemDataSource": source}}])
    };
    let script = "cd /opt/ml/input/data/nfs; (cat file; echo x 2>/dev/null >new || printf ' closed') >/opt/ml/output/failure; exit 1";
    for (name, mode, told_text) in [("ro", "ro", "content closed"), ("rw", "rw", "content")] {
        let mut job = request(name, script);
        job["VpcConfig"] = json!({"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]});
        job["InputDataConfig"] = from("fs-12345678", mode);
        assert_eq!(told(&training, &job).await, told_text);
    }
    assert!(files.path().join("data/new").exists());
    let mut job = request("unknown", script);
    job["VpcConfig"] = json!({"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]});
    job["InputDataConfig"] = from("fs-87654321", "ro");
    let reason = run(&training, &job).await["FailureReason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("ClientError: ") && reason.contains("Unable to mount file system"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_folders_with_files_become_results() {
    let Some((training, _folder)) = training() else { return };
    run(&training, &request("none", "exit 0")).await;
    assert_eq!(keys(&training, "out/none/"), [""; 0]);
    let mut loose = request("loose", "echo x >/opt/ml/model/weights");
    loose["OutputDataConfig"]["CompressionType"] = json!("NONE");
    let job = run(&training, &loose).await;
    assert_eq!(keys(&training, "out/loose/"), ["out/loose/output/model/weights"]);
    assert_eq!(job["ModelArtifacts"]["S3ModelArtifacts"], "s3://bucket/out/loose/output/model");
    faults(&training, &json!({"jobs": [{"trouble": {"upload": {"reason": "ClientError: no key"}}}]}));
    let job = run(&training, &request("lost", "echo x >/opt/ml/model/weights")).await;
    assert_eq!(job["FailureReason"], "ClientError: Artifact upload failed:ClientError: no key");
    assert_eq!(keys(&training, "out/lost/"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_of_another_region_is_out_of_reach() {
    let Some((training, _folder)) = training() else { return };
    put(&training, "in/1", b"x");
    training.store.create_bucket("far").unwrap();
    training.store.change_settings("far", |settings| settings.location = Some("eu-central-1".to_owned())).unwrap();
    let mut job = request("output", "echo x >/opt/ml/model/weights");
    job["OutputDataConfig"]["S3OutputPath"] = json!("s3://far/out");
    let reason = run(&training, &job).await["FailureReason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("ClientError: Artifact upload failed:") && reason.contains("eu-central-1"), "{reason}");
    training.store.change_settings("bucket", |settings| settings.location = Some("eu-central-1".to_owned())).unwrap();
    let mut job = request("input", "exit 0");
    job["InputDataConfig"] = json!([s3_channel("c", "in/", "File")]);
    let refused = super::call(&training, "CreateTrainingJob", &job).unwrap_err();
    assert!(refused.message.contains("that the bucket exists in the selected region (us-east-1)"), "{refused:?}");
}
