//! Prepares the runner's script for the host: the prelude that bash reads first, and checks that refuse unsafe scripts.
//! No I/O.
//!
//! The script exports every job variable, so setting the environment alone cannot keep any of them away. In bash a
//! function takes precedence over the builtin `export`; the one defined here passes variables allowed on the host
//! ([`crate::base::names`]) and drops the others. bash reads it from the file in `BASH_ENV`, so the script runs
//! unchanged. The function is not exported, so programs started by the script do not see it.

use std::fmt::Write as _;
use std::path::Path;

use crate::base::names::{self, Reach};

/// `true` for shells that read `BASH_ENV` and let a function replace `export`.
pub(super) fn takes_prelude(shell: &str) -> bool {
    Path::new(shell).file_name().is_some_and(|name| name == "bash")
}

/// The file that bash reads first. `bash_env` is the operator's own such file. The function declares no variables: they
/// would hide job variables of the same name.
pub(super) fn prelude(bash_env: Option<&str>, is_sandboxed: bool) -> String {
    let own = bash_env.map_or_else(
        || "unset -v BASH_ENV".to_owned(),
        |path| format!("BASH_ENV='{}'\nif [ -r \"$BASH_ENV\" ]; then . \"$BASH_ENV\"; fi", path.replace('\'', r"'\''")),
    );
    format!(
        // In POSIX mode the builtin `export` would win. Under xtrace the call is shown as usual, but nothing inside the
        // function.
        r#"{own}
unset -v {BEFORE_LAST}
set +o posix
export() {{
{{ local - && set +x; }} 2>/dev/null || :
case ${{1-}} in -*) builtin export "$@"; return ;; esac
while [ $# -gt 0 ]; do
case ${{1%%[+=]*}} in
''|[0-9]*|*[!A-Za-z0-9_]*) ;;
{proxies}{LAST_EXPORT}) builtin export "$1" || return; if [ -n "${{{BEFORE_LAST}-}}" ]; then unset -f export; fi ;;
{arms}*) builtin export "$1" || return ;;
esac
shift
done
}}
"#,
        arms = arms(),
        proxies = if is_sandboxed { format!("{}) ;;\n", PROXIES.join("|")) } else { String::new() },
    )
}

/// A sandbox has a proxy of its own, and reaches no other.
pub(super) const PROXIES: [&str; 8] =
    ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
/// The runner sets it after all job variables; hooks export later variables, and those are for the host.
const LAST_EXPORT: &str = "GCM_INTERACTIVE";
/// The runner sets it after the job's own variables, but before the last: a job's own [`LAST_EXPORT`] comes before it.
const BEFORE_LAST: &str = "RUNNER_TEMP_PROJECT_DIR";

/// The table's rows, in order, as arms of `case`.
fn arms() -> String {
    let mut arms = String::new();
    let rows: Vec<_> = names::table().collect();
    for group in rows.chunk_by(|(_, one), (_, other)| deed(*one) == deed(*other)) {
        let Some((_, reach)) = group.first() else { continue };
        let patterns: Vec<_> = group.iter().map(|(pattern, _)| *pattern).collect();
        let _ = writeln!(arms, "{}) {} ;;", patterns.join("|"), deed(*reach));
    }
    arms
}

/// The function's action for a variable.
fn deed(reach: Reach) -> &'static str {
    match reach {
        Reach::Container => "",
        Reach::JobPath => r#"if [ -e "${1#*=}" ]; then builtin export "$1" || return; fi"#,
        Reach::Job | Reach::Anyone => r#"builtin export "$1" || return"#,
    }
}

/// `true` when the runner wrote the script with `FF_POSIXLY_CORRECT_ESCAPES`. Its quoting leaves line breaks, `;` and
/// more of a variable's value bare, so that a value may run as a command. The first `eval` is the runner's own, with
/// the whole stage in it.
pub(super) fn is_badly_quoted(script: &[u8]) -> bool {
    const EVAL: &[u8] = b"eval ";
    let at = script.windows(EVAL.len()).position(|window| window == EVAL);
    at.is_some_and(|at| script.get(at + EVAL.len()) == Some(&b'"'))
}

/// `true` when a cache's key would run in the runner's here-document. `prepare` has refused the keys it could expand;
/// this check sees the key as the runner expanded it. In the script, `\n` stands for a line break.
pub(super) fn has_unsafe_key(script: &[u8]) -> bool {
    // Must start a line, so that an exported job variable of that name does not match.
    const BEGIN: &[u8] = b"\\nCACHE_METADATA=";
    let mut rest = script;
    while let Some(at) = rest.windows(BEGIN.len()).position(|window| window == BEGIN) {
        rest = rest.get(at + BEGIN.len()..).unwrap_or_default();
        let end = rest.windows(2).position(|pair| pair == b"\\n").unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        let runs = line.contains(&b'`') || line.windows(2).any(|pair| matches!(pair, [b'$', b'(' | b'{' | b'[']));
        if runs || !line.ends_with(b"}\"") || !after.starts_with(b"\\nEOF\\n") {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Output};

    use super::*;

    /// Runs a script as a stage would, with `KEY=host` for each of the host's keys.
    fn run(script: &str, host: &[&str]) -> Output {
        let folder = tempfile::tempdir().unwrap();
        let [path, first] = ["script", "first"].map(|name| folder.path().join(name));
        std::fs::write(&path, script).unwrap();
        std::fs::write(&first, prelude(None, false)).unwrap();
        let mut command = Command::new("bash");
        command.arg(&path).env_clear().env("PATH", "/usr/bin:/bin").env("HERE", folder.path()).env("BASH_ENV", first);
        command.envs(host.iter().map(|key| (*key, "host")));
        command.output().unwrap()
    }

    fn out(script: &str, host: &[&str]) -> String {
        let output = run(script, host);
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_variable_for_the_container_does_not_reach_the_host() {
        let names = [
            "HOME",
            "TMPDIR",
            "LD_LIBRARY_PATH",
            "PYTHONHOME",
            "LC_ALL",
            "IFS",
            "ENV",
            "PS4",
            "PERL5LIB",
            "RUBYOPT",
            "NODE_OPTIONS",
            "GODEBUG",
            "BASH_ENV",
            "CDPATH",
            "POSIXLY_CORRECT",
            "FUNCNEST",
        ];
        for name in names {
            let script =
                format!("set -e\n(eval $'export {name}=job\nexport PATH=/none\nexport MODEL=x\nenv') </dev/null");
            let text = out(&script, &[]);
            assert!(
                !text.contains("=job\n") && !text.contains("PATH=/none") && text.contains("MODEL=x\n"),
                "{name}: {text}"
            );
        }
        assert!(out("export HOME=job\nenv", &["HOME"]).contains("HOME=host\n"));
        // bash refuses to set these and would end the stage.
        assert_eq!(
            out(
                "set -e\nexport UID=1\nexport PPID=1\nexport SHELLOPTS=x\nexport BASHOPTS=x\nexport 1A=x\necho on",
                &[]
            ),
            "on\n"
        );
    }

    #[test]
    fn what_git_needs_reaches_it_whole() {
        let values = "export GIT_SSH_COMMAND=$'ssh -i \"k\"'\nexport http_proxy=http://p\nexport A=$'a b\\n*'\nexport line=l one=1\n\
                      export A+=more PYTHONUSERBASE=$HERE SSL_CERT_FILE=$HERE/script GIT_SSL_CAINFO=/nowhere\n";
        let text = out(&format!("{values}echo \"$A$line$one\"; env | sort"), &[]);
        assert!(text.starts_with("a b\n*morel1\n"), "{text}");
        for kept in ["GIT_SSH_COMMAND=ssh -i \"k\"", "http_proxy=http://p", "PYTHONUSERBASE=/", "SSL_CERT_FILE=/"] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
        assert!(!text.contains("/nowhere"), "{text}");
    }

    #[test]
    fn a_variable_that_the_shell_computes_neither_runs_nor_ends_the_stage() {
        for name in ["RANDOM", "SRANDOM", "SECONDS", "LINENO", "HISTCMD", "OPTIND", "BASHPID", "EPOCHSECONDS"] {
            let script = format!("set -e\nexport {name}='a b' {name}='a[$(touch $HERE/ran)]'\nls $HERE");
            assert!(!out(&script, &[]).contains("ran"), "{name}");
        }
    }

    #[test]
    fn versions_that_paths_of_artifacts_name_reach_the_helper() {
        let text = out("export PYTHON_VERSION=3.12 NODE_ENV=test RUBY_VERSION=3 PYTHONPATH=/x NODE_PATH=/x\nenv", &[]);
        assert!(text.contains("PYTHON_VERSION=3.12\n") && text.contains("NODE_ENV=test\n"), "{text}");
        assert!(text.contains("RUBY_VERSION=3\n") && !text.contains("/x"), "{text}");
    }

    #[test]
    fn lines_of_a_file_are_exported_as_the_runner_does_it() {
        let script = "printf 'PATH=/none\\nA=1 2\\nB[$(echo run >&2)]=1\\n\\n' > $HERE/e\n\
                      while read -r line; do export \"$line\"; done < $HERE/e\nenv";
        let text = out(&format!("set -e\n{script}"), &[]);
        assert!(text.contains("A=1 2\n") && !text.contains("/none"), "{text}");
    }

    #[test]
    fn a_hook_may_change_the_hosts_own_path() {
        let jobs = "export GCM_INTERACTIVE=Always\nexport PATH=/none";
        let runners = "export RUNNER_TEMP_PROJECT_DIR=/x\nexport GCM_INTERACTIVE=Never";
        let text = out(&format!("{jobs}\n{runners}\nexport PATH=$PATH:/opt/hook\nenv"), &["RUNNER_TEMP_PROJECT_DIR"]);
        assert!(text.contains("PATH=/usr/bin:/bin:/opt/hook\n"), "{text}");
    }

    #[test]
    fn the_function_is_quiet_and_changes_nothing_else() {
        let output = run(
            "set -x\nexport A=1 PATH=/none\n: after\nbash -c 'type -t export'\nset +x\necho \"$0 $# $-\"; exit 7",
            &[],
        );
        assert_eq!(output.status.code(), Some(7));
        let trace = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            trace.lines().take(3).collect::<Vec<_>>(),
            ["+ export A=1 PATH=/none", "+ : after", "+ bash -c 'type -t export'"]
        );
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("builtin\n/") && text.contains("/script 0 "), "{text}");

        assert_eq!(run("set -e\nfalse\necho never", &[]).stdout, b"");
        assert_eq!(run("set -e\nfalse", &[]).status.code(), Some(1));
        assert_eq!(run("trap 'exit 1' TERM\nkill $$\nsleep 60", &[]).status.code(), Some(1));
        assert_eq!(run("kill -KILL $$", &[]).status.signal(), Some(9));
        assert_eq!(
            out("export -f nothing 2>/dev/null || echo no; export -n HERE; env | grep -c HERE || :", &[]),
            "no\n0\n"
        );
    }

    #[test]
    fn the_operators_own_file_is_read_first_and_other_shells_read_none() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("it's");
        std::fs::write(&own, "export PATH=$PATH:/operator\n").unwrap();
        let first = folder.path().join("first");
        std::fs::write(&first, prelude(own.to_str(), false)).unwrap();
        let mut command = Command::new("bash");
        command
            .args(["-c", "export PATH=/none; echo $PATH; env"])
            .env_clear()
            .env("PATH", "/bin")
            .env("BASH_ENV", first);
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(text.starts_with("/bin:/operator\n") && text.contains("/it's\n"), "{text}");
        assert!(takes_prelude("bash") && takes_prelude("/usr/bin/bash") && !takes_prelude("/bin/sh"));
    }

    #[test]
    fn a_sandbox_keeps_its_own_proxy() {
        let folder = tempfile::tempdir().unwrap();
        let first = folder.path().join("first");
        std::fs::write(&first, prelude(None, true)).unwrap();
        let mut command = Command::new("bash");
        command.args(["-c", "export http_proxy=job NO_PROXY=* FTP_PROXY=x; echo $http_proxy-$NO_PROXY-$FTP_PROXY"]);
        command.env_clear().env("PATH", "/bin").env("BASH_ENV", first).env("http_proxy", "own");
        assert_eq!(String::from_utf8(command.output().unwrap().stdout).unwrap(), "own--x\n");
    }

    #[test]
    fn a_key_that_would_run_is_seen() {
        let script = |key: &str| {
            format!(
                "(eval $'cat << EOF > /e\\nCACHE_METADATA=\"{{\\\\\"cachekey\\\\\":\\\\\"{key}\\\\\"}}\"\\nEOF\\n')"
            )
            .into_bytes()
        };
        for key in ["main", "a $b", "5$", "a/b-ü"] {
            assert!(!has_unsafe_key(&script(key)), "{key}");
        }
        for key in ["$(id)", "`id`", "${x}", "$[1]", "a\\nid", "a\\nEOF\\nid"] {
            assert!(has_unsafe_key(&script(key)), "{key}");
        }
        assert!(!has_unsafe_key(b"echo on"));
        assert!(!has_unsafe_key(b"(eval $'export A=1\\nexport CACHE_METADATA=$\\'$(x)\\'\\n')"));
    }

    #[test]
    fn the_form_of_the_quotes_tells_the_flag() {
        let script = |eval: &str| format!("#!/usr/bin/env bash\ntrap 'exit 1' TERM\n{eval}\nexit 0\n").into_bytes();
        assert!(is_badly_quoted(&script("(trap 'exit 1' TERM; eval \"export A=a\nid\n\") < /dev/null")));
        assert!(is_badly_quoted(&script(": | eval \"export A=a\"")));
        assert!(!is_badly_quoted(&script("(trap 'exit 1' TERM; eval $'export A=$\\'eval \"x\"\\'') < /dev/null")));
        assert!(!is_badly_quoted(b"set -eu\ncd /\n"));
    }
}
