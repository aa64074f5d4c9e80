//! Makes the text of `--version`: version, commit, profile, target, and whether the emulator is in.
//!
//! The commit is `SAGEMAKER_EXECUTOR_COMMIT`, else that of the git repository whose root this folder is, else `unknown`; with `-dirty` where
//! files of the program differ from it. The output names all files that it depends on, so Cargo calls this only after one of them changed.

use std::path::Path;
use std::process::Command;

/// Names the commit where git cannot, as in an unpacked archive: hexadecimal digits, and `-dirty` behind them.
const COMMIT: &str = "SAGEMAKER_EXECUTOR_COMMIT";
/// The files that the program is made of. Changes of others, such as tests, make no other program.
const SOURCES: [&str; 6] =
    ["src", "Cargo.toml", "Cargo.lock", ".cargo", "docs/operator.schema.json", "runner-config/iam"];
/// Digits of a commit's id that are shown.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-env-changed={COMMIT}");
    for path in SOURCES.into_iter().filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
    let commit = match variable(COMMIT).filter(|given| !given.is_empty()) {
        Some(given) => match shortened(&given) {
            Some(commit) => commit,
            None => {
                return println!(
                    "cargo::error={COMMIT} is no commit: give 7 to 64 hexadecimal digits, with -dirty behind them or not"
                );
            }
        },
        None => of_repository().unwrap_or_else(|| "unknown".to_owned()),
    };
    let or_unknown = |found: Option<String>| found.unwrap_or_else(|| "unknown".to_owned());
    let version = or_unknown(variable("CARGO_PKG_VERSION"));
    let profile = or_unknown(variable("OUT_DIR").as_deref().and_then(profile).or_else(|| variable("PROFILE")));
    let target = or_unknown(variable("TARGET"));
    let emulator = if variable("CARGO_FEATURE_EMULATOR").is_some() { "with" } else { "without" };
    println!("cargo::rustc-env=EXECUTOR_VERSION={version} (commit {commit}, {profile}, {target}, {emulator} emulator)");
}

#[expect(clippy::disallowed_methods, reason = "Cargo speaks to build scripts by variables")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The first digits of a commit's id, with what stands behind the id.
fn shortened(given: &str) -> Option<String> {
    let (id, dirty) = given.strip_suffix("-dirty").map_or((given, ""), |id| (id, "-dirty"));
    let is_id = (7..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| format!("{}{dirty}", id[..id.len().min(DIGITS)].to_ascii_lowercase()))
}

/// The profile's name of `TARGET/PROFILE/build/NAME/out`; `PROFILE` would call each profile that optimizes `release`.
fn profile(out: &str) -> Option<String> {
    let above =
        Path::new(out).ancestors().find(|path| path.file_name().is_some_and(|name| name == "build"))?.parent()?;
    Some(above.file_name()?.to_str()?.to_owned())
}

/// The commit of the repository that begins in this folder, and none of a repository around it.
fn of_repository() -> Option<String> {
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    let commit = shortened(&git(&["rev-parse", "--verify", "HEAD"])?)?;
    // A commit, or another branch, changes at least one of these.
    let mut names = vec!["HEAD".to_owned(), "logs/HEAD".to_owned(), "packed-refs".to_owned()];
    names.extend(git(&["symbolic-ref", "--quiet", "HEAD"]));
    for path in names.iter().filter_map(|name| git(&["rev-parse", "--git-path", name])) {
        // Cargo would call this each time for a file that is not there.
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let changed = git(&[&["--no-optional-locks", "status", "--porcelain", "--"], &SOURCES[..]].concat())?;
    Some(if changed.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// The output of git without white space around it; none where git is missing or fails.
fn git(arguments: &[&str]) -> Option<String> {
    let ended = Command::new("git").args(arguments).output().ok()?;
    ended.status.success().then(|| String::from_utf8_lossy(&ended.stdout).trim().to_owned())
}
