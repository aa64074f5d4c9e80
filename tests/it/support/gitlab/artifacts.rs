//! Uploaded artifacts: reads the multipart upload and the archive inside.
//!
//! Archives are unpacked with `unzip`, `gzip` and `tar`, never by code that the project itself uses.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// One uploaded artifact as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Artifact {
    /// `archive`, `dotenv`, `junit`, ...
    pub(crate) kind: String,
    /// `zip`, `gzip` or `raw`.
    pub(crate) format: String,
    pub(crate) expire_in: Option<String>,
    pub(crate) file_name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Artifact {
    /// The regular files inside, by path relative to the project directory. A gzip report counts as one file.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let packed = folder.path().join("packed");
        std::fs::write(&packed, &self.bytes).unwrap();
        let mut command = match self.bytes.get(..2) {
            Some(b"PK") => {
                let mut command = Command::new("unzip");
                command.args(["-q", "-o"]).arg(&packed).arg("-d").arg(folder.path().join("files"));
                command
            }
            Some([0x1f, 0x8b]) => {
                let output = Command::new("gzip").arg("-dc").arg(&packed).output().expect("`gzip` is needed");
                assert!(output.status.success(), "the artifact {} is not whole", self.file_name);
                return BTreeMap::from([(self.file_name.trim_end_matches(".gz").to_owned(), output.stdout)]);
            }
            _ => {
                std::fs::create_dir(folder.path().join("files")).unwrap();
                let mut command = Command::new("tar");
                command.arg("-xf").arg(&packed).arg("-C").arg(folder.path().join("files"));
                command
            }
        };
        let status = command.stdout(Stdio::null()).status().expect("`unzip` and `tar` are needed to read artifacts");
        assert!(status.success(), "the artifact {} is not whole", self.file_name);
        let mut files = BTreeMap::new();
        collect(&folder.path().join("files"), "", &mut files);
        files
    }
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else if entry.file_type().unwrap().is_file() {
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

/// Reads `POST /jobs/:id/artifacts`; `None` when it is no form with a part named `file`.
pub(super) fn from_upload(content_type: &str, query: &str, body: &[u8]) -> Option<Artifact> {
    let boundary = content_type.strip_prefix("multipart/form-data;")?.split_once("boundary=")?.1.trim_matches('"');
    let (head, bytes) = file_part(body, boundary)?;
    let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let value = |key: &str, default: &str| query.get(key).map_or(default, |value| *value).replace('+', " ");
    Some(Artifact {
        kind: value("artifact_type", "archive"),
        format: value("artifact_format", "zip"),
        expire_in: query.contains_key("expire_in").then(|| value("expire_in", "")),
        file_name: head.split_once("filename=\"")?.1.split('"').next()?.to_owned(),
        bytes: bytes.to_vec(),
    })
}

/// Head and content of the part that is named `file`.
fn file_part<'a>(body: &'a [u8], boundary: &str) -> Option<(String, &'a [u8])> {
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = body.strip_prefix(format!("--{boundary}").as_bytes())?;
    loop {
        let content = find(rest, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(rest.get(..content)?).into_owned();
        let after = rest.get(content + 4..)?;
        let end = find(after, delimiter.as_bytes())?;
        if head.contains("name=\"file\"") {
            return Some((head, after.get(..end)?));
        }
        rest = after.get(end + delimiter.len()..)?;
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[test]
fn a_form_with_two_parts_yields_the_file() {
    let body = b"--xx\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--xx\r\nContent-Disposition: \
        form-data; name=\"file\"; filename=\"m.zip\"\r\nContent-Type: application/octet-stream\r\n\r\nPK\r\n\0\r\n--xx--\r\n";
    let artifact = from_upload("multipart/form-data; boundary=xx", "artifact_type=dotenv&expire_in=2+weeks", body);
    let artifact = artifact.unwrap();
    assert_eq!((artifact.kind.as_str(), artifact.file_name.as_str()), ("dotenv", "m.zip"));
    assert_eq!(artifact.bytes, b"PK\r\n\0");
    assert_eq!(artifact.expire_in.as_deref(), Some("2 weeks"));
    assert!(from_upload("multipart/form-data; boundary=yy", "", body).is_none());
}
