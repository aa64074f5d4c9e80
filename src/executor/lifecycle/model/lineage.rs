//! What a version says of its origin, and the token that makes two requests for the same content the same version. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::approvals::{self, AUTHOR};
use super::metadata::{value, without_credentials};
use crate::cloud::Sha256Hash;
use crate::lifecycle::identity::JobUser;
use crate::lifecycle::manifest::{Manifest, ModelEntry};
use crate::lifecycle::pipeline::Pipeline;

/// Longest `ClientToken`.
const TOKEN: usize = 36;
/// Entry with the token.
pub(super) const CONTENT: &str = "content";
/// Longest description of a version.
const LONGEST_DESCRIPTION: usize = 1024;

/// What makes a version: each part by its hash.
#[derive(Debug, Clone, Copy)]
pub(super) struct VersionContent<'a> {
    pub(super) model: &'a Sha256Hash,
    /// `sha256:` and 64 hexadecimal digits.
    pub(super) image_digest: &'a str,
    /// Keys of the files of metrics.
    pub(super) metrics: &'a [String],
}

impl VersionContent<'_> {
    /// The `ClientToken`: the same for the same content in the same pipeline.
    pub(super) fn token(&self, model: &ModelEntry, pipeline: &Pipeline) -> String {
        let mut hash = Sha256::new();
        // A length before each text keeps neighbors apart.
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        add(&model.group);
        add(&hex(self.model));
        add(self.image_digest);
        add(&self.metrics.join(" "));
        for (name, value) in &model.environment {
            add(name);
            add(value);
        }
        add(pipeline.id.as_deref().unwrap_or_default());
        hex(&hash.finalize().into()).chars().take(TOKEN).collect()
    }

    /// The metadata of the version.
    pub(super) fn metadata(
        &self,
        token: &str,
        manifest: &Manifest,
        pipeline: &Pipeline,
        author: Option<&JobUser>,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let manifest = hex(&Sha256::digest(serde_json::to_vec(manifest)?).into());
        let known = [
            (CONTENT, Some(token.to_owned())),
            ("model-sha256", Some(hex(self.model))),
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
        ];
        let named = known.into_iter().filter_map(|(name, text)| Some((name.to_owned(), value(&text?))));
        let metrics = self.metrics.iter().enumerate().map(|(at, key)| (format!("metrics-{}", at + 1), value(key)));
        Ok(named.chain(metrics).filter(|(_, text)| !text.is_empty()).collect())
    }
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

/// Hexadecimal digits.
pub(super) fn hex(hash: &Sha256Hash) -> String {
    hash.iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> ModelEntry {
        ModelEntry { group: "churn".to_owned(), image: "r/i@sha256:1".to_owned(), ..ModelEntry::default() }
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
        let content = VersionContent { model: &[1; 32], image_digest: "sha256:1", metrics: &keys };
        let base = content.token(&model(), &pipeline());
        assert_eq!((base.len(), base.clone()), (TOKEN, content.token(&model(), &pipeline())));
        let environment = BTreeMap::from([("A".to_owned(), "b".to_owned())]);
        let others = [
            VersionContent { model: &[2; 32], ..content }.token(&model(), &pipeline()),
            VersionContent { image_digest: "sha256:2", ..content }.token(&model(), &pipeline()),
            VersionContent { metrics: &[], ..content }.token(&model(), &pipeline()),
            content.token(&ModelEntry { environment, ..model() }, &pipeline()),
            content.token(&ModelEntry { group: "other".to_owned(), ..model() }, &pipeline()),
            content.token(&model(), &Pipeline { id: Some("8".to_owned()), ..pipeline() }),
        ];
        for other in others {
            assert_ne!(other, base);
        }
        // Another job of the pipeline registers the same.
        let again = Pipeline { job_id: Some("9".to_owned()), ..pipeline() };
        assert_eq!(content.token(&model(), &again), base);
    }

    #[test]
    fn metadata_is_within_the_limits_of_the_registry() {
        let keys: Vec<_> = (0..10).map(|number| format!("metrics/{number}.json")).collect();
        let content = VersionContent { model: &[1; 32], image_digest: "sha256:1", metrics: &keys };
        let metadata = content.metadata("t", &Manifest::default(), &pipeline(), None).unwrap();
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
