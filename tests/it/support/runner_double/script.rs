//! Writes stage scripts for bash, in the quoting style of GitLab Runner.

use std::fmt::Write as _;

use super::super::job::Variable;
use super::trace::RESET;

const GREEN: &str = "\x1b[32;1m";
const YELLOW: &str = "\x1b[0;33m";
/// Makes a script leave at once with code 1 when it is terminated.
const TERMINATION_TRAP: &str = "trap 'exit 1' TERM";

/// A stage script that grows line by line.
#[derive(Debug)]
pub(super) struct Script {
    text: String,
    /// `<project dir>.tmp`.
    folder: String,
}

impl Script {
    pub(super) fn new(folder: &str) -> Self {
        Self { text: String::new(), folder: folder.to_owned() }
    }

    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    pub(super) fn command(&mut self, words: &[&str]) {
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        self.line(&words.join(" "));
    }

    /// Like [`Script::command`], but the shell expands variables in the arguments.
    pub(super) fn expanded(&mut self, words: &[&str]) {
        let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
        self.line(&words.join(" "));
    }

    pub(super) fn if_quiet(&mut self, words: &[&str]) {
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        self.line(&format!("if {} >/dev/null 2>&1; then", words.join(" ")));
    }

    pub(super) fn notice(&mut self, text: &str) {
        self.line(&format!("echo {}", quote(&format!("{GREEN}{text}{RESET}"))));
    }

    pub(super) fn warning(&mut self, text: &str) {
        self.line(&format!("echo {}", quote(&format!("{YELLOW}{text}{RESET}"))));
    }

    pub(super) fn temporary(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    pub(super) fn variable(&mut self, variable: &Variable) {
        let key = quote(&variable.key);
        if variable.file {
            let path = self.temporary(&variable.key);
            self.line(&format!("mkdir -p \"{}\"", self.folder));
            self.line(&format!("printf '%s' {} > \"{path}\"", quote(&variable.value)));
            self.line(&format!("export {key}=\"{path}\""));
        } else {
            self.line(&format!("export {key}={}", quote(&variable.value)));
        }
    }

    /// Exports the variables that earlier stages wrote into `GITLAB_ENV`.
    pub(super) fn gitlab_env(&mut self) {
        let path = self.temporary("gitlab_runner_env");
        self.variable(&Variable::new("GITLAB_ENV", &path));
        self.line(&format!("mkdir -p \"{}\"", self.folder));
        self.line(&format!("touch \"{path}\""));
        self.line(&format!("while read -r line; do export \"$line\"; done < \"{path}\""));
    }

    pub(super) fn remove_file(&mut self, path: &str) {
        self.expanded(&["rm", "-f", path]);
    }

    pub(super) fn remove_folder(&mut self, path: &str) {
        self.line(&format!("if [ -d \"{path}\" ]; then chmod -R u+rwX \"{path}\"; fi"));
        self.expanded(&["rm", "-r", "-f", path]);
    }

    /// The lines of a job: each is shown in green and run; of one with several lines the first is shown.
    pub(super) fn user_lines(&mut self, lines: &[String], section: Option<&str>) {
        for (number, line) in lines.iter().enumerate() {
            let line = line.trim();
            match (line.split_once('\n'), section) {
                (None, _) if line.is_empty() => self.line("echo"),
                (None, _) => self.notice(&format!("$ {line}")),
                (Some(_), Some(prefix)) => self.section(&format!("{prefix}_{number}"), line),
                (Some((first, _)), None) => self.notice(&format!("$ {first} # collapsed multi-line command")),
            }
            self.line(line);
        }
    }

    fn section(&mut self, name: &str, command: &str) {
        let now = "$(awk 'BEGIN{srand(); print srand()}')";
        let shown = quote(&format!("{GREEN}$ {command}{RESET}"));
        self.line(&format!(
            "printf '%b\\n' section_start:{now}:section_{name}[hide_duration=true,collapsed=true]\r\x1b[0K{shown}"
        ));
        self.line(&format!("printf '%b\\n' section_end:{now}:section_{name}\r\x1b[0K"));
    }

    /// The whole script: traps, strictness, and the lines as one quoted string in a subshell without input.
    pub(super) fn finish(self, xtrace: bool) -> String {
        let xtrace = if xtrace { "set -o xtrace\n" } else { "" };
        format!(
            "#!/usr/bin/env bash\n\n{TERMINATION_TRAP}\n\n{xtrace}\
             case \"$(set -o)\" in *\"pipefail\"*) set -o pipefail;; esac; set -o errexit\nset +o noclobber\n\
             ({TERMINATION_TRAP}; eval {}) < /dev/null\nexit 0\n",
            quote(&self.text)
        )
    }
}

/// A word for bash: plain if possible, else `$'...'` with `\xNN` for bytes that are not printable ASCII.
pub(super) fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b",-./@_".contains(&byte);
    if word.is_empty() {
        return "''".to_owned();
    }
    if word.bytes().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::with_capacity(word.len() + 8);
    quoted.push_str("$'");
    for byte in word.bytes() {
        match byte {
            b'\'' => quoted.push_str("\\'"),
            b'\\' => quoted.push_str("\\\\"),
            b'\n' => quoted.push_str("\\n"),
            b'\r' => quoted.push_str("\\r"),
            b'\t' => quoted.push_str("\\t"),
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => {
                let _ = write!(quoted, "\\x{byte:02x}");
            }
        }
    }
    quoted.push('\'');
    quoted
}

#[test]
fn bash_reads_a_quoted_word_back() {
    let word = "it's $HOME `x` \\n %s\n\ttab \u{1f600} ü \"q\" !\u{7f}";
    let script = format!("printf %s {}", quote(word));
    let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
    assert_eq!(quote("plain/word-1.txt"), "plain/word-1.txt");
}
