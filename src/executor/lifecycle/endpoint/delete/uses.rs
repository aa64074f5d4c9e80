//! Configurations and models that other endpoints use. SageMaker deletes them all the same, and such an endpoint cannot start an instance
//! any more.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::cloud::{CloudError, ModelEndpoints};

/// Endpoints that are looked at at once.
const READS: usize = 8;

/// The endpoint that uses each configuration and each model, by their names.
#[derive(Debug, Default)]
pub(super) struct EndpointUses {
    pub(super) configs: BTreeMap<String, String>,
    pub(super) models: BTreeMap<String, String>,
}

impl EndpointUses {
    /// The things that all other endpoints of the account use now, or will use when their update ends.
    pub(super) async fn of_others_than(endpoint: &str, endpoints: &dyn ModelEndpoints) -> Result<Self, CloudError> {
        let mut names = endpoints.all_endpoints().await?;
        names.retain(|name| name != endpoint);
        let reads = names.into_iter().map(|name| async move {
            let Some(sight) = endpoints.endpoint(&name).await? else { return Ok(Vec::new()) };
            let mut used = Vec::new();
            for config in [Some(sight.config), sight.pending_config].into_iter().flatten() {
                used.push((name.clone(), endpoints.models_of(&config).await?.unwrap_or_default().names, config));
            }
            Ok(used)
        });
        let read: Vec<_> = stream::iter(reads).buffer_unordered(READS).try_collect().await?;
        let mut uses = Self::default();
        for (user, models, config) in read.into_iter().flatten() {
            uses.models.extend(models.into_iter().map(|model| (model, user.clone())));
            uses.configs.insert(config, user);
        }
        Ok(uses)
    }
}
