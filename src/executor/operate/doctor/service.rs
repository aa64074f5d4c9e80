//! GitLab Runner's service, as systemd tells it: its user, the file that it reads, and the environment in which the stages run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::machine::HostMachine;

pub(super) const SERVICE: &str = "gitlab-runner.service";
const PROPERTIES: &str = "--property=User,LoadState,ExecStart,Environment,EnvironmentFiles";

/// Facts of systemd and of the users of this host about the service.
#[derive(Default)]
pub(super) struct RunnerService {
    /// `systemctl` answered.
    pub(super) is_told: bool,
    pub(super) is_loaded: bool,
    /// The user that it runs as; `root` where the unit names none.
    pub(super) user: String,
    /// The number of that user; `None` when neither `/etc/passwd` nor `id` tells it.
    pub(super) user_id: Option<u32>,
    /// The file of `--config` in its command line.
    pub(super) config: Option<PathBuf>,
    /// Variables of its unit. Their values may be secrets.
    variables: BTreeMap<String, String>,
    /// Files that may set more variables, and could not be read, each with the reason.
    unread: Vec<String>,
}

/// Names of variables alone.
impl fmt::Debug for RunnerService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_told, is_loaded, user, user_id, config, variables, unread } = self;
        formatter
            .debug_struct("RunnerService")
            .field("is_told", is_told)
            .field("is_loaded", is_loaded)
            .field("user", user)
            .field("user_id", user_id)
            .field("config", config)
            .field("variables", &variables.keys())
            .field("unread", unread)
            .finish()
    }
}

impl RunnerService {
    pub(super) async fn ask(machine: &dyn HostMachine) -> Self {
        match machine.output("systemctl", &["show", SERVICE, PROPERTIES]).await {
            Ok(told) => Self::of(&told, machine).await,
            // A host without systemd has no unit, and its variables are those of this process.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => Self { unread: vec![format!("{SERVICE} ({error})")], ..Self::default() },
        }
    }

    async fn of(told: &str, machine: &dyn HostMachine) -> Self {
        let values = |name: &'static str| {
            told.lines().filter_map(move |line| line.split_once('=').filter(|(key, _)| *key == name).map(|(_, of)| of))
        };
        let user = values("User").map(str::trim).find(|user| !user.is_empty()).unwrap_or("root").to_owned();
        let (mut variables, mut unread) = (BTreeMap::new(), Vec::new());
        // The files win over the unit, as they do in systemd.
        variables.extend(values("Environment").flat_map(assignments));
        for file in values("EnvironmentFiles") {
            let path = file.split(" (").next().unwrap_or_default().trim();
            let text = match machine.read(Path::new(path)) {
                Ok(text) => text,
                // systemd takes all files that fit.
                Err(_) if path.contains(['*', '?', '[']) => {
                    unread.push(format!("{path} (a pattern of files)"));
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    unread.push(format!("{path} ({error})"));
                    continue;
                }
            };
            let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
            variables.extend(lines.filter_map(|line| line.split_once('=')).map(|(name, value)| of_file(name, value)));
        }
        Self {
            is_told: true,
            is_loaded: values("LoadState").any(|state| state == "loaded"),
            user_id: user_id(machine, &user).await,
            user,
            config: values("ExecStart").find_map(config_of).map(PathBuf::from),
            variables,
            unread,
        }
    }

    /// Files with variables of the stages that could not be read, each with the reason; `None` when all are known.
    pub(super) fn unread(&self) -> Option<String> {
        (!self.unread.is_empty()).then(|| self.unread.join(", "))
    }

    /// The user as `sudo -u` takes it, in the words of a shell.
    pub(super) fn sudo_user(&self) -> String {
        if is_number(&self.user) { format!("'#{}'", self.user) } else { self.user.clone() }
    }

    /// `PATH` of the unit; `None` where it sets none: [`Self::find`] takes this process's then.
    pub(super) fn path(&self) -> Option<&str> {
        self.variables.get("PATH").map(String::as_str)
    }

    /// A variable of the unit, or of this process.
    pub(super) fn variable(&self, machine: &dyn HostMachine, name: &str) -> Option<String> {
        self.variables.get(name).cloned().or_else(|| machine.variable(name)).filter(|value| !value.is_empty())
    }

    /// The program of a name in the `PATH` of the stages.
    pub(super) fn find(&self, machine: &dyn HostMachine, program: &str) -> Option<PathBuf> {
        machine.find(program, self.path())
    }

    /// Words for the `PATH` in which a program is not.
    pub(super) fn named_path(&self) -> String {
        match (self.path(), self.unread()) {
            (Some(path), None) => format!("the PATH of {SERVICE}, `{path}`"),
            (Some(path), Some(unread)) => {
                format!("the PATH of {SERVICE}, `{path}`; another may be set by what could not be read: {unread}")
            }
            (None, None) => "the PATH".to_owned(),
            (None, Some(unread)) => {
                format!("the PATH of this shell; another may be set by what could not be read: {unread}")
            }
        }
    }
}

/// The path after `--config` in the command line of a service.
fn config_of(told: &str) -> Option<&str> {
    let words: Vec<&str> = told.split_whitespace().collect();
    let joined = words.iter().find_map(|word| word.strip_prefix("--config="));
    let behind =
        || words.iter().position(|word| ["--config", "-c"].contains(word)).and_then(|at| words.get(at + 1)).copied();
    joined.or_else(behind).filter(|path| path.starts_with('/'))
}

/// Assignments in a line of systemd: separated by spaces, with double quotes around those that have some.
fn assignments(line: &str) -> Vec<(String, String)> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '\\' => word.extend(letters.next()),
            ' ' if !is_quoted => words.push(std::mem::take(&mut word)),
            letter => word.push(letter),
        }
    }
    words.push(word);
    words.iter().filter_map(|word| word.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

/// An assignment in a file of `EnvironmentFile=`.
fn of_file(name: &str, value: &str) -> (String, String) {
    (name.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned())
}

fn is_number(user: &str) -> bool {
    !user.is_empty() && user.bytes().all(|letter| letter.is_ascii_digit())
}

/// The number of a user, who may be of a directory such as LDAP.
async fn user_id(machine: &dyn HostMachine, user: &str) -> Option<u32> {
    if user == "root" {
        return Some(0);
    }
    if is_number(user) {
        return user.parse().ok();
    }
    let of_file = machine.read(Path::new("/etc/passwd")).ok().and_then(|text| {
        let line = text.lines().find(|line| line.split(':').next() == Some(user))?;
        line.split(':').nth(2)?.parse().ok()
    });
    if of_file.is_some() {
        return of_file;
    }
    machine.output("id", &["-u", "--", user]).await.ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_service_is_in_its_command_line() {
        let told = "{ path=/usr/local/bin/gitlab-runner ; argv[]=/usr/local/bin/gitlab-runner run --config \
                    /var/lib/gitlab-runner/config.toml --working-directory /var/lib/gitlab-runner ; ignore_errors=no }";
        assert_eq!(config_of(told), Some("/var/lib/gitlab-runner/config.toml"));
        assert_eq!(config_of("argv[]=gitlab-runner run --config=/a.toml ;"), Some("/a.toml"));
        assert_eq!((config_of("gitlab-runner"), config_of("-c a.toml")), (None, None));
    }

    #[test]
    fn an_environment_has_quoted_values() {
        let pairs = assignments(r#"PATH=/usr/bin:/bin "A=b c" HTTPS_PROXY=http://p:1 "Q=\"x\"" word"#);
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("PATH", "/usr/bin:/bin"), ("A", "b c"), ("HTTPS_PROXY", "http://p:1"), ("Q", "\"x\"")]);
        assert_eq!(of_file(" PATH", "\"/bin\""), ("PATH".to_owned(), "/bin".to_owned()));
    }
}
