//! Reads a commit through `git`, of a repository that may be hostile.
//!
//! Only commands that read objects are used, and the commit is resolved once: a branch or tag that moves meanwhile changes nothing. No
//! filter, hook, monitor or signature program of the repository's configuration is started, and nothing is fetched.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Read as _, Take, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context as _;

use crate::base::failure::Failure;
use crate::base::plain;
use crate::config::env::Environment;

/// Most commits in the release notes.
pub(super) const MOST_NOTED: usize = 100;
/// Settings by which a repository could start a program, or tell of another history than that of its commits.
const SETTINGS: [&str; 14] = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "log.showSignature=false",
    "-c",
    "safe.directory=*",
    "-c",
    "core.pager=cat",
    "-c",
    "i18n.logOutputEncoding=UTF-8",
    "-c",
    "core.commitGraph=false",
];

/// A repository, seen from the project's folder.
#[derive(Debug)]
pub(crate) struct Repository {
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
}

/// The commit that is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PackedCommit {
    /// All hexadecimal digits.
    pub(super) id: String,
    /// When it was made.
    pub(super) seconds: u64,
}

/// An entry of a commit's tree, below the project's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TreeEntry {
    /// `100644`, `100755`, `120000` (a link) or `160000` (a submodule).
    pub(super) mode: String,
    pub(super) id: String,
    pub(super) path: Vec<u8>,
}

/// An entry of git's index, below the project's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// As in [`TreeEntry`].
    pub(crate) mode: String,
    /// `0`, unless a merge left a conflict.
    pub(crate) stage: String,
    pub(crate) path: Vec<u8>,
}

/// The commits that release notes tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NotedCommits {
    /// The commit since which they are; the newest of all without one.
    pub(super) since: Option<String>,
    /// Id and subject, newest first.
    pub(super) commits: Vec<(String, String)>,
    /// All of them, also those that are not listed.
    pub(super) number: usize,
    /// The clone lacks older commits, so that only the packed one is told: another clone may have others.
    pub(super) is_shallow: bool,
}

impl Repository {
    pub(crate) fn of(folder: &Path, env: &Environment) -> Self {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        // The user's own configuration tells which repositories of others may be read.
        let own = ["HOME", "XDG_CONFIG_HOME"].into_iter().filter_map(|name| Some((name, env.get(name)?.to_owned())));
        let fixed = [
            ("LC_ALL", "C"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_GRAFT_FILE", "/dev/null"),
            ("GIT_ALLOW_PROTOCOL", ""),
            ("GIT_TERMINAL_PROMPT", "0"),
        ];
        let fixed = fixed.map(|(name, value)| (name, value.to_owned()));
        let path = ("PATH", env.path().to_owned());
        Self { folder: folder.to_owned(), environment: own.chain(fixed).chain([path]).collect() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.folder).arg("--no-pager").args(SETTINGS).args(arguments);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        self.output_of(self.command(arguments))
    }

    fn output_of(&self, mut command: Command) -> anyhow::Result<Vec<u8>> {
        let output = command.output().map_err(not_started)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = plain::line(&String::from_utf8_lossy(&output.stderr), 500);
        let failure = Failure::user(format!("git cannot read the project in {}: {said}", self.folder.display()));
        Err(failure
            .hint("run the command in a clone of the project with the commit: a package is made from git")
            .into())
    }

    fn text(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&self.output(arguments)?).trim_end().to_owned())
    }

    /// The commit that is checked out.
    ///
    /// # Errors
    /// The folder is in no repository, or there is no commit.
    pub(super) fn head(&self) -> anyhow::Result<PackedCommit> {
        let id = self.text(&["rev-parse", "--verify", "HEAD^{commit}"])?;
        let seconds = self.text(&["show", "--no-patch", "--no-show-signature", "--format=%ct", &id])?;
        let seconds = seconds.lines().next().and_then(|line| line.parse().ok()).unwrap_or_default();
        Ok(PackedCommit { id, seconds })
    }

    /// The commit's files below the project's folder, by path.
    pub(super) fn tree(&self, commit: &str) -> anyhow::Result<Vec<TreeEntry>> {
        let listed = self.output(&["ls-tree", "-r", "-z", commit])?;
        let mut entries = Vec::new();
        for line in listed.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            entries.push(TreeEntry::parse(line).context("git listed a file in an unknown form")?);
        }
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(entries)
    }

    /// The files below the project's folder that git tracks, as its index has them.
    ///
    /// # Errors
    /// The folder is in no repository.
    pub(crate) fn tracked(&self) -> anyhow::Result<Vec<IndexEntry>> {
        let listed = self.output(&["ls-files", "--stage", "-z"])?;
        let lines = listed.split(|byte| *byte == 0).filter(|line| !line.is_empty());
        lines.map(|line| IndexEntry::parse(line).context("git listed a file in an unknown form")).collect()
    }

    /// Paths of files that differ from the commit.
    pub(super) fn changed(&self) -> anyhow::Result<Vec<String>> {
        // Filters would be started to compare files: they are replaced by none.
        let mut filters = self.command(&["config", "-z", "--name-only", "--get-regexp", r"^filter\."]);
        let filters = filters.output().map_err(not_started)?.stdout;
        let filters: Vec<_> = filters.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        let mut status = self.command(&[
            "status",
            "--porcelain",
            "-z",
            "--untracked-files=no",
            "--ignore-submodules=all",
            "--no-renames",
            ".",
        ]);
        status.env("GIT_CONFIG_COUNT", filters.len().to_string());
        for (number, name) in filters.into_iter().enumerate() {
            let value = if name.ends_with(b".required") { "false" } else { "" };
            status.env(format!("GIT_CONFIG_KEY_{number}"), OsStr::from_bytes(name));
            status.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        let listed = self.output_of(status)?;
        let entries = listed.split(|byte| *byte == 0).filter_map(|entry| entry.get(3..));
        Ok(entries.map(|path| String::from_utf8_lossy(path).into_owned()).collect())
    }

    /// The commits since `base`, if it is before the packed one. Tags are not asked: they may come between two runs of a job.
    pub(super) fn noted(&self, commit: &str, base: Option<&str>) -> anyhow::Result<NotedCommits> {
        let is_shallow = self.text(&["rev-parse", "--is-shallow-repository"])? == "true";
        if is_shallow {
            let commits = self.log(&["--max-count=1", commit])?;
            return Ok(NotedCommits { number: commits.len(), commits, is_shallow, since: None });
        }
        let since = match base {
            Some(base) if self.is_before(base, commit)? => Some(base.to_owned()),
            _ => None,
        };
        let range = since.as_ref().map_or_else(|| commit.to_owned(), |since| format!("{since}..{commit}"));
        let number = self.text(&["rev-list", "--count", &range])?;
        let most = format!("--max-count={MOST_NOTED}");
        let commits = self.log(&[&most, &range])?;
        Ok(NotedCommits { since, commits, number: number.parse().unwrap_or_default(), is_shallow })
    }

    /// Whether a commit is one of those before another; no, when the clone does not have it.
    fn is_before(&self, earlier: &str, commit: &str) -> anyhow::Result<bool> {
        let status = self.command(&["merge-base", "--is-ancestor", earlier, commit]).stderr(Stdio::null()).status();
        Ok(status.map_err(not_started)?.success() && earlier != commit)
    }

    fn log(&self, arguments: &[&str]) -> anyhow::Result<Vec<(String, String)>> {
        let base =
            ["log", "-z", "--no-show-signature", "--no-mailmap", "--no-decorate", "--topo-order", "--format=%H %s"];
        let text = self.output(&[&base[..], arguments].concat())?;
        let lines = text.split(|byte| *byte == 0).filter(|line| !line.is_empty());
        let lines = lines.map(|line| String::from_utf8_lossy(line).into_owned());
        Ok(lines
            .filter_map(|line| line.split_once(' ').map(|(id, subject)| (id.to_owned(), subject.to_owned())))
            .collect())
    }

    /// Reads the contents of files, one after the other.
    pub(super) fn contents(&self) -> anyhow::Result<FileContents> {
        let mut command = self.command(&["cat-file", "--batch"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(not_started)?;
        let (Some(asking), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            anyhow::bail!("git has no pipes");
        };
        Ok(FileContents {
            _child: Ended(child),
            asking: Some(asking),
            answers: BufReader::with_capacity(64 << 10, answers),
        })
    }
}

fn not_started(error: io::Error) -> anyhow::Error {
    Failure::user("`git` cannot be started")
        .hint("use an image with git: a package is made from git")
        .caused_by(error)
        .into()
}

impl TreeEntry {
    /// `100644 blob ID\tPATH`
    fn parse(line: &[u8]) -> Option<Self> {
        let at = line.iter().position(|byte| *byte == b'\t')?;
        let (head, path) = line.split_at_checked(at)?;
        let mut parts = std::str::from_utf8(head).ok()?.split(' ');
        let (mode, _, id) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { mode: mode.to_owned(), id: id.to_owned(), path: path.get(1..)?.to_owned() })
    }
}

impl IndexEntry {
    /// `100644 ID 0\tPATH`
    fn parse(line: &[u8]) -> Option<Self> {
        let at = line.iter().position(|byte| *byte == b'\t')?;
        let (head, path) = line.split_at_checked(at)?;
        let mut parts = std::str::from_utf8(head).ok()?.split(' ');
        let (mode, _, stage) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { mode: mode.to_owned(), stage: stage.to_owned(), path: path.get(1..)?.to_owned() })
    }
}

/// A child that is ended and collected when it is no longer needed.
#[derive(Debug)]
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Contents of files by their ids.
#[derive(Debug)]
pub(super) struct FileContents {
    _child: Ended,
    asking: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl FileContents {
    /// The size of a file, and its content, which must be read to its end.
    ///
    /// # Errors
    /// The clone does not have it.
    pub(super) fn open(&mut self, id: &str) -> anyhow::Result<(u64, Take<&mut BufReader<ChildStdout>>)> {
        let asking = self.asking.as_mut().context("git has ended")?;
        writeln!(asking, "{id}").and_then(|()| asking.flush()).context("git ended while files were read")?;
        let mut head = String::new();
        self.answers.read_line(&mut head).context("failed to read from git")?;
        // `ID blob SIZE`, or `ID missing`
        let size = head.trim_end().split(' ').nth(2).and_then(|size| size.parse().ok());
        let size: u64 = size.ok_or_else(|| {
            Failure::user("the clone lacks files of the commit").hint(
                "clone without a filter: remove `--filter` from `GIT_FETCH_EXTRA_FLAGS` and `GIT_CLONE_EXTRA_FLAGS`",
            )
        })?;
        Ok((size, (&mut self.answers).take(size)))
    }

    /// The content of a file; `None` of one with more than `most` bytes.
    ///
    /// # Errors
    /// As [`FileContents::open`].
    pub(super) fn read(&mut self, id: &str, most: u64) -> anyhow::Result<Option<Vec<u8>>> {
        let (size, mut content) = self.open(id)?;
        let mut bytes = Vec::new();
        if size <= most {
            content.read_to_end(&mut bytes).context("failed to read from git")?;
        } else {
            io::copy(&mut content, &mut io::sink()).context("failed to read from git")?;
        }
        self.close()?;
        Ok((size <= most).then_some(bytes))
    }

    /// Reads the line break after a content.
    pub(super) fn close(&mut self) -> anyhow::Result<()> {
        let mut end = [0];
        self.answers.read_exact(&mut end).context("failed to read from git")?;
        Ok(())
    }
}
