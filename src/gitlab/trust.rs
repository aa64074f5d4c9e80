//! Certificate authorities of the connection to GitLab, besides the system's.

use std::path::Path;

use executor::base::failure::Failure;
use reqwest::Certificate;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Most bytes of a file with authorities: a hundred times the system's.
const MOST_BYTES: u64 = 32 << 20;

/// The authorities of a PEM file. One that TLS cannot use is skipped with a warning.
///
/// # Errors
/// Failures that name the variable: the file cannot be read, or holds no usable certificate.
pub(super) fn authorities(path: &Path) -> Result<Vec<Certificate>, Failure> {
    let unusable = |what: &str| {
        Failure::user(format!("failed to read the certificate authorities in {}: {what}", path.display()))
            .hint("set `CI_SERVER_TLS_CA_FILE` to a PEM file of certificates, or unset it; for the token of a secret, change `--gitlab-ca-file`")
    };
    let is_sized = path.metadata().is_ok_and(|file| file.is_file() && file.len() > MOST_BYTES);
    if is_sized {
        return Err(unusable("it is too large"));
    }
    let text = std::fs::read(path).map_err(|error| unusable(&error.to_string()))?;
    let mut usable = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.ok().filter(|found| RootCertStore::empty().add(found.clone()).is_ok());
        if let Some(certificate) = certificate.and_then(|found| Certificate::from_der(&found).ok()) {
            usable.push(certificate);
        } else {
            tracing::warn!(path = %path.display(), "a certificate of `CI_SERVER_TLS_CA_FILE` cannot be used");
        }
    }
    if usable.is_empty() { Err(unusable("it holds no certificate that TLS can use")) } else { Ok(usable) }
}

#[cfg(test)]
mod tests {
    use executor::base::failure::render;

    use super::*;

    #[test]
    fn a_file_without_a_usable_certificate_is_an_error_that_names_the_variable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for content in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n"] {
            std::fs::write(file.path(), content).unwrap();
            let text = render(&authorities(file.path()).unwrap_err().into());
            assert!(text.contains("no certificate that TLS can use"), "{text}");
            assert!(text.contains("`CI_SERVER_TLS_CA_FILE`"), "{text}");
        }
        let text = render(&authorities(Path::new("/nonexistent/ca.pem")).unwrap_err().into());
        assert!(text.contains("/nonexistent/ca.pem") && text.contains("`CI_SERVER_TLS_CA_FILE`"), "{text}");
    }
}
