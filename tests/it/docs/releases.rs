//! Releases of this project: the text of `--version` and the build script that makes it, the notes of a version, and the upload to
//! GitLab's package registry. `tests/it/templates/own_pipeline.rs` has the pipeline that calls them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use regex::Regex;

use super::{read, root};
use crate::conformance::{shown, skipped};
use crate::support::gitlab_api::{GitLabDouble, JOB_TOKEN};
use crate::support::program::executor;
use crate::support::waiting::{find_program, search_path};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn version(words: &[&str]) -> String {
    let ended = Command::new(executor()).args(words).output().unwrap();
    assert!(ended.status.success(), "{}", shown(&ended));
    String::from_utf8(ended.stdout).unwrap()
}

/// A report of a fault needs one line, and scripts compare the short one.
#[test]
fn the_version_tells_what_the_program_was_built_of() {
    let form = format!(
        r"^sagemaker-executor {} \(commit (unknown|[0-9a-f]{{12}}(-dirty)?), [a-z]+, [a-z0-9_]+(-[a-z0-9_]+)+, with emulator\)\n$",
        regex::escape(VERSION)
    );
    let told = version(&["--version"]);
    assert!(Regex::new(&form).unwrap().is_match(&told), "{told}");
    assert!(!told.contains("unknown, "), "profile and target are known: {told}");
    assert_eq!(version(&["-V"]), format!("sagemaker-executor {VERSION}\n"));
    assert_eq!(version(&["prepare", "--version"]), told.replacen("executor ", "executor-prepare ", 1));
}

/// The build script, compiled by itself, in a folder of its own.
struct Build {
    folder: tempfile::TempDir,
}

impl Build {
    fn new() -> Self {
        let build = Self { folder: tempfile::tempdir().unwrap() };
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition=2024", "-o"]).arg(build.path("script")).arg(root().join("src/build.rs"));
        let compiled = rustc.output().unwrap();
        assert!(compiled.status.success(), "{}", shown(&compiled));
        for (file, text) in
            [("src/main.rs", "1"), ("docs/page.md", "1"), ("Cargo.toml", "1"), (".gitignore", "target\n")]
        {
            build.write(file, text);
        }
        build
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path("project").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn git(&self, words: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=x", "-c", "user.email=x@example.com"]).args(words).current_dir(self.path("project"));
        let ended = git.env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
        assert!(ended.status.success(), "{words:?}: {}", shown(&ended));
        String::from_utf8(ended.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "x"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Lines for Cargo of a build in `project/below`, with these variables besides Cargo's.
    fn run(&self, below: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let folder = self.path("project").join(below);
        let mut script = Command::new(self.path("script"));
        script.current_dir(&folder).env_clear().env("PATH", search_path()).envs([
            ("CARGO_PKG_VERSION", "1.2.3"),
            ("TARGET", "riscv64gc-unknown-linux-gnu"),
            ("PROFILE", "release"),
            ("OUT_DIR", "/x/target/perf/build/sagemaker-executor-1/out"),
        ]);
        let ended = script.envs(variables.iter().copied()).output().unwrap();
        assert!(ended.status.success(), "{}", shown(&ended));
        let lines: Vec<_> = String::from_utf8(ended.stdout).unwrap().lines().map(str::to_owned).collect();
        // Cargo builds all again, each time, for a file that is not there.
        for path in lines.iter().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed=")) {
            assert!(folder.join(path).exists(), "{path}");
        }
        lines
    }

    /// The commit in the text of the version.
    #[track_caller]
    fn commit_of(&self, below: &str, variables: &[(&str, &str)]) -> String {
        let lines = self.run(below, variables);
        let of = "cargo::rustc-env=EXECUTOR_VERSION=1.2.3 (commit ";
        let text = lines.iter().find_map(|line| line.strip_prefix(of)).unwrap_or_else(|| panic!("{lines:?}"));
        text.split_once(", perf, riscv64gc-unknown-linux-gnu, without emulator)").unwrap().0.to_owned()
    }
}

#[test]
fn the_build_script_names_the_commit() {
    let build = Build::new();
    let of = |below: &str, variables: &[(&str, &str)]| build.commit_of(below, variables);
    assert_eq!(of("", &[]), "unknown", "an unpacked archive");
    build.git(&["init", "--quiet"]);
    assert_eq!(of("", &[]), "unknown", "a repository without a commit");
    let first = build.commit();
    assert_eq!(of("", &[]), first[..12]);
    for (file, differs) in
        [("docs/page.md", false), ("target/file", false), ("src/new.rs", true), ("src/main.rs", true)]
    {
        build.write(file, "2");
        assert_eq!(of("", &[]), format!("{}{}", &first[..12], if differs { "-dirty" } else { "" }), "{file}");
        build.git(&["checkout", "--quiet", "."]);
        build.git(&["clean", "--quiet", "--force", "-d"]);
    }
    assert_eq!(of("src", &[]), "unknown", "a package in the repository of another project");
    assert_eq!(of("", &[("PATH", "/nowhere")]), "unknown", "a machine without git");
    let given = |text: &str| of("", &[("SAGEMAKER_EXECUTOR_COMMIT", text)]);
    assert_eq!(given("0123456789ABCDEF0123456789abcdef01234567"), "0123456789ab");
    assert_eq!(given("01234567-dirty"), "01234567-dirty");
    assert_eq!(given(""), first[..12], "an empty variable is none");
    for wrong in ["main", "v1.0.0", "0123456789ab\nx", "-dirty"] {
        let lines = build.run("", &[("SAGEMAKER_EXECUTOR_COMMIT", wrong)]);
        assert!(
            lines.iter().any(|line| line.starts_with("cargo::error=SAGEMAKER_EXECUTOR_COMMIT is no commit")),
            "{lines:?}"
        );
        assert!(!lines.iter().any(|line| line.contains("EXECUTOR_VERSION")), "{lines:?}");
    }
    let full = build.run("", &[("CARGO_FEATURE_EMULATOR", "1")]).join("\n");
    assert!(full.contains(", with emulator)"), "{full}");
}

/// Cargo calls the script again after a commit, and after a change of the program; not after one of the tests.
#[test]
fn the_build_script_names_what_changes_with_a_commit() {
    let build = Build::new();
    build.git(&["init", "--quiet", "--initial-branch", "main"]);
    build.commit();
    // As in a fresh clone: the branch is in the packed references alone.
    build.git(&["pack-refs", "--all"]);
    let content = |build: &Build| {
        let lines = build.run("", &[]);
        let watched = lines.iter().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed="));
        let content = |path: &str| std::fs::read(build.path("project").join(path)).unwrap_or_default();
        watched.map(|path| (path.to_owned(), content(path))).collect::<Vec<_>>()
    };
    let before = content(&build);
    assert!(before.iter().any(|(path, _)| path == "src") && !before.iter().any(|(path, _)| path.starts_with("tests")));
    assert_eq!(before, content(&build));
    build.write("docs/page.md", "2");
    build.commit();
    let changed = before
        .iter()
        .filter(|(path, then)| std::fs::read(build.path("project").join(path)).is_ok_and(|now| now != *then));
    assert!(changed.count() > 0, "{before:?}");
}

/// A folder with one of the project's scripts, and files beside it.
fn with_script(name: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put(name, &read(name));
    for (file, text) in files {
        put(file, text);
    }
    folder
}

fn run(folder: &Path, words: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut script = Command::new("sh");
    script.args(words).current_dir(folder).env_clear().env("PATH", search_path());
    script.envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn notes_are_those_of_the_version_of_the_tag() {
    let changes = "# Changelog\n\n## Unreleased\n\n- Next.\n\n## 1.2.3 (2026-12-01)\n\n- This.\n\n## 1.2.30\n\n- Other.\n\n## 1.2.2\n";
    let package = |version: &str| format!("[workspace.package]\nversion = \"{version}\"\n\n[package]\nname = \"x\"\n");
    let notes = |version: &str, tag: &str| {
        let folder = with_script(".ci/notes", &[("CHANGELOG.md", changes), ("Cargo.toml", &package(version))]);
        run(folder.path(), &[".ci/notes", tag], &[])
    };
    let ended = notes("1.2.3", "v1.2.3");
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "\n- This.\n", "{}", shown(&ended));
    for (version, tag, hint) in
        [("1.2.3", "v1.2.4", "Cargo.toml"), ("1.2.2", "v1.2.2", "CHANGELOG.md"), ("2.0.0", "v2.0.0", "CHANGELOG.md")]
    {
        let ended = notes(version, tag);
        assert_eq!((ended.status.code(), ended.stdout.len()), (Some(1), 0), "{version}, {tag}");
        assert!(shown(&ended).contains(hint), "{}", shown(&ended));
    }
    // The project's own files have the form that the script reads.
    let ended = run(root(), &[".ci/notes", "v0.0.0"], &[]);
    assert!(shown(&ended).contains(&format!("is not v{VERSION}")), "{}", shown(&ended));
}

#[test]
fn files_of_a_version_are_published_once() {
    if find_program("curl").is_none() {
        return skipped("the upload of packages", "no curl");
    }
    let gitlab = GitLabDouble::start();
    let api = gitlab.variables();
    let folder = with_script(".ci/publish", &[("target/package/a.deb", "one"), ("target/package/build/left-out", "x")]);
    let publish = |token: &str| {
        let sums = "(cd target/package && sha256sum *.deb >SHA256SUMS); exec sh .ci/publish 1.2.3";
        let mut variables: Vec<_> = api.iter().map(|(name, value)| (*name, value.as_str())).collect();
        variables.push(("CI_JOB_TOKEN", token));
        run(folder.path(), &["-c", sums], &variables)
    };
    let places = || gitlab.files().into_iter().map(|file| file.place).collect::<Vec<_>>();
    let refused = publish("no-token");
    assert!(!refused.status.success() && shown(&refused).contains("job token"), "{}", shown(&refused));
    assert!(!shown(&refused).contains("no-token") && places().is_empty(), "{}", shown(&refused));
    let expected = ["SHA256SUMS", "a.deb"].map(|name| format!("sagemaker-executor/1.2.3/{name}"));
    for has_object_storage in [false, false, true] {
        gitlab.change(|settings| settings.has_object_storage = has_object_storage);
        let ended = publish(JOB_TOKEN);
        assert!(ended.status.success(), "{}", shown(&ended));
        assert_eq!(places(), expected);
    }
    std::fs::write(folder.path().join("target/package/a.deb"), "two").unwrap();
    let ended = publish(JOB_TOKEN);
    assert!(!ended.status.success() && shown(&ended).contains("other bytes"), "{}", shown(&ended));
    assert_eq!(places(), expected, "nobody's download changes");
    std::fs::write(folder.path().join("target/package/a.deb"), "one").unwrap();
    // A job that signs again makes another signature.
    for signature in ["first", "second"] {
        std::fs::write(folder.path().join("target/package/SHA256SUMS.sigstore.json"), signature).unwrap();
        let ended = publish(JOB_TOKEN);
        assert!(ended.status.success(), "{}", shown(&ended));
    }
    let signatures: Vec<_> = gitlab.files().into_iter().filter(|file| file.place.ends_with(".sigstore.json")).collect();
    assert_eq!(signatures.iter().map(|file| &file.content[..]).collect::<Vec<_>>(), [b"first"]);
    let expected = places();
    // A file that is not the one of the sums goes nowhere.
    std::fs::write(folder.path().join("target/package/SHA256SUMS"), format!("{}  a.deb\n", "0".repeat(64))).unwrap();
    let mut variables: Vec<_> = api.iter().map(|(name, value)| (*name, value.as_str())).collect();
    variables.push(("CI_JOB_TOKEN", JOB_TOKEN));
    let ended = run(folder.path(), &[".ci/publish", "1.2.4"], &variables);
    assert!(!ended.status.success() && places() == expected, "{}", shown(&ended));
}
