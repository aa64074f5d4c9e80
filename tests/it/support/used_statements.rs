//! Keeps which statements of the policies of an emulator's account allowed something, in a folder that `IAM_RECORD` names, for
//! `tests/it/docs/statements.rs`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use executor::config::env::Environment;
use serde_json::{Value, json};

/// The folder of the records.
pub(crate) fn folder() -> Option<PathBuf> {
    Environment::of_process().get("IAM_RECORD").map(PathBuf::from)
}

/// Keeps the roles of the accounts, and what the emulator's own path tells of them.
pub(crate) fn record(accounts: &[PathBuf], statements: impl FnOnce() -> String) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let Some(folder) = folder() else { return };
    let read = |file: &PathBuf| serde_json::from_slice::<Value>(&std::fs::read(file).ok()?).ok();
    let accounts: Vec<_> = accounts.iter().filter_map(read).collect();
    let Ok(used) = serde_json::from_str::<Value>(&statements()) else { return };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let file = folder.join(format!("{}-{number}.json", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(file, json!({"accounts": accounts, "used": used}).to_string()).unwrap();
}

/// All records in a folder.
pub(crate) fn records(folder: &Path) -> Vec<Value> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.map(|file| serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap()).collect()
}
