//! The role credentials of containers: valid from a container's start to its end.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::clock;

/// Path from which containers get the credentials of their role.
pub(crate) const ROLE_PATH: &str = "/v2/credentials/";
/// Prefix of the access keys of roles.
pub(crate) const ROLE_KEY_PREFIX: &str = "EMULATORROLE";
/// The only secret there is; every access key that the emulator takes has it.
pub(crate) const SECRET: &str = "test";

/// The role sessions of all containers that run.
#[derive(Debug, Default)]
pub(crate) struct Roles(Mutex<BTreeSet<String>>);

impl Roles {
    /// Makes the credentials of a session readable until [`Roles::revoke`].
    pub(crate) fn issue(&self, session: String) {
        self.0.lock().insert(session);
    }

    pub(crate) fn revoke(&self, session: &str) {
        self.0.lock().remove(session);
    }

    /// Credentials in the form of the container credential provider; `None` for a session without valid credentials.
    pub(crate) fn credentials(&self, session: &str, account: &str) -> Option<Value> {
        if !self.0.lock().contains(session) {
            return None;
        }
        let expires = Duration::from_millis(clock::now_ms()) + Duration::from_hours(6);
        let expires = humantime::format_rfc3339_seconds(UNIX_EPOCH + expires).to_string();
        Some(json!({
            "RoleArn": format!("arn:aws:iam::{account}:role/emulator"),
            "AccessKeyId": format!("{ROLE_KEY_PREFIX}{session}"),
            "SecretAccessKey": SECRET,
            "Token": "emulator-session-token",
            "Expiration": expires,
        }))
    }
}
