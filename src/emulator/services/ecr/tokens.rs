//! `GetAuthorizationToken`: gives out a password of the registry.

use std::sync::Arc;

use base64_simd::STANDARD;
use serde_json::{Value, json};

use super::passwords::USER;
use super::records::ImageStore;
use crate::caller::Caller;
use crate::clock;
use crate::protocol::{Answer, ApiError, epoch_seconds};

pub(super) fn get(store: &Arc<ImageStore>, _: &Value, caller: &Caller) -> Answer {
    let issued = store.passwords.issue(caller, clock::now_ms());
    let (password, until_ms) = issued.map_err(|error| ApiError::new("ServerException", error.to_string()))?;
    let token = STANDARD.encode_to_string(format!("{USER}:{password}"));
    // The registry is where the other services are; at AWS its host has the account and the region.
    let data = json!({
        "authorizationToken": token,
        "expiresAt": epoch_seconds(until_ms),
        "proxyEndpoint": store.shared.endpoint,
    });
    Ok(Some(json!({"authorizationData": [data]})))
}
