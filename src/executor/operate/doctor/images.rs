//! Checks of the images that the operator's file names, and of the agent in the bucket.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::account::{CallerSight, of_error};
use super::installation::Installation;
use super::report::DoctorFinding;
use crate::cloud::CloudError;
use crate::session::agent_delivery::{self, AgentParts, StoredAgent};

/// The agent is a program for this platform alone.
const PLATFORM: &str = "linux/amd64";

/// Beginning of the finding of a file without a default image.
pub(super) const NO_DEFAULT: &str = "the operator's file names no default image (`job.image`)";

/// An image in ECR: `ACCOUNT.dkr.ecr.REGION.DOMAIN/REPOSITORY`, with `:TAG` or `@DIGEST`.
#[derive(Debug, PartialEq, Eq)]
struct EcrName<'a> {
    account: &'a str,
    region: &'a str,
    repository: &'a str,
    tag: &'a str,
    digest: Option<&'a str>,
}

impl<'a> EcrName<'a> {
    fn parse(image: &'a str) -> Option<Self> {
        let (host, rest) = image.split_once('/')?;
        let (account, place) = host.split_once(".dkr.ecr.").or_else(|| host.split_once(".dkr.ecr-fips."))?;
        let region = place.split('.').next()?;
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (rest, None),
        };
        let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
        Some(Self { account, region, repository, tag, digest })
    }
}

/// The default image, and the images that rules name without a pattern.
pub(super) async fn check(installation: &Installation<'_>, caller: &CallerSight) -> Vec<DoctorFinding> {
    let of_rules = installation.bounds.iter().filter_map(|bounds| bounds.images.as_ref()).flatten();
    // A name without tag and digest is a repository, of which jobs choose the image.
    let is_one = |image: &&String| {
        !image.contains(['*', '?', '[', '{']) && image.rsplit('/').next().is_some_and(|name| name.contains([':', '@']))
    };
    let images: BTreeSet<&String> = installation.settings.job.image.iter().chain(of_rules.filter(is_one)).collect();
    let mut findings = join_all(images.into_iter().map(|image| of_image(installation, caller, image))).await.concat();
    if installation.settings.job.image.is_none() {
        let text = format!("{NO_DEFAULT}; each job must name one");
        findings.push(DoctorFinding::skipped("image.exists", "", text));
    }
    findings
}

async fn of_image(installation: &Installation<'_>, caller: &CallerSight, image: &str) -> Vec<DoctorFinding> {
    let Some(name) = EcrName::parse(image) else {
        if installation.settings.vpc_registry().is_some() {
            return vec![DoctorFinding::skipped(
                "image.exists",
                image,
                "is in a registry of the VPC, which this host does not ask",
            )];
        }
        let text = "is in no registry of ECR, and SageMaker pulls from ECR alone";
        let change = "copy the image to ECR, or set `job.image_repository_access = \"vpc\"` for a registry in the VPC of the jobs";
        return vec![DoctorFinding::failure("image.exists", image, text, change)];
    };
    if name.region != caller.region {
        let text = format!("is in the region {}, and SageMaker pulls from {}", name.region, caller.region);
        let change = format!("copy the image to a repository of {}", caller.region);
        return vec![DoctorFinding::failure("image.region", image, text, change)];
    }
    let digest = match name.digest {
        Some(digest) => Ok(Some(digest.to_owned())),
        None if name.account != caller.account => {
            return vec![DoctorFinding::skipped(
                "image.exists",
                image,
                "is named by a tag, in the registry of another account",
            )];
        }
        None => digest_of(installation, image, &name).await,
    };
    let digest = match digest {
        Ok(Some(digest)) => digest,
        Ok(None) => return vec![absent(image)],
        Err(finding) => return vec![finding],
    };
    let images = match installation.connect.images(&installation.access).await {
        Ok(images) => images,
        Err(error) => return vec![DoctorFinding::skipped("image.exists", image, format!("{error:#}"))],
    };
    match installation.within("ECR", images.platforms(name.account, name.repository, &digest)).await {
        Ok(None) => vec![absent(image)],
        Ok(Some(platforms)) => {
            vec![DoctorFinding::ok("image.exists", image, "is there"), of_platforms(image, &platforms)]
        }
        Err(error) => vec![of_error("image.exists", image, &error)],
    }
}

async fn digest_of(
    installation: &Installation<'_>,
    image: &str,
    name: &EcrName<'_>,
) -> Result<Option<String>, DoctorFinding> {
    let failed = |error: &CloudError| of_error("image.exists", image, error);
    let tagged = installation.connect.tagged_images(&installation.access).await;
    let tagged = tagged.map_err(|error| DoctorFinding::skipped("image.exists", image, format!("{error:#}")))?;
    let Some(repository) =
        installation.within("ECR", tagged.repository(name.repository)).await.map_err(|error| failed(&error))?
    else {
        return Ok(None);
    };
    let tags = [name.tag.to_owned()];
    let mut found =
        installation.within("ECR", tagged.tagged(&repository, &tags)).await.map_err(|error| failed(&error))?;
    Ok(found.remove(name.tag).map(|image| image.digest))
}

fn absent(image: &str) -> DoctorFinding {
    DoctorFinding::failure(
        "image.exists",
        image,
        "is not in its repository, or the repository is not there",
        "push the image, or correct `job.image` and `allow.images`",
    )
}

fn of_platforms(image: &str, platforms: &[String]) -> DoctorFinding {
    if platforms.is_empty() {
        return DoctorFinding::skipped("image.platform", image, "its manifest names no platform");
    }
    if platforms.iter().any(|platform| platform == PLATFORM) {
        return DoctorFinding::ok("image.platform", image, format!("has the platform {PLATFORM}"));
    }
    let text = format!("has {}, and the agent is a program for {PLATFORM}", platforms.join(", "));
    DoctorFinding::failure(
        "image.platform",
        image,
        text,
        format!("build the image for {PLATFORM}: `docker build --platform {PLATFORM}`"),
    )
}

/// The agent in the bucket, compared with this program.
pub(super) async fn agent(installation: &Installation<'_>, own: anyhow::Result<AgentParts>) -> DoctorFinding {
    let own = match own {
        Ok(own) => own,
        // A mistake of this host, such as an absent file of `aws.ca_bundle`: `prepare` fails by it too.
        Err(error) => {
            let change = "correct what the message names";
            return DoctorFinding::failure("agent.stored", "the agent", format!("{error:#}"), change);
        }
    };
    let objects = match installation.connect.objects(&installation.access).await {
        Ok(objects) => objects,
        Err(error) => return DoctorFinding::skipped("agent.stored", "", format!("{error:#}")),
    };
    match installation.within("S3", agent_delivery::look(&*objects, &own)).await {
        Ok(StoredAgent::Whole) => {
            DoctorFinding::ok("agent.stored", "the agent", "is in the bucket, and is this program")
        }
        Ok(StoredAgent::Absent) => DoctorFinding::ok(
            "agent.stored",
            "the agent",
            "is not in the bucket yet: the first job of this version stores it",
        ),
        Ok(StoredAgent::Foreign { uri }) => DoctorFinding::failure(
            "agent.stored",
            uri,
            "is not this program's own file: someone else can write there, and jobs of other hosts run it",
            "apply `bucket-policy.json` of `policy iam`, look for who wrote the object, and delete it: the next job stores it again",
        ),
        Err(error) => match error.downcast_ref::<CloudError>() {
            Some(error) => of_error("agent.stored", "the agent", error),
            None => DoctorFinding::skipped("agent.stored", "the agent", format!("{error:#}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_ecr_has_a_tag_or_a_digest() {
        let name = EcrName::parse("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/train:2.4").unwrap();
        assert_eq!(
            (name.account, name.region, name.repository, name.tag),
            ("123456789012", "eu-west-1", "team/train", "2.4")
        );
        let name = EcrName::parse("1.dkr.ecr-fips.us-gov-west-1.amazonaws.com/a@sha256:00").unwrap();
        assert_eq!((name.digest, name.tag), (Some("sha256:00"), "latest"));
        assert_eq!(EcrName::parse("python:3.11"), None);
    }
}
