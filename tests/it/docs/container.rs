//! The recipe of a container with GitLab Runner and the program. The base is made here, so nothing is fetched.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use super::root;
use crate::conformance::{shown, skipped};
use crate::support::images::{buildah, missing_builder};
use crate::support::waiting::find_program;

fn program(path: &Path, text: &str, mode: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Builds on a base whose `apk` installs nothing, and whose entry point is that of the runner.
fn built(work: &Path, text: &str) -> Output {
    let base = work.join("base");
    let busybox = base.join("bin/busybox");
    std::fs::create_dir_all(base.join("usr/local/bin")).unwrap();
    std::fs::create_dir_all(busybox.parent().unwrap()).unwrap();
    std::fs::copy(find_program("busybox").unwrap(), &busybox).unwrap();
    for name in ["sh", "mkdir", "chmod", "stat"] {
        std::os::unix::fs::symlink("busybox", base.join("bin").join(name)).unwrap();
    }
    for name in ["apk", "git", "bwrap"] {
        program(&base.join("bin").join(name), "#!/bin/sh\necho \"called $0 $*\" >>/calls\n", 0o755);
    }
    let recipe = "FROM scratch\nCOPY bin /bin\nENTRYPOINT [\"/entrypoint\"]\nCMD [\"run\"]\n";
    std::fs::write(base.join("Containerfile"), recipe).unwrap();
    // As `tar` may leave it with a narrow umask.
    program(&work.join("context/sagemaker-executor"), text, 0o700);
    let bud = |words: &[&str], context: &Path| {
        let first = ["bud", "--isolation", "chroot", "--pull-never"];
        buildah(work, &[&first[..], words, &[context.to_str().unwrap()]].concat())
    };
    let ended = bud(&["--tag", "localhost/base:1"], &base);
    assert!(ended.status.success(), "{}", shown(&ended));
    let recipe = root().join("runner-config/container/Containerfile");
    let words = ["--file", recipe.to_str().unwrap(), "--build-arg", "RUNNER_IMAGE=localhost/base:1"];
    bud(&[&words[..], &["--tag", "localhost/runner:1"]].concat(), &work.join("context"))
}

/// The calls that programs of the image wrote down, in its last layer: buildah may lose what a short command prints.
fn calls(work: &Path) -> String {
    let layers = std::fs::read_dir(work.join("root/vfs/dir")).unwrap().map(|entry| entry.unwrap().path().join("calls"));
    let written = layers.filter_map(|path| std::fs::read_to_string(path).ok());
    written.max_by_key(String::len).unwrap_or_default()
}

#[test]
fn the_recipe_of_the_container_builds() {
    if let Some(missing) = missing_builder() {
        return skipped("the recipe of the container", missing);
    }
    let work = tempfile::tempdir().unwrap();
    let text = "#!/bin/sh\n{ echo \"started with $*\"; stat -c '%a %n' /var/lib/sagemaker-executor $0; } >>/calls\n";
    let ended = built(work.path(), text);
    assert!(ended.status.success(), "{}", shown(&ended));
    let expected = "called /bin/apk add --no-cache bash bubblewrap ca-certificates git git-lfs\n\
                    started with --version\n\
                    700 /var/lib/sagemaker-executor\n\
                    755 /usr/local/bin/sagemaker-executor\n\
                    called /bin/bwrap --version\n\
                    called /bin/git --version\n";
    assert_eq!(calls(work.path()), expected);
    let inspected = buildah(work.path(), &["inspect", "--type", "image", "localhost/runner:1"]);
    let image: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
    let config = &image["OCIv1"]["config"];
    assert_eq!((&config["Entrypoint"][0], &config["Cmd"][0]), (&"/entrypoint".into(), &"run".into()), "{config}");
}
