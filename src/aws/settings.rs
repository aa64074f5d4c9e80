//! Names of the settings that errors ask to change: keys of the operator's file, or of a project's manifest.

use executor::cloud::SettingsFile;

/// Names in the words of one file.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) region: &'static str,
    pub(super) endpoint: &'static str,
    pub(super) bucket: &'static str,
    pub(super) key: &'static str,
    pub(super) ca_bundle: &'static str,
    /// Advice when there are no credentials.
    pub(super) absent_credentials: &'static str,
    /// Advice when AWS does not accept the credentials.
    pub(super) refused_credentials: &'static str,
}

const OF_OPERATOR: Names = Names {
    region: "`aws.region` in the operator file",
    endpoint: "`aws.endpoint_url`",
    bucket: "`storage.bucket` in the operator file",
    key: "`storage.kms_key_id` in the operator file",
    ca_bundle: "`aws.ca_bundle`",
    absent_credentials: "give the host an instance profile, or set both `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or `AWS_PROFILE` to a \
                         profile that exists, in the environment of the runner's service; in a training container, check that the image \
                         does not set `AWS_CONTAINER_*`",
    refused_credentials: "check the instance profile of the host, or `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`",
};

const OF_MANIFEST: Names = Names {
    region: "`environments.<name>.region` in the manifest, or `AWS_REGION`,",
    endpoint: "`--endpoint-url`",
    bucket: "`environments.<name>.bucket` in the manifest",
    key: "`environments.<name>.key` in the manifest",
    ca_bundle: "`--ca-bundle`",
    absent_credentials: "give the job an id token (`id_tokens:`) and `AWS_ROLE_ARN`, or set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or run \
                         it on a machine with an instance profile",
    refused_credentials: "check the job's variables `AWS_ROLE_ARN`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`",
};

impl Names {
    pub(super) fn of(settings: SettingsFile) -> &'static Self {
        match settings {
            SettingsFile::Operator => &OF_OPERATOR,
            SettingsFile::Manifest => &OF_MANIFEST,
        }
    }
}
