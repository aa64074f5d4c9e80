//! Policy of the bucket. It only denies: the roles' own policies allow.

use super::account::Account;
use super::document::{PolicyDocument, PolicyStatement, Principal};
use super::own_objects;

pub(super) fn policy(account: &Account<'_>) -> PolicyDocument {
    let deny = |sid, action: &[&str], resource: Vec<String>| {
        PolicyStatement::deny(sid, action).of(Principal::everyone()).on(resource)
    };
    let but_hosts = |statement: PolicyStatement| statement.when("ArnNotEquals", "aws:PrincipalArn", account.host_role);
    let [agents, hosts] = ["agents/*", "hosts/*"].map(|key| account.object(key));
    let whole = vec![account.bucket(), format!("{}/*", account.bucket())];
    let mut statements = vec![
        but_hosts(deny(
            "OnlyRunnerHostsWriteTheAgent",
            &["s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"],
            vec![agents, hosts.clone()],
        )),
        but_hosts(deny("OnlyRunnerHostsReadTheirKey", &["s3:GetObject", "s3:GetObjectVersion"], vec![hosts])),
        deny("NoPlainHttp", &["s3:*"], whole.clone()).when("Bool", "aws:SecureTransport", "false"),
    ];
    statements.extend(own_objects::of_the_bucket(account));
    let endpoints = &account.settings.iam.vpc_endpoint_ids;
    if !endpoints.is_empty() && !account.wall.roles_in_vpc.is_empty() {
        statements.push(
            deny("TrainingJobsOnlyFromTheVpc", &["s3:*"], whole)
                .when("ArnEquals", "aws:PrincipalArn", account.wall.roles_in_vpc.clone())
                .when("StringNotEquals", "aws:SourceVpce", endpoints.clone()),
        );
    }
    PolicyDocument::of(statements)
}
