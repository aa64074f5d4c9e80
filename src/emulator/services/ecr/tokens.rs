//! Passwords of the registry: `GetAuthorizationToken` gives them out, and they carry the rights of the caller for twelve hours.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64_simd::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::records::ImageStore;
use crate::caller::Caller;
use crate::clock;
use crate::protocol::{Answer, ApiError, epoch_seconds};

/// The only name of a user.
const USER: &str = "AWS";
const LIFETIME_MS: u64 = 12 * 3600 * 1000;

/// The passwords that are valid, with the caller of each and the time of its end.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<BTreeMap<String, (Caller, u64)>>);

impl Tokens {
    fn issue(&self, caller: &Caller, now_ms: u64) -> anyhow::Result<(String, u64)> {
        let mut random = [0_u8; 32];
        getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("failed to make a password: {error}"))?;
        let password = STANDARD.encode_to_string(random);
        let mut tokens = self.0.lock();
        tokens.retain(|_, (_, until)| *until > now_ms);
        tokens.insert(password.clone(), (caller.clone(), now_ms + LIFETIME_MS));
        Ok((password, now_ms + LIFETIME_MS))
    }

    /// The caller of a request with this value of its `Authorization` header.
    pub(super) fn caller(&self, authorization: &str, now_ms: u64) -> Option<Caller> {
        let (scheme, encoded) = authorization.split_once(' ')?;
        let pair = STANDARD.decode_to_vec(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let pair = String::from_utf8(pair).ok()?;
        let (user, password) = pair.split_once(':')?;
        let tokens = self.0.lock();
        let (caller, until) = tokens.get(password).filter(|_| user == USER)?;
        (*until > now_ms).then(|| caller.clone())
    }
}

pub(super) fn get(store: &Arc<ImageStore>, _: &Value, caller: &Caller) -> Answer {
    let issued = store.tokens.issue(caller, clock::now_ms());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_for_its_caller_and_ends_after_twelve_hours() {
        let tokens = Tokens::default();
        let (password, until) = tokens.issue(&Caller::administrator(), 1).unwrap();
        let header = |user: &str| format!("Basic {}", STANDARD.encode_to_string(format!("{user}:{password}")));
        assert!(tokens.caller(&header("AWS"), until - 1).is_some_and(|caller| caller.is_administrator()));
        assert!(tokens.caller(&header("AWS"), until).is_none());
        assert!(tokens.caller(&header("root"), 2).is_none());
        assert!(tokens.caller(&header("AWS").replace("Basic", "Bearer"), 2).is_none());
    }
}
