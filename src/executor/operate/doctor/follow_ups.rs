//! Findings that follow from another one: a permission on a misspelt bucket is missing because the bucket is. Pure.

use super::report::{CheckVerdict, DoctorFinding};
use crate::config::settings::Settings;

/// Checks of policies by the names of the operator's file.
const ASKED: [&str; 3] = ["aws.actions", "role.permissions", "role.trust"];
/// Checks of things by their name in the operator's file.
const NAMED: [&str; 5] = ["bucket.exists", "role.exists", "kms.key", "network.subnet", "network.security_group"];
/// Checks that fail when the region is another than that of all the rest.
const OF_REGION: [&str; 3] = ["bucket.region", "kms.key", "image.region"];

/// Skips what follows: nobody must allow more on a thing that the file names wrongly.
pub(super) fn fold(mut findings: Vec<DoctorFinding>, settings: &Settings) -> Vec<DoctorFinding> {
    let causes = causes(&findings, settings);
    for finding in &mut findings {
        let is_asked = ASKED.contains(&finding.id) && finding.verdict != CheckVerdict::Ok;
        let cause = causes.iter().find(|(id, name)| {
            is_asked && (finding.subject == *name || is_about(&finding.text, name) || is_condition(finding, id, name))
        });
        if let Some((id, _)) = cause {
            *finding = DoctorFinding::waiting(finding.id, id);
        }
    }
    findings
}

/// Failed checks of named things, each with the text by which findings name the thing.
fn causes(findings: &[DoctorFinding], settings: &Settings) -> Vec<(&'static str, String)> {
    let failed = |finding: &&DoctorFinding| finding.verdict == CheckVerdict::Failure;
    // A bucket may be there, and kept from the caller by a permission that is missing. With none at all, its name is wrong.
    let has_some = findings.iter().any(|finding| {
        finding.id == "aws.actions" && finding.verdict == CheckVerdict::Ok && finding.text.contains(" s3:")
    });
    let is_wrong = |finding: &&DoctorFinding| {
        let is_absent = finding.id != "bucket.exists" || finding.text.contains("does not exist") || !has_some;
        NAMED.contains(&finding.id) && is_absent
    };
    let named = findings.iter().filter(failed).filter(is_wrong);
    let mut causes: Vec<_> = named.map(|finding| (finding.id, finding.subject.clone())).collect();
    let of_region =
        |finding: &&DoctorFinding| OF_REGION.contains(&finding.id) && finding.text.contains("is in the region ");
    if let (Some(cause), Some(region)) = (findings.iter().filter(failed).find(of_region), settings.aws.region.as_ref())
    {
        causes.push((cause.id, format!(":{region}:")));
    }
    causes
}

/// The statement allows the action with this subnet or security group.
fn is_condition(finding: &DoctorFinding, id: &str, name: &str) -> bool {
    let statement = finding.statement.as_ref().filter(|_| id.starts_with("network."));
    statement.is_some_and(|statement| statement["Condition"].to_string().contains(&format!("\"{name}\"")))
}

/// Every pair of action and resource in a text has the name.
fn is_about(text: &str, name: &str) -> bool {
    let mut pairs = text.split(", ").filter(|part| part.contains(" on ")).peekable();
    pairs.peek().is_some() && pairs.all(|pair| pair.contains(name))
}
