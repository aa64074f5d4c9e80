//! Partitions of AWS by the names of their regions.

/// The partition of a region.
pub(crate) fn partition(region: &str) -> &'static str {
    const PARTITIONS: &[(&str, &str)] =
        &[("us-gov-", "aws-us-gov"), ("cn-", "aws-cn"), ("us-isob-", "aws-iso-b"), ("us-iso-", "aws-iso")];
    PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or("aws", |(_, partition)| partition)
}
