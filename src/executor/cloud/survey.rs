//! Port that shows which folders the object store has, how old their objects are, and the store's own time. `aws` and `testing`
//! implement it.

use std::time::SystemTime;

use async_trait::async_trait;

use super::error::CloudError;
use super::objects::Listed;

/// Looks over the objects of [`ObjectStore`](super::ObjectStore), with keys relative to the same prefix.
#[async_trait]
pub trait ObjectSurvey: Send + Sync {
    /// The folders whose keys start with `prefix` and go on to the next slash, in key order: each with `prefix` and a slash at its end.
    async fn folders(&self, prefix: &str) -> Result<Vec<String>, CloudError>;
    /// The objects whose keys start with `prefix`, in key order, behind the key `after`: 1,000 at most, and one at least when more follow.
    async fn page(&self, prefix: &str, after: Option<&str>) -> Result<SurveyPage, CloudError>;
    /// The time of day by the clock that dates the objects, to the second: no clock of a runner host.
    async fn now(&self) -> Result<SystemTime, CloudError>;
}

/// Some objects of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SurveyPage {
    pub objects: Vec<Listed>,
    /// More objects follow.
    pub has_more: bool,
}
