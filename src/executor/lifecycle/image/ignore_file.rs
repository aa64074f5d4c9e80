//! Patterns of `.dockerignore`, as Docker reads them. Pure.

use regex::Regex;

use crate::base::failure::Failure;
use crate::base::plain;

/// Most patterns of a file.
const MOST_PATTERNS: usize = 2000;

/// The patterns of a file; of several that match a path the last one decides.
#[derive(Debug, Default)]
pub(super) struct IgnoreFile {
    patterns: Vec<(Regex, bool)>,
}

impl IgnoreFile {
    /// # Errors
    /// Failures of the user: a line that is no pattern.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, Failure> {
        let mut patterns = Vec::new();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (line, excepts) = line.strip_prefix('!').map_or((line, false), |rest| (rest.trim(), true));
            let clean = clean(line);
            if clean.is_empty() {
                continue;
            }
            let wrong = |why: &str| {
                Failure::user(format!("line {} of {name} is no pattern: {why}", number + 1))
                    .hint(format!("change `{}` in {name}", plain::line(line, 100)))
            };
            let pattern = expression(&clean).ok_or_else(|| wrong("a `[` has no `]`"))?;
            patterns.push((Regex::new(&pattern).map_err(|_| wrong("a range of characters is wrong"))?, excepts));
            if patterns.len() > MOST_PATTERNS {
                return Err(wrong(&format!("there are more than {MOST_PATTERNS}")));
            }
        }
        Ok(Self { patterns })
    }

    /// Tells that a path, relative to the context and with `/` between its parts, is left out.
    pub(super) fn leaves_out(&self, path: &str) -> bool {
        let mut is_out = false;
        for (pattern, excepts) in &self.patterns {
            if is_out == *excepts && matches(pattern, path) {
                is_out = !excepts;
            }
        }
        is_out
    }

    /// Tells that files of a folder that is left out may be wanted all the same.
    pub(super) fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|(_, excepts)| *excepts)
    }
}

/// Compares the path, and each folder above it.
fn matches(pattern: &Regex, path: &str) -> bool {
    let folders = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
    folders.chain([path]).any(|path| pattern.is_match(path))
}

/// The path without `.`, `..`, doubled slashes and the slashes at its ends.
fn clean(line: &str) -> String {
    let mut parts = Vec::new();
    for part in line.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The regular expression of a pattern.
fn expression(pattern: &str) -> Option<String> {
    let mut expression = "(?s)^".to_owned();
    let mut rest = pattern.chars().peekable();
    while let Some(one) = rest.next() {
        match one {
            '*' if rest.peek() == Some(&'*') => {
                rest.next();
                if rest.peek() == Some(&'/') {
                    rest.next();
                    expression.push_str("(.*/)?");
                } else {
                    expression.push_str(".*");
                }
            }
            '*' => expression.push_str("[^/]*"),
            '?' => expression.push_str("[^/]"),
            '[' => {
                let mut class = String::new();
                loop {
                    match rest.next()? {
                        ']' => break,
                        '\\' => class.push_str(&regex::escape(&rest.next()?.to_string())),
                        one @ ('[' | '&' | '~') => class.extend(['\\', one]),
                        one => class.push(one),
                    }
                }
                expression.extend(["[", &class, "]"]);
            }
            '\\' => expression.push_str(&regex::escape(&rest.next().unwrap_or('\\').to_string())),
            one => expression.push_str(&regex::escape(&one.to_string())),
        }
    }
    expression.push('$');
    Some(expression)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("*.pyc", &["a.pyc"], &["a/b.pyc", "a.py"]; "one star")]
    #[test_case("**/*.pyc", &["a.pyc", "a/b/c.pyc"], &["a.py"]; "two stars")]
    #[test_case("/data/", &["data", "data/x/y"], &["a/data", "data2"]; "folder")]
    #[test_case("# comment\n\n  ./a//b  \n", &["a/b", "a/b/c"], &["a", "ab"]; "cleaned")]
    #[test_case("*\n!src\n!*.txt\nsrc/no", &["a", "src/no/x", "b/c.txt2"], &["src", "src/a", "x.txt"]; "exceptions")]
    #[test_case("a?[0-9]\\*", &["ab1*"], &["a/1*", "ab1x", "abx*"]; "classes")]
    #[test_case("docs/**", &["docs/a/b"], &["docs"]; "all below")]
    #[test_case("!a\na", &["a"], &[]; "the last one decides")]
    fn patterns_leave_out(text: &str, out: &[&str], kept: &[&str]) {
        let file = IgnoreFile::parse(".dockerignore", text).unwrap();
        assert_eq!(out.iter().filter(|path| !file.leaves_out(path)).collect::<Vec<_>>(), Vec::<&&str>::new());
        assert_eq!(kept.iter().filter(|path| file.leaves_out(path)).collect::<Vec<_>>(), Vec::<&&str>::new());
    }

    #[test]
    fn a_line_that_is_no_pattern_is_named() {
        let error = IgnoreFile::parse(".dockerignore", "a\nb[0").unwrap_err();
        assert_eq!(error.message(), "line 2 of .dockerignore is no pattern: a `[` has no `]`");
        assert!(IgnoreFile::parse(".dockerignore", "a[z-a]").is_err());
        assert!(IgnoreFile::parse(".dockerignore", &"a\n".repeat(MOST_PATTERNS + 1)).is_err());
    }
}
