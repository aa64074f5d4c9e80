//! Chooses the shell of the image that runs a script: GitLab's scripts need `$'...'`, and not every image has bash.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, timeout_at};

use crate::base::process::{Exit, ProcessGroup};

/// Exit code when the image has no shell: 127, a shell's "command not found".
const NO_SHELL: i32 = 127;
/// Exit code when no shell of the image can parse the script.
const NOT_PARSED: i32 = 2;
/// Directories searched after those of `PATH`.
pub(super) const DEFAULT_DIRS: [&str; 3] = ["/bin", "/usr/bin", "/usr/local/bin"];
/// Time limit of the test command that checks what a shell can parse.
const PROBE_DEADLINE: Duration = Duration::from_secs(10);

/// Result of [`choose_shell`].
pub(super) enum Shell {
    /// Program and first arguments; the script's path follows.
    Found(Vec<PathBuf>),
    /// No shell of the image can run the script; `explanation` goes into the job log.
    Unfit { code: i32, explanation: String },
}

/// Returns bash if the image has it, else the first of busybox, ash and sh that can parse the script.
/// `path` is the script's `PATH`. Fails only when the script cannot be read.
pub(super) async fn choose_shell(path: &str, script: &Path, usual: &[&str]) -> std::io::Result<Shell> {
    let find = |name: &str| find_program(path.as_ref(), usual, name);
    if let Some(bash) = find("bash") {
        return Ok(Shell::Found(vec![bash]));
    }
    let busybox = find("busybox").map(|busybox| vec![busybox, PathBuf::from("sh")]);
    let plain = ["ash", "sh"].into_iter().filter_map(|name| find(name).map(|shell| vec![shell]));
    let shells: Vec<Vec<PathBuf>> = busybox.into_iter().chain(plain).collect();
    let Some(last) = shells.last() else {
        let explanation = "The image has no shell that could run the script: install bash in it, or busybox.\n";
        return Ok(Shell::Unfit { code: NO_SHELL, explanation: explanation.to_owned() });
    };
    if !tokio::fs::read(script).await?.windows(2).any(|pair| pair == b"$'") {
        return Ok(Shell::Found(last.clone()));
    }
    for shell in &shells {
        if parses_dollar_quotes(shell).await {
            return Ok(Shell::Found(shell.clone()));
        }
    }
    let shell = last.first().map_or_else(String::new, |shell| shell.display().to_string());
    Ok(Shell::Unfit {
        code: NOT_PARSED,
        explanation: format!(
            "The script needs bash or busybox sh, and the only shell of the image, `{shell}`, cannot parse it.\n\
             Install bash in the image, or busybox.\n"
        ),
    })
}

fn find_program(path: &OsStr, usual: &[&str], name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let directories =
        std::env::split_paths(path).filter(|directory| directory.is_absolute()).chain(usual.iter().map(PathBuf::from));
    directories
        .map(|directory| directory.join(name))
        .find(|file| std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}

/// Runs a test command to check that the shell knows `$'...'`. dash does not.
async fn parses_dollar_quotes(shell: &[PathBuf]) -> bool {
    let Some((program, arguments)) = shell.split_first() else { return false };
    let mut command = Command::new(program);
    command.args(arguments).arg("-c").arg("[ $'a' = a ]").env_clear().current_dir(Path::new("/"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut group) = ProcessGroup::spawn(command) else { return false };
    matches!(timeout_at(Instant::now() + PROBE_DEADLINE, group.wait()).await, Ok(Ok(Exit { code: 0, .. })))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn program(directory: &Path, name: &str, text: &str) {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn a_shell_is_asked_before_it_is_given_dollar_quotes() {
        let dir = tempfile::tempdir().unwrap();
        program(dir.path(), "knows", "#!/bin/sh\nexit 0\n");
        program(dir.path(), "knows-not", "#!/bin/sh\nexit 2\n");
        assert!(parses_dollar_quotes(&[dir.path().join("knows")]).await);
        assert!(!parses_dollar_quotes(&[dir.path().join("knows-not")]).await);
        assert!(!parses_dollar_quotes(&[dir.path().join("absent")]).await);
    }

    /// An image that has `program` alone, as `name`.
    async fn shell_of(program: &str, name: &str, script: &str) -> Option<Shell> {
        let Some(file) = find_program(OsStr::new(""), &DEFAULT_DIRS, program) else {
            eprintln!("SKIPPED: {program} is not on this machine");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(file, dir.path().join(name)).unwrap();
        let file = dir.path().join("script");
        std::fs::write(&file, script).unwrap();
        Some(choose_shell(&dir.path().display().to_string(), &file, &[]).await.unwrap())
    }

    #[tokio::test]
    async fn dash_gets_plain_scripts_and_a_person_learns_why_it_gets_no_others() {
        if let Some(shell) = shell_of("dash", "sh", "eval $'echo'").await {
            let Shell::Unfit { code, explanation } = shell else { panic!("dash was chosen") };
            assert_eq!(code, NOT_PARSED);
            assert!(explanation.contains("Install bash in the image, or busybox."), "{explanation}");
        }
        if let Some(shell) = shell_of("dash", "sh", "eval \"echo\"").await {
            assert!(matches!(shell, Shell::Found(words) if words[0].ends_with("sh")));
        }
        if let Some(shell) = shell_of("busybox", "busybox", "eval $'echo'").await {
            assert!(matches!(shell, Shell::Found(words) if words[1] == Path::new("sh")));
        }
        if let Some(shell) = shell_of("bash", "bash", "eval $'echo'").await {
            assert!(matches!(shell, Shell::Found(words) if words.len() == 1));
        }
        if let Some(shell) = shell_of("dash", "other", "true").await {
            assert!(matches!(shell, Shell::Unfit { code: NO_SHELL, .. }));
        }
    }

    #[test]
    fn a_program_is_an_executable_file_of_the_path_or_of_a_usual_place() {
        let dir = tempfile::tempdir().unwrap();
        program(dir.path(), "tool-of-the-image", "");
        std::fs::write(dir.path().join("plain"), "").unwrap();
        let path = dir.path().as_os_str();
        assert_eq!(find_program(path, &[], "tool-of-the-image"), Some(dir.path().join("tool-of-the-image")));
        assert_eq!(find_program(path, &[], "plain"), None);
        assert!(find_program(OsStr::new(""), &DEFAULT_DIRS, "sh").is_some());
        assert_eq!(find_program(OsStr::new("."), &[], "sh"), None);
    }
}
