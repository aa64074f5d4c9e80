//! EC2: subnets, security groups, route tables and endpoints of `--network`, as the file has them. The query protocol.

use std::sync::Arc;

use s3s::Body;
use serde_json::Value;

use super::form::Form;
use crate::authorization::NeededAction;
use crate::caller::{Signing, WireProtocol};
use crate::protocol::{ApiError, Reply, escape_xml, reply};
use crate::service::{ApiCall, Service, read};
use crate::shared::Shared;

const XML_NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

pub(crate) const OPERATIONS: &[&str] =
    &["DescribeSubnets", "DescribeSecurityGroups", "DescribeRouteTables", "DescribeVpcEndpoints"];

/// List of the file, its name in answers, member with the id, and parameter with ids in a request, of each operation.
const LISTS: [(&str, &str, &str, &str); 4] = [
    ("Subnets", "subnetSet", "SubnetId", "SubnetId"),
    ("SecurityGroups", "securityGroupInfo", "GroupId", "GroupId"),
    ("RouteTables", "routeTableSet", "RouteTableId", "RouteTableId"),
    ("VpcEndpoints", "vpcEndpointSet", "VpcEndpointId", "VpcEndpointId"),
];

/// Members whose name in XML is not the one of the AWS CLI with a small first letter.
const NAMES: [(&str, &str); 6] = [
    ("Associations", "associationSet"),
    ("Routes", "routeSet"),
    ("RouteTableIds", "routeTableIdSet"),
    ("SubnetIds", "subnetIdSet"),
    ("Groups", "groupSet"),
    ("UserIdGroupPairs", "groups"),
];

pub(crate) struct Ec2(pub(crate) Arc<Shared>);

#[async_trait::async_trait]
impl Service for Ec2 {
    fn signing(&self) -> Signing {
        Signing { protocol: WireProtocol::Query, service: Some("ec2") }
    }

    async fn call(&self, mut call: ApiCall) -> anyhow::Result<Reply> {
        let body: Body = std::mem::take(call.request.body_mut());
        let form = Form::of(call.request.uri(), &read(body).await?);
        let needed = NeededAction::new(format!("ec2:{}", call.operation), "*");
        let denied = |message| ApiError { status: 403, ..ApiError::new("UnauthorizedOperation", message) };
        let answer = self.0.authority.allows(&call.caller, &needed, None).map_err(denied);
        let answer = answer.and_then(|()| self.describe(&call.operation, &form));
        let (operation, request_id) = (&call.operation, &call.request_id);
        Ok(match answer {
            Err(error) => self.refuse(error),
            Ok(list) => reply(
                hyper::StatusCode::OK,
                "text/xml;charset=UTF-8",
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{operation}Response xmlns=\"{XML_NAMESPACE}\">\
                     <requestId>{request_id}</requestId>{list}</{operation}Response>"
                ),
            ),
        })
    }

    fn refuse(&self, error: ApiError) -> Reply {
        let status = hyper::StatusCode::from_u16(error.status).unwrap_or(hyper::StatusCode::BAD_REQUEST);
        let (code, message) = (escape_xml(&error.code), escape_xml(&error.message));
        let text = format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>"
        );
        reply(status, "text/xml;charset=UTF-8", text)
    }
}

impl Ec2 {
    fn describe(&self, operation: &str, form: &Form) -> Result<String, ApiError> {
        let known = LISTS.iter().find(|(list, ..)| operation.strip_prefix("Describe") == Some(list));
        let (list, shown, id, parameter) = known.ok_or_else(|| ApiError::new("InvalidAction", "no such action"))?;
        let all = self.0.config.network[*list].as_array().map(Vec::as_slice).unwrap_or_default();
        let asked: Vec<&str> = (1..).map_while(|number| form.text(&format!("{parameter}.{number}"))).collect();
        if let Some(absent) = asked.iter().find(|asked| !all.iter().any(|one| one[*id] == **asked)) {
            let code = format!("Invalid{}ID.NotFound", list.trim_end_matches('s').trim_start_matches("Security"));
            let code = if *list == "Subnets" { "InvalidSubnetID.NotFound".to_owned() } else { code };
            return Err(ApiError::new(code, format!("The ID '{absent}' does not exist")));
        }
        let vpc = (form.text("Filter.1.Name") == Some("vpc-id")).then(|| form.text("Filter.1.Value.1")).flatten();
        let wanted = all.iter().filter(|one| asked.is_empty() || asked.iter().any(|asked| one[*id] == *asked));
        let wanted = wanted.filter(|one| vpc.is_none_or(|vpc| one["VpcId"] == *vpc));
        let items: Vec<_> = wanted.map(|one| format!("<item>{}</item>", members(one))).collect();
        Ok(format!("<{shown}>{}</{shown}>", items.concat()))
    }
}

/// A value of the AWS CLI as EC2 writes it in XML.
fn members(value: &Value) -> String {
    match value {
        Value::Object(parts) => {
            let part = |(name, value): (&String, &Value)| format!("<{0}>{1}</{0}>", name_in_xml(name), members(value));
            parts.iter().map(part).collect::<Vec<_>>().concat()
        }
        Value::Array(items) => {
            items.iter().map(|item| format!("<item>{}</item>", members(item))).collect::<Vec<_>>().concat()
        }
        Value::String(text) => escape_xml(text),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn name_in_xml(name: &str) -> String {
    if let Some((_, known)) = NAMES.iter().find(|(known, _)| *known == name) {
        return (*known).to_owned();
    }
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}
