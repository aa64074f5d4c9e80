//! The identity that sends the request for a training job: the driver's own, or a session of the creator's role.

use std::time::Duration;

use aws_sdk_sagemaker::config::Credentials;
use aws_sdk_sts::types::Tag;
use executor::cloud::{CloudError, CloudErrorKind, CreatorSession};

use super::clients::{Clients, timeouts};
use super::errors::AwsCall;

/// Seconds that the credentials are good for; the least that AWS takes. They are used for one request.
const SESSION_SECONDS: i32 = 900;
/// Short, because the request for the job follows within the same stage.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Assumes the role. The credentials are kept in memory alone, and dropped after the request.
pub(super) async fn credentials(clients: &Clients, session: &CreatorSession) -> Result<Credentials, CloudError> {
    let call = AwsCall::new("assume", format!("the role {}", session.role_arn), "sts:AssumeRole");
    let tag = |(name, value): (&String, &String)| {
        let tag = Tag::builder().key(name).value(value).build();
        tag.map_err(|error| call.error(CloudErrorKind::Invalid, error.to_string()))
    };
    let reply = clients
        .sts()
        .assume_role()
        .role_arn(&session.role_arn)
        .role_session_name(&session.name)
        .duration_seconds(SESSION_SECONDS)
        .set_tags(Some(session.tags.iter().map(tag).collect::<Result<_, _>>()?))
        .customize()
        .config_override(aws_sdk_sts::config::Builder::new().timeout_config(timeouts(ATTEMPT_TIMEOUT)))
        .send()
        .await
        .map_err(|error| call.failed(&error))?;
    let made = reply.credentials.ok_or_else(|| call.error(CloudErrorKind::Other, "the reply holds no credentials"))?;
    Ok(Credentials::new(made.access_key_id, made.secret_access_key, Some(made.session_token), None, "creator"))
}
