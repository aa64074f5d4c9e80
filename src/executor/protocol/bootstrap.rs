//! What the agent's input channel contains beside the agent itself: the way from `/bin/sh` to a running agent.
//!
//! Files that come from S3 have no execute bit, so the container's entrypoint is `/bin/sh` with [`START`]. The script finds a
//! way to make the agent executable in images of every kind and `exec`s it: the agent becomes PID 1 and gets the
//! SIGTERM of a stop. Only the last way needs [`STUB`], for images that hold a shell and glibc's loader but no `chmod`. This
//! module makes bytes; it never runs anything.

use std::path::{Path, PathBuf};

/// The agent: this program's own executable.
pub const BINARY: &str = "sagemaker-executor";
/// The script that the container's entrypoint runs: `/bin/sh /opt/ml/input/data/<channel>/start.sh`.
pub const START: &str = "start.sh";
/// Trusted roots of the runner host, for images without any; absent when the host needs none.
pub const CA_BUNDLE: &str = "ca-bundle.pem";
/// The input channel that holds these files.
pub const CHANNEL: &str = "sagemaker-executor";
/// A program that sets the mode of one file, to be run through the dynamic loader.
pub const STUB: &str = "exec-stub";

/// Where the channel lies in the container.
pub fn channel_dir() -> PathBuf {
    Path::new("/opt/ml/input/data").join(CHANNEL)
}

/// The argument of the container's entrypoint `/bin/sh`.
pub fn start_path() -> String {
    channel_dir().join(START).display().to_string()
}

/// The start script, for any POSIX shell (dash, busybox sh, bash), without an external command where it can do without.
///
/// Ends as the agent, or with exit code 126 and a line that tells what the image lacks, on stderr and in
/// `/opt/ml/output/failure`.
pub fn start_script() -> String {
    SCRIPT.replace("@BINARY@", BINARY).replace("@STUB@", STUB)
}

const SCRIPT: &str = r#"#!/bin/sh
# Starts the agent of this training job. Files from S3 have no execute bit; each way to set it is tried in turn.

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
    if [ -n "$copied" ]; then
        agent=$copied
    else
        # The loader runs programs that have no execute bit, and this one sets it for the agent.
        for loader in /lib64/ld-linux-x86-64.so.2 /lib/ld-musl-x86_64.so.1; do
            [ -x "$agent" ] || "$loader" "$directory/@STUB@" "$agent" 2>/dev/null
        done
        [ -x "$agent" ] || fail "the image has no \`chmod\` that makes $agent executable, and no \`cp\` that makes a copy its user may execute; install \`coreutils\` or \`busybox\` in the image"
    fi
fi

# When `exec` fails, most shells leave by way of the trap, and bash goes on with the next line if asked to.
useless="$agent cannot be executed; is it on a file system mounted with \`noexec\`?"
trap 'fail "$useless"' EXIT
shopt -s execfail 2>/dev/null
exec "$agent" agent
fail "$useless"
"#;

/// An `x86_64` program that does `exit(-chmod(argv[1], 0755))`: its exit code is 0 or the error number.
///
/// The loader refuses to run a static program that has no execute bit itself (it `execve`s it), but maps a
/// dynamic one. So this is the smallest dynamic program: no library, no symbol, no relocation.
/// Run it as `/lib64/ld-linux-x86-64.so.2 exec-stub <file>`.
pub fn exec_stub() -> Vec<u8> {
    const INTERPRETER: &[u8; 32] = b"/lib64/ld-linux-x86-64.so.2\0\0\0\0\0";
    const CODE: [u8; 32] = [
        0x48, 0x8b, 0x7c, 0x24, 0x10, // mov rdi, [rsp+16]    argv[1]; argc is at rsp, argv[0] at rsp+8
        0xbe, 0xed, 0x01, 0x00, 0x00, // mov esi, 0755
        0xb8, 0x5a, 0x00, 0x00, 0x00, // mov eax, 90          chmod
        0x0f, 0x05, //                   syscall
        0xf7, 0xd8, //                   neg eax              the kernel returns 0 or minus the error number
        0x89, 0xc7, //                   mov edi, eax
        0xb8, 0xe7, 0x00, 0x00, 0x00, // mov eax, 231         exit_group
        0x0f, 0x05, //                   syscall
        0x00, 0x00, 0x00, 0x00,
    ];
    // Where each part begins: header and segments, interpreter, strings, symbols, hash, code | dynamic section.
    // The first part is mapped at 0, readable and executable; the dynamic section one page above its file offset,
    // writable, because older loaders relocate its addresses in place.
    const AT_INTERPRETER: u64 = 64 + 5 * 56;
    const AT_STRINGS: u64 = AT_INTERPRETER + 32;
    const AT_SYMBOLS: u64 = AT_STRINGS + 8;
    const AT_HASH: u64 = AT_SYMBOLS + 24;
    const AT_CODE: u64 = AT_HASH + 16;
    const AT_DYNAMIC: u64 = AT_CODE + 32;
    const DYNAMIC_SIZE: u64 = 96;
    const PAGE: u64 = 0x1000;

    // Magic, 64 bits, little endian, System V; ET_DYN, EM_X86_64, version 1; entry, program headers, no section headers; sizes of
    // the header and of a segment's entry; segments.
    let header = [0x0001_0102_464c_457f, 0, 3 | 62 << 16 | 1 << 32, AT_CODE, 64, 0, 64 << 32 | 56 << 48, 5];
    // In memory each segment is as long as in the file. Flags: read 4, write 2, execute 1.
    let segment = |kind: u64, flags: u64, offset, address, size, alignment| {
        [kind | flags << 32, offset, address, address, size, size, alignment]
    };
    let segments = [
        segment(3, 4, AT_INTERPRETER, AT_INTERPRETER, 28, 1), // PT_INTERP, before the loadable ones
        segment(1, 5, 0, 0, AT_DYNAMIC, PAGE),                // PT_LOAD
        segment(1, 6, AT_DYNAMIC, PAGE + AT_DYNAMIC, DYNAMIC_SIZE, PAGE), // PT_LOAD
        segment(2, 6, AT_DYNAMIC, PAGE + AT_DYNAMIC, DYNAMIC_SIZE, 8), // PT_DYNAMIC
        segment(0x6474_e551, 6, 0, 0, 0, 16),                 // PT_GNU_STACK: the stack is not to be executable
    ];
    // No string and no symbol but the empty ones; a hash table of one bucket and one chain entry, both of the empty symbol.
    let tables = [0, 0, 0, 0, 1 | 1 << 32, 0];
    // DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_NULL
    let dynamic = [4, AT_HASH, 5, AT_STRINGS, 6, AT_SYMBOLS, 10, 1, 11, 24, 0, 0];
    let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let head = [bytes(&header), bytes(segments.as_flattened())].concat();
    [head, INTERPRETER.to_vec(), bytes(&tables), CODE.to_vec(), bytes(&dynamic)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stub_is_small_and_its_entry_is_code() {
        let stub = exec_stub();
        assert!(stub.len() < 1024, "{} bytes", stub.len());
        let entry = u64::from_le_bytes(stub[24..32].try_into().unwrap());
        let entry = usize::try_from(entry).unwrap();
        assert_eq!(stub[entry..entry + 5], [0x48, 0x8b, 0x7c, 0x24, 0x10]);
    }

    #[test]
    fn the_script_names_its_files() {
        let script = start_script();
        assert!(script.contains("agent=$directory/sagemaker-executor\n") && script.contains("$directory/exec-stub"));
        assert!(!script.contains('@'), "a placeholder is left");
    }
}
