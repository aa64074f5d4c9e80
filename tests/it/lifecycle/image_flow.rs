//! An image that is built, trains, and serves: each job gets its digest from the dotenv report of the one that built it.

use std::path::Path;

use serde_json::json;

use super::run;
use crate::conformance::{can_run_containers, skipped};
use crate::support::driver::sagemaker_with;
use crate::support::emulator::BUCKET;
use crate::support::images::{create_repository, missing_builder, push_base};
use crate::support::job::{Artifacts, Job};
use crate::support::serving::serving_role;
use crate::support::waiting::search_path;
use crate::support::world::{Runner, Settings, World};

const DOCKERFILE: &str = "ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY serve answer /bin/
RUN echo 'made by the build' > /made
";
const SERVE: &str = "#!/bin/sh\ntrap 'exit 0' TERM\nbusybox nc -ll -p 8080 -e /bin/answer &\nwait\n";
/// Answers one request.
const ANSWER: &str = r#"#!/bin/sh
length=0
while read -r line; do
  line=$(echo "$line" | busybox tr -d '\r')
  case $line in
    [Cc]ontent-[Ll]ength:*) length=${line#*:} ;;
    '') break ;;
  esac
done
busybox head -c $((length)) > /dev/null
printf 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngood'
"#;

fn manifest() -> String {
    json!({
        "image": {"repository": "example-image", "args": {"BASE_IMAGE": "${BASE_IMAGE}"}, "tags": ["1"]},
        "model": {"group": "wine", "image": "${SERVING_IMAGE}"},
        "endpoint": {"name": "wine", "instances": {"type": "ml.m5.large"}, "test": {"samples": ["samples.json"]}},
        "environments": {"dev": {
            "region": "us-east-1", "account": "000000000000", "bucket": BUCKET,
            "role": "arn:aws:iam::000000000000:role/example-serving",
        }},
    })
    .to_string()
}

#[test]
fn a_built_image_trains_and_serves_by_its_digest() {
    let test = "a_built_image_trains_and_serves_by_its_digest";
    let missing = missing_builder().or((!can_run_containers()).then_some("bubblewrap cannot create a container here"));
    if let Some(missing) = missing {
        return skipped(test, missing);
    }
    let mut driver = sagemaker_with(&["--quota", "endpoint:ml.m5.large=4", "--deployment-wait-scale", "0.01"], "");
    driver.roles = vec![serving_role("example-serving")];
    let world = World::new(Runner::Double, driver, Settings::default());
    let emulator = world.emulator.as_ref().expect("the driver needs AWS");
    let folder = tempfile::tempdir().unwrap();
    let base = push_base(emulator, folder.path());
    create_repository(emulator, "example-image", "IMMUTABLE");
    let project = folder.path().join("project");
    std::fs::create_dir(&project).unwrap();
    let sample = json!([{"content_type": "text/plain", "body": "x", "expect": {"contains": "good"}}]).to_string();
    for (name, text) in [
        ("Dockerfile", DOCKERFILE),
        ("serve", SERVE),
        ("answer", ANSWER),
        ("manifest.json", &manifest()),
        ("samples.json", &sample),
    ] {
        std::fs::write(project.join(name), text).unwrap();
        std::fs::set_permissions(project.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    // The variables of the dotenv reports so far, which GitLab gives to later jobs.
    let mut reports = vec![("BASE_IMAGE".to_owned(), base)];
    let mut command = |words: &[&str]| {
        let (own, path) = (emulator.of_administrator(), search_path());
        let mut variables: Vec<_> = own.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        variables.extend(reports.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        variables.extend([("AWS_ENDPOINT_URL", emulator.endpoint.as_str()), ("PATH", &path)]);
        let ended = run(&project, &variables, &[words, &["--environment", "dev", "--dotenv", "job.env"]].concat());
        assert_eq!(ended.code, 0, "{words:?}: {}{}", ended.stdout, ended.stderr);
        reports.extend(dotenv(&project));
    };
    command(&["image", "build", "--repository", "example-image", "--for", "serving"]);
    let image = dotenv(&project).into_iter().find(|(name, _)| name == "IMAGE_URI").expect("the build tells it").1;
    assert!(image.contains("example-image@sha256:"), "{image}");

    let job = Job::new().image(&image).script(["mkdir model", "cat /made | tee model/made.txt"]);
    let trained = world.run(&job.artifacts(Artifacts::paths(["model/"])));
    trained.succeeded().shows("made by the build");
    let files = trained.artifact("archive").files();
    std::fs::create_dir(project.join("model")).unwrap();
    std::fs::write(project.join("model/made.txt"), &files["model/made.txt"]).unwrap();
    let ran = emulator.jobs().remove(0)["AlgorithmSpecification"]["TrainingImage"].take();
    assert_eq!(ran, image.as_str());

    command(&["model", "register"]);
    command(&["endpoint", "deploy"]);
    let (status, body) = emulator.invoke("wine", "text/plain", "x");
    assert_eq!((status, body.as_str()), (200, "good"));
    emulator.call("SageMaker.DeleteEndpoint", &json!({"EndpointName": "wine"}));
    world.is_left_clean();
}

/// The variables of the last report.
fn dotenv(project: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(project.join("job.env")).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
