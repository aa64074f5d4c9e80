//! The pack: a manifest and the contents of its files in one compressed stream. Described in `docs/WIRE-FORMATS.md`.
//!
//! [`Writer`] and [`Reader`] know the format and its integrity, nothing about trees. The reader trusts no number it
//! reads: every length has a limit before memory or disk is spent on it.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use super::entry::{Entry, Instant, Kind, LONGEST_PATH, Place, shown};
use super::{Limits, Warnings};
use crate::failure::Failure;

const MAGIC: [u8; 8] = *b"SMEXPACK";
const VERSION: u32 = 1;
const LEVEL: i32 = 1;
/// The decoder's window, so its memory too, is at most 2^23 bytes; the encoder's level needs far less.
const WINDOW_LOG: u32 = 23;
/// Content travels in pieces of at most this many bytes.
pub(super) const PIECE: usize = 256 * 1024;
const MANIFEST_MAX: u64 = 512 << 20;
const TRAILER_MAX: u32 = 64 << 10;

const AGAIN: u32 = u32::MAX;
const GONE: u32 = u32::MAX - 1;
const END: u32 = 0;

const DIRECTORY: u8 = b'd';
const FILE: u8 = b'f';
const LINK: u8 = b'l';
const DELETED: u8 = b'-';

/// After all contents: what the sender wants people to know.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Trailer {
    #[serde(default)]
    warnings: Vec<String>,
}

/// What really travelled for one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) mtime: Instant,
}

pub(super) struct Writer {
    stream: zstd::Encoder<'static, File>,
    hasher: blake3::Hasher,
}

impl Writer {
    /// Starts a pack with the manifest; the contents of its files follow in the same order.
    pub(super) fn new(file: File, entries: &[Entry]) -> io::Result<Self> {
        let mut writer = Self::start(file)?;
        let mut record = Vec::with_capacity(512);
        record.extend_from_slice(&(entries.len() as u64).to_le_bytes());
        for entry in entries {
            encode(entry, &mut record);
            if record.len() > PIECE {
                writer.manifest(&record)?;
                record.clear();
            }
        }
        writer.manifest(&record)?;
        writer.seal()?;
        Ok(writer)
    }

    pub(super) fn start(mut file: File) -> io::Result<Self> {
        file.write_all(&MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        let mut stream = zstd::Encoder::new(file, LEVEL)?;
        stream.include_checksum(true)?;
        Ok(Self { stream, hasher: blake3::Hasher::new() })
    }

    /// Ends the manifest.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        let hash = self.hasher.finalize();
        self.stream.write_all(hash.as_bytes())
    }

    /// A part of the manifest as it stands in the pack.
    pub(super) fn manifest(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.stream.write_all(bytes)
    }

    /// Starts the content of the next file.
    pub(super) fn begin(&mut self) {
        self.hasher.reset();
    }

    /// A piece of at most [`PIECE`] bytes; an empty one is nothing.
    pub(super) fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.hasher.update(bytes);
        self.stream.write_all(&length.to_le_bytes())?;
        self.stream.write_all(bytes)
    }

    /// Takes back what was sent of this file: it changed meanwhile.
    pub(super) fn again(&mut self) -> io::Result<()> {
        self.hasher.reset();
        self.stream.write_all(&AGAIN.to_le_bytes())
    }

    /// The file vanished before it could be read; the receiver leaves it out.
    pub(super) fn gone(&mut self) -> io::Result<()> {
        self.stream.write_all(&GONE.to_le_bytes())
    }

    pub(super) fn end(&mut self, content: &Content) -> io::Result<()> {
        let mut record = Vec::with_capacity(64);
        record.extend_from_slice(&END.to_le_bytes());
        record.extend_from_slice(&content.size.to_le_bytes());
        record.extend_from_slice(&content.mode.to_le_bytes());
        record.extend_from_slice(&content.mtime.seconds.to_le_bytes());
        record.extend_from_slice(&content.mtime.nanos.to_le_bytes());
        record.extend_from_slice(self.hasher.finalize().as_bytes());
        self.stream.write_all(&record)
    }

    /// Ends the pack; returns its size in bytes.
    pub(super) fn finish(mut self, warnings: &Warnings) -> anyhow::Result<u64> {
        let mut trailer = serde_json::to_vec(&Trailer { warnings: warnings.lines() })?;
        if trailer.len() > TRAILER_MAX as usize {
            trailer = serde_json::to_vec(&Trailer::default())?;
        }
        self.stream.write_all(&u32::try_from(trailer.len())?.to_le_bytes())?;
        self.stream.write_all(&trailer)?;
        let mut file = self.stream.finish()?;
        file.flush()?;
        Ok(file.metadata()?.len())
    }
}

/// One record of the manifest.
pub(super) fn encode(entry: &Entry, out: &mut Vec<u8>) {
    out.push(match entry.place {
        Place::Project => 0,
        Place::Tmp => 1,
    });
    out.push(match entry.kind {
        Kind::Directory => DIRECTORY,
        Kind::File => FILE,
        Kind::Link => LINK,
        Kind::Deleted => DELETED,
    });
    out.extend_from_slice(&entry.mode.to_le_bytes());
    out.extend_from_slice(&entry.mtime.seconds.to_le_bytes());
    out.extend_from_slice(&entry.mtime.nanos.to_le_bytes());
    out.extend_from_slice(&entry.size.to_le_bytes());
    for bytes in [&entry.path, &entry.target] {
        // Longer ones cannot come from a listing; the reader refuses them anyway.
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(bytes);
    }
}

/// Reads a pack from its start: first [`Reader::manifest`], then [`Reader::content`] for every file in order, then
/// [`Reader::finish`].
pub(super) struct Reader {
    stream: BufReader<zstd::Decoder<'static, BufReader<File>>>,
    buffer: Vec<u8>,
    /// Bytes of content that may still come.
    budget: u64,
    limits: Limits,
}

impl Reader {
    pub(super) fn new(file: File, limits: &Limits) -> anyhow::Result<Self> {
        let mut file = BufReader::with_capacity(PIECE, file);
        let mut magic = [0; 8];
        let mut version = [0; 4];
        file.read_exact(&mut magic).and_then(|()| file.read_exact(&mut version)).context("the pack is cut short")?;
        ensure!(magic == MAGIC, "this is no workspace pack");
        let version = u32::from_le_bytes(version);
        ensure!(version == VERSION, "the pack has version {version}, this program reads version {VERSION}");
        let mut stream = zstd::Decoder::with_buffer(file)?.single_frame();
        stream.window_log_max(WINDOW_LOG)?;
        let stream = BufReader::with_capacity(PIECE, stream);
        Ok(Self { stream, buffer: Vec::new(), budget: limits.max_bytes, limits: limits.clone() })
    }

    pub(super) fn manifest(&mut self) -> anyhow::Result<Vec<Entry>> {
        let mut hashed = Hashed { inner: &mut self.stream, hasher: blake3::Hasher::new(), left: MANIFEST_MAX };
        let count = u64::from_le_bytes(hashed.array().context(DAMAGED)?);
        ensure!(count <= self.limits.max_files, too_many(count, &self.limits));
        let mut entries = Vec::new();
        let mut bytes = 0u64;
        for _ in 0..count {
            let entry = hashed.entry()?;
            if entry.kind == Kind::File {
                bytes = bytes.saturating_add(entry.size);
                ensure!(bytes <= self.limits.max_bytes, too_large(&entry, &self.limits));
            }
            entries.push(entry);
        }
        let hash = hashed.hasher.finalize();
        let mut stored = [0; 32];
        self.stream.read_exact(&mut stored).context(DAMAGED)?;
        ensure!(hash == blake3::Hash::from_bytes(stored), DAMAGED);
        Ok(entries)
    }

    /// The content of one file, handed over piece by piece; `None` tells that all pieces so far are void.
    /// Returns what travelled, or `None` when the file vanished under the sender.
    pub(super) fn content(
        &mut self,
        entry: &Entry,
        mut sink: impl FnMut(Option<&[u8]>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<Content>> {
        let damaged = || format!("the content of {} is damaged or cut short", shown(&entry.path));
        let mut hasher = blake3::Hasher::new();
        let mut size = 0u64;
        loop {
            match u32::from_le_bytes(array(&mut self.stream).with_context(damaged)?) {
                END => break,
                GONE => return Ok(None),
                AGAIN => {
                    hasher.reset();
                    size = 0;
                    sink(None)?;
                }
                length if length as usize <= PIECE => {
                    self.budget =
                        self.budget.checked_sub(u64::from(length)).ok_or_else(|| too_large(entry, &self.limits))?;
                    self.buffer.resize(length as usize, 0);
                    self.stream.read_exact(&mut self.buffer).with_context(damaged)?;
                    hasher.update(&self.buffer);
                    size += u64::from(length);
                    sink(Some(&self.buffer))?;
                }
                _ => bail!(damaged()),
            }
        }
        let stated = u64::from_le_bytes(array(&mut self.stream).with_context(damaged)?);
        let mode = u32::from_le_bytes(array(&mut self.stream).with_context(damaged)?);
        let seconds = i64::from_le_bytes(array(&mut self.stream).with_context(damaged)?);
        let nanos = u32::from_le_bytes(array(&mut self.stream).with_context(damaged)?);
        let hash: [u8; 32] = array(&mut self.stream).with_context(damaged)?;
        ensure!(stated == size && hasher.finalize() == blake3::Hash::from_bytes(hash), damaged());
        ensure!(mode <= 0o7777 && nanos < 1_000_000_000, damaged());
        Ok(Some(Content { size, mode, mtime: Instant { seconds, nanos } }))
    }

    /// The sender's warnings. Fails when anything follows the pack.
    pub(super) fn finish(mut self) -> anyhow::Result<Vec<String>> {
        let length = u32::from_le_bytes(array(&mut self.stream).context(DAMAGED)?);
        ensure!(length <= TRAILER_MAX, DAMAGED);
        let mut trailer = vec![0; length as usize];
        self.stream.read_exact(&mut trailer).context(DAMAGED)?;
        let trailer: Trailer = serde_json::from_slice(&trailer).context(DAMAGED)?;
        ensure!(self.stream.read(&mut [0]).context(DAMAGED)? == 0, DAMAGED);
        let mut file = self.stream.into_inner().finish();
        ensure!(file.read(&mut [0]).context(DAMAGED)? == 0, "something follows the end of the pack");
        Ok(trailer.warnings)
    }
}

const DAMAGED: &str = "the pack is damaged or cut short";

const FEWER: &str = "select less with the job's `artifacts` and `cache` paths, or ask the operator for a higher limit";

fn too_many(count: u64, limits: &Limits) -> anyhow::Error {
    let message = format!("the pack has {count} entries, {} are the most that may come", limits.max_files);
    Failure::user(message).hint(FEWER).into()
}

fn too_large(entry: &Entry, limits: &Limits) -> anyhow::Error {
    let name = shown(&entry.path);
    let message = format!("with {name} the content exceeds the {} bytes that may come", limits.max_bytes);
    Failure::user(message).hint(FEWER).into()
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads the manifest, hashes it and counts its bytes.
struct Hashed<'a, R> {
    inner: &'a mut R,
    hasher: blake3::Hasher,
    left: u64,
}

impl<R: Read> Hashed<'_, R> {
    fn take(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other("the manifest is larger than 512 MiB"))?;
        self.inner.read_exact(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    fn name(&mut self) -> anyhow::Result<Vec<u8>> {
        let length = u32::from_le_bytes(self.array().context(DAMAGED)?) as usize;
        ensure!(length <= LONGEST_PATH, "the pack holds a name of {length} bytes, {LONGEST_PATH} are the most");
        let mut bytes = vec![0; length];
        self.take(&mut bytes).context(DAMAGED)?;
        Ok(bytes)
    }

    fn entry(&mut self) -> anyhow::Result<Entry> {
        let [place, kind] = self.array().context(DAMAGED)?;
        let mode = u32::from_le_bytes(self.array().context(DAMAGED)?);
        let seconds = i64::from_le_bytes(self.array().context(DAMAGED)?);
        let nanos = u32::from_le_bytes(self.array().context(DAMAGED)?);
        let size = u64::from_le_bytes(self.array().context(DAMAGED)?);
        let path = self.name()?;
        let target = self.name()?;
        let place = match place {
            0 => Place::Project,
            1 => Place::Tmp,
            _ => bail!("{} is in a tree that this program does not know", shown(&path)),
        };
        let kind = match kind {
            DIRECTORY => Kind::Directory,
            FILE => Kind::File,
            LINK => Kind::Link,
            DELETED => Kind::Deleted,
            _ => bail!(Failure::user(format!("{} is neither a file, a directory nor a link", shown(&path)))),
        };
        ensure!(mode <= 0o7777 && nanos < 1_000_000_000, "{} has impossible attributes", shown(&path));
        Ok(Entry { place, kind, path, mode, mtime: Instant { seconds, nanos }, size, target })
    }
}
