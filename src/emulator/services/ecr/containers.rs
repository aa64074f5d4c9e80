//! The files and settings of an image, for the containers of jobs and endpoints.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::layers;
use super::manifest::ImageManifest;
use super::records::{ImageStore, RepositoryKey, image_id};
use crate::host::{ContainerImage, ImageSetup, Profile, User};
use crate::protocol::text;

/// The platform of the containers here.
const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };

/// A pushed image that can be a container.
struct PushedImage {
    digest: String,
    configuration: String,
    layers: Vec<String>,
}

impl ImageStore {
    /// The files and settings of an image: those that were pushed, else what the command line says; `None` when there is no such image.
    pub(crate) async fn find(self: &Arc<Self>, name: &str) -> anyhow::Result<Option<ImageSetup>> {
        let config = &self.shared.config;
        let profile = config.profiles.get(name).cloned();
        let Some(pushed) = self.pushed(name) else {
            let root = config.image(name);
            return Ok(root.map(|root| ImageSetup { root, profile: profile.unwrap_or_default() }));
        };
        let store = Arc::clone(self);
        let unpacked = tokio::task::spawn_blocking(move || store.unpack(&pushed));
        let setup = unpacked.await?.with_context(|| format!("failed to unpack the image {name}"))?;
        Ok(Some(ImageSetup { profile: profile.unwrap_or(setup.profile), ..setup }))
    }

    fn pushed(&self, name: &str) -> Option<PushedImage> {
        let (registry, image) = name.split_once('/')?;
        let [account, "dkr", "ecr", region, ..] = registry.split('.').collect::<Vec<_>>()[..] else { return None };
        let (image, digest) = image.split_once('@').map_or((image, None), |(image, digest)| (image, Some(digest)));
        let (repository, tag) = image.split_once(':').unwrap_or((image, "latest"));
        let id = digest.map_or_else(|| json!({"imageTag": tag}), |digest| image_id(digest, None));
        let key = RepositoryKey { account: account.to_owned(), region: region.to_owned(), name: repository.to_owned() };
        let all = self.repositories(region);
        let repository = all.get(&key)?;
        let mut digest = repository.digest(&id)?;
        loop {
            let image = repository.images.get(digest)?;
            match ImageManifest::parse(&image.manifest, &image.media_type)? {
                // The images of the command line have a configuration, and files of their own.
                ImageManifest::Image { configuration, layers, .. } => {
                    let is_pushed = repository.blobs.contains(&configuration);
                    let digest = digest.to_owned();
                    return is_pushed.then_some(PushedImage { digest, configuration, layers });
                }
                ImageManifest::List(entries) => {
                    let own = entries.into_iter().find(|(_, platform)| platform.as_deref() == Some(PLATFORM))?.0;
                    digest = repository.images.get_key_value(&own)?.0;
                }
            }
        }
    }

    /// Unpacks an image, unless that was done before. Blocking.
    fn unpack(&self, image: &PushedImage) -> anyhow::Result<ImageSetup> {
        let digits = image.digest.trim_start_matches("sha256:");
        let folder = self.shared.config.data_dir.join("ecr/roots");
        let root = folder.join(digits);
        let _turn = self.unpacking.lock();
        if !root.exists() {
            fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
            let new = tempfile::tempdir_in(&folder).context("failed to make a directory for an image")?;
            let files = new.path().join("root");
            fs::create_dir(&files)?;
            for layer in &image.layers {
                let path = self.blobs.path(layer).context("the digest of a layer is no SHA-256")?;
                layers::apply(&path, &files)?;
            }
            fs::rename(&files, &root).context("failed to move the directory of an image")?;
        }
        let configuration = self.blobs.read(&image.configuration).context("the image has no configuration")?;
        let configuration: Value = serde_json::from_slice(&configuration).context("the configuration is no JSON")?;
        let profile = profile(&configuration["config"], &root)?;
        Ok(ImageSetup { root: ContainerImage::Root(root), profile })
    }
}

fn profile(config: &Value, root: &Path) -> anyhow::Result<Profile> {
    let words = |name: &str| config[name].as_array().into_iter().flatten().filter_map(Value::as_str);
    let environment: BTreeMap<_, _> = words("Env")
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let user = text(config, "User").filter(|user| !user.is_empty()).map(|user| find_user(user, root)).transpose()?;
    Ok(Profile {
        user,
        environment,
        entrypoint: words("Entrypoint").map(str::to_owned).collect(),
        directory: text(config, "WorkingDir").filter(|path| !path.is_empty()).map(str::to_owned),
        root_size: None,
        is_privileged: false,
    })
}

/// `app`, `1000`, `app:staff`: the ids, as the image's own files have them.
fn find_user(text: &str, root: &Path) -> anyhow::Result<User> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let row = |file: &str, name: &str, field: usize| {
        let content = fs::read_to_string(root.join("etc").join(file)).unwrap_or_default();
        let mut rows = content.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
        let row = rows.find(|row| row.first().is_some_and(|first| first == name))?;
        row.get(field)?.parse::<u32>().ok()
    };
    let uid = user.parse().ok().or_else(|| row("passwd", user, 2));
    let uid = uid.with_context(|| format!("unable to find user {user}: no matching entries in passwd file"))?;
    let gid = match group {
        Some(group) => group.parse().ok().or_else(|| row("group", group, 2)),
        None => row("passwd", user, 3).or(Some(if user.parse::<u32>().is_ok() { 0 } else { uid })),
    };
    Ok(User { uid, gid: gid.with_context(|| format!("unable to find a group of {text} in the image"))? })
}
