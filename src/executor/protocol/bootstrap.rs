//! The files of the agent's input channel, and the start script that runs the agent.
//!
//! Files from S3 have no execute bit, so the container's entrypoint is `/bin/sh` with [`START`]. The script makes the agent
//! executable and `exec`s it: the agent becomes PID 1 and gets the SIGTERM of a stop. This module only produces text.

use std::path::{Path, PathBuf};

/// The agent: this program's own executable.
pub const BINARY: &str = "sagemaker-executor";
/// The script that the container's entrypoint runs: `/bin/sh /opt/ml/input/data/<channel>/start.sh`.
pub const START: &str = "start.sh";
/// CA certificates of the runner host, for images without any; absent when the host needs none.
pub const CA_BUNDLE: &str = "ca-bundle.pem";
/// The input channel that holds these files.
pub const CHANNEL: &str = "sagemaker-executor";

/// Directory of all input channels in the container.
pub fn data_dir() -> &'static Path {
    Path::new("/opt/ml/input/data")
}

/// Directory of the channel in the container.
pub fn channel_dir() -> PathBuf {
    data_dir().join(CHANNEL)
}

/// The argument of the container's entrypoint `/bin/sh`.
pub fn start_path() -> String {
    channel_dir().join(START).display().to_string()
}

/// The start script, for any POSIX shell (dash, busybox sh, bash). It uses external commands only where it must.
///
/// It `exec`s the agent, or ends with exit code 126 and names what the image lacks, on stderr and in `/opt/ml/output/failure`.
pub fn start_script() -> String {
    SCRIPT.replace("@BINARY@", BINARY)
}

const SCRIPT: &str = r#"#!/bin/sh
# Starts the agent of this training job. Files from S3 have no execute bit; each way to set it is tried in turn.

# A stop that comes before the agent handles it.
trap 'trap - EXIT; exit 143' TERM

case $0 in
*/*) directory=${0%/*} ;;
*) directory=. ;;
esac
agent=$directory/@BINARY@

fail() {
    trap - EXIT
    message="failed to start the agent: $1"
    echo "$message" >&2
    mkdir -p /opt/ml/output 2>/dev/null
    { echo "$message" >/opt/ml/output/failure; } 2>/dev/null
    exit 126
}

[ -f "$agent" ] || fail "$agent is missing"

# A shell takes a program for another processor for a script, so this has to be asked before.
machine=
{ read -r machine </proc/sys/kernel/arch; } 2>/dev/null
[ -n "$machine" ] || machine=$(uname -m 2>/dev/null)
case $machine in
x86_64 | amd64 | '') ;;
*) fail "it is built for x86_64 and this machine is $machine; choose an instance type with an x86_64 processor" ;;
esac

executable() {
    [ -x "$1" ] && return
    chmod 755 "$1" 2>/dev/null
    [ -x "$1" ] && return
    busybox chmod 755 "$1" 2>/dev/null
    [ -x "$1" ]
}

if ! executable "$agent"; then
    # A channel that is mounted read-only, or that is another user's. A file system may forbid programs.
    copied=
    for place in /tmp /var/tmp /dev/shm "$HOME"; do
        [ -z "$copied" ] && [ -n "$place" ] || continue
        copy=$place/@BINARY@.$$
        { cp "$agent" "$copy" || busybox cp "$agent" "$copy" || cat "$agent" >"$copy"; } 2>/dev/null
        if [ -f "$copy" ] && executable "$copy"; then
            copied=$copy
        else
            rm -f "$copy" 2>/dev/null
        fi
    done
    [ -n "$copied" ] || fail "the image has no \`chmod\` that makes $agent executable, and no \`cp\` that makes a copy its user may execute; install \`coreutils\` or \`busybox\` in the image"
    agent=$copied
fi

# When `exec` fails, most shells leave by way of the trap, and bash goes on with the next line if asked to.
useless="$agent cannot be executed; is it on a file system mounted with \`noexec\`?"
trap 'fail "$useless"' EXIT
shopt -s execfail 2>/dev/null
exec "$agent" agent
fail "$useless"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_names_its_files() {
        let script = start_script();
        assert!(script.contains("agent=$directory/sagemaker-executor\n"));
        assert!(!script.contains('@'), "a placeholder is left");
    }
}
