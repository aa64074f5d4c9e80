//! The same job under GitLab Runner's own shell executor and under a driver: the script's output must be the same bytes, in
//! `script` and in `after_script`.

use crate::support::driver::{self, Driver};
use crate::support::job::{Job, Variable};
use crate::support::outcome::Outcome;
use crate::support::waiting::enter_gate;
use crate::support::world::{Executor, Runner, Settings, World};

/// Lines whose output is easily damaged on the way. None of them shows a path or a time.
const LINES: [&str; 16] = [
    "echo BEGIN",
    "printf 'tab\\there\\r\\rover\\n\\n\\n  indented\\n\\ttabbed\\n'",
    "printf '\\033[31mred\\033[0m\\033[K\\n'",
    "printf 'progress %d%%\\r' 1 2 3; echo",
    "printf '%s\\n' \"$AWKWARD\" \"${#AWKWARD}\"",
    "printf 'ü 😀 \\342\\202\\254 #011 #033 \\\\n %%s\\n'",
    "seq 1 3000",
    "head -c 20000 /dev/zero | tr '\\0' x; echo",
    "if true; then\n  echo inside\n  echo 'of if'\nfi",
    "",
    "cat <<'EOT'\n$not_expanded `nor this`\nEOT",
    "printf '%s|' \"$PERCENT\" \"$EMPTY\" \"$EXPANDED\" \"$QUOTES\"; echo",
    "printf '%s' \"$LARGE\" | cksum; echo ${#LARGE}",
    "cat \"$FILE\"; wc -c < \"$FILE\"; case $FILE in \"$CI_PROJECT_DIR.tmp/FILE\") echo as-a-file;; esac",
    "printf '%s\\n' \"$(printenv EMOJI)\" | od -c | head -3",
    "echo END",
];

fn job() -> Job {
    Job::new()
        // The locale is the image's own matter, so that the job has to say which one it counts characters in.
        .set("LC_ALL", "C.UTF-8")
        // Without it, redraws of a line are left out.
        .set("SAGEMAKER_PROGRESS_RATE", "0")
        .variable(Variable::new("PERCENT", "100%d %s %% %n").raw())
        .variable(Variable::new("EMPTY", ""))
        .variable(Variable::new("BASE", "base"))
        .variable(Variable::new("EXPANDED", "<$BASE> <${BASE}> $$ $NOT_SET"))
        .variable(Variable::new("QUOTES", "'\"'\"\\'\\\"\n\t`$(echo no)`").raw())
        .variable(Variable::new("EMOJI", "😀 \u{1f1e9}\u{1f1ea} e\u{301}").raw())
        .variable(Variable::new("LARGE", &"0123456789 '\"$%\\\n😀é".repeat(65_536 / 22)).raw())
        .variable(Variable::new("FILE", "first: 'line' $BASE\nsecond\r\n\n  last 😀").file().raw())
        .variable(Variable::new("AWKWARD", "a 'b' \"c\" $d `e` \\f \n g * ? ~ ü 😀").raw())
        .script(LINES)
        .after_script(LINES)
}

/// Plays the job twice with the real runner and compares; says so when there is none.
fn compare(driver: &Driver) {
    let Some(runner) = Runner::real() else {
        crate::support::waiting::tell("SKIPPED: comparison with the shell executor: no gitlab-runner on PATH");
        return;
    };
    let _place = enter_gate();
    let play = |executor| {
        let settings = Settings { executor, ..Settings::default() };
        World::new(runner.clone(), driver.clone(), settings).run(&job())
    };
    let (shell, custom) = (play(Executor::Shell), play(Executor::Custom));
    shell.succeeded();
    custom.succeeded();
    for stage in ["step_script", "after_script"] {
        let (expected, found) = (written(&shell, stage), written(&custom, stage));
        assert!(expected.len() > 30_000, "the comparison compares nothing\n{shell}");
        if expected != found {
            let at = expected.iter().zip(&found).position(|(a, b)| a != b).unwrap_or(expected.len().min(found.len()));
            let around = |bytes: &[u8]| {
                let part = bytes.get(at.saturating_sub(40)..bytes.len().min(at + 40)).unwrap_or_default();
                part.escape_ascii().to_string()
            };
            panic!("{stage} differs at byte {at}:\n  shell  {}\n  driver {}", around(&expected), around(&found));
        }
    }
}

/// What a stage's lines wrote, from the marker at their start to the one at their end.
fn written(outcome: &Outcome, stage: &str) -> Vec<u8> {
    let section = Outcome::new(outcome.id, outcome.section(stage), None);
    section.between("BEGIN", "END").to_vec()
}

#[test]
fn sagemaker_executor_writes_what_the_shell_executor_writes() {
    compare(&driver::sagemaker());
}

#[test]
fn reference_driver_writes_what_the_shell_executor_writes() {
    compare(&driver::reference());
}
