//! Policy and trust policy of the role that alone creates training jobs (`aws.creator_role_arn`).

use super::account::Account;
use super::document::{PolicyDocument, PolicyStatement, Principal};
use super::runner_host::OURS;
use super::{creation, session_tag};

/// A session of the role creates the jobs of one session of the executor: the one that its tag names.
///
/// The names of these jobs stand in a `Deny`, because linters misread a variable in the resource of an `Allow`.
pub(super) fn policy(account: &Account<'_>) -> PolicyDocument {
    let session = session_tag::variable(session_tag::SESSION);
    // The first job of a session has the session's id as its name; a later one, the id with a number.
    let mut own = vec![account.training_job(&session), account.training_job(&format!("{session}-*"))];
    own.extend(creation::plans(account));
    let mut statements = creation::statements(account, account.training_job(OURS), &session);
    statements.push(PolicyStatement::deny("NoJobsOfOtherSessions", creation::ACTIONS).on_all_but(own));
    PolicyDocument::of(statements)
}

/// Runner hosts alone assume the role, with all tags and no other.
pub(super) fn trust(account: &Account<'_>) -> PolicyDocument {
    let hosts = |sid, action: &str| {
        let [session, project, protected] = [session_tag::SESSION, session_tag::PROJECT, session_tag::PROTECTED]
            .map(|name| format!("aws:RequestTag/{name}"));
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
