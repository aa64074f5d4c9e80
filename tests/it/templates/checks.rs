//! The components against the lint, and broken ones that it must catch by the name of its rule.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Map;

use super::component::{Component, components};
use super::lint::{exposed_pattern, findings, jobs, script, written};
use super::yaml::documents;
use crate::support::program::executor;

#[test]
fn components_have_no_findings() {
    let all = components();
    let parts = ["job", "validate", "image", "train", "model", "deploy", "release", "report", "monitor"];
    let clients = ["deploy-kubernetes", "deploy-ecs"];
    let flows = ["training-project", "inference-project", "full-project"];
    for name in parts.iter().chain(&clients).chain(&flows) {
        assert!(all.contains_key(*name), "{name} is missing");
    }
    // GitLab's limit of a project.
    assert!(all.len() <= 30);
    for component in all.values() {
        let found = findings(component, &all);
        assert!(found.is_empty(), "{}:\n{}", component.name, found.join("\n"));
        for input in ["job_prefix", "image", "tags"] {
            assert!(component.inputs.contains_key(input), "{}: no input {input}", component.name);
        }
        let stage = component.inputs.keys().any(|input| input == "stage");
        assert_eq!(stage, !component.is_flow(), "{}: a flow owns its stages, a part has the input", component.name);
    }
}

/// The first line of each names the one rule that it breaks.
#[test]
fn broken_components_are_found() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/templates/broken");
    let all = components();
    let mut rules = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let rule = text.lines().next().unwrap().trim_start_matches("# ").to_owned();
        let found = findings(&Component::new(name, &text), &all);
        assert!(
            !found.is_empty() && found.iter().all(|finding| finding.starts_with(&rule)),
            "{name} breaks {rule}: {found:?}"
        );
        rules.push(rule);
    }
    rules.sort();
    rules.dedup();
    assert!(rules.len() >= 10, "{rules:?}");
}

/// Each call of the program is a command line that it takes. It ends at once, because the folder has no manifest and no package.
#[test]
fn calls_of_the_program_are_command_lines() {
    let all = components();
    let folder = tempfile::tempdir().unwrap();
    let mut calls: Vec<_> = all
        .values()
        .flat_map(|component| {
            jobs(&component.expanded(&Map::new(), &all)).flat_map(|(_, job)| script(job)).collect::<Vec<_>>()
        })
        .collect();
    calls.sort();
    calls.dedup();
    assert!(calls.len() > 12, "{calls:?}");
    calls.push(vec!["gate".to_owned(), "--no-such-option".to_owned()]);
    let is_refused = |words: &Vec<String>| {
        let ended = Command::new(executor()).args(words).current_dir(&folder).env_clear().output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        (ended.status.code() == Some(2) && said.contains("--help")).then(|| format!("{}:\n{said}", words.join(" ")))
    };
    let refused: Vec<_> = calls.iter().filter_map(is_refused).collect();
    assert_eq!(refused.len(), 1, "the last one alone:\n{}", refused.join("\n"));
    assert!(refused[0].contains("--no-such-option"), "{}", refused[0]);
}

/// The variables that the lint believes a command to write are those of the documents.
#[test]
fn variables_of_dotenv_files_are_documented() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/LIFECYCLE.md")).unwrap();
    for variable in written() {
        assert!(page.contains(&format!("`{variable}`")), "docs/LIFECYCLE.md has no {variable}");
    }
}

/// The pipelines of new projects and of the documents: GitLab refuses what the lint finds in them.
#[test]
fn other_pipelines_expose_no_pattern() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let mut texts = vec![
        read("src/executor/lifecycle/init/training/gitlab-ci.yml"),
        read("src/executor/lifecycle/init/endpoint/gitlab-ci.yml"),
    ];
    let pages = ["docs/LIFECYCLE.md", "README.md"].iter().chain(&crate::docs::jobs::PAGES);
    let pages = pages.map(|path| read(path)).collect::<Vec<_>>().join("\n");
    let blocks = pages.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned());
    texts.extend(blocks);
    let mut exposed = 0;
    for text in &texts {
        let pipeline = documents(text, "a pipeline").remove(0);
        for (name, job) in jobs(pipeline.as_object().unwrap()) {
            assert_eq!(exposed_pattern(job), None, "{name}:\n{text}");
            exposed += usize::from(!job["artifacts"]["expose_as"].is_null());
        }
    }
    assert!(exposed > 3, "{exposed}");
}

/// What a deployment to production downloads stays, for GitLab's Rollback button.
#[test]
fn packages_of_production_never_expire() {
    let all = components();
    for flow in ["inference-project", "full-project"] {
        let pipeline = all[flow].expanded(&Map::new(), &all);
        let needs = pipeline["production-deploy"]["needs"].as_array().unwrap();
        let with_files: Vec<_> = needs.iter().filter(|need| need["artifacts"] == true).collect();
        assert!(!with_files.is_empty(), "{flow}");
        for need in with_files {
            let needed = &pipeline[need["job"].as_str().unwrap()];
            assert_eq!(needed["artifacts"]["expire_in"], "never", "{flow}: {need}");
        }
    }
    // Values for clients of an endpoint, which the parts `deploy-kubernetes` and `deploy-ecs` deploy.
    let model = all["model"].expanded(&Map::new(), &all);
    let client =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/client-api/.gitlab-ci.yml"));
    let client = documents(&client.unwrap(), "a pipeline").remove(0);
    for job in [&model["register"], &model["latest"], &client["image-build"]] {
        assert_eq!(job["artifacts"]["expire_in"], "never", "{job}");
    }
}

/// Where GitLab protects the environment of production, it refuses jobs there of a user who may not deploy: with `stable_environment` and
/// `production_plan`, no job there runs of itself before somebody started the deployment.
#[test]
fn no_job_of_production_runs_before_somebody_deploys() {
    let all = components();
    for flow in ["training-project", "inference-project", "full-project"] {
        let pipeline = all[flow].expanded(&Map::new(), &all);
        let of_production =
            |job: &&serde_json::Value| job["environment"]["name"] == "$LIFECYCLE_PRODUCTION_ENVIRONMENT";
        let follows = |job: &serde_json::Value| {
            job["needs"].as_array().into_iter().flatten().any(|need| need["job"] == "production-deploy")
        };
        let waits = |rule: &serde_json::Value| ["manual", "never"].iter().any(|when| rule["when"] == *when);
        let mut found = 0;
        for (name, job) in jobs(&pipeline).filter(|(_, job)| of_production(job)) {
            found += 1;
            let rules = job["rules"].as_array().unwrap();
            let is_by_hand = |rule: &serde_json::Value| {
                waits(rule)
                    && rule["if"].as_str().is_some_and(|text| text.contains("$LIFECYCLE_PRODUCTION_PLAN == \"manual\""))
            };
            // The plan is made by hand where this is asked for, by a rule before the one that makes it of itself.
            let asked = rules.iter().position(is_by_hand);
            let of_itself = rules.iter().position(|rule| !waits(rule));
            let holds = of_itself.is_none() || follows(job) || asked.is_some_and(|asked| Some(asked) < of_itself);
            assert!(holds, "{flow}: {name}");
        }
        assert_eq!(found, if flow == "training-project" { 0 } else { 9 }, "{flow}");
        let package = &pipeline["stable-package"];
        assert_eq!(package["environment"]["name"], "$LIFECYCLE_STABLE_ENVIRONMENT");
        assert_eq!(package["variables"]["COMPONENT_MANIFEST_ENVIRONMENT"], "$LIFECYCLE_PRODUCTION_ENVIRONMENT");
    }
}

/// A newer pipeline cancels none that was asked for, and none of a branch that is deployed.
#[test]
fn a_merge_goes_on_beside_the_next_one() {
    let all = components();
    for flow in ["training-project", "inference-project", "full-project"] {
        let pipeline = all[flow].expanded(&Map::new(), &all);
        let rules = pipeline["workflow"]["rules"].as_array().unwrap().iter();
        let kept = rules.filter(|rule| rule["auto_cancel"]["on_new_commit"] == "none");
        let kept: Vec<_> = kept.map(|rule| rule["if"].as_str().unwrap()).collect();
        assert_eq!(kept.len(), 4, "{flow}: {kept:?}");
        // Each branch by its variable, else by its input.
        assert!(kept[0].contains("schedule") && kept[1].contains("$LIFECYCLE_PRODUCTION_BRANCH"), "{kept:?}");
        assert!(kept[2].contains("\"main\"") && kept[3].contains("\"develop\""), "{kept:?}");
    }
}

/// The policy of a command is a file of this name in `runner-config/iam/lifecycle`.
fn policies(job: &serde_json::Value) -> BTreeSet<String> {
    let of_words = |words: &Vec<String>| {
        let is_group = ["image", "model", "endpoint"].contains(&words[0].as_str());
        words[..if is_group { 2 } else { 1 }].join(" ")
    };
    let of_call = |call: String| match call.as_str() {
        // Reads the manifest alone; speaks with GitLab alone.
        "validate" | "release" => Vec::new(),
        // A deployment of a package stores its record as well.
        "endpoint deploy" => vec!["endpoint-deploy".to_owned(), "endpoint-deploy-package".to_owned()],
        "model reject" => vec!["model-approve".to_owned()],
        other => vec![other.replace(' ', "-")],
    };
    script(job).iter().map(of_words).flat_map(of_call).collect()
}

/// The README tells for each flow which policies the role of an environment needs.
#[test]
fn the_readme_has_the_policies_of_each_role() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("ci-templates/README.md")).unwrap();
    let all = components();
    let mut missing = Vec::new();
    for flow in ["training-project", "inference-project", "full-project"] {
        let mut roles: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let pipeline = all[flow].expanded(&Map::new(), &all);
        let is_left_out = |job: &serde_json::Value| {
            job["rules"].as_array().is_some_and(|rules| rules.iter().all(|rule| rule["when"] == "never"))
        };
        for (name, job) in jobs(&pipeline).filter(|(_, job)| !is_left_out(job)) {
            let scope = match job["environment"]["name"].as_str() {
                None => continue,
                Some("$LIFECYCLE_STAGING_ENVIRONMENT") => "staging",
                Some("$LIFECYCLE_PRODUCTION_ENVIRONMENT" | "$LIFECYCLE_STABLE_ENVIRONMENT") => "production",
                Some("$LIFECYCLE_CANDIDATE_ENVIRONMENT") => "review/*",
                Some(other) if other.starts_with("review/") => "review/*",
                Some(other) => panic!("{flow}: {name} has the environment {other}"),
            };
            roles.entry(scope).or_default().extend(policies(job));
        }
        for (scope, policies) in roles {
            for policy in &policies {
                let file = root.join(format!("runner-config/iam/lifecycle/{policy}.json"));
                assert!(file.exists(), "{flow}: {policy}");
            }
            let policies: Vec<_> = policies.iter().map(|policy| format!("`{policy}`")).collect();
            let row = format!("| `{flow}` | `{scope}` | {} |", policies.join(", "));
            if !readme.contains(&row) {
                missing.push(row);
            }
        }
    }
    assert!(missing.is_empty(), "ci-templates/README.md lacks:\n{}", missing.join("\n"));
}
