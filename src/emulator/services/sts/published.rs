//! The keys of an identity provider that publishes them in a bucket, read as AWS reads them: without credentials, by way of the discovery
//! document.

use serde_json::Value;

use crate::authorization::NeededAction;
use crate::caller::Caller;
use crate::protocol::text;
use crate::services::s3::bucket_policy;
use crate::shared::Shared;
use crate::store::Store;

/// Most bytes of a document.
const MOST_BYTES: u64 = 1 << 20;

/// The key set; `None` when a document is absent, private or odd, or names another issuer.
pub(super) fn keys(
    (shared, store): (&Shared, &Store),
    issuer: &str,
    partition: &str,
    (bucket, prefix): (&str, &str),
) -> Option<Value> {
    let address = format!("https://{issuer}");
    let document = |key: String| document((shared, store), partition, bucket, &key);
    let discovery = document(format!("{prefix}.well-known/openid-configuration"))?;
    if text(&discovery, "issuer") != Some(&address) {
        return None;
    }
    let path = text(&discovery, "jwks_uri")?.strip_prefix(&address)?.strip_prefix('/')?;
    document(format!("{prefix}{path}")).filter(|keys| keys["keys"].is_array())
}

/// A document that everybody may read.
fn document((shared, store): (&Shared, &Store), partition: &str, bucket: &str, key: &str) -> Option<Value> {
    let account = &shared.config.account;
    let caller = Caller::anonymous(account);
    let read = NeededAction::new("s3:GetObject", format!("arn:{partition}:s3:::{bucket}/{key}")).owned_by(account);
    let policy = bucket_policy(store, bucket).ok()?;
    shared.authority.decide(&caller, &read, policy.as_ref()).ok()?;
    let stored = store.get(bucket, key, None).ok()?;
    let files = stored.files();
    let is_small = files.iter().map(|(_, bytes)| bytes).sum::<u64>() <= MOST_BYTES;
    let parts =
        files.iter().filter(|_| is_small).map(|(file, _)| std::fs::read(file).ok()).collect::<Option<Vec<_>>>()?;
    serde_json::from_slice(&parts.concat()).ok()
}
