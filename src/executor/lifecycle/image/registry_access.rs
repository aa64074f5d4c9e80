//! How builders and scanners reach the registry: its host, and files with its password and its names for them. No I/O.
//!
//! Images are named as at AWS, by the host of the repository's URI. Where `GetAuthorizationToken` names another host, a table of the builder
//! leads there.

use base64_simd::STANDARD;
use serde_json::{Map, Value, json};

use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{ImageRepositorySight, RegistryLogin};

/// The host to which images are pushed, and how it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PushHost {
    /// With its port.
    pub(super) name: String,
    /// Plain HTTP, which a host of the loopback interface alone may speak.
    pub(super) is_plain: bool,
}

impl PushHost {
    /// # Errors
    /// The address is no host of HTTPS, or of HTTP on loopback: the password would be readable on the way.
    pub(super) fn of(login: &RegistryLogin) -> Result<Self, Failure> {
        let shown = plain::line(&login.endpoint, 200);
        let refused = |why: &str| {
            Failure::system(format!("the address of the registry, {shown}, {why}"))
                .hint("check `--endpoint-url` and `AWS_ENDPOINT_URL`: they name the service that gave the address")
        };
        let (scheme, host) = login.endpoint.split_once("://").ok_or_else(|| refused("is none"))?;
        let name = host.trim_end_matches('/');
        let is_host = !name.is_empty() && name.chars().all(|one| one.is_ascii_alphanumeric() || ".-:".contains(one));
        if !is_host {
            return Err(refused("is none"));
        }
        let host = name.split(':').next().unwrap_or_default();
        let is_loopback = host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
        match scheme {
            "https" => Ok(Self { name: name.to_owned(), is_plain: false }),
            "http" if is_loopback => Ok(Self { name: name.to_owned(), is_plain: true }),
            _ => Err(refused("has no encryption, so that the password could be read on the way")),
        }
    }
}

/// The host in the URI of a repository.
pub(super) fn host_of(repository: &ImageRepositorySight) -> &str {
    repository.uri.split('/').next().unwrap_or_default()
}

/// The builder's table of registries: names of the repository's host lead to the host that takes images.
pub(super) fn registries(repository: &ImageRepositorySight, host: &PushHost) -> String {
    let entry = |prefix: &str| {
        format!("\n[[registry]]\nprefix = {prefix:?}\nlocation = {:?}\ninsecure = {}\n", host.name, host.is_plain)
    };
    let own = host_of(repository);
    let mut text = "unqualified-search-registries = []\nshort-name-mode = \"enforcing\"\n".to_owned();
    text.push_str(&entry(&host.name));
    if own != host.name {
        text.push_str(&entry(own));
    }
    text
}

/// The builder's file of passwords: that of the registry, which ECR takes for bases of other accounts in its region too, and those of
/// `DOCKER_AUTH_CONFIG` for bases elsewhere.
///
/// # Errors
/// Failures of the user: the variable is no such file.
pub(super) fn passwords(
    login: &RegistryLogin,
    host: &PushHost,
    bases: &[String],
    others: Option<&str>,
) -> Result<String, Failure> {
    let mut auths = Map::new();
    if let Some(text) = others {
        let given = serde_json::from_str::<Value>(text).ok();
        let given = given.and_then(|mut value| value["auths"].as_object_mut().map(std::mem::take));
        auths = given.ok_or_else(|| {
            Failure::user("`DOCKER_AUTH_CONFIG` is no JSON object with `auths`")
                .hint("set `DOCKER_AUTH_CONFIG` to the content of a `config.json` of Docker, or remove it")
        })?;
    }
    let pair = STANDARD.encode_to_string(format!("{}:{}", login.user, login.password));
    if let Some(own) = ecr_of(&host.name) {
        let hosts = bases.iter().filter_map(|base| base.split('/').next());
        for base in hosts.filter(|base| ecr_of(base) == Some(own)) {
            auths.entry(base).or_insert_with(|| json!({"auth": pair}));
        }
    }
    auths.insert(host.name.clone(), json!({"auth": pair}));
    Ok(json!({"auths": auths}).to_string())
}

/// The part behind the account in a host of ECR: `ecr.eu-west-1.amazonaws.com`, also of a FIPS endpoint.
fn ecr_of(host: &str) -> Option<&str> {
    let (account, rest) = host.split_once(".dkr.ecr")?;
    let (_, domain) = rest.strip_prefix("-fips").unwrap_or(rest).split_once('.')?;
    let (_, suffix) = domain.split_once('.')?;
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let is_aws = ["amazonaws.com", "amazonaws.com.cn"].contains(&suffix);
    (is_account && is_aws).then_some(domain)
}

/// The builder's policy about signatures: none are asked for, bases are named by their digests.
pub(super) const SIGNATURES: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn login(endpoint: &str) -> RegistryLogin {
        RegistryLogin { endpoint: endpoint.to_owned(), user: "AWS".to_owned(), password: "s3cret".to_owned() }
    }

    #[test_case("https://1.dkr.ecr.eu-west-1.amazonaws.com" => Some(("1.dkr.ecr.eu-west-1.amazonaws.com".to_owned(), false)); "aws")]
    #[test_case("http://127.0.0.1:5000/" => Some(("127.0.0.1:5000".to_owned(), true)); "loopback")]
    #[test_case("http://localhost:5000" => Some(("localhost:5000".to_owned(), true)); "localhost")]
    #[test_case("http://127.0.0.1.example.com" => None; "name like loopback")]
    #[test_case("http://10.0.0.1:5000" => None; "no encryption")]
    #[test_case("https://user@host" => None; "user")]
    #[test_case("https://host/\"\n[[registry]]" => None; "text of a table")]
    #[test_case("" => None; "empty")]
    fn images_are_pushed_to(endpoint: &str) -> Option<(String, bool)> {
        PushHost::of(&login(endpoint)).ok().map(|host| (host.name, host.is_plain))
    }

    #[test]
    fn names_of_the_repository_lead_to_the_host() {
        let repository = ImageRepositorySight {
            account: "1".to_owned(),
            name: "train".to_owned(),
            uri: "1.dkr.ecr.eu-west-1.amazonaws.com/train".to_owned(),
            is_immutable: false,
            exceptions: Vec::new(),
        };
        let host = PushHost::of(&login("http://127.0.0.1:5000")).unwrap();
        let table: toml::Table = registries(&repository, &host).parse().unwrap();
        let entry = |number: usize, key: &str| table["registry"][number][key].to_string();
        assert_eq!(entry(1, "prefix"), "\"1.dkr.ecr.eu-west-1.amazonaws.com\"");
        assert_eq!((entry(1, "location"), entry(1, "insecure")), ("\"127.0.0.1:5000\"".to_owned(), "true".to_owned()));
        let host = PushHost::of(&login("https://1.dkr.ecr.eu-west-1.amazonaws.com")).unwrap();
        assert_eq!(registries(&repository, &host).matches("[[registry]]").count(), 1);
    }

    #[test]
    fn passwords_of_other_registries_are_kept() {
        let host = PushHost::of(&login("https://r")).unwrap();
        let others = r#"{"auths": {"gitlab.example.com": {"auth": "eA=="}, "r": {"auth": "no"}}}"#;
        let file: Value =
            serde_json::from_str(&passwords(&login("https://r"), &host, &[], Some(others)).unwrap()).unwrap();
        assert_eq!(file["auths"]["gitlab.example.com"]["auth"], "eA==");
        assert_eq!(file["auths"]["r"]["auth"], STANDARD.encode_to_string("AWS:s3cret"));
        let error = passwords(&login("https://r"), &host, &[], Some("s3cret")).unwrap_err();
        assert!(!error.message().contains("s3cret"), "{error}");
    }

    #[test_case("763104351884.dkr.ecr.eu-west-1.amazonaws.com/pytorch:2", true; "another account")]
    #[test_case("763104351884.dkr.ecr-fips.eu-west-1.amazonaws.com/pytorch:2", true; "fips")]
    #[test_case("763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2", false; "another region")]
    #[test_case("763104351884.dkr.ecr.eu-west-1.amazonaws.com.example.com/a", false; "a host that looks like one")]
    #[test_case("1.example.dkr.ecr.eu-west-1.amazonaws.com/a", false; "no account")]
    #[test_case("r.example/a", false; "elsewhere")]
    fn the_password_is_for_ecr_of_the_region(base: &str, is_given: bool) {
        let login = login("https://123456789012.dkr.ecr.eu-west-1.amazonaws.com");
        let host = PushHost::of(&login).unwrap();
        let file: Value = serde_json::from_str(&passwords(&login, &host, &[base.to_owned()], None).unwrap()).unwrap();
        assert_eq!(file["auths"].get(base.split('/').next().unwrap()).is_some(), is_given, "{file}");
        let emulator = PushHost { name: "127.0.0.1:5000".to_owned(), is_plain: true };
        let file: Value =
            serde_json::from_str(&passwords(&login, &emulator, &[base.to_owned()], None).unwrap()).unwrap();
        assert_eq!(file["auths"].as_object().unwrap().len(), 1, "{file}");
    }
}
