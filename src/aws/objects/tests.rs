//! Objects: whole, in ranges, in parts, conditional, listed, deleted.

use axum::body::{Body, Bytes};
use axum::response::Response;
use executor::cloud::{CloudErrorKind, Content, MOST_BYTES, Retention, StoredHash, VersionExpiration};

use crate::stub::{Stub, reply, s3_refusal};

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

#[tokio::test]
async fn a_file_goes_in_one_request_with_its_hash_and_the_stored_hash_is_read_back() {
    let stub = Stub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "abc").unwrap();
    let told = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
    let hash = super::decoded(told).unwrap();
    stub.push(reply(200, ""));
    stub.objects.put_with_hash("a", Content::File(&path), &hash).await.unwrap();
    let head = |hash: &str| Response::builder().header("x-amz-checksum-sha256", hash).body(Body::empty()).unwrap();
    stub.push(head(told));
    assert_eq!(stub.objects.stored_hash("a").await.unwrap(), StoredHash::Known(hash));
    stub.push(head(&format!("{told}-2")));
    assert_eq!(stub.objects.stored_hash("a").await.unwrap(), StoredHash::Unknown, "of an upload in parts");
    stub.push(reply(404, ""));
    assert_eq!(stub.objects.stored_hash("a").await.unwrap(), StoredHash::Absent);
    let seen = stub.seen();
    assert_eq!((seen[0].sha256.as_deref(), seen[0].body.as_slice()), (Some(told), &b"abc"[..]));
    assert_eq!((seen[1].method.as_str(), seen[1].checksum_mode.as_deref()), ("HEAD", Some("ENABLED")));
}

#[tokio::test]
async fn only_rules_that_delete_every_old_version_of_our_objects_count() {
    let rule = |status: &str, filter: &str, versions: &str| {
        format!(
            "<Rule><Status>{status}</Status>{filter}<NoncurrentVersionExpiration>{versions}</NoncurrentVersionExpiration></Rule>"
        )
    };
    let (of, one) =
        (|prefix: &str| format!("<Filter><Prefix>{prefix}</Prefix></Filter>"), "<NoncurrentDays>1</NoncurrentDays>");
    let rules = [
        rule("Enabled", &of("pre/fix/sessions/"), one),
        rule("Enabled", &of("pre"), "<NoncurrentDays>3</NoncurrentDays>"),
        rule("Enabled", "<Prefix>pre/fix/projects/</Prefix>", one),
        rule("Enabled", &of("other/"), one),
        rule("Disabled", &of(""), one),
        rule("Enabled", "<Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter>", one),
        rule(
            "Enabled",
            &of(""),
            "<NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>2</NewerNoncurrentVersions>",
        ),
        "<Rule><Status>Enabled</Status><Expiration><Days>1</Days></Expiration></Rule>".to_owned(),
    ];
    let stub = Stub::start().await;
    let answer = |versioning: &'static str, rules: Result<String, u16>| {
        stub.answer(move |seen| {
            Some(match &rules {
                _ if seen.uri.contains("versioning") => reply(200, versioning),
                Ok(rules) => reply(200, format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>")),
                Err(404) => s3_refusal(404, "NoSuchLifecycleConfiguration"),
                Err(status) => s3_refusal(*status, "AccessDenied"),
            })
        });
        stub.objects.retention()
    };
    let (on, off) =
        ("<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>", "<VersioningConfiguration/>");
    let found = answer(on, Ok(rules.concat())).await.unwrap();
    let expected = [("sessions/", 1), ("", 3), ("projects/", 1)];
    let expected = expected.map(|(prefix, days)| VersionExpiration { prefix: prefix.to_owned(), days });
    assert_eq!(found, Retention { is_versioned: true, expirations: expected.to_vec() });
    assert!(answer(on, Err(404)).await.unwrap().expirations.is_empty());
    assert_eq!(answer(on, Err(403)).await.unwrap_err().action, "s3:GetLifecycleConfiguration");
    assert_eq!(answer(off, Err(403)).await.unwrap(), Retention::default());
}

#[tokio::test]
async fn a_404_without_a_code_is_an_absent_object_and_an_absent_bucket_is_an_error() {
    let stub = Stub::start().await;
    stub.push(reply(404, ""));
    assert_eq!(stub.objects.get("a").await.unwrap(), None);
    stub.push(s3_refusal(404, "NoSuchBucket"));
    assert!(stub.objects.get("a").await.is_err());
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
async fn a_deletion_is_sent_once_where_the_access_says_so() {
    const BUSY: &str = "<DeleteResult><Error><Key>pre/fix/a</Key><Code>SlowDown</Code></Error></DeleteResult>";
    let answers: [fn() -> Response; 2] = [|| s3_refusal(503, "SlowDown"), || reply(200, BUSY)];
    for answer in answers {
        let stub = Stub::with_retries(|access| access.deletes_once = true).await;
        stub.answer(move |_| Some(answer()));
        let error = stub.objects.delete(&["a".to_owned(), "b".to_owned()]).await.unwrap_err();
        assert_eq!((error.kind, stub.seen().len()), (CloudErrorKind::Throttled, 1), "{error}");
    }
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
