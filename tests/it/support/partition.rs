//! Names of one partition in requests of a run in another one.

/// The region of runs outside of the partition `aws`.
pub(crate) const REGION: &str = "us-gov-west-1";
/// Names that no request of such a run may have: ARNs, regions and domains, as they are and encoded in a form.
const FOREIGN: [&str; 6] = ["arn:aws:", "arn%3Aaws%3A", "us-east-1", "eu-west-1", "aws-cn", "amazonaws.com.cn"];

/// A text with the names of the partition `aws` replaced by those of [`REGION`].
pub(crate) fn of_region(text: &str) -> String {
    text.replace("arn:aws:", "arn:aws-us-gov:").replace("us-east-1", REGION)
}

/// Checks the requests, whole as they were sent. `is_own` says by the first line which of them carry content of the test's own.
#[track_caller]
pub(crate) fn assert_own_names(requests: &[Vec<u8>], is_own: impl Fn(&str) -> bool) {
    assert!(requests.len() > 5, "the requests are kept");
    for request in requests {
        let text = String::from_utf8_lossy(request);
        let first = text.lines().next().unwrap_or_default();
        let found = FOREIGN.iter().find(|name| text.contains(**name));
        assert!(found.is_none() || is_own(first), "{first}: {}\n{text:.4000}", found.unwrap());
    }
}
