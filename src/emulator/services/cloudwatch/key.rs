//! Names and ARNs of alarms.

use crate::partition::partition;

/// An alarm by its name within an account and a region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AlarmKey {
    pub(super) account: String,
    pub(super) region: String,
    pub(super) name: String,
}

impl AlarmKey {
    pub(crate) fn new(account: &str, region: &str, name: &str) -> Self {
        Self { account: account.to_owned(), region: region.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn arn(&self) -> String {
        let Self { account, region, name } = self;
        format!("arn:{}:cloudwatch:{region}:{account}:alarm:{name}", partition(region))
    }
}
