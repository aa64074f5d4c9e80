//! The forms of `--image` when the emulator runs the job.

use std::path::{Path, PathBuf};

use crate::base::failure::Failure;

/// The files that the container of a try starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalImage {
    /// This machine's own root.
    Host,
    /// An unpacked image.
    Root(PathBuf),
    /// An image for podman or docker.
    Engine(String),
}

const HOST: &str = "host";
const ENGINE: &str = "engine:";

impl LocalImage {
    pub(super) fn parse(text: Option<&str>) -> anyhow::Result<Self> {
        let text = text.unwrap_or(HOST);
        if text == HOST {
            return Ok(Self::Host);
        }
        if let Some(image) = text.strip_prefix(ENGINE).filter(|image| !image.is_empty()) {
            return Ok(Self::Engine(image.to_owned()));
        }
        match std::fs::canonicalize(text) {
            Ok(root) if root.is_dir() => Self::root(text, root),
            _ => Err(unknown(text).into()),
        }
    }

    fn root(text: &str, root: PathBuf) -> anyhow::Result<Self> {
        // The link itself: an absolute one leads somewhere else inside.
        if root.join("bin/sh").symlink_metadata().is_err() {
            return Err(Failure::user(format!("the directory `--image {text}` holds no `bin/sh`"))
                .hint("give the root directory of an unpacked image, as `podman export` or `debootstrap` make one")
                .into());
        }
        Ok(Self::Root(root))
    }

    /// The name of the image in the training job.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Host => HOST.to_owned(),
            // The emulator's argument has a `=` after the name.
            Self::Root(root) => root.display().to_string().replace('=', "-"),
            Self::Engine(image) => image.clone(),
        }
    }

    /// How the emulator is told, as a value of its `--image`.
    pub(super) fn emulator_argument(&self) -> Option<String> {
        match self {
            Self::Host => None,
            Self::Root(root) => Some(format!("{}={}", self.name(), root.display())),
            Self::Engine(image) => Some(format!("{image}={ENGINE}{image}")),
        }
    }

    /// For people.
    pub(super) fn title(&self) -> String {
        match self {
            Self::Host => "this machine's own root".to_owned(),
            Self::Root(root) => format!("the directory {}", root.display()),
            Self::Engine(image) => format!("the image {image}"),
        }
    }
}

fn unknown(text: &str) -> Failure {
    let failure = Failure::user(format!("`--image {text}` is neither `host`, nor a directory, nor `engine:IMAGE`"));
    let failure = if Path::new(text).is_absolute() || text.starts_with(['.', '~']) || text.starts_with(ENGINE) {
        failure.hint("`--image engine:IMAGE` runs an image with podman or docker, for instance `engine:python:3.11`")
    } else {
        failure.hint(format!("`--image engine:{text}` runs that image with podman or docker"))
    };
    failure
        .hint("`--image DIR` takes the root directory of an unpacked image")
        .hint("without `--image`, or with `--image host`, the job sees this machine's own root")
        .hint("with `--aws`, `--image` names an image in Amazon ECR")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::render;

    #[test]
    fn an_image_has_one_of_three_forms() {
        assert_eq!(LocalImage::parse(None).unwrap(), LocalImage::Host);
        assert_eq!(LocalImage::parse(Some("host")).unwrap(), LocalImage::Host);
        assert_eq!(LocalImage::parse(Some("/")).unwrap(), LocalImage::Root("/".into()));
        let engine = LocalImage::parse(Some("engine:python:3.11")).unwrap();
        assert_eq!(engine.emulator_argument().unwrap(), "python:3.11=engine:python:3.11");
    }

    #[test]
    fn other_forms_are_refused_with_those_that_exist() {
        let said = |text: &str| render(&LocalImage::parse(Some(text)).unwrap_err());
        assert!(said("python:3.11").contains("`--image engine:python:3.11`"));
        assert!(said("/nonexist").contains("`--image engine:IMAGE`"));
        let folder = tempfile::tempdir().unwrap();
        assert!(said(&folder.path().display().to_string()).contains("holds no `bin/sh`"));
        assert!(said("engine:").contains("`engine:python:3.11`"));
        assert!(said("hots").contains("`--image host`"));
    }
}
