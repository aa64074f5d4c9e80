//! Images for tests: a base made from programs of this machine, in the emulator's registry.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::emulator::Emulator;
use super::waiting::find_program;

/// The host in the names of images in the emulator's account and region.
pub(crate) const REGISTRY: &str = "000000000000.dkr.ecr.us-east-1.amazonaws.com";

/// The missing needs of a test of builds, in words; `None` when all is there.
pub(crate) fn missing_builder() -> Option<&'static str> {
    let (Some(buildah), Some(_)) = (find_program("buildah"), find_program("busybox")) else {
        return Some("no buildah or busybox (packages buildah, busybox-static)");
    };
    // Another user than root works as root of a user namespace.
    let works = rustix::process::geteuid().is_root()
        || Command::new(buildah).args(["unshare", "true"]).output().is_ok_and(|ended| ended.status.success());
    (!works).then_some("buildah does not work for this user, for whom it needs uidmap, /etc/subuid and /etc/subgid")
}

/// A call of ECR.
#[track_caller]
pub(crate) fn ecr(emulator: &Emulator, operation: &str, body: &Value) -> Value {
    emulator.call(&format!("AmazonEC2ContainerRegistry_V20150921.{operation}"), body)
}

pub(crate) fn create_repository(emulator: &Emulator, name: &str, mutability: &str) {
    ecr(emulator, "CreateRepository", &json!({"repositoryName": name, "imageTagMutability": mutability}));
}

/// Images and tags of a repository, as `DIGEST TAG`; without a tag the digest alone.
pub(crate) fn images(emulator: &Emulator, repository: &str) -> BTreeSet<String> {
    let listed = ecr(emulator, "ListImages", &json!({"repositoryName": repository}));
    let text = |id: &Value, key: &str| id[key].as_str().unwrap_or_default().to_owned();
    let ids = listed["imageIds"].as_array().unwrap().iter();
    ids.map(|id| format!("{} {}", text(id, "imageDigest"), text(id, "imageTag")).trim_end().to_owned()).collect()
}

/// buildah, with a storage of its own in a folder.
pub(crate) fn buildah(folder: &Path, arguments: &[&str]) -> Output {
    let mut buildah = Command::new("buildah");
    buildah.args(["--storage-driver", "vfs", "--root"]).arg(folder.join("root"));
    buildah.arg("--runroot").arg(folder.join("run")).args(arguments);
    buildah.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", folder).env("TMPDIR", folder);
    buildah.output().unwrap()
}

/// Pushes an image with busybox alone into the repository `example-base`, and gives back its name by digest.
#[track_caller]
pub(crate) fn push_base(emulator: &Emulator, folder: &Path) -> String {
    create_repository(emulator, "example-base", "MUTABLE");
    let context = folder.join("base");
    write_busybox(&context);
    std::fs::write(context.join("Containerfile"), "FROM scratch\nCOPY bin /bin\nENV PATH=/bin\n").unwrap();
    push(emulator, folder, &context, "example-base")
}

/// Copies an interpreter into a folder, with the packages that the examples train and serve with, `pip`, and the libraries of all.
const COPY_PYTHON: &str = r#"
import glob, os, shutil, subprocess, sys, sysconfig
root = sys.argv[1]
version = "python%d.%d" % sys.version_info[:2]
paths = sysconfig.get_paths()
library = os.path.join(root, "usr/local/lib", version)
left_out = shutil.ignore_patterns("__pycache__", "test", "tests", "idlelib", "site-packages", "dist-packages", "EXTERNALLY-MANAGED", "config-*", "*.a")
shutil.copytree(os.path.realpath(paths["stdlib"]), library, ignore=left_out)
os.makedirs(os.path.join(library, "site-packages"))
wanted = ["numpy", "scipy", "sklearn", "scikit_learn", "joblib", "cloudpickle", "threadpoolctl", "pip", "narwhals"]
for entry in sorted(os.listdir(paths["purelib"])):
    if any(entry == name or entry.startswith((name + "-", name + ".")) for name in wanted):
        source, target = os.path.join(paths["purelib"], entry), os.path.join(library, "site-packages", entry)
        if os.path.isdir(source):
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "tests"))
        else:
            shutil.copy(source, target)
os.makedirs(os.path.join(root, "usr/local/bin"))
program = os.path.join(root, "usr/local/bin", version)
shutil.copy(os.path.realpath(sys.executable), program)
os.symlink(version, os.path.join(root, "usr/local/bin/python3"))
binaries = [program] + glob.glob(root + "/**/*.so*", recursive=True)
listed = subprocess.run(["ldd"] + binaries, capture_output=True, text=True).stdout
for word in sorted({word for line in listed.splitlines() for word in line.split() if word.startswith("/") and not word.endswith(":")}):
    target = root + word
    if not word.startswith(root) and os.path.isfile(word) and not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(os.path.realpath(word), target)
subprocess.run([program, "-I", "-c", "import sklearn.linear_model"], check=True, env={"PYTHONHOME": os.path.join(root, "usr/local")})
"#;

/// As [`push_base`], with Python and scikit-learn.
#[track_caller]
pub(crate) fn push_python_base(emulator: &Emulator, folder: &Path, python: &Path) -> String {
    create_repository(emulator, "example-base", "MUTABLE");
    let context = folder.join("base");
    write_busybox(&context.join("root"));
    let copied = Command::new(python).args(["-c", COPY_PYTHON]).arg(context.join("root")).output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let recipe = "FROM scratch\nCOPY root /\nENV PATH=/usr/local/bin:/bin PIP_NO_INDEX=1 PIP_ROOT_USER_ACTION=ignore\n";
    std::fs::write(context.join("Containerfile"), recipe).unwrap();
    push(emulator, folder, &context, "example-base")
}

/// A root directory with busybox alone.
fn write_busybox(root: &Path) {
    let bin = root.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::copy(find_program("busybox").unwrap(), bin.join("busybox")).unwrap();
    for name in ["sh", "cat", "echo", "sleep", "wc", "ls", "mkdir", "chmod", "tee"] {
        symlink("busybox", bin.join(name)).unwrap();
    }
    std::fs::create_dir_all(root.join("tmp")).unwrap();
}

/// Builds a folder and pushes the image under the tag `1`.
#[track_caller]
pub(crate) fn push(emulator: &Emulator, folder: &Path, context: &Path, repository: &str) -> String {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let data = ecr(emulator, "GetAuthorizationToken", &json!({}))["authorizationData"][0].take();
    let host = data["proxyEndpoint"].as_str().unwrap().trim_start_matches("http://").to_owned();
    let auth = json!({"auths": {host.as_str(): {"auth": data["authorizationToken"]}}});
    std::fs::write(path("auth.json"), auth.to_string()).unwrap();
    let run = |arguments: &[&str]| {
        let ended = buildah(folder, arguments);
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    };
    let context = context.to_str().unwrap();
    let build = ["bud", "--isolation", "chroot", "--timestamp", "0", "--format", "docker"];
    run(&[&build[..], &["--iidfile", &path("id"), context]].concat());
    let id = std::fs::read_to_string(path("id")).unwrap();
    let place = format!("docker://{host}/{repository}:1");
    let to = ["--tls-verify=false", "--authfile", &path("auth.json"), "--digestfile", &path("digest"), &id, &place];
    run(&[&["push", "--quiet"], &to[..]].concat());
    // Another user than root cannot remove files of the ids that are lent to it.
    if !rustix::process::geteuid().is_root() {
        run(&["unshare", "rm", "-rf", &path("root"), &path("run")]);
    }
    format!("{REGISTRY}/{repository}@{}", std::fs::read_to_string(path("digest")).unwrap())
}

/// Pushes an image without layers under a tag, and gives back its digest. No builder is needed.
#[track_caller]
pub(crate) fn push_empty(emulator: &Emulator, repository: &str, tag: &str) -> String {
    let configuration =
        json!({"architecture": "amd64", "os": "linux", "created": tag, "rootfs": {"type": "layers", "diff_ids": []}});
    let configuration = configuration.to_string();
    let hash = Sha256::digest(&configuration).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let data = ecr(emulator, "GetAuthorizationToken", &json!({}))["authorizationData"][0].take();
    let host = data["proxyEndpoint"].as_str().unwrap().trim_start_matches("http://").to_owned();
    let (token, length) = (data["authorizationToken"].as_str().unwrap(), configuration.len());
    let mut stream = TcpStream::connect(&host).unwrap();
    write!(
        stream,
        "POST /v2/{repository}/blobs/uploads/?digest=sha256:{hash} HTTP/1.1\r\nhost: {host}\r\nauthorization: Basic {token}\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{configuration}"
    )
    .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let of_configuration = "application/vnd.docker.container.image.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind, "layers": [],
        "config": {"mediaType": of_configuration, "size": length, "digest": format!("sha256:{hash}")},
    });
    let put = json!({"repositoryName": repository, "imageManifest": manifest.to_string(), "imageTag": tag});
    ecr(emulator, "PutImage", &put)["image"]["imageId"]["imageDigest"].as_str().unwrap().to_owned()
}

/// The configuration of an image, as its registry has it.
pub(crate) fn configuration(emulator: &Emulator, data_dir: &Path, repository: &str, digest: &str) -> Value {
    let ids = json!({"repositoryName": repository, "imageIds": [{"imageDigest": digest}]});
    let found = ecr(emulator, "BatchGetImage", &ids);
    let manifest: Value = serde_json::from_str(found["images"][0]["imageManifest"].as_str().unwrap()).unwrap();
    let digest = manifest["config"]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let file = files(&data_dir.join("ecr")).into_iter().find(|file| file.ends_with(&digest)).expect("it was pushed");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// All files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}
