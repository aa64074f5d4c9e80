//! Passwords of the registry: each has the rights of the caller who got it, for twelve hours.

use std::collections::BTreeMap;

use base64_simd::STANDARD;
use parking_lot::Mutex;

use crate::caller::Caller;

/// The only name of a user.
pub(super) const USER: &str = "AWS";
const LIFETIME_MS: u64 = 12 * 3600 * 1000;

/// The passwords that are valid, with the caller of each and the time of its end.
#[derive(Debug, Default)]
pub(super) struct Passwords(Mutex<BTreeMap<String, (Caller, u64)>>);

impl Passwords {
    pub(super) fn issue(&self, caller: &Caller, now_ms: u64) -> anyhow::Result<(String, u64)> {
        let mut random = [0_u8; 32];
        getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("failed to make a password: {error}"))?;
        let password = STANDARD.encode_to_string(random);
        let mut passwords = self.0.lock();
        passwords.retain(|_, (_, until)| *until > now_ms);
        passwords.insert(password.clone(), (caller.clone(), now_ms + LIFETIME_MS));
        Ok((password, now_ms + LIFETIME_MS))
    }

    /// The caller of a request with this value of its `Authorization` header.
    pub(super) fn caller(&self, authorization: &str, now_ms: u64) -> Option<Caller> {
        let (scheme, encoded) = authorization.split_once(' ')?;
        let pair = STANDARD.decode_to_vec(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let pair = String::from_utf8(pair).ok()?;
        let (user, password) = pair.split_once(':')?;
        let passwords = self.0.lock();
        let (caller, until) = passwords.get(password).filter(|_| user == USER)?;
        (*until > now_ms).then(|| caller.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_for_its_caller_and_ends_after_twelve_hours() {
        let passwords = Passwords::default();
        let (password, until) = passwords.issue(&Caller::administrator(), 1).unwrap();
        let header = |user: &str| format!("Basic {}", STANDARD.encode_to_string(format!("{user}:{password}")));
        assert!(passwords.caller(&header("AWS"), until - 1).is_some_and(|caller| caller.is_administrator()));
        assert!(passwords.caller(&header("AWS"), until).is_none());
        assert!(passwords.caller(&header("root"), 2).is_none());
        assert!(passwords.caller(&header("AWS").replace("Basic", "Bearer"), 2).is_none());
    }
}
