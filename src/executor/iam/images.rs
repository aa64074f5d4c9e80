//! Repositories that the training images come from.

use super::account::Account;
use crate::config::iam_patterns::as_patterns;

/// AWS's own accounts with the Deep Learning Containers. Regions that are not listed use [`DEEP_LEARNING`].
///
/// From `image_uri_config/pytorch.json` of the SageMaker Python SDK 2.257.7.
const DEEP_LEARNING_BY_REGION: [(&str, &str); 24] = [
    ("af-south-1", "626614931356"),
    ("ap-east-1", "871362719292"),
    ("ap-east-2", "975050140332"),
    ("ap-northeast-3", "364406365360"),
    ("ap-south-2", "772153158452"),
    ("ap-southeast-3", "907027046896"),
    ("ap-southeast-4", "457447274322"),
    ("ap-southeast-5", "550225433462"),
    ("ap-southeast-6", "633930458069"),
    ("ap-southeast-7", "590183813437"),
    ("ca-west-1", "204538143572"),
    ("cn-north-1", "727897471807"),
    ("cn-northwest-1", "727897471807"),
    ("eu-central-2", "380420809688"),
    ("eu-south-1", "692866216735"),
    ("eu-south-2", "503227376785"),
    ("il-central-1", "780543022126"),
    ("me-central-1", "914824155844"),
    ("me-south-1", "217643126080"),
    ("mx-central-1", "637423239942"),
    ("us-gov-east-1", "446045086412"),
    ("us-gov-west-1", "442386744353"),
    ("us-iso-east-1", "886529160074"),
    ("us-isob-east-1", "094389454867"),
];

/// The account of the Deep Learning Containers in the other regions.
const DEEP_LEARNING: &str = "763104351884";

/// ARNs, or patterns of them. Registries other than ECR have none.
pub(super) fn repositories(account: &Account<'_>) -> Vec<String> {
    let every =
        [account.id, deep_learning(account.region)].map(|registry| repository(account, account.region, registry, "*"));
    let Some(globs) = &account.wall.images else { return every.to_vec() };
    let mut found: Vec<String> = Vec::new();
    for pattern in globs.iter().flat_map(|glob| as_patterns(glob)) {
        let named = match ecr(&pattern) {
            Registry::Ecr { account: registry, region, name } if !region.contains(['*', '?']) => {
                vec![repository(account, region, registry, name)]
            }
            Registry::Ecr { .. } | Registry::Open => every.to_vec(),
            Registry::Other => Vec::new(),
        };
        found.extend(named);
    }
    found.sort();
    found.dedup();
    found
}

fn repository(account: &Account<'_>, region: &str, registry: &str, name: &str) -> String {
    format!("arn:{}:ecr:{region}:{registry}:repository/{name}", account.partition)
}

fn deep_learning(region: &str) -> &'static str {
    DEEP_LEARNING_BY_REGION.iter().find(|(name, _)| *name == region).map_or(DEEP_LEARNING, |(_, account)| account)
}

/// The registry of an image's pattern.
#[derive(Debug, PartialEq, Eq)]
enum Registry<'a> {
    Ecr {
        account: &'a str,
        region: &'a str,
        name: &'a str,
    },
    /// The pattern leaves the registry open.
    Open,
    Other,
}

/// `<account>.dkr.ecr.<region>.amazonaws.com/<repository>:<tag>@<digest>`.
fn ecr(pattern: &str) -> Registry<'_> {
    let Some((host, image)) = pattern.split_once('/') else {
        return if pattern.contains('*') { Registry::Open } else { Registry::Other };
    };
    let name = image.split(['@', ':']).next().unwrap_or_default();
    let of_fips = host.split_once(".dkr.ecr-fips.");
    let of_amazonaws = host
        .split_once(".dkr.ecr.")
        .or(of_fips)
        .and_then(|(account, rest)| Some((account, rest.split_once(".amazonaws.")?.0)));
    let of_aws = host.split_once(".dkr-ecr.").and_then(|(account, rest)| Some((account, rest.split_once(".on.")?.0)));
    match of_amazonaws.or(of_aws) {
        Some((account, region)) if account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()) => {
            Registry::Ecr { account, region, name }
        }
        Some(_) => Registry::Open,
        None if host.contains(['*', '?']) => Registry::Open,
        None => Registry::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_of_an_image_is_read_from_its_name() {
        let ecr_of = |account, region, name| Registry::Ecr { account, region, name };
        for (pattern, registry) in [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/*", ecr_of("123456789012", "eu-west-1", "team/*")),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/a:1", ecr_of("123456789012", "cn-north-1", "a")),
            ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com/a", ecr_of("123456789012", "us-gov-west-1", "a")),
            ("123456789012.dkr-ecr.eu-west-1.on.aws/a", ecr_of("123456789012", "eu-west-1", "a")),
            ("123456789012.dkr.ecr.*.amazonaws.com/a@sha256:*", ecr_of("123456789012", "*", "a")),
            ("*.dkr.ecr.eu-west-1.amazonaws.com/a", Registry::Open),
            ("*", Registry::Open),
            ("*/train", Registry::Open),
            ("python", Registry::Other),
            ("docker.io/library/*", Registry::Other),
        ] {
            assert_eq!(ecr(pattern), registry, "{pattern}");
        }
    }

    #[test]
    fn the_tables_regions_are_sorted_and_others_use_the_common_account() {
        assert!(DEEP_LEARNING_BY_REGION.is_sorted());
        assert_eq!(deep_learning("eu-west-1"), "763104351884");
        assert_eq!(deep_learning("cn-north-1"), "727897471807");
    }
}
