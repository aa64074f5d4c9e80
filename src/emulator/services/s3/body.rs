//! The bodies of objects: written to disk with checksums that are verified, and read back by range.

use std::io::{Read as _, Seek as _};
use std::sync::Arc;

use base64_simd::STANDARD;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc64Nvme, Md5};
use s3s::dto::{self, StreamingBlob};
use s3s::{Body, S3Result, s3_error};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

use super::convert::{fault, io_fault};
use crate::store::{FileSegment, Store, Stored, tag_of};

/// Bodies up to this size are answered from memory, larger ones streamed.
const SMALL: u64 = 256 * 1024;
const CHUNK: usize = 256 * 1024;

/// A body on disk that is not yet an object, with the checksums computed while it was written.
pub(super) struct Written {
    pub(super) segment: FileSegment,
    pub(super) tag: String,
    pub(super) checksum: dto::Checksum,
}

/// The checksums that the client claims for its body.
#[derive(Default)]
pub(super) struct Claimed {
    pub(super) algorithm: Option<String>,
    pub(super) md5: Option<String>,
    pub(super) checksum: dto::Checksum,
}

/// Streams a body to a fresh file, hashing it; refuses it when a claim does not hold.
pub(super) async fn write(
    store: &Store,
    bucket: &str,
    body: Option<StreamingBlob>,
    mut claimed: Claimed,
    trailers: Option<s3s::TrailingHeaders>,
) -> S3Result<Written> {
    let (file, path) = store.fresh_file(bucket).map_err(fault)?;
    let mut checksums = hasher_for(&claimed)?;
    let mut md5 = claimed.md5.is_some().then(Md5::new);
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0_u64;
    // A small body is written at once: each step on the blocking pool costs more than the write.
    let mut small = Vec::new();
    let mut out = None;
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| s3_error!(IncompleteBody, "the body ended early: {error}"))?;
            bytes += chunk.len() as u64;
            checksums.update(&chunk);
            hasher.update(&chunk);
            if let Some(md5) = &mut md5 {
                md5.update(&chunk);
            }
            small.extend_from_slice(&chunk);
            if small.len() >= CHUNK {
                let file = match &mut out {
                    Some(file) => file,
                    None => out.insert(tokio::fs::File::create(&path).await.map_err(io_fault)?),
                };
                file.write_all(&small).await.map_err(io_fault)?;
                small.clear();
            }
        }
    }
    if let Some(mut file) = out {
        file.write_all(&small).await.map_err(io_fault)?;
        file.flush().await.map_err(io_fault)?;
    } else {
        tokio::fs::write(&path, small).await.map_err(io_fault)?;
    }
    claimed.take_trailers(trailers.and_then(|trailers| trailers.take()).as_ref());
    let computed = checksums.finalize();
    let verdict = verify(&claimed, &computed, md5.map(Md5::finalize));
    if let Err(error) = verdict {
        // A file without an object only costs space until the next start.
        drop(tokio::fs::remove_file(&path).await);
        return Err(error);
    }
    Ok(Written { segment: FileSegment { file, bytes }, tag: tag_of(&hasher), checksum: computed })
}

impl Claimed {
    pub(super) fn new(
        algorithm: Option<&dto::ChecksumAlgorithm>,
        md5: Option<String>,
        checksum: dto::Checksum,
    ) -> Self {
        Self { algorithm: algorithm.map(|algorithm| algorithm.as_str().to_owned()), md5, checksum }
    }

    fn take_trailers(&mut self, trailers: Option<&hyper::HeaderMap>) {
        let Some(trailers) = trailers else { return };
        let value = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let claims = &mut self.checksum;
        for (claim, name) in [
            (&mut claims.checksum_crc32, "x-amz-checksum-crc32"),
            (&mut claims.checksum_crc32c, "x-amz-checksum-crc32c"),
            (&mut claims.checksum_crc64nvme, "x-amz-checksum-crc64nvme"),
            (&mut claims.checksum_sha1, "x-amz-checksum-sha1"),
            (&mut claims.checksum_sha256, "x-amz-checksum-sha256"),
        ] {
            if let Some(value) = value(name) {
                *claim = Some(value);
            }
        }
    }
}

fn hasher_for(claimed: &Claimed) -> S3Result<ChecksumHasher> {
    let mut hasher = ChecksumHasher::default();
    let claims = &claimed.checksum;
    let algorithm = claimed.algorithm.as_deref();
    hasher.crc32 = (claims.checksum_crc32.is_some() || algorithm == Some("CRC32")).then(Default::default);
    hasher.crc32c = (claims.checksum_crc32c.is_some() || algorithm == Some("CRC32C")).then(Default::default);
    hasher.crc64nvme = (claims.checksum_crc64nvme.is_some() || algorithm == Some("CRC64NVME")).then(Default::default);
    hasher.sha1 = (claims.checksum_sha1.is_some() || algorithm == Some("SHA1")).then(Default::default);
    hasher.sha256 = (claims.checksum_sha256.is_some() || algorithm == Some("SHA256")).then(Default::default);
    let none = hasher.crc32.is_none() && hasher.crc32c.is_none() && hasher.crc64nvme.is_none();
    if algorithm.is_none() && none && hasher.sha1.is_none() && hasher.sha256.is_none() {
        // As S3 itself adds it.
        hasher.crc64nvme = Some(Crc64Nvme::default());
    }
    match algorithm {
        None | Some("CRC32" | "CRC32C" | "CRC64NVME" | "SHA1" | "SHA256") => Ok(hasher),
        Some(other) => Err(s3_error!(InvalidRequest, "checksum algorithm {other} is not known")),
    }
}

fn verify(claimed: &Claimed, computed: &dto::Checksum, md5: Option<impl AsRef<[u8]>>) -> S3Result<()> {
    let claims = &claimed.checksum;
    for (claim, sum) in [
        (&claims.checksum_crc32, &computed.checksum_crc32),
        (&claims.checksum_crc32c, &computed.checksum_crc32c),
        (&claims.checksum_crc64nvme, &computed.checksum_crc64nvme),
        (&claims.checksum_sha1, &computed.checksum_sha1),
        (&claims.checksum_sha256, &computed.checksum_sha256),
    ] {
        if claim.is_some() && claim != sum {
            return Err(s3_error!(BadDigest, "the checksum you specified did not match the calculated checksum"));
        }
    }
    if let (Some(claim), Some(sum)) = (&claimed.md5, md5)
        && *claim != STANDARD.encode_to_string(sum)
    {
        return Err(s3_error!(BadDigest, "the Content-MD5 you specified did not match what we received"));
    }
    Ok(())
}

/// The bytes of a range of an object, over the files it consists of.
pub(super) async fn body_of(stored: Arc<Stored>, range: std::ops::Range<u64>) -> S3Result<StreamingBlob> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (path, bytes) in stored.files() {
        let (from, to) = (range.start.max(start), range.end.min(start + bytes));
        if from < to {
            pieces.push((path, from - start, to - from));
        }
        start += bytes;
    }
    if range.end - range.start <= SMALL {
        let read = tokio::task::spawn_blocking(move || {
            let mut content = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or_default());
            for (path, offset, bytes) in pieces {
                let mut file = std::fs::File::open(path)?;
                file.seek(std::io::SeekFrom::Start(offset))?;
                file.take(bytes).read_to_end(&mut content)?;
            }
            // The files of a replaced object stay until here.
            drop(stored);
            Ok(content)
        });
        let content = read.await.unwrap_or_else(|error| Err(error.into())).map_err(io_fault)?;
        return Ok(StreamingBlob::from(Body::from(Bytes::from(content))));
    }
    let stream = futures::stream::iter(pieces)
        .then(move |(path, offset, bytes)| {
            // The reader keeps the object, hence its files, until the body is sent.
            let kept = Arc::clone(&stored);
            async move {
                let mut file = tokio::fs::File::open(path).await?;
                file.seek(std::io::SeekFrom::Start(offset)).await?;
                let chunks = ReaderStream::with_capacity(file.take(bytes), CHUNK);
                Ok::<_, std::io::Error>(chunks.inspect(move |_| {
                    let _kept: &Arc<Stored> = &kept;
                }))
            }
        })
        .try_flatten();
    Ok(StreamingBlob::wrap(Box::pin(stream)))
}
