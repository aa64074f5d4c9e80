//! The emulator of a try, as a child process.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::image::LocalImage;
use super::shared::{BUCKET, QUIET, go_on};
use crate::base::failure::Failure;
use crate::base::signals::Cancellation;
use crate::config::env::{self, Environment};

const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The emulator is ready within this time, or something is wrong.
const READY_WITHIN: Duration = Duration::from_secs(20);

pub(super) struct EmulatorProcess {
    child: Child,
    pub(super) endpoint: String,
    /// Access key and secret.
    pub(super) credentials: (String, String),
}

impl EmulatorProcess {
    pub(super) async fn start(
        image: &LocalImage,
        credentials: fn(&Path) -> anyhow::Result<(String, String)>,
        env: &Environment,
        root: &Path,
        cancellation: &Cancellation,
    ) -> anyhow::Result<Self> {
        let (ready, data_dir) = (root.join("endpoint"), root.join("emulator"));
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["emulator", "--listen", "127.0.0.1:0", "--bucket", BUCKET, "--ready-file"])
            .arg(&ready)
            .arg("--data-dir")
            .arg(&data_dir);
        if let Some(argument) = image.emulator_argument() {
            command.args(["--image", &argument]);
        } else {
            // The programs that the command's author sees in the shell; the agent needs the usual ones.
            let path = format!("{}:{USUAL_PATH}", env.path());
            for (name, value) in [("PATH", Some(path.as_str())), ("HOME", env.get("HOME"))] {
                if let Some(value) = value {
                    command.args(["--image-env", &format!("{}={name}={value}", image.name())]);
                }
            }
        }
        let child = command
            .env(env::LOG, env.get(env::LOG).unwrap_or(QUIET))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("failed to start the emulator")?;
        let mut emulator = Self { child, endpoint: String::new(), credentials: (String::new(), String::new()) };
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Ok(endpoint) = std::fs::read_to_string(&ready) {
                endpoint.trim().clone_into(&mut emulator.endpoint);
                emulator.credentials = credentials(&data_dir)?;
                return Ok(emulator);
            }
            if let Some(status) = emulator.child.try_wait()? {
                return Err(Failure::system(format!("the emulator ended ({status}); the lines above say why")).into());
            }
            go_on(cancellation)?;
            anyhow::ensure!(Instant::now() < deadline, "the emulator did not get ready within {READY_WITHIN:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        // A container that hangs goes with the emulator's end, which is forced after this.
        drop(tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await);
    }
}
