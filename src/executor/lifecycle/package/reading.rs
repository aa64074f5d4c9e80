//! Reads a package that may be hostile: nothing is believed but what `metadata.json` and the hashes say together.
//!
//! Names, links, sizes and the form of the zip file are checked when it is opened; contents are compared with their hashes as they
//! are read. Nothing is written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use zip::{CompressionMethod, ZipArchive};

use super::claims;
use super::entry_name;
use super::metadata::{FileMode, METADATA, PackageMetadata, PackagedFile, SCHEMA};
use super::writing;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::lifecycle::hex::hex;

/// Largest `metadata.json`, list of files, and link.
const LARGEST_METADATA: u64 = 64 << 20;
const LARGEST_LIST: u64 = 64 << 20;
pub(super) const LARGEST_LINK: u64 = 4096;
/// Most bytes of all files together: a model, and as much of sources.
const MOST_BYTES: u64 = 16 << 30;
/// Folders of a package.
const FOLDERS: [&str; 4] = ["deploy/", "docs/", "model/", "source/"];
/// Bytes of the records at the end of a zip file: the usual one, the one of zip64, and its locator.
const END: u64 = 22;
const LOCATOR: u64 = 20;

/// A package whose form was checked.
#[derive(Debug)]
pub(crate) struct OpenedPackage {
    name: String,
    archive: ZipArchive<File>,
    pub(crate) metadata: PackageMetadata,
    /// Of the whole file.
    pub(crate) sha256: String,
    /// Its size.
    pub(crate) bytes: u64,
}

impl OpenedPackage {
    /// Opens a package and checks everything but the contents of its files.
    ///
    /// # Errors
    /// Failures of the user: the file is no package, or was changed.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        Self::open_as(path, &path.display().to_string())
    }

    /// As [`OpenedPackage::open`], with the package's name for messages.
    pub(crate) fn open_as(path: &Path, name: &str) -> anyhow::Result<Self> {
        let name = plain::line(name, 300);
        Self::read(path, &name).map_err(|why| unusable(&name, &format!("{why:#}")).into())
    }

    fn read(path: &Path, name: &str) -> anyhow::Result<Self> {
        anyhow::ensure!(path.metadata()?.is_file(), "it is no regular file");
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let sha256 = hex(&writing::sha256(&file)?);
        check_list(&mut file)?;
        let mut archive = ZipArchive::new(file).context("it is no zip file")?;
        anyhow::ensure!(archive.offset() == 0, "other bytes stand before it");
        anyhow::ensure!(!archive.has_duplicate_names(), "two of its files have one name");
        archive.validate_header_consistency()?;
        let entries = entries(&mut archive)?;
        let metadata = metadata(&mut archive, &entries)?;
        compare(&entries, &metadata.files)?;
        claims::check(&metadata)?;
        Ok(Self { name: name.to_owned(), archive, metadata, sha256, bytes })
    }

    /// Compares the content of every file with its hash.
    ///
    /// # Errors
    /// The first file that differs.
    pub(crate) fn verify(&mut self) -> anyhow::Result<()> {
        let names: Vec<_> = self.metadata.files.keys().cloned().collect();
        names.iter().try_for_each(|name| self.copy(name, &mut io::sink()))
    }

    /// Copies the content of a file. What was written counts only when this returns without an error.
    ///
    /// # Errors
    /// There is no such file, or it is not as the metadata says.
    pub(crate) fn copy(&mut self, name: &str, to: &mut dyn Write) -> anyhow::Result<()> {
        let shown = plain::line(name, 300);
        let expected =
            self.metadata.files.get(name).ok_or_else(|| unusable(&self.name, &format!("it has no {shown}")))?;
        let entry = self.archive.by_name(name).with_context(|| format!("failed to read {shown}"));
        let mut hashed = HashedCopy { to, hash: Sha256::new() };
        // Of a bomb, one byte more than said is read.
        let read = entry.and_then(|entry| Ok(io::copy(&mut entry.take(expected.bytes + 1), &mut hashed)?));
        let read = read.map_err(|error| unusable(&self.name, &format!("{shown} cannot be read: {error:#}")))?;
        if read != expected.bytes || hex(&hashed.hash.finalize()) != expected.sha256 {
            return Err(unusable(&self.name, &format!("{shown} is not the file that metadata.json names")).into());
        }
        Ok(())
    }
}

fn unusable(package: &str, why: &str) -> Failure {
    Failure::user(format!("the package {package} cannot be used: {why}"))
        .hint("fetch it again from the job or the release that made it, and compare its SHA-256 with `PACKAGE_SHA256`")
}

/// Content that is hashed while it is copied.
struct HashedCopy<'a> {
    to: &'a mut dyn Write,
    hash: Sha256,
}

impl Write for HashedCopy<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Refuses a list of files that would fill the memory, before it is read. A package ends with the usual record, without a comment.
fn check_list(file: &mut File) -> anyhow::Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut record = |behind: u64, size: usize| -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; size];
        file.seek(SeekFrom::Start(length.checked_sub(behind).context("it is no zip file")?))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    let end = record(END, 22)?;
    anyhow::ensure!(
        end.starts_with(b"PK\x05\x06") && end.ends_with(&[0, 0]),
        "it is no zip file, or was cut or added to"
    );
    let mut size = number(&end, 12, 4);
    if size == u64::from(u32::MAX) || number(&end, 10, 2) == u64::from(u16::MAX) {
        let locator = record(END + LOCATOR, 20)?;
        let at = length.checked_sub(number(&locator, 8, 8)).context("it is no zip file")?;
        size = number(&record(at, 56)?, 40, 8);
    }
    anyhow::ensure!(size <= LARGEST_LIST, "its list of files is too large");
    Ok(())
}

/// A number of a record, the lowest byte first.
fn number(record: &[u8], at: usize, bytes: usize) -> u64 {
    let bytes = record.get(at..at + bytes).unwrap_or_default();
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The entries of the zip file, by name, as `metadata.json` should name them; without hashes.
fn entries(archive: &mut ZipArchive<File>) -> anyhow::Result<BTreeMap<String, PackagedFile>> {
    let (mut found, mut targets) = (BTreeMap::new(), BTreeMap::new());
    let mut left = MOST_BYTES;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let name = std::str::from_utf8(entry.name_raw()).context("a name is not UTF-8")?.to_owned();
        let shown = plain::line(&name, 300);
        if let Some(mistake) = entry_name::mistake(&name) {
            anyhow::bail!("{shown} {mistake}");
        }
        let is_known = name == METADATA || FOLDERS.iter().any(|folder| name.starts_with(folder));
        anyhow::ensure!(is_known, "{shown} is no file of a package");
        anyhow::ensure!(!entry.encrypted(), "{shown} is encrypted");
        let is_readable = matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated);
        anyhow::ensure!(is_readable, "{shown} is compressed in an unknown way");
        let modes = [FileMode::Plain, FileMode::Executable, FileMode::Link];
        let mode = modes.into_iter().find(|mode| Some(mode.unix()) == entry.unix_mode());
        let mode = mode.with_context(|| format!("{shown} is no file and no link, or has unknown permissions"))?;
        let bytes = entry.size();
        left = left.checked_sub(bytes).context("its files are too large together")?;
        let mut target = None;
        if mode == FileMode::Link {
            let text = target.insert(String::new());
            let read = (&mut entry).take(LARGEST_LINK + 1).read_to_string(text);
            read.with_context(|| format!("{shown} cannot be read"))?;
            anyhow::ensure!(bytes <= LARGEST_LINK, "{shown} is a link that is too long");
        }
        targets.insert(name.clone(), target);
        found.insert(name, PackagedFile { sha256: String::new(), bytes, mode });
    }
    if let Some((name, why)) = entry_name::unsafe_name(&targets) {
        anyhow::bail!("{} {why}", plain::line(name, 300));
    }
    match entry_name::alike(found.keys().map(String::as_str)) {
        Some((one, other)) => Err(anyhow::anyhow!("{}", entry_name::alike_text(one, other))),
        None => Ok(found),
    }
}

fn metadata(
    archive: &mut ZipArchive<File>,
    entries: &BTreeMap<String, PackagedFile>,
) -> anyhow::Result<PackageMetadata> {
    let entry = entries.get(METADATA).context("it has no metadata.json")?;
    anyhow::ensure!(entry.mode == FileMode::Plain && entry.bytes <= LARGEST_METADATA, "its metadata.json is too large");
    let mut text = Vec::new();
    archive.by_name(METADATA)?.take(LARGEST_METADATA).read_to_end(&mut text).context("metadata.json cannot be read")?;
    // Two readings: values of the whole text would need several times its memory.
    let form: MetadataForm = serde_json::from_slice(&text).context("metadata.json is no JSON object")?;
    anyhow::ensure!(
        form.schema.as_deref() == Some(SCHEMA),
        "its metadata.json is not of the form {SCHEMA}: use another version of this program"
    );
    serde_json::from_slice(&text).context("metadata.json is not of its form")
}

/// The key that tells the form of `metadata.json`.
#[derive(serde::Deserialize)]
struct MetadataForm {
    schema: Option<String>,
}

/// Compares the files that are there with those that the metadata name.
fn compare(entries: &BTreeMap<String, PackagedFile>, listed: &BTreeMap<String, PackagedFile>) -> anyhow::Result<()> {
    for (name, entry) in entries.iter().filter(|(name, _)| *name != METADATA) {
        let shown = plain::line(name, 300);
        let expected = listed.get(name).with_context(|| format!("metadata.json does not name {shown}"))?;
        let is_equal = (expected.bytes, expected.mode) == (entry.bytes, entry.mode);
        anyhow::ensure!(is_equal, "{shown} is not the file that metadata.json names");
    }
    let missing = listed.keys().find(|name| *name == METADATA || !entries.contains_key(*name));
    missing.map_or(Ok(()), |name| Err(anyhow::anyhow!("it has no {}", plain::line(name, 300))))
}
