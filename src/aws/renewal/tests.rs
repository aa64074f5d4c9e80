//! Credentials in a file that is replaced, against the scripted server.

use std::path::Path;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
use executor::cloud::{CloudErrorKind, ObjectStore as _};

use super::*;
use crate::clients::{Clients, http_client, loader};
use crate::objects::AwsObjects;
use crate::stub::{Stub, reply};
use crate::trust::Surroundings;

const EXPIRED: &str = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";

fn write(file: &Path, key: &str) {
    std::fs::write(file, format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = s3cret\n")).unwrap();
}

/// A store on the stub whose credentials are in this file.
async fn objects(stub: &Stub, file: &Path) -> AwsObjects {
    let (renewal, file) = (Arc::<Renewal>::default(), file.to_owned());
    let http_client = http_client(&stub.access, Surroundings::Host).unwrap();
    let credentials = RenewedCredentials::of(Arc::clone(&renewal), move || {
        let files = ProfileFiles::builder().with_file(ProfileFileKind::Credentials, &file).build();
        let config = ProviderConfig::without_region().with_http_client(http_client.clone());
        let provider = ProfileFileCredentialsProvider::builder().configure(&config).profile_files(files).build();
        Box::pin(std::future::ready(SharedCredentialsProvider::new(provider)))
    });
    let config = loader(&stub.access)
        .unwrap()
        .credentials_provider(credentials)
        .identity_cache(RenewedCache::new(Arc::clone(&renewal)))
        .load()
        .await;
    AwsObjects::new(Clients::new(config, &stub.access, renewal), &stub.access)
}

#[tokio::test]
async fn a_refusal_makes_the_next_request_read_the_file_again() {
    let (stub, folder) = (Stub::start().await, tempfile::tempdir().unwrap());
    let file = folder.path().join("credentials");
    write(&file, "AKIDOLD");
    let objects = objects(&stub, &file).await;
    for _ in 0..2 {
        stub.push(reply(200, "body"));
        objects.get("k").await.unwrap();
    }
    write(&file, "AKIDNEW");
    stub.push(reply(200, "body"));
    objects.get("k").await.unwrap();
    stub.push(reply(400, EXPIRED));
    assert_eq!(objects.get("k").await.unwrap_err().kind, CloudErrorKind::Unauthenticated);
    stub.push(reply(200, "body"));
    objects.get("k").await.unwrap();
    let signed_by: Vec<_> = stub.seen().into_iter().filter_map(|seen| seen.authorization).collect();
    let by = |key: &str| signed_by.iter().map(|seen| seen.contains(key)).collect::<Vec<_>>();
    assert_eq!(by("AKIDOLD"), [true, true, true, true, false]);
    assert_eq!(by("AKIDNEW"), [false, false, false, false, true]);
}

#[test]
fn reads_are_seldom_however_often_aws_refuses() {
    let (renewal, start) = (Renewal::default(), Instant::now());
    for second in 0..31 {
        renewal.ask_at(start + Duration::from_secs(second));
    }
    assert_eq!(renewal.reads(), 4);
}
