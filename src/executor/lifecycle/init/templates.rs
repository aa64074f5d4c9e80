//! The files of new projects. They lie beside this one as they are, so that they can be run and checked.

/// Stands for the project's name in the files.
const PLACEHOLDER: &str = "project-name";

/// The files of a kind of project.
pub(super) struct Template {
    /// Names, with their folders, and texts.
    pub(super) files: &'static [(&'static str, &'static str)],
    pub(super) longest_name: usize,
}

impl Template {
    /// The files of a project with this name.
    pub(super) fn files_of(&self, name: &str) -> Vec<(&'static str, String)> {
        self.files.iter().map(|(file, text)| (*file, text.replace(PLACEHOLDER, name))).collect()
    }
}

/// A project that trains a model.
pub(super) const TRAINING: Template = Template {
    files: &[
        (".dockerignore", include_str!("training/dockerignore")),
        (".gitignore", include_str!("training/gitignore")),
        (".gitlab-ci.yml", include_str!("training/gitlab-ci.yml")),
        ("Dockerfile", include_str!("training/Dockerfile")),
        ("README.md", include_str!("training/README.md")),
        ("manifest.json", include_str!("training/manifest.json")),
        ("requirements.txt", include_str!("training/requirements.txt")),
        ("tests/unit/test_training.py", include_str!("training/tests/unit/test_training.py")),
        ("training_script.py", include_str!("training/training_script.py")),
    ],
    longest_name: 63,
};

/// A project that serves a model. Its endpoint is named after the project, a hyphen, and at most 24 letters of an environment.
pub(super) const ENDPOINT: Template = Template {
    files: &[
        (".dockerignore", include_str!("endpoint/dockerignore")),
        (".gitignore", include_str!("endpoint/gitignore")),
        (".gitlab-ci.yml", include_str!("endpoint/gitlab-ci.yml")),
        ("Dockerfile", include_str!("endpoint/Dockerfile")),
        ("README.md", include_str!("endpoint/README.md")),
        ("inference_handler.py", include_str!("endpoint/inference_handler.py")),
        ("manifest.json", include_str!("endpoint/manifest.json")),
        ("requirements.txt", include_str!("endpoint/requirements.txt")),
        ("sample_model.py", include_str!("endpoint/sample_model.py")),
        ("samples.jsonl", include_str!("endpoint/samples.jsonl")),
        ("tests/unit/test_inference.py", include_str!("endpoint/tests/unit/test_inference.py")),
    ],
    longest_name: 38,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::env::Environment;
    use crate::lifecycle::manifest::ManifestText;

    #[test]
    fn the_manifests_have_no_mistake_for_the_longest_name() {
        for template in [TRAINING, ENDPOINT] {
            let name = "a".repeat(template.longest_name);
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("manifest.json");
            let files = template.files_of(&name);
            let (_, text) = files.iter().find(|(file, _)| *file == "manifest.json").unwrap();
            std::fs::write(&file, text).unwrap();
            let text = ManifestText::read(&file).unwrap();
            let slug = ("CI_ENVIRONMENT_SLUG".into(), "e".repeat(24).into());
            for environment in ["staging", "production"] {
                let reading = text.of(Some(environment), &Environment::from_pairs([slug.clone()]));
                assert_eq!(reading.findings, [], "{environment}");
            }
        }
    }

    /// The first rule of a list whose condition holds; `false` for `when: never`, and without one.
    fn starts(rules: &str, variables: &[(&str, &str)]) -> bool {
        let value = |word: &str| match word.strip_prefix('$') {
            Some(name) => variables.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value).to_owned(),
            None => word.trim_matches('"').to_owned(),
        };
        let holds = |term: &str| match (term.split_once(" == "), term.split_once(" != ")) {
            (Some((one, other)), _) => value(one) == value(other),
            (None, Some((one, other))) => value(one) != value(other),
            (None, None) => !value(term).is_empty(),
        };
        let rules: Vec<_> =
            rules.split("- if: ").skip(1).map(|rule| rule.split_once('\n').unwrap_or((rule, ""))).collect();
        assert!(!rules.is_empty());
        let found = rules.iter().find(|(condition, _)| condition.split(" && ").all(holds));
        found.is_some_and(|(_, options)| !options.contains("when: never"))
    }

    #[test]
    fn the_tag_of_a_release_starts_no_pipeline_and_the_default_branch_alone_is_released() {
        const DEFAULT: (&str, &str) = ("CI_DEFAULT_BRANCH", "main");
        let tag = [DEFAULT, ("CI_PIPELINE_SOURCE", "push"), ("CI_COMMIT_TAG", "stable-20261129T045233Z")];
        let main = [DEFAULT, ("CI_PIPELINE_SOURCE", "push"), ("CI_COMMIT_BRANCH", "main")];
        let branch = [DEFAULT, ("CI_PIPELINE_SOURCE", "push"), ("CI_COMMIT_BRANCH", "better")];
        let merge_request = [DEFAULT, ("CI_PIPELINE_SOURCE", "merge_request_event"), ("CI_MERGE_REQUEST_IID", "1")];
        for template in [TRAINING, ENDPOINT] {
            let (_, text) = template.files.iter().find(|(file, _)| *file == ".gitlab-ci.yml").unwrap();
            let block = |start: &str| text.split(start).nth(1).unwrap().split("\n\n").next().unwrap();
            let all = [&tag[..], &main, &branch, &merge_request];
            let [workflow, release] =
                ["\nworkflow:\n", "\nrelease:\n"].map(|start| all.map(|set| starts(block(start), set)));
            assert_eq!((workflow, release), ([false, true, true, true], [false, true, false, false]));
        }
        let (_, text) = TRAINING.files.iter().find(|(file, _)| *file == ".gitlab-ci.yml").unwrap();
        let block = |start: &str| text.split(start).nth(1).unwrap().split("\n\n").next().unwrap();
        let [candidate, stable] = ["\ncandidate-package:\n", "\nstable-package:\n"].map(block);
        let starts_in = |block: &str| [&main[..], &branch, &merge_request].map(|set| starts(block, set));
        assert_eq!((starts_in(candidate), starts_in(stable)), ([false, true, true], [true, false, false]));
        assert!(stable.contains("environment: {name: staging, action: access}") && stable.contains("id_tokens:"));
        assert!(!candidate.contains("environment"), "merge requests have none: {candidate}");
    }

    #[test]
    fn every_file_of_the_folders_is_in_its_list_and_names_no_host() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("lifecycle/init");
        for (folder, template) in [("training", TRAINING), ("endpoint", ENDPOINT)] {
            let mut folders = vec![root.join(folder)];
            let mut found = Vec::new();
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() { folders.push(path) } else { found.push(std::fs::read_to_string(path).unwrap()) }
                }
            }
            assert_eq!(found.len(), template.files.len());
            for text in found {
                assert!(template.files.iter().any(|(_, listed)| **listed == text), "{text}");
                assert!(!text.contains("https://") && !text.contains(":latest"), "{text}");
            }
        }
    }
}
