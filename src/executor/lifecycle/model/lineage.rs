//! The origin that a version tells, and the token that makes two requests for the same content the same version. Pure.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::approvals::{self, AUTHOR, ApprovalRule, NEEDED};
use super::metadata::{field, value, without_credentials};
use crate::cloud::{ModelVersion, Sha256Hash, StoredMetrics, VersionSpec};
use crate::lifecycle::hex::hex;
use crate::lifecycle::identity::JobUser;
use crate::lifecycle::manifest::{Manifest, ModelEntry};
use crate::lifecycle::pipeline::Pipeline;

/// Longest `ClientToken`.
const TOKEN: usize = 36;
/// Entry with the token.
pub(super) const CONTENT: &str = "content";
/// Entries with the package of a version: its name, and the SHA-256 of the file.
const PACKAGE: &str = "package";
const PACKAGE_SHA256: &str = "package-sha256";
/// Longest description of a version.
const LONGEST_DESCRIPTION: usize = 1024;

/// The parts of a version, each by its hash.
#[derive(Debug, Clone, Copy)]
pub(super) struct VersionContent<'a> {
    /// The hash by which the model differs from others.
    pub(super) model: &'a str,
    /// `sha256:` and 64 hexadecimal digits.
    pub(super) image_digest: &'a str,
    /// Keys of the files of metrics.
    pub(super) metrics: &'a [String],
}

/// The stored model of a version.
#[derive(Debug, Clone, Default)]
pub(super) struct StoredModel {
    /// Of its `model.tar.gz`.
    pub(super) hash: Sha256Hash,
    /// Object that names it for a folder's files.
    pub(super) index_key: Option<String>,
}

/// The package that a version is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackageOrigin {
    pub(crate) name: String,
    /// Of the whole file: 64 hexadecimal digits.
    pub(crate) sha256: String,
    /// The pipeline that made it, as the package says.
    pub(crate) pipeline: Pipeline,
}

/// Entries of a version that was made of a package.
pub(super) fn package_entries(package: &PackageOrigin) -> [(String, String); 2] {
    [(PACKAGE, &package.name), (PACKAGE_SHA256, &package.sha256)].map(|(name, text)| (name.to_owned(), value(text)))
}

impl VersionContent<'_> {
    /// The `ClientToken`: the same for the same content by the same user in the same pipeline, whichever job it is. Each attempt
    /// after a version that SageMaker failed has another one.
    pub(super) fn token(
        &self,
        model: &ModelEntry,
        pipeline: &Pipeline,
        author: Option<&JobUser>,
        attempt: u32,
    ) -> String {
        let mut hash = Sha256::new();
        // A length before each text keeps neighbors apart.
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        add(&model.group);
        add(self.model);
        add(self.image_digest);
        add(&self.metrics.join(" "));
        for (name, value) in &model.environment {
            add(name);
            add(value);
        }
        add(pipeline.id.as_deref().unwrap_or_default());
        add(&author.map(JobUser::key).unwrap_or_default());
        add(&attempt.to_string());
        hex(&hash.finalize()).chars().take(TOKEN).collect()
    }

    /// The metadata of the version, which will need the approvals of the rule at least.
    pub(super) fn metadata(
        &self,
        token: &str,
        stored: &StoredModel,
        manifest: &Manifest,
        pipeline: &Pipeline,
        author: Option<&JobUser>,
        rule: ApprovalRule,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let manifest = hex(&Sha256::digest(serde_json::to_vec(manifest)?));
        let known = [
            (CONTENT, Some(token.to_owned())),
            ("model-sha256", Some(hex(&stored.hash))),
            ("model-files", stored.index_key.clone()),
            ("image-digest", Some(self.image_digest.to_owned())),
            ("manifest-sha256", Some(manifest)),
            ("executor-version", Some(env!("CARGO_PKG_VERSION").to_owned())),
            ("project", pipeline.project.clone()),
            ("commit", pipeline.commit.clone()),
            ("repository", pipeline.repository.as_deref().map(without_credentials)),
            ("pipeline-id", pipeline.id.clone()),
            ("pipeline-url", pipeline.url.as_deref().map(without_credentials)),
            ("job-id", pipeline.job_id.clone()),
            (AUTHOR, author.map(approvals::author)),
            (NEEDED, Some(rule.text())),
        ];
        let named = known.into_iter().filter_map(|(name, text)| Some((name.to_owned(), value(&text?))));
        let metrics = self.metrics.iter().enumerate().map(|(at, key)| (format!("metrics-{}", at + 1), value(key)));
        Ok(named.chain(metrics).filter(|(_, text)| !text.is_empty()).collect())
    }
}

/// Entries that another job of the pipeline writes otherwise.
const OF_A_JOB: [&str; 5] = ["job-id", "executor-version", "manifest-sha256", AUTHOR, NEEDED];

/// Names of the parts in which a version is not the one that the request makes. A version with the mark of the same content may
/// have been made by anybody who may make versions.
pub(super) fn differences(version: &ModelVersion, image: &str, spec: &VersionSpec) -> Vec<String> {
    let metrics =
        |metrics: &Option<StoredMetrics>| metrics.as_ref().map(|file| (file.uri.clone(), file.digest.clone()));
    let id = |metadata: &BTreeMap<String, String>| {
        metadata.get(AUTHOR).and_then(|author| field(author, "id").map(str::to_owned))
    };
    // The first user who deploys a package registers it for all.
    let has_author = spec.metadata.contains_key(PACKAGE_SHA256) || id(&version.metadata) == id(&spec.metadata);
    let parts = [
        ("image", image == spec.image),
        ("model", version.model_data_url == spec.model_data_url),
        ("variables", version.environment == spec.environment),
        ("metrics", metrics(&version.metrics) == metrics(&spec.metrics)),
        (AUTHOR, has_author),
    ];
    let parts = parts.into_iter().filter(|(_, is_same)| !is_same).map(|(name, _)| name.to_owned());
    let entries = spec
        .metadata
        .iter()
        .filter(|(name, value)| !OF_A_JOB.contains(&name.as_str()) && version.metadata.get(*name) != Some(*value));
    parts.chain(entries.map(|(name, _)| format!("`{name}`"))).collect()
}

/// The version's description: that of the manifest, and the token, by which a list of versions shows what they hold.
pub(super) fn description(model: &ModelEntry, token: &str) -> String {
    let mark = mark(token);
    let own = model.description.as_deref().unwrap_or_default();
    let own: String = own.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let own: String = own.chars().take(LONGEST_DESCRIPTION - mark.len() - 1).collect();
    format!("{} {mark}", own.trim()).trim_start().to_owned()
}

/// The end of the description of a version with this token.
pub(super) fn mark(token: &str) -> String {
    format!("[{CONTENT} {token}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> ModelEntry {
        ModelEntry { group: "churn".to_owned(), image: "r/i@sha256:1".to_owned(), ..ModelEntry::default() }
    }

    fn user() -> JobUser {
        let text = |text: &str| text.to_owned();
        JobUser {
            issuer: text("gitlab.example.com"),
            id: text("1"),
            login: text("u"),
            project: text("g/p"),
            pipeline: text("7"),
            job: text("8"),
        }
    }

    fn pipeline() -> Pipeline {
        let text = |text: &str| Some(text.to_owned());
        Pipeline {
            id: text("7"),
            url: text("https://ci:s3cr3t@gitlab.example/g/p/-/pipelines/7"),
            ..Pipeline::default()
        }
    }

    #[test]
    fn each_part_of_the_content_changes_the_token() {
        let keys = ["metrics/1.json".to_owned()];
        let content = VersionContent { model: "files 1", image_digest: "sha256:1", metrics: &keys };
        let base = content.token(&model(), &pipeline(), None, 0);
        assert_eq!((base.len(), base.clone()), (TOKEN, content.token(&model(), &pipeline(), None, 0)));
        let environment = BTreeMap::from([("A".to_owned(), "b".to_owned())]);
        let others = [
            VersionContent { model: "files 2", ..content }.token(&model(), &pipeline(), None, 0),
            VersionContent { image_digest: "sha256:2", ..content }.token(&model(), &pipeline(), None, 0),
            VersionContent { metrics: &[], ..content }.token(&model(), &pipeline(), None, 0),
            content.token(&ModelEntry { environment, ..model() }, &pipeline(), None, 0),
            content.token(&ModelEntry { group: "other".to_owned(), ..model() }, &pipeline(), None, 0),
            content.token(&model(), &Pipeline { id: Some("8".to_owned()), ..pipeline() }, None, 0),
            content.token(&model(), &pipeline(), Some(&user()), 0),
            content.token(&model(), &pipeline(), None, 1),
        ];
        for other in others {
            assert_ne!(other, base);
        }
        // Another job of the pipeline registers the same.
        let again = Pipeline { job_id: Some("9".to_owned()), ..pipeline() };
        assert_eq!(content.token(&model(), &again, None, 0), base);
    }

    #[test]
    fn metadata_is_within_the_limits_of_the_registry() {
        let keys: Vec<_> = (0..10).map(|number| format!("metrics/{number}.json")).collect();
        let content = VersionContent { model: "files 1", image_digest: "sha256:1", metrics: &keys };
        let metadata = content.metadata(
            "t",
            &StoredModel::default(),
            &Manifest::default(),
            &pipeline(),
            None,
            ApprovalRule::default(),
        );
        let metadata = metadata.unwrap();
        assert_eq!(metadata["pipeline-url"], "https://gitlab.example/g/p/-/pipelines/7");
        assert_eq!((metadata["metrics-10"].as_str(), metadata.get(AUTHOR)), ("metrics/9.json", None));
        // Ten approvals and ten rejections must fit too.
        assert!(metadata.len() <= super::super::metadata::MOST - 20, "{}", metadata.len());
    }

    #[test]
    fn a_description_ends_with_its_mark() {
        let long = ModelEntry { description: Some("x\n".repeat(2000)), ..model() };
        let made = description(&long, &"0".repeat(TOKEN));
        assert!(made.chars().count() <= LONGEST_DESCRIPTION && made.ends_with(&mark(&"0".repeat(TOKEN))), "{made}");
        assert!(!made.contains('\n'));
        assert_eq!(description(&model(), "1"), "[content 1]");
    }
}
