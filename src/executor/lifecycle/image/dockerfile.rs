//! The images of others that a Dockerfile begins with or copies from. Pure.
//!
//! Knows `ARG` before the first `FROM`, `FROM`, `COPY --from` and `RUN --mount=from=`, with continued lines, comments, heredocs and
//! the directive `escape`; everything else is the builder's.

use std::collections::BTreeMap;

/// Images of others, by the names that the Dockerfile gives them, each once, in their order. Those of stages after `target` are left out.
///
/// # Errors
/// The name of an argument that a `FROM` needs, and that has no value.
pub(super) fn bases(text: &str, args: &BTreeMap<String, String>, target: Option<&str>) -> Result<Vec<String>, String> {
    let mut globals = BTreeMap::<String, Option<String>>::new();
    let (mut stages, mut bases) = (Vec::<String>::new(), Vec::<String>::new());
    let mut is_ended = false;
    for line in instructions(text) {
        let (instruction, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        let mut found = Vec::new();
        match instruction.to_ascii_uppercase().as_str() {
            "ARG" if stages.is_empty() => {
                for declared in rest.split_whitespace() {
                    let (name, default) = declared.split_once('=').map_or((declared, None), |(a, b)| (a, Some(b)));
                    let default = default.map(|text| expand(&unquoted(text), &globals)).transpose().ok().flatten();
                    globals.insert(name.to_owned(), args.get(name).cloned().or(default));
                }
            }
            "FROM" => {
                if is_ended {
                    break;
                }
                let words: Vec<_> = rest.split_whitespace().filter(|word| !word.starts_with("--")).collect();
                let image = expand(&unquoted(words.first().copied().unwrap_or_default()), &globals)?;
                let name = words.get(2).filter(|_| words.get(1).is_some_and(|word| word.eq_ignore_ascii_case("as")));
                if !stages.contains(&image.to_lowercase()) && image != "scratch" && !image.is_empty() {
                    found.push(image);
                }
                let name = name.map_or_else(|| stages.len().to_string(), |name| name.to_lowercase());
                let number = stages.len().to_string();
                is_ended = target.is_some_and(|target| target.to_lowercase() == name || target == number);
                stages.push(name);
            }
            "COPY" | "ADD" | "RUN" => {
                let sources = rest.split_whitespace().take_while(|word| word.starts_with("--")).filter_map(sources);
                let is_stage = |name: &str| {
                    stages.contains(&name.to_lowercase())
                        || name.parse::<usize>().is_ok_and(|number| number < stages.len())
                };
                found.extend(sources.filter(|name| !is_stage(name)).map(str::to_owned));
            }
            _ => {}
        }
        for image in found {
            if !bases.contains(&image) {
                bases.push(image);
            }
        }
    }
    Ok(bases)
}

/// The names after `from=` in an option.
fn sources(option: &str) -> Option<&str> {
    if let Some(name) = option.strip_prefix("--from=") {
        return Some(name);
    }
    option.strip_prefix("--mount=")?.split(',').find_map(|part| part.strip_prefix("from="))
}

fn unquoted(text: &str) -> String {
    text.trim_matches(['"', '\'']).to_owned()
}

/// The instructions, each on one line, without comments and heredocs.
fn instructions(text: &str) -> Vec<String> {
    let escape = escape(text);
    let (mut found, mut open, mut heredocs) = (Vec::new(), String::new(), Vec::<(String, bool)>::new());
    for line in text.lines() {
        if let Some((end, indented)) = heredocs.first() {
            if (if *indented { line.trim_start_matches('\t') } else { line }) == end {
                heredocs.remove(0);
            }
            continue;
        }
        let trimmed = line.trim();
        // Empty lines and comments end no instruction.
        if trimmed.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        if let Some(continued) = trimmed.strip_suffix(escape) {
            open.push_str(continued);
            open.push(' ');
            continue;
        }
        open.push_str(trimmed);
        heredocs = heredocs_of(&open);
        found.push(std::mem::take(&mut open));
    }
    if !open.is_empty() {
        found.push(open);
    }
    found
}

/// The character that continues lines: `# escape=` in the first lines may name a backquote.
fn escape(text: &str) -> char {
    let directives = text.lines().map_while(|line| line.trim().strip_prefix('#')?.split_once('='));
    let mut named = directives.filter(|(name, _)| name.trim().eq_ignore_ascii_case("escape"));
    if named.any(|(_, value)| value.trim() == "`") { '`' } else { '\\' }
}

/// The ends of the heredocs that an instruction begins, and whether tabs may stand before them.
fn heredocs_of(line: &str) -> Vec<(String, bool)> {
    let instruction = line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    if !["RUN", "COPY", "ADD"].contains(&instruction.as_str()) {
        return Vec::new();
    }
    let begins = line.split("<<").skip(1).filter(|rest| !rest.starts_with('<'));
    let end = |rest: &str| {
        let (rest, indented) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
        let word = rest.split_whitespace().next()?.trim_matches(['"', '\'']);
        let is_word = !word.is_empty() && word.chars().all(|one| one.is_alphanumeric() || one == '_');
        is_word.then(|| (word.to_owned(), indented))
    };
    begins.filter_map(end).collect()
}

/// Puts arguments into a text: `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+other}`.
fn expand(text: &str, globals: &BTreeMap<String, Option<String>>) -> Result<String, String> {
    let (mut expanded, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, operator, word, after) = if let Some(inner) = after.strip_prefix('{') {
            let (inner, after) = inner.split_once('}').unwrap_or((inner, ""));
            let at = inner.find([':', '-', '+']).unwrap_or(inner.len());
            let (name, tail) = inner.split_at(at);
            let tail = tail.strip_prefix(':').unwrap_or(tail);
            let word = tail.get(1..).unwrap_or_default();
            (name, tail.chars().next(), word, after)
        } else {
            let end = after.find(|one: char| !one.is_ascii_alphanumeric() && one != '_').unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            (name, None, "", after)
        };
        let value = globals.get(name).cloned().flatten().filter(|value| !value.is_empty());
        match (value, operator) {
            (Some(_), Some('+')) | (None, Some('-')) => expanded.push_str(word),
            (Some(value), _) => expanded.push_str(&value),
            (None, Some('+')) => {}
            (None, _) => return Err(name.to_owned()),
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn found(text: &str, target: Option<&str>) -> Result<Vec<String>, String> {
        let args = BTreeMap::from([("BASE_IMAGE".to_owned(), "r.example/base@sha256:0".to_owned())]);
        bases(text, &args, target)
    }

    #[test_case("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n" => vec!["r.example/base@sha256:0"]; "argument")]
    #[test_case("# syntax=x\narg BASE_IMAGE=other\nfrom --platform=linux/amd64 $BASE_IMAGE as b\n" => vec!["r.example/base@sha256:0"]; "small letters")]
    #[test_case("ARG A=\"r.example/a\"\nARG V=1\nFROM $A:${V}\n" => vec!["r.example/a:1"]; "defaults")]
    #[test_case("FROM ${A:-r.example/a:2}\nFROM r.example/b${X:+y}\n" => vec!["r.example/a:2", "r.example/b"]; "operators")]
    #[test_case("FROM r.example/a AS one\nFROM One\nCOPY --from=one /a /b\nCOPY --from=0 /a /b\nCOPY --from=r.example/tool:1 /t /t\n" => vec!["r.example/a", "r.example/tool:1"]; "stages")]
    #[test_case("FROM scratch\nRUN --mount=type=bind,from=r.example/m,target=/m --network=none x\n" => vec!["r.example/m"]; "mount")]
    #[test_case("FROM r.example/a\nRUN x \\\n # comment\n\nFROM r.example/no\nFROM r.example/b\n" => vec!["r.example/a", "r.example/b"]; "continued")]
    #[test_case("# escape=`\nFROM r.example/a\nRUN x `\nFROM r.example/no\n" => vec!["r.example/a"]; "escape")]
    #[test_case("FROM r.example/a\nRUN <<E\nFROM r.example/no\nE\nFROM r.example/b\n" => vec!["r.example/a", "r.example/b"]; "heredoc")]
    #[test_case("FROM r.example/a\nRUN x <<-'E'\nFROM r.example/no\n\tE\n" => vec!["r.example/a"]; "heredoc with tabs")]
    fn a_dockerfile_needs(text: &str) -> Vec<String> {
        found(text, None).unwrap()
    }

    #[test]
    fn stages_after_the_target_need_nothing() {
        let text =
            "FROM r.example/a AS one\nFROM r.example/b AS two\nCOPY --from=r.example/t /a /a\nFROM r.example/c\n";
        assert_eq!(found(text, Some("Two")).unwrap(), ["r.example/a", "r.example/b", "r.example/t"]);
        assert_eq!(found(text, Some("0")).unwrap(), ["r.example/a"]);
    }

    #[test]
    fn an_argument_without_a_value_is_named() {
        assert_eq!(found("ARG OTHER\nFROM ${OTHER}\n", None), Err("OTHER".to_owned()));
        assert_eq!(found("FROM $BASE_IMAGE\n", None), Err("BASE_IMAGE".to_owned()), "it is not declared");
    }
}
