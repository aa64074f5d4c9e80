//! The decisions and refusals of `tests/fixtures/iam-decisions.json`, which `tests/iam` asks other evaluators too.

mod shipped;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    account: String,
    principals: BTreeMap<String, Caller>,
    decisions: Vec<Decision>,
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Caller {
    arn: String,
    role: Option<String>,
    service: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    name: String,
    /// The rule of AWS that decides.
    rule: String,
    principal: String,
    action: String,
    resource: String,
    #[serde(default)]
    keys: BTreeMap<String, Vec<String>>,
    policies: Given,
    expected: String,
    /// The evaluators that answer otherwise, each with the reason.
    #[serde(default)]
    others: BTreeMap<String, String>,
}

/// Each a whole policy, or the statements of one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    identity: Option<Value>,
    resource: Option<Value>,
    trust: Option<Value>,
    session: Option<Value>,
    boundary: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    name: String,
    kind: String,
    policy: Value,
    words: String,
}

fn table() -> Table {
    serde_json::from_str(include_str!("../../../tests/fixtures/iam-decisions.json")).unwrap()
}

fn kind(name: &str) -> PolicyKind {
    match name {
        "identity" => PolicyKind::Identity,
        "resource" => PolicyKind::Resource,
        "trust" => PolicyKind::Trust,
        "session" => PolicyKind::Session,
        "boundary" => PolicyKind::Boundary,
        _ => panic!("no kind of policy: {name}"),
    }
}

fn document(of: &str, policy: Option<&Value>) -> Option<Document> {
    let policy = match policy? {
        statements @ Value::Array(_) => json!({ "Version": "2012-10-17", "Statement": statements }),
        whole => whole.clone(),
    };
    Some(Document::parse(kind(of), &policy).unwrap_or_else(|error| panic!("{policy}: {error}")))
}

fn decide(table: &Table, decision: &Decision) -> Verdict {
    let caller = &table.principals[&decision.principal];
    let principal = Principal {
        arn: &caller.arn,
        role_arn: caller.role.as_deref(),
        account: &table.account,
        service: caller.service.as_deref(),
    };
    let mut keys = ConditionKeys::default();
    for (name, values) in &decision.keys {
        keys.set(name, values.clone());
    }
    let question = Question { action: &decision.action, resource: &decision.resource, keys: &keys };
    let given = &decision.policies;
    let identity: Vec<_> = document("identity", given.identity.as_ref()).into_iter().collect();
    let resource = document("resource", given.resource.as_ref());
    let trust = document("trust", given.trust.as_ref());
    let session = document("session", given.session.as_ref());
    let boundary = document("boundary", given.boundary.as_ref());
    let policies = Policies {
        identity: &identity,
        resource: resource.as_ref().or(trust.as_ref()),
        session: session.as_ref(),
        boundary: boundary.as_ref(),
        across: false,
    };
    match &trust {
        None => evaluate(&principal, &question, &policies),
        Some(trust) => {
            let verdict = assumes(&principal, &question, &policies);
            let alone = trusts(trust, &principal, &question);
            let by_trust = |verdict: &Verdict| match verdict {
                Verdict::Denied(denial) => denial.policy == PolicyKind::Trust,
                Verdict::Allowed => false,
            };
            assert_eq!(by_trust(&verdict), alone != Verdict::Allowed, "{}: {alone:?}", decision.name);
            verdict
        }
    }
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Allowed => "allowed".to_owned(),
        Verdict::Denied(denial) => {
            let how = if denial.explicit { "explicit" } else { "implicit" };
            format!("{how} {}", format!("{:?}", denial.policy).to_lowercase())
        }
    }
}

#[test]
fn decisions_are_those_of_aws() {
    let table = table();
    let mut names = BTreeSet::new();
    let mut wrong = Vec::new();
    for decision in &table.decisions {
        assert!(names.insert(&decision.name), "`{}` stands twice in the table", decision.name);
        assert!(
            !decision.rule.is_empty() && decision.others.values().all(|reason| !reason.is_empty()),
            "{}",
            decision.name
        );
        let found = words(&decide(&table, decision));
        if found != decision.expected {
            wrong.push(format!("{}: {found}, not {} ({})", decision.name, decision.expected, decision.rule));
        }
    }
    assert!(names.len() >= 60, "{} decisions", names.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn malformed_policies_are_refused_with_words() {
    for Refused { name, kind: of, policy, words } in table().refused {
        match Document::parse(kind(&of), &policy) {
            Ok(_) => panic!("{name}: {policy} was taken"),
            Err(error) => assert!(error.contains(&words), "{name}: {error}"),
        }
    }
}

#[test]
fn a_denial_says_which_kind_of_policy_it_comes_from() {
    let table = table();
    let tail = |name: &str| {
        let decision = table.decisions.iter().find(|decision| decision.name == name).unwrap();
        match decide(&table, decision) {
            Verdict::Denied(denial) => denial.words(),
            Verdict::Allowed => panic!("{name} is allowed"),
        }
    };
    assert_eq!(tail("nothing_allows"), "because no identity-based policy allows the s3:GetObject action");
    assert_eq!(tail("session_policy_limits"), "because no session policy allows the s3:GetObject action");
    assert_eq!(tail("boundary_limits"), "because no permissions boundary allows the s3:GetObject action");
    assert_eq!(tail("trust_missing"), "because no role trust policy allows the sts:AssumeRole action");
    assert_eq!(tail("deny_outweighs"), "with an explicit deny in an identity-based policy");
    assert_eq!(tail("bucket_policy_denies"), "with an explicit deny in a resource-based policy");
    assert_eq!(tail("session_policy_denies"), "with an explicit deny in a session policy");
    assert_eq!(tail("boundary_denies"), "with an explicit deny in a permissions boundary");
    assert_eq!(tail("trust_denies"), "with an explicit deny in the role trust policy");
}

#[test]
fn both_accounts_must_allow_what_crosses_between_them() {
    let arn = "arn:aws:iam::222222222222:role/deployer";
    let session = "arn:aws:sts::222222222222:assumed-role/deployer/one";
    let principal = Principal { arn: session, role_arn: Some(arn), account: "222222222222", service: None };
    let root = Principal { arn: "arn:aws:iam::222222222222:root", role_arn: None, ..principal };
    let keys = ConditionKeys::default();
    let resource = "arn:aws:sagemaker:eu-west-1:111111111111:model-package/fraud/1";
    let question = Question { action: "sagemaker:DescribeModelPackage", resource, keys: &keys };
    let allow = json!({"Effect": "Allow", "Action": "sagemaker:*", "Resource": "*"});
    let theirs = |principal: &str| {
        let mut statement = allow.clone();
        statement["Principal"] = json!({"AWS": principal});
        document("resource", Some(&json!([statement]))).unwrap()
    };
    let own = document("identity", Some(&json!([allow]))).unwrap();
    let ask = |principal: &Principal, theirs: Option<&Document>, own: &[Document]| {
        let policies = Policies { identity: own, resource: theirs, across: true, ..Policies::default() };
        let verdict = words(&evaluate(principal, &question, &policies));
        if let Some(theirs) = theirs {
            assert_eq!(
                words(&assumes(principal, &question, &Policies { resource: Some(theirs), ..policies })),
                verdict
            );
        }
        verdict
    };
    let own = std::slice::from_ref(&own);
    for named in ["222222222222", arn, session, "*"] {
        assert_eq!(ask(&principal, Some(&theirs(named)), own), "allowed", "{named}");
        assert_eq!(ask(&principal, Some(&theirs(named)), &[]), "implicit identity", "{named}");
    }
    assert_eq!(ask(&principal, None, own), "implicit resource");
    assert_eq!(ask(&root, None, &[]), "implicit resource");
    assert_eq!(ask(&root, Some(&theirs("222222222222")), &[]), "allowed");
}

#[test]
fn a_service_needs_the_policy_of_the_resource() {
    let keys = ConditionKeys::default();
    let principal =
        Principal { arn: "", role_arn: None, account: "123456789012", service: Some("sagemaker.amazonaws.com") };
    let question = Question { action: "s3:GetObject", resource: "arn:aws:s3:::ci/x", keys: &keys };
    let bucket = |principal: Value| {
        let statement =
            json!({ "Effect": "Allow", "Principal": principal, "Action": "s3:*", "Resource": "arn:aws:s3:::ci/*" });
        document("resource", Some(&json!([statement]))).unwrap()
    };
    let verdict = |policy: &Document| {
        words(&evaluate(&principal, &question, &Policies { resource: Some(policy), ..Policies::default() }))
    };
    assert_eq!(verdict(&bucket(json!({ "Service": "sagemaker.amazonaws.com" }))), "allowed");
    assert_eq!(verdict(&bucket(json!({ "AWS": "123456789012" }))), "implicit resource");
}
