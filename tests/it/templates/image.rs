//! The recipe of the image for lifecycle jobs: what its documented commands send to a builder, and what buildah makes of it. The base is
//! made here, so nothing is fetched.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use super::component::folder;
use crate::conformance::{shown, skipped};
use crate::support::waiting::find_program;

fn program(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The commands in the comment of the recipe.
fn documented() -> Vec<String> {
    let recipe = std::fs::read_to_string(folder().join("image/Dockerfile")).unwrap();
    recipe.lines().filter_map(|line| line.strip_prefix("#   ")).map(str::to_owned).collect()
}

/// The build sees the program, and not the gigabytes beside it.
#[test]
fn the_documented_commands_send_the_program_alone() {
    let clone = tempfile::tempdir().unwrap();
    let path = |name: &str| clone.path().join(name);
    let made = path("target/x86_64-unknown-linux-gnu/release");
    program(&made.join("sagemaker-executor"), "#!/bin/sh\n");
    program(&made.join("deps/large.rlib"), "");
    program(&path("bin/cargo"), "#!/bin/sh\n");
    program(
        &path("bin/docker"),
        "#!/bin/sh\n[ \"$1\" = build ] || exit 0\nfor last; do :; done\nfind \"$last\" -type f > sent\n",
    );
    let search = format!("{}:/usr/bin:/bin", path("bin").display());
    let ended = Command::new("/bin/sh")
        .args(["-eu", "-c", &documented().join("\n")])
        .current_dir(&clone)
        .env_clear()
        .envs([("PATH", search.as_str()), ("BASE_IMAGE", "base"), ("REPOSITORY", "lifecycle")])
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}", shown(&ended));
    assert_eq!(std::fs::read_to_string(path("sent")).unwrap(), "target/image/sagemaker-executor\n");
}

/// Builds the recipe with this program, on a base whose `apk` installs nothing.
fn built(work: &Path, text: &str) -> Output {
    let path = |name: &str| work.join(name);
    let base = path("base");
    std::fs::create_dir_all(base.join("bin")).unwrap();
    std::fs::create_dir_all(base.join("usr/local/bin")).unwrap();
    let busybox = find_program("busybox").unwrap();
    std::fs::copy(busybox, base.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", base.join("bin/sh")).unwrap();
    for name in ["apk", "git"] {
        program(&base.join("bin").join(name), "#!/bin/sh\necho \"called $0 $*\" >> /calls\n");
    }
    std::fs::write(base.join("Containerfile"), "FROM scratch\nCOPY bin /bin\n").unwrap();
    program(&path("context/sagemaker-executor"), text);
    let buildah = |arguments: &[&str]| {
        let mut buildah = Command::new("buildah");
        buildah.args(["--storage-driver", "vfs", "--root"]).arg(path("root")).arg("--runroot").arg(path("run"));
        buildah.args(["bud", "--isolation", "chroot", "--pull-never"]).args(arguments);
        buildah.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", work);
        buildah.output().unwrap()
    };
    let ended = buildah(&["--tag", "localhost/base:1", base.to_str().unwrap()]);
    assert!(ended.status.success(), "{}", shown(&ended));
    let recipe = folder().join("image/Dockerfile");
    let recipe = ["--file", recipe.to_str().unwrap(), "--build-arg", "BASE_IMAGE=localhost/base:1"];
    buildah(&[&recipe[..], &["--tag", "localhost/lifecycle:1", path("context").to_str().unwrap()]].concat())
}

#[test]
fn buildah_builds_the_recipe_and_stops_at_a_program_that_does_not_start() {
    let test = "buildah_builds_the_recipe_and_stops_at_a_program_that_does_not_start";
    if find_program("buildah").is_none() || find_program("busybox").is_none() || !rustix::process::geteuid().is_root() {
        skipped(
            test,
            "no buildah or busybox (packages buildah, busybox-static), or another user than root, for whom it needs /etc/subuid",
        );
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let ended = built(work.path(), "#!/bin/sh\necho \"started with $*\" >> /calls\n");
    assert!(ended.status.success(), "{}", shown(&ended));
    // In the layers, since buildah may lose what a command prints right before its end.
    let layers = std::fs::read_dir(work.path().join("root/vfs/dir")).unwrap();
    let calls = layers.filter_map(|layer| std::fs::read_to_string(layer.unwrap().path().join("calls")).ok());
    let calls = calls.max_by_key(String::len).unwrap_or_default();
    assert_eq!(
        calls.lines().collect::<Vec<_>>(),
        ["called /bin/apk add --no-cache ca-certificates git", "started with --version", "called /bin/git --version"]
    );
    let work = tempfile::tempdir().unwrap();
    let ended = built(work.path(), "#!/bin/sh\nexit 3\n");
    assert!(!ended.status.success(), "{}", shown(&ended));
}
