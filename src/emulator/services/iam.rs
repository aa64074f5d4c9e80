//! IAM: roles of `--iam`, and simulations of policies by the emulator's own decisions. The query protocol, as STS.

use std::sync::Arc;

use s3s::Body;

use super::form::Form;
use crate::authorization::{Identity, NeededAction, RoleSession, SAGEMAKER, account_of};
use crate::caller::{Caller, Signing, WireProtocol};
use crate::partition::partition;
use crate::protocol::{ApiError, Reply, escape_xml, reply, xml_error};
use crate::service::{ApiCall, Service, read};
use crate::shared::Shared;

const XML_NAMESPACE: &str = "https://iam.amazonaws.com/doc/2010-05-08/";

pub(crate) const OPERATIONS: &[&str] = &["GetRole", "SimulatePrincipalPolicy"];

pub(crate) struct Iam(pub(crate) Arc<Shared>);

#[async_trait::async_trait]
impl Service for Iam {
    fn signing(&self) -> Signing {
        Signing { protocol: WireProtocol::Query, service: Some("iam") }
    }

    async fn call(&self, mut call: ApiCall) -> anyhow::Result<Reply> {
        let body: Body = std::mem::take(call.request.body_mut());
        let form = Form::of(call.request.uri(), &read(body).await?);
        let result = match form.text("Action").unwrap_or_default() {
            "GetRole" => self.get_role(&call.caller, &form),
            "SimulatePrincipalPolicy" => self.simulate(&call.caller, &form),
            action => Err(ApiError::new("InvalidAction", format!("Could not find operation {action}"))),
        };
        let (operation, request_id) = (&call.operation, &call.request_id);
        Ok(match result {
            Err(error) => self.refuse(error),
            Ok(result) => reply(
                hyper::StatusCode::OK,
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

impl Iam {
    fn authorize(&self, caller: &Caller, action: &str, resource: &str) -> Result<(), ApiError> {
        let allowed = self.0.authority.allows(caller, &NeededAction::new(action, resource), None);
        allowed.map_err(|message| ApiError { status: 403, ..ApiError::new("AccessDenied", message) })
    }

    fn get_role(&self, caller: &Caller, form: &Form) -> Result<String, ApiError> {
        let name = member(form, "RoleName")?;
        let account = &caller.account;
        let accounts = self.0.authority.accounts();
        let known = (!accounts.is_empty()).then(|| accounts.get(account)?.roles.get(name));
        let plain_arn = format!("arn:{}:iam::{account}:role/{name}", partition(&caller.region));
        let (arn, id, trust) = match known {
            Some(Some(role)) => (role.arn.clone(), role.id.clone(), role.trust_text.clone()),
            Some(None) => (plain_arn.clone(), String::new(), String::new()),
            // Without an account each of its roles exists, and SageMaker may assume it.
            None => (plain_arn.clone(), "AROAEMULATOR".to_owned(), trust_of_sagemaker()),
        };
        self.authorize(caller, "iam:GetRole", &arn)?;
        if id.is_empty() {
            let message = format!("The role with name {name} cannot be found.");
            return Err(ApiError { status: 404, ..ApiError::new("NoSuchEntity", message) });
        }
        Ok(format!(
            "<Role><Path>/</Path><RoleName>{name}</RoleName><RoleId>{id}</RoleId><Arn>{}</Arn>\
             <CreateDate>2024-01-01T00:00:00Z</CreateDate><AssumeRolePolicyDocument>{}</AssumeRolePolicyDocument></Role>",
            escape_xml(&arn),
            urlencoding::encode(&trust),
            name = escape_xml(name),
            id = escape_xml(&id),
        ))
    }

    fn simulate(&self, caller: &Caller, form: &Form) -> Result<String, ApiError> {
        let source = member(form, "PolicySourceArn")?;
        self.authorize(caller, "iam:SimulatePrincipalPolicy", source)?;
        let absent = || {
            let message = format!("The source identity {source} cannot be found.");
            ApiError { status: 404, ..ApiError::new("NoSuchEntity", message) }
        };
        let simulated =
            Caller { identity: Arc::new(self.identity(caller, source).ok_or_else(absent)?), ..caller.clone() };
        let mut results = Vec::new();
        let resources = form.list("ResourceArns");
        let resources = if resources.is_empty() { vec!["*"] } else { resources };
        for action in form.list("ActionNames") {
            for resource in &resources {
                let mut needed = NeededAction::new(action, *resource);
                for number in 1.. {
                    let entry = format!("ContextEntries.member.{number}");
                    let Some(key) = form.text(&format!("{entry}.ContextKeyName")) else { break };
                    needed.keys.set(key, form.list(&format!("{entry}.ContextKeyValues")));
                }
                let decision = match self.0.authority.decide(&simulated, &needed, None) {
                    Ok(()) => "allowed",
                    Err(message) if message.contains("explicit deny") => "explicitDeny",
                    Err(_) => "implicitDeny",
                };
                results.push(format!(
                    "<member><EvalActionName>{}</EvalActionName><EvalResourceName>{}</EvalResourceName>\
                     <EvalDecision>{decision}</EvalDecision></member>",
                    escape_xml(action),
                    escape_xml(resource)
                ));
            }
        }
        let results = results.concat();
        Ok(format!("<EvaluationResults>{results}</EvaluationResults><IsTruncated>false</IsTruncated>"))
    }

    /// The user or role of an ARN.
    fn identity(&self, caller: &Caller, arn: &str) -> Option<Identity> {
        let authority = &self.0.authority;
        if authority.accounts().is_empty() || arn == Identity::Administrator.arn(&self.0.config.account, &caller.region)
        {
            return Some(Identity::Administrator);
        }
        if let Some(role) = authority.role(arn) {
            return Some(Identity::Session(RoleSession::new(arn, &role.id, "simulation")));
        }
        let account = authority.accounts().get(account_of(arn)?)?;
        let (name, user) = account.users.iter().find(|(_, user)| user.arn == arn)?;
        Some(Identity::User { name: name.clone(), arn: user.arn.clone(), id: user.id.clone() })
    }
}

fn member<'a>(form: &'a Form, name: &str) -> Result<&'a str, ApiError> {
    form.text(name).ok_or_else(|| ApiError::new("ValidationError", format!("Value at '{name}' must not be null")))
}

fn trust_of_sagemaker() -> String {
    let statement =
        serde_json::json!({"Effect": "Allow", "Principal": {"Service": SAGEMAKER}, "Action": "sts:AssumeRole"});
    serde_json::json!({"Version": "2012-10-17", "Statement": [statement]}).to_string()
}
