//! Verifies the signature of each request, whatever service it is for, before anything else happens.

use hyper::http::request::Parts;
use hyper::{Method, Request};
use s3s::Body;

use super::caller::{Caller, OWN_SERVICE, Signing, WireProtocol};
use super::clock;
use super::credentials::{self, Key};
use super::protocol::ApiError;
use super::service::read;
use super::shared::Shared;
use super::sigv4::{Signature, SignatureError};

/// Beginning of a form's content type, in any case.
const FORM: &[u8] = b"multipart/";

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    Signature(SignatureError),
    UnknownKey,
    WrongToken,
    Expired,
    /// The key looks like one of a real account: somebody takes this for AWS.
    RealKey,
}

impl From<SignatureError> for Refusal {
    fn from(error: SignatureError) -> Self {
        Refusal::Signature(error)
    }
}

/// Returns the request with its caller, or the error that answers it. An error drops the connection.
///
/// Of a request to S3 only the key is checked here, and signature and time by `s3s`, which also takes the bodies apart.
pub(crate) async fn authenticate(
    shared: &Shared,
    signing: Signing,
    request: Request<Body>,
) -> anyhow::Result<Result<(Request<Body>, Caller), ApiError>> {
    let (parts, body) = request.into_parts();
    let refused = |refusal: &Refusal| Ok(Err(refusal.answer(signing.protocol, shared)));
    // `s3s` would take the signature out of the form, which need not be that of the headers.
    let form = parts
        .headers
        .get_all("content-type")
        .iter()
        .any(|kind| kind.as_bytes().get(..FORM.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(FORM)));
    if signing.protocol == WireProtocol::S3 && parts.method == Method::POST && form {
        return refused(&SignatureError::Missing.into());
    }
    let (signature, key) = match known(shared, signing, &parts) {
        Ok(known) => known,
        Err(refusal) => return refused(&refusal),
    };
    let mut body = body;
    if signing.protocol != WireProtocol::S3 {
        let content = read(body).await?;
        if let Err(error) = signature.verify(&parts, &content, &key.credentials.secret_access_key) {
            return refused(&error.into());
        }
        body = Body::from(content);
    }
    let account = key.identity.account().unwrap_or(&shared.config.account).to_owned();
    let caller = Caller { identity: key.identity, account, region: signature.region };
    Ok(Ok((Request::from_parts(parts, body), caller)))
}

/// The signature of a request, which names a key that is valid, the service and the time.
fn known(shared: &Shared, signing: Signing, parts: &Parts) -> Result<(Signature, Key), Refusal> {
    let signature = Signature::read(parts)?;
    if looks_real(&signature.access_key_id) {
        return Err(Refusal::RealKey);
    }
    let key = shared.keys.find(&signature.access_key_id).ok_or(Refusal::UnknownKey)?;
    if signature.token != key.credentials.session_token {
        return Err(Refusal::WrongToken);
    }
    if key.has_expired() {
        return Err(Refusal::Expired);
    }
    if let Some(service) = signing.service.filter(|service| *service != signature.service) {
        return Err(
            SignatureError::Mismatch(format!("Credential should be scoped to correct service: '{service}'.")).into()
        );
    }
    if signing.protocol != WireProtocol::S3 {
        // The client that set the clock must be able to set it back.
        let is_own = signing.service == Some(OWN_SERVICE);
        signature.check_time(if is_own { clock::of_machine() } else { clock::now() })?;
    }
    Ok((signature, key))
}

fn looks_real(access_key_id: &str) -> bool {
    access_key_id.len() == 20
        && (access_key_id.starts_with("AKIA") || access_key_id.starts_with("ASIA"))
        && !access_key_id.ends_with("EXAMPLE")
        && access_key_id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

impl Refusal {
    /// The error as the service words it, with the place of the right credentials when the key is a wrong one.
    fn answer(&self, protocol: WireProtocol, shared: &Shared) -> ApiError {
        let of = |json: &str, query: &str, (s3, s3_status): (&str, u16), message: &str| {
            let (code, status) = match protocol {
                WireProtocol::Json => (json, 400),
                WireProtocol::Query => (query, 403),
                WireProtocol::S3 => (s3, s3_status),
            };
            ApiError { code: code.to_owned(), message: message.to_owned(), status }
        };
        let file = credentials::file(&shared.config.data_dir);
        let hint = format!("This is an emulator: set AWS_SHARED_CREDENTIALS_FILE={}", file.display());
        let invalid = format!("The security token included in the request is invalid. {hint}");
        match self {
            Refusal::RealKey => ApiError {
                status: 403,
                ..ApiError::new(
                    "InvalidClientTokenId",
                    format!(
                        "The access key looks like one of a real account. {hint} and unset AWS_ACCESS_KEY_ID, or unset the \
                         endpoint URL to talk to AWS."
                    ),
                )
            },
            Refusal::UnknownKey => {
                of("UnrecognizedClientException", "InvalidClientTokenId", ("InvalidAccessKeyId", 403), &invalid)
            }
            Refusal::WrongToken => {
                of("UnrecognizedClientException", "InvalidClientTokenId", ("InvalidToken", 400), &invalid)
            }
            Refusal::Expired => of(
                "ExpiredTokenException",
                "ExpiredToken",
                ("ExpiredToken", 400),
                "The security token included in the request is expired",
            ),
            Refusal::Signature(SignatureError::Missing) => of(
                "MissingAuthenticationTokenException",
                "MissingAuthenticationToken",
                ("AccessDenied", 403),
                "Missing Authentication Token",
            ),
            Refusal::Signature(SignatureError::Incomplete(message)) => of(
                "IncompleteSignatureException",
                "IncompleteSignature",
                ("AuthorizationHeaderMalformed", 400),
                message,
            ),
            Refusal::Signature(SignatureError::OutOfTime(message)) => {
                of("InvalidSignatureException", "SignatureDoesNotMatch", ("RequestTimeTooSkewed", 403), message)
            }
            Refusal::Signature(SignatureError::Mismatch(message)) => {
                of("InvalidSignatureException", "SignatureDoesNotMatch", ("SignatureDoesNotMatch", 403), message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_real_accounts_are_known_by_their_look() {
        for key in ["test", "AKIAIOSFODNN7EXAMPLE", "AKIA", "EMULATOR0123456789AB"] {
            assert!(!looks_real(key), "{key}");
        }
        for prefix in ["AKIA", "ASIA"] {
            assert!(looks_real(&format!("{prefix}Q3EGRIZ5MW2KD4TX")));
        }
    }
}
