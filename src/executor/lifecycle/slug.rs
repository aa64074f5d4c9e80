//! `CI_ENVIRONMENT_SLUG` of an environment's name, as GitLab makes it (`lib/gitlab/slug/environment.rb`). Pure.

use sha2::{Digest as _, Sha256};

/// Longest slug, in bytes.
const LONGEST: usize = 24;
/// Length of the part before the suffix.
const BEGIN: usize = 17;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// Digits of the suffix, to the base of 36.
const SUFFIX: u32 = 6;

/// Lower-case letters, digits and single hyphens, the first one a letter. A name that is none itself gets a suffix of its hash.
pub(super) fn of_environment(name: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let mut slug: String = name.to_lowercase().chars().map(letter).collect();
    if !slug.starts_with(|first: char| first.is_ascii_lowercase()) {
        slug.insert_str(0, "env-");
    }
    let mut before = ' ';
    slug.retain(|letter| {
        let is_again = letter == '-' && before == '-';
        before = letter;
        !is_again
    });
    if slug.len() <= LONGEST && slug == name {
        return slug.strip_suffix('-').unwrap_or(&slug).to_owned();
    }
    slug.truncate(BEGIN);
    if !slug.ends_with('-') {
        slug.push('-');
    }
    slug + &suffix(name)
}

/// The last digits of the hash of the name, to the base of 36.
fn suffix(name: &str) -> String {
    let base = 36_u64;
    let all = base.pow(SUFFIX);
    let mut rest = Sha256::digest(name.as_bytes()).iter().fold(0, |rest, byte| (rest * 256 + u64::from(*byte)) % all);
    let mut digits = Vec::new();
    for _ in 0..SUFFIX {
        digits.push(DIGITS[usize::try_from(rest % base).unwrap_or_default()]);
        rest /= base;
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    // Suffixes: `int(hashlib.sha256(name.encode()).hexdigest(), 16)` to the base of 36, in Python.
    #[test_case("staging" => "staging")]
    #[test_case("production" => "production")]
    #[test_case("review/better" => "review-better-q8wbb8")]
    #[test_case("Production" => "production-iis43c")]
    #[test_case("1/eu" => "env-1-eu-00jp9u")]
    #[test_case("review/a--very_long-name-of-a-branch" => "review-a-very-lon-szz0kl")]
    #[test_case("staging-" => "staging")]
    fn a_slug_is_that_of_gitlab(name: &str) -> String {
        of_environment(name)
    }
}
