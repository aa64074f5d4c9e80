//! Policy and trust policy of the training jobs' roles.

use super::account::Account;
use super::document::{OneOrMore, PolicyDocument, PolicyStatement, Principal};
use super::own_keys::{project_keys, session_keys};
use super::runner_host::OURS;
use super::{data, images, keys, own_objects, remote_debug, session_tag};

/// The same for all roles: without a creator, jobs are kept apart by the places of their sessions; with it, by tags.
pub(super) fn policy(account: &Account<'_>) -> PolicyDocument {
    let mut statements = match account.creator_role {
        Some(_) => by_tags(account),
        None => by_places(account),
    };
    statements.extend([
        PolicyStatement::allow("LogGroup", ["logs:CreateLogGroup", "logs:DescribeLogStreams"]).on(account.log_group()),
        PolicyStatement::allow("InstanceMetrics", "cloudwatch:PutMetricData").on("*").when(
            "StringEquals",
            "cloudwatch:namespace",
            "/aws/sagemaker/TrainingJobs",
        ),
        PolicyStatement::allow("RegistryLogin", "ecr:GetAuthorizationToken").on("*"),
    ]);
    statements.extend(data::of_the_job(account));
    statements.extend(own_objects::of_the_job(account));
    let repositories = images::repositories(account);
    if !repositories.is_empty() {
        statements.push(
            PolicyStatement::allow(
                "TrainingImages",
                ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
            )
            .on(repositories),
        );
    }
    statements.extend(account.wall.has_remote_debug.then(remote_debug::of_the_container));
    if !account.wall.subnets.is_empty() {
        statements.extend(interfaces(account));
    }
    statements.extend(account.storage_key.clone().map(|key| keys::for_the_jobs_objects(account, key)));
    statements.extend(keys::for_data(account));
    statements.extend(account.volume_key.clone().into_iter().flat_map(|key| keys::for_volumes(account, key)));
    PolicyDocument::of(statements)
}

/// SageMaker assumes the role, for jobs of this account and region alone.
pub(super) fn trust(account: &Account<'_>) -> PolicyDocument {
    let Account { partition, region, id, .. } = account;
    let service = |sid, action: &str| {
        PolicyStatement::allow(sid, action)
            .of(Principal::Service("sagemaker.amazonaws.com"))
            .when("StringEquals", "aws:SourceAccount", *id)
            .when("ArnLike", "aws:SourceArn", format!("arn:{partition}:sagemaker:{region}:{id}:*"))
    };
    let mut statements = vec![service("SageMakerAssumesTheRole", "sts:AssumeRole")];
    if account.creator_role.is_some() {
        statements.push(service("SageMakerTagsTheSession", "sts:TagSession"));
    }
    PolicyDocument::of(statements)
}

const READ_AND_WRITE: [&str; 3] = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"];

fn by_places(account: &Account<'_>) -> Vec<PolicyStatement> {
    let place = session_keys(account);
    vec![
        PolicyStatement::allow("AgentChannelAndProjects", "s3:GetObject")
            .on([account.object("agents/*"), account.object(&project_keys(account))]),
        PolicyStatement::allow("SessionsWhosePlaceIsKnown", READ_AND_WRITE).on(account.object(&place)),
        names("NamesWhosePlaceIsKnown", account, &place),
        streams(account.log_stream(OURS)),
    ]
}

fn by_tags(account: &Account<'_>) -> Vec<PolicyStatement> {
    let session = session_tag::variable(session_tag::SESSION);
    let own = session_keys(account);
    // A missing tag leaves nothing to match above; these hold against other policies of the role.
    let nothing_without = |sid, tag| {
        PolicyStatement::deny(sid, "s3:*").on([account.bucket(), format!("{}/*", account.bucket())]).when(
            "Null",
            format!("aws:PrincipalTag/{tag}"),
            "true",
        )
    };
    // One statement with the agent, because linters misread a variable in the only resource of an `Allow`. So writing beside the
    // session is denied, which also holds against other policies of the role.
    let [agents, projects] = ["agents/*", "projects/*"].map(|key| account.object(key));
    vec![
        PolicyStatement::allow("AgentChannelAndOwnObjects", READ_AND_WRITE).on([
            agents.clone(),
            account.object(&project_keys(account)),
            account.object(&own),
        ]),
        PolicyStatement::deny("NoWritingBesideTheSession", &READ_AND_WRITE[1..]).on([agents, projects]),
        names("NamesOfOwnSession", account, &own),
        streams(["/*", "-*/*"].map(|end| account.log_stream(&format!("{session}{end}")))),
        nothing_without("NothingWithoutASession", session_tag::SESSION),
        nothing_without("NothingWithoutAProject", session_tag::PROJECT),
    ]
}

/// Listing; SageMaker lists the channel with this role.
fn names(sid: &'static str, account: &Account<'_>, sessions: &str) -> PolicyStatement {
    PolicyStatement::allow(sid, "s3:ListBucket").on(account.bucket()).when(
        "StringLike",
        "s3:prefix",
        ["agents/*", sessions].map(|key| account.key_in_bucket(key)),
    )
}

fn streams(streams: impl Into<OneOrMore>) -> PolicyStatement {
    PolicyStatement::allow("OwnLogStreams", ["logs:CreateLogStream", "logs:PutLogEvents"]).on(streams)
}

/// SageMaker makes network interfaces in the VPC in the name of the role.
fn interfaces(account: &Account<'_>) -> [PolicyStatement; 3] {
    let wall = account.wall;
    let mut places = vec![account.ec2("network-interface/*")];
    places.extend(wall.subnets.iter().map(|id| account.ec2(&format!("subnet/{id}"))));
    places.extend(wall.security_group_ids.iter().map(|id| account.ec2(&format!("security-group/{id}"))));
    [
        PolicyStatement::allow("InterfacesInTheVpc", "ec2:CreateNetworkInterface").on(places),
        PolicyStatement::allow(
            "InterfacesOfTheJob",
            [
                "ec2:CreateNetworkInterfacePermission",
                "ec2:DeleteNetworkInterface",
                "ec2:DeleteNetworkInterfacePermission",
            ],
        )
        .on(account.ec2("network-interface/*")),
        PolicyStatement::allow(
            "NamesInTheVpc",
            [
                "ec2:DescribeDhcpOptions",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
            ],
        )
        .on("*"),
    ]
}
