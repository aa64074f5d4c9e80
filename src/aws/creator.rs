//! The identity that sends the request for a training job: the driver's own, or a session of the creator's role.

use std::time::Duration;

use aws_sdk_sagemaker::config::Credentials;
use aws_sdk_sts::types::Tag;
use executor::cloud::{CloudError, CloudErrorKind, CreatorSession};

use super::clients::{Clients, timeouts};

/// Seconds that the credentials are good for; the least that AWS takes. They are used for one request.
const SESSION_SECONDS: i32 = 900;
/// Short, because the request for the job follows within the same stage.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Assumes the role. The credentials are kept in memory alone, and dropped after the request.
pub(super) async fn credentials(clients: &Clients, session: &CreatorSession) -> Result<Credentials, CloudError> {
    let call = clients.call("assume", format!("the role {}", session.role_arn), "sts:AssumeRole");
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use executor::cloud::TrainingJobSpec;
    use executor::cloud::testing::example_spec;

    use super::*;
    use crate::stub::{SeenRequest, Stub, refusal, reply};

    const ASSUMED: &str = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
        <AccessKeyId>ASIACREATOR</AccessKeyId><SecretAccessKey>s3cr3t</SecretAccessKey><SessionToken>t0ken</SessionToken>\
        <Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";

    fn spec() -> TrainingJobSpec {
        let tags = [("sme-session", "a"), ("sme-protected", "true")];
        let creator = CreatorSession {
            role_arn: "arn:aws:iam::1:role/creator".to_owned(),
            name: "a".to_owned(),
            tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        };
        TrainingJobSpec { creator: Some(creator), ..example_spec("a") }
    }

    fn form(seen: &SeenRequest) -> BTreeMap<String, String> {
        let body = String::from_utf8(seen.body.clone()).unwrap();
        let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.replace("%3A", ":").replace("%2F", "/"))).collect()
    }

    /// The role's credentials sign the request for the job, and nothing else.
    #[tokio::test]
    async fn the_creators_session_creates_the_job_and_chains_its_tags() {
        let stub = Stub::start().await;
        for body in [ASSUMED, r#"{"TrainingJobArn":"arn"}"#, "{}"] {
            stub.push(reply(200, body));
        }
        assert_eq!(stub.jobs.create(&spec()).await.unwrap(), "arn");
        stub.jobs.stop("a").await.unwrap();
        let [assume, create, stop] = stub.seen().try_into().unwrap();
        let expected = [
            ("Action", "AssumeRole"),
            ("DurationSeconds", "900"),
            ("RoleArn", "arn:aws:iam::1:role/creator"),
            ("RoleSessionName", "a"),
            ("Tags.member.1.Key", "sme-protected"),
            ("Tags.member.1.Value", "true"),
            ("Tags.member.2.Key", "sme-session"),
            ("Tags.member.2.Value", "a"),
            ("Version", "2011-06-15"),
        ];
        assert_eq!(form(&assume), expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        let signed_by = |seen: &SeenRequest, key: &str| seen.authorization.as_ref().unwrap().contains(key);
        assert!(signed_by(&assume, "AKIDTEST") && signed_by(&create, "ASIACREATOR") && signed_by(&stop, "AKIDTEST"));
        assert_eq!((create.session_token.as_deref(), stop.session_token), (Some("t0ken"), None));
        let sent: serde_json::Value = serde_json::from_slice(&create.body).unwrap();
        assert_eq!(sent["SessionChainingConfig"], serde_json::json!({"EnableSessionTagChaining": true}));
    }

    #[tokio::test]
    async fn a_refused_session_sends_no_request_for_a_job() {
        for action in ["sts:AssumeRole", "sts:TagSession"] {
            let stub = Stub::start().await;
            let text =
                format!("User: x is not authorized to perform: {action} on resource: arn:aws:iam::1:role/creator");
            stub.push(reply(
                403,
                format!(
                    "<ErrorResponse><Error><Code>AccessDenied</Code><Message>{text}</Message></Error></ErrorResponse>"
                ),
            ));
            let error = stub.jobs.create(&spec()).await.unwrap_err();
            assert_eq!((error.kind, error.action), (CloudErrorKind::Denied, action), "{error}");
            assert!(
                error.to_string().starts_with("failed to assume the role arn:aws:iam::1:role/creator: "),
                "{error}"
            );
            assert_eq!(stub.seen().len(), 1);
        }
        let stub = Stub::start().await;
        stub.push(reply(200, "<AssumeRoleResponse><AssumeRoleResult/></AssumeRoleResponse>"));
        assert_eq!(stub.jobs.create(&spec()).await.unwrap_err().kind, CloudErrorKind::Other);
        assert_eq!(stub.seen().len(), 1);
    }

    #[tokio::test]
    async fn the_credentials_of_a_session_are_in_no_error() {
        let stub = Stub::start().await;
        stub.push(reply(200, ASSUMED));
        stub.push(refusal(400, "ExpiredTokenException", "The security token included in the request is expired"));
        let text = format!("{:?}", stub.jobs.create(&spec()).await.unwrap_err());
        assert!(!text.contains("s3cr3t") && !text.contains("t0ken") && !text.contains("ASIACREATOR"), "{text}");
    }
}
