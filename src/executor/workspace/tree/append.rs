//! Sets the executor's variables in a dotenv file of the project on the host.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::Context as _;

use super::trees::Roots;
use super::walker::Walker;
use super::write;
use crate::protocol::project::Trees;

/// Longest content that is kept.
const MOST: u64 = 1 << 20;

/// A variable and its value; `None`: the file must not have one.
type Setting<'a> = (&'a str, Option<String>);

/// Sets variables in a file at the top of the project, behind its other lines; earlier values are removed. A link of that name is
/// replaced by a file, and never followed.
pub fn set_variables(trees: &Trees, name: &str, variables: &[Setting<'_>]) -> anyhow::Result<()> {
    let roots = Roots::open(trees)?;
    let mut walker = Walker::unlocking(roots.project()?);
    let written = write_variables(&mut walker, name.as_bytes(), variables);
    walker.relock()?;
    written.with_context(|| format!("failed to write `{name}` in the project"))
}

fn write_variables(walker: &mut Walker, name: &[u8], variables: &[Setting<'_>]) -> io::Result<()> {
    let mut found = Vec::new();
    if let Ok(file) = walker.open_file(name) {
        file.take(MOST).read_to_end(&mut found)?;
    }
    let is_other = |line: &&[u8]| !variables.iter().any(|(name, _)| sets(line, name));
    let mut content = found.split_inclusive(|byte| *byte == b'\n').filter(is_other).collect::<Vec<_>>().concat();
    if content.last().is_some_and(|last| *last != b'\n') {
        content.push(b'\n');
    }
    for (name, value) in variables {
        if let Some(value) = value {
            writeln!(content, "{name}={value}")?;
        }
    }
    let mut file = write::open_new(walker, name, true)?;
    file.write_all(&content)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

/// `true` for a line `NAME=value`, with blanks around the name as GitLab allows them.
fn sets(line: &[u8], name: &str) -> bool {
    let end = line.iter().position(|byte| *byte == b'=');
    end.and_then(|end| line.get(..end)).is_some_and(|key| key.trim_ascii() == name.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn variables_are_set_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("p");
        fs::create_dir(&project).unwrap();
        let trees = Trees { tmp: folder.path().join("p.tmp"), project: project.clone(), host: None };
        let set = || set_variables(&trees, "x.env", &[("A", Some("1".to_owned())), ("OLD", None)]);
        set().unwrap();
        fs::write(project.join("x.env"), "JOB=x").unwrap();
        set().unwrap();
        assert_eq!(fs::read_to_string(project.join("x.env")).unwrap(), "JOB=x\nA=1\n");
        fs::write(project.join("x.env"), "A=0\nOLD=x\nAB=OLD=\n OLD =y\nOLDER=z\nA=2").unwrap();
        set().unwrap();
        assert_eq!(fs::read_to_string(project.join("x.env")).unwrap(), "AB=OLD=\nOLDER=z\nA=1\n", "earlier values go");
        let victim = folder.path().join("victim");
        fs::write(&victim, "kept").unwrap();
        fs::remove_file(project.join("x.env")).unwrap();
        symlink(&victim, project.join("x.env")).unwrap();
        set().unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
        assert_eq!(fs::read_to_string(project.join("x.env")).unwrap(), "A=1\n");
        fs::remove_file(project.join("x.env")).unwrap();
        fs::create_dir(project.join("x.env")).unwrap();
        assert!(set().is_err());
    }
}
