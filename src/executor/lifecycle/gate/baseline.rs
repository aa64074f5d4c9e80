//! The earlier model that a gate compares with.

use std::path::PathBuf;

use super::files;
use super::metrics::{MetricPath, Metrics};
use crate::base::failure::Failure;
use crate::cloud::Access;
use crate::lifecycle::CommandInputs;

/// Where the metrics of the earlier model are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Baseline {
    /// With the latest approved version of the group.
    Approved,
    /// With this version.
    Version(String),
    File(PathBuf),
}

impl Baseline {
    /// As `--baseline` says; limits of a regression need one.
    pub(super) fn of(argument: Option<&str>, is_needed: bool) -> Result<Option<Self>, Failure> {
        Ok(match argument {
            None if is_needed => Some(Self::Approved),
            None => None,
            Some("approved") => Some(Self::Approved),
            Some("") => {
                return Err(
                    Failure::user("`--baseline` is empty").hint("use `approved`, the ARN of a version, or a file")
                );
            }
            Some(arn) if arn.starts_with("arn:") => Some(Self::Version(arn.to_owned())),
            Some(file) => Some(Self::File(file.into())),
        })
    }

    /// The name and the metrics of the earlier model; `None` when the group has no approved version.
    pub(super) async fn load(
        &self,
        _inputs: &CommandInputs,
        _access: &Access,
        _group: &str,
        paths: &[MetricPath],
    ) -> anyhow::Result<Option<(String, Metrics)>> {
        match self {
            Self::File(file) => {
                let source = files::read(file, "change the file of `--baseline`")?;
                Ok(Some((source.name.clone(), Metrics::parse(&[source], paths)?)))
            }
            Self::Approved | Self::Version(_) => Err(Failure::user("the registry cannot be read yet")
                .hint("compare with a file: `--baseline FILE`")
                .into()),
        }
    }
}
