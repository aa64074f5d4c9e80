//! Credentials that are read anew when AWS refuses them.
//!
//! The SDK keeps credentials until the time at which they say that they expire, and reads a profile's file once in a process. A stage
//! may live for days: meanwhile keys are revoked or rotated, and files are replaced. So an answer that refuses the credentials makes
//! the next request read them again, from the environment, files and metadata services.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::identity::IdentityCache;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_s3::config::{ConfigBag, ResolveCachedIdentity, RuntimeComponents, SharedHttpClient, SharedIdentityCache};
use aws_smithy_runtime_api::client::identity::{IdentityFuture, SharedIdentityResolver};
use futures::future::BoxFuture;
use parking_lot::Mutex;

/// Shortest time between two reads: a source of credentials may be a program, or a service with a limited rate.
const LEAST: Duration = Duration::from_secs(10);

/// Longest time of one read.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Counts the reads of credentials that refusals have asked for.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    reads: AtomicU64,
    asked: Mutex<Option<Instant>>,
    /// Why the last exchange of a token gave no credentials.
    refusal: Mutex<Option<String>>,
}

impl Renewal {
    /// AWS has refused the credentials: the next request reads them again.
    pub(super) fn ask(&self) {
        self.ask_at(Instant::now());
    }

    fn ask_at(&self, now: Instant) {
        let mut asked = self.asked.lock();
        if asked.is_none_or(|asked| now.duration_since(asked) >= LEAST) {
            *asked = Some(now);
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps the words for the call that finds no credentials: the SDK passes no text on.
    pub(super) fn tell_refusal(&self, text: Option<String>) {
        *self.refusal.lock() = text;
    }

    /// Why there are no credentials, where a token was refused.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.lock().clone()
    }

    fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

/// A thing that was made for one read of the credentials, and is made again for the next.
struct OfRead<T> {
    read: u64,
    made: T,
}

/// The SDK's cache of credentials, emptied by each refusal.
pub(super) struct RenewedCache {
    renewal: Arc<Renewal>,
    cache: Mutex<OfRead<SharedIdentityCache>>,
}

impl RenewedCache {
    pub(super) fn new(renewal: Arc<Renewal>) -> Self {
        let cache = OfRead { read: renewal.reads(), made: new_cache() };
        Self { renewal, cache: Mutex::new(cache) }
    }
}

impl fmt::Debug for RenewedCache {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RenewedCache").finish_non_exhaustive()
    }
}

impl ResolveCachedIdentity for RenewedCache {
    fn resolve_cached_identity<'a>(
        &'a self,
        resolver: SharedIdentityResolver,
        components: &'a RuntimeComponents,
        config: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        let read = self.renewal.reads();
        let cache = {
            let mut cache = self.cache.lock();
            if cache.read != read {
                *cache = OfRead { read, made: new_cache() };
            }
            cache.made.clone()
        };
        IdentityFuture::new(async move { cache.resolve_cached_identity(resolver, components, config).await })
    }
}

/// The SDK's own cache. An exchange of a token is a call with repetitions, for which the SDK's five seconds are too short.
fn new_cache() -> SharedIdentityCache {
    IdentityCache::lazy().load_timeout(LOAD_TIMEOUT).build()
}

type Source = Box<dyn Fn() -> BoxFuture<'static, SharedCredentialsProvider> + Send + Sync>;

/// A source of credentials that is made anew for each read: one that was made once keeps the file that it has read.
pub(super) struct RenewedCredentials {
    renewal: Arc<Renewal>,
    source: Source,
    current: tokio::sync::Mutex<Option<OfRead<SharedCredentialsProvider>>>,
}

impl RenewedCredentials {
    /// The SDK's chain: environment, profile, web identity, container, instance metadata.
    pub(super) fn of_host(renewal: Arc<Renewal>, region: Region, http_client: &SharedHttpClient) -> Self {
        let http_client = http_client.clone();
        Self::of(renewal, move || {
            let (region, http_client) = (region.clone(), http_client.clone());
            Box::pin(async move {
                let config = ProviderConfig::without_region().with_region(Some(region.clone()));
                let config = config.with_http_client(http_client);
                let chain = DefaultCredentialsChain::builder().region(region).configure(config).build().await;
                SharedCredentialsProvider::new(chain)
            })
        })
    }

    fn of(
        renewal: Arc<Renewal>,
        source: impl Fn() -> BoxFuture<'static, SharedCredentialsProvider> + Send + Sync + 'static,
    ) -> Self {
        Self { renewal, source: Box::new(source), current: tokio::sync::Mutex::new(None) }
    }

    async fn provider(&self) -> SharedCredentialsProvider {
        let read = self.renewal.reads();
        let mut current = self.current.lock().await;
        match &*current {
            Some(current) if current.read == read => current.made.clone(),
            _ => {
                let made = (self.source)().await;
                *current = Some(OfRead { read, made: made.clone() });
                made
            }
        }
    }
}

impl fmt::Debug for RenewedCredentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RenewedCredentials").finish_non_exhaustive()
    }
}

impl ProvideCredentials for RenewedCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.provider().await.provide_credentials().await })
    }
}

#[cfg(test)]
#[expect(deprecated, reason = "the new names of the types of profile files are in a crate that is not among ours")]
mod tests;
