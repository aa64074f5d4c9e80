//! The file of findings that the project accepts for a time: each with its id, a reason and a date. Pure.

use serde::Deserialize;

use crate::base::failure::Failure;
use crate::base::plain;

/// Most entries of the file.
const MOST: usize = 1000;
/// Mistakes that an error shows.
const SHOWN: usize = 20;

/// A finding that does not stop the pipeline until a date.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AcceptedFinding {
    /// `CVE-2026-0001`
    #[serde(default)]
    pub(super) id: String,
    /// The package in which it is accepted; any package when absent.
    pub(super) package: Option<String>,
    #[serde(default)]
    pub(super) reason: String,
    /// The last day, `YYYY-MM-DD`, in UTC.
    #[serde(default)]
    pub(super) until: String,
}

/// The findings that are accepted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Accepted {
    accepted: Vec<AcceptedFinding>,
}

impl Accepted {
    /// Reads the text of a file. `today` is a date as in the file.
    ///
    /// # Errors
    /// Failures of the user that show each mistake: an entry without id, reason or date, or whose date has passed.
    pub(super) fn parse(file: &str, text: &str, today: &str) -> Result<Self, Failure> {
        let wrong = |what: String, lines: Vec<String>| {
            Failure::user(format!("the file of accepted findings {file} {what}"))
                .hint(r#"write `{"accepted": [{"id": "CVE-2026-0001", "reason": "...", "until": "2026-12-31"}]}`; a date is the last day"#)
                .quoting((!lines.is_empty()).then(|| lines.join("\n")))
        };
        let all: Self = serde_json::from_str(text).map_err(|error| {
            wrong(format!("does not have the right form: {}", plain::line(&error.to_string(), 200)), Vec::new())
        })?;
        if all.accepted.len() > MOST {
            return Err(wrong(format!("has {} entries; the most are {MOST}", all.accepted.len()), Vec::new()));
        }
        let entries = all.accepted.iter().enumerate();
        let mistakes: Vec<_> = entries
            .filter_map(|(number, entry)| {
                let what = entry.mistake(today)?;
                Some(plain::line(&format!("  entry {} ({}): {what}", number + 1, entry.id), 300))
            })
            .collect();
        if mistakes.is_empty() {
            return Ok(all);
        }
        let number = mistakes.len();
        let lines = mistakes.into_iter().take(SHOWN).collect();
        Err(wrong(if number == 1 { "has a mistake".to_owned() } else { format!("has {number} mistakes") }, lines))
    }

    /// The entry for a finding.
    pub(super) fn entry(&self, id: &str, package: &str) -> Option<&AcceptedFinding> {
        let is_for = |entry: &&AcceptedFinding| {
            entry.id.eq_ignore_ascii_case(id) && entry.package.as_deref().is_none_or(|name| name == package)
        };
        self.accepted.iter().find(is_for)
    }

    /// The ids of entries that are not among the used ones.
    pub(super) fn unused(&self, used: &[&AcceptedFinding]) -> Vec<String> {
        let is_unused = |entry: &&AcceptedFinding| !used.contains(entry);
        self.accepted.iter().filter(is_unused).map(|entry| plain::line(&entry.id, 100)).collect()
    }
}

impl AcceptedFinding {
    fn mistake(&self, today: &str) -> Option<String> {
        if self.id.trim().is_empty() {
            return Some("it has no `id`".to_owned());
        }
        if self.reason.trim().is_empty() {
            return Some("it has no `reason`".to_owned());
        }
        if !is_date(&self.until) {
            return Some("its `until` is no date as 2026-12-31".to_owned());
        }
        // Dates of this form compare as texts.
        (self.until.as_str() < today).then(|| {
            format!("it was accepted until {}: judge it again, and change `until` or remove the entry", self.until)
        })
    }
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).is_ok()
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    const TODAY: &str = "2026-11-29";

    fn parsed(entries: &str) -> Result<Accepted, String> {
        let text = format!("{{\"accepted\": [{entries}]}}");
        Accepted::parse("accepted.json", &text, TODAY)
            .map_err(|failure| crate::base::failure::render(&anyhow::Error::from(failure)))
    }

    #[test]
    fn an_entry_counts_to_the_end_of_its_day() {
        let accepted = parsed(r#"{"id": "CVE-1", "reason": "r", "until": "2026-11-29"}"#).unwrap();
        assert!(accepted.entry("cve-1", "any").is_some() && accepted.entry("CVE-2", "any").is_none());
    }

    #[test_case(r#"{"id": "CVE-1", "reason": "r", "until": "2026-11-28"}"#, "entry 1 (CVE-1): it was accepted until 2026-11-28"; "expired")]
    #[test_case(r#"{"id": "CVE-1", "until": "2027-01-01"}"#, "it has no `reason`"; "no reason")]
    #[test_case(r#"{"id": "CVE-1", "reason": " ", "until": "2027-01-01"}"#, "it has no `reason`"; "blank reason")]
    #[test_case(r#"{"reason": "r", "until": "2027-01-01"}"#, "it has no `id`"; "no id")]
    #[test_case(r#"{"id": "CVE-1", "reason": "r"}"#, "is no date"; "no date")]
    #[test_case(r#"{"id": "CVE-1", "reason": "r", "until": "2027-02-30"}"#, "is no date"; "day")]
    #[test_case(r#"{"id": "CVE-1", "reason": "r", "until": "9999"}"#, "is no date"; "year alone")]
    #[test_case(r#"{"id": "CVE-1", "reason": "r", "untill": "2027-01-01"}"#, "does not have the right form: unknown field `untill`"; "key")]
    fn another_entry_is_an_error(entry: &str, said: &str) {
        let error = parsed(entry).unwrap_err();
        assert!(error.contains(said), "{error}");
    }

    #[test]
    fn every_mistake_is_told() {
        let error = parsed(r#"{"id": "CVE-1"}, {"id": "CVE-2", "reason": "r", "until": "2020-01-01"}"#).unwrap_err();
        assert!(error.contains("has 2 mistakes") && error.contains("(CVE-1)") && error.contains("(CVE-2)"), "{error}");
    }
}
