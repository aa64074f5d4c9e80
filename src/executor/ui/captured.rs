//! Streams that keep what they are given, for tests.

use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;

/// The text that a [`super::Printer::captured`] was given.
#[derive(Debug, Clone, Default)]
pub struct Captured {
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
}

impl Captured {
    /// stdout and stderr as streams to write to.
    pub(super) fn streams(&self) -> (Box<dyn Write + Send>, Box<dyn Write + Send>) {
        (Box::new(Sink(Arc::clone(&self.out))), Box::new(Sink(Arc::clone(&self.err))))
    }

    /// stdout so far.
    pub fn data(&self) -> Vec<u8> {
        self.out.lock().clone()
    }

    /// stderr so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.err.lock()).into_owned()
    }
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
