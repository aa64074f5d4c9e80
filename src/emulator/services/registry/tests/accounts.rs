//! Callers of two accounts: records of each, policies of groups, and what the caller's own policies must allow.

use super::*;
use crate::authorization::{Identity, RoleSession};

const OWN: &str = "000000000000";
const OTHER: &str = "222222222222";

/// The output of `aws iam get-account-authorization-details` for an account with these roles.
fn account(id: &str, roles: &[(&str, Value)]) -> Value {
    let role = |(name, statements): &(&str, Value)| {
        let policy = json!({"Version": "2012-10-17", "Statement": statements});
        json!({"RoleName": name, "RoleId": format!("AROA{name}"), "Arn": format!("arn:aws:iam::{id}:role/{name}"),
            "RolePolicyList": [{"PolicyName": "own", "PolicyDocument": policy}]})
    };
    json!({"RoleDetailList": roles.iter().map(role).collect::<Vec<_>>()})
}

fn allow(actions: &[&str]) -> Value {
    json!({"Effect": "Allow", "Action": actions, "Resource": "*"})
}

/// The own account has a role `owner`, which may do everything; the other one has roles that may read, create, and do nothing.
fn desk() -> Desk {
    let pending = json!({"StringEquals": {"sagemaker:ModelApprovalStatus": "PendingManualApproval"}});
    let mut create = allow(&["sagemaker:CreateModelPackage"]);
    create["Condition"] = pending;
    Desk::with(|config| {
        config.iam = vec![
            account(OWN, &[("owner", json!([allow(&["sagemaker:*"])]))]),
            account(
                OTHER,
                &[
                    (
                        "reader",
                        json!([allow(&[
                            "sagemaker:Describe*",
                            "sagemaker:List*",
                            "sagemaker:CreateModelPackageGroup"
                        ])]),
                    ),
                    ("creator", json!([create, allow(&["sagemaker:DescribeModelPackage"])])),
                    ("nobody", json!([])),
                ],
            ),
        ];
    })
}

impl Desk {
    fn of(&self, account: &str, role: &str) -> Self {
        let session = RoleSession::new(&format!("arn:aws:iam::{account}:role/{role}"), "AROA", "ci");
        let identity = Arc::new(Identity::Session(session));
        let caller = Caller { identity, account: account.to_owned(), region: "us-east-1".to_owned() };
        Self { registry: Arc::clone(&self.registry), caller }
    }

    /// Opens a group of the own account to the other one.
    fn share(&self, group: &str, actions: &[&str]) {
        let arn = |kind: &str| format!("arn:aws:sagemaker:us-east-1:{OWN}:{kind}");
        let statement = json!({"Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{OTHER}:root")}, "Action": actions,
            "Resource": [arn(&format!("model-package-group/{group}")), arn(&format!("model-package/{group}/*"))]});
        let policy = json!({"Version": "2012-10-17", "Statement": [statement]}).to_string();
        self.call("PutModelPackageGroupPolicy", json!({"ModelPackageGroupName": group, "ResourcePolicy": policy}));
    }
}

fn denied(error: &ApiError, words: &str) -> bool {
    error.code == "AccessDeniedException" && error.message.contains(words)
}

const NO_RESOURCE_POLICY: &str = "because no resource-based policy allows";
const NO_IDENTITY_POLICY: &str = "because no identity-based policy allows";

#[test]
fn each_account_has_records_of_its_own() {
    let desk = desk();
    let (owner, reader) = (desk.of(OWN, "owner"), desk.of(OTHER, "reader"));
    owner.group("fraud");
    assert_eq!(reader.group("fraud"), format!("arn:aws:sagemaker:us-east-1:{OTHER}:model-package-group/fraud"));
    owner.create(version("fraud"));
    assert_eq!(reader.listed("ListModelPackages", json!({"ModelPackageGroupName": "fraud"})).len(), 0);
    let error = reader.refused("DescribeModelPackage", json!({"ModelPackageName": "fraud/1"}));
    assert_eq!(
        error.message,
        format!("ModelPackage arn:aws:sagemaker:us-east-1:{OTHER}:model-package/fraud/1 does not exist.")
    );
}

#[test]
fn a_group_is_read_by_another_account_when_both_allow_it() {
    let desk = desk();
    let (owner, reader, nobody) = (desk.of(OWN, "owner"), desk.of(OTHER, "reader"), desk.of(OTHER, "nobody"));
    let group = json!({"ModelPackageGroupName": owner.group("fraud")});
    let package = json!({"ModelPackageName": owner.create(version("fraud"))});
    owner.group("secret");
    assert!(denied(&reader.refused("DescribeModelPackageGroup", group.clone()), NO_RESOURCE_POLICY));
    owner.share("fraud", &["sagemaker:DescribeModelPackage", "sagemaker:DescribeModelPackageGroup"]);
    assert_eq!(reader.call("DescribeModelPackageGroup", group.clone())["ModelPackageGroupName"], "fraud");
    assert_eq!(reader.call("DescribeModelPackage", package.clone())["ModelPackageVersion"], 1);
    assert!(denied(&nobody.refused("DescribeModelPackage", package.clone()), NO_IDENTITY_POLICY));
    assert!(denied(&reader.refused("ListModelPackages", group.clone()), NO_RESOURCE_POLICY));
    let shared =
        |desk: &Desk| desk.listed("ListModelPackageGroups", json!({"CrossAccountFilterOption": "CrossAccount"}));
    assert_eq!(shared(&reader), ["model-package-group/fraud"]);
    assert_eq!(reader.listed("ListModelPackageGroups", json!({})).len(), 0);
    assert_eq!(owner.listed("ListModelPackageGroups", json!({})).len(), 2);
    owner.call("DeleteModelPackageGroupPolicy", json!({"ModelPackageGroupName": "fraud"}));
    assert!(denied(&reader.refused("DescribeModelPackage", package), NO_RESOURCE_POLICY));
    assert_eq!(shared(&reader).len(), 0);
}

#[test]
fn another_account_adds_a_version_to_a_group_and_copies_one() {
    let desk = desk();
    let (owner, creator) = (desk.of(OWN, "owner"), desk.of(OTHER, "creator"));
    let group = owner.group("fraud");
    let request = with(version(&group), "ModelApprovalStatus", json!("PendingManualApproval"));
    assert!(denied(&creator.refused("CreateModelPackage", request.clone()), NO_RESOURCE_POLICY));
    owner.share("fraud", &["sagemaker:CreateModelPackage"]);
    let approved = with(request.clone(), "ModelApprovalStatus", json!("Approved"));
    assert!(denied(&creator.refused("CreateModelPackage", approved), NO_IDENTITY_POLICY), "by its condition");
    let arn = creator.create(request);
    assert_eq!(arn, format!("arn:aws:sagemaker:us-east-1:{OWN}:model-package/fraud/1"));
    let created_by = owner.describe("fraud/1")["CreatedBy"]["IamIdentity"].clone();
    assert_eq!(
        created_by,
        json!({"Arn": format!("arn:aws:sts::{OTHER}:assumed-role/creator/ci"), "PrincipalId": "AROA:ci"})
    );
    let copy =
        json!({"ModelPackageGroupName": "own", "SourceUri": arn, "ModelApprovalStatus": "PendingManualApproval"});
    assert!(denied(&creator.refused("CreateModelPackage", copy.clone()), NO_RESOURCE_POLICY));
    owner.share("fraud", &["sagemaker:DescribeModelPackage"]);
    desk.of(OTHER, "reader").group("own");
    assert_eq!(creator.create(copy), format!("arn:aws:sagemaker:us-east-1:{OTHER}:model-package/own/1"));
}

#[test]
fn conditions_see_tags_approval_and_metadata() {
    let condition = |actions: &[&str], operator: &str, key: &str, value: &str| {
        let mut statement = allow(actions);
        statement["Condition"] = json!({operator: {key: value}});
        statement
    };
    let deny = |mut statement: Value| {
        statement["Effect"] = json!("Deny");
        statement
    };
    let update = ["sagemaker:UpdateModelPackage"];
    let desk = Desk::with(|config| {
        let maker = json!([allow(&["sagemaker:CreateModelPackageGroup", "sagemaker:CreateModelPackage"])]);
        let tagged = json!([condition(&["sagemaker:Describe*"], "StringEquals", "aws:ResourceTag/project", "fraud")]);
        let metadata = json!([
            condition(&update, "StringEquals", "sagemaker:CustomerMetadataProperties/stage", "dev"),
            condition(&update, "StringEquals", "sagemaker:ModelLifeCycle:stage", "dev"),
            deny(condition(
                &update,
                "ForAnyValue:StringEquals",
                "sagemaker:CustomerMetadataPropertiesToRemove",
                "commit"
            )),
            deny(condition(&update, "StringEquals", "sagemaker:ModelApprovalStatus", "Approved")),
        ]);
        config.iam = vec![account(OWN, &[("maker", maker), ("tagged", tagged), ("metadata", metadata)])];
    });
    let (maker, tagged, metadata) = (desk.of(OWN, "maker"), desk.of(OWN, "tagged"), desk.of(OWN, "metadata"));
    let tags = json!([{"Key": "project", "Value": "fraud"}]);
    for request in
        [json!({"ModelPackageGroupName": "fraud", "Tags": tags}), json!({"ModelPackageName": "alone", "Tags": tags})]
    {
        let operation =
            if request.get("ModelPackageName").is_some() { "CreateModelPackage" } else { "CreateModelPackageGroup" };
        assert!(denied(&maker.refused(operation, request.clone()), "sagemaker:AddTags"), "{request}");
        desk.call(operation, request);
    }
    maker.group("other");
    let (version_of, other) = (maker.create(version("fraud")), maker.create(version("other")));
    for name in [version_of.as_str(), "alone"] {
        tagged.describe(name);
    }
    assert!(denied(&tagged.refused("DescribeModelPackage", json!({"ModelPackageName": other})), NO_IDENTITY_POLICY));
    let updated = |name: &str, value: Value| {
        let request = json!({"ModelPackageArn": version_of, "CustomerMetadataProperties": {"stage": "dev"}});
        metadata.ask("UpdateModelPackage", &with(request, name, value)).is_ok()
    };
    assert!(updated("CustomerMetadataPropertiesToRemove", json!(["other"])));
    assert!(!updated("CustomerMetadataPropertiesToRemove", json!(["other", "commit"])));
    assert!(!updated("ModelApprovalStatus", json!("Approved")));
    assert!(!updated("CustomerMetadataProperties", json!({"stage": "prod"})));
    let stage =
        |stage: &str| json!({"ModelPackageArn": version_of, "ModelLifeCycle": {"Stage": stage, "StageStatus": "x"}});
    assert!(metadata.ask("UpdateModelPackage", &stage("dev")).is_ok());
    assert!(metadata.ask("UpdateModelPackage", &stage("prod")).is_err());
}
