//! Messages of scripts in containers to this process, past the product: they share no folder with the host, but its network.
//!
//! A line that a script has written arrives, in order, also when the script is killed at once.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::waiting::poll;

/// A container's last processes end so soon after it.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// Takes lines on a port of loopback.
pub(in crate::scenarios) struct Notes {
    pub(in crate::scenarios) port: u16,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    lines: Vec<String>,
    /// Scripts that are connected.
    open: usize,
    ended: bool,
}

impl Notes {
    pub(in crate::scenarios) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Mutex<Shared>>::default();
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for script in listener.incoming().flatten() {
                let mut now = own.lock().unwrap();
                if now.ended {
                    break;
                }
                now.open += 1;
                let shared = Arc::clone(&own);
                std::thread::spawn(move || {
                    for line in BufReader::new(script).lines().map_while(Result::ok) {
                        shared.lock().unwrap().lines.push(line);
                    }
                    shared.lock().unwrap().open -= 1;
                });
            }
        });
        Self { port, shared }
    }

    /// How many lines begin so, once no script is connected.
    pub(in crate::scenarios) fn count(&self, begin: &str) -> usize {
        let closed = poll(ENDS_WITHIN, || (self.shared.lock().unwrap().open == 0).then_some(()));
        assert!(closed.is_some(), "a script runs on");
        self.shared.lock().unwrap().lines.iter().filter(|line| line.starts_with(begin)).count()
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        self.shared.lock().unwrap().ended = true;
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}
