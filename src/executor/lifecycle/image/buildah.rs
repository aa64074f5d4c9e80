//! Builds and pushes images with buildah, without a daemon and without privileges of the runner's host.
//!
//! All it stores is below a folder of the build, which is removed with the value. Credentials and secrets are files there with mode 0600;
//! no argument and no variable has them, and they are removed first. Its processes, and those that a `RUN` left, end with their step.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

use super::buildah_errors::{self, BuilderStep};
use super::mounts;
use super::registry_access::{self, PushHost};
use super::shown_lines::{self, Masks};
use super::spec::BuildSecret;
use crate::base::failure::Failure;
use crate::base::process::{self, ProcessGroup};
use crate::base::signals::Cancellation;
use crate::cloud::{ImageRepositorySight, RegistryLogin};
use crate::config::env::Environment;
use crate::ui::Printer;

/// Time that buildah has to end after SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// Variables that buildah gets: how it reaches the network.
const PASSED: [&str; 9] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "LANG",
];

/// File with the registry's password.
const PASSWORDS: &str = "auth.json";
/// Prefix of the names of files with secrets.
const SECRET: &str = "secret-";

/// buildah, ready for one build.
pub(super) struct Buildah {
    program: PathBuf,
    /// Before the folder, so that they are removed first.
    hidden: HiddenFiles,
    folder: TempDir,
    path: String,
    variables: Vec<(&'static str, String)>,
    host: PushHost,
    repository: ImageRepositorySight,
    masks: Masks,
    printer: Printer,
    deadline: Instant,
    limit: Duration,
    is_root: bool,
}

/// The files with passwords and secrets of a build's folder. They are removed with the value, also where the folder cannot be.
struct HiddenFiles(PathBuf);

impl HiddenFiles {
    /// Removes those whose names begin so. What is not there is no error.
    fn remove(&self, prefix: &str) {
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix)
                && let Err(error) = std::fs::remove_file(entry.path())
            {
                tracing::warn!(file = %entry.path().display(), %error, "failed to remove a file of a build");
            }
        }
    }
}

impl Drop for HiddenFiles {
    fn drop(&mut self) {
        self.remove(SECRET);
        self.remove(PASSWORDS);
    }
}

/// The inputs of a build of the Dockerfile.
pub(super) struct ImageSource<'a> {
    pub(super) dockerfile: &'a Path,
    /// The copied context.
    pub(super) context: &'a Path,
    pub(super) target: Option<&'a str>,
    pub(super) args: &'a BTreeMap<String, String>,
    pub(super) secrets: &'a [BuildSecret],
    /// Repository in the same registry that keeps layers.
    pub(super) cache: Option<&'a str>,
}

impl Buildah {
    /// Looks for the program, and writes its settings into the folder, which is the build's own.
    ///
    /// # Errors
    /// Failures that say which package, or which line of `/etc/subuid`, is missing.
    pub(super) fn prepare(
        env: &Environment,
        folder: TempDir,
        (repository, login): (&ImageRepositorySight, &RegistryLogin),
        bases: &[String],
        secrets: &[BuildSecret],
        (printer, limit): (&Printer, Duration),
    ) -> anyhow::Result<Self> {
        let program = find(env.path(), "buildah").ok_or_else(|| {
            Failure::user("`buildah` is not in the image of this job, or on this machine")
                .hint("install the package `buildah` (Debian, Alpine, Fedora) in the job's image, or build with `--via codebuild`")
        })?;
        let is_root = rustix::process::geteuid().is_root();
        if !is_root {
            check_ids(env)?;
        }
        let host = PushHost::of(login)?;
        let passwords = registry_access::passwords(login, &host, bases, env.get("DOCKER_AUTH_CONFIG"))?;
        let masks = Masks::of(secrets.iter().map(|secret| secret.value.as_str()).chain([login.password.as_str()]));
        let passed = PASSED.into_iter().filter_map(|name| Some((name, env.get(name)?.to_owned())));
        let buildah = Self {
            program,
            path: env.path().to_owned(),
            variables: passed.collect(),
            repository: repository.clone(),
            masks,
            printer: printer.clone(),
            deadline: Instant::now() + limit,
            limit,
            is_root,
            hidden: HiddenFiles(folder.path().to_owned()),
            folder,
            host,
        };
        buildah.write(PASSWORDS, passwords.as_bytes())?;
        buildah.write("policy.json", registry_access::SIGNATURES.as_bytes())?;
        buildah.write("registries.conf", registry_access::registries(repository, &buildah.host).as_bytes())?;
        // The context is selected already.
        buildah.write("ignore", b"")?;
        for secret in secrets {
            buildah.write(&format!("{SECRET}{}", secret.id), secret.value.as_bytes())?;
        }
        Ok(buildah)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.at(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = file.with_context(|| format!("failed to make {}", path.display()))?;
        file.write_all(content).with_context(|| format!("failed to write {}", path.display()))
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--storage-driver", "vfs", "--root"]).arg(self.at("root")).arg("--runroot").arg(self.at("run"));
        command.arg("--registries-conf").arg(self.at("registries.conf")).arg(subcommand);
        command.env_clear().env("PATH", &self.path).envs(self.variables.iter().map(|(name, value)| (name, value)));
        for name in ["HOME", "TMPDIR", "XDG_RUNTIME_DIR"] {
            command.env(name, self.folder.path());
        }
        command.current_dir(self.folder.path());
        command
    }

    /// As [`Buildah::command`], for work with registries.
    fn transfer(&self, subcommand: &str) -> Command {
        let mut command = self.command(subcommand);
        command.arg("--authfile").arg(self.at(PASSWORDS)).arg("--signature-policy").arg(self.at("policy.json"));
        command
    }

    /// The id of an image that a Dockerfile begins with, after a pull.
    pub(super) async fn pull(&self, image: &str) -> anyhow::Result<String> {
        let mut command = self.transfer("pull");
        command.arg("--quiet").arg(image);
        let last = self.run(command, BuilderStep::Pull, false).await?;
        let id = last.last().map(|line| line.trim()).filter(|line| line.len() == 64);
        let id = id.filter(|line| line.bytes().all(|byte| byte.is_ascii_hexdigit()));
        Ok(format!("sha256:{}", id.context("buildah did not tell the id of a base image")?))
    }

    /// Builds, and gives back the image's id in the storage.
    ///
    /// # Errors
    /// Failures of the user: the Dockerfile does not build, or takes too long; of the system when a registry does not answer.
    pub(super) async fn build(&self, source: &ImageSource<'_>) -> anyhow::Result<String> {
        let mut command = self.transfer("bud");
        // In the format of OCI: that of Docker has the random name of the container in each image.
        command.args(["--isolation", "chroot", "--timestamp", "0", "--format", "oci", "--identity-label=false"]);
        // Bases that were pulled by tag stay what the hash is of.
        command
            .arg("--pull=false")
            .arg("--iidfile")
            .arg(self.at("image-id"))
            .arg("--ignorefile")
            .arg(self.at("ignore"));
        if let Some(cache) = source.cache {
            let cache = format!("{}/{cache}", self.host.name);
            command.args(["--layers", "--cache-from", &cache, "--cache-to", &cache]);
        }
        command.arg("--file").arg(source.dockerfile);
        if let Some(target) = source.target {
            command.args(["--target", target]);
        }
        for (name, value) in source.args {
            command.arg("--build-arg").arg(format!("{name}={value}"));
        }
        for secret in source.secrets {
            // Relative to the folder, whose path may have a comma.
            command.arg("--secret").arg(format!("id={0},src={SECRET}{0}", secret.id));
        }
        command.arg(source.context);
        self.run(command, BuilderStep::Build, true).await?;
        // No later step needs them.
        self.hidden.remove(SECRET);
        let id = std::fs::read_to_string(self.at("image-id")).context("buildah did not tell the image's id")?;
        Ok(id.trim().to_owned())
    }

    /// Refuses a mount that this buildah would not confine.
    ///
    /// # Errors
    /// A failure of the user that names the mount and what to write in its place.
    pub(super) async fn check_mount(&self, option: &str) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("--version").env_clear().env("PATH", &self.path).stdin(Stdio::null()).kill_on_drop(true);
        let answer = tokio::time::timeout_at(self.deadline, command.output()).await;
        let answer = answer.ok().and_then(Result::ok).map(|output| output.stdout).unwrap_or_default();
        if mounts::is_mended(&String::from_utf8_lossy(&answer)) {
            return Ok(());
        }
        Err(mounts::needs_mended(option).into())
    }

    /// Pushes an image under a tag, and gives back its digest in the registry.
    pub(super) async fn push(&self, id: &str, tag: &str) -> anyhow::Result<String> {
        let mut command = self.transfer("push");
        // The manifest of Docker: every part of SageMaker takes it.
        command.args(["--quiet", "--format", "v2s2", "--digestfile"]).arg(self.at("digest")).arg(id);
        command.arg(format!("docker://{}/{}:{tag}", self.host.name, self.repository.name));
        self.run(command, BuilderStep::Push, false).await?;
        let digest = std::fs::read_to_string(self.at("digest")).context("buildah did not tell the image's digest")?;
        Ok(digest.trim().to_owned())
    }

    /// Runs a command to its end, and gives back its last lines.
    async fn run(&self, mut command: Command, step: BuilderStep, is_shown: bool) -> anyhow::Result<Vec<String>> {
        let (output, input) = std::io::pipe().context("failed to make a pipe for buildah")?;
        let again = input.try_clone().context("failed to make a pipe for buildah")?;
        command.stdin(Stdio::null()).stdout(Stdio::from(input)).stderr(Stdio::from(again));
        let mut group = ProcessGroup::spawn(command)?;
        let (masks, printer) = (self.masks.clone(), self.printer.clone());
        let lines =
            tokio::task::spawn_blocking(move || shown_lines::show(output, &masks, is_shown.then_some(&printer)));
        let ended = tokio::time::timeout_at(self.deadline, group.wait()).await;
        let Ok(exit) = ended else {
            let ended = group.terminate(GRACE).await;
            process::end_descendants(GRACE).await;
            ended?;
            return Err(self.too_long(step));
        };
        let exit = exit?;
        // One that a `RUN` left would run on as the user of the job, and keep the output open.
        process::end_descendants(GRACE).await;
        let last: Vec<_> = lines.await.context("failed to read the output of buildah")?.into();
        if exit.code == 0 {
            Ok(last)
        } else {
            Err(buildah_errors::failure(step, &self.repository.name, &last, is_shown))
        }
    }

    fn too_long(&self, step: BuilderStep) -> anyhow::Error {
        let limit = humantime::format_duration(self.limit);
        Failure::user(format!("the image was not ready within {limit}: buildah was ended while it was to {}", step.verb()))
            .hint("raise `--timeout`, below the `timeout` of the job; `image.cache` in the manifest keeps layers of earlier builds")
            .into()
    }

    /// Removes what the build stored, after processes that still run. Files of another user than root belong to subordinate ids, which
    /// buildah alone may remove. The next signal ends this.
    pub(super) async fn remove(self, cancellation: &Cancellation) {
        process::end_descendants(GRACE).await;
        self.hidden.remove(SECRET);
        self.hidden.remove(PASSWORDS);
        if !self.is_root {
            let entries = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
            let mut command = self.command("unshare");
            command.args(["rm", "-rf"]).args(entries.map(|entry| entry.path()));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if let Ok(mut group) = ProcessGroup::spawn(command) {
                // The folder is a temporary one: what cannot be removed is left to whoever cleans those.
                tokio::select! {
                    _ = group.wait() => {}
                    () = cancellation.changed() => {}
                }
            }
        }
    }
}

/// An executable file of this name on a search path.
pub(super) fn find(path: &str, name: &str) -> Option<PathBuf> {
    let is_program =
        |file: &PathBuf| file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
    path.split(':').filter(|folder| folder.starts_with('/')).map(|folder| Path::new(folder).join(name)).find(is_program)
}

/// Refuses a user without subordinate ids, with which files of a base image are unpacked.
fn check_ids(env: &Environment) -> Result<(), Failure> {
    let number = rustix::process::geteuid().as_raw();
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let name = user_name(&read("/etc/passwd"), number);
    let user = name.clone().unwrap_or_else(|| number.to_string());
    let lacking: Vec<_> = ["/etc/subuid", "/etc/subgid"]
        .into_iter()
        .filter(|file| !has_ids(&read(file), name.as_deref(), number))
        .collect();
    if !lacking.is_empty() {
        return Err(Failure::user(format!("buildah cannot unpack images as the user {user}: {} has no line for it", lacking.join(" and ")))
            .hint(format!("let root run `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}` on the runner's host or in the job's image, or build with `--via codebuild`")));
    }
    if find(env.path(), "newuidmap").is_none() {
        return Err(Failure::user("buildah needs `newuidmap` when its user is not root")
            .hint("install the package `uidmap` in the job's image, or build with `--via codebuild`"));
    }
    Ok(())
}

/// The name of a user in the text of `/etc/passwd`.
fn user_name(passwd: &str, number: u32) -> Option<String> {
    let rows = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut own = rows.filter(|row| row.get(2).is_some_and(|id| *id == number.to_string()));
    own.find_map(|row| row.first().map(|name| (*name).to_owned()))
}

/// Tells that the text of `/etc/subuid` has ids for a user.
fn has_ids(text: &str, name: Option<&str>, number: u32) -> bool {
    text.lines().any(|line| {
        let mut parts = line.trim().split(':');
        let user = parts.next().unwrap_or_default();
        let count = parts.nth(1).and_then(|count| count.parse::<u64>().ok()).unwrap_or_default();
        (Some(user) == name || user == number.to_string()) && count > 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_those_of_the_user() {
        let text = "# comment\nbuilder:100000:65536\n1001:165536:65536\nnobody:1:0\n";
        assert!(has_ids(text, Some("builder"), 5) && has_ids(text, None, 1001));
        assert!(!has_ids(text, Some("build"), 100) && !has_ids(text, Some("nobody"), 65534) && !has_ids("", None, 0));
        let passwd = "root:x:0:0::/root:/bin/sh\nbuilder:x:1001:1001::/:/bin/sh\n";
        assert_eq!(user_name(passwd, 1001).as_deref(), Some("builder"));
        assert_eq!(user_name(passwd, 7), None);
    }

    #[test]
    fn secrets_are_removed_also_where_the_folder_stays() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["auth.json", "secret-pip", "secret-npm", "Dockerfile"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let hidden = HiddenFiles(folder.path().to_owned());
        let names = || {
            let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            names.collect::<std::collections::BTreeSet<_>>().into_iter().map(|name| name.into_string().unwrap())
        };
        hidden.remove(SECRET);
        assert_eq!(names().collect::<Vec<_>>(), ["Dockerfile", "auth.json"]);
        drop(hidden);
        assert_eq!(names().collect::<Vec<_>>(), ["Dockerfile"]);
    }

    #[test]
    fn a_program_is_an_executable_file_of_an_absolute_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = format!("bin:/nonexistent:{}", folder.path().display());
        std::fs::write(folder.path().join("tool"), "").unwrap();
        assert_eq!(find(&path, "tool"), None);
        std::fs::set_permissions(folder.path().join("tool"), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(&path, "tool"), Some(folder.path().join("tool")));
    }
}
