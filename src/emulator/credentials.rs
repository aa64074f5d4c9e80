//! The access keys that the emulator takes: those of the administrator, the users and the roles, made at each start, and those of
//! sessions, which end.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::authorization::{IamAccount, Identity, RoleSession};
use super::clock;

/// Where containers get the credentials of their role.
pub(crate) const ROLE_PATH: &str = "/v2/credentials/";
/// The file of keys in the data directory, in the form of `~/.aws/credentials`.
const FILE: &str = "credentials";
/// The administrator's profile in that file.
const DEFAULT: &str = "default";
/// Name of the session that a role has by its profile in that file.
const OWN_SESSION: &str = "emulator";

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

    fn of_session() -> anyhow::Result<Self> {
        Ok(Self { session_token: Some(random::<32>()?), ..Self::random()? })
    }

    /// Reads the administrator's key, which the emulator with this data directory made at its start.
    pub fn read(data_dir: &Path) -> anyhow::Result<Self> {
        Self::read_profile(data_dir, DEFAULT)
    }

    /// Reads the key of `user/NAME` or `role/NAME`.
    pub fn read_profile(data_dir: &Path, profile: &str) -> anyhow::Result<Self> {
        let path = file(data_dir);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("failed to read credentials {}", path.display()))?;
        let head = format!("[{profile}]");
        let of_profile: Vec<_> =
            text.lines().skip_while(|line| *line != head).skip(1).take_while(|line| !line.starts_with('[')).collect();
        let find = |name: &str| {
            let found = of_profile.iter().filter_map(|line| line.split_once(" = ")).find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_owned())
        };
        let value = |name: &str| {
            find(name).with_context(|| format!("failed to find {name} of [{profile}] in {}", path.display()))
        };
        Ok(Self {
            access_key_id: value("aws_access_key_id")?,
            secret_access_key: value("aws_secret_access_key")?,
            session_token: find("aws_session_token"),
        })
    }

    /// A section of the file.
    fn profile(&self, name: &str) -> String {
        let Self { access_key_id, secret_access_key, session_token } = self;
        let token = session_token.as_deref().map_or(String::new(), |token| format!("aws_session_token = {token}\n"));
        format!("[{name}]\naws_access_key_id = {access_key_id}\naws_secret_access_key = {secret_access_key}\n{token}")
    }
}

/// Without the secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// The file of keys.
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
    pub(crate) identity: Arc<Identity>,
}

/// All keys that are valid now.
#[derive(Debug)]
pub(crate) struct AccessKeys {
    administrator: Key,
    /// Keys of users and roles of `--iam`, by their profile in the file.
    profiles: BTreeMap<String, Key>,
    /// Keys of sessions, by their id.
    sessions: Mutex<BTreeMap<String, Key>>,
    /// Ids of keys of running jobs, by the last part of the path where the job's containers get them.
    places: Mutex<BTreeMap<String, String>>,
}

impl AccessKeys {
    /// Makes the administrator's key, and one for each user and role. The profiles of other accounts than the emulator's own begin
    /// with the account.
    pub(crate) fn new(accounts: &BTreeMap<String, IamAccount>, own: &str) -> anyhow::Result<Self> {
        let mut profiles = BTreeMap::new();
        for (id, account) in accounts {
            let prefix = if id == own { String::new() } else { format!("{id}/") };
            for (name, user) in &account.users {
                let identity = Identity::User { name: name.clone(), arn: user.arn.clone(), id: user.id.clone() };
                profiles.insert(format!("{prefix}user/{name}"), Key::new(Credentials::random()?, identity));
            }
            for (name, role) in &account.roles {
                let session = RoleSession::new(&role.arn, &role.id, OWN_SESSION);
                profiles.insert(
                    format!("{prefix}role/{name}"),
                    Key::new(Credentials::of_session()?, Identity::Session(session)),
                );
            }
        }
        Ok(Self {
            administrator: Key::new(Credentials::random()?, Identity::Administrator),
            profiles,
            sessions: Mutex::default(),
            places: Mutex::default(),
        })
    }

    pub(crate) fn administrator(&self) -> &Credentials {
        &self.administrator.credentials
    }

    /// Replaces the file of the data directory, which its owner alone may read.
    pub(crate) fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let mut text = String::from("# Made by the emulator; each start makes new ones.\n");
        text.push_str(&self.administrator.credentials.profile(DEFAULT));
        for (name, key) in &self.profiles {
            text.push_str(&key.credentials.profile(name));
        }
        let write = || -> anyhow::Result<()> {
            // Made with mode 0600, and moved over the old one once it is whole.
            let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
            file.write_all(text.as_bytes())?;
            file.persist(self::file(data_dir))?;
            Ok(())
        };
        write().with_context(|| format!("failed to write {}", file(data_dir).display()))
    }

    /// The key of an access key id.
    pub(crate) fn find(&self, access_key_id: &str) -> Option<Key> {
        let mut own = self.profiles.values().chain([&self.administrator]);
        let own = own.find(|key| key.credentials.access_key_id == access_key_id).cloned();
        own.or_else(|| self.sessions.lock().get(access_key_id).cloned())
    }

    /// Makes a key for a session.
    pub(crate) fn issue(&self, session: RoleSession) -> anyhow::Result<Credentials> {
        let credentials = Credentials::of_session()?;
        let key = Key::new(credentials.clone(), Identity::Session(session));
        self.sessions.lock().insert(credentials.access_key_id.clone(), key);
        Ok(credentials)
    }

    /// Makes a key for a job's containers and returns the path to it, which nobody can guess.
    pub(crate) fn place(&self, session: RoleSession) -> anyhow::Result<String> {
        let place = random::<16>()?;
        let id = self.issue(session)?.access_key_id;
        self.places.lock().insert(place.clone(), id);
        Ok(format!("{ROLE_PATH}{place}"))
    }

    /// Ends the key of a path.
    pub(crate) fn revoke(&self, path: &str) {
        let id = self.places.lock().remove(path.strip_prefix(ROLE_PATH).unwrap_or_default());
        if let Some(id) = id {
            self.sessions.lock().remove(&id);
        }
    }

    /// The credentials at a path, as the container credential provider reads them; `None` when the path has no key, or its key was revoked.
    pub(crate) fn served(&self, path: &str) -> Option<Value> {
        let id = self.places.lock().get(path.strip_prefix(ROLE_PATH)?)?.clone();
        let key = self.find(&id)?;
        let expires = Duration::from_millis(clock::now_ms()) + Duration::from_hours(6);
        Some(json!({
            "RoleArn": key.identity.session()?.role_arn,
            "AccessKeyId": key.credentials.access_key_id,
            "SecretAccessKey": key.credentials.secret_access_key,
            "Token": key.credentials.session_token,
            "Expiration": humantime::format_rfc3339_seconds(UNIX_EPOCH + expires).to_string(),
        }))
    }
}

impl Key {
    fn new(credentials: Credentials, identity: Identity) -> Self {
        Self { credentials, identity: Arc::new(identity) }
    }

    /// `true` when the key belongs to a session whose time is over.
    pub(crate) fn has_expired(&self) -> bool {
        self.identity.session().and_then(|session| session.expires_ms).is_some_and(|end| end <= clock::now_ms())
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
            let keys = AccessKeys::new(&BTreeMap::new(), "000000000000").unwrap();
            keys.write(&data_dir).unwrap();
            assert_eq!(mode(&file(&data_dir)), 0o600);
            assert_eq!(Credentials::read(&data_dir).unwrap(), *keys.administrator());
            seen.push(keys.administrator().secret_access_key.clone());
        }
        assert_ne!(seen[0], seen[1]);
        assert!(!format!("{:?}", AccessKeys::new(&BTreeMap::new(), "000000000000").unwrap()).contains("secret"));
    }

    #[test]
    fn a_roles_key_lives_as_long_as_its_job() {
        let keys = AccessKeys::new(&BTreeMap::new(), "000000000000").unwrap();
        let session = |job: &str| RoleSession {
            job: Some(job.to_owned()),
            ..RoleSession::new("arn:aws:iam::000000000000:role/emulator", "AROA1", "SageMaker")
        };
        let (one, two) = (keys.place(session("one")).unwrap(), keys.place(session("two")).unwrap());
        let (of_one, of_two) = (keys.served(&one).unwrap(), keys.served(&two).unwrap());
        for member in ["AccessKeyId", "SecretAccessKey", "Token"] {
            assert_ne!(of_one[member], of_two[member], "{member}");
        }
        let id = of_one["AccessKeyId"].as_str().unwrap();
        assert!(!one.contains(id), "the id, which requests show, does not lead to the secret");
        assert_eq!(keys.find(id).unwrap().identity.job(), Some("one"));
        keys.revoke(&one);
        assert!(keys.find(id).is_none() && keys.served(&one).is_none());
        assert!(keys.served(&two).is_some() && keys.find(&keys.administrator().access_key_id).is_some());
    }
}
