//! Whether a caller may do what a request to S3 needs, by its own policies and those of the buckets.

use std::sync::Arc;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::Extensions;
use s3s::access::{S3Access, S3AccessContext};
use s3s::{S3Error, S3Result, dto, s3_error};

use super::convert::fault;
use crate::authorization::{NeededAction, s3_action, s3_actions, s3_arn};
use crate::caller::Caller;
use crate::iam::{Document, PolicyKind};
use crate::shared::Shared;
use crate::sigv4::query_pairs;
use crate::store::{Store, StoreError};

/// The operations on a bucket's policy that it cannot take from the account's owner.
const OWNERS: &[&str] = &["GetBucketPolicy", "PutBucketPolicy", "DeleteBucketPolicy"];

/// The operations on a bucket that every region answers.
const EVERYWHERE: &[&str] = &["CreateBucket", "DeleteBucket", "GetBucketLocation"];

/// The policies of callers and buckets.
#[derive(Clone)]
pub(super) struct BucketAccess {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<Store>,
}

impl BucketAccess {
    /// Refuses what the caller may not do.
    pub(super) fn check_action(&self, caller: &Caller, needed: &NeededAction) -> S3Result<()> {
        let bucket = needed.resource.split_once(":s3:::").map_or("", |(_, path)| path);
        let bucket = bucket.split('/').next().unwrap_or_default();
        let policy = bucket_policy(&self.store, bucket).map_err(|error| s3_error!(InternalError, "{error}"))?;
        // All buckets belong to the emulator's own account.
        let needed =
            if bucket.is_empty() { needed.clone() } else { needed.clone().owned_by(&self.shared.config.account) };
        let allowed = self.shared.authority.allows(caller, &needed, policy.as_ref());
        allowed.map_err(|message| s3_error!(AccessDenied, "{message}"))
    }

    /// The region of a bucket: one that was created without a region is in that of the caller.
    pub(super) fn region_of(&self, extensions: &Extensions, bucket: &str) -> S3Result<Option<String>> {
        let location = self.store.settings(bucket).map_err(fault)?.location;
        Ok(location.or_else(|| extensions.get::<Caller>().map(|caller| caller.region.clone())))
    }

    /// Sends a caller of another region to that of the bucket.
    fn check_region(&self, caller: &Caller, operation: &str, bucket: &str) -> S3Result<()> {
        let location = self.store.settings(bucket).ok().and_then(|settings| settings.location);
        let elsewhere = location.filter(|region| *region != caller.region && !EVERYWHERE.contains(&operation));
        let Some(region) = elsewhere else { return Ok(()) };
        let mut error = s3_error!(
            PermanentRedirect,
            "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all \
             future requests to this endpoint."
        );
        if let Ok(region) = HeaderValue::from_str(&region) {
            error.set_headers(HeaderMap::from_iter([(HeaderName::from_static("x-amz-bucket-region"), region)]));
        }
        Err(error)
    }

    /// The error of a read. That an object is absent is told only to callers that may list the bucket.
    pub(super) fn read_error(&self, extensions: &Extensions, bucket: &str, error: StoreError) -> S3Error {
        let tells =
            matches!(error, StoreError::NoSuchKey | StoreError::NoSuchVersion | StoreError::DeleteMarker { .. });
        let Some(caller) = extensions.get::<Caller>().filter(|_| tells) else { return fault(error) };
        let list = NeededAction::new("s3:ListBucket", s3_arn(&caller.region, bucket));
        let list = list.owned_by(&self.shared.config.account);
        let listed = bucket_policy(&self.store, bucket)
            .and_then(|policy| self.shared.authority.decide(caller, &list, policy.as_ref()));
        match listed {
            Ok(()) => fault(error),
            Err(refused) => s3_error!(AccessDenied, "{refused}"),
        }
    }

    /// The error of one key of `DeleteObjects` that the caller may not delete.
    pub(super) fn check_deletion(
        &self,
        extensions: &Extensions,
        bucket: &str,
        object: &dto::ObjectIdentifier,
    ) -> Result<(), dto::Error> {
        let Some(caller) = extensions.get::<Caller>() else { return Ok(()) };
        let action = s3_action("DeleteObject", object.version_id.is_some());
        let needed =
            NeededAction::new(format!("s3:{action}"), s3_arn(&caller.region, &format!("{bucket}/{}", object.key)));
        self.check_action(caller, &needed).map_err(|refused| dto::Error {
            code: Some("AccessDenied".to_owned()),
            key: Some(object.key.clone()),
            message: refused.message().map(str::to_owned),
            version_id: object.version_id.clone(),
        })
    }
}

/// The policy of a bucket; a bucket that is absent has none.
pub(crate) fn bucket_policy(store: &Store, bucket: &str) -> Result<Option<Document>, String> {
    let policy = store.settings(bucket).ok().and_then(|settings| settings.policy);
    let parse = |policy: String| {
        let value = serde_json::from_str(&policy).map_err(|error| error.to_string());
        value.and_then(|value| Document::parse(PolicyKind::Resource, &value))
    };
    policy.map(parse).transpose().map_err(|error| format!("failed to read the policy of {bucket}: {error}"))
}

/// Checks the caller for the operation that `s3s` will run, which is not told by `names.rs`.
#[async_trait::async_trait]
impl S3Access for BucketAccess {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let caller = context.extensions_mut().get::<Caller>().cloned().ok_or_else(|| s3_error!(AccessDenied))?;
        let operation = context.s3_op().name();
        let bucket = context.s3_path().get_bucket_name().unwrap_or_default().to_owned();
        self.check_region(&caller, operation, &bucket)?;
        if caller.is_administrator() && OWNERS.contains(&operation) {
            return Ok(());
        }
        let query = query_pairs(context.uri().query().unwrap_or_default());
        for needed in s3_actions(operation, context.s3_path(), &query, context.headers(), &caller.region) {
            self.check_action(&caller, &needed)?;
        }
        Ok(())
    }
}
