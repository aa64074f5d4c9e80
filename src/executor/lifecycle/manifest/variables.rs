//! `${VARIABLE:default}` in the strings of a manifest. Pure.
//!
//! Values go into tags and into fields of AWS that many people read, so variables that hold secrets are refused.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::places::join;

/// The strings that a manifest has after its variables were put in.
#[derive(Debug, Default)]
pub(super) struct Expanded {
    /// Paths of strings that were one variable: those may stand for a number or a truth value.
    pub(super) whole: BTreeSet<String>,
    /// Path and text of each mistake.
    pub(super) mistakes: Vec<(String, String)>,
}

impl Expanded {
    /// Puts the variables into each string of `value`; the names of keys stay.
    pub(super) fn expand<'a>(&mut self, value: &mut Value, path: &str, variable: &impl Fn(&str) -> Option<&'a str>) {
        match value {
            Value::String(text) => match expand(text, variable) {
                Ok((expanded, is_whole)) => {
                    *text = expanded;
                    if is_whole {
                        self.whole.insert(path.to_owned());
                    }
                }
                Err(mistake) => self.mistakes.push((path.to_owned(), mistake)),
            },
            Value::Array(entries) => {
                for (number, entry) in entries.iter_mut().enumerate() {
                    self.expand(entry, &join(path, &number.to_string()), variable);
                }
            }
            Value::Object(entries) => {
                for (name, entry) in entries.iter_mut() {
                    self.expand(entry, &join(path, name), variable);
                }
            }
            _ => {}
        }
    }
}

/// The text with its variables, and whether it was one variable and nothing else.
fn expand<'a>(text: &str, variable: &impl Fn(&str) -> Option<&'a str>) -> Result<(String, bool), String> {
    let (mut expanded, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let (inner, after) = after
                .split_once('}')
                .ok_or("`${` has no `}`: write `${NAME:default}`, or `$${` for the text itself")?;
            expanded.push_str(&value_of(inner, variable)?);
            if rest.len() == text.len() && before.is_empty() && after.is_empty() {
                return Ok((expanded, true));
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    Ok((expanded, false))
}

/// The value of `NAME` or `NAME:default`. An empty variable has no value, as in a shell's `${NAME:-default}`.
fn value_of<'a>(inner: &str, variable: &impl Fn(&str) -> Option<&'a str>) -> Result<String, String> {
    let (name, default) = inner.split_once(':').map_or((inner, None), |(name, default)| (name, Some(default)));
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    if !is_name {
        return Err("the name of a variable has letters, digits and `_`: write `${NAME:default}`".to_owned());
    }
    if is_secret_name(name) {
        return Err(format!("the variable `{name}` holds a secret, and the manifest's values are readable in AWS"));
    }
    match variable(name).filter(|value| !value.is_empty()).or(default) {
        None => Err(format!("the variable `{name}` is not set: set it in the job, or write `${{{name}:default}}`")),
        Some(value) if holds_secret(value) => Err(format!(
            "the value of the variable `{name}` looks like a secret, and the manifest's values are readable in AWS"
        )),
        Some(value) => Ok(value.to_owned()),
    }
}

/// Whether a variable of this name holds a secret. The id of a KMS key is none.
pub(crate) fn is_secret_name(name: &str) -> bool {
    SECRET_NAME.is_match(name) && !name.to_ascii_uppercase().ends_with("KMS_KEY")
}

/// Whether a text has a secret in one of the known forms.
pub(crate) fn holds_secret(text: &str) -> bool {
    SECRET_VALUE.is_match(text)
}

/// Names of variables that hold secrets, of GitLab, of AWS, of Docker and by custom. A `TOKENIZER` holds no token.
static SECRET_NAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        "(?i)TOKEN([^I]|$)|PASS|SECRET|PRIVATE_KEY|API_?KEY|ACCESS_?KEY|_KEY$|CREDENTIAL|_JWT|^AWS_.*KEY|^DOCKER_AUTH_CONFIG$|^CI_REPOSITORY_URL$",
    )
    .expect("a unit test compiles it")
});

/// Values that are secrets: JSON web tokens, tokens of GitLab, GitHub, Slack, Hugging Face and `OpenAI`, AWS's access keys, private keys,
/// and passwords in an address.
static SECRET_VALUE: LazyLock<Regex> = LazyLock::new(|| {
    let forms = [
        r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.",
        r"gl(pat|cbt|dt|rt|rtr|ptt|oas|soat|ft|imt|agent|ffct)-[A-Za-z0-9_-]{8,}",
        r"GR1348941[A-Za-z0-9_-]{8,}",
        r"gh[pousr]_[A-Za-z0-9]{16,}",
        r"github_pat_[A-Za-z0-9_]{16,}",
        r"A(KIA|SIA)[A-Z0-9]{16}",
        r"xox[a-z]-[A-Za-z0-9-]{8,}",
        r"\bhf_[A-Za-z0-9]{16,}",
        r"\bsk-[A-Za-z0-9_-]{16,}",
        r"PRIVATE KEY-----",
        r"://[^/\s:@]*:[^/\s@]+@",
    ];
    Regex::new(&forms.join("|")).expect("a unit test compiles it")
});

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn expanded(text: &str) -> Result<(String, bool), String> {
        let variable = |name: &str| match name {
            "NAME" => Some("churn"),
            "EMPTY" => Some(""),
            "CI_JOB_TOKEN" | "API_PASSWORD" | "AWS_ACCESS_KEY_ID" => Some("s3cret"),
            "CLAIMS" => Some("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.s3cret"),
            "ORIGIN" => Some("https://user:s3cret@gitlab.example.com/a.git"),
            _ => None,
        };
        expand(text, &variable)
    }

    #[test_case("plain" => ("plain".to_owned(), false))]
    #[test_case("${NAME}" => ("churn".to_owned(), true); "whole")]
    #[test_case("a-${NAME}-${OTHER:b}" => ("a-churn-b".to_owned(), false); "parts")]
    #[test_case("${NAME}${NAME}" => ("churnchurn".to_owned(), false); "two")]
    #[test_case("${OTHER:}" => (String::new(), true); "empty default")]
    #[test_case("${EMPTY:x:y}" => ("x:y".to_owned(), true); "an empty variable has no value")]
    #[test_case("$${NAME} $NAME 5$" => ("${NAME} $NAME 5$".to_owned(), false); "dollars")]
    fn a_string_is(text: &str) -> (String, bool) {
        expanded(text).unwrap()
    }

    #[test_case("${OTHER}" => "the variable `OTHER` is not set: set it in the job, or write `${OTHER:default}`"; "unset")]
    #[test_case("${EMPTY}" => "the variable `EMPTY` is not set: set it in the job, or write `${EMPTY:default}`"; "empty")]
    #[test_case("${NAME" => "`${` has no `}`: write `${NAME:default}`, or `$${` for the text itself"; "open")]
    #[test_case("${A-B}" => "the name of a variable has letters, digits and `_`: write `${NAME:default}`"; "name")]
    fn a_mistake_names_the_variable(text: &str) -> String {
        expanded(text).unwrap_err()
    }

    #[test_case("CI_JOB_TOKEN")]
    #[test_case("API_PASSWORD")]
    #[test_case("AWS_ACCESS_KEY_ID")]
    #[test_case("CLAIMS")]
    #[test_case("ORIGIN")]
    #[test_case("CI_REPOSITORY_URL")]
    fn a_secret_is_refused_by_name_and_not_shown(name: &str) {
        let error = expanded(&format!("${{{name}:x}}")).unwrap_err();
        assert!(error.contains(&format!("`{name}`")) && error.contains("secret,"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn secrets_are_known_by_their_names_and_nothing_else_is_refused() {
        for name in [
            "DB_PASS",
            "MYSQL_PASSWD",
            "passphrase",
            "DOCKER_AUTH_CONFIG",
            "MY_ACCESS_KEY_ID",
            "TOKEN_OF_CI",
            "SSH_KEY",
            "CREDENTIAL_FILE",
            "TOKEN",
            "client_secret",
            "ACCESSKEY",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["TOKENIZER", "KMS_KEY", "MODEL_KMS_KEY", "CI_COMMIT_SHA", "MODEL_KEY_METRIC"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn secrets_are_known_by_their_values_and_nothing_else_is_refused() {
        let random = "x".repeat(20);
        let of_gitlab = "glft- glimt- glagent- glffct- GR1348941 glptt- glrt- glcbt- gldt- gloas- glsoat- glpat-";
        let others = "ghp_ gho_ github_pat_ xoxb- xoxp- hf_ sk-";
        for start in of_gitlab.split(' ').chain(others.split(' ')) {
            assert!(SECRET_VALUE.is_match(&format!("{start}{random}")), "{start}");
        }
        for start in ["AKIA", "ASIA"] {
            assert!(SECRET_VALUE.is_match(&format!("key:{start}{}", "A1".repeat(8))), "{start}");
        }
        for value in
            ["arn:aws:iam::123456789012:role/serve", "risk-management-of-the-bank", "wine", "https://example.com:80/a"]
        {
            assert!(!SECRET_VALUE.is_match(value), "{value}");
        }
    }
}
