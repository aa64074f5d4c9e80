//! The caller of a request: access key, account and region; the signature itself is verified for S3 only.

use hyper::HeaderMap;

use super::protocol::ApiError;
use super::roles::ROLE_KEY_PREFIX;

/// The caller of one request, as its credential scope says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) access_key: String,
    /// The role session of a container; `None` for a user.
    pub(crate) role: Option<String>,
    pub(crate) account: String,
    pub(crate) region: String,
}

impl Caller {
    /// Reads the header `Authorization`, or the query of a presigned URL.
    pub(crate) fn of(headers: &HeaderMap, query: Option<&str>, account: &str) -> Self {
        let scope = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once("Credential="))
            .map(|(_, rest)| rest.split([',', ' ']).next().unwrap_or_default().to_owned())
            .or_else(|| {
                let mut pairs = query?.split('&');
                pairs.find_map(|pair| pair.strip_prefix("X-Amz-Credential=")).map(|one| one.replace("%2F", "/"))
            })
            .unwrap_or_default();
        let mut parts = scope.split('/');
        let access_key = parts.next().unwrap_or_default().to_owned();
        let region = parts.nth(1).filter(|region| !region.is_empty()).unwrap_or("us-east-1").to_owned();
        let role = access_key.strip_prefix(ROLE_KEY_PREFIX).map(str::to_owned);
        Self { access_key, role, account: account.to_owned(), region }
    }

    /// Refuses keys that look like those of a real account, so that nobody takes this for AWS.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        let looks_real = self.access_key.len() == 20
            && (self.access_key.starts_with("AKIA") || self.access_key.starts_with("ASIA"))
            && !self.access_key.ends_with("EXAMPLE")
            && self.access_key.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        if !looks_real {
            return Ok(());
        }
        Err(ApiError {
            status: 403,
            ..ApiError::new(
                "InvalidClientTokenId",
                "This is an emulator, and the access key looks like one of a real account. Set AWS_ACCESS_KEY_ID=test \
                 and AWS_SECRET_ACCESS_KEY=test, or unset the endpoint URL to talk to AWS.",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(authorization: &str) -> Caller {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", authorization.parse().unwrap());
        Caller::of(&headers, None, "000000000000")
    }

    #[test]
    fn keys_of_real_accounts_are_refused_and_test_keys_are_not() {
        let signed = |key: &str| {
            caller(&format!(
                "AWS4-HMAC-SHA256 Credential={key}/20260101/eu-west-1/sagemaker/aws4_request, SignedHeaders=host"
            ))
        };
        assert_eq!(signed("test").region, "eu-west-1");
        for key in ["test", "AKIAIOSFODNN7EXAMPLE", "AKIA", "EMULATORROLE123"] {
            assert_eq!(signed(key).check(), Ok(()), "{key}");
        }
        for prefix in ["AKIA", "ASIA"] {
            let error = signed(&format!("{prefix}Q3EGRIZ5MW2KD4TX")).check().unwrap_err();
            assert!(error.message.contains("AWS_ACCESS_KEY_ID=test"));
        }
    }
}
