//! The variables of a job in the runner's order of precedence, expanded once.

use serde_json::Value;

use super::super::job::Variable;

#[derive(Debug, Clone, Default)]
pub(super) struct Variables {
    list: Vec<Variable>,
    /// Where file variables are written.
    folder: String,
}

impl Variables {
    /// Expands `raw`; references to a file variable become its path below `folder`.
    pub(super) fn expand(raw: Vec<Variable>, folder: &str) -> Self {
        let source = Self { list: raw, folder: folder.to_owned() };
        let list = source.list.iter().map(|variable| {
            let mut variable = variable.clone();
            if !variable.raw {
                variable.value = source.expand_text(&variable.value);
            }
            variable
        });
        Self { list: list.collect(), folder: folder.to_owned() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Variable> {
        self.list.iter()
    }

    /// The value of the last variable of that name; the path of a file variable.
    pub(super) fn get(&self, key: &str) -> String {
        match self.list.iter().rev().find(|variable| variable.key == key) {
            Some(variable) if variable.file => format!("{}/{key}", self.folder),
            Some(variable) => variable.value.clone(),
            None => String::new(),
        }
    }

    pub(super) fn is_on(&self, key: &str) -> bool {
        matches!(self.get(key).to_ascii_lowercase().as_str(), "true" | "1" | "t")
    }

    /// A number, or the default when it is absent or none.
    pub(super) fn number(&self, key: &str, default: usize) -> usize {
        self.get(key).parse().unwrap_or(default)
    }

    pub(super) fn set(&mut self, key: &str, value: &str) {
        for variable in self.list.iter_mut().filter(|variable| variable.key == key) {
            value.clone_into(&mut variable.value);
        }
    }

    pub(super) fn masked(&self) -> Vec<String> {
        let masked = self.list.iter().filter(|variable| variable.masked && !variable.value.is_empty());
        masked.map(|variable| variable.value.clone()).collect()
    }

    /// Replaces `$NAME` and `${NAME}` as Go's `os.Expand` does; unknown names become nothing, `$$` becomes `$`.
    pub(super) fn expand_text(&self, text: &str) -> String {
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            result.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(braced) = rest.strip_prefix('{') {
                match braced.split_once('}') {
                    Some((name, after)) => {
                        result.push_str(&self.get(name));
                        rest = after;
                    }
                    None => rest = braced,
                }
                continue;
            }
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let first = rest.chars().next();
            match first {
                Some('$') => {
                    result.push('$');
                    rest = &rest[1..];
                }
                Some('*' | '#' | '@' | '!' | '?' | '-' | '0'..='9') => rest = &rest[1..],
                Some(c) if is_name(c) => {
                    let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                    result.push_str(&self.get(&rest[..end]));
                    rest = &rest[end..];
                }
                _ => result.push('$'),
            }
        }
        result.push_str(rest);
        result
    }
}

/// The variables of a payload, as GitLab sent them.
pub(super) fn of_payload(payload: &Value) -> Vec<Variable> {
    let flag = |value: &Value, key: &str| value[key].as_bool().unwrap_or_default();
    let list = payload["variables"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|value| Variable {
            key: value["key"].as_str().unwrap_or_default().to_owned(),
            value: value["value"].as_str().unwrap_or_default().to_owned(),
            public: flag(value, "public"),
            file: flag(value, "file"),
            masked: flag(value, "masked"),
            raw: flag(value, "raw"),
        })
        .collect()
}

#[test]
fn values_expand_once_and_raw_ones_never() {
    let raw = vec![
        Variable::new("A", "a"),
        Variable::new("B", "${A}-$A-$MISSING-$$"),
        Variable::new("C", "$B"),
        Variable::new("D", "$A").raw(),
        Variable::new("F", "content").file(),
        Variable::new("G", "at $F."),
        Variable::new("A", "last"),
    ];
    let variables = Variables::expand(raw, "/tmp/p.tmp");
    assert_eq!(variables.get("B"), "last-last--$");
    assert_eq!(variables.get("C"), "${A}-$A-$MISSING-$$");
    assert_eq!((variables.get("D").as_str(), variables.get("G").as_str()), ("$A", "at /tmp/p.tmp/F."));
}
