//! Configuration of the SDK and its service clients, each made on its first call.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::{ProvideRegion as _, RegionProviderChain};
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_sdk_s3::config::{SharedCredentialsProvider, SharedHttpClient};
use executor::base::failure::Failure;
use executor::cloud::{Access, CloudError, CloudErrorKind, EndpointKind, SettingsFile};

use super::calls::CallLog;
use super::errors::AwsCall;
use super::renewal::{Renewal, RenewedCache, RenewedCredentials};
use super::settings::Names;
use super::trust::{self, Surroundings};
use super::web_identity::RoleByToken;
use super::whole_answers::WholeAnswers;

/// Attempts of one call, the first included; the SDK backs off between them with jitter.
const ATTEMPTS: u32 = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of one attempt of a call with a small body.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_mins(1);
/// Time limit of one attempt of a call with a large body: the agent's executable is the largest.
pub(super) const TRANSFER_ATTEMPT_TIMEOUT: Duration = Duration::from_mins(10);
/// Time limit of one attempt to read a secret, of 64 KiB at most.
const SECRET_TIMEOUT: Duration = Duration::from_secs(15);
/// Time limit of a request to an endpoint, of which the container has 60 seconds.
const INVOCATION_TIMEOUT: Duration = Duration::from_secs(70);

/// Shared configuration, and the service clients that have been used so far.
#[derive(Debug)]
pub(super) struct Clients {
    config: SdkConfig,
    renewal: Arc<Renewal>,
    /// The file whose keys errors name.
    settings: SettingsFile,
    /// See [`Access::deletes_once`].
    deletes_once: bool,
    sagemaker: OnceLock<aws_sdk_sagemaker::Client>,
    s3: OnceLock<aws_sdk_s3::Client>,
    logs: OnceLock<aws_sdk_cloudwatchlogs::Client>,
    sts: OnceLock<aws_sdk_sts::Client>,
    ecr: OnceLock<aws_sdk_ecr::Client>,
    iam: OnceLock<aws_sdk_iam::Client>,
    secrets: OnceLock<aws_sdk_secretsmanager::Client>,
    quotas: OnceLock<aws_sdk_servicequotas::Client>,
    runtime: OnceLock<aws_sdk_sagemakerruntime::Client>,
    scaling: OnceLock<aws_sdk_applicationautoscaling::Client>,
    metrics: OnceLock<aws_sdk_cloudwatch::Client>,
    codebuild: OnceLock<aws_sdk_codebuild::Client>,
}

impl Clients {
    pub(super) async fn load(access: &Access) -> anyhow::Result<Arc<Self>> {
        let renewal = Arc::<Renewal>::default();
        Ok(Self::new(sdk_config(access, &renewal).await?, access, renewal))
    }

    /// Clients with the credentials of the container's role, configured by `access` alone.
    pub(super) fn of_container(access: &Access) -> anyhow::Result<Arc<Self>> {
        let region = access.region.clone().ok_or_else(|| no_region(access))?;
        let http_client = http_client(access, Surroundings::Container)?;
        let role = ProviderConfig::without_region().with_http_client(http_client.clone());
        let role = EcsCredentialsProvider::builder().configure(&role).build();
        let role = SharedCredentialsProvider::new(role);
        let renewal = Arc::<Renewal>::default();
        let config = explicit(access, Region::new(region), http_client, Some(role))?.into_builder();
        let config = config.identity_cache(RenewedCache::new(Arc::clone(&renewal))).build();
        Ok(Self::new(config, access, renewal))
    }

    pub(super) fn new(config: SdkConfig, access: &Access, renewal: Arc<Renewal>) -> Arc<Self> {
        Arc::new(Self {
            config,
            renewal,
            settings: access.settings,
            deletes_once: access.deletes_once,
            sagemaker: OnceLock::new(),
            s3: OnceLock::new(),
            logs: OnceLock::new(),
            sts: OnceLock::new(),
            ecr: OnceLock::new(),
            iam: OnceLock::new(),
            secrets: OnceLock::new(),
            quotas: OnceLock::new(),
            runtime: OnceLock::new(),
            scaling: OnceLock::new(),
            metrics: OnceLock::new(),
            codebuild: OnceLock::new(),
        })
    }

    /// The context of a call for its errors: see [`AwsCall::new`].
    pub(super) fn call(&self, verb: &str, resource: impl Into<String>, action: &'static str) -> AwsCall {
        AwsCall::new(verb, resource, action).of(self.settings).renewing(&self.renewal)
    }

    /// Region, endpoint and credentials, for requests without a client.
    pub(super) fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// The error of a call for which no credentials were found.
    pub(super) fn no_credentials(&self, call: &AwsCall) -> CloudError {
        let change = Names::of(self.settings).absent_credentials;
        call.error(CloudErrorKind::Unauthenticated, format!("no AWS credentials were found; {change}"))
    }

    pub(super) fn sagemaker(&self) -> &aws_sdk_sagemaker::Client {
        self.sagemaker.get_or_init(|| {
            let config = aws_sdk_sagemaker::config::Builder::from(&self.config)
                .interceptor(CallLog::default())
                .interceptor(WholeAnswers);
            aws_sdk_sagemaker::Client::from_conf(config.build())
        })
    }

    /// The configuration of a deletion.
    pub(super) fn deletion(&self) -> aws_sdk_sagemaker::config::Builder {
        let mut changes = aws_sdk_sagemaker::config::Builder::new();
        changes.set_retry_config(self.deletes_once.then(RetryConfig::disabled));
        changes
    }

    /// As [`Clients::deletion`], of alarms.
    pub(super) fn alarm_deletion(&self) -> aws_sdk_cloudwatch::config::Builder {
        let mut changes = aws_sdk_cloudwatch::config::Builder::new();
        changes.set_retry_config(self.deletes_once.then(RetryConfig::disabled));
        changes
    }

    /// As [`Clients::deletion`], of objects.
    pub(super) fn object_deletion(&self) -> aws_sdk_s3::config::Builder {
        let mut changes = aws_sdk_s3::config::Builder::new();
        changes.set_retry_config(self.deletes_once.then(RetryConfig::disabled));
        changes
    }

    /// See [`Access::deletes_once`].
    pub(super) fn deletes_once(&self) -> bool {
        self.deletes_once
    }

    pub(super) fn s3(&self) -> &aws_sdk_s3::Client {
        self.s3.get_or_init(|| {
            let config = aws_sdk_s3::config::Builder::from(&self.config)
                // Host names such as `bucket.127.0.0.1` do not resolve.
                .force_path_style(self.config.endpoint_url().is_some())
                .interceptor(CallLog::default())
                .build();
            aws_sdk_s3::Client::from_conf(config)
        })
    }

    pub(super) fn logs(&self) -> &aws_sdk_cloudwatchlogs::Client {
        self.logs.get_or_init(|| {
            let config = aws_sdk_cloudwatchlogs::config::Builder::from(&self.config).interceptor(CallLog::default());
            aws_sdk_cloudwatchlogs::Client::from_conf(config.build())
        })
    }

    pub(super) fn sts(&self) -> &aws_sdk_sts::Client {
        self.sts.get_or_init(|| {
            let config = aws_sdk_sts::config::Builder::from(&self.config).interceptor(CallLog::default());
            aws_sdk_sts::Client::from_conf(config.build())
        })
    }

    pub(super) fn ecr(&self) -> &aws_sdk_ecr::Client {
        self.ecr.get_or_init(|| {
            let config = aws_sdk_ecr::config::Builder::from(&self.config)
                .interceptor(CallLog::default())
                .interceptor(WholeAnswers);
            aws_sdk_ecr::Client::from_conf(config.build())
        })
    }

    pub(super) fn iam(&self) -> &aws_sdk_iam::Client {
        self.iam.get_or_init(|| {
            let config = aws_sdk_iam::config::Builder::from(&self.config).interceptor(CallLog::default());
            aws_sdk_iam::Client::from_conf(config.build())
        })
    }

    pub(super) fn secrets(&self) -> &aws_sdk_secretsmanager::Client {
        self.secrets.get_or_init(|| {
            let config = aws_sdk_secretsmanager::config::Builder::from(&self.config)
                .timeout_config(timeouts(SECRET_TIMEOUT))
                .interceptor(CallLog::default());
            aws_sdk_secretsmanager::Client::from_conf(config.build())
        })
    }

    pub(super) fn quotas(&self) -> &aws_sdk_servicequotas::Client {
        self.quotas.get_or_init(|| {
            let config = aws_sdk_servicequotas::config::Builder::from(&self.config).interceptor(CallLog::default());
            aws_sdk_servicequotas::Client::from_conf(config.build())
        })
    }

    /// Each request is sent once, and its caller measures it.
    pub(super) fn runtime(&self) -> &aws_sdk_sagemakerruntime::Client {
        self.runtime.get_or_init(|| {
            let config = aws_sdk_sagemakerruntime::config::Builder::from(&self.config)
                .retry_config(RetryConfig::disabled())
                .timeout_config(timeouts(INVOCATION_TIMEOUT))
                .interceptor(CallLog::default());
            aws_sdk_sagemakerruntime::Client::from_conf(config.build())
        })
    }

    pub(super) fn scaling(&self) -> &aws_sdk_applicationautoscaling::Client {
        self.scaling.get_or_init(|| {
            let config =
                aws_sdk_applicationautoscaling::config::Builder::from(&self.config).interceptor(CallLog::default());
            aws_sdk_applicationautoscaling::Client::from_conf(config.build())
        })
    }

    pub(super) fn codebuild(&self) -> &aws_sdk_codebuild::Client {
        self.codebuild.get_or_init(|| {
            let config = aws_sdk_codebuild::config::Builder::from(&self.config).interceptor(CallLog::default());
            aws_sdk_codebuild::Client::from_conf(config.build())
        })
    }

    pub(super) fn metrics(&self) -> &aws_sdk_cloudwatch::Client {
        self.metrics.get_or_init(|| {
            let config = aws_sdk_cloudwatch::config::Builder::from(&self.config).interceptor(CallLog::default());
            aws_sdk_cloudwatch::Client::from_conf(config.build())
        })
    }
}

/// The configuration of every client, or an error that says which setting is missing.
async fn sdk_config(access: &Access, renewal: &Arc<Renewal>) -> anyhow::Result<SdkConfig> {
    let Some(identity) = &access.web_identity else {
        let config = loader(access)?.no_credentials().load().await;
        let region = config.region().cloned().ok_or_else(|| no_region(access))?;
        if access.fixed_servers {
            check_region(&region)?;
            let http_client = http_client(access, Surroundings::Job)?;
            let credentials = RenewedCredentials::of_host(Arc::clone(renewal), region.clone(), &http_client);
            let credentials = SharedCredentialsProvider::new(credentials);
            let config = explicit(access, region, http_client, Some(credentials))?.into_builder();
            return Ok(config.identity_cache(RenewedCache::new(Arc::clone(renewal))).build());
        }
        let http_client = config.http_client().context("the SDK's configuration has no HTTP client")?;
        let credentials = RenewedCredentials::of_host(Arc::clone(renewal), region, &http_client);
        let config = config.into_builder().credentials_provider(SharedCredentialsProvider::new(credentials));
        return Ok(config.identity_cache(RenewedCache::new(Arc::clone(renewal))).build());
    };
    let region = match &access.region {
        Some(region) => Some(Region::new(region.clone())),
        None => EnvironmentVariableRegionProvider::new().region().await,
    };
    let region = region.ok_or_else(|| no_region(access))?;
    check_region(&region)?;
    let http_client = http_client(access, Surroundings::Job)?;
    let unsigned = explicit(access, region.clone(), http_client.clone(), None)?;
    let (identity, renewed) = (identity.clone(), Arc::clone(renewal));
    let credentials = RoleByToken::new(unsigned, access.settings, identity, renewed).await?;
    let config = explicit(access, region, http_client, Some(SharedCredentialsProvider::new(credentials)))?;
    Ok(config.into_builder().identity_cache(RenewedCache::new(Arc::clone(renewal))).build())
}

/// A configuration that takes nothing from variables and profiles.
pub(super) fn explicit(
    access: &Access,
    region: Region,
    http_client: SharedHttpClient,
    credentials: Option<SharedCredentialsProvider>,
) -> anyhow::Result<SdkConfig> {
    let mut config = SdkConfig::builder()
        .behavior_version(behavior())
        .http_client(http_client)
        .app_name(app_name()?)
        .timeout_config(timeouts(ATTEMPT_TIMEOUT))
        .retry_config(RetryConfig::standard().with_max_attempts(access.attempts.unwrap_or(ATTEMPTS)))
        .region(region);
    config.set_endpoint_url(access.endpoint_url.clone());
    let EndpointKind { fips, dual_stack } = kind(access);
    config.set_use_fips(Some(fips));
    config.set_use_dual_stack(Some(dual_stack));
    config.set_credentials_provider(credentials);
    Ok(config.build())
}

/// The kind of AWS's endpoints; an endpoint of one's own has none.
fn kind(access: &Access) -> EndpointKind {
    if access.endpoint_url.is_some() { EndpointKind::default() } else { access.endpoints }
}

/// Refuses a region that would change the host of an endpoint: `x.example/`.
fn check_region(region: &Region) -> anyhow::Result<()> {
    let is_name = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
    if region.as_ref().bytes().all(is_name) {
        return Ok(());
    }
    let failure = Failure::user("the region is no name of a region");
    Err(failure.hint("check `environments.<name>.region` in the manifest, or the job variable `AWS_REGION`").into())
}

fn no_region(access: &Access) -> Failure {
    let failure = Failure::system("no AWS region is known");
    match access.settings {
        SettingsFile::Operator => {
            failure.hint("set `aws.region` in the operator file, or `AWS_REGION` in the environment of the runner")
        }
        SettingsFile::Manifest => {
            failure.hint("set `environments.<name>.region` in the manifest, or the job variable `AWS_REGION`")
        }
    }
}

pub(super) fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

fn app_name() -> anyhow::Result<AppName> {
    AppName::new(concat!("sagemaker-executor-", env!("CARGO_PKG_VERSION"))).context("failed to name the program to AWS")
}

pub(super) fn http_client(access: &Access, surroundings: Surroundings) -> anyhow::Result<SharedHttpClient> {
    let plain = access.endpoint_url.as_deref().is_some_and(|url| url.starts_with("http://"));
    if plain {
        // Without TLS no roots are read, which would cost more than the rest of the start.
        return Ok(aws_smithy_http_client::Builder::new().build_http());
    }
    trust::https_client(access.ca_bundle.as_deref(), surroundings, Names::of(access.settings))
}

/// Region, endpoint, time limits, retries and TLS.
pub(super) fn loader(access: &Access) -> anyhow::Result<ConfigLoader> {
    let mut loader = aws_config::defaults(behavior())
        .http_client(http_client(access, Surroundings::Host)?)
        .app_name(app_name()?)
        .timeout_config(timeouts(ATTEMPT_TIMEOUT))
        .retry_config(RetryConfig::standard().with_max_attempts(access.attempts.unwrap_or(ATTEMPTS)));
    if let Some(region) = &access.region {
        loader = loader.region(Region::new(region.clone()));
    } else if access.endpoint_url.is_some() {
        // A host with an emulator has no instance metadata, and the request for it takes seconds to fail.
        let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new());
        loader = loader.region(chain);
    }
    let EndpointKind { fips, dual_stack } = kind(access);
    if let Some(endpoint_url) = &access.endpoint_url {
        loader = loader.endpoint_url(endpoint_url).use_fips(false).use_dual_stack(false);
    }
    // Otherwise a variable or a profile may still ask for it.
    if fips {
        loader = loader.use_fips(true);
    }
    if dual_stack {
        loader = loader.use_dual_stack(true);
    }
    Ok(loader)
}

/// The time limits of a call: `attempt` for each attempt, three times as much for all together.
pub(super) fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(attempt)
        .operation_timeout(attempt * 3)
        .build()
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use test_case::test_case;

    use super::*;

    /// Notes the addresses of requests, and sends none.
    #[derive(Debug, Clone, Default)]
    struct Addresses(Arc<parking_lot::Mutex<Vec<String>>>);

    impl HttpConnector for Addresses {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            self.0.lock().push(request.uri().to_owned());
            HttpConnectorFuture::ready(Err(ConnectorError::user("nothing is sent".into())))
        }
    }

    #[test_case("us-gov-west-1", false, false, "https://sts.us-gov-west-1.amazonaws.com/"; "of a partition")]
    #[test_case("us-gov-west-1", true, false, "https://sts.us-gov-west-1.amazonaws.com/"; "that are FIPS by themselves")]
    #[test_case("us-west-2", true, false, "https://sts-fips.us-west-2.amazonaws.com/"; "with FIPS")]
    #[test_case("eu-west-1", false, true, "https://sts.eu-west-1.api.aws/"; "with IPv6")]
    #[test_case("cn-north-1", false, false, "https://sts.cn-north-1.amazonaws.com.cn/"; "of China")]
    #[tokio::test]
    async fn the_sdk_knows_the_endpoints(region: &str, fips: bool, dual_stack: bool, expected: &str) {
        let access = Access { endpoints: EndpointKind { fips, dual_stack }, ..Access::default() };
        let addresses = Addresses::default();
        let connector = SharedHttpConnector::new(addresses.clone());
        let client = http_client_fn(move |_, _| connector.clone());
        let config = explicit(&access, Region::new(region.to_owned()), client, None).unwrap();
        let call = aws_sdk_sts::Client::new(&config).assume_role_with_web_identity();
        let call = call.role_arn("arn:aws:iam::1:role/r").role_session_name("s").web_identity_token("t").send();
        assert!(call.await.is_err());
        assert_eq!(*addresses.0.lock(), [expected]);
    }

    /// A service reads its own endpoint from variables and profiles.
    #[tokio::test]
    async fn no_variable_and_no_profile_names_a_fixed_server() {
        for fixed_servers in [false, true] {
            let region = Some("eu-west-1".to_owned());
            let access = Access { region, fixed_servers, ..Access::default() };
            let config = sdk_config(&access, &Arc::default()).await.unwrap();
            assert_eq!(config.service_config().is_none(), fixed_servers);
        }
    }

    #[tokio::test]
    async fn the_settings_may_bound_the_attempts() {
        for (attempts, expected) in [(None, ATTEMPTS), (Some(2), 2)] {
            let access = Access { region: Some("eu-west-1".to_owned()), attempts, ..Access::default() };
            let config = sdk_config(&access, &Arc::default()).await.unwrap();
            assert_eq!(config.retry_config().map(RetryConfig::max_attempts), Some(expected));
        }
    }

    #[test]
    fn a_region_is_no_part_of_another_host() {
        for (region, is_accepted) in
            [("eu-west-1", true), ("us-gov-east-1", true), ("evil.example/", false), ("a#", false)]
        {
            assert_eq!(check_region(&Region::new(region)).is_ok(), is_accepted, "{region}");
        }
    }
}
