//! No code, template or policy holds a partition of AWS, or an address of one of its services: they follow from the region, by the SDK.

use std::path::Path;

use regex::Regex;

use super::{PACKAGES, package};
use crate::docs::{read, root};

/// Texts that may stand there: names of services, which are the same in all partitions (principals, namespaces of XML, the audience of id
/// tokens), and examples with an account that nobody has.
const NAMES: &str = r"^(?:(?:sagemaker|sts|iam|ec2|monitoring|ecr|codebuild|secretsmanager)|sagemaker\.application-autoscaling)\.amazonaws\.com$";
const EXAMPLES: [&str; 5] = ["<account>", "ACCOUNT", "123456789012", "000000000000", "arn:aws:s3:::example-"];

/// Files that know domains of partitions, and why.
const DOMAINS: [(&str, &str); 2] = [
    ("src/executor/iam/account.rs", "hosts in policies of network endpoints"),
    ("src/emulator/services/ecr/records.rs", "names of the emulator's images"),
];

/// Lines with a literal partition or address.
fn literals(text: &str) -> Vec<String> {
    let arn = Regex::new(r"arn:aws[a-z-]*:").unwrap();
    let host = Regex::new(r"[A-Za-z0-9{}.<>*-]+\.(?:amazonaws\.com(?:\.cn)?|api\.aws)\b").unwrap();
    let name = Regex::new(NAMES).unwrap();
    let is_literal = |line: &&str| {
        let is_example = EXAMPLES.iter().any(|example| line.contains(example));
        let has_host = host.find_iter(line).any(|found| !name.is_match(found.as_str()));
        !is_example && (arn.is_match(line) || has_host)
    };
    text.lines().filter(is_literal).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_literal_is_found() {
    for line in [
        "format!(\"arn:aws:s3:::{bucket}\")",
        "\"https://api.sagemaker.us-gov-west-1.amazonaws.com\"",
        "\"{account}.dkr.ecr.{region}.amazonaws.com.cn\"",
        "sts.eu-west-1.api.aws",
    ] {
        assert_eq!(literals(line).len(), 1, "{line}");
    }
    for line in
        ["format!(\"arn:{partition}:s3:::{bucket}\")", "\"sagemaker.amazonaws.com\"", "arn:aws:iam::<account>:role/x"]
    {
        assert_eq!(literals(line).len(), 0, "{line}");
    }
}

#[test]
fn code_templates_and_scaffolds_name_no_partition() {
    let mut found = Vec::new();
    for root in PACKAGES {
        for file in package(root) {
            let name = format!("{root}/{}", file.name);
            let is_test = name.contains("/tests") || name.contains("/testing") || name.ends_with("/stub.rs");
            if is_test || name.contains("emulator/model") || DOMAINS.iter().any(|(known, _)| *known == name) {
                continue;
            }
            found.extend(literals(&file.code()).into_iter().map(|line| format!("{name}: {line}")));
        }
    }
    let folders = ["ci-templates/templates", "src/executor/lifecycle/init", "runner-config/iam/lifecycle"];
    for path in folders.iter().flat_map(|folder| files_below(folder)) {
        // A principal cannot have a pattern: `credentials trust-policy` makes that of an environment.
        let is_code = Path::new(&path).extension().is_some_and(|end| end == "rs");
        if !is_code && !path.ends_with("-trust.json") {
            found.extend(literals(&read(&path)).into_iter().map(|line| format!("{path}: {line}")));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The files below a folder of the repository.
fn files_below(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap().map(Result::unwrap);
    let below = |entry: std::fs::DirEntry| {
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() { files_below(&path) } else { vec![path] }
    };
    entries.flat_map(below).collect()
}
