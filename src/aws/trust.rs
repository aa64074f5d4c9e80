//! TLS trust roots of the AWS clients.
//!
//! The SDK's client ends the process on a certificate that it cannot read, and in a debug build on a host without any.
//! This module checks first and turns both into errors. It never weakens verification.

use std::path::Path;

use aws_sdk_s3::config::{RuntimeComponents, SharedHttpClient};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use executor::base::failure::Failure;
use executor::base::trusted_roots;

use super::settings::Names;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The origin of this process's environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surroundings {
    /// The operator's: it may name a proxy and other roots.
    Host,
    /// A CI job's with an id token, or one that reads the token of another user: who starts the pipeline can set variables. A proxy may carry TLS, and no variable names roots.
    Job,
    /// An image's: its variables are meant for the job's own programs.
    Container,
}

/// A client that trusts the system's roots and those of `ca_bundle`; on the host, it goes through the proxy of the environment.
pub(super) fn https_client(
    ca_bundle: Option<&Path>,
    surroundings: Surroundings,
    names: &Names,
) -> anyhow::Result<SharedHttpClient> {
    // The client reads the same file.
    let system = trusted_roots::file();
    let native = system.is_some();
    let setting = names.ca_bundle;
    let mut trust = TrustStore::empty();
    match (surroundings, system) {
        (Surroundings::Host, _) => trust = trust.with_native_roots(native),
        // Read here, because the client's own loader follows `SSL_CERT_FILE`.
        (Surroundings::Job | Surroundings::Container, Some(file)) => {
            if let Ok(roots) = readable_certificates(file, names) {
                trust = trust.with_pem_certificate(roots);
            }
        }
        (Surroundings::Job | Surroundings::Container, None) => {}
    }
    if let Some(path) = ca_bundle {
        trust = trust.with_pem_certificate(readable_certificates(path, names)?);
    } else if !native {
        return Err(Failure::system("the host has no file of trusted TLS roots")
            .hint(format!("install the package `ca-certificates`, or set {setting} to a PEM file"))
            .into());
    }
    let context = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| Failure::system("failed to set up TLS").caused_by(error))?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let proxy = match surroundings {
            Surroundings::Host | Surroundings::Job => ProxyConfig::from_env(),
            Surroundings::Container => ProxyConfig::disabled(),
        };
        let mut connector = Connector::builder().proxy_config(proxy);
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context.clone()).build()
    }))
}

/// The certificates of a PEM file that TLS can use; unusable ones are skipped with a warning.
fn readable_certificates(path: &Path, names: &Names) -> anyhow::Result<Vec<u8>> {
    let setting = names.ca_bundle;
    let unusable = |what: &str| {
        Failure::system(format!("failed to read the CA bundle {}: {what}", path.display()))
            .hint(format!("set {setting} to a PEM file of certificates, or remove the setting"))
    };
    let text = std::fs::read(path).map_err(|error| unusable(&error.to_string()))?;
    let text = String::from_utf8_lossy(&text);
    let mut kept = String::new();
    for block in text.split(BEGIN).skip(1) {
        let Some((body, _)) = block.split_once(END) else { continue };
        let pem = format!("{BEGIN}{body}{END}\n");
        let readable = CertificateDer::from_pem_slice(pem.as_bytes())
            .is_ok_and(|certificate| RootCertStore::empty().add(certificate).is_ok());
        if readable {
            kept.push_str(&pem);
        } else {
            tracing::warn!(path = %path.display(), "a certificate of the CA bundle cannot be used");
        }
    }
    if kept.is_empty() {
        return Err(unusable("it holds no certificate that TLS can use").into());
    }
    Ok(kept.into_bytes())
}

#[cfg(test)]
mod tests {
    use executor::cloud::SettingsFile;

    use super::*;

    fn operators() -> &'static Names {
        Names::of(SettingsFile::Operator)
    }
    use executor::base::failure::render;

    #[test]
    fn a_bundle_without_a_certificate_is_an_error_with_a_hint() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{BEGIN}\nbm90IGEgY2VydGlmaWNhdGU=\n{END}\n")).unwrap();
        let error = https_client(Some(file.path()), Surroundings::Host, operators()).unwrap_err();
        let text = render(&error);
        assert!(text.contains("no certificate that TLS can use"), "{text}");
        assert!(text.contains("`aws.ca_bundle`"), "{text}");
    }

    #[test]
    fn an_absent_bundle_is_an_error() {
        let error =
            https_client(Some(Path::new("/nonexistent/bundle.pem")), Surroundings::Host, operators()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/bundle.pem"), "{error}");
    }
}
