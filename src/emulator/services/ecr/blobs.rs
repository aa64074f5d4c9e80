//! The bytes of layers and configurations: one file for each digest, which an upload makes when its digest is right.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;

/// Bytes that are hashed at once.
const PIECE: usize = 256 * 1024;

/// All blobs of the registry.
#[derive(Debug)]
pub(super) struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The file of a digest; `None` when it is no SHA-256.
    pub(super) fn path(&self, digest: &str) -> Option<PathBuf> {
        let digits = digest.strip_prefix("sha256:").filter(|digits| digits.len() == 64)?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        is_hex.then(|| self.folder.join("sha256").join(digits))
    }

    /// Bytes of a blob; `None` when there is none.
    pub(super) fn size(&self, digest: &str) -> Option<u64> {
        fs::metadata(self.path(digest)?).ok().map(|found| found.len())
    }

    pub(super) fn read(&self, digest: &str) -> Option<Vec<u8>> {
        fs::read(self.path(digest)?).ok()
    }

    /// The file of an upload that is not finished. `id` is one that the registry gave out.
    pub(super) fn upload(&self, id: &str) -> PathBuf {
        self.folder.join("uploads").join(id)
    }

    /// Opens the file of an upload for more bytes, and makes it for the first.
    pub(super) async fn append(&self, id: &str) -> anyhow::Result<File> {
        let path = self.upload(id);
        let folder = path.parent().unwrap_or(&self.folder);
        tokio::fs::create_dir_all(folder).await.with_context(|| format!("failed to create {}", folder.display()))?;
        let file = File::options().create(true).append(true).open(&path).await;
        file.with_context(|| format!("failed to open {}", path.display()))
    }

    /// Makes a blob of a finished upload; `false` when its bytes have another digest, which ends the upload. Blocking.
    pub(super) fn finish(&self, id: &str, digest: &str) -> anyhow::Result<bool> {
        let upload = self.upload(id);
        let Some(path) = self.path(digest).filter(|_| is_of_digest(&upload, digest).unwrap_or(false)) else {
            fs::remove_file(&upload).ok();
            return Ok(false);
        };
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        fs::rename(&upload, &path).with_context(|| format!("failed to move a blob to {}", path.display()))?;
        Ok(true)
    }
}

fn is_of_digest(path: &Path, digest: &str) -> std::io::Result<bool> {
    let (mut file, mut hasher) = (fs::File::open(path)?, Sha256::new());
    let mut piece = vec![0; PIECE];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(named(&hasher.finalize()) == digest);
        }
        hasher.update(piece.get(..read).unwrap_or_default());
    }
}

/// `sha256:` and the digits.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    named(&Sha256::digest(bytes))
}

fn named(hash: &[u8]) -> String {
    let digits: Vec<_> = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", digits.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_upload_becomes_a_blob_when_its_digest_is_right() {
        use tokio::io::AsyncWriteExt as _;

        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(folder.path().to_owned());
        let digest = digest_of(b"two parts");
        for (id, parts, finished) in [("1", ["two ", "parts"], true), ("2", ["other ", "parts"], false)] {
            for part in parts {
                let mut file = blobs.append(id).await.unwrap();
                file.write_all(part.as_bytes()).await.unwrap();
                file.flush().await.unwrap();
            }
            assert_eq!(blobs.finish(id, &digest).unwrap(), finished);
            assert!(!blobs.upload(id).exists());
        }
        assert_eq!(blobs.read(&digest).as_deref(), Some(b"two parts".as_slice()));
        assert_eq!(blobs.size(&digest), Some(9));
        for digest in ["sha256:..", "sha256:AA", "md5:0", &format!("sha256:{}", "g".repeat(64))] {
            assert_eq!(blobs.path(digest), None, "{digest}");
        }
    }
}
