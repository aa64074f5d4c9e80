//! The registry's own protocol (OCI distribution specification): what `docker push`, `buildah push` and their pulls speak.

mod uploads;

use std::sync::Arc;

use futures::TryStreamExt as _;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use s3s::Body;
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;

use super::images::{self, NewImage};
use super::records::{ImageStore, RepositoryKey, image_id};
use crate::authorization::NeededAction;
use crate::caller::{Caller, Signing, WireProtocol};
use crate::clock;
use crate::protocol::{ApiError, Reply, reply};
use crate::service::{ApiCall, Service, read};

/// The header that names the digest of a blob or a manifest.
const DIGEST: &str = "docker-content-digest";
/// The operation of a request for the version of the protocol.
const VERSION: &str = "RegistryVersion";

/// A request, taken apart by its path.
#[derive(Debug, PartialEq, Eq)]
enum Target<'a> {
    Version,
    Tags,
    Manifest(&'a str),
    Blob(&'a str),
    /// A new upload.
    Uploads,
    Upload(&'a str),
}

/// Name of the repository, and what of it a path is for; `None` when the path is not the registry's.
fn target(path: &str) -> Option<(&str, Target<'_>)> {
    let rest = path.strip_prefix("/v2").filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    let rest = rest.trim_start_matches('/');
    if rest.is_empty() {
        return Some(("", Target::Version));
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Some((name, Target::Tags));
    }
    if let Some((name, id)) = rest.rsplit_once("/blobs/uploads/") {
        return Some((name, if id.is_empty() { Target::Uploads } else { Target::Upload(id) }));
    }
    if let Some(name) = rest.strip_suffix("/blobs/uploads") {
        return Some((name, Target::Uploads));
    }
    let blob = rest.rsplit_once("/blobs/").map(|(name, digest)| (name, Target::Blob(digest)));
    blob.or_else(|| rest.rsplit_once("/manifests/").map(|(name, reference)| (name, Target::Manifest(reference))))
}

/// The operation of a request, by the name of the action of ECR that it needs; `None` when it is not for the registry.
pub(crate) fn operation(method: &Method, path: &str) -> Option<&'static str> {
    let (_, target) = target(path)?;
    Some(match (target, method) {
        (Target::Version, _) => VERSION,
        (Target::Tags, _) => "ListImages",
        (Target::Manifest(_), &Method::PUT) => "PutImage",
        (Target::Manifest(_), _) => "BatchGetImage",
        (Target::Blob(_), &Method::HEAD) => "BatchCheckLayerAvailability",
        (Target::Blob(_), _) => "GetDownloadUrlForLayer",
        (Target::Uploads, _) => "InitiateLayerUpload",
        (Target::Upload(_), &Method::PUT) => "CompleteLayerUpload",
        (Target::Upload(_), _) => "UploadLayerPart",
    })
}

/// The registry as a service. Its requests carry a password of `GetAuthorizationToken` in place of a signature.
pub(crate) struct Distribution(pub(crate) Arc<ImageStore>);

#[async_trait::async_trait]
impl Service for Distribution {
    fn signing(&self) -> Signing {
        Signing { protocol: WireProtocol::Json, service: None }
    }

    fn needs_signature(&self, _: &str) -> bool {
        false
    }

    fn refuse(&self, error: ApiError) -> Reply {
        refusal(&error)
    }

    async fn call(&self, call: ApiCall) -> anyhow::Result<Reply> {
        let authorization = call.request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let caller = authorization.and_then(|value| self.0.passwords.caller(value, clock::now_ms()));
        let Some(caller) = caller else { return Ok(unauthorized(&self.0.shared.endpoint)) };
        match self.answer(call, &caller).await {
            Ok(reply) => Ok(reply),
            Err(Refused::Answer(error)) => Ok(refusal(&error)),
            Err(Refused::Connection(error)) => Err(error),
        }
    }
}

/// The end of a request without its effect.
enum Refused {
    Answer(ApiError),
    Connection(anyhow::Error),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Answer(error)
    }
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self::Connection(error)
    }
}

impl Distribution {
    async fn answer(&self, call: ApiCall, caller: &Caller) -> Result<Reply, Refused> {
        let ApiCall { request, operation, .. } = call;
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let Some((name, target)) = target(&path) else { return Ok(reply(StatusCode::NOT_FOUND, JSON, "")) };
        if target == Target::Version {
            return Ok(reply(StatusCode::OK, JSON, "{}"));
        }
        let (account, region) = (caller.account.clone(), caller.region.clone());
        let key = RepositoryKey { account, region, name: name.to_owned() };
        let needed = NeededAction::new(format!("ecr:{operation}"), key.arn());
        let denied = |message| ApiError { status: 403, ..ApiError::new("AccessDeniedException", message) };
        self.0.shared.authority.allows(caller, &needed, None).map_err(denied)?;
        self.0.with(&key, |_| Ok(()))?;
        let query = parts.uri.query().unwrap_or_default();
        match (target, parts.method) {
            (Target::Tags, Method::GET) => self.tags(&key),
            (Target::Manifest(reference), Method::PUT) => {
                let manifest = read(body).await?;
                self.put_manifest(&key, reference, &parts.headers, &manifest)
            }
            (Target::Manifest(reference), method @ (Method::GET | Method::HEAD)) => {
                self.manifest(&key, reference, method == Method::HEAD)
            }
            (Target::Blob(digest), method @ (Method::GET | Method::HEAD)) => {
                self.blob(&key, digest, method == Method::HEAD).await
            }
            (Target::Uploads, Method::POST) => self.begin(&key, query, body).await,
            (Target::Upload(id), Method::PATCH) => self.patch(&key, id, body).await,
            (Target::Upload(id), Method::PUT) => self.complete(&key, id, query, body).await,
            _ => Err(ApiError { status: 405, ..ApiError::new("UNSUPPORTED", "The operation is unsupported.") }.into()),
        }
    }

    fn tags(&self, key: &RepositoryKey) -> Result<Reply, Refused> {
        let tags: Vec<_> = self.0.with(key, |repository| Ok(repository.tags.keys().cloned().collect()))?;
        Ok(reply(StatusCode::OK, JSON, json!({"name": key.name, "tags": tags}).to_string()))
    }

    fn put_manifest(
        &self,
        key: &RepositoryKey,
        reference: &str,
        headers: &HeaderMap,
        manifest: &[u8],
    ) -> Result<Reply, Refused> {
        let media_type = headers.get("content-type").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let tag = Some(reference).filter(|reference| !reference.contains(':'));
        if tag.is_none() && super::blobs::digest_of(manifest) != reference {
            return Err(ApiError::new("DIGEST_INVALID", "The digest does not match the manifest").into());
        }
        let digest = images::add(&self.0, key, NewImage { manifest, media_type, tag })?;
        let mut created = located(StatusCode::CREATED, &format!("/v2/{}/manifests/{digest}", key.name));
        set(&mut created, DIGEST, &digest);
        Ok(created)
    }

    fn manifest(&self, key: &RepositoryKey, reference: &str, head: bool) -> Result<Reply, Refused> {
        let id = if reference.contains(':') { image_id(reference, None) } else { json!({"imageTag": reference}) };
        let found = self.0.with(key, |repository| {
            let digest = repository.digest(&id).map(str::to_owned);
            let image = digest.as_ref().and_then(|digest| repository.images.get(digest)).cloned();
            let unknown = || ApiError { status: 404, ..ApiError::new("MANIFEST_UNKNOWN", "Requested image not found") };
            digest.zip(image).ok_or_else(unknown)
        })?;
        let (digest, image) = found;
        let length = image.manifest.len();
        let body = if head { Body::empty() } else { Body::from(bytes::Bytes::from(image.manifest)) };
        Ok(content(body, &digest, &image.media_type, length as u64))
    }

    async fn blob(&self, key: &RepositoryKey, digest: &str, head: bool) -> Result<Reply, Refused> {
        let is_here = self.0.with(key, |repository| Ok(repository.blobs.contains(digest)))?;
        let file = self.0.blobs.size(digest).zip(self.0.blobs.path(digest)).filter(|_| is_here);
        let unknown = || ApiError { status: 404, ..ApiError::new("BLOB_UNKNOWN", "blob unknown to registry") };
        let (size, path) = file.ok_or_else(unknown)?;
        let body = if head {
            Body::empty()
        } else {
            let file = tokio::fs::File::open(path).await.map_err(anyhow::Error::from)?;
            let stream = ReaderStream::with_capacity(file, 256 * 1024);
            Body::from(s3s::dto::StreamingBlob::wrap(stream.map_err(std::io::Error::other)))
        };
        Ok(content(body, digest, "application/octet-stream", size))
    }
}

const JSON: &str = "application/json";

fn content(body: Body, digest: &str, media_type: &str, length: u64) -> Reply {
    let mut reply = Response::new(body);
    set(&mut reply, DIGEST, digest);
    set(&mut reply, "content-type", media_type);
    set(&mut reply, "content-length", &length.to_string());
    reply
}

fn set(reply: &mut Reply, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}

/// A reply that says where something is.
fn located(status: StatusCode, location: &str) -> Reply {
    let mut reply = reply(status, JSON, "");
    set(&mut reply, "location", location);
    reply
}

fn unauthorized(endpoint: &str) -> Reply {
    let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": "Not Authorized"}]});
    let mut refused = reply(StatusCode::UNAUTHORIZED, JSON, body.to_string());
    set(&mut refused, "www-authenticate", &format!("Basic realm=\"{endpoint}/\",service=\"ecr.amazonaws.com\""));
    set(&mut refused, "docker-distribution-api-version", "registry/2.0");
    refused
}

/// An error in the registry's form.
fn refusal(error: &ApiError) -> Reply {
    let (code, status) = match error.code.as_str() {
        "RepositoryNotFoundException" => ("NAME_UNKNOWN", 404),
        "AccessDeniedException" => ("DENIED", 403),
        "ImageTagAlreadyExistsException" => ("TAG_INVALID", 400),
        "LayersNotFoundException" | "ReferencedImagesNotFoundException" => ("BLOB_UNKNOWN", 404),
        "InvalidParameterException" => ("MANIFEST_INVALID", 405),
        "ThrottlingException" => ("TOOMANYREQUESTS", 429),
        other => (other, error.status),
    };
    let body: Value = json!({"errors": [{"code": code, "message": error.message}]});
    reply(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), JSON, body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_a_repository_and_its_part() {
        let cases = [
            ("/v2/", Some(("", Target::Version))),
            ("/v2", Some(("", Target::Version))),
            ("/v2/team/serve/manifests/1.0", Some(("team/serve", Target::Manifest("1.0")))),
            ("/v2/serve/blobs/sha256:0", Some(("serve", Target::Blob("sha256:0")))),
            ("/v2/serve/blobs/uploads/", Some(("serve", Target::Uploads))),
            ("/v2/serve/blobs/uploads/7", Some(("serve", Target::Upload("7")))),
            ("/v2/serve/tags/list", Some(("serve", Target::Tags))),
            ("/v20/key", None),
            ("/bucket/v2/key", None),
        ];
        for (path, expected) in cases {
            assert_eq!(target(path), expected, "{path}");
        }
    }
}
