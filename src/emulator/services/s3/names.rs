//! The operation names of S3 requests, for counts and faults; `s3s` does its own routing.

use hyper::{HeaderMap, Method};

/// The operation that a request is for.
pub(crate) fn operation(method: &Method, path: &str, query: &str, headers: &HeaderMap) -> &'static str {
    let path = path.trim_start_matches('/');
    let in_bucket = path.split_once('/').is_some_and(|(_, key)| !key.is_empty());
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    match (method.as_str(), in_bucket) {
        ("GET", true) if has("uploadId") => "ListParts",
        ("GET", true) => "GetObject",
        ("GET", false) if path.is_empty() => "ListBuckets",
        ("GET", false) if has("uploads") => "ListMultipartUploads",
        ("GET", false) if has("versioning") => "GetBucketVersioning",
        ("PUT", false) if has("versioning") => "PutBucketVersioning",
        ("GET", false) if has("versions") => "ListObjectVersions",
        ("GET", false) if has("lifecycle") => "GetBucketLifecycleConfiguration",
        ("PUT", false) if has("lifecycle") => "PutBucketLifecycleConfiguration",
        ("DELETE", false) if has("lifecycle") => "DeleteBucketLifecycle",
        ("GET", false) if has("policy") => "GetBucketPolicy",
        ("PUT", false) if has("policy") => "PutBucketPolicy",
        ("DELETE", false) if has("policy") => "DeleteBucketPolicy",
        ("GET", false) if has("encryption") => "GetBucketEncryption",
        ("PUT", false) if has("encryption") => "PutBucketEncryption",
        ("GET", false) if has("publicAccessBlock") => "GetPublicAccessBlock",
        ("PUT", false) if has("publicAccessBlock") => "PutPublicAccessBlock",
        ("GET", false) if has("location") => "GetBucketLocation",
        ("GET", false) if has("list-type") => "ListObjectsV2",
        ("GET", false) => "ListObjects",
        ("HEAD", true) => "HeadObject",
        ("HEAD", false) => "HeadBucket",
        ("PUT", true) if has("uploadId") => "UploadPart",
        ("PUT", true) if headers.contains_key("x-amz-copy-source") => "CopyObject",
        ("PUT", true) => "PutObject",
        ("PUT", false) => "CreateBucket",
        ("POST", true) if has("uploads") => "CreateMultipartUpload",
        ("POST", true) if has("uploadId") => "CompleteMultipartUpload",
        ("POST", false) if has("delete") => "DeleteObjects",
        ("DELETE", true) if has("uploadId") => "AbortMultipartUpload",
        ("DELETE", true) => "DeleteObject",
        ("DELETE", false) => "DeleteBucket",
        _ => "UnknownS3Operation",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_operations_have_their_names() {
        let name = |method: Method, path: &str, query: &str| operation(&method, path, query, &HeaderMap::new());
        assert_eq!(name(Method::PUT, "/b/k", ""), "PutObject");
        assert_eq!(name(Method::PUT, "/b/k", "partNumber=1&uploadId=x"), "UploadPart");
        assert_eq!(name(Method::GET, "/b/", "list-type=2"), "ListObjectsV2");
        assert_eq!(name(Method::GET, "/", ""), "ListBuckets");
        assert_eq!(name(Method::POST, "/b", "delete"), "DeleteObjects");
    }
}
