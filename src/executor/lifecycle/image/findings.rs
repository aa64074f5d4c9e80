//! Findings of a scan, and which of them stop the pipeline. Pure.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::Serialize;

use super::accepted::{Accepted, AcceptedFinding};
use crate::base::plain;

/// Severity of a finding, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Severity {
    /// The scanner does not know it, or has not judged it yet.
    Unknown,
    Info,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    /// The severity of a scanner's word; `Unknown` for every other word.
    pub(super) fn of(word: &str) -> Self {
        match word.to_ascii_uppercase().as_str() {
            "CRITICAL" => Self::Critical,
            "HIGH" => Self::High,
            "MEDIUM" => Self::Medium,
            "LOW" => Self::Low,
            "INFORMATIONAL" | "INFO" | "NEGLIGIBLE" => Self::Info,
            _ => Self::Unknown,
        }
    }

    /// As reports for GitLab write it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Info => "Info",
            Self::Low => "Low",
            Self::Medium => "Medium",
            Self::High => "High",
            Self::Critical => "Critical",
        }
    }
}

/// The lowest severity that stops the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SeverityBar {
    Low,
    Medium,
    High,
    Critical,
}

impl SeverityBar {
    pub(super) fn severity(self) -> Severity {
        match self {
            Self::Low => Severity::Low,
            Self::Medium => Severity::Medium,
            Self::High => Severity::High,
            Self::Critical => Severity::Critical,
        }
    }
}

/// A known vulnerability of a package in an image. All of it is text of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct KnownVulnerability {
    pub(super) id: String,
    pub(super) severity: Severity,
    pub(super) package: String,
    pub(super) version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fixed_version: Option<String>,
    #[serde(skip)]
    pub(super) description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
}

impl KnownVulnerability {
    /// One line for people.
    pub(super) fn line(&self) -> String {
        let fixed = self.fixed_version.as_ref().map_or(String::new(), |version| format!(", fixed in {version}"));
        let text = format!("{:<8}  {}  {} {}{fixed}", self.severity.word(), self.id, self.package, self.version);
        plain::line(&text, 300)
    }
}

/// A program or service that scans images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageScanner {
    /// `trivy` or `ecr`
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) vendor: &'static str,
    pub(super) version: String,
}

/// The findings of a scanner in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScanResult {
    pub(super) scanner: ImageScanner,
    /// `debian 12`; `unknown` where the scanner does not tell it.
    pub(super) operating_system: String,
    pub(super) findings: Vec<KnownVulnerability>,
}

/// Findings by what becomes of them.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Of the severity of the bar or above, and not accepted.
    pub(super) stopping: Vec<KnownVulnerability>,
    pub(super) below: Vec<KnownVulnerability>,
    pub(super) accepted: Vec<(KnownVulnerability, AcceptedFinding)>,
    /// Ids that are accepted and that no finding has.
    pub(super) unused: Vec<String>,
}

/// Judges the findings, the gravest first.
pub(super) fn judge(mut findings: Vec<KnownVulnerability>, bar: Severity, accepted: &Accepted) -> Judged {
    findings.sort_by(|one, other| {
        let key = |finding: &KnownVulnerability| (finding.id.clone(), finding.package.clone(), finding.version.clone());
        other.severity.cmp(&one.severity).then_with(|| key(one).cmp(&key(other)))
    });
    findings.dedup();
    let mut judged = Judged::default();
    for finding in findings {
        match accepted.entry(&finding.id, &finding.package) {
            Some(entry) => judged.accepted.push((finding, entry.clone())),
            None if finding.severity >= bar => judged.stopping.push(finding),
            None => judged.below.push(finding),
        }
    }
    judged.unused = accepted.unused(&judged.accepted.iter().map(|(_, entry)| entry).collect::<Vec<_>>());
    judged
}

/// Findings by severity.
pub(super) fn counts<'a>(findings: impl Iterator<Item = &'a KnownVulnerability>) -> BTreeMap<&'static str, usize> {
    findings.fold(BTreeMap::new(), |mut counts, finding| {
        *counts.entry(finding.severity.word()).or_default() += 1;
        counts
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &str, severity: &str, package: &str) -> KnownVulnerability {
        KnownVulnerability {
            id: id.to_owned(),
            severity: Severity::of(severity),
            package: package.to_owned(),
            version: "1".to_owned(),
            fixed_version: None,
            description: None,
            url: None,
        }
    }

    #[test]
    fn findings_of_the_bar_and_above_stop_unless_they_are_accepted() {
        let accepted = r#"{"accepted": [
            {"id": "CVE-1", "package": "openssl", "reason": "not called", "until": "2027-01-01"},
            {"id": "CVE-9", "reason": "gone", "until": "2027-01-01"}]}"#;
        let accepted = Accepted::parse("accepted.json", accepted, "2026-11-29").unwrap();
        let findings = vec![
            finding("CVE-3", "medium", "a"),
            finding("CVE-2", "HIGH", "a"),
            finding("CVE-1", "CRITICAL", "openssl"),
            finding("CVE-1", "CRITICAL", "other"),
            finding("CVE-2", "HIGH", "a"),
            finding("CVE-4", "UNTRIAGED", "a"),
        ];
        let judged = judge(findings, Severity::High, &accepted);
        let ids = |findings: &[KnownVulnerability]| {
            findings.iter().map(|one| format!("{} {}", one.id, one.package)).collect::<Vec<_>>()
        };
        assert_eq!(ids(&judged.stopping), ["CVE-1 other", "CVE-2 a"]);
        assert_eq!(ids(&judged.below), ["CVE-3 a", "CVE-4 a"]);
        assert_eq!(judged.accepted[0].1.reason, "not called");
        assert_eq!(judged.unused, ["CVE-9"]);
    }

    #[test]
    fn a_line_has_no_text_that_a_log_would_obey() {
        let line = finding("CVE\x1b[2K\n", "HIGH", "a").line();
        assert_eq!(line, "High      CVE\\x1b[2K; a 1");
    }
}
