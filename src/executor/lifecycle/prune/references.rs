//! References to the things that `prune` judges: endpoints, deployments that are kept, models, versions and releases. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::file_names::is_packaged;
use super::things::{PruneSource, ThingUser, model_of_config, stem_of_config};
use crate::cloud::{ModelParts, ModelVersion};
use crate::gitlab::api::{Release, ReleaseLink};
use crate::lifecycle::endpoint::{LedgerEntry, LedgerKind, PACKAGE_SHA256, RollbackTo, VERSION, choose};

/// Most times that an address may be escaped.
const MOST_DECODED: usize = 4;

/// An endpoint with what it uses now, and what it will use after its update.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct EndpointUse {
    pub(super) name: String,
    pub(super) configs: Vec<String>,
    /// Those of the configurations, by name, as far as they exist.
    pub(super) models: BTreeMap<String, Option<ModelParts>>,
    /// Those that AWS tells of the endpoint, and of inference components without a model.
    pub(super) images: Vec<String>,
    /// It may have inference components.
    pub(super) has_components: bool,
    /// A configuration does not exist.
    pub(super) lacks_config: bool,
    /// Models or images that it uses are not known.
    pub(super) is_unknown: bool,
}

/// Users by the names of what they use.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct References {
    pub(super) configs: BTreeMap<String, ThingUser>,
    pub(super) models: BTreeMap<String, ThingUser>,
    /// Begins of the names of models, all of which an endpoint may use.
    pub(super) stems: BTreeMap<String, ThingUser>,
    /// By ARN.
    pub(super) versions: BTreeMap<String, ThingUser>,
    /// By digest: `sha256:` and 64 hexadecimal digits.
    pub(super) images: BTreeMap<String, ThingUser>,
    /// Tags of images, whatever their repository.
    pub(super) tags: BTreeMap<String, ThingUser>,
    /// Packages in the bucket, by their SHA-256.
    pub(super) packages: BTreeMap<String, ThingUser>,
    /// Names and addresses of files in GitLab.
    pub(super) files: BTreeMap<String, ThingUser>,
    /// Texts, links and their names of each release, with its tag.
    release_texts: Vec<(String, String)>,
    /// Addresses of the models of versions that stay, with the ARN of each.
    model_data: Vec<(String, String)>,
    /// Endpoints that exist and have no record of deployments where it was looked for.
    pub(super) unrecorded: BTreeSet<String>,
    /// Numbers of packages in GitLab that releases name.
    package_numbers: BTreeMap<u64, ThingUser>,
    /// A release links to a file of a package without its name.
    pub(super) has_numbered_links: bool,
    /// Sources that could not be read.
    pub(super) blind: BTreeSet<PruneSource>,
}

impl References {
    /// The first of these sources that could not be read.
    pub(super) fn blind(&self, sources: &[PruneSource]) -> Option<PruneSource> {
        sources.iter().copied().find(|source| self.blind.contains(source))
    }

    pub(super) fn add_endpoint(&mut self, one: &EndpointUse) {
        let user = || ThingUser::Endpoint(one.name.clone());
        self.configs.extend(one.configs.iter().map(|config| (config.clone(), user())));
        self.models.extend(one.configs.iter().filter_map(|config| Some((model_of_config(config)?, user()))));
        for image in &one.images {
            self.add_image(image, &user());
        }
        if one.is_unknown {
            self.blind.insert(PruneSource::EndpointModels);
        }
        if one.lacks_config {
            // Somebody deleted the configuration of an endpoint that goes on.
            self.stems
                .extend(one.configs.iter().filter_map(|config| Some((stem_of_config(config)?.to_owned(), user()))));
        }
        for (name, model) in &one.models {
            self.models.insert(name.clone(), user());
            if let Some(parts) = model {
                self.add_parts(parts, &user());
            }
        }
    }

    /// The newest deployments of an endpoint that exists, newest first: the last `keep` ones that succeeded, those without an end, and
    /// that which a rollback would bring back.
    pub(super) fn add_history(&mut self, endpoint: &str, history: &[LedgerEntry], keep: usize) {
        let whole = history;
        // Everything from before a deletion is gone.
        let is_deletion = |entry: &&LedgerEntry| entry.begin.kind == LedgerKind::Delete && entry.has_succeeded();
        let history: Vec<_> = history.iter().take_while(|entry| !is_deletion(entry)).collect();
        let succeeded = history.iter().filter(|entry| entry.has_succeeded()).take(keep);
        for entry in succeeded.chain(history.iter().filter(|entry| entry.end.is_none())) {
            self.add_deployment(endpoint, entry);
        }
        self.add_rollback(endpoint, whole);
    }

    /// Adds the deployment that `endpoint rollback` would bring back.
    fn add_rollback(&mut self, endpoint: &str, history: &[LedgerEntry]) {
        // The configuration in service decides about the removal alone, which is not looked at here.
        let Ok(choice) = choose(RollbackTo::Previous, history, None, "") else { return };
        let user = || ThingUser::Rollback(endpoint.to_owned());
        self.models.extend(model_of_config(&choice.config).map(|model| (model, user())));
        let newest = history.iter().find(|entry| entry.begin.kind == LedgerKind::Deploy);
        let before = newest.and_then(|entry| entry.begin.from_model.clone());
        self.models.extend(before.map(|model| (model, user())));
        self.configs.insert(choice.config, user());
        if let Some(entry) = &choice.deployment {
            self.add_deployment(endpoint, entry);
        }
    }

    fn add_deployment(&mut self, endpoint: &str, entry: &LedgerEntry) {
        let begin = &entry.begin;
        let user = || ThingUser::Deployment { endpoint: endpoint.to_owned(), number: entry.number };
        // One without an end may go back.
        let is_open = entry.end.is_none();
        let before = [&begin.from_config].into_iter().filter(|_| is_open).flatten();
        self.configs.extend(begin.to_config.iter().chain(before).map(|config| (config.clone(), user())));
        let before = [&begin.from_model].into_iter().filter(|_| is_open).flatten();
        self.models.extend(begin.to_model.iter().chain(before).map(|model| (model.clone(), user())));
        self.versions.extend(begin.model_package.iter().map(|arn| (arn.clone(), user())));
        self.packages.extend(begin.package.iter().map(|package| (package.sha256.clone(), user())));
        if let Some(serving) = &begin.serving {
            self.add_image(&serving.image, &user());
        }
    }

    /// A configuration of this program that stays.
    pub(super) fn add_config(&mut self, name: &str) {
        let user = || ThingUser::Configuration(name.to_owned());
        if let Some(model) = model_of_config(name) {
            self.models.entry(model).or_insert_with(user);
        }
    }

    /// Models of a configuration of another form.
    pub(super) fn add_models_of(&mut self, config: &str, models: Vec<String>) {
        for model in models {
            self.models.entry(model).or_insert_with(|| ThingUser::Configuration(config.to_owned()));
        }
    }

    /// Images and versions of a model, of all its containers.
    fn add_parts(&mut self, parts: &ModelParts, user: &ThingUser) {
        for arn in &parts.packages {
            self.versions.entry(arn.clone()).or_insert_with(|| user.clone());
        }
        for image in &parts.images {
            self.add_image(image, user);
        }
    }

    /// A model that stays, of anybody.
    pub(super) fn add_parts_of(&mut self, name: &str, parts: &ModelParts) {
        self.add_parts(parts, &ThingUser::Model(name.to_owned()));
    }

    /// A model of this program that stays, by its tags.
    pub(super) fn add_model(&mut self, name: &str, tags: &BTreeMap<String, String>) {
        let user = || ThingUser::Model(name.to_owned());
        for (tag, users) in [(VERSION, &mut self.versions), (PACKAGE_SHA256, &mut self.packages)] {
            if let Some(value) = tags.get(tag) {
                users.entry(value.clone()).or_insert_with(user);
            }
        }
    }

    /// A version that stays.
    pub(super) fn add_version(&mut self, version: &ModelVersion) {
        let user = ThingUser::Version(version.arn.clone());
        self.model_data.push((version.model_data_url.clone(), version.arn.clone()));
        self.add_image(&version.image, &user);
        for image in &version.images {
            self.add_image(image, &user);
        }
        if let Some(digest) = &version.image_digest {
            self.images.entry(digest.clone()).or_insert_with(|| user.clone());
        }
        if let Some(sha256) = version.metadata.get("package-sha256") {
            self.packages.entry(sha256.clone()).or_insert(user);
        }
    }

    /// The user of a training job's model: SageMaker stores it in a folder of the job's name.
    pub(super) fn trained(&self, job: &str) -> Option<ThingUser> {
        let folder = format!("/{job}/");
        let (_, version) = self.model_data.iter().find(|(url, _)| url.contains(&folder))?;
        Some(ThingUser::Version(version.clone()))
    }

    /// The release that names this candidate anywhere in its text or its links.
    pub(super) fn released(&self, candidate: &str) -> Option<ThingUser> {
        let (tag, _) = self.release_texts.iter().find(|(_, text)| text.contains(candidate))?;
        Some(ThingUser::Release(tag.clone()))
    }

    /// The release that names the package of GitLab with this number.
    pub(super) fn numbered(&self, package: u64) -> Option<ThingUser> {
        self.package_numbers.get(&package).cloned()
    }

    /// A release, by its tag, its title, its links and its text.
    pub(super) fn add_release(&mut self, release: &Release) {
        let user = || ThingUser::Release(release.tag.clone());
        let links = release.links.iter().flat_map(|link| [link.name.clone(), decoded(&link.url)]);
        let description = release.description.replace('\\', "");
        let own = [description.clone(), decoded(&description), release.tag.clone(), release.name.clone()];
        let texts: Vec<_> = links.chain(own).collect();
        let text = (release.tag.clone(), texts.join("\n"));
        for rest in text.1.split("/packages/").skip(1) {
            let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default();
            self.package_numbers.extend(digits.parse().ok().map(|number: u64| (number, user())));
        }
        if !self.release_texts.contains(&text) {
            self.release_texts.push(text);
        }
        // GitLab's pages of a file have a number in place of its name.
        let is_file = |text: &str| decoded(text).contains("/package_files/");
        let is_numbered = |link: &ReleaseLink| is_file(&link.name) || (is_file(&link.url) && !is_packaged(&link.name));
        if release.links.iter().any(is_numbered) || is_file(&description) || is_file(&release.name) {
            self.has_numbered_links = true;
        }
        for link in &release.links {
            self.files.insert(link.name.clone(), user());
            self.files.insert(link.url.clone(), user());
        }
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-_:/.@".contains(letter);
        // Text from outside is escaped in it.
        let text = release.description.replace('\\', "");
        for word in text.split(|letter: char| !is_part(letter)) {
            let word = word.trim_end_matches(['.', ':', ',']);
            // An image may be named by its tag.
            self.tags.insert(word.rsplit(':').next().unwrap_or_default().to_owned(), user());
            if word.starts_with("arn:") {
                self.versions.insert(word.to_owned(), user());
            }
            self.add_image(word, &user());
            if is_sha256(word) {
                let word = word.to_ascii_lowercase();
                // Of an image too, where the text has the algorithm in another column.
                self.images.insert(format!("sha256:{word}"), user());
                self.packages.insert(word, user());
            }
        }
    }

    /// An image by its name with the digest or a tag, or by the digest alone.
    pub(super) fn add_image(&mut self, image: &str, user: &ThingUser) {
        let (name, digest) = image.rsplit_once('@').unwrap_or((image, image));
        let digest = digest.to_ascii_lowercase();
        if digest.strip_prefix("sha256:").is_some_and(is_sha256) {
            self.images.entry(digest).or_insert_with(|| user.clone());
        }
        if let Some((_, tag)) = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            self.tags.entry(tag.to_owned()).or_insert_with(|| user.clone());
        }
    }
}

/// An address without its percent signs, which may be escaped themselves.
fn decoded(url: &str) -> String {
    let mut text = url.to_owned();
    for _ in 0..MOST_DECODED {
        let next = decoded_once(&text);
        if next == text {
            break;
        }
        text = next;
    }
    text
}

fn decoded_once(url: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), url.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        let code = rest.get(1..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(code) = code.filter(|_| *first == b'%') {
            bytes.push(code);
            rest = &rest[3..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_names_versions_images_packages_and_files() {
        let (image, package) = ("1".repeat(64), "2".repeat(64));
        let arn = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/wine/12";
        let escaped = arn.replace(':', "\\:");
        let release = Release {
            tag: "stable-1".to_owned(),
            name: String::new(),
            commit: String::new(),
            description: format!("| SHA-256 | `{package}` |\n| Image | `sha256:{image}` |\n| Version | {escaped} |."),
            links: vec![ReleaseLink { name: "stable-1.zip".to_owned(), url: "https://g/x".to_owned() }],
            url: None,
        };
        let mut references = References::default();
        references.add_release(&release);
        assert!(references.versions.contains_key(arn) && !references.versions.contains_key(&arn[..arn.len() - 1]));
        assert!(references.images.contains_key(&format!("sha256:{image}")));
        assert!(references.packages.contains_key(&package));
        assert_eq!(decoded("a%252Db%2fc%zz"), "a-b/c%zz");
        assert!(references.files.contains_key("stable-1.zip") && references.files.contains_key("https://g/x"));
    }
}
