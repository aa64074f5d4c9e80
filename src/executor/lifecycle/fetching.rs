//! Reads an object of any bucket, in any region, into a file without a name.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::CommandInputs;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{Access, InputPrefix, Sha256Hash, SourceObject};

/// Bytes that are read at once.
const PART: u64 = 8 << 20;

/// The content of an object, in a file that is gone with the value.
#[derive(Debug)]
pub(super) struct FetchedObject {
    pub(super) file: File,
    pub(super) hash: Sha256Hash,
}

/// The access to a bucket of any region, with the credentials of `access`.
pub(super) async fn access_to(inputs: &CommandInputs, access: &Access, bucket: &str) -> anyhow::Result<Access> {
    let found = inputs.connect.input_data(access).await?.find_bucket(bucket, None).await;
    let region = match found {
        Ok(InputPrefix::OtherRegion { bucket: region, .. }) => Some(region),
        _ => access.region.clone(),
    };
    Ok(Access { region, bucket: bucket.to_owned(), prefix: String::new(), ..access.clone() })
}

/// Reads the whole object with bounded memory. `access` is that of [`access_to`].
///
/// # Errors
/// AWS does not answer, the object ends early, or there is no room in `TMPDIR`.
pub(super) async fn fetch(
    inputs: &CommandInputs,
    access: &Access,
    object: &SourceObject,
) -> anyhow::Result<FetchedObject> {
    let objects = inputs.connect.objects(access).await?;
    let mut file = temporary()?;
    let (mut hash, mut read) = (Sha256::new(), 0);
    while read < object.bytes {
        let part = objects.get_range(&object.key, read, PART.min(object.bytes - read)).await?.unwrap_or_default();
        if part.is_empty() {
            let place = plain::line(&format!("s3://{}/{}", object.bucket, object.key), 1100);
            let failure = Failure::system(format!("{place} ends after {read} of {} bytes", object.bytes));
            return Err(failure.hint("run the same command again, when nothing writes the object").into());
        }
        file.write_all(&part).map_err(no_room)?;
        hash.update(&part);
        read += part.len() as u64;
    }
    file.rewind()?;
    Ok(FetchedObject { file, hash: hash.finalize().into() })
}

/// A file without a name in `TMPDIR`.
pub(super) fn temporary() -> Result<File, Failure> {
    tempfile::tempfile().map_err(no_room)
}

/// The failure of a write into `TMPDIR`.
pub(super) fn no_room(error: io::Error) -> Failure {
    Failure::user("failed to write into the folder for temporary files")
        .hint("set `TMPDIR` to a folder with as much room as the package and its model need")
        .caused_by(error)
}

/// A path to an open file, for as long as it is open.
pub(super) fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Bucket and key of an `s3://` URI; `None` when it names no object.
pub(super) fn place(uri: &str) -> Option<(&str, &str)> {
    let (bucket, key) = uri.strip_prefix("s3://")?.split_once('/')?;
    (!bucket.is_empty() && !key.is_empty() && !key.ends_with('/')).then_some((bucket, key))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::clock::HostClock;
    use crate::base::failure::{self, Kind};
    use crate::cloud::testing::Memory;
    use crate::config::env::Environment;
    use crate::ui::Printer;

    #[tokio::test]
    async fn an_object_that_ends_early_is_no_content() {
        let memory = Memory::new();
        memory.objects.insert("x.zip", "content");
        let inputs = CommandInputs {
            gitlab: Arc::new(crate::gitlab::api::testing::MemoryGitLabConnect::default()),
            env: Environment::from_pairs([]),
            connect: Arc::new(memory),
            clock: Arc::new(HostClock),
            printer: Printer::captured().0,
        };
        let object = |bytes| SourceObject {
            bucket: "memory".to_owned(),
            key: "x.zip".to_owned(),
            bytes,
            etag: String::new(),
            hash: None,
        };
        let fetched = fetch(&inputs, &Access::default(), &object(7)).await.unwrap();
        assert_eq!(std::fs::read(path_of(&fetched.file)).unwrap(), b"content");
        assert_eq!(fetched.hash, Sha256Hash::from(Sha256::digest("content")));
        let error = fetch(&inputs, &Access::default(), &object(8)).await.unwrap_err();
        assert_eq!(failure::kind_of(&error), Kind::System);
        assert!(error.to_string().starts_with("s3://memory/x.zip ends after 7 of 8 bytes"), "{error}");
    }

    #[test]
    fn an_object_has_a_bucket_and_a_key() {
        assert_eq!(place("s3://b/k/x.zip"), Some(("b", "k/x.zip")));
        for uri in ["s3://b", "s3://b/", "s3:///k", "s3://b/k/", "b/k", "file://b/k"] {
            assert_eq!(place(uri), None, "{uri}");
        }
    }

    #[test]
    fn the_path_of_an_open_file_leads_to_its_content() {
        let mut file = temporary().unwrap();
        file.write_all(b"content").unwrap();
        assert_eq!(std::fs::read(path_of(&file)).unwrap(), b"content");
    }
}
