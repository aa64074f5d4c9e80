//! S3: the operations of the protocol on the store, with checksums that are verified and returned.
//!
//! `s3s` handles signatures, chunked bodies and XML; the store handles the disk and conditional writes.

mod access;
mod body;
mod convert;
mod copying;
mod listing;
mod names;
mod operations;
mod policies;
mod protection;
mod uploads;
mod versions;

use std::sync::Arc;

use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};

use self::access::BucketAccess;
pub(crate) use self::access::bucket_policy;
pub(crate) use self::names::operation;
use self::operations::S3Operations;
use crate::caller::{Signing, WireProtocol};
use crate::protocol::{ApiError, Reply, xml_error};
use crate::service::{ApiCall, Service};
use crate::shared::Shared;
use crate::store::Store;

/// The service; its state is the store.
pub(crate) struct S3(S3Service);

impl S3 {
    pub(crate) fn new(shared: &Arc<Shared>, store: Arc<Store>) -> Self {
        let access = BucketAccess { shared: Arc::clone(shared), store: Arc::clone(&store) };
        let mut builder = S3ServiceBuilder::new(S3Operations { store, access: access.clone() });
        builder.set_auth(Secrets(Arc::clone(shared)));
        builder.set_access(access);
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
        xml_error(&error, None)
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
