//! Scripts of containers and of the host that wait until they are told to go on, past the product; and how often each was begun.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Takes the names of scripts on a port of loopback. Each waits for a line there.
pub(super) struct Gate {
    pub(super) port: u16,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    begun: BTreeMap<String, usize>,
    /// Scripts that are to wait.
    closed: BTreeSet<String>,
    /// Those that do.
    waiting: BTreeMap<String, TcpStream>,
    ended: bool,
}

impl Gate {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Mutex<Shared>>::default();
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for script in listener.incoming().flatten() {
                if own.lock().unwrap().ended {
                    break;
                }
                let own = Arc::clone(&own);
                std::thread::spawn(move || enter(script, &own));
            }
        });
        Self { port, shared }
    }

    /// Lets the script wait.
    pub(super) fn close(&self, name: &str) {
        self.shared.lock().unwrap().closed.insert(name.to_owned());
    }

    /// Lets all scripts go on, now and later.
    pub(super) fn open(&self) {
        let mut shared = self.shared.lock().unwrap();
        shared.closed.clear();
        for (_, script) in std::mem::take(&mut shared.waiting) {
            go(&script);
        }
    }

    pub(super) fn waits(&self, name: &str) -> bool {
        self.shared.lock().unwrap().waiting.contains_key(name)
    }

    pub(super) fn begun(&self, name: &str) -> usize {
        self.shared.lock().unwrap().begun.get(name).copied().unwrap_or_default()
    }
}

fn enter(script: TcpStream, shared: &Mutex<Shared>) {
    let mut name = String::new();
    // A script that is ended before it said its name has done nothing yet.
    if BufReader::new(&script).read_line(&mut name).is_err() || name.is_empty() {
        return;
    }
    let name = name.trim_end().to_owned();
    let mut shared = shared.lock().unwrap();
    *shared.begun.entry(name.clone()).or_default() += 1;
    if shared.closed.contains(&name) {
        shared.waiting.insert(name, script);
    } else {
        go(&script);
    }
}

fn go(mut script: &TcpStream) {
    // One that was ended while it waited reads nothing.
    let _ = script.write_all(b"go\n");
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.lock().unwrap().ended = true;
        self.open();
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}
