//! The shell script that runs the commands of a buildspec, all in one shell. Pure.
//!
//! The script writes a mark at the begin and the end of each phase into its output, see `marks.rs`.

use std::fmt::Write as _;

use super::buildspec::{Buildspec, OnFailure, PhaseCommands};

/// Functions of the script; `MARK` is what marks begin with. A command that ends the shell is found by the trap on its end.
const FUNCTIONS: &str = r#"__result=0 __at= __next=INSTALL
export CODEBUILD_BUILD_SUCCEEDING=1
__mark() { printf '\n%s%s\n' "MARK" "$*"; }
__say() { printf '[Container] %s %s\n' "$(date -u '+%Y/%m/%d %H:%M:%S')" "$1"; }
__run() {
    __number=$1
    __say "Running command $2"
    eval "$2"
}
__end() {
    if [ "$__at" = commands ]; then
        __code=$1 __failed=$__number __at=finally
        "__finally_$__name"
        set -- $?
    fi
    if [ "$__code" = 0 ]; then __code=$1 __failed=$__number; fi
    __at=
    __mark "end $__name $__code $__failed"
    __next=$__then
    if [ "$__code" != 0 ]; then
        __result=1
        export CODEBUILD_BUILD_SUCCEEDING=0
        __say "Phase complete: $__name State: FAILED"
        __next=$__after
    else
        __say "Phase complete: $__name State: SUCCEEDED"
    fi
}
__phase() {
    __name=$1 __number=0 __code=0 __at=commands
    __mark "begin $1"
    __say "Entering phase $1"
    "__commands_$1"
    __end $?
}
__left() {
    set -- $?
    if [ -n "$__at" ]; then
        __end $1
        __go
    fi
    exit $__result
}
trap __left EXIT
"#;

/// The script. `mark` begins each mark and is known to nobody else.
pub(super) fn script(spec: &Buildspec, mark: &str) -> String {
    let mut text = FUNCTIONS.replace("MARK", mark);
    let names: Vec<String> = spec.phases.iter().map(|phase| phase.name.to_uppercase()).collect();
    for (phase, name) in spec.phases.iter().zip(&names) {
        functions(&mut text, phase, name);
    }
    text.push_str("__go() {\n    while :; do\n        case $__next in\n");
    for (number, (phase, name)) in spec.phases.iter().zip(&names).enumerate() {
        let then = names.get(number + 1).map_or("", String::as_str);
        let after = match phase.on_failure {
            OnFailure::Continue => then,
            OnFailure::Usual if phase.name == "build" => then,
            OnFailure::Abort | OnFailure::Usual => "",
        };
        let _ = writeln!(text, "            {name}) __then={then} __after={after} ;;");
    }
    text.push_str("            *) return ;;\n        esac\n        __phase \"$__next\"\n    done\n}\n__go\n");
    text
}

fn functions(text: &mut String, phase: &PhaseCommands, name: &str) {
    for (kind, commands) in [("commands", &phase.commands), ("finally", &phase.finally)] {
        let _ = writeln!(text, "__{kind}_{name}() {{\n    :");
        for (number, command) in commands.iter().enumerate() {
            let _ = writeln!(text, "    __run {number} {} || return", quoted(command.trim_end()));
        }
        text.push_str("}\n");
    }
}

/// A word for a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// The lines of the script, without times, and its exit code.
    fn run(yaml: &str) -> (Vec<String>, Option<i32>) {
        let script = script(&Buildspec::parse(yaml).unwrap(), "#mark ");
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let lines = said.lines().filter(|line| !line.is_empty() && !line.starts_with("[Container]"));
        (lines.map(str::to_owned).collect(), output.status.code())
    }

    #[test]
    fn all_commands_share_one_shell() {
        let yaml = "version: 0.2\nphases:\n  install:\n    commands: ['cd /usr', 'word=it']\n  build:\n    commands: ['echo \"$word''s $PWD $CODEBUILD_BUILD_SUCCEEDING\"']\n";
        let (said, code) = run(yaml);
        let marks = ["begin INSTALL", "end INSTALL 0 1", "begin PRE_BUILD", "end PRE_BUILD 0 0", "begin BUILD"];
        let expected: Vec<_> = marks.iter().map(|mark| format!("#mark {mark}")).collect();
        assert_eq!(said[..5], expected);
        assert_eq!(said[5], "it's /usr 1");
        assert_eq!((said.last().map(String::as_str), code), (Some("#mark end POST_BUILD 0 0"), Some(0)));
    }

    #[test]
    fn a_failed_build_goes_on_to_post_build_alone() {
        let yaml = |name: &str, policy: &str| {
            format!(
                "version: 0.2\nphases:\n  {name}:\n    {policy}commands: ['true', 'exit 7', 'echo no']\n    finally: ['echo last']\n  post_build:\n    commands: ['echo post $CODEBUILD_BUILD_SUCCEEDING']\n"
            )
        };
        let has = |said: &[String], line: &str| said.iter().any(|one| one == line);
        let (said, code) = run(&yaml("build", ""));
        assert!(
            has(&said, "#mark end BUILD 7 1") && has(&said, "last") && has(&said, "post 0") && !has(&said, "no"),
            "{said:?}"
        );
        assert_eq!(code, Some(1));
        let (said, _) = run(&yaml("build", "on-failure: ABORT\n    "));
        assert!(!has(&said, "post 0"), "{said:?}");
        let (said, _) = run(&yaml("install", ""));
        assert!(has(&said, "last") && !has(&said, "#mark begin PRE_BUILD") && !has(&said, "post 0"), "{said:?}");
    }
}
