//! Reads `gitlab_runner_env`, with the variables that the script sets for later stages.

use std::io::Read as _;

use anyhow::Context as _;

use super::fs::is_absent;
use super::trees::Roots;
use super::walker::Walker;
use crate::base::failure::Failure;

/// The only file of the temporary tree that is sent back.
pub(crate) const ENV_FILE: &[u8] = b"gitlab_runner_env";
pub(crate) const ENV_FILE_MAX: u64 = 1 << 20;
pub(crate) const UNREADABLE_ENV: &str = "failed to read `gitlab_runner_env`";

/// The content of `gitlab_runner_env`, up to [`ENV_FILE_MAX`].
pub(crate) fn assigned(roots: &Roots) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    let Some(root) = &roots.tmp else { return Ok(content) };
    let read = Walker::new(root).open_file(ENV_FILE).and_then(|file| file.take(ENV_FILE_MAX).read_to_end(&mut content));
    match read {
        Ok(_) => Ok(content),
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => Err(env_file_refused()),
        Err(error) => Err(error).context(UNREADABLE_ENV),
    }
}

pub(crate) fn env_file_refused() -> anyhow::Error {
    Failure::user("`gitlab_runner_env` is not a plain file of at most 1 MiB")
        .hint("write fewer or shorter `KEY=value` lines to `$GITLAB_ENV`")
        .into()
}
