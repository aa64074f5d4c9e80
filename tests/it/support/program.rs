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
    // Those of earlier builds.
    fs::remove_dir_all(&copies).ok();
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let unfinished = folder.join(format!("unfinished-{}", std::process::id()));
    let ended = Command::new("strip").arg("-s").arg("-o").arg(&unfinished).arg(BUILT).output();
    let ended = ended.map_err(|error| format!("strip: {error}"))?;
    if !ended.status.success() {
        return Err(format!("strip: {}", String::from_utf8_lossy(&ended.stderr).trim()));
    }
    fs::rename(&unfinished, &program).map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(program)
}
