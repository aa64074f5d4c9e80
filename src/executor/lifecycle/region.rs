//! Regions, their partitions, and registries of images in them. Pure.

pub(crate) use crate::base::arn::partition;

/// A region of each partition that has a public console.
const HOMES: [(&str, &str); 4] =
    [("aws", "us-east-1"), ("aws-us-gov", "us-gov-west-1"), ("aws-cn", "cn-north-1"), ("aws-eusc", "eusc-de-east-1")];

/// A region of a partition, for requests that any region of it answers.
pub(crate) fn any_of(partition: &str) -> Option<&'static str> {
    HOMES.iter().find(|(known, _)| *known == partition).map(|(_, region)| *region)
}

/// The region of an image in ECR.
pub(crate) fn of_registry(image: &str) -> Option<&str> {
    ImageName::parse(image).map(|image| image.region)
}

/// An image in ECR, by its digest: `ACCOUNT.dkr.ecr.REGION.DOMAIN/REPOSITORY@sha256:...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageName<'a> {
    pub(crate) account: &'a str,
    pub(crate) region: &'a str,
    pub(crate) repository: &'a str,
    pub(crate) digest: &'a str,
}

impl<'a> ImageName<'a> {
    pub(crate) fn parse(image: &'a str) -> Option<Self> {
        let (name, digest) = image.split_once('@')?;
        let (registry, repository) = name.split_once('/')?;
        // A tag may stand between the name and the digest.
        let repository = repository.split(':').next()?;
        let mut parts = registry.splitn(5, '.');
        let account = parts.next()?;
        let (dkr, ecr, region, _domain) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        (is_account && dkr == "dkr" && ecr.starts_with("ecr")).then_some(Self { account, region, repository, digest })
    }
}

/// The processor of an instance type, as images name it: `arm64` for Graviton (`ml.m7g.large`, `ml.g5g.xlarge`), else `amd64`.
pub(crate) fn architecture(instance_type: &str) -> &'static str {
    let family = instance_type.split('.').nth(1).unwrap_or_default();
    let letters = family.trim_start_matches(|one: char| one.is_ascii_lowercase());
    let suffix = letters.trim_start_matches(|one: char| one.is_ascii_digit());
    if letters.len() > suffix.len() && suffix.starts_with('g') { "arm64" } else { "amd64" }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("eu-west-1" => "aws")]
    #[test_case("cn-north-1" => "aws-cn")]
    #[test_case("us-gov-west-1" => "aws-us-gov")]
    #[test_case("us-iso-east-1" => "aws-iso")]
    #[test_case("us-isob-east-1" => "aws-iso-b")]
    fn a_region_is_in(region: &str) -> &'static str {
        partition(region)
    }

    #[test]
    fn each_home_is_in_its_partition() {
        for (of, region) in HOMES {
            assert_eq!(partition(region), of);
        }
        assert_eq!(any_of("aws-iso"), None);
    }

    #[test_case("ml.m5.large" => "amd64")]
    #[test_case("ml.m6g.large" => "arm64")]
    #[test_case("ml.c6gn.xlarge" => "arm64")]
    #[test_case("ml.m7gd.xlarge" => "arm64")]
    #[test_case("ml.r8g.xlarge" => "arm64")]
    #[test_case("ml.g5g.xlarge" => "arm64")]
    #[test_case("ml.g4dn.xlarge" => "amd64")]
    #[test_case("ml.g6e.xlarge" => "amd64")]
    #[test_case("ml.m6i.xlarge" => "amd64")]
    #[test_case("ml.inf2.xlarge" => "amd64")]
    fn a_type_runs(instance_type: &str) -> &'static str {
        architecture(instance_type)
    }

    #[test]
    fn an_image_has_its_registry_and_its_digest() {
        let image = ImageName::parse("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/a/b:1@sha256:0").unwrap();
        let expected =
            ImageName { account: "123456789012", region: "cn-north-1", repository: "a/b", digest: "sha256:0" };
        assert_eq!(image, expected);
        assert_eq!(ImageName::parse("docker.io/a@sha256:0"), None);
        assert_eq!(of_registry("1.dkr.ecr.eu-west-1.amazonaws.com/a@sha256:0"), None);
    }
}
