//! `doctor --job`: one training job on the account, as `try --aws` runs it, and its cost.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;

use super::images::NO_DEFAULT;
use super::report::{CheckVerdict, DoctorFinding};
use crate::base::signals::Cancellation;
use crate::config::env::Environment;
use crate::ui::Printer;

/// Text that only the script of the job prints.
const WORD: &str = "doctor: the script runs";
/// Words of the lines that tell a bill, one of which a job's log has.
const BILLS: [&str; 3] = ["Billed ", "Nothing is billed", "the billed time of "];
/// Topics whose failures would fail the job, after it has cost money or not.
const NEEDED: [&str; 8] = ["operator", "aws", "bucket", "kms", "role", "network", "quota", "image"];
/// Checks of the host without which the job would not run to its end.
const NEEDED_OF_HOST: [&str; 3] = ["host.state_dir", "host.clock", "host.files"];

/// The job to run.
pub(super) struct AskedJob<'a> {
    /// The operator's file.
    pub(super) config: &'a Path,
    pub(super) env: &'a Environment,
    /// In place of the default image.
    pub(super) image: Option<&'a str>,
}

/// Runs the job, unless a check has failed that it needs. Its log is printed for people.
pub(super) async fn run(
    asked: &AskedJob<'_>,
    findings: &[DoctorFinding],
    (printer, cancellation): (&Printer, &Cancellation),
) -> DoctorFinding {
    if let Some(failed) = obstacle(findings, asked.image) {
        return DoctorFinding::waiting("job.run", failed);
    }
    if asked.image.is_none()
        && findings.iter().any(|finding| finding.id == "image.exists" && finding.text.starts_with(NO_DEFAULT))
    {
        let change = "name one with `--image`, or set `job.image` in the operator's file";
        return DoctorFinding::failure("job.run", "the training job", "was not started: no image is named", change);
    }
    match attempt(asked, (printer, cancellation)).await {
        Ok(lines) => conclude(&lines),
        Err(error) => DoctorFinding::skipped("job.run", "", format!("the job could not be started: {error:#}")),
    }
}

/// The first failed check that the job needs. With an image of its own it needs no other that the operator's file names.
fn obstacle(findings: &[DoctorFinding], image: Option<&str>) -> Option<&'static str> {
    let is_needed = |finding: &&DoctorFinding| {
        let topic = finding.id.split('.').next().unwrap_or_default();
        let is_of_another = topic == "image" && image.is_some_and(|image| finding.subject != image);
        (NEEDED.contains(&topic) && !is_of_another) || NEEDED_OF_HOST.contains(&finding.id)
    };
    findings.iter().filter(is_needed).find(|one| one.verdict == CheckVerdict::Failure).map(|one| one.id)
}

async fn attempt(
    asked: &AskedJob<'_>,
    (printer, cancellation): (&Printer, &Cancellation),
) -> anyhow::Result<Vec<String>> {
    let folder = tempfile::Builder::new().prefix("sagemaker-executor-doctor-").tempdir()?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg("--config")
        .arg(std::path::absolute(asked.config)?)
        .args(["try", "--aws"])
        .args(asked.image.into_iter().flat_map(|image| ["--image", image]))
        .args(["--", "sh", "-c", &format!("echo '{WORD}'")])
        .current_dir(folder.path())
        .env_clear()
        .envs(asked.env.all())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    let ended = async {
        tokio::select! {
            status = child.wait() => status,
            () = cancellation.token().cancelled() => {
                // It stops its training job then, and ends.
                if let Some(id) = id {
                    let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
                }
                child.wait().await
            }
        }
    };
    let (out, err, status) = tokio::join!(lines(out, printer), lines(err, printer), ended);
    let mut lines = [out, err].concat();
    lines.push(format!("exit code {}", status?.code().unwrap_or(-1)));
    Ok(lines)
}

/// Passes lines on as they come, and keeps them.
async fn lines(from: Option<impl AsyncRead + Unpin>, printer: &Printer) -> Vec<String> {
    let mut kept = Vec::new();
    let Some(from) = from else { return kept };
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        printer.line(format!("  | {line}"));
        kept.push(line);
    }
    kept
}

/// The end of the job, from its log.
fn conclude(lines: &[String]) -> DoctorFinding {
    let has = |text: &str| lines.iter().any(|line| line.contains(text));
    let is_bill = |line: &&String| BILLS.iter().any(|words| line.contains(words));
    let bill = lines.iter().find(is_bill);
    let bill = bill.map_or("its cost is not told", |line| line.trim());
    if has("exit code 0") && lines.iter().any(|line| line.trim() == WORD) {
        return DoctorFinding::ok("job.run", "the training job", format!("ran its script to the end. {bill}"));
    }
    let error = lines.iter().find(|line| line.trim_start().starts_with("error:"));
    let error = error.map_or("its log above tells why", |line| line.trim());
    let change = "the log of the job above names what to change";
    DoctorFinding::failure("job.run", "the training job", format!("did not run its script: {error}. {bill}"), change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_with_an_image_of_its_own_needs_no_other() {
        let absent = DoctorFinding::failure("image.exists", "default:1", "is not there", "push");
        let findings = [DoctorFinding::failure("host.git", "git", "is not there", "install"), absent];
        assert_eq!(obstacle(&findings, None), Some("image.exists"));
        assert_eq!(obstacle(&findings, Some("default:1")), Some("image.exists"));
        assert_eq!(obstacle(&findings, Some("own:1")), None);
        let findings = [DoctorFinding::failure("role.exists", "role", "is not there", "create")];
        assert_eq!(obstacle(&findings, Some("own:1")), Some("role.exists"));
    }

    #[test]
    fn the_end_of_a_job_is_read_from_its_log() {
        let of = |lines: &[&str]| conclude(&lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>());
        let good = of(&[WORD, "Billed 1 min of ml.m5.large, about $0.01", "exit code 0"]);
        assert_eq!(good.verdict, CheckVerdict::Ok);
        assert!(good.text.contains("$0.01"), "{}", good.text);
        let bad = of(&["error: none of the job's instance types is available", "exit code 2"]);
        assert_eq!(bad.verdict, CheckVerdict::Failure);
        assert!(bad.text.contains("instance types"), "{}", bad.text);
        // The command that is shown is no output of the script.
        assert_eq!(of(&["$ echo 'doctor: the script runs'", "exit code 0"]).verdict, CheckVerdict::Failure);
    }
}
