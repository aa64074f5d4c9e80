//! Scans of images in ECR for known vulnerabilities, over the SDK: its basic scans, and the enhanced ones of Amazon Inspector.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ecr::error::ProvideErrorMetadata as _;
use aws_sdk_ecr::operation::describe_image_scan_findings::DescribeImageScanFindingsOutput;
use aws_sdk_ecr::types::{
    EnhancedImageScanFinding, ImageIdentifier, ImageScanFinding, PackageVulnerabilityDetails, ScanStatus,
    VulnerablePackage,
};
use executor::cloud::{CloudError, CloudErrorKind, ImageScans, ScanFinding, ScanSight};

use super::clients::Clients;

/// Most findings of an image that are read.
const MOST_FINDINGS: usize = 20_000;

#[derive(Debug)]
pub(super) struct AwsImageScans {
    clients: Arc<Clients>,
}

impl AwsImageScans {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }
}

fn id(digest: &str) -> ImageIdentifier {
    ImageIdentifier::builder().image_digest(digest).build()
}

/// The sight of a scan that has no findings to read; `None` of one that has.
fn unfinished(page: &DescribeImageScanFindingsOutput) -> Option<ScanSight> {
    let status = page.image_scan_status();
    let kind = status.and_then(|status| status.status());
    match kind {
        Some(ScanStatus::Complete | ScanStatus::Active) => None,
        Some(ScanStatus::Pending | ScanStatus::InProgress) => Some(ScanSight::Running),
        kind => Some(ScanSight::Failed {
            status: kind.map_or("no status", ScanStatus::as_str).to_owned(),
            reason: status.and_then(|status| status.description()).unwrap_or_default().to_owned(),
        }),
    }
}

fn basic(finding: &ImageScanFinding) -> ScanFinding {
    let attribute = |key: &str| {
        let found = finding.attributes().iter().find(|attribute| attribute.key() == key);
        found.and_then(|attribute| attribute.value()).map(str::to_owned)
    };
    ScanFinding {
        id: finding.name().unwrap_or_default().to_owned(),
        severity: finding.severity().map_or("UNDEFINED", |severity| severity.as_str()).to_owned(),
        package: attribute("package_name").unwrap_or_default(),
        version: attribute("package_version").unwrap_or_default(),
        fixed_version: None,
        description: finding.description().map(str::to_owned),
        url: finding.uri().map(str::to_owned),
    }
}

/// One for each package that has the vulnerability; none when Inspector closed or suppressed it. Any other status counts.
fn enhanced(finding: &EnhancedImageScanFinding) -> Vec<ScanFinding> {
    if finding.status().is_some_and(|status| ["CLOSED", "SUPPRESSED"].contains(&status)) {
        return Vec::new();
    }
    let details = finding.package_vulnerability_details();
    let of = |package: Option<&VulnerablePackage>| ScanFinding {
        id: details.and_then(|details| details.vulnerability_id()).or(finding.title()).unwrap_or_default().to_owned(),
        severity: finding.severity().unwrap_or("UNTRIAGED").to_owned(),
        package: package.and_then(|one| one.name()).unwrap_or_default().to_owned(),
        version: package.and_then(|one| one.version()).unwrap_or_default().to_owned(),
        fixed_version: package.and_then(|one| one.fixed_in_version()).map(str::to_owned),
        description: finding.description().map(str::to_owned),
        url: details.and_then(|details| details.source_url()).map(str::to_owned),
    };
    let packages = details.map(PackageVulnerabilityDetails::vulnerable_packages).unwrap_or_default();
    if packages.is_empty() { vec![of(None)] } else { packages.iter().map(|one| of(Some(one))).collect() }
}

/// The findings of the pages so far, and the numbers that the registry tells.
#[derive(Debug, Default)]
struct Pages {
    found: Vec<ScanFinding>,
    /// Entries read by severity, those that are closed too.
    read: BTreeMap<String, usize>,
    /// The registry's counts by severity; the last page that has them holds.
    counted: BTreeMap<String, usize>,
    token: Option<String>,
}

impl Pages {
    /// Takes a page in; `true` when it is the last.
    ///
    /// # Errors
    /// The sentence about an answer that cannot be the whole list: an image must not pass by findings that nobody saw.
    fn add(&mut self, page: &DescribeImageScanFindingsOutput) -> Result<bool, String> {
        let findings =
            page.image_scan_findings().ok_or("the scan is complete, and the answer has no list of findings")?;
        let severities = findings.findings().iter().map(|one| one.severity().map_or("UNDEFINED", |one| one.as_str()));
        let enhanced_severities = findings.enhanced_findings().iter().map(|one| one.severity().unwrap_or("UNTRIAGED"));
        for severity in severities.chain(enhanced_severities) {
            *self.read.entry(severity.to_owned()).or_default() += 1;
        }
        self.found.extend(findings.findings().iter().map(basic));
        self.found.extend(findings.enhanced_findings().iter().flat_map(enhanced));
        if let Some(counts) = findings.finding_severity_counts() {
            let number = |count: i32| usize::try_from(count).unwrap_or_default();
            self.counted =
                counts.iter().map(|(severity, count)| (severity.as_str().to_owned(), number(*count))).collect();
        }
        if self.found.len() > MOST_FINDINGS {
            return Err(format!("there are more than {MOST_FINDINGS} findings"));
        }
        let next = page.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
        if next.is_some() && next == self.token {
            return Err("the list of findings has no end: a page leads to itself".to_owned());
        }
        self.token = next;
        if self.token.is_some() {
            return Ok(false);
        }
        let lacking = self.counted.iter().find_map(|(severity, counted)| {
            let read = self.read.get(severity).copied().unwrap_or_default();
            (read < *counted)
                .then(|| format!("the registry counts {counted} findings {severity} and lists {read} of them"))
        });
        lacking.map_or(Ok(true), Err)
    }
}

#[async_trait]
impl ImageScans for AwsImageScans {
    async fn scan(&self, account: &str, repository: &str, digest: &str) -> Result<ScanSight, CloudError> {
        let what = format!("the findings of the image {repository}@{digest}");
        let call = self.clients.call("read", what, "ecr:DescribeImageScanFindings");
        let mut pages = Pages::default();
        loop {
            let request = self.clients.ecr().describe_image_scan_findings().registry_id(account);
            let request = request.repository_name(repository).image_id(id(digest)).set_next_token(pages.token.clone());
            let page = match request.send().await {
                Err(error) if error.code() == Some("ScanNotFoundException") => return Ok(ScanSight::Absent),
                Err(error)
                    if ["ImageNotFoundException", "RepositoryNotFoundException"]
                        .contains(&error.code().unwrap_or_default()) =>
                {
                    return Err(CloudError { kind: CloudErrorKind::NotFound, ..call.failed(&error) });
                }
                reply => reply.map_err(|error| call.failed(&error))?,
            };
            if let Some(sight) = unfinished(&page) {
                return Ok(sight);
            }
            if pages.add(&page).map_err(|message| call.error(CloudErrorKind::Other, message))? {
                return Ok(ScanSight::Done(pages.found));
            }
        }
    }

    async fn start(&self, account: &str, repository: &str, digest: &str) -> Result<(), CloudError> {
        let call = self.clients.call("scan", format!("the image {repository}@{digest}"), "ecr:StartImageScan");
        let request = self.clients.ecr().start_image_scan().registry_id(account);
        match request.repository_name(repository).image_id(id(digest)).send().await {
            Err(error) if error.code() == Some("LimitExceededException") => Ok(()),
            reply => reply.map(drop).map_err(|error| call.failed(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stub::{Stub, refusal, reply};

    async fn seen(stub: &Stub) -> Result<ScanSight, CloudError> {
        AwsImageScans::new(Arc::clone(&stub.clients)).scan("123456789012", "serve", "sha256:a").await
    }

    #[tokio::test]
    async fn findings_of_all_pages_and_both_kinds_are_read() {
        let stub = Stub::start().await;
        let basic = json!({"name": "CVE-1", "severity": "HIGH", "uri": "https://u", "attributes": [
            {"key": "package_name", "value": "openssl"}, {"key": "package_version", "value": "3"}]});
        let details = json!({"vulnerabilityId": "CVE-2", "vulnerablePackages": [
            {"name": "a", "version": "1", "fixedInVersion": "2"}, {"name": "b", "version": "1"}]});
        let enhanced = [
            json!({"severity": "CRITICAL", "status": "ACTIVE", "packageVulnerabilityDetails": details}),
            json!({"severity": "CRITICAL", "status": "SUPPRESSED", "packageVulnerabilityDetails": details}),
        ];
        let page = |status: &str, findings: serde_json::Value, next: Option<&str>| {
            let mut page = json!({"imageScanStatus": {"status": status}, "imageScanFindings": findings});
            page["nextToken"] = json!(next);
            reply(200, page.to_string())
        };
        stub.push(page("COMPLETE", json!({"findings": [basic]}), Some("n")));
        stub.push(page("ACTIVE", json!({"enhancedFindings": enhanced}), None));
        let ScanSight::Done(found) = seen(&stub).await.unwrap() else { panic!("the scan is done") };
        let told: Vec<_> =
            found.iter().map(|one| [one.id.as_str(), &one.severity, &one.package, &one.version]).collect();
        assert_eq!(
            told,
            [["CVE-1", "HIGH", "openssl", "3"], ["CVE-2", "CRITICAL", "a", "1"], ["CVE-2", "CRITICAL", "b", "1"]]
        );
        assert_eq!(found[1].fixed_version.as_deref(), Some("2"));
    }

    /// The registry's word that a scan is done does not let an image pass by findings that were not read.
    #[tokio::test]
    async fn a_list_that_is_not_whole_is_an_error() {
        let stub = Stub::start().await;
        let page = |status: &str, rest: serde_json::Value| {
            let mut page = json!({"imageScanStatus": {"status": status}});
            page.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            reply(200, page.to_string())
        };
        let high = json!([{"name": "CVE-1", "severity": "HIGH"}]);
        for (status, rest, part) in [
            ("COMPLETE", json!({}), "no list of findings"),
            ("ACTIVE", json!({}), "no list of findings"),
            (
                "COMPLETE",
                json!({"imageScanFindings": {"findings": [], "findingSeverityCounts": {"CRITICAL": 7}}}),
                "7 findings CRITICAL and lists 0",
            ),
            (
                "COMPLETE",
                json!({"imageScanFindings": {"findings": high, "findingSeverityCounts": {"HIGH": 2}}}),
                "2 findings HIGH and lists 1",
            ),
        ] {
            stub.push(page(status, rest));
            let error = seen(&stub).await.unwrap_err();
            assert!(error.kind == CloudErrorKind::Other && error.message.contains(part), "{part}: {error:?}");
        }
        let whole = json!({"imageScanFindings": {"findings": high, "findingSeverityCounts": {"HIGH": 1, "LOW": 0}}});
        stub.push(page("COMPLETE", whole));
        assert!(matches!(seen(&stub).await.unwrap(), ScanSight::Done(found) if found.len() == 1));
        for _ in 0..2 {
            stub.push(page("COMPLETE", json!({"imageScanFindings": {}, "nextToken": "same"})));
        }
        assert!(seen(&stub).await.unwrap_err().message.contains("a page leads to itself"));
    }

    #[tokio::test]
    async fn findings_of_an_unknown_status_count() {
        let stub = Stub::start().await;
        let finding = |status: &str| json!({"severity": "HIGH", "status": status, "title": status});
        let all: Vec<_> = ["", "active", "NEW", "CLOSED", "SUPPRESSED"].into_iter().map(finding).collect();
        let counts = json!({"HIGH": 5});
        let findings = json!({"enhancedFindings": all, "findingSeverityCounts": counts});
        stub.push(reply(
            200,
            json!({"imageScanStatus": {"status": "ACTIVE"}, "imageScanFindings": findings}).to_string(),
        ));
        let ScanSight::Done(found) = seen(&stub).await.unwrap() else { panic!("the scan is done") };
        let told: Vec<_> = found.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(told, ["", "active", "NEW"]);
    }

    #[tokio::test]
    async fn a_scan_without_findings_says_its_state() {
        let stub = Stub::start().await;
        let state =
            |status: &str| reply(200, json!({"imageScanStatus": {"status": status, "description": "d"}}).to_string());
        stub.push(refusal(400, "ScanNotFoundException", "no"));
        assert_eq!(seen(&stub).await.unwrap(), ScanSight::Absent);
        stub.push(state("IN_PROGRESS"));
        assert_eq!(seen(&stub).await.unwrap(), ScanSight::Running);
        for status in ["UNSUPPORTED_IMAGE", "FAILED", "NEW_ONE"] {
            stub.push(state(status));
            let failed = ScanSight::Failed { status: status.to_owned(), reason: "d".to_owned() };
            assert_eq!(seen(&stub).await.unwrap(), failed);
        }
        stub.push(refusal(400, "ImageNotFoundException", "no"));
        assert_eq!(seen(&stub).await.unwrap_err().kind, CloudErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_scan_of_the_same_day_is_no_error() {
        let stub = Stub::start().await;
        stub.push(refusal(400, "LimitExceededException", "no"));
        AwsImageScans::new(Arc::clone(&stub.clients)).start("123456789012", "serve", "sha256:a").await.unwrap();
    }
}
