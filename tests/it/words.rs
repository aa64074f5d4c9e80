//! Texts that people read, each kind at one glance in a snapshot: `--help` of each command, and each hint of the code.
//!
//! `INSTA_UPDATE=always cargo test --test it -- words` writes them anew; read the difference before it is committed.

use std::path::Path;
use std::process::Command;

use crate::support::snapshot::assert_snapshot;

/// Commands with a `--help`; the empty one is the program itself.
const COMMANDS: &[&str] = &[
    "",
    "agent",
    "cleanup",
    "config",
    "config check",
    "config schema",
    "config show",
    "credentials",
    "credentials export",
    "credentials publish-issuer",
    "credentials trust-policy",
    "doctor",
    "emulator",
    "endpoint",
    "endpoint delete",
    "endpoint deploy",
    "endpoint rollback",
    "endpoint status",
    "endpoint test",
    "gate",
    "image",
    "image build",
    "image scan",
    "init",
    "init endpoint",
    "init training",
    "model",
    "model approve",
    "model latest",
    "model register",
    "model reject",
    "package",
    "package verify",
    "policy",
    "policy explain",
    "policy iam",
    "prepare",
    "prune",
    "release",
    "report",
    "run",
    "status",
    "sweep",
    "try",
    "validate",
];

#[test]
fn help() {
    for command in COMMANDS {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sagemaker-executor"));
        let output = program.args(command.split_terminator(' ')).arg("--help").env_clear().output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{command}");
        let name = if command.is_empty() { "program".to_owned() } else { command.replace(' ', "_") };
        assert_snapshot(&format!("help_{name}"), &String::from_utf8(output.stdout).unwrap());
    }
}

#[test]
fn each_command_has_its_help_here() {
    let output = Command::new(env!("CARGO_BIN_EXE_sagemaker-executor")).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let listed = text.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let named = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let missing: Vec<_> =
        listed.lines().filter_map(named).filter(|name| name != "help" && !COMMANDS.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The string literals of Rust code up to the parenthesis that closes the call, as the program has them.
pub(crate) fn literals(code: &str) -> Vec<String> {
    let (mut found, mut depth, mut rest) = (Vec::new(), 1, code);
    while depth > 0 {
        let Some(at) = rest.find(['(', ')', '"']) else { break };
        let raw = rest[..at].ends_with('r');
        let (sign, after) = (rest.as_bytes()[at], &rest[at + 1..]);
        rest = after;
        match sign {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {
                let (mut text, mut chars) = (String::new(), after.char_indices());
                while let Some((end, char)) = chars.next() {
                    match char {
                        '"' => {
                            rest = &after[end + 1..];
                            break;
                        }
                        '\\' if !raw => match chars.next() {
                            // A literal goes on in the next line, without what indents it.
                            Some((end, '\n')) => {
                                let indent = after[end + 1..].find(|char: char| !char.is_whitespace()).unwrap_or(0);
                                let _ = (0..indent).map_while(|_| chars.next()).count();
                            }
                            Some((_, char)) => text.push(char),
                            None => break,
                        },
                        char => text.push(char),
                    }
                }
                found.push(text);
            }
        }
    }
    found
}

pub(crate) fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            found.push(path.display().to_string());
        }
    }
}

/// Each place of the code that gives a hint; one whose text is made elsewhere counts as a place without text.
#[test]
fn hints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = Vec::new();
    files(&root.join("src"), &mut names);
    names.sort();
    let mut lines = String::new();
    for name in names {
        let text = std::fs::read_to_string(&name).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let hints: Vec<_> = code.split(".hint(").skip(1).map(|call| literals(call).join(" | ")).collect();
        if !hints.is_empty() {
            let name = Path::new(&name).strip_prefix(root).unwrap().display();
            lines.extend([name.to_string(), "\n".to_owned()]);
            lines
                .extend(hints.iter().map(|hint| format!("  {}\n", if hint.is_empty() { "(elsewhere)" } else { hint })));
        }
    }
    assert_snapshot("hints", &lines);
}

#[test]
fn literals_are_read_as_the_program_has_them() {
    let code = "format!(\"set `{KEY}` (see \\\"x\\\"), or \\\n    run it\", f(1)), r\"a\\b\") + \"not this\"";
    assert_eq!(literals(code), ["set `{KEY}` (see \"x\"), or run it", "a\\b"]);
}
