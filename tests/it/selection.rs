//! Compares the selection of a job's paths with the helper of GitLab Runner itself: the same trees and the same patterns go to
//! `gitlab-runner cache-archiver` and to [`Selection::list`].
//!
//! Without links, both must select exactly the same paths. With links, each path that the helper archives must be selected at its
//! real place, and besides that only links may be. `SELECTION_CASES` sets the number of generated cases.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use executor::protocol::project::{Rule, Selection};

use crate::support::waiting;
use crate::support::world::Runner;

mod generate;

use generate::Random;

const TREES: u64 = 6;
const CASES: u64 = 60;

/// The helper with its arguments but those that select.
struct Helper {
    program: PathBuf,
    root: tempfile::TempDir,
}

impl Helper {
    fn find() -> Option<Self> {
        let Some(Runner::Real(program)) = Runner::real() else {
            waiting::tell("SKIPPED: comparison of selections with the helper: no gitlab-runner on PATH");
            return None;
        };
        Some(Self { program, root: tempfile::tempdir().unwrap() })
    }

    /// An empty project, deep enough that `..` stays in directories of the test.
    fn project(&self, name: &str) -> PathBuf {
        let project = self.root.path().canonicalize().unwrap().join(name).join("one/two/three/p");
        std::fs::create_dir_all(&project).unwrap();
        project
    }

    /// The names that the helper archives, as it writes them, and what it said.
    fn archives(&self, project: &Path, rule: &Rule) -> (BTreeSet<Vec<u8>>, String) {
        let file = tempfile::Builder::new().tempdir_in(self.root.path()).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("cache-archiver").arg("--file").arg(file.path().join("out.zip"));
        for (option, patterns) in [("--path", &rule.include), ("--exclude", &rule.exclude)] {
            for pattern in patterns {
                command.arg(option).arg(pattern);
            }
        }
        if rule.untracked {
            command.arg("--untracked");
        }
        let output = command
            .current_dir(project)
            // The other archiver takes the same files, and gives up when a directory above the project is among them.
            .env("FF_USE_FASTZIP", "false")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{rule:?}\n{said}");
        let names = match std::fs::read(file.path().join("out.zip")) {
            Ok(zip) => names_in(&zip),
            Err(_) => BTreeSet::new(),
        };
        (names, said)
    }

    /// Compares what the helper archives with what is wanted.
    fn compare(&self, project: &Path, rule: &Rule) -> Result<(), String> {
        let (names, said) = self.archives(project, rule);
        // The project itself needs no selection, and no directory above it can be selected.
        let names = names.iter().filter(|name| !matches!(name.as_slice(), b"." | b".."));
        let mut archived: BTreeSet<PathBuf> = names.filter_map(|name| in_truth(project, name)).collect();
        // The host's own stays.
        archived.retain(|path| !path.starts_with(".git"));
        let selection = Selection { rules: vec![rule.clone()], ..Selection::default() };
        let wanted: BTreeSet<PathBuf> = selection.list(project).unwrap().into_iter().collect();
        let missing: Vec<_> = archived.difference(&wanted).collect();
        let mut patterns = rule.include.iter().chain(&rule.exclude);
        let uncertain = rule.untracked || patterns.any(|pattern| pattern.contains(['$', '`']));
        let beyond = wanted.difference(&archived).filter(|path| !project.join(path).is_symlink());
        let beyond: Vec<_> = beyond.filter(|_| !uncertain).collect();
        if missing.is_empty() && beyond.is_empty() {
            return Ok(());
        }
        Err(format!("{rule:?}\n  archived, not wanted: {missing:?}\n  wanted, not archived: {beyond:?}\n{said}"))
    }
}

/// Where an archived entry of the project is when no link is followed on the way to it.
fn in_truth(project: &Path, name: &[u8]) -> Option<PathBuf> {
    let path = project.join(OsStr::from_bytes(name));
    let directory = path.parent().unwrap().canonicalize().unwrap();
    Some(directory.strip_prefix(project).ok()?.join(path.file_name().unwrap()))
}

/// The names in a zip's directory, which stands at its end, without the slash at the end of a directory's name.
fn names_in(zip: &[u8]) -> BTreeSet<Vec<u8>> {
    let number =
        |at: usize, bytes: usize| zip[at..at + bytes].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    let end = (0..=zip.len() - 22).rev().find(|&at| zip[at..].starts_with(b"PK\x05\x06")).expect("a zip's end");
    let mut at = number(end + 16, 4);
    (0..number(end + 10, 2))
        .map(|_| {
            assert!(zip[at..].starts_with(b"PK\x01\x02"), "a zip's directory");
            let name = &zip[at + 46..at + 46 + number(at + 28, 2)];
            at += 46 + number(at + 28, 2) + number(at + 30, 2) + number(at + 32, 2);
            name.strip_suffix(b"/").unwrap_or(name).to_vec()
        })
        .collect()
}

fn rule(include: &[&str], exclude: &[&str]) -> Rule {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Rule { include: owned(include), exclude: owned(exclude), ..Rule::default() }
}

/// Directories end in a slash, links say where they lead.
fn plant(project: &Path, entries: &[&[u8]]) {
    for entry in entries {
        let split = entry.windows(4).position(|part| part == b" -> ");
        let path = project.join(OsStr::from_bytes(&entry[..split.unwrap_or(entry.len())]));
        if let Some(at) = split {
            symlink(OsStr::from_bytes(&entry[at + 4..]), path).unwrap();
        } else if entry.ends_with(b"/") {
            std::fs::create_dir_all(path).unwrap();
        } else {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, entry).unwrap();
        }
    }
}

const PLAIN: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"a.txt",
    b".hidden",
    b"d/a",
    b"d/z",
    b"d/e/z",
    b"d/e/f/z",
    b"d/e/f/a.txt",
    b"d/.h/z",
    b"e/z",
    b"empty/",
    b"x",
    b"x.gz",
    b"with space",
    b"new\nline",
    b"-dash",
    b"byte\xff",
    b"byte\xffs/z",
    b"*",
    b"[a]",
    b"{a,b}",
    b"a\\b",
    b"back\\slash/x",
    b"st*r/x",
    b"star/x",
    "\u{e9}t\u{e9}/\u{e9}".as_bytes(),
    b"]",
    b"}",
    b"q?",
    b"m/a/n",
    b"m/b/n",
    b"m/b/o/n",
];

const LINKED: &[&[u8]] = &[
    b"runs/42/m.bin",
    b"runs/42/sub/n",
    b"runs/43/m.bin",
    b"latest -> runs/42",
    b"file -> runs/42/m.bin",
    b"dangling -> nowhere",
    b"loop -> loop",
    b"up -> .",
    b"out -> /nowhere/at/all",
    b"runs/back -> ../runs/43",
    b"d/l -> ../runs",
    b"d/x",
    b"chain -> latest",
    b"parent -> ..",
];

const PATTERNS: &[&str] = &[
    "**",
    "*",
    "**/*",
    "**/**",
    "**/*.txt",
    "*.txt",
    "d/**",
    "d/**/z",
    "d/**/",
    "d**",
    "**d",
    "**/e/**",
    "*/**/z",
    "d/*",
    "d/*/",
    "d/",
    "d",
    "./d",
    "./d/../d/./e",
    "d//e",
    ".",
    "./",
    "",
    "/",
    "..",
    "../p",
    "../p/d",
    "../q",
    "../../..",
    "d/../../p/a",
    "*/..",
    "*/../..",
    "*/../../p/a",
    "*/../../*/a",
    "{a,b}",
    "{a,b,nope}",
    "{a,{b,c}}",
    "x{,.gz}",
    "x{.gz,}",
    "{}",
    "{a}",
    "{d/e,e}/z",
    "{d,e}/**/z",
    "{d/*,e/*}",
    "{/a,b}",
    "{./a,b}",
    "{d/,e/}",
    "{d/e/,x}",
    "d/{e,.h}/z",
    "{d,m}/{a,e}",
    "{m/*,d/*}/{n,z}",
    "m/{a,b}/{n,o/n}",
    "{a,b",
    "a,b}",
    "a}",
    "}",
    "]",
    "[a-c]",
    "[!a-c]",
    "[^a-c]*",
    "[]a]",
    "[a",
    "[a]",
    "\\[a\\]",
    "[\\]]",
    "[a-]",
    "[-a]",
    "[c-a]",
    "[[a]",
    "[a/b]*",
    "[",
    "\\",
    "a\\",
    "\\a",
    "\\*",
    "\\\\*",
    "\\{a,b\\}",
    "a\\b",
    "a\\\\b",
    "a\\\\\\\\b",
    "st\\*r/x",
    "st\\*r/*",
    "st*r/x",
    "back\\slash/*",
    "back\\\\slash/x",
    "?",
    "??",
    "q?",
    "q\\?",
    ".*",
    ".h*",
    "*/.h/*",
    "with space",
    "with*",
    "new\nline",
    "new*",
    "new\r\nline",
    "-dash",
    "-*",
    "byte*",
    "byte?",
    "byte\u{fffd}",
    "byte*/z",
    "**/z",
    "\u{e9}t?/*",
    "[\u{e0}-\u{ff}]t\u{e9}",
    "**.txt",
    "d/**.txt",
    "***",
    "d/***/z",
    "**/d/**/z/**",
    "nothing",
    "nothing/**",
    "a/b",
    "a/*",
    "a/",
    "a/**",
    "latest",
    "latest/",
    "latest/m.bin",
    "latest/*",
    "latest/**",
    "latest/../a",
    "*/m.bin",
    "**/m.bin",
    "lat*",
    "lat*/",
    "lat*/m.bin",
    "{latest,file}",
    "{latest/,x}",
    "{latest,runs/42}/m.bin",
    "{latest,d}/*",
    "dangling",
    "dangl*",
    "loop",
    "loop/x",
    "lo*",
    "up/up/a",
    "up/*",
    "up/**/m.bin",
    "out/x",
    "out",
    "d/l/42/m.bin",
    "d/l/**",
    "d/**/m.bin",
    "chain/*",
    "chain",
    "parent/p/a",
    "parent/*",
    "parent/p/**",
    "runs/back/*",
    "{l*,latest/s*}",
    "{*,*/*}",
    "{latest,l*}/{sub,x}/n",
    "{runs,latest}/{4,s}*/*",
    "x\\$y",
    "x\\`y",
    "\\\ny",
    "x\"y'z",
    "#x",
    "~",
    "!a",
    "a b",
    " a",
    "a ",
    ".git",
    ".git/**",
];

#[test]
fn each_path_selects_what_the_helper_archives() {
    let Some(helper) = Helper::find() else { return };
    let project = helper.project("paths");
    plant(&project, PLAIN);
    plant(&project, LINKED);
    let inside = project.to_str().unwrap();
    let absolute =
        ["", "/", "/a", "/d/*", "/../p/a", "/./*/z", "p", "/..", "//d//"].map(|end| format!("{inside}{end}"));
    let patterns = PATTERNS.iter().map(|text| (*text).to_owned()).chain(absolute);
    let rules = patterns.map(|pattern| rule(&[&pattern], &[]));
    let rules: Vec<Rule> = rules.collect();
    report(&each(&rules, |rule| helper.compare(&project, rule)));
}

#[test]
fn each_exclude_leaves_out_what_the_helper_leaves_out() {
    let Some(helper) = Helper::find() else { return };
    let project = helper.project("excludes");
    plant(&project, PLAIN);
    plant(&project, LINKED);
    let inside = project.to_str().unwrap();
    let absolute = ["", "/", "/a", "/d/*", "/../p/a", "/**"].map(|end| format!("{inside}{end}"));
    let patterns: Vec<&str> = PATTERNS.iter().copied().chain(absolute.iter().map(String::as_str)).collect();
    // Several at a time, as each run takes a while: `SELECTION_CASES` asks for single ones.
    let at_once = if cases() > CASES { 1 } else { 6 };
    let rules = patterns.chunks(at_once).map(|patterns| rule(&["**", "latest/**", "up/*"], patterns));
    let mut rules: Vec<Rule> = rules.collect();
    rules.push(rule(&["d"], &["d/e/z", "../q", "d/z"]));
    rules.push(rule(&["d"], &["[", "d/z", "{d/[,d/a}"]));
    // Without git nothing is untracked, and there is less to compare.
    let _ = Command::new("git").args(["init", "--quiet"]).current_dir(&project).output();
    rules.push(Rule { untracked: true, ..rule(&["d/e"], &["d/**", "x*"]) });
    report(&each(&rules, |rule| helper.compare(&project, rule)));
}

#[test]
fn generated_paths_select_what_the_helper_archives() {
    let Some(helper) = Helper::find() else { return };
    let (cases, mut random) = (cases(), Random(1));
    let trees = TREES.max(cases / 50);
    let mut work = Vec::new();
    for tree in 0..trees {
        let project = helper.project(&format!("generated{tree}"));
        random.tree(&project, tree % 2 == 1);
        for _ in 0..cases / trees {
            work.push((project.clone(), random.rule(&project)));
        }
    }
    report(&each(&work, |(project, rule)| {
        helper.compare(project, rule).map_err(|difference| format!("{difference}\n{}", tree(project)))
    }));
}

#[expect(clippy::disallowed_methods, reason = "a setting of the test alone")]
fn cases() -> u64 {
    std::env::var("SELECTION_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(CASES)
}

/// Looks at all on as many threads as there are processors.
fn each<T: Sync>(work: &[T], look: impl Fn(&T) -> Result<(), String> + Sync) -> Vec<String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let look = &look;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|first| {
                scope.spawn(move || {
                    work.iter().skip(first).step_by(threads).filter_map(|one| look(one).err()).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn report(differences: &[String]) {
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

fn shown(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}

/// The tree, for a message.
fn tree(project: &Path) -> String {
    let everything = Selection { everything: true, ..Selection::default() };
    let line = |path: PathBuf| match std::fs::read_link(project.join(&path)) {
        Ok(target) => shown(&path) + " -> " + &shown(&target),
        Err(_) => shown(&path),
    };
    everything.list(project).unwrap().into_iter().map(line).collect::<Vec<_>>().join("\n")
}
