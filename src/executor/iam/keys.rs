//! Permissions on KMS keys, and the policies of the keys themselves.

use super::account::Account;
use super::document::{PolicyDocument, PolicyStatement, Principal};

/// S3 asks for a data key for each object that is written, and decrypts it for each that is read.
pub(super) fn for_the_hosts_objects(account: &Account<'_>, key: String) -> PolicyStatement {
    PolicyStatement::allow("ObjectsOfTheHost", ["kms:GenerateDataKey", "kms:Decrypt"]).on(key).when(
        "StringEquals",
        "kms:ViaService",
        account.via(&["s3"]),
    )
}

/// As the host's; and `kms:Encrypt`, which SageMaker asks of a role with an output key that is named by its id.
pub(super) fn for_the_jobs_objects(account: &Account<'_>, key: String) -> PolicyStatement {
    PolicyStatement::allow("ObjectsOfTrainingJobs", ["kms:GenerateDataKey", "kms:Decrypt", "kms:Encrypt"]).on(key).when(
        "StringEquals",
        "kms:ViaService",
        account.via(&["s3", "sagemaker"]),
    )
}

/// Keys of the buckets of input data and of models, as far as they have keys of their own.
pub(super) fn for_data(account: &Account<'_>) -> impl Iterator<Item = PolicyStatement> {
    let of = |sid: &'static str, actions: &[&str], keys: &[String]| {
        let statement = PolicyStatement::allow(sid, actions).on(keys.to_vec());
        (!keys.is_empty()).then(|| statement.when("StringEquals", "kms:ViaService", account.via(&["s3"])))
    };
    let inputs = of("KeysOfInputData", &["kms:Decrypt"], &account.input_keys);
    // S3 decrypts the parts of an upload.
    let models = of("KeysOfModels", &["kms:GenerateDataKey", "kms:Decrypt"], &account.model_keys);
    inputs.into_iter().chain(models)
}

/// SageMaker makes a grant on the volume's key for EC2, in the name of the creator of the job and of its role.
pub(super) fn for_volumes(account: &Account<'_>, key: String) -> [PolicyStatement; 2] {
    let via = account.via(&["sagemaker", "ec2"]);
    [
        PolicyStatement::allow("GrantsForVolumes", "kms:CreateGrant")
            .on(key.clone())
            .when("Bool", "kms:GrantIsForAWSResource", "true")
            .when("StringEquals", "kms:ViaService", via.clone()),
        PolicyStatement::allow("KeyOfVolumes", "kms:DescribeKey").on(key).when("StringEquals", "kms:ViaService", via),
    ]
}

/// The policies of the keys, by the name of their file; one when both uses have the same key.
pub(super) fn policies(account: &Account<'_>) -> Vec<(&'static str, PolicyDocument)> {
    let (storage, volume) = (account.storage_key.as_deref(), account.volume_key.as_deref());
    let storage_file = storage.map(|key| ("storage-key-policy.json", policy(account, key, true, volume == Some(key))));
    let volume_file = volume
        .filter(|key| storage != Some(*key))
        .map(|key| ("volume-key-policy.json", policy(account, key, false, true)));
    storage_file.into_iter().chain(volume_file).collect()
}

/// Administrators of the account manage the key and, unlike in KMS's default policy, cannot give its use to others by policies
/// of IAM: only the roles named here use it.
fn policy(account: &Account<'_>, key: &str, is_for_objects: bool, is_for_volumes: bool) -> PolicyDocument {
    let mut statements = vec![
        PolicyStatement::allow("AdministratorsManageTheKey", MANAGE).of(Principal::Aws(account.root().into())).on(key),
    ];
    if is_for_objects {
        let jobs = Principal::Aws(account.wall.roles.clone().into());
        statements.extend([
            for_the_hosts_objects(account, key.to_owned()).of(Principal::Aws(account.host_role.into())),
            for_the_jobs_objects(account, key.to_owned()).of(jobs),
        ]);
    }
    if is_for_volumes {
        let mut roles = vec![account.creator_role.unwrap_or(account.host_role).to_owned()];
        roles.extend(account.wall.roles.clone());
        let roles = Principal::Aws(roles.into());
        statements.extend(for_volumes(account, key.to_owned()).map(|statement| statement.of(roles.clone())));
    }
    PolicyDocument::of(statements)
}

/// Actions that manage a key and do not use it.
const MANAGE: [&str; 18] = [
    "kms:CancelKeyDeletion",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:DisableKeyRotation",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:RotateKeyOnDemand",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateKeyDescription",
];
