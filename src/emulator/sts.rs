//! The STS half: who is calling. Query protocol in, XML out; any other action is unknown.

use hyper::StatusCode;

use super::protocol::{ApiError, Reply, reply, xml_error};

/// The action of a form body, empty when there is none.
pub(crate) fn action(form: &str) -> &str {
    form.split('&').find_map(|pair| pair.strip_prefix("Action=")).unwrap_or_default()
}

/// Answers one request.
pub(crate) fn answer(form: &str, account: &str, access_key: &str, request_id: &str) -> Reply {
    if action(form) != "GetCallerIdentity" {
        let name = action(form);
        return xml_error(&ApiError::new("InvalidAction", format!("Could not find operation {name}")), true);
    }
    let (arn, user) = if access_key.starts_with(super::ROLE_KEY_PREFIX) {
        (format!("arn:aws:sts::{account}:assumed-role/emulator/SageMaker"), "AROAEMULATOR:SageMaker")
    } else {
        (format!("arn:aws:iam::{account}:user/test"), "AIDAEMULATOR")
    };
    let body = format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
         <Arn>{arn}</Arn><UserId>{user}</UserId><Account>{account}</Account></GetCallerIdentityResult>\
         <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    );
    reply(StatusCode::OK, "text/xml", body)
}
