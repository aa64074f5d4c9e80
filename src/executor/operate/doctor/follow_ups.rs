//! Findings that follow from another one: a permission on a misspelt bucket is missing because the bucket is. Pure.

use super::report::{CheckVerdict, DoctorFinding};
use crate::config::settings::Settings;

/// Checks of policies by the names of the operator's file.
const ASKED: [&str; 3] = ["aws.actions", "role.permissions", "role.trust"];
/// Checks of things by their name in the operator's file.
const NAMED: [&str; 6] =
    ["bucket.exists", "bucket.region", "role.exists", "kms.key", "network.subnet", "network.security_group"];
/// Checks that fail when the region is another than that of all the rest.
const OF_REGION: [&str; 3] = ["bucket.region", "kms.key", "image.region"];
/// Checks of things that are looked for in the region.
const IN_REGION: [&str; 3] = ["bucket.region", "kms.key", "image.exists"];

/// Texts about things that are there: their names are right, and explain no missing permission.
const THERE: [&str; 3] = ["is in the state ", "is no symmetric key", "lets no connection "];

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
        NAMED.contains(&finding.id) && is_absent && !THERE.iter().any(|text| finding.text.starts_with(text))
    };
    let named = findings.iter().filter(failed).filter(is_wrong);
    let name = |finding: &DoctorFinding| match finding.id.split('.').next() {
        // As in the ARN of a bucket: its name may be a part of other names.
        Some("bucket") => format!(":::{}", finding.subject),
        _ => finding.subject.clone(),
    };
    let mut causes: Vec<_> = named.map(|finding| (finding.id, name(finding))).collect();
    if let Some(region) = &settings.aws.region
        && let Some(cause) = wrong_region(findings, region)
    {
        causes.push((cause, format!(":{region}:")));
    }
    causes
}

/// The check that shows that `aws.region` is wrong: things are in another region, and none is in this one. One thing among others is wrong itself,
/// and explains nothing else.
fn wrong_region(findings: &[DoctorFinding], region: &str) -> Option<&'static str> {
    let is_elsewhere = |finding: &&DoctorFinding| {
        finding.verdict == CheckVerdict::Failure
            && OF_REGION.contains(&finding.id)
            && finding.text.contains("is in the region ")
    };
    let is_here = |finding: &DoctorFinding| {
        let is_named = [format!(".{region}."), format!(":{region}:")].iter().any(|part| finding.subject.contains(part));
        IN_REGION.contains(&finding.id) && (finding.verdict == CheckVerdict::Ok || is_named)
    };
    let cause = findings.iter().find(is_elsewhere)?;
    (!findings.iter().any(is_here)).then_some(cause.id)
}

/// The statement allows the action with this subnet or security group.
fn is_condition(finding: &DoctorFinding, id: &str, name: &str) -> bool {
    let statement = finding.statement.as_ref().filter(|_| id.starts_with("network."));
    statement.is_some_and(|statement| statement["Condition"].to_string().contains(&format!("\"{name}\"")))
}

/// Every pair of action and resource in a text has the name.
fn is_about(text: &str, name: &str) -> bool {
    let mut pairs = text.split(", ").filter(|part| part.contains(" on ")).peekable();
    pairs.peek().is_some() && pairs.all(|pair| has_word(pair, name))
}

/// The text has the name, and not as a part of a longer one.
fn has_word(text: &str, name: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
    let is_word = |at: usize| {
        let before = text[..at].chars().next_back().filter(|_| name.starts_with(is_part));
        let after = text[at + name.len()..].chars().next().filter(|_| name.ends_with(is_part));
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    };
    text.match_indices(name).any(|(at, _)| is_word(at))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::config::operator_file;

    const JOB: &str = "arn:aws:sagemaker:eu-west-1:210987654321:training-job/gitlab-doctor";

    fn elsewhere(id: &'static str, subject: &str) -> DoctorFinding {
        DoctorFinding::failure(id, subject, "is in the region us-east-1, and the jobs in eu-west-1", "change it")
    }

    /// The check that a missing permission on training jobs is put down to.
    fn cause_of(mut findings: Vec<DoctorFinding>) -> String {
        findings.push(DoctorFinding::failure(
            "aws.actions",
            "role",
            format!("may not sagemaker:StopTrainingJob on {JOB}"),
            "allow",
        ));
        let settings =
            operator_file::parse("[aws]\nregion = \"eu-west-1\"\n[storage]\nbucket = \"train\"\n[job]\n").unwrap();
        let finding = fold(findings, &settings).pop().unwrap();
        let cause = finding.text.strip_prefix("needs `").and_then(|rest| rest.split('`').next());
        cause.unwrap_or_default().to_owned()
    }

    #[test_case(vec![elsewhere("bucket.region", "train")] => "bucket.region"; "bucket")]
    #[test_case(vec![elsewhere("image.region", "1.dkr.ecr.us-east-1.amazonaws.com/a:1"), elsewhere("kms.key", "arn:aws:kms:us-east-1:1:key/a")] => "image.region"; "all images and keys")]
    #[test_case(vec![DoctorFinding::ok("bucket.region", "train", "is there"), elsewhere("image.region", "1.dkr.ecr.us-east-1.amazonaws.com/a:1")] => ""; "image beside the bucket")]
    #[test_case(vec![DoctorFinding::skipped("bucket.exists", "train", "no answer"), DoctorFinding::ok("image.exists", "a", "is there"), elsewhere("image.region", "b")] => ""; "one image of two")]
    #[test_case(vec![DoctorFinding::failure("image.exists", "1.dkr.ecr.eu-west-1.amazonaws.com/a:1", "is not there", "push"), elsewhere("image.region", "b")] => ""; "one image beside an absent one")]
    #[test_case(vec![DoctorFinding::ok("kms.key", "k", "is enabled"), elsewhere("kms.key", "arn:aws:kms:us-east-1:1:key/a")] => ""; "one key of two")]
    #[test_case(vec![DoctorFinding::ok("image.exists", "a", "is there"), elsewhere("bucket.region", "train")] => ""; "bucket beside an image")]
    #[test_case(vec![DoctorFinding::failure("bucket.exists", "train", "does not exist", "create")] => ""; "absent bucket whose name is a part of other names")]
    fn a_cause_explains_what_follows_from_it(findings: Vec<DoctorFinding>) -> String {
        cause_of(findings)
    }

    /// The statement that allows to create jobs names the groups: those that do not exist explain that no role has it.
    #[test]
    fn a_thing_that_is_there_explains_no_missing_permission() {
        let settings = operator_file::parse("[storage]\nbucket = \"b-1\"\n[job]\n").unwrap();
        let statement = serde_json::json!({"Condition": {"StringEquals": {"sagemaker:VpcSecurityGroupIds": ["sg-1"]}}});
        let of_create = |text: &str| {
            let asked = DoctorFinding::failure(
                "aws.actions",
                "role",
                format!("may not sagemaker:CreateTrainingJob on {JOB}"),
                "allow",
            );
            let group = DoctorFinding::failure("network.security_group", "sg-1", text, "change it");
            fold(vec![group, asked.with_statement(statement.clone())], &settings)[1].verdict
        };
        assert_eq!(of_create("does not exist in this account and region"), CheckVerdict::Skipped);
        assert_eq!(of_create("lets no connection to port 443 out: the job cannot reach S3"), CheckVerdict::Failure);
        let of_key = |text: &str| {
            let asked = DoctorFinding::failure(
                "aws.actions",
                "role",
                "may not kms:Decrypt on arn:aws:kms:eu-west-1:1:key/a",
                "allow",
            );
            let key = DoctorFinding::failure("kms.key", "arn:aws:kms:eu-west-1:1:key/a", text, "change it");
            fold(vec![key, asked], &settings)[1].verdict
        };
        assert_eq!(of_key("does not exist"), CheckVerdict::Skipped);
        assert_eq!(of_key("is in the state `Disabled`: nothing can be encrypted with it"), CheckVerdict::Failure);
    }

    #[test]
    fn a_name_is_no_part_of_another() {
        assert!(has_word("s3:ListBucket on arn:aws:s3:::train", ":::train") && has_word("x:::train/a", ":::train"));
        assert!(!has_word("s3:ListBucket on arn:aws:s3:::train-2", ":::train"));
        assert!(has_word("on arn:aws:kms:eu-west-1:1:key/a", "a") && !has_word("on subnet-12", "subnet-1"));
    }
}
