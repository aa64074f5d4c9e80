//! Port of the account's networks, as training jobs in a VPC use them. `aws` and `testing` implement it.

use async_trait::async_trait;

use super::error::CloudError;

/// Networks of the account in the region.
#[async_trait]
pub trait AccountNetworks: Send + Sync {
    /// The subnet of this id; `None` when there is none.
    async fn subnet(&self, id: &str) -> Result<Option<SubnetSight>, CloudError>;
    /// The security group of this id; `None` when there is none.
    async fn security_group(&self, id: &str) -> Result<Option<SecurityGroupSight>, CloudError>;
    /// The route tables of a VPC.
    async fn route_tables(&self, vpc: &str) -> Result<Vec<RouteTableSight>, CloudError>;
    /// The endpoints of a VPC.
    async fn endpoints(&self, vpc: &str) -> Result<Vec<VpcEndpointSight>, CloudError>;
}

/// A subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubnetSight {
    pub id: String,
    pub vpc: String,
}

/// A security group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityGroupSight {
    pub id: String,
    pub vpc: String,
    /// Some rule lets TCP connections to port 443 out.
    pub lets_https_out: bool,
}

/// A route table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteTableSight {
    pub id: String,
    /// Subnets that name it; the others of the VPC use the main one.
    pub subnets: Vec<String>,
    pub is_main: bool,
    /// Target of the route for all addresses, such as `nat-0123`; `None` without one, or when it leads nowhere (`blackhole`).
    pub default_target: Option<String>,
}

/// An endpoint of a VPC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VpcEndpointSight {
    pub id: String,
    /// Name of the service in the region, without the part before the region's name: `s3`, `sagemaker.api`, `ecr.dkr`.
    pub service: String,
    pub is_gateway: bool,
    pub is_available: bool,
    /// Route tables that lead to a gateway.
    pub route_tables: Vec<String>,
    /// The service's usual names lead to the endpoint.
    pub has_private_names: bool,
}
