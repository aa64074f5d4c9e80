//! Checks of the owners of files that decide what jobs may do, and of the folders above them: nobody but root may replace such a file.

use std::path::Path;

use super::machine::HostMachine;
use super::report::CheckVerdict;
use super::service::RunnerService;

/// Permission to write for everybody.
const FOR_ALL: u32 = 0o002;
/// In a directory with this bit nobody removes or renames the files of others.
const STICKY: u32 = 0o1000;

/// A user besides root who can change or replace a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OtherOwner {
    pub(super) verdict: CheckVerdict,
    pub(super) text: String,
    pub(super) change: String,
}

/// Other users who can change a file or put another in its place. Modes of the file itself are not looked at. Without a service nobody knows the
/// runner's user, so owners are compared with nothing; a user whose number is unknown may be any of them.
pub(super) fn of(machine: &dyn HostMachine, service: &RunnerService, path: &Path) -> Option<OtherOwner> {
    let resolved = machine.resolve(path);
    let mut folders: Vec<&Path> = path.ancestors().skip(1).chain(resolved.ancestors().skip(1)).collect();
    folders.sort_unstable();
    folders.dedup();
    let look = |at| Some((at, machine.look(at).ok()?));
    let folders: Vec<_> = folders.into_iter().filter_map(look).collect();
    let is_open = |mode: u32| mode & FOR_ALL != 0 && mode & STICKY == 0;
    if let Some((folder, _)) = folders.iter().find(|(_, sight)| is_open(sight.mode)) {
        let folder = folder.display();
        return Some(OtherOwner {
            verdict: CheckVerdict::Failure,
            text: format!("every user of the host can replace {}: all may write {folder}", path.display()),
            change: format!("type `chmod o-w {folder}`"),
        });
    }
    if !service.is_loaded {
        return None;
    }
    let others = look(path).into_iter().chain(folders).filter(|(_, sight)| sight.owner != 0);
    let others: Vec<_> = others.map(|(at, sight)| (at.display().to_string(), sight.owner)).collect();
    if let Some((at, _)) = others.iter().find(|(_, owner)| Some(*owner) == service.user_id) {
        return Some(OtherOwner {
            verdict: CheckVerdict::Failure,
            text: format!("{at} belongs to {}, the runner's user, as whom the host stages of jobs run", service.user),
            change: format!("type `chown root: {at}`"),
        });
    }
    let (at, owner) = others.first()?;
    let perhaps = match service.user_id {
        Some(_) => String::new(),
        None => format!(", and may be {}, the runner's user, whose number is not known", service.user),
    };
    Some(OtherOwner {
        verdict: CheckVerdict::Warning,
        text: format!("{at} belongs to the user {owner}, who so decides what jobs may do{perhaps}"),
        change: format!("type `chown root: {at}`"),
    })
}
