//! The configuration of ssh in a sandbox: the way through the proxy, then the host's own.
//!
//! ssh reads an included file only if it belongs to root or to its own user. In the sandbox of an ordinary user the files of root belong
//! to nobody, so that the host's files are copied, and their `Include` lines name the copies.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use globset::GlobBuilder;

use crate::sandbox::view::INIT;

/// The system-wide configuration.
const CONFIG: &str = "/etc/ssh/ssh_config";
/// Directory of the copies in the sandbox.
const COPIES: &str = "/etc/ssh/ssh_config.host";
/// Depth at which ssh itself gives up (`READCONF_MAX_DEPTH`).
const MOST_DEPTH: usize = 16;
const MOST_FILES: usize = 64;
const MOST_BYTES: u64 = 1 << 20;

/// A file to be placed into the sandbox, as one of its own user that nobody else may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshFile {
    /// Path in the sandbox.
    pub path: PathBuf,
    pub text: String,
}

/// All files of the configuration.
pub fn ssh_files() -> Vec<SshFile> {
    files_of(Path::new(CONFIG))
}

fn files_of(hosts: &Path) -> Vec<SshFile> {
    let mut copies = Copies { base: hosts.parent().unwrap_or(Path::new("/")), files: Vec::new() };
    let own = copies.add(hosts, 0);
    let mut text = format!("Host *\n    ProxyCommand {INIT} sandbox-tunnel %h %p\n");
    if let Some(own) = own {
        include(&mut text, &[own]);
    }
    copies.files.push(SshFile { path: CONFIG.into(), text });
    copies.files
}

/// Copies of the host's files.
struct Copies<'a> {
    /// Directory of relative paths in `Include`.
    base: &'a Path,
    files: Vec<SshFile>,
}

impl Copies<'_> {
    /// Copies a file with all that it includes; the path of the copy. `None` for one that cannot be read, and beyond the bounds.
    fn add(&mut self, file: &Path, depth: usize) -> Option<PathBuf> {
        if depth > MOST_DEPTH || self.files.len() >= MOST_FILES || file.metadata().ok()?.len() > MOST_BYTES {
            return None;
        }
        let hosts = String::from_utf8_lossy(&std::fs::read(file).ok()?).into_owned();
        let path = Path::new(COPIES).join(self.files.len().to_string());
        let at = self.files.len();
        self.files.push(SshFile { path: path.clone(), text: String::new() });
        let mut text = String::new();
        for line in hosts.lines() {
            match included(line) {
                None => text.extend([line, "\n"]),
                Some(patterns) => {
                    let found: Vec<_> = patterns.iter().flat_map(|pattern| expand(&self.base.join(pattern))).collect();
                    include(&mut text, &found.iter().filter_map(|file| self.add(file, depth + 1)).collect::<Vec<_>>());
                }
            }
        }
        if let Some(copy) = self.files.get_mut(at) {
            copy.text = text;
        }
        Some(path)
    }
}

fn include(text: &mut String, files: &[PathBuf]) {
    for file in files {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "Include {}", file.display());
    }
}

/// The patterns of an `Include` line. Those of a home directory are left out, because the sandbox has none of the host's.
fn included(line: &str) -> Option<Vec<String>> {
    let line = line.trim_start();
    let (keyword, rest) = line.split_at(line.find(|letter: char| letter.is_whitespace() || letter == '=')?);
    if !keyword.eq_ignore_ascii_case("include") {
        return None;
    }
    let rest = rest.trim_start();
    let mut rest = rest.strip_prefix('=').unwrap_or(rest).trim();
    let mut patterns = Vec::new();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (pattern, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        patterns.push(pattern.to_owned());
        rest = after.trim_start();
    }
    patterns.retain(|pattern| !pattern.is_empty() && !pattern.starts_with('~'));
    Some(patterns)
}

/// The files of a pattern, in the order of their names. Only the last part of it may be a pattern.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let Some((folder, name)) = pattern.parent().zip(pattern.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    if !name.contains(['*', '?', '[']) {
        return vec![pattern.to_owned()];
    }
    let Ok(glob) = GlobBuilder::new(name).literal_separator(true).build() else { return Vec::new() };
    let matcher = glob.compile_matcher();
    let names = std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.file_name()));
    // As in a shell, a pattern does not match a hidden file.
    let is_meant = |found: &std::ffi::OsString| {
        let is_hidden = found.as_encoded_bytes().starts_with(b".") && !name.starts_with('.');
        !is_hidden && matcher.is_match(found)
    };
    let mut names: Vec<_> = names.filter(is_meant).collect();
    names.sort();
    names.into_iter().map(|name| folder.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test]
    fn includes_of_the_hosts_files_name_their_copies() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("ssh_config.d")).unwrap();
        let main = "Include ssh_config.d/*.conf absent.conf\nHost *\n    SendEnv LANG\n";
        std::fs::write(path("ssh_config"), main).unwrap();
        let crypto = format!("  include = \"{}\"\n", path("crypto policy").display());
        std::fs::write(path("ssh_config.d/50-host.conf"), crypto).unwrap();
        std::fs::write(path("ssh_config.d/10-first.conf"), "Port 22").unwrap();
        std::fs::write(path("ssh_config.d/.hidden.conf"), "Port 23").unwrap();
        std::fs::write(path("crypto policy"), "Ciphers x\n").unwrap();
        let text: Vec<_> = files_of(&path("ssh_config"))
            .into_iter()
            .map(|file| format!("{}: {}", file.path.display(), file.text.trim_end().replace('\n', "; ")))
            .collect();
        assert_eq!(
            text,
            [
                "/etc/ssh/ssh_config.host/0: Include /etc/ssh/ssh_config.host/1; Include /etc/ssh/ssh_config.host/2; Host *;     SendEnv LANG",
                "/etc/ssh/ssh_config.host/1: Port 22",
                "/etc/ssh/ssh_config.host/2: Include /etc/ssh/ssh_config.host/3",
                "/etc/ssh/ssh_config.host/3: Ciphers x",
                &format!(
                    "/etc/ssh/ssh_config: Host *;     ProxyCommand {INIT} sandbox-tunnel %h %p; Include /etc/ssh/ssh_config.host/0"
                ),
            ]
        );
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ssh_config");
        std::fs::write(&file, "Include ssh_config ssh_config\n").unwrap();
        assert!(files_of(&file).len() <= MOST_FILES + 1);
    }

    #[test]
    fn a_host_without_a_configuration_has_the_proxy() {
        let files = files_of(Path::new("/nowhere/ssh_config"));
        assert_eq!(files.len(), 1);
        assert!(files[0].text.contains("ProxyCommand") && !files[0].text.contains("Include"));
    }

    #[test_case("Include a b", Some(&["a", "b"]); "two")]
    #[test_case("\tINCLUDE\t\"a b\"  c # x", Some(&["a b", "c"]); "quoted, and a comment")]
    #[test_case("include=a", Some(&["a"]); "equals")]
    #[test_case("Include ~/.ssh/x", Some(&[]); "of a home")]
    #[test_case("Included a", None; "another keyword")]
    #[test_case("# Include a", None; "comment")]
    #[test_case("", None; "empty")]
    fn include_lines_are_read_as_ssh_reads_them(line: &str, expected: Option<&[&str]>) {
        assert_eq!(included(line), expected.map(|all| all.iter().map(ToString::to_string).collect()));
    }
}
