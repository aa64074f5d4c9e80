//! Exchanges a token of an identity provider for credentials of a role, again whenever they end. AWS checks the token's
//! signature, audience and age.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use executor::base::clock::{Clock as _, HostClock};
use executor::base::failure::{Failure, render};
use executor::base::plain;
use executor::cloud::{CloudError, CloudErrorKind, SettingsFile, WebIdentity};
use parking_lot::Mutex;

use super::calls::CallLog;
use super::errors::AwsCall;
use super::renewal::Renewal;
use super::token_refusal;

/// Most bytes of AWS's message that are shown.
const MOST_MESSAGE: usize = 2_000;

/// Credentials of a role by a token, which stays valid as long as its job may run.
#[derive(Debug)]
pub(super) struct RoleByToken {
    /// Configuration of a client without credentials: the token is the credential.
    unsigned: SdkConfig,
    settings: SettingsFile,
    identity: WebIdentity,
    renewal: Arc<Renewal>,
    /// Those of the first exchange, until they are asked for.
    first: Mutex<Option<Credentials>>,
}

impl RoleByToken {
    /// Exchanges the token for the first time, so that a refusal ends the command before it does anything.
    ///
    /// # Errors
    /// AWS refuses the token, or cannot be reached.
    pub(super) async fn new(
        unsigned: SdkConfig,
        settings: SettingsFile,
        identity: WebIdentity,
        renewal: Arc<Renewal>,
    ) -> anyhow::Result<Self> {
        let first = Mutex::new(Some(credentials(&unsigned, settings, &identity).await?));
        Ok(Self { unsigned, settings, identity, renewal, first })
    }

    async fn next(&self) -> Result<Credentials, CredentialsError> {
        if let Some(first) = self.first.lock().take() {
            return Ok(first);
        }
        let made = credentials(&self.unsigned, self.settings, &self.identity).await;
        made.map_err(|error| {
            // The SDK passes the kind of this error on, and no text. What may pass, such as a lost connection, is told as for other credentials.
            let is_refused = error.downcast_ref::<CloudError>().is_none();
            let text = || render(&error).trim_start_matches("error: ").trim_end().replace("\n  hint: ", "; ");
            self.renewal.tell_refusal(is_refused.then(text));
            CredentialsError::provider_error("the id token was not exchanged")
        })
    }
}

impl ProvideCredentials for RoleByToken {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.next())
    }
}

/// Exchanges the token once. The credentials are good for an hour.
///
/// # Errors
/// AWS refuses the token, or cannot be reached.
async fn credentials(
    unsigned: &SdkConfig,
    settings: SettingsFile,
    identity: &WebIdentity,
) -> anyhow::Result<Credentials> {
    let config = aws_sdk_sts::config::Builder::from(unsigned).interceptor(CallLog::default());
    let role = format!("the role {} by the id token", identity.role_arn);
    let call = AwsCall::new("assume", role, "sts:AssumeRoleWithWebIdentity").of(settings);
    let reply = aws_sdk_sts::Client::from_conf(config.build())
        .assume_role_with_web_identity()
        .role_arn(&identity.role_arn)
        .role_session_name(&identity.session_name)
        .web_identity_token(&identity.token)
        .send()
        .await;
    let made = match reply {
        Ok(reply) => {
            reply.credentials.ok_or_else(|| call.error(CloudErrorKind::Other, "the reply holds no credentials"))?
        }
        Err(error) => {
            let failed = call.failed(&error);
            let is_refused = matches!(
                failed.kind,
                CloudErrorKind::Denied | CloudErrorKind::Unauthenticated | CloudErrorKind::Invalid
            );
            let Some(code) = error.code().filter(|_| is_refused) else { return Err(failed.into()) };
            return Err(refused(&call, code, error.message().unwrap_or_default(), identity).into());
        }
    };
    let until = SystemTime::try_from(made.expiration).ok();
    Ok(Credentials::new(made.access_key_id, made.secret_access_key, Some(made.session_token), until, "web-identity"))
}

/// The failure of a token that AWS has read and refuses, with AWS's own words.
fn refused(call: &AwsCall, code: &str, message: &str, identity: &WebIdentity) -> Failure {
    // Its line breaks would look like lines of our own.
    let message = plain::line(&message.replace(&identity.token, "[MASKED]"), MOST_MESSAGE);
    let now = HostClock.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let failure = Failure::system(format!("failed to {}: {code}: {message}", call.operation));
    let hints = token_refusal::hints(code, &message, &identity.role_arn, &identity.claims, now);
    hints.into_iter().fold(failure, Failure::hint)
}

#[cfg(test)]
mod tests {
    use aws_config::Region;
    use aws_config::retry::RetryConfig;
    use executor::cloud::{Access, TokenClaims};

    use super::*;
    use crate::clients::{explicit, http_client};
    use crate::stub::{SeenRequest, Stub, reply};
    use crate::trust::Surroundings;

    fn unsigned(access: &Access) -> SdkConfig {
        let region = Region::new("eu-west-1");
        explicit(access, region, http_client(access, Surroundings::Job).unwrap(), None).unwrap()
    }

    async fn exchanged(access: &Access) -> anyhow::Result<Credentials> {
        credentials(&unsigned(access), access.settings, &identity()).await
    }

    const ASSUMED: &str = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
        <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAJOB</AccessKeyId><SecretAccessKey>s3cr3t</SecretAccessKey>\
        <SessionToken>t0ken</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>\
        </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";

    fn identity() -> WebIdentity {
        WebIdentity {
            role_arn: "arn:aws:iam::1:role/approve".to_owned(),
            token: "header.claims.signature".to_owned(),
            session_name: "gitlab-7".to_owned(),
            claims: TokenClaims {
                issuer: "https://gitlab.example.com".to_owned(),
                subject: "project_path:g/p:ref_type:branch:ref:feature".to_owned(),
                audience: "sts.amazonaws.com".to_owned(),
                expires: Some(1_000),
            },
        }
    }

    fn refusal(code: &str, message: &str) -> axum::response::Response {
        let body =
            format!("<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>");
        reply(if code == "AccessDenied" { 403 } else { 400 }, body)
    }

    #[tokio::test]
    async fn a_token_is_sent_without_a_signature_and_gives_credentials() {
        let stub = Stub::start().await;
        stub.push(reply(200, ASSUMED));
        let made = exchanged(&stub.access).await.unwrap();
        assert_eq!((made.access_key_id(), made.session_token()), ("ASIAJOB", Some("t0ken")));
        let [SeenRequest { body, authorization, .. }] = stub.seen().try_into().unwrap();
        let body = String::from_utf8(body).unwrap();
        assert!(authorization.is_none() && body.contains("WebIdentityToken=header.claims.signature"), "{body}");
        assert!(body.contains("RoleSessionName=gitlab-7"), "{body}");
    }

    #[tokio::test]
    async fn a_refused_token_is_told_without_its_text() {
        for (code, message) in [
            ("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"),
            ("InvalidIdentityToken", "header.claims.signature has no key"),
            ("ExpiredTokenException", "Token expired"),
            ("AccessDenied", "one\n  hint: two"),
        ] {
            let stub = Stub::start().await;
            stub.push(refusal(code, message));
            let text = render(&exchanged(&stub.access).await.unwrap_err());
            let begin = "error: failed to assume the role arn:aws:iam::1:role/approve by the id token: ";
            assert!(text.starts_with(&format!("{begin}{code}: ")), "{text}");
            assert!(text.contains("hint: ") && !text.contains("claims.signature"), "{text}");
            assert!(!text.contains("\n  hint: two"), "a line of AWS's message is no hint: {text}");
        }
    }

    /// The first credentials are used once; then the same token gives others, and a refusal is kept for the call that needs them.
    #[tokio::test]
    async fn the_token_is_exchanged_again_when_credentials_end() {
        let stub = Stub::start().await;
        stub.push(reply(200, ASSUMED));
        let renewal = Arc::<Renewal>::default();
        let config = unsigned(&stub.access).into_builder().retry_config(RetryConfig::disabled()).build();
        let role = RoleByToken::new(config, SettingsFile::Manifest, identity(), Arc::clone(&renewal)).await.unwrap();
        assert_eq!(role.provide_credentials().await.unwrap().access_key_id(), "ASIAJOB");
        assert_eq!(stub.seen().len(), 1);
        stub.push(reply(200, ASSUMED.replace("ASIAJOB", "ASIANEXT")));
        assert_eq!(role.provide_credentials().await.unwrap().access_key_id(), "ASIANEXT");
        stub.push(refusal("ExpiredTokenException", "Token expired"));
        assert!(role.provide_credentials().await.is_err());
        let told = renewal.refusal().unwrap();
        assert!(told.starts_with("failed to assume the role") && told.contains("1970-01-01T00:16:40Z"), "{told}");
        stub.push(reply(503, ""));
        assert!(role.provide_credentials().await.is_err());
        assert_eq!(renewal.refusal(), None, "it may pass");
    }
}
