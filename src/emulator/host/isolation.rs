//! Detects which ways of isolation this machine offers for containers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::files::discard;

/// The ways of isolation for a container without an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isolation {
    /// `bwrap` is on `PATH`.
    pub bubblewrap: bool,
    /// A private mount namespace that may hold an overlay file system.
    pub overlay: Option<Namespace>,
    /// A private mount namespace without an overlay; used only when bubblewrap is missing.
    pub unshare: Option<Namespace>,
}

/// The kind of a private mount namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// As root: all user ids exist inside.
    Mount,
    /// As an ordinary user: that user is root inside, and no other user id exists.
    UserAndMount,
}

impl Namespace {
    pub(super) fn flags(self) -> &'static [&'static str] {
        match self {
            Namespace::Mount => &["--mount"],
            Namespace::UserAndMount => &["--user", "--map-root-user", "--mount"],
        }
    }

    /// Options that an overlay needs in such a namespace, with a trailing comma.
    pub(super) fn overlay_flags(self) -> &'static str {
        match self {
            Namespace::Mount => "",
            Namespace::UserAndMount => "userxattr,",
        }
    }
}

impl Isolation {
    /// Tries out what works here; `scratch` must exist, as an overlay depends on its file system. Takes some milliseconds.
    pub async fn detect(scratch: &Path) -> anyhow::Result<Self> {
        let probe = scratch.join("probe");
        for part in ["lower", "upper", "work", "root"] {
            let dir = probe.join(part);
            fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
        }
        let mut overlay = None;
        let mut unshare = None;
        for namespace in [Namespace::Mount, Namespace::UserAndMount] {
            let xattr = namespace.overlay_flags();
            let mount = format!("mount -t overlay overlay -o {xattr}lowerdir=lower,upperdir=upper,workdir=work root");
            if overlay.is_none() && answers("unshare", namespace.flags(), &["sh", "-c", &mount], &probe).await {
                overlay = Some(namespace);
            }
            if unshare.is_none() && answers("unshare", namespace.flags(), &["true"], &probe).await {
                unshare = Some(namespace);
            }
        }
        let bubblewrap = answers("bwrap", &["--version"], &[], &probe).await;
        discard(&probe)?;
        Ok(Self { bubblewrap, overlay, unshare })
    }
}

/// Whether the program exists and ends well within five seconds.
pub(super) async fn answers(program: &str, flags: &[&str], arguments: &[&str], directory: &Path) -> bool {
    let mut command = tokio::process::Command::new(program);
    command.args(flags).args(arguments).current_dir(directory).kill_on_drop(true);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let status = tokio::time::timeout(Duration::from_secs(5), command.status()).await;
    matches!(status, Ok(Ok(status)) if status.success())
}
