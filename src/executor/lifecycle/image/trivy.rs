//! Scans an image with trivy, which pulls it from the registry.
//!
//! The registry's password is in trivy's environment, in no argument. Variables `TRIVY_*` of the job hold: where its database is, for instance.
//! Those that leave out findings do not, and neither do trivy's own files in the project.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::process::Command;

use super::findings::{ImageScanner, KnownVulnerability, ScanResult, Severity};
use super::registry_access::PushHost;
use super::shown_lines::{self, Masks};
use crate::base::failure::Failure;
use crate::base::plain;
use crate::base::process::{self, ProcessGroup};
use crate::cloud::RegistryLogin;
use crate::config::env::Environment;
use crate::lifecycle::region::ImageName;
use crate::ui::Printer;

/// Time that trivy has to end after SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// Largest report of trivy, in bytes.
const LARGEST_REPORT: u64 = 256 << 20;
/// Variables that trivy gets, besides its own.
const PASSED: [&str; 10] = [
    "HOME",
    "PATH",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "https_proxy",
];

/// Files and folders that variables name, relative to the folder of the job.
const FILES: [&str; 7] =
    ["HOME", "TMPDIR", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "TRIVY_CACHE_DIR", "TRIVY_CACERT"];
/// Variables of trivy that leave out findings, or scan something else, by their begins. `--accept` asks for a reason and a last day.
const FILTERS: [&str; 14] = [
    "TRIVY_COMPLIANCE",
    "TRIVY_CONFIG",
    "TRIVY_DETECTION_PRIORITY",
    "TRIVY_FILE_PATTERNS",
    "TRIVY_IGNORE",
    "TRIVY_INPUT",
    "TRIVY_MODULE",
    "TRIVY_PKG_",
    "TRIVY_REMOVED_PKGS",
    "TRIVY_SEVERITY",
    "TRIVY_SHOW_SUPPRESSED",
    "TRIVY_SKIP_DIRS",
    "TRIVY_SKIP_FILES",
    "TRIVY_V",
];

/// Tells that a variable leaves out findings, or scans something else.
fn is_filter(name: &str) -> bool {
    FILTERS.iter().any(|begin| name.starts_with(begin))
}

/// The registry that has the image. A password is good for the registries of other accounts in the region too, where their policies allow it.
fn registry(host: &PushHost, image: &ImageName<'_>) -> String {
    match host.name.split_once('.') {
        Some((account, rest)) if account.len() == 12 && rest.starts_with("dkr") => format!("{}.{rest}", image.account),
        _ => host.name.clone(),
    }
}

/// Scans the image.
///
/// # Errors
/// trivy failed, or did not end within the limit.
pub(super) async fn scan(
    program: PathBuf,
    env: &Environment,
    image: &ImageName<'_>,
    login: &RegistryLogin,
    limit: Duration,
    printer: &Printer,
) -> anyhow::Result<ScanResult> {
    let host = PushHost::of(login)?;
    let folder = tempfile::Builder::new().prefix("image-scan-").tempdir().context("failed to make a folder")?;
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).context("failed to make a folder")?;
    let report =
        std::path::absolute(folder.path().join("report.json")).context("failed to find the folder of trivy")?;
    let mut command = Command::new(program);
    command.args(["image", "--format", "json", "--quiet", "--output"]).arg(&report);
    command.arg(format!("{}/{}@{}", registry(&host, image), image.repository, image.digest));
    let (own, left_out): (Vec<_>, Vec<_>) = env
        .all()
        .filter(|(name, _)| name.starts_with("TRIVY_") || PASSED.contains(&name.as_str()))
        .partition(|(name, _)| !is_filter(name));
    for (name, _) in left_out {
        printer.warn(format!(
            "`{}` does not hold here: findings are left out by `--severity` and `--accept` alone",
            plain::line(&name, 100)
        ));
    }
    let own = own.into_iter().map(|(name, value)| {
        let is_file = FILES.contains(&name.as_str());
        let whole = || std::path::absolute(&value).map(PathBuf::into_os_string);
        (name, if is_file { whole().unwrap_or_else(|_| value.clone().into()) } else { value.clone().into() })
    });
    // Its own files of settings and ignored findings are not in an empty folder.
    command
        .current_dir(&empty)
        .env_clear()
        .envs(own)
        .env("TRIVY_USERNAME", &login.user)
        .env("TRIVY_PASSWORD", &login.password);
    command.env("TRIVY_SCANNERS", "vuln").env("TRIVY_IMAGE_SRC", "remote").env("TRIVY_EXIT_CODE", "0");
    command.env("TRIVY_TIMEOUT", format!("{}s", limit.as_secs().max(1)));
    if host.is_plain {
        command.env("TRIVY_NON_SSL", "true");
    }
    run(command, login, limit).await?;
    let size = report.metadata().map(|data| data.len()).unwrap_or_default();
    if size > LARGEST_REPORT {
        return Err(Failure::system("the report of trivy has more than 256 MiB").into());
    }
    let text = std::fs::read(&report).map_err(|error| failed("it wrote no report").caused_by(error))?;
    Ok(parse(&text)?)
}

async fn run(mut command: Command, login: &RegistryLogin, limit: Duration) -> anyhow::Result<()> {
    let (output, input) = std::io::pipe().context("failed to make a pipe for trivy")?;
    let again = input.try_clone().context("failed to make a pipe for trivy")?;
    command.stdin(Stdio::null()).stdout(Stdio::from(input)).stderr(Stdio::from(again));
    let mut group = ProcessGroup::spawn(command)?;
    let masks = Masks::of([login.password.as_str()]);
    let lines = tokio::task::spawn_blocking(move || shown_lines::show(output, &masks, None));
    let Ok(exit) = tokio::time::timeout(limit, group.wait()).await else {
        group.terminate(GRACE).await?;
        let limit = humantime::format_duration(limit);
        return Err(failed(&format!("it did not end within {limit}")).hint("raise `--timeout`").into());
    };
    let exit = exit?;
    // A process that trivy left behind may hold its output open.
    process::end_descendants(GRACE).await;
    let last = match tokio::time::timeout(GRACE, lines).await {
        Ok(lines) => Vec::from(lines.context("failed to read the output of trivy")?),
        Err(_) => Vec::new(),
    };
    if exit.code == 0 {
        return Ok(());
    }
    let failure = failed(&format!("it ended with exit code {}", exit.code));
    Err(failure
        .hint("let the job reach trivy's database (`TRIVY_DB_REPOSITORY`, `TRIVY_CACHE_DIR`), or scan with `--scanner ecr`")
        .quoting(Some(last.join("\n")))
        .into())
}

fn failed(why: &str) -> Failure {
    Failure::system(format!("trivy could not scan the image: {why}"))
}

/// The part of trivy's report that is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    schema_version: u32,
    #[serde(default)]
    trivy: Option<Version>,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    results: Option<Vec<Results>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    #[serde(default)]
    version: String,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(rename = "OS", default)]
    os: Option<OperatingSystem>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OperatingSystem {
    #[serde(default)]
    family: String,
    #[serde(default)]
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Results {
    #[serde(default)]
    vulnerabilities: Option<Vec<Vulnerability>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Vulnerability {
    #[serde(rename = "VulnerabilityID")]
    id: String,
    #[serde(default)]
    pkg_name: String,
    #[serde(default)]
    installed_version: String,
    #[serde(default)]
    fixed_version: String,
    #[serde(default)]
    severity: String,
    #[serde(default)]
    description: String,
    #[serde(rename = "PrimaryURL", default)]
    url: String,
}

fn parse(text: &[u8]) -> Result<ScanResult, Failure> {
    let report: Report = serde_json::from_slice(text)
        .map_err(|error| failed("its report is not one that trivy writes").caused_by(error))?;
    if report.schema_version != 2 {
        return Err(
            failed("its report has an unknown version").hint("use another version of trivy, or `--scanner ecr`")
        );
    }
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let all = report.results.unwrap_or_default().into_iter().flat_map(|one| one.vulnerabilities.unwrap_or_default());
    let findings = all.map(|one| KnownVulnerability {
        severity: Severity::of(&one.severity),
        id: one.id,
        package: one.pkg_name,
        version: one.installed_version,
        fixed_version: some(one.fixed_version),
        description: some(one.description),
        url: some(one.url),
    });
    let version = report.trivy.and_then(|trivy| some(trivy.version));
    let system = report.metadata.os.and_then(|os| some(format!("{} {}", os.family, os.name).trim().to_owned()));
    Ok(ScanResult {
        scanner: ImageScanner {
            id: "trivy",
            name: "Trivy",
            vendor: "Aqua Security",
            version: version.unwrap_or_else(|| "unknown".to_owned()),
        },
        operating_system: system.unwrap_or_else(|| "unknown".to_owned()),
        findings: findings.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_another_account_is_in_the_registry_of_that_account() {
        let image = ImageName::parse("210987654321.dkr.ecr.eu-west-1.amazonaws.com/serve@sha256:a").unwrap();
        let of = |name: &str| registry(&PushHost { name: name.to_owned(), is_plain: false }, &image);
        assert_eq!(of("123456789012.dkr.ecr.eu-west-1.amazonaws.com"), "210987654321.dkr.ecr.eu-west-1.amazonaws.com");
        assert_eq!(of("127.0.0.1:5000"), "127.0.0.1:5000");
    }

    #[test]
    fn a_report_has_the_findings_of_all_parts() {
        let text = r#"{"SchemaVersion": 2, "ArtifactName": "a", "Metadata": {"OS": {"Family": "debian", "Name": "12.7"}}, "Results": [
            {"Target": "a", "Class": "os-pkgs", "Vulnerabilities": [{"VulnerabilityID": "CVE-1", "PkgName": "openssl",
              "InstalledVersion": "3.0", "FixedVersion": "3.1", "Severity": "HIGH", "PrimaryURL": "https://u", "Other": {}}]},
            {"Target": "b", "Class": "lang-pkgs"},
            {"Target": "c", "Vulnerabilities": [{"VulnerabilityID": "GHSA-1", "PkgName": "x"}]}]}"#;
        let result = parse(text.as_bytes()).unwrap();
        assert_eq!(result.operating_system, "debian 12.7");
        let told: Vec<_> = result.findings.iter().map(|one| (one.id.as_str(), one.severity)).collect();
        assert_eq!(told, [("CVE-1", Severity::High), ("GHSA-1", Severity::Unknown)]);
        assert_eq!(result.findings[0].fixed_version.as_deref(), Some("3.1"));
        assert!(parse(br#"{"SchemaVersion": 2}"#).unwrap().findings.is_empty());
    }

    #[test]
    fn another_text_is_no_report_without_findings() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"SchemaVersion": 1}"#,
            r#"{"SchemaVersion": 2, "Results": [{"Vulnerabilities": [{}]}]}"#,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
