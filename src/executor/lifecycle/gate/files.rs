//! Reads files with metrics.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::metrics::MetricsSource;
use crate::base::failure::Failure;

/// Largest file with metrics.
pub(super) const MOST_BYTES: u64 = 4 << 20;

/// Reads a file with metrics; `hint` says where it is named.
///
/// # Errors
/// Failures of the user that name the file.
pub(super) fn read(file: &Path, hint: &str) -> Result<MetricsSource, Failure> {
    Ok(MetricsSource { name: file.display().to_string(), bytes: bytes("metrics", file, hint)? })
}

/// Reads a regular file of at most [`MOST_BYTES`]; `what` is its content.
///
/// # Errors
/// See [`read`].
pub(in crate::lifecycle) fn bytes(what: &str, file: &Path, hint: &str) -> Result<Vec<u8>, Failure> {
    let failed =
        |why: String| Failure::user(format!("failed to read the {what} in {}: {why}", file.display())).hint(hint);
    // Before it is opened, which waits for a writer of a pipe.
    let metadata = std::fs::metadata(file).map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("it is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    let opened = File::open(file).and_then(|opened| opened.take(MOST_BYTES + 1).read_to_end(&mut bytes));
    opened.map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(failed("it is larger than 4 MiB".to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_limited_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let [small, large] = ["small.json", "large.json"].map(|name| folder.path().join(name));
        std::fs::write(&small, "{}").unwrap();
        File::create(&large).unwrap().set_len(MOST_BYTES + 1).unwrap();
        assert_eq!(read(&small, "").unwrap().bytes, b"{}");
        let why = |file: &Path| {
            let failure = read(file, "").unwrap_err();
            failure.message().rsplit(": ").next().unwrap().to_owned()
        };
        assert_eq!(why(&large), "it is larger than 4 MiB");
        assert_eq!(why(folder.path()), "it is no regular file");
        assert_eq!(why(Path::new("/dev/zero")), "it is no regular file");
        assert_eq!(why(&folder.path().join("absent")), "No such file or directory (os error 2)");
    }
}
