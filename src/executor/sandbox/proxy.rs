//! The one way out of a sandbox: a proxy in the driver that resolves names itself, and connects only to addresses that the operator allows.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::base::destination::AllowedDestinations;
use crate::base::plain;
use crate::sandbox::head::{self, ProxyRequest, Upstream};
use crate::ui::Printer;

/// Connections at a time.
const CONNECTIONS: usize = 256;
/// Longest wait for the head of a request, and for a connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// Buffer of each direction.
const BUFFER: usize = 64 << 10;
/// Most refused destinations that the job log names.
const MOST_TOLD: usize = 10;
/// Longest of them.
const LONGEST_NAME: usize = 260;

/// Resolves names, as a port.
#[async_trait]
pub(super) trait Resolve: Send + Sync {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>>;
    /// The addresses of this host's interfaces at this moment.
    fn own_addresses(&self) -> io::Result<Vec<IpAddr>>;
}

/// The host's own resolver.
pub(super) struct HostResolver;

#[async_trait]
impl Resolve for HostResolver {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }

    fn own_addresses(&self) -> io::Result<Vec<IpAddr>> {
        Ok(if_addrs::get_if_addrs()?.iter().map(if_addrs::Interface::ip).collect())
    }
}

/// The operator's own proxies, from the driver's environment.
#[derive(Debug, Clone, Default)]
pub(super) struct Upstreams {
    pub(super) http: Option<Upstream>,
    pub(super) https: Option<Upstream>,
    pub(super) no_proxy: String,
}

/// The way on to a destination.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Direct(Vec<SocketAddr>),
    /// The other proxy gets the name, or this address where only the address was judged.
    Through(Upstream, Option<IpAddr>),
}

/// Why a connection is not made, for the program inside.
#[derive(Debug)]
struct Refusal(&'static str, String);

/// The proxy of one stage.
pub(super) struct Proxy {
    pub(super) allowed: AllowedDestinations,
    pub(super) upstreams: Upstreams,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) printer: Printer,
    pub(super) told: Mutex<BTreeSet<String>>,
}

impl Proxy {
    /// Serves one of the sandbox's sockets. `forward` is the address that its connections lead to; without it they ask the proxy.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, forward: Option<SocketAddr>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let proxy = Arc::clone(&self);
            tokio::spawn(async move {
                let _place = place;
                let served = match forward {
                    Some(address) => proxy.forward(stream, address).await,
                    None => proxy.answer(stream).await,
                };
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection of the sandbox ended");
                }
            });
        }
    }

    async fn forward(&self, mut inside: TcpStream, address: SocketAddr) -> io::Result<()> {
        let mut outside = connect(&[address]).await?;
        copy(&mut inside, &mut outside).await
    }

    async fn answer(&self, mut inside: TcpStream) -> io::Result<()> {
        let (request, rest) = match timeout(PATIENCE, read_head(&mut inside)).await {
            Ok(Ok(Ok(read))) => read,
            Ok(Ok(Err(why))) => return reply(&mut inside, "400 Bad Request", why).await,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let way = match self.way(&request).await {
            Ok(way) => way,
            Err(Refusal(status, why)) => return reply(&mut inside, status, &why).await,
        };
        let to = match &way {
            Way::Direct(addresses) => connect(addresses).await,
            Way::Through(upstream, _) => match self.resolver.addresses(&upstream.host).await {
                Ok(addresses) => connect(&with_port(addresses, upstream.port)).await,
                Err(error) => Err(error),
            },
        };
        let mut outside = match to {
            Ok(outside) => outside,
            Err(error) => return reply(&mut inside, "502 Bad Gateway", &format!("failed to connect: {error}")).await,
        };
        match (&request.plain, &way) {
            (None, Way::Direct(_)) => inside.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?,
            (None, Way::Through(upstream, address)) => {
                let host = address.map_or_else(|| request.host.clone(), |address| address.to_string());
                outside.write_all(&upstream.tunnel(&host, request.port)).await?;
            }
            (Some(plain), Way::Direct(_)) => outside.write_all(&plain.direct()).await?,
            (Some(plain), Way::Through(upstream, _)) => {
                return one_exchange(&mut inside, &mut outside, plain.through(upstream), &rest, plain.body).await;
            }
        }
        outside.write_all(&rest).await?;
        copy(&mut inside, &mut outside).await
    }

    /// Resolves the name once; the connection is made to an address that was judged, so that no second answer counts.
    async fn way(&self, request: &ProxyRequest) -> Result<Way, Refusal> {
        let (host, port) = (request.host.as_str(), request.port);
        let upstream = self.upstream(request);
        let is_named = self.allowed.names(host, port);
        // A name that nothing allows is not resolved: the question itself would leave the host.
        if !is_named && !self.allowed.has_ranges(port) && host.parse::<IpAddr>().is_err() {
            return Err(self.refuse(host, port));
        }
        let resolved = self.resolver.addresses(host).await;
        match resolved {
            Ok(addresses) => {
                let own = self.resolver.own_addresses().map_err(|error| {
                    Refusal("502 Bad Gateway", format!("failed to list the addresses of the host: {error}"))
                })?;
                let is_allowed = |address: &IpAddr| self.allowed.permits(host, port, *address, &own);
                let judged: Vec<_> = addresses.into_iter().filter(is_allowed).collect();
                if judged.is_empty() {
                    return Err(self.refuse(host, port));
                }
                match upstream {
                    None => Ok(Way::Direct(with_port(judged, port))),
                    Some(upstream) if is_named => Ok(Way::Through(upstream, None)),
                    // The other proxy could resolve the name to another address.
                    Some(upstream) if request.plain.is_none() => Ok(Way::Through(upstream, judged.first().copied())),
                    Some(_) => Err(self.refuse(host, port)),
                }
            }
            Err(_) if !is_named => Err(self.refuse(host, port)),
            // Behind a proxy the host often knows no names of the outside.
            Err(error) => upstream
                .map(|upstream| Way::Through(upstream, None))
                .ok_or_else(|| Refusal("502 Bad Gateway", format!("failed to resolve the name of the host: {error}"))),
        }
    }

    fn upstream(&self, request: &ProxyRequest) -> Option<Upstream> {
        let upstreams = &self.upstreams;
        let upstream = if request.plain.is_some() { &upstreams.http } else { &upstreams.https };
        upstream.clone().filter(|_| !head::is_excepted(&upstreams.no_proxy, &request.host))
    }

    /// The job log names each refused destination once.
    fn refuse(&self, host: &str, port: u16) -> Refusal {
        let to = plain::line(&format!("{host}:{port}"), LONGEST_NAME);
        let mut told = self.told.lock();
        if told.len() < MOST_TOLD && told.insert(to.clone()) {
            self.printer.warn(format!(
                "the sandbox refused a connection to {to}; a destination besides GitLab must be listed in `sandbox.allow` of the operator's file, \
                 and one of the host itself or of the metadata service by its address"
            ));
        }
        Refusal("403 Forbidden", format!("the sandbox refuses connections to {to}; see `sandbox.allow`"))
    }
}

fn with_port(addresses: Vec<IpAddr>, port: u16) -> Vec<SocketAddr> {
    addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()
}

async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    timeout(PATIENCE, TcpStream::connect(addresses)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Sends the body of one request and returns its answer: the connection to another proxy carries nothing else, since a further request
/// would not be judged.
async fn one_exchange(
    inside: &mut TcpStream,
    outside: &mut TcpStream,
    mut head: Vec<u8>,
    rest: &[u8],
    body: u64,
) -> io::Result<()> {
    let begun = rest.get(..usize::try_from(body).unwrap_or(usize::MAX)).unwrap_or(rest);
    head.extend_from_slice(begun);
    outside.write_all(&head).await?;
    let left = body.saturating_sub(begun.len() as u64);
    let (mut from_inside, mut to_inside) = inside.split();
    let (mut from_outside, mut to_outside) = outside.split();
    let mut body = (&mut from_inside).take(left);
    let answer = tokio::io::copy(&mut from_outside, &mut to_inside);
    tokio::pin!(answer);
    tokio::select! {
        sent = tokio::io::copy(&mut body, &mut to_outside) => {
            sent?;
        }
        answered = &mut answer => return answered.map(drop),
    }
    // Read and dropped, since a socket with unread bytes is reset, and the end of the answer with it.
    let further = async {
        let _ = tokio::io::copy(&mut from_inside, &mut tokio::io::sink()).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answered = answer => answered.map(drop),
        () = further => Ok(()),
    }
}

async fn copy(inside: &mut TcpStream, outside: &mut TcpStream) -> io::Result<()> {
    tokio::io::copy_bidirectional_with_sizes(inside, outside, BUFFER, BUFFER).await.map(|_| ())
}

/// Reads a head, and the bytes behind it that came with it.
async fn read_head(stream: &mut TcpStream) -> io::Result<Result<(ProxyRequest, Vec<u8>), &'static str>> {
    let mut bytes = Vec::new();
    loop {
        if bytes.len() > head::MOST_BYTES {
            return Ok(Err("the head of the request is too long"));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(Err("the request ended in its head"));
        }
        match head::parse(&bytes) {
            Ok(Some((request, length))) => return Ok(Ok((request, bytes.split_off(length)))),
            Ok(None) => {}
            Err(why) => return Ok(Err(why)),
        }
    }
}

async fn reply(stream: &mut TcpStream, status: &str, why: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        why.len() + 1
    );
    stream.write_all(format!("{head}{why}\n").as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests;
