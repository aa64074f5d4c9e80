//! What goes back to the host: found in the container, judged and applied on the host.
//!
//! The host's side assumes a hostile container. [`apply`] is given what was received, in a directory of its own, and checks
//! every entry and every place it would touch before it changes anything. It never follows a link of either side.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read as _;

use anyhow::{Context as _, bail};
use rustix::fs::FileType;

use super::asked::{Verdict, verdicts};
use super::entry::{DEEPEST, Entry, Instant, Kind, Mark, Place, ancestors, enters_git, malformed, shown, split};
use super::fetching::FileEnd;
use super::selection::Effort;
use super::staging::{Staged, Staging};
use super::tree::{Walker, is_absent};
use super::view::{Node, View};
use super::warnings::{LeftOut, Warnings};
use super::{Roots, Selection, Snapshot, Stop, Summary, Trees, env_lines, restore};
use crate::base::failure::Failure;

/// The one file of the temporary tree that goes back: variables that the script leaves for later stages.
pub(super) const ENV_FILE: &[u8] = b"gitlab_runner_env";
pub(super) const ENV_FILE_MAX: u64 = 1 << 20;

/// Set-user-id and set-group-id: never come back.
const SET_ID: u32 = 0o6000;

const UNREADABLE_ENV: &str = "failed to read `gitlab_runner_env`";
const TOO_DEEP: &str = "it is more than 256 directories deep";

/// What changed in the container and is wanted on the host, parents before what they hold.
pub(super) fn changes(
    roots: &Roots,
    snapshot: &Snapshot,
    selection: &Selection,
    warnings: &mut Warnings,
    stop: &Stop,
) -> anyhow::Result<Vec<Entry>> {
    let project = roots.project_bytes();
    let of_git = RefCell::new(Vec::new());
    let skip = |path: &[u8]| {
        let is_of_git = enters_git(path);
        if is_of_git {
            of_git.borrow_mut().push(path.to_vec());
        }
        is_of_git
    };
    let listed = match &roots.project {
        Some(root) => Walker::reading(root).list(Place::Project, b"", &skip, warnings, stop)?,
        None => Vec::new(),
    };
    let of_git = of_git.into_inner();
    let assigned = assigned(roots)?;
    let nodes = listed.iter().map(|(entry, _)| (entry.path.as_slice(), Node::of(entry)));
    let now_there = View::new(project, nodes.chain(of_git.iter().map(|path| (path.as_slice(), Node::Other))));
    let wanted = selection.wanted(&now_there, &assigned, Effort::Container);
    for path in of_git {
        // What came from the host is there still.
        if wanted.wants(&path) && !snapshot.marks.contains_key(&(Place::Project, path.clone())) {
            let is_repository = split(&path).1 == b".git";
            warnings.leave_out(if is_repository { LeftOut::NestedRepository } else { LeftOut::GitName }, &path);
        }
    }
    let mut send: HashSet<&[u8]> = HashSet::new();
    // Links that the host will not write, but has to know: what they lead to may be asked for through them.
    let mut told: HashSet<&[u8]> = HashSet::new();
    let mut now: HashMap<&[u8], Kind> = HashMap::with_capacity(listed.len());
    for (entry, mark) in &listed {
        now.insert(&entry.path, mark.kind);
        let before = snapshot.marks.get(&(Place::Project, entry.path.clone()));
        if before.is_some_and(|before| before.is_same(mark)) || !wanted.wants(&entry.path) {
            continue;
        }
        if ancestors(&entry.path).count() > DEEPEST {
            warnings.leave_out(LeftOut::TooDeep, &entry.path);
            continue;
        }
        let is_left_out = selection.leaves_out(&wanted, project, entry).is_some();
        if is_left_out {
            told.insert(&entry.path)
        } else {
            send.insert(&entry.path)
        };
        // Directories on the way that the host does not have, or has as something else, are part of the change.
        for above in ancestors(&entry.path) {
            let known = snapshot.marks.get(&(Place::Project, above.to_vec()));
            if known.is_none_or(|mark| mark.kind != Kind::Directory) {
                send.insert(above);
            }
        }
    }
    let replaced = |path: &[u8]| {
        ancestors(path).any(|above| send.contains(above) && now.get(above).is_some_and(|kind| *kind != Kind::Directory))
    };
    let is_gone = |path: &[u8]| ancestors(path).count() <= DEEPEST && !now.contains_key(path);
    let gone: Vec<&[u8]> = before(snapshot).map(|(path, _)| path).filter(|path| is_gone(path)).collect();
    let mut entries: Vec<Entry> = Vec::new();
    if !gone.is_empty() {
        // What the host still has is what it would search.
        let wanted = selection.wanted(&view_before(project, snapshot, &listed), &assigned, Effort::Container);
        let deleted = gone.into_iter().filter(|path| wanted.wants(path) || replaced(path));
        entries.extend(deleted.map(|path| deletion(Place::Project, path)));
    }
    let is_sent = |path: &[u8]| send.contains(path) || told.contains(path);
    entries.extend(listed.iter().filter(|(entry, _)| is_sent(&entry.path)).map(|(entry, _)| stripped(entry)));
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    entries.extend(env_file(roots, snapshot)?);
    Ok(entries)
}

/// What the project held when it arrived.
fn before(snapshot: &Snapshot) -> impl Iterator<Item = (&[u8], &Mark)> {
    let paths = snapshot.marks.iter().filter(|((place, _), _)| *place == Place::Project);
    paths.map(|((_, path), mark)| (path.as_slice(), mark)).filter(|(path, _)| !path.is_empty() && !enters_git(path))
}

/// The project as it arrived. Where a link led is known if it is the same still.
fn view_before<'a>(project: &[u8], snapshot: &'a Snapshot, listed: &'a [(Entry, Mark)]) -> View<'a> {
    let links = listed.iter().filter(|(entry, _)| entry.kind == Kind::Link);
    let links: HashMap<&[u8], (&Entry, &Mark)> =
        links.map(|(entry, mark)| (entry.path.as_slice(), (entry, mark))).collect();
    let node = |path: &[u8], mark: &Mark| match mark.kind {
        Kind::Directory => Node::Directory,
        Kind::Link => match links.get(path) {
            Some((entry, now)) if mark.is_same(now) => Node::Link(&entry.target),
            _ => Node::Link(&[]),
        },
        Kind::File | Kind::Deleted | Kind::Special => Node::Other,
    };
    View::new(project, before(snapshot).map(|(path, mark)| (path, node(path, mark))))
}

/// What `gitlab_runner_env` holds, as far as it may.
fn assigned(roots: &Roots) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    let Some(root) = &roots.tmp else { return Ok(content) };
    let read = Walker::new(root).open_file(ENV_FILE).and_then(|file| file.take(ENV_FILE_MAX).read_to_end(&mut content));
    match read {
        Ok(_) => Ok(content),
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => Err(env_file_refused()),
        Err(error) => Err(error).context(UNREADABLE_ENV),
    }
}

fn deletion(place: Place, path: &[u8]) -> Entry {
    let mtime = Instant::default();
    Entry { place, kind: Kind::Deleted, path: path.to_vec(), mode: 0, mtime, size: 0, target: Vec::new() }
}

/// Without set-id and sticky bits.
fn stripped(entry: &Entry) -> Entry {
    Entry { mode: entry.mode & 0o777, ..entry.clone() }
}

fn env_file(roots: &Roots, snapshot: &Snapshot) -> anyhow::Result<Option<Entry>> {
    let before = snapshot.marks.get(&(Place::Tmp, ENV_FILE.to_vec()));
    let stat = match &roots.tmp {
        Some(root) => Walker::new(root).stat(ENV_FILE).context("failed to look at `gitlab_runner_env`")?,
        None => None,
    };
    let Some(mark) = stat.as_ref().and_then(Mark::of) else {
        return Ok(before.map(|_| deletion(Place::Tmp, ENV_FILE)));
    };
    let entry = mark.entry(Place::Tmp, ENV_FILE.to_vec(), Vec::new());
    if entry.kind != Kind::File || entry.size > ENV_FILE_MAX {
        return Err(env_file_refused());
    }
    Ok((before != Some(&mark)).then(|| stripped(&entry)))
}

fn env_file_refused() -> anyhow::Error {
    Failure::user("`gitlab_runner_env` is not a plain file of at most 1 MiB")
        .hint("write fewer or shorter `KEY=value` lines to `$GITLAB_ENV`")
        .into()
}

/// Judges what was staged against the trees, then puts it into them.
pub(super) fn apply(
    staging: &Staging,
    trees: &Trees,
    selection: &Selection,
    received: Vec<String>,
    stop: &Stop,
) -> anyhow::Result<Summary> {
    let Staged { mut entries, contents } = staging.take();
    let mut warnings = Warnings::default();
    let mut roots = Roots::open(trees)?;
    judge_together(&entries)?;
    let assigned = assigned_after(staging, &entries, &contents, &roots)?;
    filter_env(&mut entries, &contents, staging, &mut warnings)?;
    for entry in &mut entries {
        entry.mode |= owner_bits(entry.kind);
    }
    let verdicts = verdicts(&entries, &roots, selection, &assigned, stop)?;
    // Files come in the order in which they were finished.
    let left_out: BTreeMap<&[u8], LeftOut> = entries
        .iter()
        .zip(&verdicts)
        .filter_map(|(entry, verdict)| verdict.left_out().map(|why| (entry.path.as_slice(), why)))
        .collect();
    for (path, why) in left_out {
        warnings.leave_out(why, path);
    }
    let asked: Vec<(usize, &Entry)> =
        entries.iter().enumerate().filter(|(at, _)| verdicts.get(*at) == Some(&Verdict::Apply)).collect();
    judge(&asked, &roots, stop)?;
    for line in received.into_iter().take(Warnings::MOST) {
        warnings.add(one_line(&line));
    }

    // From here on only the host itself can fail.
    if roots.tmp.is_none() && asked.iter().any(|(_, entry)| entry.place == Place::Tmp && entry.kind == Kind::File) {
        roots.tmp = Some(trees.create(&trees.tmp)?);
    }
    let mut summary = Summary::default();
    for place in [Place::Project, Place::Tmp] {
        let Some(root) = roots.get(place) else { continue };
        let mut walker = Walker::unlocking(root);
        for entry in deletions(&asked, place) {
            restore::delete(&mut walker, &entry.path)
                .with_context(|| format!("failed to delete {}", shown(&entry.path)))?;
            summary.deleted += 1;
        }
        let own = || asked.iter().copied().filter(|(_, entry)| entry.place == place && entry.kind != Kind::Deleted);
        put_in_place(&mut walker, own, &contents, staging, &mut summary)?;
        walker.relock().context("failed to restore the modes of directories")?;
    }
    summary.warnings = warnings.lines();
    Ok(summary)
}

/// What the host's own stages need of whatever a job leaves: git to clean it, the runner's helper to read it.
fn owner_bits(kind: Kind) -> u32 {
    match kind {
        Kind::Directory => 0o700,
        Kind::File => 0o400,
        Kind::Link | Kind::Deleted | Kind::Special => 0,
    }
}

/// Takes out of `gitlab_runner_env` what would steer the host's later stages.
fn filter_env(
    entries: &mut [Entry],
    contents: &BTreeMap<usize, String>,
    staging: &Staging,
    warnings: &mut Warnings,
) -> anyhow::Result<()> {
    let env = entries.iter_mut().enumerate().find(|(_, entry)| entry.place == Place::Tmp && entry.kind == Kind::File);
    let Some((at, entry)) = env else { return Ok(()) };
    let Some(name) = contents.get(&at) else { return Ok(()) };
    let content = staging.read(name, ENV_FILE_MAX).context(UNREADABLE_ENV)?;
    if let Some((kept, explanation)) = env_lines::filtered(&content) {
        staging.rewrite(name, &kept).context("failed to write `gitlab_runner_env`")?;
        entry.size = kept.len() as u64;
        if !explanation.is_empty() {
            warnings.add(explanation);
        }
    }
    Ok(())
}

/// What a directory holds before the directory, in whatever order they came.
fn deletions<'e>(asked: &[(usize, &'e Entry)], place: Place) -> Vec<&'e Entry> {
    let own = asked.iter().map(|(_, entry)| *entry);
    let mut deletions: Vec<&Entry> = own.filter(|entry| entry.place == place && entry.kind == Kind::Deleted).collect();
    deletions.sort_unstable_by(|a, b| b.path.cmp(&a.path));
    deletions
}

/// Directories, then files and links, then the modes and times of directories.
fn put_in_place<'a, I: DoubleEndedIterator<Item = (usize, &'a Entry)>>(
    walker: &mut Walker,
    entries: impl Fn() -> I,
    contents: &BTreeMap<usize, String>,
    staging: &Staging,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let failed = |entry: &Entry| format!("failed to write {}", shown(&entry.path));
    for (_, entry) in entries().filter(|(_, entry)| entry.kind == Kind::Directory) {
        restore::make_directory(walker, &entry.path).with_context(|| failed(entry))?;
    }
    for (at, entry) in entries() {
        match (entry.kind, contents.get(&at)) {
            (Kind::File, Some(content)) => {
                let end = FileEnd { size: entry.size, mode: entry.mode, mtime: entry.mtime };
                restore::place_file(walker, &entry.path, staging.fd(), content, &end).with_context(|| failed(entry))?;
                summary.bytes += entry.size;
            }
            (Kind::Link, _) => {
                restore::write_link(walker, entry).with_context(|| failed(entry))?;
            }
            _ => continue,
        }
        summary.count(entry);
    }
    for (_, entry) in entries().rev().filter(|(_, entry)| entry.kind == Kind::Directory) {
        restore::finish_directory(walker, entry).with_context(|| failed(entry))?;
    }
    Ok(())
}

pub(super) fn refused(entry: &Entry, why: &str) -> anyhow::Error {
    Failure::user(format!("{} is refused: {why}", shown(&entry.path)))
        .hint("keep the file out of the job's `artifacts` and `cache` paths, or let the script remove it")
        .into()
}

/// A container's warning, made safe to print.
fn one_line(line: &str) -> String {
    let line: String = line.chars().take(1000).collect();
    let safe = shown(line.as_bytes());
    safe.strip_prefix('`').and_then(|safe| safe.strip_suffix('`')).unwrap_or_default().to_owned()
}

/// Every entry by itself, and the entries among each other.
fn judge_together(entries: &[Entry]) -> anyhow::Result<()> {
    let mut known: HashMap<(Place, &[u8]), &Entry> = HashMap::with_capacity(entries.len());
    for entry in entries {
        judge_alone(entry).map_err(|why| refused(entry, why))?;
        if known.insert((entry.place, &entry.path), entry).is_some() {
            return Err(refused(entry, "it comes twice"));
        }
    }
    for entry in entries.iter().filter(|entry| entry.kind != Kind::Deleted) {
        for above in ancestors(&entry.path) {
            if known.get(&(entry.place, above)).is_some_and(|above| above.kind != Kind::Directory) {
                return Err(refused(entry, &format!("{} above it is no directory", shown(above))));
            }
        }
    }
    Ok(())
}

/// What the job asked for, against what the host has.
fn judge(asked: &[(usize, &Entry)], roots: &Roots, stop: &Stop) -> anyhow::Result<()> {
    let known: HashMap<(Place, &[u8]), &Entry> =
        asked.iter().map(|(_, entry)| ((entry.place, entry.path.as_slice()), *entry)).collect();
    let mut host = Host { walker: Walker::new(roots.project()?), kinds: HashMap::new() };
    for (_, entry) in asked {
        stop.check()?;
        if entry.place == Place::Project && entry.kind != Kind::Deleted {
            host.judge(entry, &known)?;
        }
    }
    host.judge_bare_repository(&known)?;
    if let Some(root) = &roots.tmp
        && asked.iter().any(|(_, entry)| entry.place == Place::Tmp)
        && let Some(stat) = Walker::new(root).stat(ENV_FILE)?
        && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
    {
        bail!("`gitlab_runner_env` is a directory on the host");
    }
    Ok(())
}

/// What `gitlab_runner_env` will hold on the host.
fn assigned_after(
    staging: &Staging,
    entries: &[Entry],
    contents: &BTreeMap<usize, String>,
    roots: &Roots,
) -> anyhow::Result<Vec<u8>> {
    let Some(at) = entries.iter().position(|entry| entry.place == Place::Tmp && entry.path == ENV_FILE) else {
        return assigned(roots);
    };
    let mut content = Vec::new();
    if let Some(name) = contents.get(&at) {
        staging.open_to_read(name)?.take(ENV_FILE_MAX).read_to_end(&mut content).context(UNREADABLE_ENV)?;
    }
    Ok(content)
}

/// An entry by itself. Given to the receiver as well, so that nothing senseless is fetched, or kept in memory.
pub(super) fn judge_alone(entry: &Entry) -> Result<(), &'static str> {
    if let Some(why) = malformed(&entry.path) {
        return Err(why);
    }
    if ancestors(&entry.path).count() > DEEPEST {
        return Err(TOO_DEEP);
    }
    if enters_git(&entry.path) {
        return Err("nothing may be written into `.git`");
    }
    if entry.kind == Kind::Special {
        return Err("it is neither a file, a directory nor a link");
    }
    if entry.mode & SET_ID != 0 {
        return Err("it is set-user-id or set-group-id");
    }
    if entry.kind != Kind::Link && !entry.target.is_empty() {
        return Err("it has a target and is no link");
    }
    if entry.place == Place::Tmp {
        if entry.path != ENV_FILE || !matches!(entry.kind, Kind::File | Kind::Deleted) {
            return Err("of the temporary directory only the file `gitlab_runner_env` may come back");
        }
        if entry.size > ENV_FILE_MAX {
            return Err("it is larger than 1 MiB");
        }
    }
    Ok(())
}

/// What the host has where entries are to be written.
struct Host {
    walker: Walker,
    /// By path; `None`: not there.
    kinds: HashMap<Vec<u8>, Option<FileType>>,
}

impl Host {
    fn kind(&mut self, path: &[u8]) -> anyhow::Result<Option<FileType>> {
        if let Some(kind) = self.kinds.get(path) {
            return Ok(*kind);
        }
        let stat = self.walker.stat(path).with_context(|| format!("failed to look at {}", shown(path)))?;
        let kind = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
        self.kinds.insert(path.to_vec(), kind);
        Ok(kind)
    }

    fn judge(&mut self, entry: &Entry, known: &HashMap<(Place, &[u8]), &Entry>) -> anyhow::Result<()> {
        for above in ancestors(&entry.path) {
            match self.kind(above)? {
                Some(FileType::Directory) => {}
                // Nothing below it on the host either.
                None => return Ok(()),
                Some(_) if known.get(&(entry.place, above)).is_some_and(|above| above.kind == Kind::Directory) => {
                    return Ok(());
                }
                Some(_) => return Err(refused(entry, &format!("{} is no directory on the host", shown(above)))),
            }
        }
        if entry.kind != Kind::Directory && self.kind(&entry.path)? == Some(FileType::Directory) {
            self.judge_replaced(entry, known)?;
        }
        Ok(())
    }

    /// A directory of the host may become a file or a link only if the container deleted all it holds.
    fn judge_replaced(&mut self, entry: &Entry, known: &HashMap<(Place, &[u8]), &Entry>) -> anyhow::Result<()> {
        let mut ignored = Warnings::default();
        let held = self.walker.list(entry.place, &entry.path, &|_| false, &mut ignored, &Stop::default())?;
        let kept = held
            .iter()
            .map(|(held, _)| held)
            .find(|held| known.get(&(held.place, &held.path[..])).is_none_or(|held| held.kind != Kind::Deleted));
        match kept {
            None if ignored.is_empty() => Ok(()),
            None => Err(refused(entry, "it would replace a directory of the host that holds a socket, FIFO or device")),
            Some(kept) => Err(refused(
                entry,
                &format!("it would replace a directory of the host that holds {}", shown(&kept.path)),
            )),
        }
    }

    /// Without a `.git`, git takes a directory with a `HEAD` for a repository when it finds objects and references, there or where
    /// `commondir` leads, and obeys its configuration.
    fn judge_bare_repository(&mut self, known: &HashMap<(Place, &[u8]), &Entry>) -> anyhow::Result<()> {
        const PARTS: [&[u8]; 6] = [b"HEAD", b"objects", b"refs", b"commondir", b"config", b"config.worktree"];
        let coming = |name: &[u8]| {
            known.values().copied().find(|entry| {
                entry.place == Place::Project && entry.kind != Kind::Deleted && entry.path.eq_ignore_ascii_case(name)
            })
        };
        let Some(first) = PARTS.iter().find_map(|part| coming(part)) else { return Ok(()) };
        if self.kind(b".git")?.is_some() {
            return Ok(());
        }
        let mut is_there = |name: &[u8]| anyhow::Ok(coming(name).is_some() || self.kind(name)?.is_some());
        let is_repository =
            is_there(b"HEAD")? && (is_there(b"commondir")? || (is_there(b"objects")? && is_there(b"refs")?));
        if is_repository {
            return Err(refused(first, "it would make the project directory a bare git repository"));
        }
        Ok(())
    }
}
