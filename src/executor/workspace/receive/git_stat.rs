//! Changes git's configuration in a container, so that git sees a clean tree as clean.
//!
//! Git's index stores inode, ctime and owner of each file on the host. They differ in a container, so git would read each file again and
//! run its filters, which the image may lack. Size and modification time are transferred, and `core.checkStat = minimal` makes git
//! compare only those. So each received git configuration gets that setting; it is never sent back to the host.

use std::collections::BTreeSet;

use crate::workspace::path::split;

/// The last value in a file counts. The empty lines end an incomplete last line.
const SETTING: &[u8] = b"\n\n# Added by sagemaker-executor: inodes and ctimes of the index are those of the runner host.\n[core]\n\tcheckStat = minimal\n\ttrustctime = false\n";
/// Largest file that is treated as a git configuration.
pub(crate) const LARGEST: u64 = 4 << 20;

/// The configurations of git directories among a project's received files: of `.git` itself, of submodules and linked worktrees in it,
/// of nested repositories, and of the directories `named` by a `.git` file or link. Tracked files, such as test data, are not included.
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
            // Git also reads the second if `extensions.worktreeConfig` is set.
            b"config" | b"config.worktree" => found.push(path),
            _ => {}
        }
    }
    found.retain(|path| heads.contains(split(path).0));
    found.sort_unstable();
    found
}

/// The path in the project of the git directory named by `git`, a file with `gitdir: ...` or a link; `place` is the path in it, `project`
/// the project's absolute path.
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

/// The path in a `.git` file.
pub(crate) fn place_in(content: &[u8]) -> Option<&[u8]> {
    Some(content.strip_prefix(b"gitdir:")?.trim_ascii())
}

/// Adds the setting to the configuration; `None` when it is there already.
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
