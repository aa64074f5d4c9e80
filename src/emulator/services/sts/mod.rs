//! STS: sessions of roles, by the query protocol with replies in XML.

mod assume_role;
mod published;
mod token;
mod web_identity;

use std::sync::Arc;

use hyper::StatusCode;

use super::form::Form;
use crate::caller::{Signing, WireProtocol};
use crate::protocol::{ApiError, Reply, escape_xml, reply, xml_error};
use crate::service::{ApiCall, Service, read};
use crate::shared::Shared;
use crate::store::Store;

const XML_NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

pub(super) const OPERATIONS: &[&str] = &["GetCallerIdentity", "AssumeRole", "AssumeRoleWithWebIdentity"];

/// The service; its sessions are the access keys of the emulator.
pub(crate) struct Sts {
    pub(crate) shared: Arc<Shared>,
    /// Buckets in which keys of identity providers are published.
    pub(crate) store: Arc<Store>,
}

#[async_trait::async_trait]
impl Service for Sts {
    fn signing(&self) -> Signing {
        Signing { protocol: WireProtocol::Query, service: Some("sts") }
    }

    fn needs_signature(&self, operation: &str) -> bool {
        operation != web_identity::OPERATION
    }

    async fn call(&self, mut call: ApiCall) -> anyhow::Result<Reply> {
        let body = read(std::mem::take(call.request.body_mut())).await?;
        let form = Form::of(call.request.uri(), &body);
        let caller = &call.caller;
        let result = match form.text("Action").unwrap_or_default() {
            "GetCallerIdentity" => Ok(format!(
                "<Arn>{}</Arn><UserId>{}</UserId><Account>{}</Account>",
                escape_xml(&caller.arn()),
                escape_xml(&caller.identity.user_id()),
                caller.account
            )),
            "AssumeRole" => assume_role::assume_role(&self.shared, caller, &form),
            web_identity::OPERATION => web_identity::assume_role(&self.shared, &self.store, caller, &form),
            action => Err(ApiError::new("InvalidAction", format!("Could not find operation {action}"))),
        };
        let (operation, request_id) = (&call.operation, &call.request_id);
        Ok(match result {
            Err(error) => self.refuse(error),
            Ok(result) => reply(
                StatusCode::OK,
                "text/xml",
                format!(
                    "<{operation}Response xmlns=\"{XML_NAMESPACE}\"><{operation}Result>{result}\
                     </{operation}Result><ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>\
                     </{operation}Response>"
                ),
            ),
        })
    }

    fn refuse(&self, error: ApiError) -> Reply {
        xml_error(&error, Some(XML_NAMESPACE))
    }
}
