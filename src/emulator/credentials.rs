//! The access keys that the emulator takes: the user's, made at each start, and one for the role of each running job.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::clock;

/// Where containers get the credentials of their role.
pub(crate) const ROLE_PATH: &str = "/v2/credentials/";
/// The file of the user's key in the data directory, in the form of `~/.aws/credentials`.
const FILE: &str = "credentials";

/// An access key with its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `EMULATOR` and 12 digits: never the form of a real account's key.
    pub access_key_id: String,
    pub secret_access_key: String,
    /// Of a role's key; requests with that key must carry it.
    pub session_token: Option<String>,
}

impl Credentials {
    fn random() -> anyhow::Result<Self> {
        let access_key_id = format!("EMULATOR{}", random::<6>()?.to_uppercase());
        Ok(Self { access_key_id, secret_access_key: random::<20>()?, session_token: None })
    }

    /// Reads what the emulator with this data directory made at its start.
    pub fn read(data_dir: &Path) -> anyhow::Result<Self> {
        let path = file(data_dir);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("failed to read credentials {}", path.display()))?;
        let value = |name: &str| {
            let found = text.lines().filter_map(|line| line.split_once(" = ")).find(|(key, _)| *key == name);
            let found = found.with_context(|| format!("failed to find {name} in {}", path.display()));
            found.map(|(_, value)| value.to_owned())
        };
        Ok(Self {
            access_key_id: value("aws_access_key_id")?,
            secret_access_key: value("aws_secret_access_key")?,
            session_token: None,
        })
    }

    /// Replaces the file of the data directory, which its owner alone may read.
    pub(crate) fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let write = || -> anyhow::Result<()> {
            // Made with mode 0600, and moved over the old one once it is whole.
            let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
            write!(
                file,
                "# Made by the emulator; each start makes new ones.\n[default]\naws_access_key_id = {}\n\
                 aws_secret_access_key = {}\n",
                self.access_key_id, self.secret_access_key
            )?;
            file.persist(self::file(data_dir))?;
            Ok(())
        };
        write().with_context(|| format!("failed to write {}", file(data_dir).display()))
    }
}

/// Without the secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// The file of the user's key.
pub(crate) fn file(data_dir: &Path) -> PathBuf {
    std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned()).join(FILE)
}

/// Creates a directory that this user alone may enter, with those above it. One that exists is closed to others.
pub(crate) fn create_private(path: &Path) -> anyhow::Result<()> {
    let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    let closed = created.and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)));
    closed.with_context(|| format!("failed to create the directory {} for this user alone", path.display()))
}

/// Random bytes as hexadecimal digits.
fn random<const BYTES: usize>() -> anyhow::Result<String> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).context("failed to get random bytes from the system")?;
    Ok(hex(&bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A key that the emulator knows.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) credentials: Credentials,
    /// The training job whose role it is; `None` for the user's.
    pub(crate) job: Option<String>,
}

/// All keys that are valid now.
#[derive(Debug)]
pub(crate) struct Keys {
    user: Key,
    /// The roles' keys, by the last part of the path where the job's containers get them.
    roles: Mutex<BTreeMap<String, Key>>,
}

impl Keys {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { user: Key { credentials: Credentials::random()?, job: None }, roles: Mutex::default() })
    }

    pub(crate) fn user(&self) -> &Credentials {
        &self.user.credentials
    }

    /// The key of an access key id.
    pub(crate) fn find(&self, access_key_id: &str) -> Option<Key> {
        let is = |key: &&Key| key.credentials.access_key_id == access_key_id;
        Some(&self.user).filter(is).cloned().or_else(|| self.roles.lock().values().find(is).cloned())
    }

    /// Makes a role's key for a job's containers and returns the path to it, which nobody can guess.
    pub(crate) fn issue(&self, job: &str) -> anyhow::Result<String> {
        let place = random::<16>()?;
        let credentials = Credentials { session_token: Some(random::<32>()?), ..Credentials::random()? };
        self.roles.lock().insert(place.clone(), Key { credentials, job: Some(job.to_owned()) });
        Ok(format!("{ROLE_PATH}{place}"))
    }

    /// Ends the key of a path.
    pub(crate) fn revoke(&self, path: &str) {
        self.roles.lock().remove(path.strip_prefix(ROLE_PATH).unwrap_or_default());
    }

    /// The credentials at a path, as the container credential provider reads them; `None` when the path has no key, or its key was revoked.
    pub(crate) fn served(&self, path: &str, account: &str) -> Option<Value> {
        let credentials = self.roles.lock().get(path.strip_prefix(ROLE_PATH)?)?.credentials.clone();
        let expires = Duration::from_millis(clock::now_ms()) + Duration::from_hours(6);
        Some(json!({
            "RoleArn": format!("arn:aws:iam::{account}:role/emulator"),
            "AccessKeyId": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key,
            "Token": credentials.session_token,
            "Expiration": humantime::format_rfc3339_seconds(UNIX_EPOCH + expires).to_string(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_owners_alone_and_each_start_replaces_it() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        create_private(&data_dir.join("s3")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data_dir), 0o700);
        std::fs::set_permissions(data_dir.join("s3"), std::fs::Permissions::from_mode(0o755)).unwrap();
        create_private(&data_dir.join("s3")).unwrap();
        assert_eq!(mode(&data_dir.join("s3")), 0o700, "that of an older version too");
        let mut seen = Vec::new();
        for _ in 0..2 {
            let keys = Keys::new().unwrap();
            keys.user().write(&data_dir).unwrap();
            assert_eq!(mode(&file(&data_dir)), 0o600);
            assert_eq!(Credentials::read(&data_dir).unwrap(), *keys.user());
            seen.push(keys.user().secret_access_key.clone());
        }
        assert_ne!(seen[0], seen[1]);
        assert!(!format!("{:?}", Keys::new().unwrap()).contains("secret"));
    }

    #[test]
    fn a_roles_key_lives_as_long_as_its_job() {
        let keys = Keys::new().unwrap();
        let (one, two) = (keys.issue("one").unwrap(), keys.issue("two").unwrap());
        let (of_one, of_two) = (keys.served(&one, "0").unwrap(), keys.served(&two, "0").unwrap());
        for member in ["AccessKeyId", "SecretAccessKey", "Token"] {
            assert_ne!(of_one[member], of_two[member], "{member}");
        }
        let id = of_one["AccessKeyId"].as_str().unwrap();
        assert!(!one.contains(id), "the id, which requests show, does not lead to the secret");
        assert_eq!(keys.find(id).unwrap().job.as_deref(), Some("one"));
        keys.revoke(&one);
        assert!(keys.find(id).is_none() && keys.served(&one, "0").is_none());
        assert!(keys.served(&two, "0").is_some() && keys.find(&keys.user().access_key_id).is_some());
    }
}
