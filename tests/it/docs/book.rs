//! The pages as a book: its list, links and anchors, the commands in it, and its table of limits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

use super::{files, read, root, rows};
use crate::support::program::executor;

/// Pages outside of the folder of the book, whose links and commands are looked at as well.
const BESIDE: [&str; 8] = [
    "README.md",
    "ci-templates/README.md",
    "runner-config/opentofu/README.md",
    "runner-config/opentofu/alarms/README.md",
    "runner-config/opentofu/complete/README.md",
    "runner-config/opentofu/oidc-roles/README.md",
    "runner-config/opentofu/registry/README.md",
    "runner-config/opentofu/runner/README.md",
];

/// The pages of the book, as paths from the root, without its list.
fn pages() -> Vec<String> {
    let paths = files("docs").into_iter().filter(|path| path.extension().is_some_and(|end| end == "md"));
    let relative = paths.map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
    relative.filter(|path| path != "docs/SUMMARY.md").collect()
}

fn all_pages() -> Vec<String> {
    pages().into_iter().chain(BESIDE.map(str::to_owned)).collect()
}

#[test]
fn each_page_is_once_in_the_book() {
    let link = Regex::new(r"\]\(([^)]+)\)").unwrap();
    let list = read("docs/SUMMARY.md");
    let listed: Vec<String> = link.captures_iter(&list).map(|found| format!("docs/{}", &found[1])).collect();
    let once: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(once.len(), listed.len(), "a page is listed twice: {listed:?}");
    assert_eq!(once, pages().into_iter().collect());
    let readme = read("README.md");
    let missing: Vec<_> = listed.iter().filter(|page| !readme.contains(&format!("]({page}"))).collect();
    assert!(missing.is_empty(), "the README leads not to {missing:?}");
}

/// The text of a page without its blocks of code.
fn prose(page: &str) -> String {
    let mut is_code = false;
    let lines = page.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The anchors of a page's headings, as GitLab and mdBook make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let link = Regex::new(r"\[([^\]]*)\]\([^)]*\)").unwrap();
    let mut seen = BTreeMap::<String, usize>::new();
    let headings = prose(page);
    let headings =
        headings.lines().filter_map(|line| line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' '));
    let anchor = |heading: &str| {
        let words = link.replace_all(heading, "$1").to_lowercase();
        let kept = words.chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
        let anchor: String = kept.map(|char| if char == ' ' { '-' } else { char }).collect();
        let number = seen.entry(anchor.clone()).or_default();
        *number += 1;
        if *number == 1 { anchor } else { format!("{anchor}-{}", *number - 1) }
    };
    headings.map(anchor).collect()
}

#[test]
fn anchors_are_those_of_the_headings() {
    let page = "# One `two` (three)\n\n```sh\n# no heading\n```\n\n## With `aws.creator_role_arn`\n## A [link](x.md), twice\n## A link, twice\n";
    let expected = ["a-link-twice", "a-link-twice-1", "one-two-three", "with-awscreator_role_arn"];
    assert_eq!(anchors(page), expected.map(str::to_owned).into());
}

#[test]
fn each_link_and_anchor_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)").unwrap();
    let mut dead = Vec::new();
    let mut with_anchor = 0;
    for page in all_pages() {
        let folder = Path::new(&page).parent().unwrap();
        for found in link.captures_iter(&prose(&read(&page))) {
            let target = if found[1].is_empty() { PathBuf::from(&page) } else { folder.join(&found[1]) };
            if !root().join(&target).exists() {
                dead.push(format!("{page}: {}", &found[0]));
            } else if let Some(anchor) = found.get(2) {
                with_anchor += 1;
                if !anchors(&read(target.to_str().unwrap())).contains(anchor.as_str()) {
                    dead.push(format!("{page}: {}", &found[0]));
                }
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
    assert!(with_anchor > 40, "{with_anchor}");
}

/// A block of code: the words after its fence, and its lines.
pub(super) struct Block {
    page: String,
    pub(super) info: String,
    pub(super) text: String,
}

pub(super) fn blocks(page: &str) -> Vec<Block> {
    let fence = Regex::new(r"(?ms)^( *)```([^\n]*)\n(.*?)^ *```").unwrap();
    let text = read(page);
    let block = |found: regex::Captures<'_>| Block {
        page: page.to_owned(),
        info: found[2].to_owned(),
        text: found[3].lines().map(|line| line.strip_prefix(&found[1]).unwrap_or(line)).collect::<Vec<_>>().join("\n"),
    };
    fence.captures_iter(&text).map(block).collect()
}

/// The words of a shell's command up to its end: `;`, `&`, `|`, `>`, `)`, a comment, or the end of the line.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = command.chars();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (Some(open), _) if char == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, ';' | '&' | '|' | '>' | '<' | ')' | '\n') => break,
            (None, '#') if word.is_none() => break,
            (_, '\\') => word.get_or_insert_default().extend(chars.next()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    words.into_iter().chain(word).collect()
}

#[test]
fn words_of_a_command_end_where_the_shell_ends_it() {
    assert_eq!(words("try -- sh -c 'a; b' \"$X y\" || echo"), ["try", "--", "sh", "-c", "a; b", "$X y"]);
    assert_eq!(words("gate    # does it?"), ["gate"]);
    assert_eq!(words("credentials export)"), ["credentials", "export"]);
}

/// The program's calls in the blocks and in the text of a page; those with a gap, such as `endpoint ...`, are left out, and texts from which
/// keys are derived, which begin like a call.
fn calls(page: &str) -> Vec<Vec<String>> {
    let start = Regex::new(r"(?m)(?:^|[(;&|] ?|^ *- |--? )sagemaker-executor ([a-z-].*)$").unwrap();
    let quoted = Regex::new(r"`sagemaker-executor ([a-z-][^`]*)`").unwrap();
    let lines = blocks(page).into_iter().filter(|block| !["", "text"].contains(&block.info.as_str()));
    let lines = lines.map(|block| block.text.replace("\\\n", " "));
    let in_blocks: Vec<String> = lines
        .flat_map(|text| start.captures_iter(&text).map(|found| found[1].to_owned()).collect::<Vec<_>>())
        .collect();
    let text = prose(&read(page));
    let in_text = quoted.captures_iter(&text).map(|found| found[1].to_owned());
    let calls = in_blocks.into_iter().chain(in_text).map(|call| words(&call));
    let is_derivation = |words: &[String]| words.starts_with(&["session".to_owned(), "key".to_owned()]);
    calls.filter(|words| words.iter().all(|word| !word.contains("...")) && !is_derivation(words)).collect()
}

/// The help of a command, if the program knows all words.
fn help_of(words: &[String]) -> Result<String, String> {
    let output = Command::new(executor()).args(words).arg("--help").env_clear().output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The flags of a call that the help of its command does not have. Values may be words of the shell, which stand for any.
fn unknown_flags(words: &[String]) -> Result<Vec<&str>, String> {
    let words = if words.first().is_some_and(|word| word == "--config") { &words[2.min(words.len())..] } else { words };
    let is_of_command = |word: &&String| !word.starts_with('-') && !word.contains('$');
    let command: Vec<String> = words.iter().take_while(is_of_command).cloned().collect();
    let help = help_of(&command)?;
    let flag = |word: &'_ str| word.split('=').next().unwrap_or_default().len();
    let flags = words.iter().filter(|word| word.starts_with("--")).map(|word| &word[..flag(word)]);
    let is_known = |name: &str| Regex::new(&format!(r"{name}(?:[^a-z-]|$)")).unwrap().is_match(&help);
    Ok(flags.filter(|name| !is_known(name)).collect())
}

#[test]
fn flags_of_a_call_are_looked_for_in_the_help_of_its_command() {
    let of = |text: &str| {
        let words = words(text);
        unknown_flags(&words).map(|flags| flags.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    assert_eq!(of("--config $FILE sweep --older-than $AGE --dry-run"), Ok(Vec::new()));
    assert_eq!(of("sweep --older $AGE --dry-run=$X"), Ok(vec!["--older".to_owned()]));
    assert!(of("sweeps --older-than $AGE").is_err());
}

/// `--help` after the words shows the help of the command when the program knows all of them.
#[test]
fn the_program_knows_each_call_of_the_pages() {
    let known: BTreeSet<_> = all_pages().iter().flat_map(|page| calls(page)).collect();
    let (mut unknown, mut with_variables) = (Vec::new(), 0);
    for words in &known {
        let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
        // A word in place of a number, a file or a choice.
        let stands_for = |word: &String| word.contains('$');
        if words.first().is_some_and(|first| first == "--help" || first == "--version") {
            continue;
        }
        let judged = if words[..end].iter().any(stands_for) {
            with_variables += 1;
            unknown_flags(&words[..end]).map(|flags| flags.join(" "))
        } else {
            help_of(&words[..end]).map(|_| String::new())
        };
        if judged != Ok(String::new()) {
            unknown.push(format!("{}\n{judged:?}", words.join(" ")));
        }
    }
    assert!(with_variables >= 4, "{with_variables}");
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
    assert!(known.len() > 40, "{}", known.len());
}

/// A block that begins with `sh run` runs as it stands, in a folder that shows `docs` and `runner-config` of the repository.
#[test]
fn the_blocks_that_say_so_run() {
    let marked: Vec<Block> =
        all_pages().iter().flat_map(|page| blocks(page)).filter(|block| block.info == "sh run").collect();
    assert!(marked.len() >= 4, "{}", marked.len());
    let run = |block: &Block| {
        let folder = tempfile::tempdir().unwrap();
        for name in ["docs", "runner-config"] {
            std::os::unix::fs::symlink(root().join(name), folder.path().join(name)).unwrap();
        }
        let programs = folder.path().join("programs");
        std::fs::create_dir(&programs).unwrap();
        std::os::unix::fs::symlink(executor(), programs.join("sagemaker-executor")).unwrap();
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", programs.display());
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &block.text]).current_dir(folder.path()).env_clear();
        let output = shell.env("PATH", path).env("HOME", folder.path()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}:\n{}\n{}", block.page, block.text, String::from_utf8_lossy(&text));
    };
    std::thread::scope(|scope| marked.iter().for_each(|block| drop(scope.spawn(move || run(block)))));
}

/// The number of a constant: `28 * 86_400`, `4 << 20`, `Duration::from_mins(5)`, in seconds or as it is.
fn number(expression: &str) -> Option<u64> {
    let plain = expression.replace('_', "");
    for (unit, seconds) in [("secs", 1), ("mins", 60), ("hours", 3600)] {
        if let Some(rest) = plain.strip_prefix(&format!("Duration::from{unit}(")) {
            return Some(number(rest.strip_suffix(')')?)? * seconds);
        }
    }
    if let Some((left, right)) = plain.split_once(" << ") {
        return Some(number(left)? << number(right)?);
    }
    plain.split(" * ").map(|factor| factor.parse::<u64>().ok()).product()
}

/// The first number of a cell, with its unit: `28 days`, `16 KiB`, `1,024 characters`.
fn amount(cell: &str) -> Option<u64> {
    let mut words = cell.split(' ');
    let count: u64 = words.next()?.replace(',', "").parse().ok()?;
    let unit = match words.next().unwrap_or_default() {
        "day" | "days" => 86_400,
        "hour" | "hours" => 3600,
        "minute" | "minutes" => 60,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 1,
    };
    Some(count * unit)
}

#[test]
fn the_limits_are_those_of_the_code() {
    let place = Regex::new(r"^`([A-Z_]+)` in `(src/[^`]+)`").unwrap();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for row in rows(&read("docs/LIMITS.md")) {
        let Some(found) = row.get(4).and_then(|cell| place.captures(cell)) else { continue };
        let constant = Regex::new(&format!(r"const {}: [A-Za-z0-9]+ = ([^;]+);", &found[1])).unwrap();
        let source = std::fs::read_to_string(root().join(&found[2])).unwrap_or_default();
        let coded = constant.captures(&source).and_then(|found| number(&found[1]));
        if coded.is_none() || coded != amount(&row[1]) {
            wrong.push(format!("{}: {} and {} = {coded:?}", row[0], row[1], &found[1]));
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 50, "{compared}");
}

/// The recording shows the commands of the page that are marked to be run, in a terminal of one size, and nothing of the machine.
#[test]
fn the_recording_shows_the_commands_of_its_page() {
    let text = read("docs/first-five-minutes.cast");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let header = &lines[0];
    assert_eq!(
        (header["version"].as_u64(), header["width"].as_u64(), header["height"].as_u64()),
        (Some(2), Some(100), Some(30))
    );
    let times: Vec<f64> = lines[1..].iter().map(|event| event[0].as_f64().unwrap()).collect();
    assert!(times.is_sorted() && times.last().is_some_and(|last| (20.0..300.0).contains(last)), "{:?}", times.last());
    let shown: String = lines[1..].iter().map(|event| event[2].as_str().unwrap()).collect();
    let typed: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    let marked: Vec<Block> = blocks("docs/TRY.md").into_iter().filter(|block| block.info == "sh run").collect();
    assert_eq!(typed, marked.iter().flat_map(|block| block.text.lines()).collect::<Vec<_>>());
    for private in ["/tmp/", "/root", "/home/", "AWS_", "AKIA"] {
        assert!(!shown.contains(private), "{private}");
    }
}
