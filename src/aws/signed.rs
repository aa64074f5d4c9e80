//! Requests that this program writes itself, signed with the host's credentials: the few read calls to EC2 and KMS for which a whole
//! client would be compiled.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sdk_codebuild::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_types::body::SdkBody;
use executor::base::arn::partition;
use executor::cloud::{CloudError, CloudErrorKind, EndpointKind};
use http_body_util::Limited;

use super::clients::{Clients, timeouts};
use super::errors::AwsCall;

/// Name in the addresses of the service whose forms [`endpoint`] takes.
const KNOWN: &str = "codebuild";
/// Time limit of one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Attempts at a call whose error may pass.
const ATTEMPTS: u32 = 2;
/// Largest body of an answer, in bytes. A list of a few hundred route tables is below 1 MiB.
const LARGEST: usize = 8 << 20;
/// Pause before the second attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(500);

/// A `POST` to the root of a service.
#[derive(Debug, Clone)]
pub(super) struct SignedRequest {
    /// Name of the service in signatures and in the names of its endpoints: `ec2`.
    pub(super) service: &'static str,
    pub(super) content_type: &'static str,
    /// `X-Amz-Target`, for services of the JSON protocol.
    pub(super) target: Option<&'static str>,
    pub(super) body: String,
}

/// An answer with its status.
#[derive(Debug)]
pub(super) struct SignedReply {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Sends a request; again when the connection or the service fails.
///
/// # Errors
/// No credentials, or no answer. An answer with an error is `Ok`.
pub(super) async fn post(
    clients: &Clients,
    call: &AwsCall,
    request: &SignedRequest,
) -> Result<SignedReply, CloudError> {
    let mut pause = PAUSE;
    for attempt in 1.. {
        let reply = post_once(clients, call, request).await;
        let may_pass = match &reply {
            Ok(reply) => reply.status >= 500,
            Err(error) => error.kind.may_pass(),
        };
        if !may_pass || attempt == ATTEMPTS {
            return reply;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    Err(call.error(CloudErrorKind::Transient, "no answer"))
}

async fn post_once(clients: &Clients, call: &AwsCall, request: &SignedRequest) -> Result<SignedReply, CloudError> {
    let config = clients.config();
    let unusable = |text: &str| call.error(CloudErrorKind::Other, text.to_owned());
    let region = config.region().ok_or_else(|| unusable("no AWS region is known"))?.to_string();
    let given = config.endpoint_url().map(|url| url.trim_end_matches('/').to_owned());
    let endpoint = if let Some(url) = given {
        url
    } else {
        let (fips, dual_stack) = (config.use_fips(), config.use_dual_stack());
        let kind = EndpointKind { fips: fips.unwrap_or_default(), dual_stack: dual_stack.unwrap_or_default() };
        endpoint(request.service, &region, kind).await.map_err(|error| unusable(&error.to_string()))?
    };
    let provider = config.credentials_provider().ok_or_else(|| unusable("no AWS credentials were found"))?;
    let credentials = provider.provide_credentials().await;
    let credentials = credentials.map_err(|_| clients.no_credentials(call))?;
    let now = config.time_source().unwrap_or_default().now();
    let signed = signed(request, &endpoint, (&region, now), credentials)
        .map_err(|error| call.error(CloudErrorKind::Other, format!("the request cannot be signed: {error}")))?;
    let client = config.http_client().ok_or_else(|| unusable("the SDK's configuration has no HTTP client"))?;
    let operation = Operation::builder()
        .service_name(request.service)
        .operation_name(call.operation.clone())
        .behavior_version(super::clients::behavior())
        .http_client(client)
        .endpoint_url(&endpoint)
        .no_auth()
        .no_retry()
        .interceptor(LimitedBody)
        .timeout_config(timeouts(ATTEMPT_TIMEOUT))
        .serializer(move |request: SignedHttp| Ok(request.into_http()?))
        .deserializer::<_, Infallible>(|response| Ok(read(response)))
        .build();
    operation.invoke(signed).await.map_err(|error| {
        let text = format!("no answer from {endpoint}: {}", causes(&error));
        call.error(CloudErrorKind::Transient, text)
    })
}

/// Ends the reading of an answer's body at [`LARGEST`] bytes.
#[derive(Debug)]
struct LimitedBody;

impl Intercept for LimitedBody {
    fn name(&self) -> &'static str {
        "LimitedBody"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let whole = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(whole, LARGEST));
        Ok(())
    }
}

/// The last cause, which names the host or the reason.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.last().map(ToString::to_string).unwrap_or_default()
}

fn read(response: &HttpResponse) -> SignedReply {
    let body = response.body().bytes().unwrap_or_default();
    SignedReply { status: response.status().as_u16(), body: String::from_utf8_lossy(body).into_owned() }
}

/// A request with its headers, among them the signature.
struct SignedHttp {
    headers: Vec<(String, String)>,
    body: String,
}

impl std::fmt::Debug for SignedHttp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedHttp").finish_non_exhaustive()
    }
}

impl SignedHttp {
    fn into_http(self) -> Result<HttpRequest, aws_smithy_runtime_api::http::HttpError> {
        let mut request = HttpRequest::new(SdkBody::from(self.body));
        request.set_method("POST")?;
        for (name, value) in self.headers {
            request.headers_mut().try_insert(name, value)?;
        }
        Ok(request)
    }
}

fn signed(
    request: &SignedRequest,
    endpoint: &str,
    (region, now): (&str, SystemTime),
    credentials: Credentials,
) -> anyhow::Result<SignedHttp> {
    let identity = credentials.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(request.service)
        .time(now)
        .settings(SigningSettings::default())
        .build()?;
    let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host);
    let host = host.split('/').next().unwrap_or_default();
    let mut headers =
        vec![("host".to_owned(), host.to_owned()), ("content-type".to_owned(), request.content_type.to_owned())];
    headers.extend(request.target.map(|target| ("x-amz-target".to_owned(), target.to_owned())));
    let shown = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let body = SignableBody::Bytes(request.body.as_bytes());
    let signable = SignableRequest::new("POST", format!("{endpoint}/"), shown, body)?;
    let (instructions, _) = sign(signable, &params.into())?.into_parts();
    let signature: Vec<_> = instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    headers.extend(signature);
    // The client sets it from the address.
    headers.retain(|(name, _)| name != "host");
    Ok(SignedHttp { headers, body: request.body.clone() })
}

/// The service's address in a region, in the form of that of CodeBuild, which the SDK knows: these services have the same forms. In the
/// regions of `GovCloud` the usual address of EC2 is validated by FIPS 140 itself, and there is no other.
async fn endpoint(service: &str, region: &str, kind: EndpointKind) -> anyhow::Result<String> {
    let is_validated = service == "ec2" && partition(region) == "aws-us-gov";
    let params = Params::builder().region(region).use_dual_stack(kind.dual_stack).use_fips(kind.fips && !is_validated);
    let known = DefaultResolver::new().resolve_endpoint(&params.build()?).await;
    let known = known.map_err(|error| anyhow::anyhow!("the region {region} has no address of AWS: {error}"))?;
    Ok(known.url().replacen(KNOWN, service, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_partition_has_its_endpoints() {
        for (service, region, fips, dual_stack, expected) in [
            ("ec2", "eu-west-1", false, false, "https://ec2.eu-west-1.amazonaws.com"),
            ("ec2", "eu-west-1", false, true, "https://ec2.eu-west-1.api.aws"),
            ("kms", "us-east-1", true, false, "https://kms-fips.us-east-1.amazonaws.com"),
            ("ec2", "us-gov-west-1", true, false, "https://ec2.us-gov-west-1.amazonaws.com"),
            ("kms", "us-gov-west-1", true, false, "https://kms-fips.us-gov-west-1.amazonaws.com"),
            ("ec2", "cn-north-1", false, false, "https://ec2.cn-north-1.amazonaws.com.cn"),
        ] {
            assert_eq!(endpoint(service, region, EndpointKind { fips, dual_stack }).await.unwrap(), expected);
        }
    }
}
