//! Findings of the registry's own scan of an image, which is awaited.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::findings::{ImageScanner, KnownVulnerability, ScanResult, Severity};
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{CloudError, CloudErrorKind, ImageScans, ScanFinding, ScanSight};
use crate::lifecycle::region::ImageName;
use crate::ui::Printer;

/// Pauses between two looks at a scan, in seconds; the last one stays.
const PAUSES: [u64; 4] = [1, 2, 5, 10];

/// Reads the findings of the image's scan, and starts one where there is none.
///
/// # Errors
/// There is no such image, it cannot be scanned, or its scan does not end within the limit.
pub(super) async fn scan(
    scans: &dyn ImageScans,
    image: &ImageName<'_>,
    limit: Duration,
    printer: &Printer,
) -> anyhow::Result<ScanResult> {
    let ImageName { account, repository, digest, .. } = *image;
    let deadline = Instant::now() + limit;
    let mut pauses = PAUSES.into_iter().chain(std::iter::repeat(PAUSES[PAUSES.len() - 1]));
    let mut start = None;
    loop {
        let looked = timeout_at(deadline, scans.scan(account, repository, digest)).await;
        // Many pages, or an answer that does not come: the limit holds for the look itself too.
        let Ok(looked) = looked else { return Err(too_long(limit, start.flatten())) };
        match looked.map_err(|error| absent(image, error))? {
            ScanSight::Done(findings) => return Ok(result(findings)),
            ScanSight::Failed { status, reason } => return Err(unusable(image, &status, &reason).into()),
            ScanSight::Absent if start.is_none() => {
                printer.line("The image was not scanned yet: a scan begins");
                // A registry that scans by itself refuses to be asked, and the findings come all the same.
                start = Some(match scans.start(account, repository, digest).await {
                    Err(error) if !matches!(error.kind, CloudErrorKind::Invalid | CloudErrorKind::Other) => {
                        return Err(error.into());
                    }
                    started => started.err(),
                });
            }
            ScanSight::Absent | ScanSight::Running => {}
        }
        if Instant::now() >= deadline {
            return Err(too_long(limit, start.flatten()));
        }
        let pause = Duration::from_secs(pauses.next().unwrap_or_default());
        tokio::time::sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
}

/// `start` is the refusal of a scan that was asked for.
fn too_long(limit: Duration, start: Option<CloudError>) -> anyhow::Error {
    let limit = humantime::format_duration(limit);
    let failure = Failure::system(format!("the scan of the image did not end within {limit}"))
        .hint("raise `--timeout`, or look at the image in the registry: its scan may have to be configured there");
    match start {
        Some(error) => failure.caused_by(error).into(),
        None => failure.into(),
    }
}

fn absent(image: &ImageName<'_>, error: CloudError) -> anyhow::Error {
    if error.kind != CloudErrorKind::NotFound {
        return error.into();
    }
    let name = plain::line(&format!("{}@{}", image.repository, image.digest), 300);
    Failure::user(format!("the registry has no image {name}"))
        .hint("give the image by its digest with `--image`, or let the job need the one that built it, for `IMAGE_URI`")
        .caused_by(error)
        .into()
}

fn unusable(image: &ImageName<'_>, status: &str, reason: &str) -> Failure {
    let (status, reason) = (plain::line(status, 50), plain::line(reason, 300));
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    Failure::user(format!("the image in {} could not be scanned: {status}{reason}", image.repository))
        .hint("scan it with trivy in the image of the job, or build it on a base that the registry's scanner knows")
}

fn result(findings: Vec<ScanFinding>) -> ScanResult {
    let findings = findings.into_iter().map(|one| KnownVulnerability {
        severity: Severity::of(&one.severity),
        id: one.id,
        package: one.package,
        version: one.version,
        fixed_version: one.fixed_version,
        description: one.description,
        url: one.url,
    });
    ScanResult {
        scanner: ImageScanner {
            id: "ecr",
            name: "Amazon ECR image scanning",
            vendor: "Amazon Web Services",
            version: "unknown".to_owned(),
        },
        operating_system: "unknown".to_owned(),
        findings: findings.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure;
    use crate::cloud::testing::MemoryImages;

    const IMAGE: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/serve@sha256:a";
    const LIMIT: Duration = Duration::from_mins(10);

    async fn scanned(sights: impl IntoIterator<Item = ScanSight>) -> (anyhow::Result<ScanResult>, MemoryImages) {
        let images = MemoryImages::default();
        images.set_scans(sights);
        let image = ImageName::parse(IMAGE).unwrap();
        let result = scan(&images, &image, LIMIT, &Printer::captured().0).await;
        (result, images)
    }

    fn done() -> ScanSight {
        let finding = ScanFinding { id: "CVE-1".to_owned(), severity: "HIGH".to_owned(), ..ScanFinding::default() };
        ScanSight::Done(vec![finding])
    }

    #[tokio::test(start_paused = true)]
    async fn an_image_without_a_scan_is_scanned_once_and_awaited() {
        let sights = [ScanSight::Absent, ScanSight::Absent, ScanSight::Running, done()];
        let (result, images) = scanned(sights).await;
        assert_eq!(result.unwrap().findings[0].severity, Severity::High);
        assert_eq!(images.started_scans(), 1);
        let (result, images) = scanned([done()]).await;
        assert_eq!((result.is_ok(), images.started_scans()), (true, 0));
    }

    /// A registry that does not answer.
    #[derive(Debug)]
    struct Silent;

    #[async_trait::async_trait]
    impl ImageScans for Silent {
        async fn scan(&self, _: &str, _: &str, _: &str) -> Result<ScanSight, CloudError> {
            std::future::pending().await
        }

        async fn start(&self, _: &str, _: &str, _: &str) -> Result<(), CloudError> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_holds_for_a_look_that_does_not_end() {
        let image = ImageName::parse(IMAGE).unwrap();
        let (printer, _) = Printer::captured();
        let looking = scan(&Silent, &image, LIMIT, &printer);
        let result = tokio::time::timeout(LIMIT * 2, looking).await.expect("the limit holds");
        assert!(failure::render(&result.unwrap_err()).contains("did not end within 10m"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_scan_that_never_ends_or_cannot_be_made_is_an_error() {
        let begun = Instant::now();
        let (result, _) = scanned([ScanSight::Running]).await;
        let said = failure::render(&result.unwrap_err());
        assert!(said.contains("did not end within 10m") && said.contains("`--timeout`"), "{said}");
        assert!(begun.elapsed() >= LIMIT && begun.elapsed() < LIMIT + Duration::from_secs(20));
        let failed = ScanSight::Failed { status: "UNSUPPORTED_IMAGE".to_owned(), reason: "no\nsystem".to_owned() };
        let said = failure::render(&scanned([failed]).await.0.unwrap_err());
        assert!(said.contains("could not be scanned: UNSUPPORTED_IMAGE: no; system"), "{said}");
    }
}
