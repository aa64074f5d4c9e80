//! Reads SageMaker's refusals by a quota: whether instances are in use that others will free, or the quota is too small for the job. Pure.
//!
//! AWS's text, as recorded from accounts: "The account-level service limit 'ml.p3.2xlarge for training job usage' is 1 Instances, with current
//! utilization of 1 Instances and a request delta of 1 Instances. Please use AWS Service Quotas to request an increase for this quota."

/// A quota as a refusal tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QuotaRefusal {
    /// As Service Quotas names it.
    pub(super) name: String,
    pub(super) limit: u64,
    /// Instances that the request asked for.
    pub(super) delta: Option<u64>,
}

impl QuotaRefusal {
    /// Reads a refusal; `None` when it has another form.
    pub(super) fn parse(message: &str) -> Option<Self> {
        let (_, rest) = message.split_once("service limit ")?;
        let (name, rest) = match rest.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) {
            Some((name, rest)) => (name.to_owned(), rest),
            None => (String::new(), rest),
        };
        let limit = number_after(rest, "is ")?;
        Some(Self { name, limit, delta: number_after(rest, "request delta of ") })
    }

    /// `true` when the quota allows the request as soon as nobody else uses it.
    pub(super) fn may_fit(&self) -> bool {
        self.limit >= self.delta.unwrap_or(1).max(1)
    }
}

fn number_after(text: &str, start: &str) -> Option<u64> {
    let (_, rest) = text.split_once(start)?;
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn text(limit: u64, used: u64, delta: u64) -> String {
        format!(
            "ResourceLimitExceeded: The account-level service limit 'ml.p3.2xlarge for spot training job usage' is {limit} Instances, with \
             current utilization of {used} Instances and a request delta of {delta} Instances. Please contact AWS support."
        )
    }

    #[test_case(1, 1, 1 => true; "in use")]
    #[test_case(4, 3, 2 => true; "in use by some")]
    #[test_case(0, 0, 1 => false; "no quota")]
    #[test_case(4, 0, 8 => false; "more than the quota")]
    fn a_quota_in_use_may_become_free(limit: u64, used: u64, delta: u64) -> bool {
        let quota = QuotaRefusal::parse(&text(limit, used, delta)).unwrap();
        assert_eq!((quota.name.as_str(), quota.limit), ("ml.p3.2xlarge for spot training job usage", limit));
        quota.may_fit()
    }

    #[test]
    fn shorter_and_foreign_texts_are_read_as_far_as_they_go() {
        let short = QuotaRefusal::parse("The account-level service limit is 0 Instances").unwrap();
        assert!(!short.may_fit() && short.name.is_empty());
        for text in ["", "Rate exceeded", "service limit", "service limit 'x' is many", "service limit 'x is 1"] {
            assert_eq!(QuotaRefusal::parse(text).filter(|quota| !quota.may_fit()), None, "{text}");
        }
    }
}
