//! Images with their own user, variables or small root, and scripts that remove files that the executor needs.

use std::path::Path;

use serde_json::json;

use super::sagemaker_desk::{BUILD_FAILURE, Desk};
use super::sagemaker_power::edit_payload;
use crate::container::{root_of, with_libraries};
use crate::support::job::{Artifacts, Cache, Job, Variable};
use crate::support::scenario::{one, scenarios};
use crate::support::waiting::tell;

/// The image of [`Job::new`].
const IMAGE: &str = "registry.example.com/train:2.4";

fn job() -> Job {
    Job::new().script(["true"]).after_script(["true"]).artifacts(Artifacts::paths(["model.txt"]).when("always"))
}

/// Only root can start containers of other users, and limit their root.
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        tell("SKIPPED: images with a user or a small root: not root");
    }
    is_root
}

/// A directory of the test that is not below `/tmp`, as on a runner host.
fn elsewhere() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn option(name: &str) -> String {
    format!("{IMAGE}={name}")
}

fn result(desk: &Desk) -> Option<String> {
    std::fs::read_to_string(desk.project().join("model.txt")).ok()
}

/// Where the builds directory can be had, everything works as the image's user: the agent cannot even run from its channel.
#[test]
fn the_image_has_a_user() {
    if !is_root() {
        return;
    }
    let desk = Desk::with(&job(), &["--image-user", &option("1000")], "").prepared();
    desk.put("in.txt", b"in\n");
    let ended = desk.run("build_script", "id -u; cat in.txt; echo made > model.txt; mkdir closed; chmod 0 closed");
    ended.passed();
    assert_eq!(ended.out(), "1000\nin\n");
    let ended = desk.run("after_script", "cat model.txt");
    ended.passed();
    assert_eq!((ended.out().as_str(), result(&desk).as_deref()), ("made\n", Some("made\n")));
    desk.close();
}

#[test]
fn the_images_user_cannot_have_the_builds_directory() {
    if !is_root() {
        return;
    }
    let desk = Desk::below(elsewhere(), &job(), &["--image-user", &option("1000")], "").prepared();
    let ended = desk.run("build_script", "echo never");
    ended.with_code(BUILD_FAILURE).one_error().says("`sandbox.builds_dir` below `/tmp`").says("`RUN mkdir -p ");
    assert_eq!((ended.out().as_str(), ended.exit_code.as_deref()), ("", None));
    desk.run("upload_artifacts_on_failure", "true").passed();
    desk.close();
}

/// A root directory with bash and a few programs: it has none of this machine's directories.
fn small_image() -> Option<tempfile::TempDir> {
    let files =
        ["bash", "sh", "rm", "cat", "head", "mkdir", "chmod", "ln", "ls"].map(|program| format!("/bin/{program}"));
    let files = with_libraries(&files.each_ref().map(String::as_str))?;
    let files: Vec<(&str, &str)> = files.iter().map(|file| (file.as_str(), file.trim_start_matches('/'))).collect();
    root_of(&files)
}

/// The project lies on the volume, at one path in every job, and outlives the emptying of `/tmp`.
#[test]
fn the_root_is_smaller_than_the_volume() {
    let Some(root) = small_image().filter(|_| is_root()) else { return };
    let image = option(&root.path().display().to_string());
    let options = ["--image", &image, "--root-size", &option("32M")];
    let mut desk = Desk::below(elsewhere(), &job(), &options, "").prepared();
    let script = "pwd -P; head -c 67108864 /dev/zero > large && echo has room; rm large; echo made > model.txt; rm -rf /tmp/*; exit 5";
    let mut places = Vec::new();
    for id in [4711, 4712] {
        let ended = desk.run("build_script", script);
        ended.with_code(BUILD_FAILURE);
        assert_eq!(ended.exit_code.as_deref(), Some("5"), "{ended}");
        let (place, rest) = ended.out().split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert_eq!(rest, "has room\n");
        places.push(place);
        let ended = desk.run("after_script", "cat model.txt; cat $BASH_SOURCE | head -c 3");
        ended.passed();
        assert_eq!((ended.out().as_str(), result(&desk).as_deref()), ("made\ncat", Some("made\n")));
        desk.run("upload_artifacts_on_failure", "true").passed();
        desk.cleanup().passed();
        if id == 4711 {
            desk.next_job(&job(), 4712);
        }
    }
    assert_eq!(places[0], places[1]);
    assert_eq!(places[0], format!("/opt/ml/input/data/sagemaker-executor/volume{}", desk.project().display()));
    desk.is_left_clean();
}

/// Scripts of a virtualenv name its interpreter by its whole path, and the interpreter is a link into the image: the next job finds
/// both where the first one made them.
#[test]
fn a_virtualenv_from_the_cache_runs_where_the_root_is_small() {
    let Some(root) = small_image().filter(|_| is_root()) else { return };
    let job = Job::new().script(["true"]).cache(Cache::new("venv", ["venv/"]));
    let image = option(&root.path().display().to_string());
    let (options, links) = (
        ["--image", &image, "--root-size", &option("32M")],
        "[results]
keep_outside_links = true",
    );
    let mut desk = Desk::below(elsewhere(), &job, &options, links).prepared();
    let (project, archive) = (desk.project(), desk.root().join("cache.tar"));
    let script = "mkdir -p venv/bin; ln -s /bin/bash venv/bin/python
        printf '#!%s\necho \"$0\"\n' \"$PWD/venv/bin/python\" > venv/bin/train; chmod +x venv/bin/train; \"$PWD/venv/bin/train\"";
    let made = desk.run("build_script", script);
    made.passed();
    let on_the_host = |desk: &Desk, stage: &str, script: &str| {
        desk.run(stage, &format!("set -e; cd '{}'; {script}", project.display())).passed();
    };
    on_the_host(&desk, "archive_cache", &format!("tar -cf '{}' venv; rm -rf venv", archive.display()));
    desk.cleanup().passed();
    desk.next_job(&job, 4712);
    on_the_host(&desk, "restore_cache", &format!("tar -xf '{}'", archive.display()));
    let used = desk.run("build_script", "\"$PWD/venv/bin/train\"");
    used.passed();
    assert_eq!(used.out(), made.out());
    assert!(used.out().ends_with("/ml/churn/venv/bin/train\n"), "{used}");
    desk.run("archive_cache", "true").passed();
    desk.close();
}

/// An image with a user and without `cp`: the user owns neither the channel nor its files.
#[test]
fn the_image_has_a_user_and_little_else() {
    let Some(root) = small_image().filter(|_| is_root()) else { return };
    let image = option(&root.path().display().to_string());
    let desk = Desk::with(&job(), &["--image", &image, "--image-user", &option("1000:1000")], "").prepared();
    let ended = desk.run("build_script", "echo $UID; exit 126");
    ended.with_code(BUILD_FAILURE);
    assert_eq!((ended.out().as_str(), ended.exit_code.as_deref()), ("1000\n", Some("126")), "{ended}");
    desk.close();
}

/// With the project in it, it is gone as after the removal of the project; what follows still runs, and knows.
#[test]
fn a_script_empties_tmp() {
    let desk = Desk::new(&job()).prepared();
    desk.put("model.txt", b"old");
    // The desk lies elsewhere where `TMPDIR` says so.
    let script = format!("cd /; rm -rf /tmp/* {}; echo emptied; exit 5", desk.project().display());
    let ended = desk.run("build_script", &script);
    ended.with_code(BUILD_FAILURE);
    assert_eq!((ended.out().as_str(), ended.exit_code.as_deref()), ("emptied\n", Some("5")), "{ended}");
    let script = format!("echo after; cd {}", desk.project().display());
    let ended = desk.run("after_script", &script);
    ended.with_code(BUILD_FAILURE).says("removed it or its permissions").says("its files count as deleted");
    assert_eq!(ended.out().lines().next(), Some("after"), "{ended}");
    assert_eq!(result(&desk), None, "what the script removed is gone on the host as well");
    desk.run("upload_artifacts_on_failure", "true").passed();
    desk.close();
}

/// Whatever stands where the project was, the script's own end counts.
#[test]
fn the_project_is_replaced() {
    for replace in ["echo x > $P", "ln -s /etc $P", "mkdir $P && chmod 0 $P", "true"] {
        let desk = Desk::new(&job()).prepared();
        desk.put("model.txt", b"old");
        let script = format!("P={}; cd / && rm -rf $P && {replace}; echo done", desk.project().display());
        let ended = desk.run("build_script", &script);
        ended.passed();
        assert_eq!(ended.out(), "done\n");
        let ended = desk.run("after_script", "true");
        ended.passed().hides("error:");
        assert_eq!(result(&desk), None, "{replace}");
        desk.run("upload_artifacts_on_success", "true").passed();
        desk.close();
    }
}

/// The agent acts for the role of the training job with what the driver told it; all that the image says of AWS is the script's.
#[test]
fn the_image_speaks_of_aws() {
    let pairs = [
        "AWS_ACCESS_KEY_ID=AKIAOFTHEIMAGE",
        "AWS_SECRET_ACCESS_KEY=of-the-image",
        "AWS_SESSION_TOKEN=of-the-image",
        "AWS_PROFILE=absent",
        "AWS_CONFIG_FILE=/nonexistent",
        "AWS_ENDPOINT_URL_S3=http://127.0.0.1:9",
        "AWS_USE_FIPS_ENDPOINT=true",
        "AWS_USE_DUALSTACK_ENDPOINT=true",
        "AWS_MAX_ATTEMPTS=0",
        "AWS_CA_BUNDLE=/nonexistent",
        "SSL_CERT_FILE=/nonexistent",
        "HTTP_PROXY=http://127.0.0.1:9",
        "http_proxy=http://127.0.0.1:9",
        "HTTPS_PROXY=http://127.0.0.1:9",
        "ALL_PROXY=http://127.0.0.1:9",
    ];
    let pairs: Vec<String> = pairs.iter().map(|pair| option(pair)).collect();
    let options: Vec<&str> = pairs.iter().flat_map(|pair| ["--image-env", pair]).collect();
    let desk = Desk::with(&job(), &options, "");
    desk.edit_operator_file("[job]\n", "[job]\nenvironment = { AWS_DEFAULT_PROFILE = \"of-the-operator\" }\n");
    let desk = desk.prepared();
    let ended = desk.run(
        "build_script",
        "echo $AWS_ACCESS_KEY_ID $AWS_PROFILE $HTTPS_PROXY $AWS_DEFAULT_PROFILE; echo made > model.txt",
    );
    ended.passed();
    assert_eq!(ended.out(), "AKIAOFTHEIMAGE absent http://127.0.0.1:9 of-the-operator\n");
    desk.run("after_script", "true").passed();
    assert_eq!(result(&desk).as_deref(), Some("made\n"));
    desk.close();
}

/// The job log tells what of `image:` has no effect; a platform that SageMaker does not have is refused before anything is created.
#[test]
fn the_image_has_an_entrypoint_a_user_and_a_platform() {
    let mut desk = Desk::new(&job());
    let docker = |platform: &str| json!({"docker": {"user": "1000", "platform": platform}});
    edit_payload(&desk, |payload| {
        payload["image"]["entrypoint"] = json!(["python"]);
        payload["image"]["executor_opts"] = docker("linux/arm64");
    });
    desk.config().passed();
    desk.prepare().with_code(BUILD_FAILURE).one_error().says("`image:docker:platform` asks for `linux/arm64`");
    assert_eq!(desk.emulator.requests("CreateTrainingJob"), 0);
    edit_payload(&desk, |payload| payload["image"]["executor_opts"] = docker(""));
    let ended = desk.prepare();
    ended.passed();
    ended.says("`image:entrypoint` and `image:docker:user` have no effect");
    desk.close();
}

scenarios! {
    /// A script may clean up after itself.
    removes_its_project {
        play: |world| one(world, &Job::new().script(["cd / && rm -rf \"$CI_PROJECT_DIR\"", "echo cleaned"]).after_script(["echo and after"])),
        expect: |_, outcomes| {
            outcomes[0].succeeded().shows("cleaned");
        },
    }
    removes_its_project_and_fails {
        play: |world| one(world, &Job::new().variable(Variable::new("CODE", "5")).script(["cd / && rm -rf \"$CI_PROJECT_DIR\"", "exit $CODE"])),
        expect: |_, outcomes| {
            outcomes[0].failed("script_failure", Some(5));
        },
    }
}
