//! Makes foreign text safe to print: text of a container, of AWS, a file name. Pure.
//!
//! A job log interprets its text: escape sequences hide lines, a carriage return overwrites one, a section marker folds
//! the lines below, and direction marks reverse text. This module neutralizes all of them. A script's own output does
//! not pass through here.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Longest printed line, in bytes.
const LONGEST_LINE: usize = 8 << 10;
/// GitLab folds the lines between two of these.
const SECTION_WORDS: [(&str, &str); 2] = [("section_start:", "section-start:"), ("section_end:", "section-end:")];

/// Neutralizes lines: line breaks and tabs stay, other control characters become visible, a very long line is cut, the random part of
/// a key in the bucket is left out.
pub fn lines(text: &str) -> Cow<'_, str> {
    if random_part(text).is_some() {
        return Cow::Owned(lines(&without_random_parts(text)).into_owned());
    }
    let is_long = text.len() > LONGEST_LINE && text.split('\n').any(|line| line.len() > LONGEST_LINE);
    if !is_long && !text.contains(is_active) && !SECTION_WORDS.iter().any(|(word, _)| text.contains(word)) {
        return Cow::Borrowed(text);
    }
    let lines: Vec<String> =
        text.split('\n').map(|line| safe(line.strip_suffix('\r').unwrap_or(line), LONGEST_LINE)).collect();
    Cow::Owned(lines.join("\n"))
}

/// Digits of the random part of a session's keys, or a project's scope. Who knows them, and has the role of a training job, can read
/// the objects; many more people read a job log.
const RANDOM_PART: usize = 32;

fn without_random_parts(text: &str) -> String {
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = random_part(rest) {
        let (before, after) = rest.split_at(at);
        shown.push_str(before);
        shown.push_str("...");
        rest = after.get(RANDOM_PART..).unwrap_or_default();
    }
    shown + rest
}

/// Start of the first random part: in `sessions/<id>/<random>` or `projects/<id>-<random>`.
fn random_part(text: &str) -> Option<usize> {
    let behind = |word: &'static str, end: char| {
        let starts = text.match_indices(word).map(move |(at, _)| at + word.len());
        starts.filter_map(move |start| Some(start + text.get(start..)?.find(end)? + 1))
    };
    let is_random = |at: &usize| {
        let part = text.get(*at..*at + RANDOM_PART);
        part.is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    behind("sessions/", '/').chain(behind("projects/", '-')).filter(is_random).min()
}

/// Text of JSON without characters that act on a terminal: each is escaped as JSON does it, so a reader finds the same values.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_harmful = |character: char| is_active(character) || character == '\t';
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmful(character) {
            // Each of them is one unit of UTF-16.
            let _ = write!(safe, "\\u{:04x}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

/// In place of what is not shown.
pub const HIDDEN: &str = "(hidden)";

/// An address without what opens it: `https://user:password@host/?token=x` as `https://(hidden)@host/?(hidden)`. A password may hold any
/// character but blanks, so the last `@` ends it. URIs of data and digests of images stay as they are.
pub fn without_password(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    if ["s3", "efs", "fsx"].contains(&scheme) {
        return text.to_owned();
    }
    let start = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (address, after) = rest.split_at(end);
    // An image's name: `registry:5000/name:tag@sha256:<digest>`.
    let digest = address.rfind("@sha256:").filter(|_| scheme.is_empty()).unwrap_or(address.len());
    let (address, digest) = address.split_at(digest);
    let shown = match address.rsplit_once('@') {
        Some((before, host)) if !scheme.is_empty() || before.contains(':') => format!("{HIDDEN}@{host}"),
        _ => address.to_owned(),
    };
    let shown = match shown.split_once('?') {
        Some((before, _)) if !scheme.is_empty() => format!("{before}?{HIDDEN}"),
        _ => shown,
    };
    format!("{start}{shown}{digest}{after}")
}

/// Joins text to one line of about `most` bytes, to become part of another line.
pub fn line(text: &str, most: usize) -> String {
    let mut parts = text.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty());
    let mut joined = String::new();
    // Stops reading at the limit.
    while joined.len() <= most
        && let Some(part) = parts.next()
    {
        if !joined.is_empty() {
            joined.push_str("; ");
        }
        joined.push_str(part);
    }
    safe(&joined, most)
}

/// Neutralizes a single line.
fn safe(line: &str, most: usize) -> String {
    let kept = line.floor_char_boundary(most);
    let (shown, rest) = line.split_at(kept);
    let mut safe = String::with_capacity(shown.len());
    for character in shown.chars() {
        if is_active(character) {
            // Writing to a `String` cannot fail.
            let _ = match u8::try_from(character) {
                Ok(byte) => write!(safe, "\\x{byte:02x}"),
                Err(_) => write!(safe, "\\u{{{:x}}}", u32::from(character)),
            };
        } else {
            safe.push(character);
        }
    }
    for (word, replaced) in SECTION_WORDS {
        if safe.contains(word) {
            safe = safe.replace(word, replaced);
        }
    }
    if !rest.is_empty() {
        let _ = write!(safe, "... ({} more bytes)", rest.len());
    }
    safe
}

/// `true` for characters that change how other text is shown.
fn is_active(character: char) -> bool {
    let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
    turns || (character.is_control() && !matches!(character, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_log_would_obey_is_shown() {
        assert_eq!(lines("plain ü\n\ttext\n"), "plain ü\n\ttext\n");
        assert_eq!(
            lines("\x1b[2Khidden\r\nsection_start:1:x\r\x1b[0K"),
            "\\x1b[2Khidden\nsection-start:1:x\\x0d\\x1b[0K"
        );
        assert_eq!(lines("a\u{202e}b\u{9b}c\0"), "a\\u{202e}b\\x9bc\\x00");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let text = "ü".repeat(LONGEST_LINE);
        let cut = lines(&text);
        assert!(cut.ends_with(&format!("ü... ({LONGEST_LINE} more bytes)")), "{}", cut.len());
        assert_eq!(line("äöü", 3), "ä... (4 more bytes)");
    }

    #[test]
    fn one_line_stays_one_line() {
        assert_eq!(line("first\r\n\n  second\nsection_end:3:y\r", 100), "first; second; section-end:3:y");
    }

    #[test]
    fn passwords_are_not_shown() {
        for (text, shown) in [
            ("https://u:pass@host/x", "https://(hidden)@host/x"),
            ("http://u:s3cr/et@h", "http://(hidden)@h"),
            ("http://u:p@ss@h:1/x", "http://(hidden)@h:1/x"),
            ("ftp://token@host", "ftp://(hidden)@host"),
            ("https://host/x?token=abc", "https://host/x?(hidden)"),
            ("user:pw@registry/x", "(hidden)@registry/x"),
            ("user:pw@r/x:1@sha256:0a", "(hidden)@r/x:1@sha256:0a"),
            ("r:5000/x:1@sha256:0a", "r:5000/x:1@sha256:0a"),
            ("s3://b/a@b", "s3://b/a@b"),
            ("me@example.com", "me@example.com"),
            ("http://host/x", "http://host/x"),
        ] {
            assert_eq!(without_password(text), shown, "{text}");
        }
    }

    #[test]
    fn json_keeps_its_values_and_acts_on_no_terminal() {
        let value = serde_json::Value::from("a\u{9b}31m\u{7f}\u{202e}ü\n\t\u{1b}\u{2028}");
        let text = value.to_string();
        let safe = json(&text);
        assert!(!safe.contains(is_active) && safe.contains("\\u009b31m\\u007f\\u202eü"), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
        assert!(matches!(json("{\"a\":1}"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn nothing_active_passes(text in any::<String>(), most in 0..200_usize) {
            let shown = lines(&text);
            prop_assert!(!shown.contains(is_active));
            let one = line(&text, most);
            prop_assert!(!one.contains(is_active) && !one.contains('\n'));
            prop_assert!(one.len() <= most * 8 + 40);
        }
    }

    #[test]
    fn random_parts_of_keys_are_left_out() {
        let random = "0123456789abcdef0123456789abcdef";
        let text = format!(
            "failed to get s3://b/p/sessions/gitlab-1-2-abcdef12/{random}/orders/000001.json: arn:aws:s3:::b/p/projects/7-{random}/packs"
        );
        assert_eq!(
            lines(&text),
            "failed to get s3://b/p/sessions/gitlab-1-2-abcdef12/.../orders/000001.json: arn:aws:s3:::b/p/projects/7-.../packs"
        );
        for text in [format!("agents/{random}/start.sh"), format!("commit {random}01234567"), "sessions/a/b".to_owned()]
        {
            assert_eq!(lines(&text), text);
        }
    }
}
