//! The form in which jobs name a secret: `id#field`, `id?version_stage=AWSPREVIOUS#field`. Pure.
//!
//! A name may hold `@`, `:` occurs in an ARN, and neither holds `?` or `#`: so label and field are written as in a URI.

use serde::Serialize;

use crate::base::arn::Arn;

/// The form, for people.
pub const FORM: &str = "`<name or ARN>`, then `#<field>` for one field of a JSON object; `?version_stage=AWSPREVIOUS` before it for an earlier version";
const VERSION_STAGE: &str = "version_stage=";
/// Longest name (`CreateSecret`, `Name`).
const NAME: usize = 512;
/// Longest id (`GetSecretValue`, `SecretId`).
const ID: usize = 2048;
/// Longest staging label (`GetSecretValue`, `VersionStage`).
const LABEL: usize = 256;
/// Longest name of a field: the executor's own limit.
const FIELD: usize = 256;

/// A secret, and the part of it that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretReference {
    /// Name or ARN.
    pub id: String,
    /// Staging label; the current version when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_stage: Option<String>,
    /// Key of the JSON object in the secret; the whole content when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl SecretReference {
    /// `Err` says in words what is wrong, as the end of a sentence that begins with the variable's name.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (place, field) = match text.split_once('#') {
            Some((place, field)) => (place, Some(field)),
            None => (text, None),
        };
        let (id, query) = match place.split_once('?') {
            Some((id, query)) => (id, Some(query)),
            None => (place, None),
        };
        if !is_name(id) && !is_arn(id) {
            return Err(
                "names no secret: a name has letters, digits and `/_+=.@-`, an ARN the form `arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME`",
            );
        }
        let label = query
            .map(|query| query.strip_prefix(VERSION_STAGE).ok_or("has another part than `version_stage` after `?`"));
        let label = label.transpose()?;
        if label.is_some_and(|label| !is_printed(label, LABEL)) {
            return Err("names no staging label after `version_stage=`");
        }
        if field.is_some_and(|field| !is_printed(field, FIELD)) {
            return Err("names no field after `#`");
        }
        Ok(Self { id: id.to_owned(), version_stage: label.map(str::to_owned), field: field.map(str::to_owned) })
    }

    /// The ARN's parts, when the id is one.
    pub fn arn(&self) -> Option<Arn<'_>> {
        Arn::parse(&self.id)
    }

    /// `true` when an answer is of this secret. AWS ends an ARN with a hyphen and six characters, which an id may leave out.
    pub(super) fn is_of(&self, arn: &str, name: &str) -> bool {
        let without_suffix = || arn.get(..arn.len().saturating_sub(7));
        match self.arn() {
            Some(_) => self.id == arn || without_suffix() == Some(&self.id),
            None => self.id == name,
        }
    }
}

fn is_name(id: &str) -> bool {
    (1..=NAME).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte))
}

fn is_arn(id: &str) -> bool {
    let Some(Arn { partition, service, region, account, resource }) = Arn::parse(id) else { return false };
    let is_word = |word: &str| word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    id.len() <= ID
        && partition.starts_with("aws")
        && is_word(partition)
        && service == "secretsmanager"
        && !region.is_empty()
        && is_word(region)
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && resource.strip_prefix("secret:").is_some_and(is_name)
}

fn is_printed(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:ci/churn-AbCdEf";

    #[test]
    fn an_id_may_have_a_label_and_a_field() {
        let of = |text: &str| {
            let SecretReference { id, version_stage, field } = SecretReference::parse(text).unwrap();
            (id, version_stage.unwrap_or_default(), field.unwrap_or_default())
        };
        let parts = |id: &str, label: &str, field: &str| (id.to_owned(), label.to_owned(), field.to_owned());
        assert_eq!(of("ci/churn"), parts("ci/churn", "", ""));
        assert_eq!(of("ci/me@host#pass word#2"), parts("ci/me@host", "", "pass word#2"));
        assert_eq!(of("x?version_stage=AWSPREVIOUS#f"), parts("x", "AWSPREVIOUS", "f"));
        assert_eq!(of(&format!("{ARN}#f")), parts(ARN, "", "f"));
        assert_eq!(of("x#a?b"), parts("x", "", "a?b"), "a field may hold any character");
    }

    #[test]
    fn other_forms_are_refused() {
        for wrong in [
            "",
            "#f",
            "a b",
            "a:b",
            "a#",
            "a?version_stage=#f",
            "a?version_id=1",
            "a?",
            "a\n",
            "a#\u{1b}[1m",
            "arn:aws:s3:eu-west-1:123456789012:secret:x",
            "arn:aws:secretsmanager:eu-west-1:1234:secret:x",
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:",
            "arn:aws:secretsmanager:evil.example/:123456789012:secret:x",
            &"x".repeat(513),
        ] {
            assert!(SecretReference::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_answer_of_another_secret_is_told() {
        let of = |text: &str| SecretReference::parse(text).unwrap();
        assert!(of("ci/churn").is_of(ARN, "ci/churn"));
        assert!(!of("ci/churn").is_of(ARN, "ci/churn2") && !of("ci/churn-AbCdEf").is_of(ARN, "ci/churn"));
        assert!(of(ARN).is_of(ARN, "ci/churn") && of(&ARN[..ARN.len() - 7]).is_of(ARN, "ci/churn"));
        assert!(!of(&ARN[..ARN.len() - 8]).is_of(ARN, "ci/churn"));
        assert!(!of(ARN).is_of(&ARN.replace("churn", "house"), "ci/churn"));
    }
}
