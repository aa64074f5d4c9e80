//! A proxy in front of the emulator. It counts requests, holds the one with a given number or the first with given words, and keeps them
//! all if asked to.
//!
//! Each connection carries one request: the head gets `connection: close`, and the reply ends with the connection. The request is
//! read whole before it is sent on, so a held request has not taken effect, and a held reply belongs to one that has.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// The point at which a request is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The emulator has not seen the request.
    Before,
    /// The emulator has answered, and the driver has not seen the reply.
    After,
}

/// A running proxy; it takes no connection once dropped.
pub(crate) struct Proxy {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    state: Mutex<State>,
    changed: Condvar,
    /// Every request, whole but for the files of the agent.
    kept: Option<Mutex<Vec<Vec<u8>>>>,
}

#[derive(Default)]
struct State {
    seen: u64,
    hold: Option<(u64, Hold)>,
    /// As [`Proxy::hold_words`] says, until that request comes.
    words: Option<(Vec<String>, Hold)>,
    /// First line of the request that is held.
    held: Option<String>,
    /// `true`: the held request, or its reply, goes on; `false`: its connection is closed.
    verdict: Option<bool>,
    ended: bool,
}

impl Proxy {
    /// In front of `http://<address>`.
    pub(crate) fn start(endpoint: &str) -> Self {
        Self::with(endpoint, None)
    }

    /// One that keeps what it sends on; see [`kept`](Self::kept).
    pub(crate) fn keeping(endpoint: &str) -> Self {
        Self::with(endpoint, Some(Mutex::default()))
    }

    fn with(endpoint: &str, kept: Option<Mutex<Vec<Vec<u8>>>>) -> Self {
        let upstream = endpoint.strip_prefix("http://").expect("the emulator speaks plain HTTP").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { upstream, state: Mutex::default(), changed: Condvar::new(), kept });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if own.state.lock().unwrap().ended {
                    break;
                }
                let shared = Arc::clone(&own);
                // A driver that was killed closes its connections: that is no error of the proxy's.
                std::thread::spawn(move || shared.relay(client).ok());
            }
        });
        Self { url, shared }
    }

    /// Restarts the count, and holds the request with this number, from 1.
    pub(crate) fn arm(&self, hold: Option<(u64, Hold)>) {
        *self.shared.state.lock().unwrap() = State { hold, ..State::default() };
    }

    /// Holds the first request that has all the words in its head or body, besides those that are held already.
    pub(crate) fn hold_words(&self, words: &[&str], hold: Hold) {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        *self.shared.state.lock().unwrap() = State { words: Some((words, hold)), ..State::default() };
    }

    /// First line of the request that is held now.
    pub(crate) fn held(&self) -> Option<String> {
        self.shared.state.lock().unwrap().held.clone()
    }

    /// Ends the hold: the request or reply is sent on, or its connection is closed.
    pub(crate) fn settle(&self, goes_on: bool) {
        self.shared.state.lock().unwrap().verdict = Some(goes_on);
        self.shared.changed.notify_all();
    }

    /// Every request so far, head and body.
    pub(crate) fn kept(&self) -> Vec<Vec<u8>> {
        self.shared.kept.as_ref().map(|kept| kept.lock().unwrap().clone()).unwrap_or_default()
    }

    /// Requests since it was armed.
    pub(crate) fn seen(&self) -> u64 {
        self.shared.state.lock().unwrap().seen
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().ended = true;
        self.settle(false);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

impl Shared {
    fn relay(&self, mut client: TcpStream) -> std::io::Result<()> {
        let Some(request) = read_request(&mut client)? else { return Ok(()) };
        let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
        let number = {
            let mut state = self.state.lock().unwrap();
            state.seen += 1;
            if state.words.as_ref().is_some_and(|(words, _)| words.iter().all(|word| has(&request, word))) {
                state.hold = state.words.take().map(|(_, hold)| (state.seen, hold));
            }
            state.seen
        };
        if !self.pass(number, Hold::Before, &line) {
            return Ok(());
        }
        if let Some(kept) = &self.kept {
            let length = if line.contains("/agents/") { head_length(&request) } else { None };
            kept.lock().unwrap().push(request[..length.unwrap_or(request.len())].to_vec());
        }
        let mut server = TcpStream::connect(&self.upstream)?;
        server.write_all(&request)?;
        let mut reply = Vec::new();
        server.read_to_end(&mut reply)?;
        // The driver was told by the proxy to go on.
        if reply.starts_with(b"HTTP/1.1 100") {
            reply.drain(..head_length(&reply).unwrap_or(0));
        }
        if self.pass(number, Hold::After, &line) {
            client.write_all(&reply)?;
        }
        Ok(())
    }

    /// Waits while the request is held; returns whether it is sent on.
    fn pass(&self, number: u64, at: Hold, line: &str) -> bool {
        let mut state = self.state.lock().unwrap();
        if state.hold != Some((number, at)) {
            return true;
        }
        state.held = Some(line.to_owned());
        state.hold = None;
        let state = self.changed.wait_while(state, |state| state.verdict.is_none()).unwrap();
        state.verdict == Some(true)
    }
}

/// Tells whether the request has the word; of a file in its body only the begin is looked at.
fn has(request: &[u8], word: &str) -> bool {
    request[..request.len().min(1 << 16)].windows(word.len()).any(|window| window == word.as_bytes())
}

/// Length of the head, with its empty line.
fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// A whole request that asks for the end of the connection; `None` when none came.
fn read_request(client: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    let head = loop {
        if let Some(head) = head_length(&bytes) {
            break head;
        }
        let read = client.read(&mut buffer)?;
        if read == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&buffer[..read]);
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    assert_eq!(field("transfer-encoding"), None, "the proxy knows bodies of a told length alone");
    let length: usize = field("content-length").map_or(0, |length| length.parse().unwrap());
    if field("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    while bytes.len() < head + length {
        let read = client.read(&mut buffer)?;
        if read == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&buffer[..read]);
    }
    bytes.splice(head - 2..head - 2, *b"connection: close\r\n");
    Ok(Some(bytes))
}
