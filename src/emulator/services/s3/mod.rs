//! S3: the operations of the protocol on the store, with checksums that are verified and returned.
//!
//! `s3s` handles signatures, chunked bodies and XML; the store handles the disk and conditional writes.

mod body;
mod convert;
mod names;
mod operations;
mod versions;

use std::sync::Arc;

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};

pub(crate) use self::names::operation;
use self::operations::S3Operations;
use crate::caller::{Caller, Signing, WireProtocol};
use crate::permissions;
use crate::protocol::{ApiError, Reply, xml_error};
use crate::service::{ApiCall, Service};
use crate::shared::Shared;
use crate::sigv4::query_pairs;
use crate::store::Store;

/// The service; its state is the store.
pub(crate) struct S3(S3Service);

impl S3 {
    pub(crate) fn new(shared: &Arc<Shared>, store: Arc<Store>) -> Self {
        let mut builder = S3ServiceBuilder::new(S3Operations { store });
        builder.set_auth(Secrets(Arc::clone(shared)));
        builder.set_access(Permissions);
        Self(builder.build())
    }
}

#[async_trait::async_trait]
impl Service for S3 {
    fn signing(&self) -> Signing {
        Signing { protocol: WireProtocol::S3, service: Some("s3") }
    }

    async fn call(&self, mut call: ApiCall) -> anyhow::Result<Reply> {
        call.request.extensions_mut().insert(call.caller);
        let reply = self.0.call(call.request).await;
        reply.map_err(|error| anyhow::anyhow!("failed to answer {}: {error:?}", call.operation))
    }

    fn refuse(&self, error: ApiError) -> Reply {
        xml_error(&error, false)
    }
}

/// The secrets of all keys that are valid.
struct Secrets(Arc<Shared>);

#[async_trait::async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let key = self.0.keys.find(access_key).ok_or_else(|| s3_error!(InvalidAccessKeyId))?;
        Ok(SecretKey::from(key.credentials.secret_access_key))
    }
}

/// Checks the caller for the operation that `s3s` will run, which is not told by `names.rs`.
struct Permissions;

#[async_trait::async_trait]
impl S3Access for Permissions {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let caller = context.extensions_mut().remove::<Caller>().ok_or_else(|| s3_error!(AccessDenied))?;
        let query = query_pairs(context.uri().query().unwrap_or_default());
        let operation = match context.s3_op().name() {
            // Old versions have an action of their own.
            "GetObject" | "HeadObject" if query.iter().any(|(name, _)| name == "versionId") => "GetObjectVersion",
            operation => operation,
        };
        let resource = || match context.s3_path() {
            S3Path::Root => "\"*\"".to_owned(),
            S3Path::Bucket { bucket } => format!("\"arn:aws:s3:::{bucket}\""),
            S3Path::Object { bucket, key } => format!("\"arn:aws:s3:::{bucket}/{key}\""),
        };
        permissions::check(&caller, "s3", operation, resource).map_err(|message| s3_error!(AccessDenied, "{message}"))
    }
}
