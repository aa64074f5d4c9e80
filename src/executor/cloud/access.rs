//! Access to AWS: region, account, endpoint and bucket.

/// Settings for reaching AWS. `None` leaves the choice to the SDK's default chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    pub region: Option<String>,
    /// One endpoint for all services (an emulator; path-style S3); AWS's own when `None`.
    pub endpoint_url: Option<String>,
    /// The bucket for everything that the executor stores, and the key prefix in it (without leading or trailing
    /// slash).
    pub bucket: String,
    pub prefix: String,
    /// KMS key for every object; the bucket's default encryption when `None`.
    pub kms_key_id: Option<String>,
    /// PEM file of additional root certificates (images without CA files; TLS inspection in a VPC).
    pub ca_bundle: Option<std::path::PathBuf>,
}
