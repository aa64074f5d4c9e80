//! Sources of real git repositories.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use super::*;
use crate::base::failure::render;

const LIMITS: SourceLimits = SourceLimits { bytes: 1 << 20, files: 100 };

/// A repository with a plain file, a program, a link and a file in a folder.
struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        fs::write(folder.path().join("src/run.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(folder.path().join("src/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("src/run.sh", folder.path().join("run")).unwrap();
        let project = Self(folder);
        project.git(&["init", "--quiet"]);
        project.git(&["add", "."]);
        project
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn git(&self, arguments: &[&str]) {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.path()).args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn read_with(&self, limits: SourceLimits) -> anyhow::Result<ProjectSource> {
        let path = std::env::var_os("PATH").unwrap();
        ProjectSource::read(self.path(), &Environment::from_pairs([("PATH".into(), path)]), limits)
    }

    fn read(&self) -> ProjectSource {
        self.read_with(LIMITS).unwrap()
    }
}

/// Names and modes of a zip's entries.
fn entries(packed: &PackedSource) -> Vec<(String, u32)> {
    let mut zip = zip::ZipArchive::new(packed.file.reopen().unwrap()).unwrap();
    (0..zip.len())
        .map(|number| {
            let entry = zip.by_index(number).unwrap();
            (entry.enclosed_name().unwrap().to_string_lossy().into_owned(), entry.unix_mode().unwrap())
        })
        .collect()
}

#[test]
fn the_zip_has_what_git_tracks_with_modes_and_links_in_one_order() {
    let project = Project::new();
    fs::write(project.path().join("untracked"), "no").unwrap();
    let source = project.read();
    let packed = source.pack().unwrap();
    let expected = [("Dockerfile", 0o100_644), ("run", 0o120_777), ("src/run.sh", 0o100_755)];
    assert_eq!(entries(&packed), expected.map(|(name, mode)| (name.to_owned(), mode)));
    assert!(source.has("src/run.sh") && !source.has("untracked") && !source.has("src"));
}

#[test]
fn two_clones_of_the_same_files_give_the_same_bytes() {
    let (one, other) = (Project::new(), Project::new());
    fs::set_permissions(other.path().join("Dockerfile"), fs::Permissions::from_mode(0o600)).unwrap();
    let (one, other) = (one.read(), other.read());
    assert_eq!(one.sha256(), other.sha256());
    assert_eq!(one.pack().unwrap().sha256, other.pack().unwrap().sha256);
    let changed = Project::new();
    fs::write(changed.path().join("Dockerfile"), "FROM scratch \n").unwrap();
    assert_ne!(changed.read().sha256(), one.sha256());
    changed.git(&["update-index", "--chmod=+x", "Dockerfile"]);
    fs::write(changed.path().join("Dockerfile"), "FROM scratch\n").unwrap();
    assert_ne!(changed.read().sha256(), one.sha256(), "the mode counts");
}

#[test]
fn a_file_that_changes_while_it_is_packed_is_found() {
    let project = Project::new();
    let source = project.read();
    fs::write(project.path().join("Dockerfile"), "FROM other\n").unwrap();
    assert!(render(&source.pack().unwrap_err()).contains("changed while they were packed"));
}

#[test]
fn submodules_and_pointers_of_large_files_are_told() {
    let project = Project::new();
    fs::write(project.path().join("model.bin"), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        .unwrap();
    project.git(&["add", "."]);
    let id = "0123456789012345678901234567890123456789";
    project.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{id},vendor/lib")]);
    let source = project.read();
    assert_eq!(source.warnings.len(), 2, "{:?}", source.warnings);
    assert!(source.warnings[0].contains("1 submodule is left out: vendor/lib"), "{:?}", source.warnings);
    assert!(source.warnings[1].contains("model.bin"), "{:?}", source.warnings);
    assert!(!source.has("vendor/lib"));
}

#[test]
fn what_cannot_be_sent_is_refused_with_what_to_change() {
    let refused = |project: &Project, limits: SourceLimits, part: &str| {
        let said = render(&project.read_with(limits).unwrap_err());
        assert!(said.contains(part) && said.contains("hint:"), "{said}");
    };
    let project = Project::new();
    refused(&project, SourceLimits { files: 2, ..LIMITS }, "image.context_limit_files");
    refused(&project, SourceLimits { bytes: 20, ..LIMITS }, "image.context_limit_mb");
    fs::remove_file(project.path().join("Dockerfile")).unwrap();
    refused(&project, LIMITS, "git tracks Dockerfile, and it cannot be read");
    symlink("/etc/passwd", project.path().join("Dockerfile")).unwrap();
    refused(&project, LIMITS, "git tracks Dockerfile, and it cannot be read");
    let moved = Project::new();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(moved.path().join("src"), elsewhere.path().join("src")).unwrap();
    symlink(elsewhere.path().join("src"), moved.path().join("src")).unwrap();
    refused(&moved, LIMITS, "git tracks src/run.sh, and it cannot be read");
    let empty = Project(tempfile::tempdir().unwrap());
    refused(&empty, LIMITS, "git cannot read the project");
    empty.git(&["init", "--quiet"]);
    refused(&empty, LIMITS, "git tracks no file");
}
