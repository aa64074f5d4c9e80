//! Policy and trust policy of the role that alone creates training jobs (`aws.creator_role_arn`).

use super::account::Account;
use super::document::{PolicyDocument, PolicyStatement, Principal};
use super::runner_host::OURS;
use super::{creation, session_tag};

/// A session of the role creates the jobs of one session of the executor: the one that its tag names.
pub(super) fn policy(account: &Account<'_>) -> PolicyDocument {
    let session = session_tag::variable(session_tag::SESSION);
    // The first job of a session has the session's id as its name; a later one, the id with a number.
    let jobs = [account.training_job(&session), account.training_job(&format!("{session}-*"))];
    PolicyDocument::of(creation::statements(account, jobs, &session))
}

/// Runner hosts alone assume the role, with all tags and no other.
pub(super) fn trust(account: &Account<'_>) -> PolicyDocument {
    let hosts = |sid, action: &str| {
        let [session, project, protected] = session_tag::ALL.map(|name| format!("aws:RequestTag/{name}"));
        PolicyStatement::allow(sid, action)
            .of(Principal::Aws(account.host_role.into()))
            .when("StringLike", session, OURS)
            .when("StringLike", project, "?*")
            .when("StringEquals", protected, ["true", "false"])
            .when("ForAllValues:StringEquals", "aws:TagKeys", session_tag::ALL)
    };
    PolicyDocument::of([
        hosts("RunnerHostsAssumeTheRole", "sts:AssumeRole").when("StringLike", "sts:RoleSessionName", OURS),
        hosts("RunnerHostsTagTheSession", "sts:TagSession"),
    ])
}
