//! Exchanges a token of an identity provider for credentials of a role. AWS checks the token's signature, audience and age.

use aws_config::SdkConfig;
use aws_sdk_s3::config::Credentials;
use executor::base::failure::Failure;
use executor::cloud::{CloudError, CloudErrorKind, SettingsFile, WebIdentity};

use super::calls::CallLog;
use super::errors::AwsCall;

/// Exchanges the token once, by a client without credentials: the token is the credential. The credentials are good for an hour, or for the role's `MaxSessionDuration`.
///
/// # Errors
/// AWS refuses the token, or cannot be reached.
pub(super) async fn credentials(
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
        Err(error) => return Err(refused(&call, call.failed(&error))),
    };
    let until = std::time::SystemTime::try_from(made.expiration).ok();
    Ok(Credentials::new(made.access_key_id, made.secret_access_key, Some(made.session_token), until, "web-identity"))
}

/// Hint for a token that AWS has read and refuses.
fn refused(call: &AwsCall, error: CloudError) -> anyhow::Error {
    match error.kind {
        CloudErrorKind::Denied | CloudErrorKind::Unauthenticated | CloudErrorKind::Invalid => {
            // AWS's own text is kept; the advice for other credentials does not fit.
            let said = error.message.split("; ").next().unwrap_or_default().to_owned();
            Failure::system(format!("failed to {}: {said}", call.operation))
                .hint(
                    "check `AWS_ROLE_ARN`, and that the trust policy of this role allows `sts:AssumeRoleWithWebIdentity` to the \
                     job's GitLab, with the token's `aud` and `sub`",
                )
                .hint("a token is good for as long as the job may run; `id_tokens:` in the job makes it")
                .into()
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use aws_config::Region;
    use executor::base::failure::render;
    use executor::cloud::Access;

    use super::*;
    use crate::clients::{explicit, http_client};
    use crate::stub::{SeenRequest, Stub, reply};
    use crate::trust::Surroundings;

    async fn exchanged(access: &Access) -> anyhow::Result<Credentials> {
        let region = Region::new("eu-west-1");
        let unsigned = explicit(access, region, http_client(access, Surroundings::Job).unwrap(), None).unwrap();
        credentials(&unsigned, access.settings, &identity()).await
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
        }
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
            ("InvalidIdentityToken", "Couldn't retrieve verification key from your identity provider"),
            ("ExpiredTokenException", "Token expired"),
        ] {
            let stub = Stub::start().await;
            let body = format!(
                "<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
            );
            stub.push(reply(if code == "AccessDenied" { 403 } else { 400 }, body));
            let text = render(&exchanged(&stub.access).await.unwrap_err());
            let begin = "error: failed to assume the role arn:aws:iam::1:role/approve by the id token: ";
            assert!(text.starts_with(&format!("{begin}{code}: {message}\n")), "{text}");
            assert!(text.contains("`AWS_ROLE_ARN`") && !text.contains("claims.signature"), "{text}");
        }
    }
}
