//! Heads of requests to the sandbox's proxy. Pure.

use base64_simd::STANDARD as BASE64;

use crate::base::destination::host_and_port;

/// Longest head.
pub(super) const MOST_BYTES: usize = 64 << 10;
const MOST_HEADERS: usize = 128;

/// A request as its head tells it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProxyRequest {
    pub(super) host: String,
    pub(super) port: u16,
    /// `None` for a tunnel; else the head without its first line, made for a single request.
    pub(super) plain: Option<PlainRequest>,
}

/// A request for `http://`, which a proxy makes itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PlainRequest {
    method: String,
    authority: String,
    path: String,
    headers: Vec<u8>,
    /// Bytes of the body.
    pub(super) body: u64,
}

impl PlainRequest {
    /// The head for the server itself.
    pub(super) fn direct(&self) -> Vec<u8> {
        self.head(&self.path, "")
    }

    /// The head for another proxy.
    pub(super) fn through(&self, upstream: &Upstream) -> Vec<u8> {
        self.head(&format!("http://{}{}", self.authority, self.path), &upstream.authorization())
    }

    fn head(&self, target: &str, authorization: &str) -> Vec<u8> {
        let mut head = format!("{} {target} HTTP/1.1\r\n{authorization}", self.method).into_bytes();
        head.extend(&self.headers);
        head.extend(b"Connection: close\r\n\r\n");
        head
    }
}

/// Reads a head; `Ok(None)` when it is not complete, else also its length.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(ProxyRequest, usize)>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("not a request of HTTP/1"),
    };
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    if method == "CONNECT" {
        let (host, port) = host_and_port(target, None).ok_or("CONNECT needs a host and a port")?;
        return Ok(Some((ProxyRequest { host, port, plain: None }, length)));
    }
    // It would return the head, with what another proxy is told.
    if method.eq_ignore_ascii_case("TRACE") {
        return Err("the sandbox's proxy takes no TRACE");
    }
    let rest = strip_scheme(target).ok_or("the target of a request to a proxy begins with http://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (host, port) = host_and_port(authority, Some(80)).ok_or("the target has no host")?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut kept = Vec::new();
    for header in request.headers.iter().filter(|header| !is_for_proxy(header.name)) {
        kept.extend(header.name.as_bytes());
        kept.extend(b": ");
        kept.extend(header.value);
        kept.extend(b"\r\n");
    }
    let body = body_length(request.headers)?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_owned();
    let plain = PlainRequest { method: method.to_owned(), authority, path, headers: kept, body };
    Ok(Some((ProxyRequest { host, port, plain: Some(plain) }, length)))
}

/// Length of the body by its head. A body without a length is refused: where it ends could not be told.
fn body_length(headers: &[httparse::Header<'_>]) -> Result<u64, &'static str> {
    if headers.iter().any(|header| header.name.eq_ignore_ascii_case("transfer-encoding")) {
        return Err("the sandbox's proxy takes no Transfer-Encoding; use https");
    }
    let mut lengths = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("content-length"));
    let Some(length) = lengths.next() else { return Ok(0) };
    let length = std::str::from_utf8(length.value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match (length.and_then(|text| text.parse().ok()), lengths.next()) {
        (Some(length), None) => Ok(length),
        _ => Err("the Content-Length is no number, or there are two"),
    }
}

fn strip_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    scheme.eq_ignore_ascii_case("http").then_some(rest)
}

/// Headers of the connection to the proxy. Each connection carries one request, since the next could be for another host.
fn is_for_proxy(name: &str) -> bool {
    ["connection", "proxy-connection", "proxy-authorization", "keep-alive"]
        .iter()
        .any(|own| name.eq_ignore_ascii_case(own))
}

/// A proxy that the operator set in the environment of the runner's service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) host: String,
    pub(super) port: u16,
    user: Option<String>,
}

impl Upstream {
    /// `http://user:password@host:port`, as in `https_proxy`; `None` for other forms.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let rest = if url.contains("://") { strip_scheme(url)? } else { url };
        let authority = rest.split('/').next()?;
        let (host, port) = host_and_port(authority, Some(80))?;
        Some(Self { host, port, user: authority.rsplit_once('@').map(|(user, _)| decoded(user)) })
    }

    /// The head that asks it for a tunnel.
    pub(super) fn tunnel(&self, host: &str, port: u16) -> Vec<u8> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{}\r\n", self.authorization()).into_bytes()
    }

    fn authorization(&self) -> String {
        self.user.as_ref().map_or_else(String::new, |user| {
            format!("Proxy-Authorization: Basic {}\r\n", BASE64.encode_to_string(user.as_bytes()))
        })
    }
}

fn decoded(user: &str) -> String {
    urlencoding::decode(user).map_or_else(|_| user.to_owned(), std::borrow::Cow::into_owned)
}

/// Whether `no_proxy` lists the host: a name, or the end of one.
pub(super) fn is_excepted(no_proxy: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    no_proxy.split([',', ' ']).map(|entry| entry.trim().trim_start_matches("*.").trim_start_matches('.')).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        entry == "*" || (!entry.is_empty() && (host == entry || host.ends_with(&format!(".{entry}"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ProxyRequest {
        let (request, length) = parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(length, text.find("\r\n\r\n").unwrap() + 4);
        request
    }

    #[test]
    fn a_tunnel_names_host_and_port() {
        let request = read("CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: other\r\n\r\nhello");
        assert_eq!((request.host.as_str(), request.port, request.plain), ("2001:db8::1", 443, None));
        for wrong in
            ["CONNECT a HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET https://a/ HTTP/1.1\r\n\r\n", "\u{1}\r\n\r\n"]
        {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert_eq!(parse(b"CONNECT a:1 HTTP/1.1\r\n"), Ok(None));
    }

    #[test]
    fn a_plain_request_is_made_for_its_server_alone() {
        let request = read(
            "POST HTTP://u:p@Git.example.com:8080/a?b HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nProxy-Authorization: s\r\nA: b\r\n\r\n",
        );
        assert_eq!((request.host.as_str(), request.port), ("git.example.com", 8080));
        let plain = request.plain.unwrap();
        assert_eq!(plain.direct(), b"POST /a?b HTTP/1.1\r\nHost: x\r\nA: b\r\nConnection: close\r\n\r\n");
        let upstream = Upstream::parse("http://u:p%40@proxy:3128/").unwrap();
        let through = String::from_utf8(plain.through(&upstream)).unwrap();
        assert!(
            through.starts_with(
                "POST http://Git.example.com:8080/a?b HTTP/1.1\r\nProxy-Authorization: Basic dTpwQA==\r\n"
            ),
            "{through}"
        );
        assert_eq!(
            upstream.tunnel("::1", 5),
            b"CONNECT [::1]:5 HTTP/1.1\r\nHost: [::1]:5\r\nProxy-Authorization: Basic dTpwQA==\r\n\r\n"
        );
        assert_eq!(
            read("GET http://a?x HTTP/1.1\r\n\r\n").plain.unwrap().direct(),
            b"GET /?x HTTP/1.1\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn names_without_a_proxy() {
        for host in ["corp", "a.corp", "A.Corp."] {
            assert!(is_excepted("x, .corp", host), "{host}");
        }
        assert!(is_excepted("*", "a") && !is_excepted("corp", "acorp") && !is_excepted("", "a"));
        assert_eq!(Upstream::parse("socks5://a:1"), None);
    }
}
