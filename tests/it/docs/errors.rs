//! Texts of errors against `docs/TROUBLESHOOTING.md`: each refusal and failure of the program has a row.
//!
//! The texts are those that stand in a call of `Failure::user` or `Failure::system`. Not covered: texts that are made elsewhere, the causes
//! below a failure, and the emulator, whose errors are AWS's.

use std::path::Path;

use regex::Regex;

use super::{read, root, rows};
use crate::words::{files, literals};

const EMULATOR: &str = "src/emulator";
/// Words of a text that its row must have, from the longest part without a value.
const COMPARED: usize = 4;

/// Without backquotes, and with single blanks.
fn plain(text: &str) -> String {
    text.replace('`', "").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first words of the longest part between values; none for a text that has no two words together.
fn key(text: &str) -> Option<String> {
    let value = Regex::new(r"\{[^}]*\}").unwrap();
    let text = plain(text);
    let parts =
        value.split(&text).map(|part| part.trim_matches([' ', ',', ':', ';', '(', ')']).split(' ').collect::<Vec<_>>());
    let longest = parts.max_by_key(Vec::len).filter(|words| words.len() > 1)?;
    Some(longest.into_iter().take(COMPARED).collect::<Vec<_>>().join(" "))
}

#[test]
fn the_key_of_a_text_is_its_longest_part() {
    assert_eq!(key("`{key}` {why}"), None);
    assert_eq!(
        key("the policy {name} has {size} characters, and AWS takes {most}").as_deref(),
        Some("characters, and AWS takes")
    );
    assert_eq!(key("failed to set up TLS").as_deref(), Some("failed to set up"));
}

#[test]
fn each_error_is_in_troubleshooting() {
    let page = rows(&read("docs/TROUBLESHOOTING.md"));
    let symptoms: Vec<String> = page.iter().map(|row| plain(&row[0])).collect();
    let call = Regex::new(r"Failure::(?:user|system)\(").unwrap();
    let mut names = Vec::new();
    files(&root().join("src"), &mut names);
    names.sort();
    let (mut missing, mut compared) = (Vec::new(), 0);
    for name in names {
        let name = Path::new(&name).strip_prefix(root()).unwrap().display().to_string();
        if name.starts_with(EMULATOR) {
            continue;
        }
        let text = read(&name);
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        for found in call.find_iter(code) {
            let Some(key) = literals(&code[found.end()..]).first().and_then(|text| key(text)) else { continue };
            compared += 1;
            if !symptoms.iter().any(|symptom| symptom.contains(&key)) {
                missing.push(format!("{name}: {key}"));
            }
        }
    }
    assert!(missing.is_empty(), "no row in docs/TROUBLESHOOTING.md:\n{}", missing.join("\n"));
    assert!(compared > 300, "{compared}");
}
