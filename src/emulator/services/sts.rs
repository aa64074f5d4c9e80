//! STS: `GetCallerIdentity` alone, by the query protocol with replies in XML.

use hyper::StatusCode;

use crate::caller::{Signing, WireProtocol};
use crate::protocol::{ApiError, Reply, reply, xml_error};
use crate::service::{ApiCall, Service, read};

/// The operation that each request is counted as.
pub(crate) const OPERATION: &str = "GetCallerIdentity";

/// The service; it has no state.
pub(crate) struct Sts;

#[async_trait::async_trait]
impl Service for Sts {
    fn signing(&self) -> Signing {
        Signing { protocol: WireProtocol::Query, service: Some("sts") }
    }

    async fn call(&self, call: ApiCall) -> anyhow::Result<Reply> {
        let query = call.request.uri().query().unwrap_or_default().to_owned();
        let form = read(call.request.into_body()).await?;
        let form = String::from_utf8_lossy(&form);
        // A presigned request has everything in its query.
        let action =
            form.split('&').chain(query.split('&')).find_map(|pair| pair.strip_prefix("Action=")).unwrap_or_default();
        if action != OPERATION {
            return Ok(self.refuse(ApiError::new("InvalidAction", format!("Could not find operation {action}"))));
        }
        let (account, arn) = (&call.caller.account, call.caller.arn());
        let user = if call.caller.job.is_some() { "AROAEMULATOR:SageMaker" } else { "AIDAEMULATOR" };
        let request_id = call.request_id;
        let body = format!(
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
             <Arn>{arn}</Arn><UserId>{user}</UserId><Account>{account}</Account></GetCallerIdentityResult>\
             <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
        );
        Ok(reply(StatusCode::OK, "text/xml", body))
    }

    fn refuse(&self, error: ApiError) -> Reply {
        xml_error(&error, true)
    }
}
