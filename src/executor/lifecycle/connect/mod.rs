//! Compares a manifest with the account that it names: read-only calls, all reported together.

mod decide;
#[cfg(test)]
mod tests;

use comfy_table::{Table, presets};
use serde::Serialize;

use self::decide::CheckAnswer;
use super::CommandInputs;
use super::region::ImageName;
use super::target::ProjectTarget;
use crate::base::plain;
use crate::cloud::{CloudError, CloudErrorKind};

/// A key that no command writes: asking for it shows whether objects may be read.
const NO_OBJECT: &str = "validate/no-object";
/// Longest text in a cell of the table, in bytes.
const LONGEST_CELL: usize = 400;

/// One check with its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct CheckRow {
    environment: String,
    check: &'static str,
    #[serde(flatten)]
    answer: CheckAnswer,
}

impl CheckRow {
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.answer, CheckAnswer::Failed { .. })
    }
}

/// All checks of one environment.
#[derive(Debug)]
pub(super) struct Checks {
    environment: String,
    pub(super) rows: Vec<CheckRow>,
    /// A call that AWS throttled: the same command may succeed later.
    pub(super) throttled: Option<CloudError>,
}

/// Runs all checks of one environment.
///
/// # Errors
/// AWS does not accept the credentials, or cannot be reached.
pub(super) async fn check(inputs: &CommandInputs, target: &ProjectTarget) -> anyhow::Result<Checks> {
    let environment = target.environment.clone().unwrap_or_default();
    let mut checks = Checks { environment, rows: Vec::new(), throttled: None };
    let caller = check_caller(inputs, target, &mut checks).await?;
    check_bucket(inputs, target, &mut checks).await?;
    check_image(inputs, target, &mut checks).await?;
    check_role(inputs, target, caller.as_deref(), &mut checks).await?;
    check_quota(inputs, target, &mut checks).await?;
    Ok(checks)
}

impl Checks {
    fn tell(&mut self, check: &'static str, answer: CheckAnswer) {
        self.rows.push(CheckRow { environment: self.environment.clone(), check, answer });
    }

    /// The answer of a call; a refusal is a row.
    ///
    /// # Errors
    /// Every further call would fail as this one.
    fn answered<T>(&mut self, check: &'static str, result: Result<T, CloudError>) -> Result<Option<T>, CloudError> {
        match result {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if matches!(error.kind, CloudErrorKind::Unauthenticated | CloudErrorKind::Transient) => {
                Err(error)
            }
            Err(error) => {
                self.tell(check, decide::refused(&error));
                if error.kind == CloudErrorKind::Throttled {
                    self.throttled.get_or_insert(error);
                }
                Ok(None)
            }
        }
    }
}

async fn check_caller(
    inputs: &CommandInputs,
    target: &ProjectTarget,
    checks: &mut Checks,
) -> anyhow::Result<Option<String>> {
    let identity = inputs.connect.identity(&target.access).await?;
    let caller = checks.answered("caller", identity.arn().await)?;
    if let Some(caller) = &caller {
        checks.tell("caller", decide::caller(caller, &target.manifest.target));
    }
    Ok(caller)
}

async fn check_bucket(inputs: &CommandInputs, target: &ProjectTarget, checks: &mut Checks) -> anyhow::Result<()> {
    let Some(bucket) = &target.manifest.target.bucket else { return Ok(()) };
    let data = inputs.connect.input_data(&target.access).await?;
    let Some(found) = checks.answered("bucket", data.find_bucket(bucket).await)? else { return Ok(()) };
    let answer = decide::bucket(&found);
    let is_here = matches!(answer, CheckAnswer::Ok { .. });
    checks.tell("bucket", answer);
    if is_here {
        let prefix = if target.access.prefix.is_empty() { String::new() } else { format!("{}/", target.access.prefix) };
        let may = decide::may(data.find(bucket, &prefix).await, "objects may be listed");
        if let Some(answer) = checks.answered("list the bucket", may)? {
            checks.tell("list the bucket", answer);
        }
        let objects = inputs.connect.objects(&target.access).await?;
        let may = decide::may(objects.size(NO_OBJECT).await, "objects may be read");
        if let Some(answer) = checks.answered("read the bucket", may)? {
            checks.tell("read the bucket", answer);
        }
    }
    Ok(())
}

async fn check_image(inputs: &CommandInputs, target: &ProjectTarget, checks: &mut Checks) -> anyhow::Result<()> {
    let Some(model) = &target.manifest.model else { return Ok(()) };
    let Some(image) = ImageName::parse(&model.image) else {
        checks.tell("image", decide::image_elsewhere());
        return Ok(());
    };
    let images = inputs.connect.images(&target.access).await?;
    let found = images.platforms(image.account, image.repository, image.digest).await;
    let Some(platforms) = checks.answered("image", found)? else { return Ok(()) };
    checks.tell("image", decide::image(&image, platforms.as_deref()));
    if let Some(platforms) = platforms {
        for answer in decide::architectures(&target.manifest, &platforms) {
            checks.tell("architecture", answer);
        }
    }
    Ok(())
}

async fn check_role(
    inputs: &CommandInputs,
    target: &ProjectTarget,
    caller: Option<&str>,
    checks: &mut Checks,
) -> anyhow::Result<()> {
    let Some(role) = &target.manifest.target.role else { return Ok(()) };
    let roles = inputs.connect.roles(&target.access).await?;
    let name = role.rsplit('/').next().unwrap_or_default();
    if let Some(found) = checks.answered("role", roles.find(name).await)? {
        checks.tell("role", decide::role(role, found.as_ref()));
    }
    let Some(caller) = caller else { return Ok(()) };
    let principal = match decide::principal(caller) {
        decide::PolicySource::Itself => caller.to_owned(),
        decide::PolicySource::Unknown(answer) => {
            checks.tell("pass the role", answer);
            return Ok(());
        }
        // The ARN of a session lacks the path of its role.
        decide::PolicySource::Role(name) => match checks.answered("pass the role", roles.find(name).await)? {
            Some(Some(role)) => role.arn,
            _ => return Ok(()),
        },
    };
    if let Some(may_pass) = checks.answered("pass the role", roles.may_pass(&principal, role).await)? {
        checks.tell("pass the role", decide::pass(&principal, role, may_pass));
    }
    Ok(())
}

async fn check_quota(inputs: &CommandInputs, target: &ProjectTarget, checks: &mut Checks) -> anyhow::Result<()> {
    let Some(needed) = target.manifest.endpoint.as_ref().and_then(decide::needed_instances) else { return Ok(()) };
    let quotas = inputs.connect.quotas(&target.access).await?;
    if let Some(quota) = checks.answered("quota", quotas.endpoint_instances(needed.instance_type).await)? {
        checks.tell("quota", decide::quota(&needed, quota));
    }
    Ok(())
}

/// The checks as a table.
pub(super) fn table(rows: &[CheckRow]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["environment", "check", "result", "found", "what to do"]);
    for row in rows {
        let (result, found, change) = row.answer.texts();
        let cells = [row.environment.as_str(), row.check, result, found, change];
        table.add_row(cells.map(|cell| plain::line(cell, LONGEST_CELL)));
    }
    table.to_string()
}
