//! A request with its condition keys, and the names that a policy may ask for.

use std::collections::BTreeMap;

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// `s3:GetObject`
    pub(crate) action: &'a str,
    /// An ARN, or `*` for an action that is about no resource.
    pub(crate) resource: &'a str,
    pub(crate) keys: &'a ConditionKeys,
}

/// Condition keys of one request. Names are not case-sensitive, those of tags neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ConditionKeys(BTreeMap<String, Vec<String>>);

impl ConditionKeys {
    /// Sets a key to its values. A key without a value counts as absent.
    pub(crate) fn set<T: Into<String>>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        self.0.insert(name.to_lowercase(), values.into_iter().map(Into::into).collect());
    }

    /// The values of a key; none when it is absent.
    pub(super) fn values(&self, name: &str) -> &[String] {
        self.0.get(&name.to_lowercase()).map_or(&[], Vec::as_slice)
    }
}

/// Keys with at most one value. A name that ends with `/` stands for all tags below it.
const SINGLE: &[&str] = &[
    "application-autoscaling:scalable-dimension",
    "application-autoscaling:service-namespace",
    "aws:currenttime",
    "aws:epochtime",
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principalisawsservice",
    "aws:principalservicename",
    "aws:principaltag/",
    "aws:principaltype",
    "aws:requestedregion",
    "aws:requesttag/",
    "aws:resourceaccount",
    "aws:resourcetag/",
    "aws:securetransport",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:sourceip",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:userid",
    "aws:username",
    "aws:viaawsservice",
    "aws:vpcsourceip",
    "cloudwatch:namespace",
    "cloudwatch:resourcetag/",
    "iam:associatedresourcearn",
    "iam:awsservicename",
    "iam:passedtoservice",
    "kms:calleraccount",
    "kms:grantisforawsresource",
    "kms:viaservice",
    "s3:delimiter",
    "s3:max-keys",
    "s3:prefix",
    "s3:versionid",
    "s3:x-amz-acl",
    "s3:x-amz-copy-source",
    "s3:x-amz-server-side-encryption",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
    "s3:x-amz-storage-class",
    "sagemaker:customermetadataproperties/",
    "sagemaker:enableremotedebug",
    "sagemaker:intercontainertrafficencryption",
    "sagemaker:keepaliveperiod",
    "sagemaker:maxruntimeinseconds",
    "sagemaker:modelapprovalstatus",
    "sagemaker:modellifecycle:stage",
    "sagemaker:modellifecycle:stagestatus",
    "sagemaker:networkisolation",
    "sagemaker:outputkmskey",
    "sagemaker:resourcetag/",
    "sagemaker:taggingaction",
    "sagemaker:volumekmskey",
    "secretsmanager:name",
    "secretsmanager:resourcetag/",
    "secretsmanager:secretid",
    "secretsmanager:versionid",
    "secretsmanager:versionstage",
    "sts:externalid",
    "sts:rolesessionname",
];
/// Keys with any number of values.
const MULTIPLE: &[&str] = &[
    "aws:calledvia",
    "aws:tagkeys",
    "sagemaker:customermetadatapropertiestoremove",
    "sagemaker:instancetypes",
    "sagemaker:vpcsecuritygroupids",
    "sagemaker:vpcsubnets",
    "sts:transitivetagkeys",
];

/// Whether a key can have several values; `None` for a key that the emulator does not know.
pub(super) fn takes_many(name: &str) -> Option<bool> {
    let name = name.to_lowercase();
    let is = |known: &str| match known.strip_suffix('/') {
        Some(_) => name.strip_prefix(known).is_some_and(|tag| !tag.is_empty()),
        None => name == known,
    };
    if MULTIPLE.iter().any(|known| is(known)) {
        return Some(true);
    }
    // Claims of a token begin with the address of its issuer, which has a dot unlike the names of services.
    let claim =
        name.rsplit_once(':').is_some_and(|(issuer, claim)| issuer.contains('.') && ["aud", "sub"].contains(&claim));
    (claim || SINGLE.iter().any(|known| is(known))).then_some(false)
}
