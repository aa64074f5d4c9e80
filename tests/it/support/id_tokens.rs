//! Id tokens as GitLab signs them, with a key of the test's own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::waiting::search_path;

/// The issuer, as the emulator's `--oidc` names it.
pub(crate) const ISSUER: &str = "gitlab.example.com";
/// The program that signs.
pub(crate) const NEEDS: &str = "openssl";

/// A key that signs tokens, in a file.
pub(crate) struct TokenKey {
    key: PathBuf,
    /// The file with its public half.
    pub(crate) jwks: PathBuf,
    id: &'static str,
}

impl TokenKey {
    pub(crate) fn new(folder: &Path) -> Self {
        Self::named(folder, "one")
    }

    /// A key with this id.
    pub(crate) fn named(folder: &Path, id: &'static str) -> Self {
        let (key, jwks) = (folder.join("token.pem"), folder.join("jwks.json"));
        openssl(&["genrsa", "-out", key.to_str().unwrap(), "2048"], b"");
        let modulus = openssl(&["rsa", "-in", key.to_str().unwrap(), "-noout", "-modulus"], b"");
        let modulus = String::from_utf8(modulus).unwrap();
        let digits = modulus.trim().strip_prefix("Modulus=").unwrap().as_bytes().to_vec();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let modulus: Vec<u8> = digits.chunks(2).map(byte).collect();
        let public = json!({"keys": [{"kty": "RSA", "kid": id, "n": base64url(&modulus), "e": "AQAB"}]});
        std::fs::write(&jwks, public.to_string()).unwrap();
        Self { key, jwks, id }
    }

    /// The token of a job of the user, on the main branch.
    pub(crate) fn token(&self, user: &str) -> String {
        self.token_with(json!({
            "sub": "project_path:group/project:ref_type:branch:ref:main",
            "aud": "sts.amazonaws.com",
            "user_id": user,
            "user_login": format!("user{user}"),
            "project_path": "group/project",
            "project_id": "42",
            "pipeline_id": "7",
            "job_id": "8",
        }))
    }

    /// A token of the issuer with these claims, for an hour.
    pub(crate) fn token_with(&self, claims: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        self.token_until(claims, now + 3600)
    }

    /// A token of the issuer with these claims, until a time in seconds since 1970.
    pub(crate) fn token_until(&self, mut claims: Value, expires: u64) -> String {
        claims["iss"] = format!("https://{ISSUER}").into();
        claims["nbf"] = expires.saturating_sub(7200).into();
        claims["exp"] = expires.into();
        self.sign(&claims)
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "RS256", "kid": self.id, "typ": "JWT"}).to_string();
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.to_string().as_bytes()));
        let key = self.key.to_str().unwrap();
        let signature = openssl(&["dgst", "-sha256", "-sign", key, "-binary"], signed.as_bytes());
        format!("{signed}.{}", base64url(&signature))
    }
}

fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(NEEDS);
    command.args(args).env_clear().env("PATH", search_path());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("openssl is there");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {args:?}");
    output.stdout
}

fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..=group.len() {
            text.push(char::from(LETTERS[(bits >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}
