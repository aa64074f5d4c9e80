//! TLS in front of the double of GitLab, with a certificate authority of its own, as in a company's network.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::waiting::{poll, search_path};

/// The programs it needs.
pub(crate) const NEEDS: [&str; 2] = ["openssl", "python3"];

/// A running front; it stops when dropped.
pub(crate) struct TlsFront {
    child: Child,
    /// `https://127.0.0.1:<port>`.
    pub(crate) url: String,
}

/// The authority's certificate in a world's folder.
pub(crate) fn authority(folder: &Path) -> PathBuf {
    folder.join("ca.pem")
}

impl TlsFront {
    /// Makes the certificates in `folder` and listens in front of the plain address.
    pub(crate) fn start(folder: &Path, plain: &str) -> Self {
        make_certificates(folder);
        let ready = folder.join("tls-port");
        let port = plain.rsplit(':').next().expect("an address has a port");
        let child = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gitlab/tls-front.py"))
            .args([&folder.join("server.pem"), &folder.join("server.key")])
            .arg(port)
            .arg(&ready)
            .stdin(Stdio::null())
            .spawn()
            .expect("the caller has looked for python3");
        let port = poll(Duration::from_secs(30), || std::fs::read_to_string(&ready).ok());
        Self { child, url: format!("https://127.0.0.1:{}", port.expect("the front gets ready")) }
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn make_certificates(folder: &Path) {
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl(
        folder,
        &[
            &["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=test authority"],
            &key[..],
        ]
        .concat(),
    );
    openssl(
        folder,
        &[&["req", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1"], &key[..]].concat(),
    );
    let sign =
        ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30"];
    openssl(folder, &[&sign[..], &["-extfile", "names", "-out", "server.pem"]].concat());
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", search_path())
        .stdin(Stdio::null())
        .output()
        .expect("the caller has looked for openssl");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
