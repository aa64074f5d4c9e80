//! Syntax of input channels and of places in S3, for the operator's file and for a job's variables. Pure.

use serde::{Deserialize, Serialize};

use crate::cloud::{Channel, ChannelMode, ChannelSource, FileSystemKind};
use crate::protocol::bootstrap;

/// Longest `S3Uri`.
const URI: usize = 1024;
/// Longest `ChannelName`.
const NAME: usize = 64;
/// Longest `ContentType`.
const CONTENT_TYPE: usize = 256;
/// Longest `DirectoryPath`.
const DIRECTORY: usize = 4096;
/// Most input channels of a training job, 20, but the agent's.
pub(super) const CHANNELS: usize = 19;

const S3_FORM: &str = "`s3://<bucket>/<folder>[?mode=File|FastFile|Pipe&distribution=FullyReplicated|ShardedByS3Key&content_type=<type>]`";
const MODEL_FORM: &str = "`s3://<bucket>/<folder>[?compression=gzip|none]`";
const FILE_SYSTEM_FORM: &str =
    "`efs://fs-<id>/<folder>[?access=ro|rw]` or `fsx://fs-<id>/<mount name>/<folder>[?access=ro|rw]`";

/// Place of a job's model in S3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOutput {
    /// Ends with a slash.
    pub folder: String,
    /// One `model.tar.gz`; else each file is an object of its own.
    pub is_archive: bool,
}

/// The reason why a text is no channel, and the text to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WrongInput {
    pub why: String,
    pub change: String,
}

fn wrong(why: impl Into<String>, change: impl Into<String>) -> WrongInput {
    WrongInput { why: why.into(), change: change.into() }
}

/// The channel of a name, in any case, and a URI.
pub(super) fn channel(name: &str, uri: &str) -> Result<Channel, WrongInput> {
    let name = name.to_ascii_lowercase();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name || name.len() > NAME || name.starts_with(bootstrap::CHANNEL) {
        return Err(wrong(
            "does not end in the name of a channel",
            format!("name it with letters, digits and `_`, {NAME} at most"),
        ));
    }
    let (place, query) = uri.trim().split_once('?').unwrap_or((uri.trim(), ""));
    let Some((scheme, rest)) = place.split_once("://") else { return Err(unknown_scheme()) };
    match scheme {
        "s3" => of_s3(name, &s3_folder(place)?, query),
        "efs" => of_file_system(name, FileSystemKind::Efs, rest, query),
        "fsx" => of_file_system(name, FileSystemKind::FsxLustre, rest, query),
        _ => Err(unknown_scheme()),
    }
}

fn unknown_scheme() -> WrongInput {
    wrong("is not the URI of data that SageMaker reads", format!("write {S3_FORM}, {FILE_SYSTEM_FORM}"))
}

/// The place of a model.
pub(super) fn model_output(uri: &str) -> Result<ModelOutput, WrongInput> {
    let (place, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut output = ModelOutput { folder: s3_folder(place)?, is_archive: true };
    for (key, value) in pairs(query) {
        output.is_archive = match (key, value.trim()) {
            ("compression", "gzip") => true,
            ("compression", "none") => false,
            _ => {
                return Err(wrong(
                    format!("has `{key}` with a value that it cannot have"),
                    format!("write {MODEL_FORM}"),
                ));
            }
        };
    }
    Ok(output)
}

/// A folder in S3, `s3://<bucket>/<folder>/`. The slash at its end keeps SageMaker to this folder: without it, it would read
/// every key that begins so.
fn s3_folder(uri: &str) -> Result<String, WrongInput> {
    let form = "write it as in `s3://<bucket>/<folder>`";
    let Some(place) = uri.trim().strip_prefix("s3://") else { return Err(wrong("does not begin with `s3://`", form)) };
    let (bucket, key) = place.split_once('/').unwrap_or((place, ""));
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_bucket = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b))
        && bucket.split('.').all(|label| is_end(label.bytes().next()) && is_end(label.bytes().last()))
        && bucket.parse::<std::net::Ipv4Addr>().is_err();
    if !is_bucket {
        return Err(wrong("does not name a bucket", form));
    }
    if key.contains('$') {
        let change =
            "write the value of the variable: GitLab did not expand it, because the job has no variable of this name";
        return Err(wrong("holds `$`", change));
    }
    let key = key.strip_suffix('/').unwrap_or(key);
    let is_part = |part: &str| !["", ".", ".."].contains(&part) && !part.chars().any(char::is_control);
    if !key.is_empty() && !key.split('/').all(is_part) {
        return Err(wrong("has a part that is empty, `.` or `..`, or holds control characters", form));
    }
    let uri = if key.is_empty() { format!("s3://{bucket}/") } else { format!("s3://{bucket}/{key}/") };
    if uri.len() > URI {
        return Err(wrong(format!("is longer than {URI} bytes"), "name a folder with a shorter key"));
    }
    Ok(uri)
}

fn of_s3(name: String, uri: &str, query: &str) -> Result<Channel, WrongInput> {
    let (mut mode, mut is_sharded, mut content_type) = (ChannelMode::File, false, None);
    for (key, value) in pairs(query) {
        match (key, value) {
            ("mode", "File") => mode = ChannelMode::File,
            ("mode", "FastFile") => mode = ChannelMode::FastFile,
            ("mode", "Pipe") => mode = ChannelMode::Pipe,
            ("distribution", "FullyReplicated") => is_sharded = false,
            ("distribution", "ShardedByS3Key") => is_sharded = true,
            ("content_type", kind)
                if (1..=CONTENT_TYPE).contains(&kind.len()) && !kind.chars().any(char::is_control) =>
            {
                content_type = Some(kind.to_owned());
            }
            _ => {
                return Err(wrong(format!("has `{key}` with a value that it cannot have"), format!("write {S3_FORM}")));
            }
        }
    }
    Ok(Channel { name, source: ChannelSource::S3 { uri: uri.to_owned(), is_sharded }, mode, content_type })
}

fn of_file_system(name: String, kind: FileSystemKind, rest: &str, query: &str) -> Result<Channel, WrongInput> {
    let (id, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_id =
        (11..=21).contains(&id.len()) && id.strip_prefix("fs-").is_some_and(|digits| digits.bytes().all(is_hex));
    let path = path.strip_suffix('/').unwrap_or(path);
    let is_part = |part: &str| !["", ".", ".."].contains(&part) && !part.chars().any(char::is_control);
    if !is_id || path.len() >= DIRECTORY || (!path.is_empty() && !path.split('/').all(is_part)) {
        return Err(wrong("does not name a file system and a folder of it", format!("write {FILE_SYSTEM_FORM}")));
    }
    let mut is_writable = false;
    for (key, value) in pairs(query) {
        match (key, value) {
            ("access", "ro") => is_writable = false,
            ("access", "rw") => is_writable = true,
            _ => {
                return Err(wrong(
                    format!("has `{key}` with a value that it cannot have"),
                    format!("write {FILE_SYSTEM_FORM}"),
                ));
            }
        }
    }
    let source = ChannelSource::FileSystem { kind, id: id.to_owned(), path: format!("/{path}"), is_writable };
    Ok(Channel { name, source, mode: ChannelMode::File, content_type: None })
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn source(uri: &str) -> ChannelSource {
        channel("TRAIN", uri).unwrap().source
    }

    #[test]
    fn a_uri_gives_source_mode_and_content_type() {
        let data =
            channel("TRAIN", " s3://data/churn?mode=FastFile&distribution=ShardedByS3Key&content_type=text/csv ")
                .unwrap();
        assert_eq!(
            (data.name.as_str(), data.mode, data.content_type.as_deref()),
            ("train", ChannelMode::FastFile, Some("text/csv"))
        );
        assert_eq!(data.source, ChannelSource::S3 { uri: "s3://data/churn/".to_owned(), is_sharded: true });
        let file_system = |kind, id: &str, path: &str, is_writable| ChannelSource::FileSystem {
            kind,
            id: id.to_owned(),
            path: path.to_owned(),
            is_writable,
        };
        assert_eq!(
            source("efs://fs-01234567/a/b/?access=rw"),
            file_system(FileSystemKind::Efs, "fs-01234567", "/a/b", true)
        );
        assert_eq!(
            source("fsx://fs-0123456789abcdef0/fsx/a"),
            file_system(FileSystemKind::FsxLustre, "fs-0123456789abcdef0", "/fsx/a", false)
        );
    }

    #[test]
    fn a_folder_ends_with_a_slash() {
        for uri in ["s3://data", "s3://data/"] {
            assert_eq!(s3_folder(uri).unwrap(), "s3://data/");
        }
        assert_eq!(s3_folder("s3://data/a b/c/").unwrap(), "s3://data/a b/c/");
        assert_eq!(s3_folder("s3://my.data/a").unwrap(), "s3://my.data/a/");
    }

    #[test]
    fn a_model_is_an_archive_unless_it_says_otherwise() {
        let of = |uri: &str| model_output(uri).map(|output| (output.folder, output.is_archive));
        for uri in ["s3://models/churn", "s3://models/churn/?compression=gzip"] {
            assert_eq!(of(uri).unwrap(), ("s3://models/churn/".to_owned(), true));
        }
        assert_eq!(of("s3://models/churn?compression=none").unwrap(), ("s3://models/churn/".to_owned(), false));
        assert!(of("s3://models/churn?compression=zip").unwrap_err().change.contains("compression=gzip|none"));
    }

    #[test_case("x", "data/churn", "`s3://"; "no scheme")]
    #[test_case("x", "https://data/churn", "`s3://"; "another scheme")]
    #[test_case("x", "s3:///churn", "bucket"; "no bucket")]
    #[test_case("x", "s3://Data/churn", "bucket"; "capitals in a bucket")]
    #[test_case("x", "s3://da..ta/churn", "bucket"; "two dots in a bucket")]
    #[test_case("x", "s3://da.-ta/churn", "bucket"; "a hyphen beside a dot")]
    #[test_case("x", "s3://192.168.0.1/churn", "bucket"; "an address as bucket")]
    #[test_case("x", "s3://data/$NAME", "did not expand"; "a variable that is not there")]
    #[test_case("x", "s3://data/../secret", "`..`"; "parent folder")]
    #[test_case("x", "s3://data//x", "empty"; "empty part")]
    #[test_case("x", "s3://data/x?mode=Fast", "`mode`"; "unknown mode")]
    #[test_case("x", "s3://data/x?speed=9", "`speed`"; "unknown key")]
    #[test_case("x", "efs://fs-1/x", "file system"; "short id")]
    #[test_case("x", "efs://fs-01234567/../x", "file system"; "parent folder of a file system")]
    #[test_case("x", "fsx://fs-01234567/x?mode=Pipe", "`mode`"; "pipe of a file system")]
    #[test_case("", "s3://data/x", "name of a channel"; "no name")]
    #[test_case("a-b", "s3://data/x", "name of a channel"; "hyphen")]
    #[test_case("SAGEMAKER-EXECUTOR", "s3://data/x", "name of a channel"; "the agent's")]
    fn a_wrong_input_says_why_and_what_to_write(name: &str, uri: &str, word: &str) {
        let wrong = channel(name, uri).unwrap_err();
        assert!(format!("{} {}", wrong.why, wrong.change).contains(word), "{wrong:?}");
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(channel(&"n".repeat(65), "s3://data/x").is_err() && channel(&"n".repeat(64), "s3://data/x").is_ok());
        assert!(s3_folder(&format!("s3://data/{}", "k".repeat(1013))).is_ok());
        assert!(s3_folder(&format!("s3://data/{}", "k".repeat(1014))).is_err());
    }
}
