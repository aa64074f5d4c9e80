//! Names of metrics with their labels, as `accuracy{split="test"}`: in OpenMetrics and in rules. No I/O.

use std::collections::BTreeMap;

/// The labels in braces at the start of the text, and what follows them. `None`: they are not well-formed, or a name is there twice.
pub(super) fn parse_labels(text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    let mut rest = text.strip_prefix('{')?.trim_start();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once('=')?;
        let name = name.trim();
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let (value, after) = quoted(after.trim_start())?;
        if !is_name || labels.insert(name.to_owned(), value).is_some() {
            return None;
        }
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with('}') => {}
            None => return None,
        }
    }
}

/// The text in double quotes at the start, with `\\`, `\"` and `\n` resolved, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.strip_prefix('"')?.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 2..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                _ => return None,
            },
            c => value.push(c),
        }
    }
    None
}

/// A metric by its name, and by labels where several have this name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Selector {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
}

impl Selector {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (name, labels) = match text.find('{') {
            Some(at) => {
                let (labels, rest) = parse_labels(&text[at..])?;
                if !rest.is_empty() {
                    return None;
                }
                (text[..at].trim_end(), labels)
            }
            None => (text, BTreeMap::new()),
        };
        let is_name = !name.is_empty() && !name.contains(|c: char| c.is_control() || "<>=!}\"".contains(c));
        is_name.then(|| Self { name: name.to_owned(), labels })
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        let labels: Vec<_> = self.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        if labels.is_empty() { Ok(()) } else { write!(f, "{{{}}}", labels.join(",")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_with_their_escapes() {
        let (labels, rest) = parse_labels(r#"{ a="x" , b = "y\"\\\n}" } 1"#).unwrap();
        let expected = [("a", "x"), ("b", "y\"\\\n}")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!((labels, rest), (BTreeMap::from(expected), " 1"));
        assert_eq!(parse_labels("{}"), Some((BTreeMap::new(), "")));
        for wrong in
            ["", "{", "{a}", "{a=x}", "{a=\"x}", "{a=\"x\" b=\"y\"}", "{a=\"x\",a=\"x\"}", "{=\"x\"}", "{a=\"\\x\"}"]
        {
            assert_eq!(parse_labels(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_metric_is_shown_as_it_is_written() {
        for text in ["accuracy", "weighted avg.f1-score", "acc{split=\"test\"}", "acc{a=\"1\",b=\"2\"}"] {
            assert_eq!(Selector::parse(text).unwrap().to_string(), text);
        }
        for wrong in ["", " ", "{a=\"b\"}", "a{", "a{b=\"c\"}d", "a=b", "a!", "a\nb"] {
            assert_eq!(Selector::parse(wrong), None, "{wrong}");
        }
    }
}
