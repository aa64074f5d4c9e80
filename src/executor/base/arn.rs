//! ARNs of AWS resources, and the partitions in them.

/// Partitions by the first part of their regions' names.
const PARTITIONS: [(&str, &str); 7] = [
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("us-iso-", "aws-iso"),
    ("us-isob-", "aws-iso-b"),
    ("eu-isoe-", "aws-iso-e"),
    ("us-isof-", "aws-iso-f"),
    ("eusc-", "aws-eusc"),
];

/// `arn:<partition>:<service>:<region>:<account>:<resource>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arn<'a> {
    pub partition: &'a str,
    pub service: &'a str,
    pub region: &'a str,
    pub account: &'a str,
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    pub fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<_> = text.splitn(6, ':').collect();
        let ["arn", partition, service, region, account, resource] = parts[..] else { return None };
        Some(Self { partition, service, region, account, resource })
    }

    /// The common part of all ARNs of a service in one account and region.
    pub fn without_resource(&self) -> String {
        format!("arn:{}:{}:{}:{}", self.partition, self.service, self.region, self.account)
    }

    /// The address of the console in the region; `None` in partitions without a public console.
    pub fn console(&self) -> Option<String> {
        let domain = match self.partition {
            "aws" => "console.aws.amazon.com",
            "aws-cn" => "console.amazonaws.cn",
            "aws-us-gov" => "console.amazonaws-us-gov.com",
            _ => return None,
        };
        Some(format!("https://{}.{domain}", self.region))
    }
}

/// The partition of a region: the second part of the ARNs in it.
pub fn partition(region: &str) -> &'static str {
    PARTITIONS.iter().find(|(start, _)| region.starts_with(start)).map_or("aws", |(_, partition)| partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_has_six_parts_and_the_resource_may_hold_colons() {
        let arn = Arn::parse("arn:aws:logs:eu-west-1:123456789012:log-group:x:*").unwrap();
        assert_eq!((arn.region, arn.resource), ("eu-west-1", "log-group:x:*"));
        assert_eq!(arn.without_resource(), "arn:aws:logs:eu-west-1:123456789012");
        assert_eq!(Arn::parse("arn:aws:iam::123456789012"), None);
        assert_eq!(Arn::parse("urn:aws:iam::123456789012:role/x"), None);
    }
}
