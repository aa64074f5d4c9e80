//! Reads the manifest's file: a regular file of limited size, in UTF-8.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::base::failure::Failure;

/// Largest manifest, in bytes.
const LARGEST: u64 = 1 << 20;

/// The text of the file. Never waits: a FIFO is opened without a writer, and refused.
pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let failed = |reason: &str| Failure::user(format!("the manifest {} {reason}", file.display()));
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, file, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => failed("does not exist").hint("name the file with `--manifest FILE`"),
        Errno::LOOP => failed("is a symbolic link").hint("name the file itself with `--manifest FILE`"),
        error => failed("cannot be read").caused_by(std::io::Error::from(error)),
    })?;
    let opened = File::from(opened);
    if !opened.metadata().is_ok_and(|data| data.is_file()) {
        return Err(failed("is no regular file").hint("name the file with `--manifest FILE`"));
    }
    let mut bytes = Vec::new();
    opened.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| failed("cannot be read").caused_by(error))?;
    text(file, bytes)
}

/// The text of a manifest of this name.
pub(super) fn text(file: &Path, bytes: Vec<u8>) -> Result<String, Failure> {
    let failed = |reason: &str| Failure::user(format!("the manifest {} {reason}", file.display()));
    if bytes.len() as u64 > LARGEST {
        return Err(failed("has more than 1 MiB").hint("keep data in other files, and name them in the manifest"));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(failed("begins with a byte order mark").hint("save the file as UTF-8 without a byte order mark"));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(failed("is empty").hint("`docs/LIFECYCLE.md` has an example"));
    }
    String::from_utf8(bytes).map_err(|_| failed("is not UTF-8 text").hint("save the file as UTF-8 text"))
}
