//! Port of the registry's own scans of images for known vulnerabilities. `aws` and `testing` implement it.

use async_trait::async_trait;

use super::error::CloudError;

/// State of the scan of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanSight {
    /// The image was never scanned.
    Absent,
    /// The scan has not ended.
    Running,
    /// The findings, of all pages.
    Done(Vec<ScanFinding>),
    /// The scan ended without findings that can be trusted: the status of AWS, and its text.
    Failed { status: String, reason: String },
}

/// A known vulnerability of a package in an image, as the registry tells it. All of it is text of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanFinding {
    /// `CVE-2026-0001`.
    pub id: String,
    /// In capital letters: `CRITICAL`, `HIGH`, `MEDIUM`, `LOW`, `INFORMATIONAL`, `UNDEFINED` or `UNTRIAGED`.
    pub severity: String,
    pub package: String,
    pub version: String,
    /// Version without the vulnerability, where there is one.
    pub fixed_version: Option<String>,
    pub description: Option<String>,
    pub url: Option<String>,
}

/// Scans of images in the registry of an account.
#[async_trait]
pub trait ImageScans: Send + Sync {
    /// # Errors
    /// [`NotFound`](super::CloudErrorKind::NotFound) when there is no such image.
    async fn scan(&self, account: &str, repository: &str, digest: &str) -> Result<ScanSight, CloudError>;

    /// Starts a scan. One that AWS refuses because the image was scanned in the last day is no error.
    async fn start(&self, account: &str, repository: &str, digest: &str) -> Result<(), CloudError>;
}
