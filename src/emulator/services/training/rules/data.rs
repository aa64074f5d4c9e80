//! Rules on channels.

use serde_json::{Map, Value};

use super::request::{first_channel, twice};
use super::rule::CreateRule;
use crate::protocol::text;

const CHANNEL: &str = "API reference, Channel";
const SOURCE: &str = "API reference, S3DataSource";
const FILE_SYSTEMS: &str = "developer guide, Configure Data Input Channel to Use Amazon FSx for Lustre or Amazon EFS";

pub(super) const RULES: &[CreateRule] = &[
    CreateRule {
        name: "the names of channels differ",
        source: CHANNEL,
        message: "Channel names must be unique. Duplicate channel: {}",
        breach: |request| twice(request.channels(), "ChannelName"),
    },
    CreateRule {
        name: "a channel has one source",
        source: "API reference, DataSource",
        message: "Exactly one data source must be specified for channel {}.",
        breach: |request| first_channel(request, |channel| channel["DataSource"].as_object().map_or(0, Map::len) != 1),
    },
    CreateRule {
        name: "only pipes unpack",
        source: "API reference, CompressionType of Channel",
        message: "Gzip compression is supported only in Pipe mode.",
        breach: |request| {
            first_channel(request, |channel| {
                text(channel, "CompressionType") == Some("Gzip") && request.mode(channel) != "Pipe"
            })
        },
    },
    CreateRule {
        name: "only pipes wrap records",
        source: "API reference, RecordWrapperType of Channel",
        message: "RecordWrapperType RecordIO is supported only in Pipe mode.",
        breach: |request| {
            first_channel(request, |channel| {
                text(channel, "RecordWrapperType") == Some("RecordIO") && request.mode(channel) != "Pipe"
            })
        },
    },
    CreateRule {
        name: "an augmented manifest needs a pipe",
        source: "API reference, S3DataType of S3DataSource",
        message: "AugmentedManifestFile is supported only in Pipe mode.",
        breach: |request| first_channel(request, |channel| is_augmented(channel) && request.mode(channel) != "Pipe"),
    },
    CreateRule {
        name: "attributes are those of an augmented manifest",
        source: "API reference, AttributeNames of S3DataSource",
        message: "AttributeNames can be specified only with AugmentedManifestFile.",
        breach: |request| {
            first_channel(request, |channel| {
                !is_augmented(channel) && channel.pointer("/DataSource/S3DataSource/AttributeNames").is_some()
            })
        },
    },
    CreateRule {
        name: "the license of a model is accepted",
        source: SOURCE,
        message: "AcceptEula must be true in ModelAccessConfig of channel {}.",
        breach: |request| {
            first_channel(request, |channel| {
                channel.pointer("/DataSource/S3DataSource/ModelAccessConfig/AcceptEula") == Some(&Value::Bool(false))
            })
        },
    },
    CreateRule {
        name: "a file system is read in file mode",
        source: FILE_SYSTEMS,
        message: "A file system data source is supported only in File mode: channel {}.",
        breach: |request| {
            first_channel(request, |channel| file_system(channel).is_some() && request.mode(channel) != "File")
        },
    },
    CreateRule {
        name: "a file system needs a VPC",
        source: FILE_SYSTEMS,
        message: "VpcConfig must be specified for the file system data source of channel {}.",
        breach: |request| {
            first_channel(request, |channel| file_system(channel).is_some() && !request.has("/VpcConfig"))
        },
    },
    CreateRule {
        name: "the directory of a file system is a full path",
        source: "API reference, DirectoryPath of FileSystemDataSource",
        message: "DirectoryPath must be an absolute path: channel {}.",
        breach: |request| {
            first_channel(request, |channel| {
                let path = file_system(channel).and_then(|source| text(source, "DirectoryPath"));
                path.is_some_and(|path| !path.starts_with('/'))
            })
        },
    },
];

fn is_augmented(channel: &Value) -> bool {
    channel.pointer("/DataSource/S3DataSource/S3DataType").and_then(Value::as_str) == Some("AugmentedManifestFile")
}

fn file_system(channel: &Value) -> Option<&Value> {
    channel.pointer("/DataSource/FileSystemDataSource")
}
