//! Rules of the modules' text: no terraform is needed.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;

use super::{MODULES, folder};

fn files(module: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder().join(module)).unwrap().map(|entry| entry.unwrap().path());
    let is_code = |path: &std::path::PathBuf| path.extension().is_some_and(|ending| ending == "tf");
    let read = |path: &Path| {
        let name = format!("{module}/{}", path.file_name().unwrap().to_str().unwrap());
        (name, std::fs::read_to_string(path).unwrap())
    };
    entries.filter(is_code).map(|path| read(&path)).collect()
}

/// The blocks of a kind, by name.
fn blocks<'a>(text: &'a str, kind: &str) -> Vec<(&'a str, &'a str)> {
    let parts = text.split(&format!("\n{kind} \"")).skip(1).collect::<Vec<_>>();
    parts.into_iter().map(|part| (part.split('"').next().unwrap(), part.split("\n}\n").next().unwrap())).collect()
}

#[test]
fn modules_are_the_folders() {
    let found: BTreeSet<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, MODULES.iter().map(|name| (*name).to_owned()).collect());
}

/// Each file begins with a comment and is short; no module configures a provider, and none names a partition, an account or a region but
/// those of the sample that it replaces.
#[test]
fn modules_keep_the_rules_of_the_house() {
    let literal = Regex::new(r"arn:aws[a-z-]*:|\b[0-9]{12}\b|\b[a-z]{2}(-gov)?-[a-z]+-[0-9]\b").unwrap();
    let versions: BTreeSet<_> =
        MODULES.map(|module| std::fs::read_to_string(folder().join(module).join("versions.tf")).unwrap()).into();
    assert_eq!(versions.len(), 1, "the modules want different versions");
    for module in MODULES {
        for (name, text) in files(module) {
            assert!(text.starts_with("# ") && text.lines().count() < 500, "{name}");
            assert!(!text.contains("\nprovider \""), "{name} configures a provider");
            for line in text.lines().filter(|line| literal.is_match(line)) {
                let is_of_sample =
                    ["arn:aws:", "eu-west-1", "123456789012", "eu-west-1\\\\"].iter().any(|part| line.contains(part))
                        && ["runner/policies.tf", "oidc-roles/main.tf"].contains(&name.as_str());
                assert!(is_of_sample, "{name}: {line}");
            }
        }
    }
}

/// Each input has a type and a description, each output a description, and the README of the module has them all.
#[test]
fn inputs_and_outputs_are_described() {
    for module in MODULES {
        let readme = std::fs::read_to_string(folder().join(module).join("README.md")).unwrap();
        let text: String = files(module).into_iter().map(|(_, text)| text).collect();
        let inputs = blocks(&text, "variable");
        assert!(!inputs.is_empty(), "{module}");
        for (name, block) in inputs {
            assert!(block.contains("description = \"") || block.contains("description ="), "{module}: {name}");
            assert!(block.contains("  type "), "{module}: {name} has no type");
            assert!(readme.contains(&format!("| `{name}` |")), "{module}/README.md has no input {name}");
        }
        for (name, block) in blocks(&text, "output") {
            assert!(block.contains("description = "), "{module}: {name}");
            assert!(readme.contains(&format!("| `{name}` |")), "{module}/README.md has no output {name}");
        }
        assert!(readme.contains("```hcl\nmodule \""), "{module}/README.md has no example");
    }
}

/// The names that the modules replace are those of the shipped policies: without them a name of the sample would stay.
#[test]
fn the_samples_have_the_names_that_are_replaced() {
    let policies = std::fs::read_dir(folder().join("../iam/creator-in-vpc")).unwrap();
    let text: String = policies.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    for name in [
        "example-ci-sagemaker/sagemaker-executor/",
        "role/ci-runner-host",
        "role/ci-creator",
        "role/ci-training",
        "sg-0a",
        "vpce-0a",
        "subnet/subnet-0a",
        "key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "\"86400\"",
    ] {
        assert!(text.contains(name), "{name}");
    }
}
