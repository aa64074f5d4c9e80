//! Networks of the account: read calls of EC2's query protocol.

use std::sync::Arc;

use async_trait::async_trait;
use executor::cloud::{
    AccountNetworks, CloudError, CloudErrorKind, RouteTableSight, SecurityGroupSight, SubnetSight, VpcEndpointSight,
};

use super::clients::Clients;
use super::signed::{self, SignedRequest};
use super::xml::Element;

const VERSION: &str = "2016-11-15";
const ALL_ADDRESSES: &str = "0.0.0.0/0";
const HTTPS: u16 = 443;

#[derive(Debug)]
pub(super) struct AwsNetworks {
    clients: Arc<Clients>,
}

impl AwsNetworks {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }

    /// The items of a list in the answer; `None` when EC2 knows no such id.
    async fn list(
        &self,
        what: String,
        (action, permission): (&str, &'static str),
        (name, value): (&str, &str),
        list: &str,
    ) -> Result<Option<Vec<Element>>, CloudError> {
        let call = self.clients.call("look at", what, permission);
        let filter = if name == "vpc-id" {
            format!("Filter.1.Name=vpc-id&Filter.1.Value.1={}", urlencoding::encode(value))
        } else {
            format!("{name}={}", urlencoding::encode(value))
        };
        let request = SignedRequest {
            service: "ec2",
            content_type: "application/x-www-form-urlencoded; charset=utf-8",
            target: None,
            body: format!("Action={action}&Version={VERSION}&{filter}"),
        };
        let reply = signed::post(&self.clients, &call, &request).await?;
        let root = Element::parse(&reply.body).ok_or_else(|| {
            call.error(CloudErrorKind::Other, format!("the reply is not one that AWS sends (HTTP {})", reply.status))
        })?;
        if reply.status == 200 {
            let list = root.child(list).filter(|_| root.name == format!("{action}Response"));
            let list = list.ok_or_else(|| call.error(CloudErrorKind::Other, "the reply is not one that AWS sends"))?;
            return Ok(Some(list.children.clone()));
        }
        let error = root.child("Errors").and_then(|errors| errors.child("Error")).unwrap_or(&root);
        let code = error.text_of("Code");
        if code.ends_with(".NotFound") || code.ends_with(".Malformed") {
            return Ok(None);
        }
        Err(call.refused(Some(code), Some(reply.status), error.text_of("Message")))
    }
}

#[async_trait]
impl AccountNetworks for AwsNetworks {
    async fn subnet(&self, id: &str) -> Result<Option<SubnetSight>, CloudError> {
        let action = ("DescribeSubnets", "ec2:DescribeSubnets");
        let found = self.list(format!("the subnet {id}"), action, ("SubnetId.1", id), "subnetSet").await?;
        Ok(found.and_then(|found| found.first().map(subnet)))
    }

    async fn security_group(&self, id: &str) -> Result<Option<SecurityGroupSight>, CloudError> {
        let action = ("DescribeSecurityGroups", "ec2:DescribeSecurityGroups");
        let found =
            self.list(format!("the security group {id}"), action, ("GroupId.1", id), "securityGroupInfo").await?;
        Ok(found.and_then(|found| found.first().map(security_group)))
    }

    async fn route_tables(&self, vpc: &str) -> Result<Vec<RouteTableSight>, CloudError> {
        let action = ("DescribeRouteTables", "ec2:DescribeRouteTables");
        let found = self.list(format!("the route tables of {vpc}"), action, ("vpc-id", vpc), "routeTableSet").await?;
        Ok(found.unwrap_or_default().iter().map(route_table).collect())
    }

    async fn endpoints(&self, vpc: &str) -> Result<Vec<VpcEndpointSight>, CloudError> {
        let action = ("DescribeVpcEndpoints", "ec2:DescribeVpcEndpoints");
        let found = self.list(format!("the endpoints of {vpc}"), action, ("vpc-id", vpc), "vpcEndpointSet").await?;
        let region = self.clients.config().region().map(ToString::to_string).unwrap_or_default();
        Ok(found.unwrap_or_default().iter().map(|found| vpc_endpoint(found, &region)).collect())
    }
}

fn subnet(found: &Element) -> SubnetSight {
    SubnetSight { id: found.text_of("subnetId").to_owned(), vpc: found.text_of("vpcId").to_owned() }
}

fn security_group(found: &Element) -> SecurityGroupSight {
    let lets_out = |rule: &Element| {
        let port = |name: &str| rule.text_of(name).parse::<i32>().ok();
        let protocol = rule.text_of("ipProtocol");
        let is_within = port("fromPort") <= Some(HTTPS.into()) && port("toPort") >= Some(HTTPS.into());
        protocol == "-1" || (["tcp", "6"].contains(&protocol) && is_within)
    };
    SecurityGroupSight {
        id: found.text_of("groupId").to_owned(),
        vpc: found.text_of("vpcId").to_owned(),
        lets_https_out: found.items("ipPermissionsEgress").any(lets_out),
    }
}

fn route_table(found: &Element) -> RouteTableSight {
    let default = found
        .items("routeSet")
        .find(|route| route.text_of("destinationCidrBlock") == ALL_ADDRESSES && route.text_of("state") == "active");
    let targets = [
        "natGatewayId",
        "transitGatewayId",
        "gatewayId",
        "networkInterfaceId",
        "instanceId",
        "vpcPeeringConnectionId",
        "localGatewayId",
        "coreNetworkArn",
    ];
    let target =
        |route: &Element| targets.map(|name| route.text_of(name).to_owned()).into_iter().find(|id| !id.is_empty());
    RouteTableSight {
        id: found.text_of("routeTableId").to_owned(),
        subnets: found
            .items("associationSet")
            .map(|one| one.text_of("subnetId").to_owned())
            .filter(|id| !id.is_empty())
            .collect(),
        is_main: found.items("associationSet").any(|one| one.text_of("main") == "true"),
        default_target: default.and_then(target),
    }
}

fn vpc_endpoint(found: &Element, region: &str) -> VpcEndpointSight {
    let name = found.text_of("serviceName");
    // `com.amazonaws.REGION.SERVICE`, in China with another beginning.
    let service = name.split_once(&format!(".{region}.")).map_or(name, |(_, service)| service);
    VpcEndpointSight {
        id: found.text_of("vpcEndpointId").to_owned(),
        service: service.to_owned(),
        is_gateway: found.text_of("vpcEndpointType").eq_ignore_ascii_case("gateway"),
        is_available: found.text_of("state").eq_ignore_ascii_case("available"),
        route_tables: found.items("routeTableIdSet").map(|id| id.text.clone()).collect(),
        has_private_names: found.text_of("privateDnsEnabled") == "true",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub::{Stub, reply};

    const ENDPOINTS: &str = "<DescribeVpcEndpointsResponse><vpcEndpointSet><item><vpcEndpointId>vpce-1</vpcEndpointId>\
        <vpcEndpointType>Gateway</vpcEndpointType><serviceName>com.amazonaws.eu-west-1.s3</serviceName><state>available</state>\
        <routeTableIdSet><item>rtb-1</item><item>rtb-2</item></routeTableIdSet></item></vpcEndpointSet></DescribeVpcEndpointsResponse>";
    const GROUP: &str = "<DescribeSecurityGroupsResponse><securityGroupInfo><item><groupId>sg-1</groupId><vpcId>vpc-1</vpcId>\
        <ipPermissionsEgress><item><ipProtocol>tcp</ipProtocol><fromPort>80</fromPort><toPort>80</toPort></item></ipPermissionsEgress>\
        </item></securityGroupInfo></DescribeSecurityGroupsResponse>";
    const TABLES: &str = "<DescribeRouteTablesResponse><routeTableSet><item><routeTableId>rtb-1</routeTableId><routeSet>\
        <item><destinationCidrBlock>10.0.0.0/16</destinationCidrBlock><gatewayId>local</gatewayId><state>active</state></item>\
        <item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock><natGatewayId>nat-1</natGatewayId><state>active</state></item></routeSet>\
        <associationSet><item><main>true</main></item><item><subnetId>subnet-1</subnetId></item></associationSet></item></routeTableSet>\
        </DescribeRouteTablesResponse>";

    #[tokio::test]
    async fn the_answers_of_ec2_are_read_and_the_requests_signed() {
        let stub = Stub::start().await;
        for body in [ENDPOINTS, GROUP, TABLES] {
            stub.push(reply(200, body));
        }
        let networks = AwsNetworks::new(Arc::clone(&stub.clients));
        let [endpoint] = networks.endpoints("vpc-1").await.unwrap().try_into().unwrap();
        assert_eq!((endpoint.service.as_str(), endpoint.is_gateway), ("s3", true));
        assert_eq!(endpoint.route_tables, ["rtb-1", "rtb-2"]);
        assert!(!networks.security_group("sg-1").await.unwrap().unwrap().lets_https_out);
        let [table] = networks.route_tables("vpc-1").await.unwrap().try_into().unwrap();
        assert_eq!((table.default_target.as_deref(), table.is_main), (Some("nat-1"), true));
        assert_eq!(table.subnets, ["subnet-1"]);
        let seen = stub.seen();
        assert!(seen.iter().all(|one| one.method == "POST" && one.uri == "/"));
        let authorization = seen[0].authorization.as_ref().unwrap();
        assert!(authorization.contains("/eu-west-1/ec2/aws4_request"), "{authorization}");
        let body = String::from_utf8(seen[0].body.clone()).unwrap();
        assert_eq!(body, "Action=DescribeVpcEndpoints&Version=2016-11-15&Filter.1.Name=vpc-id&Filter.1.Value.1=vpc-1");
    }

    #[tokio::test]
    async fn an_absent_subnet_is_no_error_and_a_denial_is_one() {
        let stub = Stub::start().await;
        let refusal = |code: &str| {
            format!("<Response><Errors><Error><Code>{code}</Code><Message>m</Message></Error></Errors></Response>")
        };
        stub.push(reply(400, refusal("InvalidSubnetID.NotFound")));
        stub.push(reply(403, refusal("UnauthorizedOperation")));
        stub.push(reply(400, "not XML"));
        stub.push(reply(200, "<html><body>log in</body></html>"));
        let networks = AwsNetworks::new(Arc::clone(&stub.clients));
        assert_eq!(networks.subnet("subnet-1").await.unwrap(), None);
        let error = networks.subnet("subnet-1").await.unwrap_err();
        assert_eq!((error.kind, error.action), (CloudErrorKind::Denied, "ec2:DescribeSubnets"));
        for _ in 0..2 {
            assert_eq!(networks.subnet("subnet-1").await.unwrap_err().kind, CloudErrorKind::Other);
        }
    }
}
