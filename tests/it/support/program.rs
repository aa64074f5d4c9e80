//! The program under test, without its symbols.
//!
//! Each scenario stores the program in a bucket and loads it into a container, so half of its bytes is a sixth of the table's time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::UNIX_EPOCH;

use super::waiting::tell;

const BUILT: &str = env!("CARGO_BIN_EXE_sagemaker-executor");

/// The stripped copy; the program as it was built where `strip` (binutils) or the right to write below `target` is missing.
pub(crate) fn executor() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        stripped().unwrap_or_else(|reason| {
            tell(&format!("the program is not stripped, so the scenarios take longer: {reason}"));
            PathBuf::from(BUILT)
        })
    });
    &PROGRAM
}

fn stripped() -> Result<PathBuf, String> {
    let built = fs::metadata(BUILT).map_err(|error| format!("{BUILT}: {error}"))?;
    let changed = built.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let copies = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stripped");
    let folder = copies.join(format!("{}-{}", built.len(), changed.as_nanos()));
    let program = folder.join("sagemaker-executor");
    if program.exists() {
        return Ok(program);
    }
    remove_others(&copies, &folder);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let unfinished = folder.join(format!("unfinished-{}", std::process::id()));
    let ended = Command::new("strip").arg("-s").arg("-o").arg(&unfinished).arg(BUILT).output();
    let ended = ended.map_err(|error| format!("strip: {error}"))?;
    if !ended.status.success() {
        return Err(format!("strip: {}", String::from_utf8_lossy(&ended.stderr).trim()));
    }
    publish(&unfinished, &program).map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(program)
}

/// Removes the copies of earlier builds. Another test process may just be making that of this one.
fn remove_others(copies: &Path, own: &Path) {
    for entry in fs::read_dir(copies).into_iter().flatten().flatten().filter(|entry| entry.path() != own) {
        fs::remove_dir_all(entry.path()).ok();
    }
}

/// Gives a whole file its name, and leaves the file of another test process that was first: programs may run from it.
fn publish(unfinished: &Path, program: &Path) -> std::io::Result<()> {
    let linked = fs::hard_link(unfinished, program);
    fs::remove_file(unfinished).ok();
    match linked {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

/// Two test processes start right after a build: the copy of the first one stays.
#[test]
fn copies_of_two_test_processes_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (folder.path().join("own"), folder.path().join("other"));
    for build in [&own, &other] {
        fs::create_dir(build).unwrap();
        fs::write(build.join("unfinished-1"), "first").unwrap();
    }
    fs::write(own.join("unfinished-2"), "second").unwrap();
    remove_others(folder.path(), &own);
    let program = own.join("sagemaker-executor");
    for unfinished in ["unfinished-1", "unfinished-2"] {
        publish(&own.join(unfinished), &program).unwrap();
    }
    assert_eq!((fs::read_to_string(&program).unwrap().as_str(), other.exists()), ("first", false));
    assert_eq!(fs::read_dir(&own).unwrap().count(), 1);
}
