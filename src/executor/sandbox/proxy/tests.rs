//! The proxy of a sandbox, with a resolver whose answers change.

use super::*;
use crate::base::destination::DestinationPattern;

/// Each call takes the next answer.
struct Answers(Mutex<Vec<Vec<&'static str>>>);

#[async_trait]
impl Resolve for Answers {
    async fn addresses(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        let answer = self.0.lock().pop().ok_or(io::ErrorKind::NotFound)?;
        Ok(answer.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn own_addresses(&self) -> io::Result<Vec<IpAddr>> {
        Ok(vec!["192.0.2.5".parse().unwrap()])
    }
}

/// A proxy; the answers are given last to first.
fn proxy(allow: &[&str], answers: &[&[&'static str]]) -> (Arc<Proxy>, crate::ui::Captured) {
    let (printer, captured) = Printer::captured();
    let entries = allow.iter().map(|text| DestinationPattern::try_from((*text).to_owned()).unwrap()).collect();
    let proxy = Proxy {
        allowed: AllowedDestinations::new(entries, "https://gitlab.example.com/ml/churn.git"),
        upstreams: Upstreams::default(),
        resolver: Arc::new(Answers(Mutex::new(answers.iter().map(|answer| answer.to_vec()).collect()))),
        printer,
        told: Mutex::default(),
    };
    (Arc::new(proxy), captured)
}

fn tunnel(host: &str, port: u16) -> ProxyRequest {
    ProxyRequest { host: host.to_owned(), port, plain: None }
}

#[tokio::test]
async fn a_name_that_is_bound_anew_leads_to_the_address_that_was_judged() {
    let (proxy, _) = proxy(&["*.evil.example"], &[&["169.254.169.254"], &["203.0.113.7"]]);
    let way = proxy.way(&tunnel("a.evil.example", 80)).await.unwrap();
    assert_eq!(way, Way::Direct(vec!["203.0.113.7:80".parse().unwrap()]));
    assert!(proxy.way(&tunnel("a.evil.example", 80)).await.is_err());
}

#[tokio::test]
async fn of_several_addresses_only_those_that_may_be_reached_are_tried() {
    let (proxy, _) = proxy(&["mixed"], &[&["127.0.0.1", "fd00:ec2::254", "203.0.113.7", "::ffff:169.254.169.254"]]);
    let way = proxy.way(&tunnel("mixed", 443)).await.unwrap();
    assert_eq!(way, Way::Direct(vec!["203.0.113.7:443".parse().unwrap()]));
}

#[tokio::test]
async fn an_address_of_this_host_is_not_tried() {
    let (proxy, _) = proxy(&["*"], &[&["192.0.2.5"], &["192.0.2.5", "203.0.113.7"]]);
    let way = proxy.way(&tunnel("host.example", 22)).await.unwrap();
    assert_eq!(way, Way::Direct(vec!["203.0.113.7:22".parse().unwrap()]));
    assert!(proxy.way(&tunnel("host.example", 22)).await.is_err());
}

#[test]
fn this_host_has_a_loopback() {
    assert!(HostResolver.own_addresses().unwrap().contains(&"127.0.0.1".parse().unwrap()));
}

#[tokio::test]
async fn a_refusal_is_told_once_with_the_key() {
    let (proxy, captured) = proxy(&[], &[&["203.0.113.7"], &["203.0.113.7"]]);
    for _ in 0..2 {
        let Refusal(status, why) = proxy.way(&tunnel("other.example", 443)).await.unwrap_err();
        assert!(status.starts_with("403") && why.contains("other.example:443"), "{why}");
    }
    assert_eq!(captured.text().matches("other.example:443").count(), 1);
    assert!(captured.text().contains("`sandbox.allow`"));
}

#[tokio::test]
async fn behind_the_operators_proxy_names_may_be_unknown_here() {
    let (proxy, _) = proxy(&["far.example"], &[&["169.254.169.254"]]);
    let mut proxy = Arc::into_inner(proxy).unwrap();
    let upstream = Upstream::parse("http://proxy.example:3128").unwrap();
    proxy.upstreams = Upstreams { http: None, https: Some(upstream.clone()), no_proxy: "near.example".to_owned() };
    // Known, and refused for its address.
    assert!(proxy.way(&tunnel("far.example", 443)).await.is_err());
    assert_eq!(proxy.way(&tunnel("far.example", 443)).await.unwrap(), Way::Through(upstream, None));
    assert!(proxy.way(&tunnel("near.example", 443)).await.is_err());
    assert!(proxy.way(&tunnel("metadata", 80)).await.is_err());
}

/// A server on this machine that answers each connection with what it received.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; 4096];
            let count = stream.read(&mut bytes).await.unwrap();
            stream.write_all(&bytes[..count]).await.unwrap();
        }
    });
    address
}

/// Sends bytes to a served socket and returns all that comes back.
async fn ask(proxy: Arc<Proxy>, forward: Option<SocketAddr>, sent: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(proxy.serve(listener, forward));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    served.abort();
    text
}

#[tokio::test]
async fn requests_reach_an_address_that_is_listed_and_no_other() {
    let server = echo().await;
    let listed = server.to_string();
    let own: &[&[&'static str]] = &[&["127.0.0.1"]];
    let head = format!("CONNECT {listed} HTTP/1.1\r\n\r\nhello");
    let text = ask(proxy(&[&listed], own).0, None, &head).await;
    assert_eq!(text, "HTTP/1.1 200 Connection established\r\n\r\nhello");
    let text = ask(proxy(&[&listed], own).0, None, &format!("GET http://{listed}/x HTTP/1.1\r\nA: b\r\n\r\n")).await;
    assert_eq!(text, "GET /x HTTP/1.1\r\nA: b\r\nConnection: close\r\n\r\n");
    assert_eq!(ask(proxy(&[], own).0, Some(server), "raw").await, "raw");
    assert!(ask(proxy(&["*"], own).0, None, &head).await.starts_with("HTTP/1.1 403 "));
    assert!(ask(proxy(&["*"], own).0, None, "GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
}

/// A proxy behind which the operator's own proxy stands, for both kinds of requests.
fn behind(upstream: SocketAddr, allow: &[&str], answers: &[&[&'static str]]) -> Arc<Proxy> {
    let mut proxy = Arc::into_inner(proxy(allow, answers).0).unwrap();
    let upstream = Upstream::parse(&format!("http://user:secret@{upstream}"));
    proxy.upstreams = Upstreams { http: upstream.clone(), https: upstream, no_proxy: String::new() };
    Arc::new(proxy)
}

const FAR_AND_UPSTREAM: &[&[&str]] = &[&["127.0.0.1"], &["203.0.113.7"]];

#[tokio::test]
async fn another_proxy_gets_one_judged_request_and_no_more() {
    let server = echo().await;
    let asked =
        "POST http://far.example/x HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiCONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n";
    let text = ask(behind(server, &["far.example"], FAR_AND_UPSTREAM), None, asked).await;
    assert!(text.starts_with("POST http://far.example/x HTTP/1.1\r\nProxy-Authorization: "), "{text}");
    assert!(!text.contains("169.254"), "{text}");
    for refused in [
        "TRACE http://far.example/ HTTP/1.1\r\n\r\n",
        "POST http://far.example/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST http://far.example/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST http://far.example/ HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
    ] {
        let text = ask(behind(server, &["far.example"], FAR_AND_UPSTREAM), None, refused).await;
        assert!(text.starts_with("HTTP/1.1 400 ") && !text.contains("Proxy-Authorization"), "{refused}: {text}");
    }
}

#[tokio::test]
async fn another_proxy_gets_the_address_that_was_judged_when_a_range_allows_it() {
    let server = echo().await;
    let asked = "CONNECT moved.example:443 HTTP/1.1\r\n\r\n";
    let text = ask(behind(server, &["203.0.113.0/24"], FAR_AND_UPSTREAM), None, asked).await;
    assert!(text.starts_with("CONNECT 203.0.113.7:443 HTTP/1.1\r\n") && !text.contains("moved"), "{text}");
    let plain = "GET http://moved.example/ HTTP/1.1\r\n\r\n";
    let text = ask(behind(server, &["203.0.113.0/24:80"], FAR_AND_UPSTREAM), None, plain).await;
    assert!(text.starts_with("HTTP/1.1 403 "), "{text}");
}

#[tokio::test]
async fn a_name_that_nothing_allows_is_not_asked_for() {
    let (proxy, _) = proxy(&["other.example"], &[&["203.0.113.7"]]);
    assert!(proxy.way(&tunnel("stolen-data.attacker.example", 443)).await.is_err());
    assert!(proxy.way(&tunnel("other.example", 443)).await.is_ok(), "the only answer is still there");
}

#[tokio::test]
async fn a_wide_range_opens_neither_this_host_nor_its_metadata_service() {
    for range in ["0.0.0.0/0", "::/0", "169.0.0.0/8", "126.0.0.0/7"] {
        let (proxy, _) = proxy(&[range], &[&["127.0.0.1", "169.254.169.254", "fd00:ec2::254", "::1", "0.0.0.0"]]);
        assert!(proxy.way(&tunnel("host.example", 80)).await.is_err(), "{range}");
    }
    for (range, address) in
        [("127.0.0.0/8", "127.0.0.1"), ("169.254.169.254", "169.254.169.254"), ("fd00:ec2::/32", "fd00:ec2::254")]
    {
        let (proxy, _) = proxy(&[range], &[&[address]]);
        assert!(proxy.way(&tunnel("host.example", 80)).await.is_ok(), "{range}");
    }
}
