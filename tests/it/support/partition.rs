//! Names of one partition in requests of a run in another one.

/// The region of runs outside of the partition `aws`.
pub(crate) const REGION: &str = "us-gov-west-1";
/// Names that no request of such a run may have: ARNs, regions and domains, as they are and encoded in a form.
const FOREIGN: [&str; 6] = ["arn:aws:", "arn%3Aaws%3A", "us-east-1", "eu-west-1", "aws-cn", "amazonaws.com.cn"];

/// A text with the names of the partition `aws` replaced by those of [`REGION`].
pub(crate) fn of_region(text: &str) -> String {
    text.replace("arn:aws:", "arn:aws-us-gov:").replace("us-east-1", REGION)
}

/// Checks the requests, whole as they were sent: their names, and the region of each signature. `is_own` says by the first line which of them
/// carry content of the test's own.
#[track_caller]
pub(crate) fn assert_own_names(requests: &[Vec<u8>], is_own: impl Fn(&str) -> bool) {
    let regions =
        regex::Regex::new(r"\b(?:af|ap|ca|cn|eu|il|me|mx|sa|us)-(?:gov-|iso[a-z]?-)?[a-z]{4,12}-[1-9]\b").unwrap();
    let mut signed = 0;
    assert!(requests.len() > 5, "the requests are kept");
    for request in requests {
        let text = String::from_utf8_lossy(request);
        let first = text.lines().next().unwrap_or_default();
        let head = text.split("\r\n\r\n").next().unwrap_or_default().replace("%2F", "/");
        for scope in head.split_inclusive("/aws4_request").filter_map(|part| part.strip_suffix("/aws4_request")) {
            assert_eq!(scope.rsplit('/').nth(1), Some(REGION), "{first}: {scope}");
            signed += 1;
        }
        if is_own(first) {
            continue;
        }
        let named = FOREIGN.iter().copied().find(|name| text.contains(name));
        let found =
            named.or_else(|| regions.find_iter(&text).map(|found| found.as_str()).find(|found| *found != REGION));
        assert_eq!(found, None, "{first}\n{text:.4000}");
    }
    assert!(signed > 5, "requests are signed");
}

/// Six requests that are signed for a region, with this text.
#[cfg(test)]
fn signed_for(region: &str, text: &str) -> Vec<Vec<u8>> {
    let scope = format!("Credential=AKIA/20261129/{region}/sagemaker/aws4_request, SignedHeaders=host");
    vec![format!("POST / HTTP/1.1\r\nauthorization: AWS4-HMAC-SHA256 {scope}\r\n\r\n{text}").into_bytes(); 6]
}

#[test]
fn names_of_the_own_region_are_found_right() {
    assert_own_names(&signed_for(REGION, "arn:aws-us-gov:s3:::b 0.dkr.ecr.us-gov-west-1.amazonaws.com"), |_| false);
    assert_own_names(&signed_for(REGION, "eu-west-1"), |first| first == "POST / HTTP/1.1");
}

#[test]
#[should_panic(expected = "ap-southeast-2")]
fn a_name_of_any_other_region_is_found() {
    assert_own_names(&signed_for(REGION, "{\"Image\": \"0.dkr.ecr.ap-southeast-2.amazonaws.com\"}"), |_| false);
}

#[test]
#[should_panic(expected = "us-gov-east-1")]
fn a_signature_for_another_region_is_found_in_a_request_of_the_test() {
    assert_own_names(&signed_for("us-gov-east-1", ""), |_| true);
}
