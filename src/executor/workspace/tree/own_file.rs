//! Writes a file of the executor at the top of the project on the host.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::Context as _;

use super::trees::Roots;
use super::walker::Walker;
use super::write;
use crate::protocol::project::Trees;

/// Writes a file at the top of the project in place of the entry of that name; a link is replaced, and never followed. `true`: there
/// was an entry that does not begin with `start`, so the executor had not written it.
///
/// # Errors
/// Fails when the entry is a directory.
pub fn write_own(trees: &Trees, name: &str, content: &[u8], start: &[u8]) -> anyhow::Result<bool> {
    let roots = Roots::open(trees)?;
    let mut walker = Walker::unlocking(roots.project()?);
    let written = replace(&mut walker, name.as_bytes(), content, start);
    walker.relock()?;
    written.with_context(|| format!("failed to write `{name}` in the project"))
}

fn replace(walker: &mut Walker, name: &[u8], content: &[u8], start: &[u8]) -> io::Result<bool> {
    let was_other = match walker.open_file(name) {
        Ok(file) => {
            let mut found = Vec::new();
            file.take(start.len() as u64).read_to_end(&mut found)?;
            found != start
        }
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    let mut file = write::open_new(walker, name, true)?;
    file.write_all(content)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    Ok(was_other)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("p");
        fs::create_dir(&project).unwrap();
        let trees = Trees { tmp: folder.path().join("p.tmp"), project: project.clone(), host: None };
        let path = project.join("x.json");
        let write = || write_own(&trees, "x.json", b"ours: 1", b"ours");
        assert!(!write().unwrap() && !write().unwrap());
        fs::write(&path, "our").unwrap();
        assert!(write().unwrap());
        let victim = folder.path().join("victim");
        fs::write(&victim, "kept").unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&victim, &path).unwrap();
        assert!(write().unwrap());
        assert_eq!(
            (fs::read_to_string(&victim).unwrap(), fs::read_to_string(&path).unwrap()),
            ("kept".into(), "ours: 1".into())
        );
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(write().is_err());
    }
}
