//! Permissions on the data of training jobs: checkpoints, input channels, and places of models.

use super::account::Account;
use super::document::PolicyStatement;
use super::session_tag;

/// A scope: the project's id, and a `?` for each of the digits that only the job and the hosts know.
const DIGITS: usize = 32;

/// Statements for the role of the training jobs.
pub(super) fn of_the_job(account: &Account<'_>) -> Vec<PolicyStatement> {
    let wall = account.wall;
    let mut statements = Vec::new();
    if wall.has_checkpoints {
        statements.extend(checkpoints(account));
    }
    let inputs: Vec<S3Pattern> = wall.inputs.iter().filter_map(|uri| S3Pattern::of(uri)).collect();
    if !inputs.is_empty() {
        let objects: Vec<String> = inputs.iter().map(|input| input.objects(account)).collect();
        statements.push(PolicyStatement::allow("InputData", "s3:GetObject").on(objects));
        statements.push(names("NamesOfInputData", account, &inputs));
    }
    let outputs: Vec<S3Pattern> = wall.model_outputs.iter().filter_map(|uri| S3Pattern::of(uri)).collect();
    if !outputs.is_empty() {
        let objects: Vec<String> = outputs.iter().map(|output| output.objects(account)).collect();
        statements.push(PolicyStatement::allow("Models", ["s3:PutObject", "s3:AbortMultipartUpload"]).on(objects));
    }
    if wall.inputs.iter().any(|uri| !uri.starts_with("s3://")) {
        statements.push(
            PolicyStatement::allow(
                "FileSystems",
                ["elasticfilesystem:DescribeMountTargets", "fsx:DescribeFileSystems"],
            )
            .on("*"),
        );
    }
    let lambda = account.settings.job.image_credentials_lambda_arn.clone();
    statements.extend(
        lambda.map(|lambda| PolicyStatement::allow("CredentialsOfTheRegistry", "lambda:InvokeFunction").on(lambda)),
    );
    statements
}

/// Statements for the runner host, which looks for the data before the training job is created.
pub(super) fn of_the_host(account: &Account<'_>) -> Option<PolicyStatement> {
    let inputs: Vec<S3Pattern> = account.wall.inputs.iter().filter_map(|uri| S3Pattern::of(uri)).collect();
    (!inputs.is_empty()).then(|| names("NamesOfInputData", account, &inputs))
}

fn checkpoints(account: &Account<'_>) -> [PolicyStatement; 2] {
    let folders = match account.creator_role {
        // A linter misreads a variable in the only resource of an `Allow`. Nothing is stored below the second one.
        Some(_) => vec![
            format!("checkpoints/{}/*", session_tag::variable(session_tag::CHECKPOINTS)),
            "checkpoints/none/*".to_owned(),
        ],
        None => vec![format!("checkpoints/*-{}/*", "?".repeat(DIGITS))],
    };
    let on_objects = |names: &[String]| names.iter().map(|name| account.object(name)).collect::<Vec<_>>();
    let prefixes: Vec<String> = folders.iter().take(1).map(|name| account.key_in_bucket(name)).collect();
    [
        PolicyStatement::allow(
            "Checkpoints",
            ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
        )
        .on(on_objects(&folders)),
        PolicyStatement::allow("NamesOfCheckpoints", "s3:ListBucket").on(account.bucket()).when(
            "StringLike",
            "s3:prefix",
            prefixes,
        ),
    ]
}

/// Names in the buckets; a prefix of one bucket is also allowed for the others.
fn names(sid: &'static str, account: &Account<'_>, places: &[S3Pattern<'_>]) -> PolicyStatement {
    let unique = |mut texts: Vec<String>| {
        texts.sort();
        texts.dedup();
        texts
    };
    let buckets = places.iter().map(|place| format!("arn:{}:s3:::{}", account.partition, place.bucket)).collect();
    let prefixes = places.iter().map(S3Pattern::keys).collect();
    PolicyStatement::allow(sid, "s3:ListBucket").on(unique(buckets)).when("StringLike", "s3:prefix", unique(prefixes))
}

/// A pattern of folders in S3.
struct S3Pattern<'a> {
    bucket: &'a str,
    folder: &'a str,
}

impl<'a> S3Pattern<'a> {
    /// `None` for file systems. A pattern that begins with `*` is for all buckets.
    fn of(uri: &'a str) -> Option<Self> {
        if uri.starts_with('*') {
            return Some(Self { bucket: "*", folder: "*" });
        }
        let place = uri.strip_prefix("s3://")?;
        let (bucket, folder) = place.split_once('/').unwrap_or((place, ""));
        Some(Self { bucket, folder })
    }

    /// The keys of what lies in the folders.
    fn keys(&self) -> String {
        match self.folder {
            "" => "*".to_owned(),
            folder if folder.ends_with('*') => folder.to_owned(),
            folder => format!("{folder}/*"),
        }
    }

    fn objects(&self, account: &Account<'_>) -> String {
        format!("arn:{}:s3:::{}/{}", account.partition, self.bucket, self.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_of_folders_is_one_of_keys() {
        let of = |uri: &'static str| S3Pattern::of(uri).map(|found| (found.bucket, found.keys()));
        assert_eq!(of("s3://data/churn"), Some(("data", "churn/*".to_owned())));
        assert_eq!(of("s3://data/churn/*"), Some(("data", "churn/*".to_owned())));
        assert_eq!(of("s3://data"), Some(("data", "*".to_owned())));
        assert_eq!(of("*"), Some(("*", "*".to_owned())));
        assert_eq!(of("efs://fs-01234567/x"), None);
    }
}
