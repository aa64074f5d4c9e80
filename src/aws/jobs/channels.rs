//! Input channels in the SDK's types.

use aws_sdk_sagemaker::types::{
    Channel, CompressionType, DataSource, FileSystemAccessMode, FileSystemDataSource, FileSystemType,
    S3DataDistribution, S3DataSource, S3DataType, TrainingInputMode,
};
use executor::cloud::{ChannelMode, ChannelSource, FileSystemKind};

pub(super) fn channel(channel: &executor::cloud::Channel) -> Channel {
    let source = match &channel.source {
        ChannelSource::S3 { uri, is_sharded } => {
            DataSource::builder().s3_data_source(in_s3(S3DataType::S3Prefix, uri, *is_sharded))
        }
        ChannelSource::Listed { uri } => {
            DataSource::builder().s3_data_source(in_s3(S3DataType::ManifestFile, uri, false))
        }
        ChannelSource::FileSystem { kind, id, path, is_writable } => {
            let access = if *is_writable { FileSystemAccessMode::Rw } else { FileSystemAccessMode::Ro };
            let kind = match kind {
                FileSystemKind::Efs => FileSystemType::Efs,
                FileSystemKind::FsxLustre => FileSystemType::Fsxlustre,
            };
            let source = FileSystemDataSource::builder()
                .file_system_id(id)
                .file_system_type(kind)
                .file_system_access_mode(access)
                .directory_path(path);
            DataSource::builder().file_system_data_source(source.build())
        }
    };
    Channel::builder()
        .channel_name(&channel.name)
        .data_source(source.build())
        .set_content_type(channel.content_type.clone())
        .compression_type(CompressionType::None)
        .input_mode(match channel.mode {
            ChannelMode::File => TrainingInputMode::File,
            ChannelMode::FastFile => TrainingInputMode::Fastfile,
            ChannelMode::Pipe => TrainingInputMode::Pipe,
        })
        .build()
}

fn in_s3(kind: S3DataType, uri: &str, is_sharded: bool) -> S3DataSource {
    let distribution =
        if is_sharded { S3DataDistribution::ShardedByS3Key } else { S3DataDistribution::FullyReplicated };
    S3DataSource::builder().s3_data_type(kind).s3_uri(uri).s3_data_distribution_type(distribution).build()
}

/// URIs of the channels that lie in S3.
pub(super) fn uris(channels: &[Channel]) -> Vec<String> {
    let sources = channels.iter().filter_map(|channel| channel.data_source()?.s3_data_source()?.s3_uri());
    sources.map(str::to_owned).collect()
}
