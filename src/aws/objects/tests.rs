//! Objects: whole, in ranges, in parts, conditional, listed, deleted.

use std::path::Path;

use axum::body::{Body, Bytes};
use axum::response::Response;
use executor::cloud::{CloudErrorKind, MOST_BYTES};

use super::PART_BYTES;
use crate::stub::{SeenRequest, Stub, reply, s3_refusal};

#[tokio::test]
async fn an_absent_key_is_none_and_an_absent_bucket_is_an_error() {
    let stub = Stub::start().await;
    stub.push(s3_refusal(404, "NoSuchKey"));
    assert_eq!(stub.objects.get("a").await.unwrap(), None);
    stub.push(s3_refusal(404, "NoSuchBucket"));
    let error = stub.objects.get("a").await.unwrap_err();
    assert!(error.to_string().contains("`storage.bucket`"), "{error}");
    assert_eq!(stub.seen()[0].uri.split('?').next(), Some("/bucket/pre/fix/a"));
}

#[tokio::test]
async fn put_if_absent_tells_who_was_first_and_tries_conflicts_again() {
    let stub = Stub::with(|access| access.kms_key_id = Some("key-1".to_owned())).await;
    stub.push(s3_refusal(412, "PreconditionFailed"));
    assert!(!stub.objects.put_if_absent("a", b"1".as_slice().into()).await.unwrap());
    stub.push(s3_refusal(409, "ConditionalRequestConflict"));
    stub.push(reply(200, ""));
    assert!(stub.objects.put_if_absent("a", b"1".as_slice().into()).await.unwrap());
    let seen = stub.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.if_none_match.as_deref() == Some("*") && seen.kms.as_deref() == Some("key-1")));
}

/// A body that promises `length` bytes, sends `bytes` and breaks off.
fn broken_body(length: usize, bytes: &'static [u8]) -> Response {
    let pieces = futures::stream::unfold(0, move |piece| async move {
        if piece == 0 {
            return Some((Ok(Bytes::from_static(bytes)), 1));
        }
        // The server flushes what it has while the body is not ready.
        tokio::task::yield_now().await;
        Some((Err(std::io::Error::other("cut")), 2))
    });
    Response::builder()
        .header("content-length", length)
        .header("etag", "\"tag\"")
        .body(Body::from_stream(pieces))
        .unwrap()
}

#[tokio::test]
async fn a_body_that_breaks_off_is_asked_for_again() {
    let stub = Stub::start().await;
    stub.push(broken_body(10, b"01234"));
    stub.push(reply(200, "0123456789"));
    assert_eq!(stub.objects.get("a").await.unwrap().as_deref(), Some(&b"0123456789"[..]));
    stub.push(broken_body(4, b"3"));
    stub.push(reply(206, "3456"));
    assert_eq!(stub.objects.get_range("a", 3, 4).await.unwrap().as_deref(), Some(&b"3456"[..]));
    let ranges: Vec<_> = stub.seen().into_iter().map(|seen| seen.range).collect();
    assert_eq!(ranges, [None, None, Some("bytes=3-6".to_owned()), Some("bytes=3-6".to_owned())]);
}

/// A file of zeros that is cut into two parts.
fn large_file(path: &Path) {
    std::fs::File::create(path).unwrap().set_len(PART_BYTES + 1).unwrap();
}

fn multipart_answer(seen: &SeenRequest, part_two: u16) -> Option<Response> {
    match seen.method.as_str() {
        "POST" if seen.uri.contains("uploads") => {
            Some(reply(200, "<InitiateMultipartUploadResult><UploadId>up-1</UploadId></InitiateMultipartUploadResult>"))
        }
        "PUT" if part_two != 200 && seen.uri.contains("partNumber=2") => Some(s3_refusal(part_two, "AccessDenied")),
        "PUT" => Some(Response::builder().header("etag", "\"part\"").body(Body::empty()).unwrap()),
        "POST" => Some(reply(200, "<CompleteMultipartUploadResult/>")),
        "DELETE" => Some(reply(204, "")),
        _ => None,
    }
}

#[tokio::test]
async fn a_large_file_goes_in_parts() {
    let stub = Stub::start().await;
    stub.answer(|seen| multipart_answer(seen, 200));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    large_file(&path);
    stub.objects.put_file("a", &path).await.unwrap();
    let seen = stub.seen();
    let last = seen.last().unwrap();
    let body = String::from_utf8_lossy(&last.body);
    assert!(last.method == "POST" && last.uri.contains("uploadId=up-1"), "{}", last.uri);
    let order: Vec<_> = body.match_indices("<PartNumber>").map(|(at, tag)| &body[at + tag.len()..][..1]).collect();
    assert_eq!(order, ["1", "2"]);
    assert!(seen.iter().all(|seen| seen.method != "DELETE"));
}

#[tokio::test]
async fn an_upload_that_was_completed_before_its_reply_was_lost_is_a_success() {
    let stub = Stub::start().await;
    stub.answer(|seen| match seen.method.as_str() {
        "POST" if seen.uri.contains("uploadId") => Some(s3_refusal(404, "NoSuchUpload")),
        "HEAD" => Some(Response::builder().header("content-length", PART_BYTES + 1).body(Body::empty()).unwrap()),
        _ => multipart_answer(seen, 200),
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    large_file(&path);
    stub.objects.put_file("a", &path).await.unwrap();
    assert_eq!(stub.seen().last().unwrap().method, "HEAD");
}

#[tokio::test]
async fn an_upload_whose_success_cannot_be_read_is_looked_at() {
    for (there, succeeds) in [(PART_BYTES + 1, true), (PART_BYTES, false)] {
        let stub = Stub::start().await;
        stub.answer(move |seen| match seen.method.as_str() {
            "POST" if seen.uri.contains("uploadId") => {
                Some(reply(200, "<SomethingElse><ETag>x</ETag></SomethingElse>"))
            }
            "HEAD" => Some(Response::builder().header("content-length", there).body(Body::empty()).unwrap()),
            _ => multipart_answer(seen, 200),
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        large_file(&path);
        assert_eq!(stub.objects.put_file("a", &path).await.is_ok(), succeeds);
    }
}

#[tokio::test]
async fn a_404_without_a_code_is_an_absent_object_and_an_absent_bucket_is_an_error() {
    let stub = Stub::start().await;
    stub.push(reply(404, ""));
    assert_eq!(stub.objects.get("a").await.unwrap(), None);
    stub.push(s3_refusal(404, "NoSuchBucket"));
    assert!(stub.objects.get("a").await.is_err());
}

#[tokio::test]
async fn an_upload_that_fails_is_aborted() {
    let stub = Stub::start().await;
    stub.answer(|seen| multipart_answer(seen, 403));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    large_file(&path);
    let error = stub.objects.put_file("a", &path).await.unwrap_err();
    assert_eq!((error.kind, error.action), (CloudErrorKind::Denied, "s3:PutObject"));
    let last = stub.seen().pop().unwrap();
    assert!(last.method == "DELETE" && last.uri.contains("uploadId=up-1"), "{last:?}");
}

/// A container may store anything under a key that the host reads.
#[tokio::test]
async fn an_object_that_would_fill_the_memory_is_refused() {
    let stub = Stub::start().await;
    stub.push(reply(200, vec![b'x'; 100]));
    assert_eq!(stub.objects.get("a").await.unwrap().map(|body| body.len()), Some(100));
    stub.push(reply(200, vec![0; usize::try_from(MOST_BYTES).unwrap() + 1]));
    let error = stub.objects.get("a").await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Other);
    assert!(error.to_string().contains("at most 67108864 are read"), "{error}");
}

#[tokio::test]
async fn a_list_is_relative_to_the_prefix_and_follows_its_pages() {
    let stub = Stub::start().await;
    let page = |key: &str, more: &str| {
        reply(200, format!("<ListBucketResult>{more}<Contents><Key>pre/fix/{key}</Key></Contents></ListBucketResult>"))
    };
    stub.push(page("s/1", "<IsTruncated>true</IsTruncated><NextContinuationToken>n</NextContinuationToken>"));
    stub.push(page("s/2", ""));
    assert_eq!(stub.objects.list("s/").await.unwrap(), ["s/1", "s/2"]);
    assert!(stub.seen()[0].uri.contains("prefix=pre%2Ffix%2Fs%2F"), "{:?}", stub.seen());
}

#[tokio::test]
async fn errors_inside_a_deletion_are_errors_and_passing_ones_are_tried_again() {
    let stub = Stub::start().await;
    let failed = |code: &str| {
        reply(200, format!("<DeleteResult><Error><Key>pre/fix/a</Key><Code>{code}</Code></Error></DeleteResult>"))
    };
    let keys = ["a".to_owned(), "b".to_owned()];
    stub.push(failed("SlowDown"));
    stub.push(reply(200, "<DeleteResult/>"));
    stub.objects.delete(&keys).await.unwrap();
    let again = String::from_utf8_lossy(&stub.seen()[1].body).into_owned();
    assert!(again.contains("pre/fix/a") && !again.contains("pre/fix/b"), "{again}");
    stub.push(failed("AccessDenied"));
    let error = stub.objects.delete(&keys).await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Denied);
    assert!(error.to_string().contains("s3://bucket/pre/fix/a"), "{error}");
}

#[tokio::test]
async fn more_keys_than_a_batch_takes_go_in_several() {
    let stub = Stub::start().await;
    stub.answer(|_| Some(reply(200, "<DeleteResult/>")));
    let keys: Vec<String> = (0..1001).map(|number| format!("k{number}")).collect();
    stub.objects.delete(&keys).await.unwrap();
    assert_eq!(stub.seen().len(), 2);
    stub.objects.delete(&[]).await.unwrap();
    assert_eq!(stub.seen().len(), 2);
}
