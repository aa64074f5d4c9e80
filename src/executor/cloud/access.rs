//! The account, and the bucket in it.

/// Where and how to reach AWS. `None` means what the SDK's default chain finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    pub region: Option<String>,
    /// One endpoint for all services (an emulator, path-style S3); AWS's own when `None`.
    pub endpoint_url: Option<String>,
    /// Bucket of everything the executor stores, and the key prefix in it (no leading or trailing slash).
    pub bucket: String,
    pub prefix: String,
    /// KMS key for every object; the bucket's default encryption when `None`.
    pub kms_key_id: Option<String>,
    /// PEM file of extra trusted roots (images without CA files; TLS inspection in a VPC).
    pub ca_bundle: Option<std::path::PathBuf>,
}
