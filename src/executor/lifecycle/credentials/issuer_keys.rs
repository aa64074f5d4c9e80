//! The documents of an issuer of id tokens: what GitLab shows, and what is published in its place. Pure.

use std::collections::BTreeMap;

use base64_simd::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::failure::Failure;
use crate::base::plain;

/// Longest address of an identity provider (IAM).
const MOST_URL: usize = 255;
/// Most keys of an identity provider (IAM).
const MOST_KEYS: usize = 100;
/// Sizes of a modulus in bytes, leading zeros left out: RSA of 2048 to 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;
/// Public exponents of RSA: those below are weak (1 makes every text a signature), and the library takes none above.
const EXPONENT: std::ops::RangeInclusive<u64> = 65_537..=(1 << 33) - 1;
/// Members of a JSON web key that only the private half has.
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

/// A public key of RSA, as GitLab signs with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PublicKey {
    n: String,
    e: String,
}

impl PublicKey {
    /// `true` when this key signed the token by RS256, the algorithm of GitLab's id tokens.
    pub(super) fn has_signed(&self, token: &str) -> bool {
        let verified = || {
            let (signed, signature) = token.trim().rsplit_once('.')?;
            let signature = URL_SAFE_NO_PAD.decode_to_vec(signature.trim_end_matches('=')).ok()?;
            let key = RsaPublicKeyComponents { n: number(&self.n)?, e: number(&self.e)? };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature).ok()
        };
        verified().is_some()
    }
}

/// The bytes of a number in base64url, without leading zeros.
fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode_to_vec(text).ok()?;
    Some(bytes.into_iter().skip_while(|byte| *byte == 0).collect())
}

/// An exponent that RSA may have.
fn is_exponent(bytes: &[u8]) -> bool {
    let value = bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    bytes.len() <= 8 && value % 2 == 1 && EXPONENT.contains(&value)
}

/// Public keys by their ids.
pub(super) type KeySet = BTreeMap<String, PublicKey>;

/// Keys that GitLab has dropped, with the time at which that was seen first, in seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retired {
    #[serde(default)]
    pub(super) retired: BTreeMap<String, u64>,
}

/// The address of an issuer without a slash at its end.
///
/// # Errors
/// It is none that AWS takes.
pub(super) fn check_issuer(url: &str) -> Result<&str, Failure> {
    let url = url.trim().trim_end_matches('/');
    let rest = url.strip_prefix("https://").unwrap_or_default();
    let mut parts = rest.split('/');
    let host = parts.next().unwrap_or_default();
    // `https://host/a/../b` is another address than it looks like, and who reads it may shorten it.
    let is_path = parts.all(|part| !matches!(part, "" | "." | ".."));
    let is_letter = |one: char| one.is_ascii_alphanumeric() || "-._~/".contains(one);
    if !host.is_empty() && is_path && url.len() <= MOST_URL && rest.chars().all(is_letter) {
        return Ok(url);
    }
    let failure = Failure::user(format!("the issuer is no address that AWS takes: {}", plain::line(url, 300)));
    Err(failure.hint(
        "give an address that begins with `https://`, without port, user, query, fragment, `//` and `..`: that of GitLab, or of the bucket with its \
         published keys",
    ))
}

/// The issuer that GitLab's discovery document names.
pub(super) fn issuer_of(document: &[u8]) -> Result<String, String> {
    let document: Value = serde_json::from_slice(document).map_err(|_| "it is not JSON".to_owned())?;
    let issuer = document.get("issuer").and_then(Value::as_str).ok_or("it has no `issuer`")?;
    Ok(issuer.trim_end_matches('/').to_owned())
}

/// The public keys of a JWKS. Keys of another kind than RSA, and for another use than RS256, are left out, with their number.
///
/// # Errors
/// It is none, holds a private key, or one that is too weak or too large.
pub(super) fn keys_of(document: &[u8]) -> Result<(KeySet, usize), String> {
    let document: Value = serde_json::from_slice(document).map_err(|_| "it is not JSON".to_owned())?;
    let all = document.get("keys").and_then(Value::as_array).ok_or("it has no list `keys`")?;
    if all.len() > MOST_KEYS {
        return Err(format!("it has {} keys, and AWS takes {MOST_KEYS}", all.len()));
    }
    let (mut keys, mut others) = (KeySet::new(), 0);
    for key in all {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        if PRIVATE.iter().any(|name| key.get(*name).is_some()) {
            return Err("a key of it is a private one".to_owned());
        }
        let is_for_tokens = text("kty") == Some("RSA")
            && key.get("use").is_none_or(|one| one == "sig")
            && key.get("alg").is_none_or(|one| one == "RS256");
        if !is_for_tokens {
            others += 1;
            continue;
        }
        let (Some(kid), Some(n), Some(e)) = (text("kid"), text("n"), text("e")) else {
            return Err("a key of it has no `kid`, `n` or `e`".to_owned());
        };
        let kid_is_name = !kid.is_empty() && kid.len() <= 256 && kid.chars().all(|one| one.is_ascii_graphic());
        let modulus = number(n).ok_or("a modulus is not base64url")?;
        let exponent = number(e).ok_or("an exponent is not base64url")?;
        if !is_exponent(&exponent) {
            return Err(format!("its key {} has no exponent of RSA from 65537 on", plain::line(kid, 100)));
        }
        if !kid_is_name || !MODULUS.contains(&modulus.len()) {
            return Err(format!("its key {} is none of RSA with 2048 to 8192 bits", plain::line(kid, 100)));
        }
        let made = PublicKey { n: n.to_owned(), e: e.to_owned() };
        if keys.insert(kid.to_owned(), made).is_some() {
            return Err(format!("two keys of it have the id {}", plain::line(kid, 100)));
        }
    }
    if keys.is_empty() { Err("it has no key of RSA".to_owned()) } else { Ok((keys, others)) }
}

/// The id of a published key that has become another key. GitLab derives the id from the key, so it does this with none.
pub(super) fn changed<'a>(current: &'a KeySet, published: &KeySet) -> Option<&'a str> {
    let mut kids = current.iter().filter(|(kid, key)| published.get(*kid).is_some_and(|before| before != *key));
    kids.next().map(|(kid, _)| kid.as_str())
}

/// The keys to publish: those of GitLab, and for `keep` seconds those that were published and that it has dropped.
pub(super) fn with_retired(
    current: &KeySet,
    published: &KeySet,
    record: &Retired,
    now: u64,
    keep: u64,
) -> (KeySet, Retired) {
    let (mut all, mut next) = (current.clone(), Retired::default());
    for (kid, key) in published.iter().filter(|(kid, _)| !current.contains_key(*kid)) {
        // A time in the future is no reason to keep a key longer.
        let since = record.retired.get(kid).copied().unwrap_or(now).min(now);
        if now - since < keep && all.len() < MOST_KEYS {
            all.insert(kid.clone(), key.clone());
            next.retired.insert(kid.clone(), since);
        }
    }
    (all, next)
}

/// The JWKS with these keys.
pub(super) fn jwks(keys: &KeySet) -> String {
    let key = |(kid, key): (&String, &PublicKey)| json!({"kty": "RSA", "kid": kid, "n": key.n, "e": key.e, "use": "sig", "alg": "RS256"});
    format!("{:#}\n", json!({"keys": keys.iter().map(key).collect::<Vec<_>>()}))
}

/// The discovery document of an issuer: what AWS needs of it, and no address of GitLab.
pub(super) fn discovery(issuer: &str, keys_path: &str) -> String {
    let document = json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/{keys_path}"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "claims_supported": ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"],
    });
    format!("{document:#}\n")
}
