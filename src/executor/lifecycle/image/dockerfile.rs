//! Reads what a Dockerfile needs of others: the images that it begins with or copies from, and the options of its `RUN`. Pure.
//!
//! Knows `ARG` before the first `FROM`, `FROM`, `COPY --from` and `RUN --mount=from=`, with continued lines, comments, heredocs and
//! the directive `escape`; everything else is the builder's. Builders do not agree on heredocs and on the directive, so the text is read in
//! each way: an image too many is pulled for nothing, one too few would give an old image for a new base.

use std::collections::BTreeMap;

/// Images of others, by the names that the Dockerfile gives them, each once. Those of stages after `target` are left out.
///
/// # Errors
/// The name of an argument that a `FROM` needs, and that has no value.
pub(super) fn bases(text: &str, args: &BTreeMap<String, String>, target: Option<&str>) -> Result<Vec<String>, String> {
    let mut readings = readings(text, &[escape(text)]).into_iter();
    let mut bases = bases_of(&readings.next().unwrap_or_default(), args, target)?;
    for reading in readings {
        // Text of a program is no instruction: `from numpy import array`.
        let others = bases_of(&reading, args, target).unwrap_or_default();
        for image in others.into_iter().filter(|image| names_registry(image)) {
            if !bases.contains(&image) {
                bases.push(image);
            }
        }
    }
    Ok(bases)
}

/// Tells that the name of an image begins with the host of a registry.
pub(super) fn names_registry(image: &str) -> bool {
    let host = image.split_once('/').map_or("", |(host, _)| host);
    host.contains(['.', ':']) || host == "localhost"
}

/// The options of each `RUN`, such as `--mount=type=bind,source=data,target=/data`, also of one behind `ONBUILD`.
pub(super) fn run_options(text: &str) -> Vec<String> {
    let mut options = Vec::new();
    // Builders that look for `escape` in the first line alone go by the backslash.
    for line in readings(text, &[escape(text), '\\']).into_iter().flatten() {
        let mut words = line.split_whitespace().skip_while(|word| word.eq_ignore_ascii_case("ONBUILD"));
        if words.next().is_some_and(|word| word.eq_ignore_ascii_case("RUN")) {
            options.extend(words.take_while(|word| word.starts_with("--")).map(str::to_owned));
        }
    }
    options.sort_unstable();
    options.dedup();
    options
}

/// The instructions by each way to read the text, with these characters that continue lines; the way of Docker first.
fn readings(text: &str, escapes: &[char]) -> Vec<Vec<String>> {
    escapes.iter().flat_map(|escape| [true, false].map(|heredocs| instructions(text, *escape, heredocs))).collect()
}

fn bases_of(
    instructions: &[String],
    args: &BTreeMap<String, String>,
    target: Option<&str>,
) -> Result<Vec<String>, String> {
    let mut globals = BTreeMap::<String, Option<String>>::new();
    let (mut stages, mut bases) = (Vec::<String>::new(), Vec::<String>::new());
    let mut is_ended = false;
    for line in instructions {
        let (instruction, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
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

/// The instructions, each on one line, without comments and, if this reading has them, heredocs.
fn instructions(text: &str, escape: char, has_heredocs: bool) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), None::<String>);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        // Empty lines and comments end no instruction.
        if line.trim_start().starts_with('#') || line.trim().is_empty() {
            continue;
        }
        // Builders join lines as they are, and keep what a continued one begins with: an option may go over two.
        let line = if open.is_some() { line } else { line.trim_start() };
        let continued = line.trim_end_matches([' ', '\t']).strip_suffix(escape);
        let instruction = open.get_or_insert_default();
        instruction.push_str(continued.unwrap_or(line));
        if continued.is_some() {
            continue;
        }
        let instruction = open.take().unwrap_or_default().trim().to_owned();
        if has_heredocs {
            for (end, indented) in heredocs_of(&instruction) {
                let is_end = |line: &str| (if indented { line.trim_start_matches('\t') } else { line }) == end;
                // A heredoc has an end; `1 << 2` has none.
                let mut rest = lines.clone();
                if rest.any(is_end) {
                    lines = rest;
                }
            }
        }
        found.push(instruction);
    }
    found.extend(open.map(|rest| rest.trim().to_owned()));
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
    #[test_case("FROM r.example/a\nRUN <<E\nFROM r.example/c\nfrom numpy import x\nE\nFROM r.example/b\n" => vec!["r.example/a", "r.example/b", "r.example/c"]; "heredoc, which some builders do not know")]
    #[test_case("FROM r.example/a\nRUN x <<-'E'\nFROM no\n\tE\n" => vec!["r.example/a"]; "heredoc with tabs")]
    #[test_case("FROM r.example/a\nRUN echo $(( 1 <<2 ))\nCOPY --from=r.example/tool:1 /v /v\n" => vec!["r.example/a", "r.example/tool:1"]; "no heredoc")]
    #[test_case("FROM r.example/a\nCOPY --fr\\\nom=r.example/b /v /v\n" => vec!["r.example/a", "r.example/b"]; "a word on two lines")]
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

    #[test_case("RUN --mount=type=cache,target=/c --network=none x --y\nCOPY --from=a /a /b\n" => vec!["--mount=type=cache,target=/c", "--network=none"]; "options")]
    #[test_case("onbuild run --mount=a x\n" => vec!["--mount=a"]; "later")]
    #[test_case("RUN --mou\\\nnt=a x\n" => vec!["--mount=a"]; "on two lines")]
    #[test_case("RUN <<E\nRUN --mount=a x\nE\n" => vec!["--mount=a"]; "heredoc")]
    #[test_case("# syntax=x\n# escape=`\nRUN x `\nRUN --mount=a x\n" => vec!["--mount=a"]; "escape")]
    #[test_case("RUN x \\\u{a0}\nRUN --mount=a x\n" => vec!["--mount=a"]; "a space that ends no line")]
    fn a_run_has_options(text: &str) -> Vec<String> {
        run_options(text)
    }

    #[test]
    fn an_argument_without_a_value_is_named() {
        assert_eq!(found("ARG OTHER\nFROM ${OTHER}\n", None), Err("OTHER".to_owned()));
        assert_eq!(found("FROM $BASE_IMAGE\n", None), Err("BASE_IMAGE".to_owned()), "it is not declared");
    }
}
