//! Access to AWS: region, account, endpoint and bucket.

use std::fmt;

/// Settings for reaching AWS. `None` leaves the choice to the SDK's default chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    pub region: Option<String>,
    /// One endpoint for all services (an emulator; path-style S3); AWS's own when `None`.
    pub endpoint_url: Option<String>,
    /// The kind of AWS's own endpoints.
    pub endpoints: EndpointKind,
    /// The bucket for everything that the executor stores, and the key prefix in it (without leading or trailing
    /// slash).
    pub bucket: String,
    pub prefix: String,
    /// KMS key for every object; the bucket's default encryption when `None`.
    pub kms_key_id: Option<String>,
    /// PEM file of additional root certificates (images without CA files; TLS inspection in a VPC).
    pub ca_bundle: Option<std::path::PathBuf>,
    /// The file that holds these settings: errors name its keys.
    pub settings: SettingsFile,
    /// Credentials come from this token, in place of the SDK's default chain.
    pub web_identity: Option<WebIdentity>,
    /// No variable and no profile names a server or its certificate authorities: who starts a pipeline can set them. A role by a token is
    /// always reached so.
    pub fixed_servers: bool,
    /// A deletion is sent once, without the SDK's retries: what it deletes may be in use at the next attempt. Reads are repeated.
    pub deletes_once: bool,
    /// Most attempts of a call that is repeated; the usual number when `None`.
    pub attempts: Option<u32>,
}

/// A kind of AWS's endpoints. The SDK knows their names in each partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointKind {
    /// Their cryptography is validated by FIPS 140.
    pub fips: bool,
    /// They have IPv6 addresses, too.
    pub dual_stack: bool,
}

/// A file with settings for reaching AWS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SettingsFile {
    /// The operator's file, of a runner host.
    #[default]
    Operator,
    /// A project's manifest, of an ordinary CI job.
    Manifest,
}

/// A token of an identity provider, to be exchanged for credentials of a role.
#[derive(Clone, PartialEq, Eq)]
pub struct WebIdentity {
    pub role_arn: String,
    pub token: String,
    /// Name of the session in logs of AWS: 2 to 64 letters, digits and `_+=,.@-`.
    pub session_name: String,
    /// For messages.
    pub claims: TokenClaims,
}

/// The claims by which AWS decides on a token, as printable text. Nobody has checked them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenClaims {
    /// `https://gitlab.example.com`.
    pub issuer: String,
    pub subject: String,
    pub audience: String,
    /// End of its validity, in seconds since 1970.
    pub expires: Option<u64>,
}

/// Without the token.
impl fmt::Debug for WebIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebIdentity").field("role_arn", &self.role_arn).finish_non_exhaustive()
    }
}
