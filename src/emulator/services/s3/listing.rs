//! Pages of object names.

use s3s::{S3Result, dto};

use super::convert::{fault, listed};
use super::operations::S3Operations;

impl S3Operations {
    /// A page of `ListObjectsV2`; `ListObjects` is answered from the same.
    pub(super) fn page(&self, input: dto::ListObjectsV2Input) -> S3Result<dto::ListObjectsV2Output> {
        let prefix = input.prefix.clone().unwrap_or_default();
        let limit = input.max_keys.unwrap_or(1000).clamp(0, 1000);
        let after = input.continuation_token.as_deref().or(input.start_after.as_deref());
        let page = self
            .store
            .list(&input.bucket, &prefix, after, input.delimiter.as_deref(), usize::try_from(limit).unwrap_or_default())
            .map_err(fault)?;
        let count = page.objects.len() + page.prefixes.len();
        Ok(dto::ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(prefix),
            max_keys: Some(limit),
            key_count: i32::try_from(count).ok(),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            continuation_token: input.continuation_token,
            start_after: input.start_after,
            contents: Some(page.objects.into_iter().map(|(key, stored)| listed(key, &stored)).collect()),
            common_prefixes: Some(
                page.prefixes.into_iter().map(|prefix| dto::CommonPrefix { prefix: Some(prefix) }).collect(),
            ),
            delimiter: input.delimiter,
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }
}
