//! Appends lines of the executor to a file of the project on the host.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::Context as _;

use super::trees::Roots;
use super::walker::Walker;
use super::write;
use crate::protocol::project::Trees;

/// Longest content that is kept.
const MOST: u64 = 1 << 20;

/// Appends lines to a file at the top of the project. A link of that name is replaced by a file, and never followed.
pub fn append_lines(trees: &Trees, name: &str, lines: &str) -> anyhow::Result<()> {
    let roots = Roots::open(trees)?;
    let mut walker = Walker::unlocking(roots.project()?);
    let appended = append(&mut walker, name.as_bytes(), lines);
    walker.relock()?;
    appended.with_context(|| format!("failed to write `{name}` in the project"))
}

fn append(walker: &mut Walker, name: &[u8], lines: &str) -> io::Result<()> {
    let mut content = Vec::new();
    if let Ok(file) = walker.open_file(name) {
        file.take(MOST).read_to_end(&mut content)?;
    }
    if content.last().is_some_and(|last| *last != b'\n') {
        content.push(b'\n');
    }
    content.extend_from_slice(lines.as_bytes());
    let mut file = write::open_new(walker, name, true)?;
    file.write_all(&content)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn lines_are_appended_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("p");
        fs::create_dir(&project).unwrap();
        let trees = Trees { tmp: folder.path().join("p.tmp"), project: project.clone(), host: None };
        let append = |lines: &str| append_lines(&trees, "x.env", lines);
        append("A=1\n").unwrap();
        fs::write(project.join("x.env"), "JOB=x").unwrap();
        append("A=1\n").unwrap();
        assert_eq!(fs::read_to_string(project.join("x.env")).unwrap(), "JOB=x\nA=1\n");
        let victim = folder.path().join("victim");
        fs::write(&victim, "kept").unwrap();
        fs::remove_file(project.join("x.env")).unwrap();
        symlink(&victim, project.join("x.env")).unwrap();
        append("A=1\n").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
        assert_eq!(fs::read_to_string(project.join("x.env")).unwrap(), "A=1\n");
        fs::remove_file(project.join("x.env")).unwrap();
        fs::create_dir(project.join("x.env")).unwrap();
        assert!(append("A=1\n").is_err());
    }
}
