//! The earlier model that a gate compares with.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::files;
use super::metrics::{MetricPath, Metrics, MetricsSource};
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{Access, Approval, ModelRegistry, ModelVersion, RegistrationState};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::hex::hex;
use crate::lifecycle::manifest::ModelEntry;
use crate::lifecycle::target::ProjectTarget;
use crate::lifecycle::version_arn;

/// The hint of a version whose metrics cannot be compared with.
pub(super) const OTHER_BASELINE: &str =
    "compare with another version or with a file: `--baseline ARN` or `--baseline FILE`";

/// Where the metrics of the earlier model are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Baseline {
    /// With the latest approved version of the group.
    Approved,
    /// With this version; `of_manifest` when the manifest sets the limit: then the command line may choose among the approved
    /// versions of the group alone.
    Version {
        arn: String,
        of_manifest: bool,
    },
    File(PathBuf),
}

impl Baseline {
    /// As `--baseline` says; limits of a regression need one.
    pub(super) fn of(argument: Option<&str>, model: &ModelEntry, has_own_limit: bool) -> Result<Option<Self>, Failure> {
        let of_manifest = !model.max_regression.is_empty();
        Ok(match argument {
            None if of_manifest || has_own_limit => Some(Self::Approved),
            None => None,
            Some("approved") => Some(Self::Approved),
            Some("") => {
                return Err(
                    Failure::user("`--baseline` is empty").hint("use `approved`, the ARN of a version, or a file")
                );
            }
            Some(arn) if arn.starts_with("arn:") => Some(Self::Version { arn: arn.to_owned(), of_manifest }),
            Some(file) if of_manifest => {
                let file = plain::line(file, 200);
                return Err(Failure::user(format!("`--baseline` is {file}, but `model.max_regression` of the manifest limits how much worse than an approved version the model may be"))
                    .hint("leave `--baseline` out, or name an approved version of `model.group` by its ARN"));
            }
            Some(file) => Some(Self::File(file.into())),
        })
    }

    /// The name and the metrics of the earlier model; `None` when the group has no approved version besides `own`, the ARN of the
    /// model that is compared.
    pub(super) async fn load(
        &self,
        inputs: &CommandInputs,
        target: &ProjectTarget,
        paths: &[MetricPath],
        own: Option<&str>,
    ) -> anyhow::Result<Option<(String, Metrics)>> {
        let version = match self {
            Self::File(file) => {
                let source = files::read(file, "change the file of `--baseline`")?;
                return Ok(Some((source.name.clone(), Metrics::parse(&[source], paths)?)));
            }
            Self::Approved => {
                let group = &target.model()?.group;
                check_place(inputs, target).await?;
                latest_approved(&*inputs.connect.registry(&target.access).await?, group, own).await?
            }
            Self::Version { arn, of_manifest } => {
                let refused = |what: &str| {
                    Failure::user(format!("`--baseline` is {}, {what}", plain::line(arn, 300)))
                        .hint("name an approved version of `model.group` in the environment's region and account")
                };
                version_arn::check(arn, target).map_err(|what| refused(&what))?;
                check_place(inputs, target).await?;
                let version = inputs.connect.registry(&target.access).await?.version(arn).await?;
                let absent = || Failure::user(format!("the version {arn} does not exist"));
                let version = version.ok_or_else(|| absent().hint("change `--baseline`"))?;
                let is_approved =
                    version.approval == Approval::Approved && version.state == RegistrationState::Completed;
                if *of_manifest && !is_approved {
                    return Err(refused("which is not approved").into());
                }
                Some(version)
            }
        };
        let Some(version) = version else { return Ok(None) };
        let sources = stored_metrics(inputs, &target.access, &version, OTHER_BASELINE).await?;
        Ok(Some((version.arn, Metrics::parse(&sources, paths)?)))
    }
}

/// In another region or account the group is absent, and any model would be the first one.
pub(super) async fn check_place(inputs: &CommandInputs, target: &ProjectTarget) -> anyhow::Result<()> {
    if target.access.region.is_none() {
        return Err(target.unnamed("region").into());
    }
    target.check_account(inputs).await
}

async fn latest_approved(
    registry: &dyn ModelRegistry,
    group: &str,
    own: Option<&str>,
) -> anyhow::Result<Option<ModelVersion>> {
    let mut page = None;
    loop {
        let found = registry.versions(group, Some(Approval::Approved), page).await?;
        let mut others = found.versions.iter().filter(|version| own != Some(version.arn.as_str()));
        let latest = others.find(|version| version.state == RegistrationState::Completed);
        if let Some(latest) = latest {
            return Ok(registry.version(&latest.arn).await?);
        }
        page = found.next;
        if page.is_none() {
            return Ok(None);
        }
    }
}

/// The files of metrics that the version was registered with. `hint` says what to do where they cannot be used.
///
/// # Errors
/// Failures of the user: there are none, or they are not what they were. Failures of AWS.
pub(crate) async fn stored_metrics(
    inputs: &CommandInputs,
    access: &Access,
    version: &ModelVersion,
    hint: &str,
) -> anyhow::Result<Vec<MetricsSource>> {
    let unusable =
        |why: String| Failure::user(format!("the metrics of {} cannot be used: {why}", version.arn)).hint(hint);
    let first = version.metrics.as_ref().ok_or_else(|| unusable("it was registered without any".to_owned()))?;
    let (folder, keys) = places(&first.uri, version);
    let (bucket, prefix) = folder
        .strip_prefix("s3://")
        .and_then(|place| place.split_once('/'))
        .ok_or_else(|| unusable(format!("{} is no object of S3", first.uri)))?;
    let access = Access { bucket: bucket.to_owned(), prefix: prefix.to_owned(), ..access.clone() };
    let objects = inputs.connect.objects(&access).await?;
    let mut sources = Vec::new();
    for key in keys {
        let uri = objects.uri(&key);
        match objects.size(&key).await? {
            None => return Err(unusable(format!("{uri} does not exist")).into()),
            Some(size) if size > files::MOST_BYTES => {
                return Err(unusable(format!("{uri} is larger than 4 MiB")).into());
            }
            Some(_) => {}
        }
        let bytes = objects.get(&key).await?.ok_or_else(|| unusable(format!("{uri} does not exist")))?;
        let hash = hex(&Sha256::digest(&bytes));
        let digest =
            first.digest.as_deref().filter(|_| first.uri == uri).and_then(|digest| digest.strip_prefix("sha256:"));
        if [digest, hash_in_name(&key)].iter().flatten().any(|expected| *expected != hash) {
            return Err(unusable(format!("{uri} has changed since then")).into());
        }
        sources.push(MetricsSource { name: uri, bytes });
    }
    Ok(sources)
}

/// The folder of the files, and their keys in it. The version names the first file by its URI, and `model register` records the keys
/// of all in its metadata.
fn places(first: &str, version: &ModelVersion) -> (String, Vec<String>) {
    let keys: Vec<String> =
        (1..).map_while(|number| version.metadata.get(&format!("metrics-{number}"))).cloned().collect();
    match keys.first().and_then(|key| first.strip_suffix(key.as_str())) {
        Some(folder) if folder.ends_with('/') => (folder.to_owned(), keys),
        _ => {
            let (folder, key) = first.rsplit_once('/').unwrap_or(("", first));
            (format!("{folder}/"), vec![key.to_owned()])
        }
    }
}

/// `model register` names the objects by the hash of their content.
fn hash_in_name(key: &str) -> Option<&str> {
    let name = key.rsplit('/').next()?.split('.').next()?;
    (name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
}
