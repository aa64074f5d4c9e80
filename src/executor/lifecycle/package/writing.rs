//! Writes a package's zip file: fixed times and modes, and each file hashed while it is read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::metadata::{FileMode, METADATA, PackageMetadata, PackagedFile, canonical};
use crate::base::failure::Failure;
use crate::base::plain;
use crate::lifecycle::hex::hex;

/// Files of this size need the fields of zip64; a little less than 4 GiB, because compressing may add some bytes.
const LARGE: u64 = 0xfff0_0000;

/// A package that is being written.
pub(super) struct PackageWriter<'a> {
    zip: ZipWriter<BufWriter<&'a File>>,
    files: BTreeMap<String, PackagedFile>,
}

/// How the bytes of a file are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Compressed,
    /// It is compressed already.
    AsIs,
}

impl<'a> PackageWriter<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Self { zip: ZipWriter::new(BufWriter::with_capacity(64 << 10, file)), files: BTreeMap::new() }
    }

    /// Adds a file whose size is known.
    ///
    /// # Errors
    /// A file of this name is there, the content has another size, or nothing can be written.
    pub(super) fn add(
        &mut self,
        name: &str,
        mode: FileMode,
        content: impl Read,
        bytes: u64,
        packing: Packing,
    ) -> anyhow::Result<()> {
        if self.files.contains_key(name) {
            let shown = plain::line(name, 300);
            let failure = Failure::user(format!("the package would have two files of the name {shown}"));
            return Err(failure.hint("rename one of them").into());
        }
        let (read, sha256) = self.write(name, mode, content, bytes, packing)?;
        if read != bytes {
            let failure = Failure::user(format!("{} changed while it was packed", plain::line(name, 300)));
            return Err(failure.hint("let nothing write the project's files while they are packed").into());
        }
        self.files.insert(name.to_owned(), PackagedFile { sha256, bytes, mode });
        Ok(())
    }

    /// Adds a file of text.
    pub(super) fn add_text(&mut self, name: &str, text: &[u8]) -> anyhow::Result<()> {
        self.add(name, FileMode::Plain, text, text.len() as u64, Packing::Compressed)
    }

    fn write(
        &mut self,
        name: &str,
        mode: FileMode,
        content: impl Read,
        bytes: u64,
        packing: Packing,
    ) -> anyhow::Result<(u64, String)> {
        let method = match packing {
            Packing::Compressed => CompressionMethod::Deflated,
            Packing::AsIs => CompressionMethod::Stored,
        };
        let options = SimpleFileOptions::default()
            .compression_method(method)
            .compression_level((packing == Packing::Compressed).then_some(6))
            .last_modified_time(DateTime::default())
            .unix_permissions(mode.unix() & 0o777)
            .large_file(bytes >= LARGE);
        // One byte more is allowed, to see that a file has grown.
        let mut content = content.take(bytes.saturating_add(1));
        let mut hash = Sha256::new();
        if mode == FileMode::Link {
            let mut target = String::new();
            content.read_to_string(&mut target).context("failed to read a link")?;
            hash.update(&target);
            self.zip.add_symlink(name, &target, options).with_context(|| format!("failed to pack {name}"))?;
            return Ok((target.len() as u64, hex(&hash.finalize())));
        }
        self.zip.start_file(name, options).with_context(|| format!("failed to pack {name}"))?;
        let mut read = 0;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = content.read(&mut buffer).with_context(|| format!("failed to read {name}"))?;
            let Some(part) = buffer.get(..length).filter(|part| !part.is_empty()) else { break };
            self.zip.write_all(part).with_context(|| format!("failed to pack {name}"))?;
            hash.update(part);
            read += length as u64;
        }
        Ok((read, hex(&hash.finalize())))
    }

    /// Adds `metadata.json`, which lists all others, as the last file.
    pub(super) fn finish(mut self, mut metadata: PackageMetadata) -> anyhow::Result<PackageMetadata> {
        metadata.files = std::mem::take(&mut self.files);
        let text = canonical(&metadata)?;
        self.write(METADATA, FileMode::Plain, text.as_slice(), text.len() as u64, Packing::Compressed)?;
        let mut file = self.zip.finish().context("failed to end the package")?;
        file.flush().context("failed to end the package")?;
        Ok(metadata)
    }
}

/// Hash of a file's bytes.
pub(super) fn sha256(mut file: impl Read) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            length => hash.update(buffer.get(..length).unwrap_or_default()),
        }
    }
}
