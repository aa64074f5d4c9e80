//! Git's index in a container: a clean tree is clean.
//!
//! The index holds inode, ctime and owner of each file as the host had them. None of them is the same in a container, so git would read each file again
//! and run its filters, which the image may not have. Size and time of modification do travel, and `core.checkStat = minimal`
//! makes git compare those alone. So each configuration of git that arrived gets that setting. It never goes back to the host.

use std::collections::BTreeSet;

use crate::workspace::path::split;

/// Git takes the last value of a file. The lines before end whatever the file ended in the middle of.
const SETTING: &[u8] = b"\n\n# Added by sagemaker-executor: inodes and ctimes of the index are those of the runner host.\n[core]\n\tcheckStat = minimal\n\ttrustctime = false\n";
/// A configuration that is larger is none of git's.
pub(crate) const LARGEST: u64 = 4 << 20;

/// The configurations of git directories among the files of a project that arrived: of `.git` itself, of submodules and linked worktrees in
/// it, of repositories further down, and of the directories `named` by a `.git` that is a file or a link. What a project tracks, as test data, is none of these.
pub(crate) fn configurations<'p>(files: impl Iterator<Item = &'p [u8]>, named: &BTreeSet<Vec<u8>>) -> Vec<&'p [u8]> {
    let mut heads = BTreeSet::new();
    let mut found = Vec::new();
    for path in files {
        let (directory, name) = split(path);
        let is_of_git = directory.split(|&byte| byte == b'/').any(|component| component == b".git");
        if !is_of_git && !named.contains(directory) {
            continue;
        }
        match name {
            b"HEAD" => drop(heads.insert(directory)),
            // The second is read after the first where `extensions.worktreeConfig` is set.
            b"config" | b"config.worktree" => found.push(path),
            _ => {}
        }
    }
    found.retain(|path| heads.contains(split(path).0));
    found.sort_unstable();
    found
}

/// Where in the project the git directory is that `git` names, a file with `gitdir: ...` or a link: `place` is what it says, `project` the project's absolute path.
pub(crate) fn named(project: &[u8], git: &[u8], place: &[u8]) -> Option<Vec<u8>> {
    let (mut at, rest) = match place.strip_prefix(b"/") {
        Some(_) => (Vec::new(), place.strip_prefix(project)?.strip_prefix(b"/")?),
        None => (split(git).0.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).collect::<Vec<_>>(), place),
    };
    for name in rest.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(at.pop()?),
            _ => at.push(name),
        }
    }
    Some(at.join(&b'/'))
}

/// What a `.git` that is a file says.
pub(crate) fn place_in(content: &[u8]) -> Option<&[u8]> {
    Some(content.strip_prefix(b"gitdir:")?.trim_ascii())
}

/// The configuration with the setting, or `None` when it has it.
pub(crate) fn with_minimal_stat(configuration: &[u8]) -> Option<Vec<u8>> {
    (!configuration.ends_with(SETTING)).then(|| [configuration, SETTING].concat())
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test]
    fn configurations_of_git_directories_are_found_and_no_others() {
        let files: [&[u8]; 16] = [
            b"store/x/HEAD",
            b"store/x/config",
            b".git/HEAD",
            b".git/config",
            b".git/modules/a/b/config",
            b".git/modules/a/b/HEAD",
            b".git/worktrees/w/config.worktree",
            b".git/worktrees/w/HEAD",
            b".git/lfs/config",
            b"sub/.git",
            b"vendor/x/.git/HEAD",
            b"vendor/x/.git/config",
            b"config",
            b"HEAD",
            b"tests/data/repository.git/HEAD",
            b"tests/data/repository.git/config",
        ];
        let expected: [&[u8]; 5] = [
            b".git/config",
            b".git/modules/a/b/config",
            b".git/worktrees/w/config.worktree",
            b"store/x/config",
            b"vendor/x/.git/config",
        ];
        let named = [b"store/x".to_vec()].into();
        assert_eq!(configurations(files.into_iter(), &named), expected);
    }

    #[test_case(b"sub/.git", b"../store/x", Some(b"store/x"))]
    #[test_case(b".git", b"./store//x/", Some(b"store/x"); "slashes")]
    #[test_case(b"a/b/.git", b"/p/q/store", Some(b"store"); "absolute")]
    #[test_case(b"a/.git", b"../../elsewhere", None; "outside")]
    #[test_case(b".git", b"/p/qq/store", None; "a neighbor")]
    fn a_git_that_is_a_file_names_a_directory(git: &[u8], place: &[u8], expected: Option<&[u8]>) {
        assert_eq!(named(b"/p/q", git, place).as_deref(), expected);
        assert_eq!(place_in(&[b"gitdir: ", place, b"\r\n"].concat()), Some(place));
    }

    #[test]
    fn the_setting_is_added_once() {
        let once = with_minimal_stat(b"[user]\n\tname = x\\").unwrap();
        assert!(once.starts_with(b"[user]\n\tname = x\\\n\n#"));
        assert_eq!(with_minimal_stat(&once), None);
    }
}
