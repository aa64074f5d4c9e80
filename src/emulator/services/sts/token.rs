//! Checks the signature and the claims of a web identity token.

use base64_simd::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;

use crate::protocol::{ApiError, text};

/// The claims of a token that was found to be valid.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) subject: String,
    pub(super) audience: String,
}

/// A token that is taken apart, before its signature is checked.
pub(super) struct IdToken<'a> {
    header: Value,
    claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> IdToken<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, ApiError> {
        let parsed = token.rsplit_once('.').and_then(|(signed, signature)| {
            let (header, claims) = signed.split_once('.')?;
            let json = |part: &str| serde_json::from_slice(&decoded(part)?).ok();
            Some(Self { header: json(header)?, claims: json(claims)?, signed, signature: decoded(signature)? })
        });
        parsed.ok_or_else(|| invalid("The ID Token provided is not a valid JWT."))
    }

    /// The issuer as ARNs of providers name it, without `https://`.
    pub(super) fn issuer(&self) -> Result<&str, ApiError> {
        let issuer = text(&self.claims, "iss").and_then(|issuer| issuer.strip_prefix("https://"));
        issuer.ok_or_else(|| invalid("The claim iss must be an address that begins with https://"))
    }

    /// Checks the signature by the issuer's keys, and the claims by the time.
    pub(super) fn verify(&self, jwks: &Value, now_seconds: u64) -> Result<Claims, ApiError> {
        let kid = text(&self.header, "kid");
        let mut keys = jwks["keys"].as_array().into_iter().flatten();
        let key = keys.find(|key| kid.is_some() && text(key, "kid") == kid);
        let key = key.ok_or_else(unknown_key)?;
        if self.is_signed_by(key) != Some(true) {
            return Err(invalid("Provided Token's signature is not valid"));
        }
        let time = |claim: &str| self.claims[claim].as_f64();
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
        let now = now_seconds as f64;
        let expires = time("exp").ok_or_else(|| missing("exp"))?;
        if expires <= now {
            return Err(ApiError::new(
                "ExpiredTokenException",
                format!("Token expired: exp is {expires}, now is {now}"),
            ));
        }
        if !self.claims["nbf"].is_null() && time("nbf").is_none_or(|begins| begins > now) {
            return Err(invalid("Token is not valid yet: see its claim nbf"));
        }
        let audience = match self.claims["aud"].as_array().map(Vec::as_slice) {
            Some([one]) => one.as_str(),
            Some(_) => return Err(invalid("The emulator takes one value in the claim aud")),
            None => text(&self.claims, "aud"),
        };
        Ok(Claims {
            subject: text(&self.claims, "sub").ok_or_else(|| missing("sub"))?.to_owned(),
            audience: audience.ok_or_else(|| missing("aud"))?.to_owned(),
        })
    }

    /// `None` when the key is not complete, or the algorithm is not RS256 or ES256.
    fn is_signed_by(&self, key: &Value) -> Option<bool> {
        let part = |name: &str| decoded(text(key, name)?);
        let message = self.signed.as_bytes();
        let verified = match (text(&self.header, "alg")?, text(key, "kty")?) {
            ("RS256", "RSA") => RsaPublicKeyComponents { n: part("n")?, e: part("e")? }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                &self.signature,
            ),
            ("ES256", "EC") => {
                let point = [vec![4], part("x")?, part("y")?].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, &self.signature)
            }
            _ => return None,
        };
        Some(verified.is_ok())
    }
}

fn decoded(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode_to_vec(part).ok()
}

fn missing(claim: &str) -> ApiError {
    invalid(&format!("Missing a required claim: {claim}"))
}

/// The keys cannot be read, or that of the token is not among them.
pub(super) fn unknown_key() -> ApiError {
    invalid(
        "Couldn't retrieve verification key from your identity provider, please reference AssumeRoleWithWebIdentity documentation for \
         requirements",
    )
}

pub(super) fn invalid(message: &str) -> ApiError {
    ApiError::new("InvalidIdentityToken", message)
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_checked_by_key_signature_and_claims() {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode_to_string(bytes);
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let jwks = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "x": encode(x), "y": encode(y)}]});
        let checked = |kid: &str, alg: &str, change: Value, forged: bool| {
            let mut claims = json!({"iss": "https://gitlab.example.com", "sub": "project_path:group/project:ref_type:branch:ref:main",
                "aud": "sts", "exp": 200, "nbf": 50});
            claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let header = json!({"alg": alg, "kid": kid}).to_string();
            let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.to_string().as_bytes()));
            let of = if forged { "other" } else { signed.as_str() };
            let signature = pair.sign(&random, of.as_bytes()).unwrap();
            let token = format!("{signed}.{}", encode(signature.as_ref()));
            let claims = IdToken::parse(&token).unwrap().verify(&jwks, 100);
            claims.map(|claims| claims.audience).map_err(|error| error.code)
        };
        let (unknown, expired) = (Err("InvalidIdentityToken".to_owned()), Err("ExpiredTokenException".to_owned()));
        assert_eq!(checked("one", "ES256", json!({}), false), Ok("sts".to_owned()));
        assert_eq!(checked("two", "ES256", json!({}), false), unknown);
        assert_eq!(checked("one", "ES256", json!({}), true), unknown);
        assert_eq!(checked("one", "RS256", json!({}), false), unknown);
        assert_eq!(checked("one", "none", json!({}), false), unknown);
        assert_eq!(checked("one", "ES256", json!({"exp": 100}), false), expired);
        for change in [json!({"exp": null}), json!({"nbf": 101}), json!({"sub": null}), json!({"aud": ["a", "b"]})] {
            assert_eq!(checked("one", "ES256", change, false), unknown);
        }
        assert!(IdToken::parse("a.b").is_err());
    }
}
