//! Findings that follow from another one: a permission on a misspelt bucket is missing because the bucket is. Pure.

use super::report::{CheckVerdict, DoctorFinding};
use crate::config::settings::Settings;

/// Checks that ask IAM about the names of the operator's file.
const ASKED: [&str; 2] = ["aws.actions", "role.permissions"];
/// Checks of things by their name in the operator's file.
const NAMED: [&str; 5] = ["bucket.exists", "role.exists", "kms.key", "network.subnet", "network.security_group"];

/// Skips what follows: nobody must allow more on a thing that the file names wrongly.
pub(super) fn fold(mut findings: Vec<DoctorFinding>, settings: &Settings) -> Vec<DoctorFinding> {
    let is_wrong = |finding: &&DoctorFinding| {
        // A bucket may be there, and kept from the caller by the very permission that is missing.
        let is_absent = finding.id != "bucket.exists" || finding.text.contains("does not exist");
        finding.verdict == CheckVerdict::Failure && NAMED.contains(&finding.id) && is_absent
    };
    let mut causes: Vec<(&'static str, String)> =
        findings.iter().filter(is_wrong).map(|finding| (finding.id, finding.subject.clone())).collect();
    let is_elsewhere =
        |finding: &DoctorFinding| finding.id == "bucket.region" && finding.verdict == CheckVerdict::Failure;
    if findings.iter().any(is_elsewhere) {
        causes.extend(settings.aws.region.as_ref().map(|region| ("bucket.region", format!(":{region}:"))));
    }
    for finding in &mut findings {
        let is_asked = ASKED.contains(&finding.id) && finding.verdict != CheckVerdict::Ok;
        let cause =
            causes.iter().find(|(_, name)| is_asked && (finding.subject == *name || is_about(&finding.text, name)));
        if let Some((id, _)) = cause {
            *finding = DoctorFinding::waiting(finding.id, id);
        }
    }
    findings
}

/// Every pair of action and resource in a text has the name.
fn is_about(text: &str, name: &str) -> bool {
    let mut pairs = text.split(", ").filter(|part| part.contains(" on ")).peekable();
    pairs.peek().is_some() && pairs.all(|pair| pair.contains(name))
}
