//! Checks of the network of the jobs: subnets, security groups, and the way to S3.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::account::of_error;
use super::installation::Installation;
use super::report::DoctorFinding;
use crate::cloud::{
    AccountNetworks, CloudError, Network, RouteTableSight, SecurityGroupSight, SubnetSight, VpcEndpointSight,
};

/// Services that scripts, and images in ECR, often need; the executor itself needs S3 alone.
const OTHERS: [&str; 5] = ["sagemaker.api", "logs", "sts", "ecr.api", "ecr.dkr"];

/// All findings about the networks of the rules.
pub(super) async fn check(installation: &Installation<'_>) -> Vec<DoctorFinding> {
    let mut networks: Vec<&Network> = Vec::new();
    for network in installation.bounds.iter().filter_map(|bounds| bounds.network.as_ref()) {
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    if networks.is_empty() {
        return vec![DoctorFinding::ok(
            "network.vpc",
            "",
            "the jobs run outside of a VPC: they reach the internet, and nothing in your networks",
        )];
    }
    let port = match installation.connect.networks(&installation.access).await {
        Ok(port) => port,
        Err(error) => return vec![DoctorFinding::skipped("network.subnet", "", format!("{error:#}"))],
    };
    let mut findings = Vec::new();
    for network in networks {
        findings.extend(of_network(installation, &*port, network).await);
    }
    findings
}

async fn of_network(
    installation: &Installation<'_>,
    port: &dyn AccountNetworks,
    network: &Network,
) -> Vec<DoctorFinding> {
    let mut findings = Vec::new();
    let (mut subnets, mut groups) = (Vec::new(), Vec::new());
    let (of_subnets, of_ids) = tokio::join!(
        join_all(network.subnets.iter().map(|id| installation.within("EC2", port.subnet(id)))),
        join_all(network.security_group_ids.iter().map(|id| installation.within("EC2", port.security_group(id)))),
    );
    for (id, answer) in network.subnets.iter().zip(of_subnets) {
        match found("network.subnet", id, "`job.subnets` or `allow.subnets`", answer) {
            Ok(subnet) => subnets.push(subnet),
            Err(finding) => findings.push(*finding),
        }
    }
    for (id, answer) in network.security_group_ids.iter().zip(of_ids) {
        let setting = "`job.security_group_ids` or `allow.security_group_ids`";
        match found("network.security_group", id, setting, answer) {
            Ok(group) => groups.push(group),
            Err(finding) => findings.push(*finding),
        }
    }
    let missing = findings.first().map(|finding| finding.id);
    findings.extend(of_groups(&groups));
    if let Some(missing) = missing {
        findings.extend(["network.vpc", "network.s3"].map(|id| DoctorFinding::waiting(id, missing)));
        return findings;
    }
    let vpcs: BTreeSet<&str> =
        subnets.iter().map(|subnet| subnet.vpc.as_str()).chain(groups.iter().map(|group| group.vpc.as_str())).collect();
    let [vpc] = vpcs.iter().copied().collect::<Vec<_>>()[..] else {
        let names: Vec<_> = vpcs.into_iter().collect();
        let text = format!("subnets and security groups are of different VPCs: {}", names.join(", "));
        let change = "name subnets and security groups of one VPC: those of a VPC are listed in its console page";
        findings.push(DoctorFinding::failure("network.vpc", network.subnets.join(", "), text, change));
        findings.push(DoctorFinding::waiting("network.s3", "network.vpc"));
        return findings;
    };
    findings.push(DoctorFinding::ok("network.vpc", vpc, "has all subnets and security groups"));
    let (tables, endpoints) = tokio::join!(
        installation.within("EC2", port.route_tables(vpc)),
        installation.within("EC2", port.endpoints(vpc))
    );
    match (tables, endpoints) {
        (Ok(tables), Ok(endpoints)) => {
            findings.extend(subnets.iter().map(|subnet| way_out(subnet, &tables, &endpoints)));
        }
        (Err(error), _) | (_, Err(error)) => findings.push(of_error("network.s3", vpc, &error)),
    }
    findings
}

fn found<T>(
    id: &'static str,
    name: &str,
    setting: &str,
    answer: Result<Option<T>, CloudError>,
) -> Result<T, Box<DoctorFinding>> {
    match answer {
        Ok(Some(found)) => Ok(found),
        Ok(None) => {
            let change = format!("correct {setting} in the operator's file: the id must be of this account and region");
            Err(Box::new(DoctorFinding::failure(id, name, "does not exist in this account and region", change)))
        }
        Err(error) => Err(Box::new(of_error(id, name, &error))),
    }
}

fn of_groups(groups: &[SecurityGroupSight]) -> Vec<DoctorFinding> {
    let closed = groups.iter().all(|group| !group.lets_https_out);
    let finding = |group: &SecurityGroupSight| {
        if closed {
            let text = "lets no connection to port 443 out: the job cannot reach S3, and its script never starts";
            let change = "allow outbound TCP to port 443 in the security group";
            return DoctorFinding::failure("network.security_group", &group.id, text, change);
        }
        DoctorFinding::ok("network.security_group", &group.id, "is there")
    };
    groups.iter().map(finding).collect()
}

/// The way from a subnet to S3, and which other services have one.
fn way_out(subnet: &SubnetSight, tables: &[RouteTableSight], endpoints: &[VpcEndpointSight]) -> DoctorFinding {
    let table = tables
        .iter()
        .find(|table| table.subnets.contains(&subnet.id))
        .or_else(|| tables.iter().find(|table| table.is_main));
    let target = table.and_then(|table| table.default_target.as_deref());
    let leads_to = |service: &str| {
        endpoints.iter().filter(|one| one.is_available && one.service == service).any(|one| {
            if one.is_gateway {
                table.is_some_and(|table| one.route_tables.contains(&table.id))
            } else {
                one.has_private_names
            }
        })
    };
    // Training instances have no public address, so an internet gateway leads them nowhere.
    if let Some(target) = target.filter(|target| !target.starts_with("igw-")) {
        return DoctorFinding::ok("network.s3", &subnet.id, format!("reaches all services by {target}"));
    }
    if leads_to("s3") {
        let closed: Vec<&str> = OTHERS.into_iter().filter(|service| !leads_to(service)).collect();
        let rest = if closed.is_empty() {
            "and SageMaker, logs, STS and ECR too".to_owned()
        } else {
            format!("and not {}: scripts that call these need endpoints for them", closed.join(", "))
        };
        return DoctorFinding::ok("network.s3", &subnet.id, format!("reaches S3 by an endpoint, {rest}"));
    }
    let gateway = if target.is_some() {
        "its default route leads to an internet gateway, and training instances have no public address; "
    } else {
        ""
    };
    DoctorFinding::failure(
        "network.s3",
        &subnet.id,
        format!("has no way to S3: {gateway}no NAT gateway, and no endpoint for S3 that its route table leads to"),
        "add a gateway endpoint for S3 to the route table of the subnet, or an interface endpoint with private DNS names, or a NAT gateway",
    )
}
