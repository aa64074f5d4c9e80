//! Destinations in the network that a sandboxed host stage may reach, and addresses that it reaches only by their number. Pure: resolves no
//! name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};

/// One entry of `sandbox.allow`: a name, in which `*` stands for any characters, an address or a range of addresses; each with a port or for
/// all ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DestinationPattern {
    host: HostPattern,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Name(String),
    Range(IpNet),
}

/// The form of a destination is wrong.
#[derive(Debug)]
pub struct NotADestination(String);

impl fmt::Display for NotADestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no destination; write a host, an address or a range, with a port or without: `git.example.com`, `*.example.com:443`, \
             `10.1.0.0/16`, `127.0.0.1:8080`, `[::1]:8080`",
            self.0
        )
    }
}

impl std::error::Error for NotADestination {}

impl TryFrom<String> for DestinationPattern {
    type Error = NotADestination;

    fn try_from(text: String) -> Result<Self, NotADestination> {
        parse(&text).ok_or(NotADestination(text))
    }
}

impl From<DestinationPattern> for String {
    fn from(pattern: DestinationPattern) -> Self {
        let host = match pattern.host {
            HostPattern::Name(name) => name,
            HostPattern::Range(range) if is_single(&range) => range.addr().to_string(),
            HostPattern::Range(range) => range.to_string(),
        };
        match pattern.port {
            Some(port) if host.contains(':') => format!("[{host}]:{port}"),
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }
}

fn parse(text: &str) -> Option<DestinationPattern> {
    if let Some(host) = range(text) {
        return Some(DestinationPattern { host, port: None });
    }
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?.parse().ok()?) };
        return Some(DestinationPattern { host: range(address)?, port });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text, None),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.*".contains(c);
    let name = || (!host.is_empty() && host.chars().all(is_name)).then(|| HostPattern::Name(plain(host)));
    Some(DestinationPattern { host: range(host).or_else(name)?, port })
}

fn range(text: &str) -> Option<HostPattern> {
    let range = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(HostPattern::Range(range.trunc()))
}

fn is_single(range: &IpNet) -> bool {
    range.prefix_len() == range.max_prefix_len()
}

/// A host name in the form in which names are compared.
fn plain(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// All that one job's host stages may reach.
#[derive(Debug, Clone, Default)]
pub struct AllowedDestinations {
    entries: Vec<DestinationPattern>,
    gitlab: Option<(String, u16)>,
}

impl AllowedDestinations {
    /// The operator's entries, and GitLab itself by the address of the repository that its payload has.
    pub fn new(entries: Vec<DestinationPattern>, repository: &str) -> Self {
        Self { entries, gitlab: authority(repository) }
    }

    /// Whether the name may be reached if its addresses may.
    pub fn names(&self, host: &str, port: u16) -> bool {
        self.is_gitlab(host, port)
            || self.of_port(port).any(|host_of| matches!(host_of, HostPattern::Name(glob) if fits(glob, &plain(host))))
    }

    /// Whether addresses of a range may be reached at this port, by any name.
    pub fn has_ranges(&self, port: u16) -> bool {
        self.of_port(port).any(|host_of| matches!(host_of, HostPattern::Range(_)))
    }

    /// Whether a connection to `address`, which `host` was resolved to, may be made. `own` has the addresses of this host's interfaces.
    pub fn permits(&self, host: &str, port: u16, address: IpAddr, own: &[IpAddr]) -> bool {
        let address = address.to_canonical();
        let is_own = !address.is_loopback() && own.contains(&address);
        let is_special = is_special(address);
        // A wide range means the network, and not this host or its metadata service.
        let lists = |range: &IpNet| {
            range.contains(&address) && (!is_own || is_single(range)) && (!is_special || is_all_special(range))
        };
        if self.of_port(port).any(|host_of| matches!(host_of, HostPattern::Range(range) if lists(range))) {
            return true;
        }
        // A name may lead to this host itself only where that is what the operator or GitLab says.
        let lists_localhost = |entry: &HostPattern| matches!(entry, HostPattern::Name(name) if name == "localhost");
        let may_be_here =
            self.is_gitlab(host, port) || (plain(host) == "localhost" && self.of_port(port).any(lists_localhost));
        let is_fit = if is_special { may_be_here && address.is_loopback() } else { may_be_here || !is_own };
        self.names(host, port) && is_fit
    }

    /// Loopback addresses of this host that a stage reaches under the same address in its own network. Programs connect to these without
    /// any proxy.
    pub fn loopback(&self) -> Vec<SocketAddr> {
        let localhost = |port| {
            [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)].map(|ip| SocketAddr::new(ip, port))
        };
        let mut found = Vec::new();
        for DestinationPattern { host, port } in &self.entries {
            match (host, *port) {
                (HostPattern::Range(range), Some(port)) if is_single(range) => {
                    found.push(SocketAddr::new(range.addr(), port));
                }
                (HostPattern::Name(name), Some(port)) if name == "localhost" => found.extend(localhost(port)),
                _ => {}
            }
        }
        if let Some((host, port)) = &self.gitlab {
            match host.parse() {
                Ok(address) => found.push(SocketAddr::new(address, *port)),
                Err(_) if host == "localhost" => found.extend(localhost(*port)),
                Err(_) => {}
            }
        }
        found.retain(|address| address.ip().is_loopback());
        found.sort_unstable();
        found.dedup();
        found
    }

    fn is_gitlab(&self, host: &str, port: u16) -> bool {
        self.gitlab.as_ref().is_some_and(|(name, of)| *name == plain(host) && *of == port)
    }

    fn of_port(&self, port: u16) -> impl Iterator<Item = &HostPattern> {
        self.entries.iter().filter(move |entry| entry.port.is_none_or(|of| of == port)).map(|entry| &entry.host)
    }
}

/// Host and port of an `http://` or `https://` address.
fn authority(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    host_and_port(rest.split(['/', '?', '#']).next()?, Some(default))
}

/// Splits `user@host:port`; a missing port is the given one. An IPv6 address stands in brackets, which are left out.
pub fn host_and_port(authority: &str, default: Option<u16>) -> Option<(String, u16)> {
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some(port) if !port.is_empty() => port.parse().ok()?,
        _ => default?,
    };
    (!host.is_empty()).then(|| (plain(host), port))
}

/// `*` stands for any characters.
fn fits(glob: &str, text: &str) -> bool {
    match glob.split_once('*') {
        None => glob == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| fits(rest, text.split_at(at).1))
        }),
    }
}

/// Whether a range has special addresses alone.
fn is_all_special(range: &IpNet) -> bool {
    range.prefix_len() >= 8 && is_special(range.network()) && is_special(range.broadcast())
}

/// Addresses of this host itself, of its link with the metadata service on it, and such that belong to no single host.
fn is_special(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_special_v4(address),
        IpAddr::V6(address) => is_special_v6(address),
    }
}

fn is_special_v4(address: Ipv4Addr) -> bool {
    address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.octets().first() == Some(&0)
}

fn is_special_v6(address: Ipv6Addr) -> bool {
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_unicast_link_local()
        || METADATA.contains(&address)
        || embedded(address).is_some_and(is_special_v4)
}

/// The metadata services of EC2 over IPv6.
const METADATA: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32);

/// The IPv4 address that gateways find in an IPv6 address: NAT64, 6to4, and the old form of IPv4-compatible addresses.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, _, _, _, _, high, low] | [0x2002, high, low, ..] => {
            Some(of(high, low))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(entries: &[&str]) -> AllowedDestinations {
        let entries = entries.iter().map(|text| DestinationPattern::try_from((*text).to_owned()).unwrap()).collect();
        AllowedDestinations::new(entries, "https://gitlab-ci-token:x@Gitlab.Example.com:8443/ml/churn.git")
    }

    fn permits(entries: &[&str], host: &str, port: u16, address: &str) -> bool {
        allowed(entries).permits(host, port, address.parse().unwrap(), &OWN.map(IpAddr::from))
    }

    const OWN: [Ipv4Addr; 2] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 0, 0, 5)];

    #[test]
    fn only_gitlab_is_reached_without_an_entry() {
        assert!(permits(&[], "gitlab.example.com.", 8443, "10.0.0.9"));
        assert!(permits(&[], "GITLAB.example.com", 8443, "127.0.1.1"));
        assert!(!permits(&[], "gitlab.example.com", 8443, "169.254.169.254"));
        assert!(!permits(&[], "gitlab.example.com", 22, "10.0.0.9"));
        assert!(!permits(&[], "example.com", 443, "10.0.0.9"));
    }

    #[test]
    fn a_name_never_opens_a_special_address() {
        let special = [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.170.2",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
        ];
        for address in special {
            assert!(!permits(&["*"], "rebound.example.com", 443, address), "{address}");
        }
        // Programs and resolvers read these names as numbers; what counts is the address.
        for name in ["2130706433", "0x7f.1", "0177.0.0.1", "127.1"] {
            assert!(!permits(&["*"], name, 443, "127.0.0.1"), "{name}");
        }
        for address in ["10.0.0.1", "93.184.216.34", "2606:2800::1", "::ffff:10.0.0.1"] {
            assert!(permits(&["*"], "a.example.com", 443, address), "{address}");
        }
    }

    #[test]
    fn a_range_opens_what_it_says() {
        assert!(permits(&["169.254.169.254"], "x", 80, "169.254.169.254"));
        assert!(permits(&["127.0.0.1:4566"], "anything", 4566, "::ffff:127.0.0.1"));
        assert!(!permits(&["127.0.0.1:4566"], "anything", 4567, "127.0.0.1"));
        assert!(permits(&["10.1.0.0/16"], "x", 443, "10.1.9.9"));
        assert!(!permits(&["10.1.0.0/16"], "x", 443, "10.2.0.0"));
        assert!(permits(&["[fd00::]:443"], "x", 443, "fd00::"));
        assert!(permits(&["localhost:80"], "localhost", 80, "::1"));
        assert!(!permits(&["localhost:80"], "other", 80, "::1"));
        assert!(!permits(&["*", "local*"], "localhost", 80, "127.0.0.1"));
    }

    #[test]
    fn an_address_of_this_host_is_opened_by_itself_alone() {
        for entry in ["*", "host.example.com", "10.0.0.0/8", "10.0.0.5:81"] {
            assert!(!permits(&[entry], "host.example.com", 80, "10.0.0.5"), "{entry}");
            assert!(!permits(&[entry], "10.0.0.5", 80, "::ffff:10.0.0.5"), "{entry}");
        }
        assert!(permits(&["10.0.0.5:80"], "host.example.com", 80, "10.0.0.5"));
        // A GitLab on the same host.
        assert!(permits(&[], "gitlab.example.com", 8443, "10.0.0.5"));
        assert!(permits(&["127.0.0.0/8"], "x", 80, "127.0.0.1"));
    }

    #[test]
    fn names_are_compared_whole() {
        let allowed = allowed(&["*.example.com:443", "git-*.corp", "a*b*c"]);
        for (host, port) in
            [("x.example.com", 443), ("x.y.EXAMPLE.com", 443), ("git-1.corp", 22), ("abc", 1), ("axxbxxc", 1)]
        {
            assert!(allowed.names(host, port), "{host}");
        }
        for (host, port) in
            [("example.com", 443), ("x.example.com", 80), ("x.example.com.evil", 443), ("git-1.corp.x", 1), ("acb", 1)]
        {
            assert!(!allowed.names(host, port), "{host}");
        }
    }

    #[test]
    fn a_destination_has_one_of_the_forms() {
        for wrong in ["", ":80", "https://x", "a b", "x:port", "x:70000", "[::1", "[::1]80", "::1:80/x", "10.0.0.0/33"]
        {
            assert!(DestinationPattern::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn loopback_addresses_are_forwarded_under_their_own_number() {
        let found = allowed(&["127.0.0.1:80", "127.0.0.0/8:81", "10.0.0.1:82", "localhost:83", "127.0.0.1"]).loopback();
        assert_eq!(found, ["127.0.0.1:80", "127.0.0.1:83", "[::1]:83"].map(|text| text.parse().unwrap()));
        assert_eq!(
            AllowedDestinations::new(Vec::new(), "http://t@127.0.0.1:9/x").loopback(),
            ["127.0.0.1:9".parse().unwrap()]
        );
        assert_eq!(AllowedDestinations::new(Vec::new(), "http://[::1]/x").loopback(), ["[::1]:80".parse().unwrap()]);
    }
}
