//! Which files of a commit are packed, and what people should know about them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use flate2::read::GzDecoder;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::entry_name;
use super::git::TreeEntry;
use super::metadata::FileMode;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::lifecycle::manifest::{self, Package};

/// Largest file that is looked through for secrets.
pub(super) const LARGEST_SEARCHED: u64 = 1 << 20;
/// Most bytes of a model's files that are looked through.
const MOST_SEARCHED: u64 = 1 << 30;
/// Most files of a package.
const MOST_FILES: usize = 100_000;
/// Most names in one line.
const MOST_SHOWN: usize = 10;

/// The files to pack.
#[derive(Debug, Default)]
pub(super) struct SelectedSources {
    pub(super) files: Vec<SourceFile>,
    /// Paths and commits of submodules, which are not packed.
    pub(super) submodules: BTreeMap<String, String>,
}

/// A file of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceFile {
    /// Relative to the project's folder.
    pub(super) path: String,
    pub(super) mode: FileMode,
    pub(super) id: String,
}

/// Chooses the files by the patterns of the manifest.
///
/// # Errors
/// Failures of the user: a pattern cannot be read, no file is left, a name cannot be in a package.
pub(super) fn select(entries: Vec<TreeEntry>, package: &Package) -> Result<SelectedSources, Failure> {
    let include = globs(&package.include, "include")?;
    let exclude = globs(&package.exclude, "exclude")?;
    let mut selected = SelectedSources::default();
    for TreeEntry { mode, id, path } in entries {
        let place = Path::new(OsStr::from_bytes(&path));
        let is_included = include.is_empty() || include.is_match(place);
        if !is_included || exclude.is_match(place) {
            continue;
        }
        let refused = |why: &str| {
            let shown = plain::line(&String::from_utf8_lossy(&path), 300);
            Failure::user(format!("the file {shown} cannot be packed: it {why}"))
                .hint("rename it, or leave it out by `package.exclude` in the manifest")
        };
        let path = std::str::from_utf8(&path).map_err(|_| refused("has a name that is not UTF-8"))?.to_owned();
        if let Some(mistake) = entry_name::mistake(&path) {
            return Err(refused(mistake));
        }
        let mode = match mode.as_str() {
            "100755" => FileMode::Executable,
            "120000" => FileMode::Link,
            "160000" => {
                selected.submodules.insert(path, id);
                continue;
            }
            _ => FileMode::Plain,
        };
        selected.files.push(SourceFile { path, mode, id });
    }
    match selected.files.len() {
        0 => Err(Failure::user("the commit has no file to pack")
            .hint("commit the project's files, or change `package.include` and `package.exclude` in the manifest")),
        number if number > MOST_FILES => Err(Failure::user(format!("the commit has {number} files to pack"))
            .hint(format!("choose at most {MOST_FILES} by `package.include` and `package.exclude` in the manifest"))),
        _ => Ok(selected),
    }
}

fn globs(patterns: &[String], key: &str) -> Result<GlobSet, Failure> {
    let refused = |error: globset::Error| {
        Failure::user(format!("`package.{key}` of the manifest has a pattern that cannot be read"))
            .hint("write patterns such as `src/**` and `*.py`")
            .caused_by(error)
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).literal_separator(true).build().map_err(refused)?);
    }
    set.build().map_err(refused)
}

/// Warnings about the packed files.
#[derive(Debug, Default)]
pub(super) struct SourceWarnings {
    secrets: Vec<String>,
    pointers: Vec<String>,
}

impl SourceWarnings {
    /// Looks at a file's name, and at its content when it is small.
    pub(super) fn look(&mut self, path: &str, content: Option<&[u8]>) {
        let text = content.and_then(|content| std::str::from_utf8(content).ok());
        if is_secret_name(path) || text.is_some_and(manifest::holds_secret) {
            self.secrets.push(path.to_owned());
        }
        if text.is_some_and(|text| text.starts_with("version https://git-lfs.github.com/spec/")) {
            self.pointers.push(path.to_owned());
        }
    }

    /// Looks at the small files of a `model.tar.gz`, and leaves it at its begin. One in an unknown form is not looked at.
    pub(super) fn look_into(&mut self, mut archive: &File) -> std::io::Result<()> {
        let mut files = tar::Archive::new(GzDecoder::new(archive).take(MOST_SEARCHED));
        for mut file in files.entries().into_iter().flatten().map_while(Result::ok) {
            let name = format!("model/{}", String::from_utf8_lossy(&file.path_bytes()));
            let mut content = Vec::new();
            let is_read = file.size() <= LARGEST_SEARCHED && file.read_to_end(&mut content).is_ok();
            self.look(&name, is_read.then_some(content.as_slice()));
        }
        archive.rewind()
    }

    /// One line for each kind of warning.
    pub(super) fn lines(&self, submodules: &BTreeMap<String, String>, changed: &[String]) -> Vec<String> {
        let modules: Vec<_> = submodules.keys().cloned().collect();
        let warnings: [(&[String], &str, &str); 4] = [
            (
                &self.secrets,
                "Files that look like secrets are in the package",
                "Remove them from the project, and replace the secrets",
            ),
            (
                &self.pointers,
                "Files are pointers of Git LFS, and their contents are not in the package",
                "Keep data in the bucket, or in git itself",
            ),
            (&modules, "Submodules are not in the package", "Add their files to the project"),
            (changed, "Files differ from the commit, which is what is packed", "Commit the changes, or drop them"),
        ];
        let some = warnings.into_iter().filter(|(paths, _, _)| !paths.is_empty());
        some.map(|(paths, what, cure)| format!("{what}: {}. {cure}", names(paths))).collect()
    }
}

/// The first names, and how many more there are.
fn names(paths: &[String]) -> String {
    let mut shown: Vec<_> = paths.iter().take(MOST_SHOWN).map(|path| plain::line(path, 200)).collect();
    if paths.len() > MOST_SHOWN {
        shown.push(format!("{} more", paths.len() - MOST_SHOWN));
    }
    shown.join(", ")
}

/// Whether files of this name hold secrets by custom. Examples of them do not.
fn is_secret_name(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let is_example = ["example", "sample", "template", "dist"].iter().any(|word| name.contains(word));
    let is_key = [".pem", ".key", ".p12", ".pfx", ".keystore", ".jks"].iter().any(|end| name.ends_with(end));
    let known =
        [".env", ".netrc", ".pgpass", ".pypirc", ".git-credentials", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"];
    let of_a_tool = path.ends_with(".aws/credentials") || path.ends_with(".docker/config.json");
    !is_example && (is_key || of_a_tool || known.contains(&name.as_str()) || name.starts_with(".env."))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn entry(mode: &str, path: &str) -> TreeEntry {
        TreeEntry { mode: mode.to_owned(), id: "1".to_owned(), path: path.as_bytes().to_owned() }
    }

    fn package(include: &[&str], exclude: &[&str]) -> Package {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Package { include: texts(include), exclude: texts(exclude) }
    }

    #[test]
    fn patterns_choose_files() {
        let files = || ["a.py", "data/x.csv", "src/b.py", "src/c.txt"].map(|path| entry("100644", path)).to_vec();
        let paths = |package: &Package| {
            let selected = select(files(), package).unwrap();
            selected.files.into_iter().map(|file| file.path).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(paths(&package(&[], &[])), "a.py data/x.csv src/b.py src/c.txt");
        assert_eq!(paths(&package(&["*.py", "src/**"], &["**/*.txt"])), "a.py src/b.py");
        assert_eq!(paths(&package(&[], &["data/**"])), "a.py src/b.py src/c.txt");
        let refused = |package: &Package| select(files(), package).unwrap_err().message().to_owned();
        assert_eq!(refused(&package(&["none"], &[])), "the commit has no file to pack");
        assert!(refused(&package(&["a[", "b"], &[])).starts_with("`package.include`"));
    }

    #[test]
    fn each_kind_of_entry_is_told_apart() {
        let entries = vec![entry("100755", "run"), entry("120000", "link"), entry("160000", "sub")];
        let selected = select(entries, &Package::default()).unwrap();
        let modes: Vec<_> = selected.files.iter().map(|file| file.mode).collect();
        assert_eq!(modes, [FileMode::Executable, FileMode::Link]);
        assert_eq!(selected.submodules.keys().collect::<Vec<_>>(), ["sub"]);
    }

    #[test]
    fn names_that_no_package_can_have_are_refused() {
        for path in [&b"../x"[..], b"a\\b", b"\xff", b"a\nb"] {
            let entries = vec![TreeEntry { path: path.to_owned(), ..entry("100644", "") }, entry("100644", "a")];
            let failure = select(entries, &Package::default()).unwrap_err();
            assert!(failure.message().contains("cannot be packed: it has"), "{failure}");
        }
    }

    #[test_case(".env" => true)]
    #[test_case("a/.env.production" => true)]
    #[test_case(".env.example" => false)]
    #[test_case("certs/server.key" => true)]
    #[test_case("home/.aws/credentials" => true)]
    #[test_case("environment.py" => false)]
    #[test_case("keys.py" => false)]
    fn a_name_tells_a_secret(path: &str) -> bool {
        is_secret_name(path)
    }

    #[test]
    fn warnings_name_the_files_and_the_cure() {
        let mut warnings = SourceWarnings::default();
        warnings.look("a.py", Some(b"token = 'glpat-0123456789abcdefghij'"));
        warnings.look("w.bin", Some(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"));
        warnings.look("large", None);
        let mut model = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        for (name, text) in [("weights", "1"), ("config.json", "{\"key\": \"glpat-0123456789abcdefghij\"}")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            model.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        for archive in [model.into_inner().unwrap().finish().unwrap(), b"no archive".to_vec()] {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, &archive).unwrap();
            file.rewind().unwrap();
            warnings.look_into(&file).unwrap();
            assert_eq!(file.stream_position().unwrap(), 0);
        }
        let changed: Vec<_> = (0..12).map(|number| format!("f{number}")).collect();
        let lines = warnings.lines(&BTreeMap::from([("sub".to_owned(), "1".to_owned())]), &changed);
        insta::assert_snapshot!(lines.join("\n"), @r"
        Files that look like secrets are in the package: a.py, model/config.json. Remove them from the project, and replace the secrets
        Files are pointers of Git LFS, and their contents are not in the package: w.bin. Keep data in the bucket, or in git itself
        Submodules are not in the package: sub. Add their files to the project
        Files differ from the commit, which is what is packed: f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, 2 more. Commit the changes, or drop them
        ");
    }
}
