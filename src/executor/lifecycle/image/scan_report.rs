//! The report of a scan for GitLab: `gl-container-scanning-report.json`, schema 15. Pure.

use std::time::SystemTime;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::findings::{Judged, KnownVulnerability, ScanResult};
use crate::base::plain;
use crate::lifecycle::hex::hex;

/// Version of the schema. Those with other patch numbers have the same required keys.
const SCHEMA: &str = "15.0.7";
/// Limits of the schema, in characters.
const LONGEST_NAME: usize = 255;
const LONGEST_DESCRIPTION: usize = 20_000;

/// The report about an image. Accepted findings are messages in it, not vulnerabilities.
pub(super) fn report(
    image: &str,
    result: &ScanResult,
    judged: &Judged,
    (begun, ended): (SystemTime, SystemTime),
) -> String {
    let scanner = &result.scanner;
    let messages = judged.accepted.iter().map(|(finding, entry)| {
        let finding = safe(finding);
        let text = format!("{} in {} is accepted until {}: {}", finding.id, finding.package, entry.until, entry.reason);
        json!({"level": "info", "value": text})
    });
    let program = json!({
        "id": "sagemaker-executor",
        "name": "sagemaker-executor",
        "vendor": {"name": "sagemaker-executor"},
        "version": env!("CARGO_PKG_VERSION"),
    });
    let report = json!({
        "version": SCHEMA,
        "scan": {
            "analyzer": program,
            "scanner": {
                "id": scanner.id,
                "name": scanner.name,
                "vendor": {"name": scanner.vendor},
                "version": scanner.version,
            },
            "type": "container_scanning",
            "start_time": time(begun),
            "end_time": time(ended),
            "status": "success",
            "messages": messages.collect::<Vec<_>>(),
        },
        "vulnerabilities": judged.stopping.iter().chain(&judged.below)
            .map(|finding| vulnerability(image, &result.operating_system, finding)).collect::<Vec<_>>(),
    });
    format!("{report:#}\n")
}

/// The finding without control characters in what GitLab shows as one line.
fn safe(finding: &KnownVulnerability) -> KnownVulnerability {
    let line = |text: &str| plain::line(text, LONGEST_NAME);
    KnownVulnerability {
        id: line(&finding.id),
        severity: finding.severity,
        package: line(&finding.package),
        version: line(&finding.version),
        fixed_version: finding.fixed_version.as_deref().map(line),
        description: finding.description.as_deref().map(|text| plain::lines(text).into_owned()),
        url: finding.url.as_deref().map(|text| plain::line(text, LONGEST_DESCRIPTION)),
    }
}

fn vulnerability(image: &str, system: &str, finding: &KnownVulnerability) -> Value {
    let KnownVulnerability { id, severity, package, version, fixed_version, description, url } = &safe(finding);
    let kind = id.split('-').next().unwrap_or_default().to_ascii_lowercase();
    let mut identifier = json!({
        "type": if ["cve", "ghsa", "rhsa", "elsa", "usn", "osv"].contains(&kind.as_str()) { kind.as_str() } else { "other" },
        "name": some(id),
        "value": some(id),
    });
    let mut vulnerability = json!({
        "id": identity(image, finding),
        "name": cut(&format!("{id} in {package}"), LONGEST_NAME),
        "description": cut(description.as_deref().unwrap_or_default(), LONGEST_DESCRIPTION),
        "severity": severity.word(),
        "location": {
            "image": image,
            "operating_system": some(&plain::line(system, LONGEST_NAME)),
            "dependency": {"package": {"name": package}, "version": version},
        },
    });
    if let Some(fixed) = fixed_version {
        vulnerability["solution"] = json!(cut(&format!("Upgrade {package} to {fixed}"), LONGEST_NAME));
    }
    if let Some(url) = url.as_ref().filter(|url| url.starts_with("https://") || url.starts_with("http://")) {
        identifier["url"] = json!(url);
        vulnerability["links"] = json!([{"url": url}]);
    }
    vulnerability["identifiers"] = json!([identifier]);
    vulnerability
}

/// A text that the schema does not let be empty.
fn some(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// The same for the same finding in each report, in the form of a UUID.
fn identity(image: &str, finding: &KnownVulnerability) -> String {
    // The digest changes with each build of the image.
    let name = image.split('@').next().unwrap_or_default();
    let text = [name, &finding.id, &finding.package, &finding.version].join("\n");
    let digits = hex(&Sha256::digest(text));
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

/// `2026-11-29T12:00:00`, in UTC.
fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string().trim_end_matches('Z').to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::accepted::Accepted;
    use super::super::findings::{ImageScanner, Severity, judge};
    use super::*;

    const IMAGE: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/serve@sha256:a";

    fn made(findings: Vec<KnownVulnerability>) -> Value {
        let accepted = r#"{"accepted": [{"id": "CVE-3", "reason": "not called", "until": "2027-01-01"}]}"#;
        let accepted = Accepted::parse("a", accepted, "2026-11-29").unwrap();
        let scanner = ImageScanner { id: "trivy", name: "Trivy", vendor: "Aqua Security", version: "1".to_owned() };
        let result = ScanResult { scanner, operating_system: String::new(), findings: Vec::new() };
        let begun = SystemTime::UNIX_EPOCH + Duration::from_hours(498_876);
        let judged = judge(findings, Severity::High, &accepted);
        serde_json::from_str(&report(IMAGE, &result, &judged, (begun, begun + Duration::from_secs(5)))).unwrap()
    }

    fn finding(id: &str) -> KnownVulnerability {
        KnownVulnerability {
            id: id.to_owned(),
            severity: Severity::High,
            package: "p".to_owned(),
            version: "1".to_owned(),
            fixed_version: Some("2".to_owned()),
            description: Some("x".repeat(30_000)),
            url: Some("javascript:alert(1)".to_owned()),
        }
    }

    #[test]
    fn names_of_findings_are_one_line_without_control_characters() {
        let mut hostile = finding("CVE-1\n\u{1b}[2J\u{202e}");
        hostile.package = "a\nb".to_owned();
        hostile.url = Some("https://u\n\u{1b}".to_owned());
        let report = made(vec![hostile])["vulnerabilities"][0].clone();
        let texts = [
            &report["name"],
            &report["identifiers"][0]["name"],
            &report["location"]["dependency"]["package"]["name"],
            &report["links"][0]["url"],
        ];
        for text in texts.map(|text| text.as_str().unwrap()) {
            assert!(!text.is_empty() && !text.contains(['\n', '\u{1b}', '\u{202e}']), "{text:?}");
        }
    }

    /// The keys that schema 15 requires, with its forms and lengths.
    #[test]
    fn a_report_has_what_the_schema_requires() {
        let report = made(vec![finding("CVE-1"), finding(""), finding("CVE-3")]);
        let scan = &report["scan"];
        assert_eq!(
            (&scan["start_time"], &scan["end_time"]),
            (&json!("2026-11-29T12:00:00"), &json!("2026-11-29T12:00:05"))
        );
        for program in ["analyzer", "scanner"] {
            for key in ["id", "name", "version"] {
                assert!(scan[program][key].as_str().is_some_and(|text| !text.is_empty()), "{program} {key}");
            }
            assert!(scan[program]["vendor"]["name"].is_string());
        }
        assert_eq!((&scan["status"], &scan["type"]), (&json!("success"), &json!("container_scanning")));
        let found = report["vulnerabilities"].as_array().unwrap();
        assert_eq!(found.len(), 2, "an accepted finding is a message");
        assert!(scan["messages"][0]["value"].as_str().unwrap().contains("CVE-3 in p is accepted until 2027-01-01"));
        for one in found {
            let identifier = &one["identifiers"][0];
            assert!(
                ["type", "name", "value"]
                    .iter()
                    .all(|key| identifier[key].as_str().is_some_and(|text| !text.is_empty()))
            );
            assert!(identifier["url"].is_null() && one["links"].is_null(), "{one}");
            assert!(one["description"].as_str().unwrap().len() <= LONGEST_DESCRIPTION);
            assert_eq!(one["location"]["operating_system"], "unknown");
            assert_eq!(one["id"].as_str().unwrap().len(), 36);
        }
        assert_ne!(found[0]["id"], found[1]["id"]);
        assert_eq!(made(vec![finding("CVE-1")])["vulnerabilities"][0]["id"], found[1]["id"]);
    }
}
