//! Forms of a refusal, and values that several keys have. Pure.

use crate::base::failure::Failure;

/// A value that is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The key by its place: `rules[1].allow.roles`, where the message has the name of the rule, which may be any text.
    pub(crate) key: String,
    pub(crate) failure: Failure,
}

impl Refusal {
    /// With the key `to` in place of `from`, or of what begins with it.
    pub(super) fn moved(self, from: &str, to: &str) -> Self {
        let key = self.key.strip_prefix(from).map(|rest| format!("{to}{rest}"));
        Self { key: key.unwrap_or(self.key), failure: self.failure }
    }
}

pub(super) type Checked = Result<(), Refusal>;

pub(super) fn refuse(key: &str, why: &str, change: &str) -> Checked {
    Err(Refusal { key: key.to_owned(), failure: Failure::system(format!("`{key}` {why}")).hint(change) })
}

pub(super) fn need(is_right: bool, key: &str, why: &str, change: &str) -> Checked {
    if is_right { Ok(()) } else { refuse(key, why, change) }
}

pub(super) fn in_range<T: PartialOrd + std::fmt::Display + Copy>(key: &str, value: T, least: T, most: T) -> Checked {
    let is_inside = value >= least && value <= most;
    need(
        is_inside,
        key,
        &format!("is {value}; it needs to lie between {least} and {most}"),
        &format!("set `{key}` in this range"),
    )
}

/// `eu-west-1`, `us-gov-west-1`, `eusc-de-east-1`; `eu-west-1a` is an availability zone.
pub(super) fn is_region(text: &str) -> bool {
    let Some((words, number)) = text.rsplit_once('-') else { return false };
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    words.split('-').count() > 1
        && words.split('-').all(is_word)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The partition of a region; `None` for those that are not public.
pub(super) fn partition_of(region: &str) -> Option<&'static str> {
    match region.split('-').next()? {
        "cn" => Some("aws-cn"),
        "us" if region.starts_with("us-gov-") => Some("aws-us-gov"),
        "us" if region.starts_with("us-iso") => None,
        "us" | "eu" | "ap" | "sa" | "ca" | "me" | "af" | "il" | "mx" => Some("aws").filter(|_| !region.contains("iso")),
        _ => None,
    }
}

/// Ids of subnets or security groups: 32 characters at most, letters, digits and hyphens (`CreateTrainingJob`, `VpcConfig`).
pub(super) fn check_ids(key: &str, ids: &[String], start: &str, most: usize) -> Checked {
    let is_id = |id: &&String| {
        id.starts_with(start) && id.len() <= 32 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if let Some(wrong) = ids.iter().find(|id| !is_id(id)) {
        return refuse(key, &format!("has `{wrong}`, which is no id"), &format!("give ids that begin with `{start}`"));
    }
    need(
        ids.len() <= most,
        key,
        &format!("has {} ids", ids.len()),
        &format!("keep {most} at most; SageMaker takes no more"),
    )
}

/// `VpcConfig`: subnets, and security groups.
pub(super) const SUBNETS: usize = 16;
pub(super) const SECURITY_GROUPS: usize = 5;
