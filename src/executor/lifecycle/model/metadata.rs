//! Values that the registry takes as metadata of a version. Pure.

/// Longest value.
pub(super) const LONGEST: usize = 256;
/// Longest property of the origin.
const LONGEST_PROPERTY: usize = 1024;
/// Most entries of a version.
pub(super) const MOST: usize = 50;

/// The text as a value: characters that the registry refuses, and letters beyond ASCII, become `_`; what is too long is cut.
pub(super) fn value(text: &str) -> String {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || " _.:/=+-@".contains(letter);
    cut(&text.trim().chars().map(|letter| if is_allowed(letter) { letter } else { '_' }).collect::<String>(), LONGEST)
}

/// The text as one word of a value.
pub(super) fn word(text: &str, most: usize) -> String {
    cut(&value(text).replace([' ', '='], "_"), most)
}

/// The word behind `name=`.
pub(super) fn field<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    value.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// At most `most` characters.
fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect::<String>().trim_end().to_owned()
}

/// A URL without a user, a password, a query and a fragment: each may hold a secret.
pub(crate) fn without_credentials(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host = rest.split('/').next().unwrap_or_default();
    match host.rsplit_once('@') {
        Some((user, _)) => format!("{scheme}://{}", rest.get(user.len() + 1..).unwrap_or_default()),
        None => url.to_owned(),
    }
}

/// The text as a property of a version's origin: one line, without control characters. `None` when nothing is left.
pub(super) fn property(text: &str) -> Option<String> {
    let line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let line = cut(line.trim(), LONGEST_PROPERTY);
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_has_only_characters_that_the_registry_takes(text in any::<String>()) {
            let made = value(&text);
            prop_assert!(made.chars().count() <= LONGEST);
            let pattern = regex::Regex::new(r"^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$").unwrap();
            prop_assert!(pattern.is_match(&made), "{made:?}");
        }

        #[test]
        fn a_word_adds_no_field(text in any::<String>()) {
            let made = format!("id=1 user={} at=2", word(&text, 60));
            prop_assert_eq!(field(&made, "id"), Some("1"));
            prop_assert_eq!(made.split(' ').count(), 3);
        }
    }

    #[test]
    fn a_url_is_stored_without_its_password() {
        assert_eq!(without_credentials("https://ci:t0ken@gitlab.example/g/p"), "https://gitlab.example/g/p");
        assert_eq!(without_credentials("https://gitlab.example/g/@p"), "https://gitlab.example/g/@p");
        assert_eq!(without_credentials("https://gitlab.example/g?private_token=x@y#z"), "https://gitlab.example/g");
    }

    #[test]
    fn a_property_is_one_line() {
        assert_eq!(property(" a\nb\u{1b}[0m ").as_deref(), Some("a b [0m"));
        assert_eq!(property("\n"), None);
        assert_eq!(property(&"x".repeat(2000)).unwrap().len(), LONGEST_PROPERTY);
    }
}
