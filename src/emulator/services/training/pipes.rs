//! Channels in Pipe mode: one named pipe an epoch, `<channel>_<epoch>`, through which the objects come one after the other.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::protocol::text;
use crate::store::Stored;

/// Time between two looks for a reader.
const LOOK: Duration = Duration::from_millis(10);
/// First word of a record in `RecordIO`.
const RECORD: u32 = 0xced7_230a;

/// A channel of one host with its objects.
#[derive(Debug)]
pub(super) struct PipeChannel {
    /// `/opt/ml/input/data/<channel>` on this machine.
    path: PathBuf,
    objects: Arc<Vec<Arc<Stored>>>,
    form: PipeForm,
}

/// The form in which the objects are written.
#[derive(Debug, Clone, Copy)]
struct PipeForm {
    gunzip: bool,
    /// Each object is one record.
    records: bool,
}

impl PipeChannel {
    /// Creates the pipe of the first epoch.
    pub(super) fn create(folder: &Path, channel: &Value, objects: Vec<Arc<Stored>>) -> anyhow::Result<Self> {
        let form = PipeForm {
            gunzip: text(channel, "CompressionType") == Some("Gzip"),
            records: text(channel, "RecordWrapperType") == Some("RecordIO"),
        };
        let path = folder.join(text(channel, "ChannelName").unwrap_or_default());
        let created = Self { path, objects: Arc::new(objects), form };
        created.make(0).context("failed to create a named pipe")?;
        Ok(created)
    }

    fn epoch(&self, number: u64) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!("_{number}"));
        PathBuf::from(name)
    }

    fn make(&self, epoch: u64) -> io::Result<()> {
        Ok(mknodat(CWD, self.epoch(epoch), FileType::Fifo, Mode::from_raw_mode(0o644), 0)?)
    }

    /// Writes epoch after epoch, each once it is read; ends only when the container has broken its pipes.
    pub(super) async fn feed(&self) {
        for epoch in 0.. {
            let Some(mut pipe) = self.wait_for_reader(epoch).await else { return };
            // Before this one ends, so that a reader finds the next at once.
            if self.make(epoch + 1).is_err() {
                return;
            }
            let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(4);
            let (objects, form) = (Arc::clone(&self.objects), self.form);
            tokio::task::spawn_blocking(move || {
                let sent = objects.iter().try_for_each(|object| send(object, form, &sender));
                if let Err(error) = sent {
                    tracing::debug!(error = format!("{error:#}"), "a channel was not read to its end");
                }
            });
            while let Some(chunk) = chunks.recv().await {
                if pipe.write_all(&chunk).await.is_err() {
                    break; // The reader has seen enough of this epoch.
                }
            }
        }
    }

    async fn wait_for_reader(&self, epoch: u64) -> Option<pipe::Sender> {
        loop {
            match pipe::OpenOptions::new().open_sender(self.epoch(epoch)) {
                Ok(sender) => return Some(sender),
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(_) => return None,
            }
        }
    }
}

/// Reads an object and sends it in its form; an error also when nobody takes it.
fn send(object: &Stored, form: PipeForm, sender: &mpsc::Sender<Vec<u8>>) -> anyhow::Result<()> {
    let files = object.files();
    let files: Vec<_> = files.iter().map(|(path, _)| std::fs::File::open(path)).collect::<io::Result<_>>()?;
    let empty: Box<dyn Read> = Box::new(io::empty());
    let body = files.into_iter().fold(empty, |before, file| Box::new(before.chain(file)));
    let mut body: Box<dyn Read> = if form.gunzip { Box::new(flate2::read::MultiGzDecoder::new(body)) } else { body };
    if form.records {
        let mut content = Vec::new();
        body.read_to_end(&mut content)?;
        return Ok(sender.blocking_send(record(&content)?)?);
    }
    loop {
        let mut chunk = Vec::with_capacity(1 << 16);
        if body.by_ref().take(1 << 16).read_to_end(&mut chunk)? == 0 {
            return Ok(());
        }
        sender.blocking_send(chunk)?;
    }
}

/// A record of `RecordIO`: its first word, its length, its content, and zeros up to a multiple of four bytes.
fn record(content: &[u8]) -> anyhow::Result<Vec<u8>> {
    let length = u32::try_from(content.len()).ok().filter(|length| *length < 1 << 29);
    let length = length.context("failed to write an object as one record: it has more than 512 MiB")?;
    let mut record = [RECORD.to_le_bytes(), length.to_le_bytes()].concat();
    record.extend(content);
    record.resize(record.len().next_multiple_of(4), 0);
    Ok(record)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::Store;

    #[test]
    fn a_record_is_padded() {
        assert_eq!(record(b"abcde").unwrap(), b"\x0a\x23\xd7\xce\x05\0\0\0abcde\0\0\0");
    }

    #[tokio::test]
    async fn each_epoch_has_a_pipe_with_all_objects() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("s3")).unwrap();
        store.create_bucket("b").unwrap();
        let mut objects = Vec::new();
        for content in ["one,", "two,"] {
            let source = folder.path().join("source");
            std::fs::write(&source, content).unwrap();
            store.put_file("b", content, &source).unwrap();
            objects.push(store.get("b", content, None).unwrap());
        }
        let channel = PipeChannel::create(folder.path(), &json!({"ChannelName": "train"}), objects).unwrap();
        let path = folder.path().join("train");
        let read = tokio::task::spawn_blocking(move || {
            let epoch = |number| std::fs::read_to_string(format!("{}_{number}", path.display())).unwrap();
            (epoch(0), epoch(1))
        });
        let read = tokio::select! {
            read = read => read.unwrap(),
            () = channel.feed() => panic!("the pipes were broken"),
        };
        assert_eq!(read, ("one,two,".to_owned(), "one,two,".to_owned()));
    }
}
