//! Statements of the shipped policies against what was called: each allows something that a row of this suite asked for.
//!
//! The rows leave records in the folder of `IAM_RECORD`, also those of the demonstrations; `IAM_JUDGE=1` reads them, after the rows.

use std::collections::{BTreeMap, BTreeSet};

use executor::config::env::Environment;
use serde_json::Value;

use crate::support::iam::{CREATOR_ROLE, HOST_ROLE, TRAINING_ROLE};
use crate::support::shipped_roles::of_test_account;
use crate::support::used_statements::{folder, records};
use crate::support::waiting::tell;

/// Statements, or actions of one, that only AWS itself asks for; each with its use.
const USED_AT_AWS_ALONE: [(&str, &str, &str); 0] = [];

/// `Sid` and action.
type Used = BTreeSet<(String, String)>;

/// One text, or a list.
fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// What the statements of a policy allow.
fn granted(policy: &Value) -> Used {
    let statements = policy["Statement"].as_array().into_iter().flatten().filter(|one| one["Effect"] == "Allow");
    let of = |one: &Value| {
        let sid = one["Sid"].as_str().unwrap_or_default().to_owned();
        texts(&one["Action"]).into_iter().map(move |action| (sid.clone(), action))
    };
    statements.flat_map(of).collect()
}

/// The shipped policies of commands, as the tests have them.
fn shipped() -> BTreeMap<String, Value> {
    let folder = super::root().join("runner-config/iam/lifecycle");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let of_roles = files.filter(|path| !path.to_str().unwrap().ends_with("-trust.json"));
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), of_test_account(&text))
    };
    of_roles.map(read).collect()
}

/// The name of a policy: the file of a shipped one, or the role that `policy iam` makes it for.
fn name(role: &str, policy: &Value, shipped: &BTreeMap<String, Value>) -> Option<String> {
    let file = shipped.iter().find(|(_, text)| *text == policy).map(|(file, _)| file.clone());
    file.or_else(|| [HOST_ROLE, TRAINING_ROLE, CREATOR_ROLE].contains(&role).then(|| role.to_owned()))
}

#[test]
fn every_statement_of_a_shipped_policy_allowed_something() {
    let is_asked = Environment::of_process().get("IAM_JUDGE").is_some();
    let Some(folder) = folder().filter(|_| is_asked) else {
        return tell(
            "SKIPPED: statements of policies against calls: the gate judges them after its tests, by IAM_RECORD and IAM_JUDGE",
        );
    };
    let (shipped, records) = (shipped(), records(&folder));
    let mut granted_by: BTreeMap<String, Used> =
        shipped.iter().map(|(file, policy)| (file.clone(), granted(policy))).collect();
    let mut used_by = BTreeMap::<String, Used>::new();
    for record in &records {
        for role in record["accounts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["RoleDetailList"].as_array())
            .flatten()
        {
            let used = record["used"][role["Arn"].as_str().unwrap()].as_array().cloned().unwrap_or_default();
            for (number, policy) in role["RolePolicyList"].as_array().into_iter().flatten().enumerate() {
                let policy = &policy["PolicyDocument"];
                let Some(name) = name(role["RoleName"].as_str().unwrap(), policy, &shipped) else { continue };
                granted_by.entry(name.clone()).or_default().extend(granted(policy));
                let of_policy = used.iter().filter(|one| one["policy"] == number);
                let pairs = of_policy.flat_map(|one| {
                    let sid = one["statement"].as_str().unwrap().to_owned();
                    texts(&one["actions"]).into_iter().map(move |action| (sid.clone(), action))
                });
                used_by.entry(name).or_default().extend(pairs);
            }
        }
    }
    let mut unused = Vec::new();
    for (name, granted) in &granted_by {
        let used = used_by.get(name).cloned().unwrap_or_default();
        for (sid, action) in granted.difference(&used) {
            // A key's actions are asked of KMS by other services.
            let is_known = USED_AT_AWS_ALONE.iter().any(|(of, known, _)| of == name && known == action);
            if !is_known && !action.starts_with("kms:") {
                unused.push(format!("{name}: {sid}: {action}"));
            }
        }
    }
    assert!(unused.is_empty(), "{} records; nothing used:\n{}", records.len(), unused.join("\n"));
}
