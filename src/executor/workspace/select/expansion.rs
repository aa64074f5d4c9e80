//! Expands a job's paths as a shell does within double quotes, which GitLab Runner's helper does before it searches. Only expansions
//! without a shell and an environment are supported; variables can be replaced beforehand.

/// The path as the helper expands it; `None` when that needs the environment or more of a shell.
pub(crate) fn expanded(path: &str) -> Option<Vec<u8>> {
    let mut plain = String::with_capacity(path.len());
    // Line ends are converted first.
    let path = path.replace("\r\n", "\n");
    let mut rest = path.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '$' if matches!(rest.peek(), None | Some('/' | '.')) => plain.push('$'),
            '$' | '`' => return None,
            '\\' if rest.next_if_eq(&'\n').is_some() => {}
            '\\' => plain.push(rest.next_if(|next| matches!(next, '\\' | '$' | '`')).unwrap_or('\\')),
            _ => plain.push(character),
        }
    }
    Some(plain.into_bytes())
}

/// Replaces plain variables, `$NAME` and `${NAME}`, by their values from `value`, escaped so that [`expanded`] does not change them.
/// Adds the names to `variables`.
pub(crate) fn with_values(path: &str, value: &dyn Fn(&str) -> Option<String>, variables: &mut Vec<String>) -> String {
    let mut replaced = String::new();
    let mut rest = path;
    while let Some(at) = rest.find(['$', '\\']) {
        let (before, from) = rest.split_at(at);
        replaced.push_str(before);
        let length = match plain_variable(from) {
            Some((name, length)) => match value(name).filter(|value| !value.contains(char::is_control)) {
                Some(value) => {
                    for character in value.chars() {
                        if matches!(character, '\\' | '$' | '`') {
                            replaced.push('\\');
                        }
                        replaced.push(character);
                    }
                    variables.push(name.to_owned());
                    rest = &from[length..];
                    continue;
                }
                None => length,
            },
            // A backslash is copied with the character after it.
            None => from.chars().take(if from.starts_with('$') { 1 } else { 2 }).map(char::len_utf8).sum(),
        };
        let (same, after) = from.split_at(length);
        replaced.push_str(same);
        rest = after;
    }
    replaced + rest
}

/// The name and total length of the `$NAME` or `${NAME}` at the start of `text`.
fn plain_variable(text: &str) -> Option<(&str, usize)> {
    let after = text.strip_prefix('$')?;
    let inner = after.strip_prefix('{').unwrap_or(after);
    let end = inner.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(inner.len());
    let (name, rest) = inner.split_at(end);
    if name.is_empty() || name.starts_with(|letter: char| letter.is_ascii_digit()) || name == "_" {
        return None;
    }
    let braces = after.len() - inner.len();
    (braces == 0 || rest.starts_with('}')).then_some((name, 1 + name.len() + 2 * braces))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("a b*", Some("a b*"))]
    #[test_case(r"a\\b", Some(r"a\b"); "one of two backslashes")]
    #[test_case(r"\*", Some(r"\*"); "a backslash before anything else stays")]
    #[test_case(r"\$A\`", Some("$A`"); "quoted")]
    #[test_case("a\\\nb", Some("ab"); "a line goes on")]
    #[test_case("a\r\nb", Some("a\nb"); "line ends")]
    #[test_case("a\\", Some("a\\"); "a backslash at the end")]
    #[test_case("a$", Some("a$"); "a dollar at the end")]
    #[test_case("a$/b$.c", Some("a$/b$.c"); "a dollar before no name")]
    #[test_case("$A", None; "a variable")]
    #[test_case("${A:-b}", None; "a variable or else")]
    #[test_case("$(pwd)", None; "a command")]
    #[test_case("`pwd`", None; "a command in backquotes")]
    #[test_case("$1", None; "a parameter")]
    fn a_path_is_expanded_once(path: &str, expected: Option<&str>) {
        assert_eq!(expanded(path), expected.map(|path| path.as_bytes().to_vec()));
    }

    #[test_case("$A/x", "v/x", &["A"]; "plain")]
    #[test_case("${A}x$A", "vxv", &["A", "A"]; "braces")]
    #[test_case("$Ax", "$Ax", &[]; "another name")]
    #[test_case("${A:-b}$(A)${A", "${A:-b}$(A)${A", &[]; "more than a name")]
    #[test_case(r"\$A", r"\$A", &[]; "quoted")]
    #[test_case(r"\\$A", r"\\v", &["A"]; "after a quoted backslash")]
    #[test_case("$ODD", r"a\\b\$A\`*", &["ODD"]; "a value stays as it is")]
    #[test_case("$LINES", "$LINES", &[]; "control characters")]
    #[test_case("$UNKNOWN$A\u{e9}$\u{e9}", "$UNKNOWNv\u{e9}$\u{e9}", &["A"]; "unknown")]
    #[test_case("$", "$", &[]; "nothing but a dollar")]
    #[test_case("\\", "\\", &[]; "nothing but a backslash")]
    #[test_case("$_ $1", "$_ $1", &[]; "names of the shell")]
    fn values_take_the_place_of_variables(path: &str, expected: &str, names: &[&str]) {
        let value = |name: &str| match name {
            "A" => Some("v".to_owned()),
            "ODD" => Some(r"a\b$A`*".to_owned()),
            "LINES" => Some("a\r\nb".to_owned()),
            _ => None,
        };
        let mut variables = Vec::new();
        assert_eq!(with_values(path, &value, &mut variables), expected);
        assert_eq!(variables, names);
        if !names.is_empty() && !expected.contains("UNKNOWN") {
            assert!(expanded(expected).is_some());
        }
    }

    #[test]
    fn a_value_comes_out_as_it_went_in() {
        let value = r"a\b$A`c\\*";
        let path = with_values("$X", &|_| Some(value.to_owned()), &mut Vec::new());
        assert_eq!(expanded(&path).unwrap(), value.as_bytes());
    }
}
