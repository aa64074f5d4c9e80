//! Port of AWS Secrets Manager. `aws` and `testing` implement it.

use std::fmt;

use async_trait::async_trait;

use super::error::CloudError;

/// Secrets of the region.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// The current value of a secret, or the one with a staging label. `id` is its name or ARN.
    ///
    /// # Errors
    /// `NotFound` for an absent secret, and for an absent label. `Denied` with the action `kms:Decrypt` when the role may read the
    /// secret but not use its key.
    async fn value(&self, id: &str, version_stage: Option<&str>) -> Result<StoredSecret, CloudError>;
}

/// A secret as AWS answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSecret {
    /// With the six characters that AWS adds to the name.
    pub arn: String,
    pub name: String,
    pub content: SecretContent,
}

/// The value of a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretContent {
    Text(String),
    Binary(Vec<u8>),
}

/// Without the value.
impl fmt::Debug for SecretContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text(..)",
            Self::Binary(_) => "Binary(..)",
        })
    }
}
