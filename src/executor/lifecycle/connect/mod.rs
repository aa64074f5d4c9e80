//! Compares a manifest with the account that it names: read-only calls, all reported together.

mod decide;
#[cfg(test)]
mod tests;

use comfy_table::{Table, presets};
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus};
use serde::Serialize;

use self::decide::CheckAnswer;
pub(super) use self::decide::needed_instances;
use super::CommandInputs;
use super::region::ImageName;
use super::target::ProjectTarget;
use crate::base::plain;
use crate::cloud::{CloudError, CloudErrorKind, InputPrefix};

/// A key that no command writes: asking for it shows whether objects may be read.
const NO_OBJECT: &str = "validate/no-object";
/// Variables with the region of the SDK's chain.
const REGION_VARIABLES: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
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
#[derive(Debug, Default)]
pub(super) struct Checks {
    environment: String,
    pub(super) rows: Vec<CheckRow>,
    /// Why a check was not made, if the same command may succeed later, or with other credentials.
    pub(super) error: Option<anyhow::Error>,
}

/// Runs all checks of one environment. It ends at the first call whose error every further call would have.
pub(super) async fn check(inputs: &CommandInputs, target: &ProjectTarget) -> Checks {
    let environment = target.environment.clone().unwrap_or_default();
    let mut checks = Checks { environment, ..Checks::default() };
    if let Err(error) = check_all(inputs, target, &mut checks).await {
        checks.error = Some(error);
    }
    checks
}

async fn check_all(inputs: &CommandInputs, target: &ProjectTarget, checks: &mut Checks) -> anyhow::Result<()> {
    let caller = check_caller(inputs, target, checks).await?;
    check_bucket(inputs, target, checks).await?;
    check_image(inputs, target, checks).await?;
    check_role(inputs, target, caller.as_deref(), checks).await?;
    check_quota(inputs, target, checks).await?;
    check_alarms(inputs, target, checks).await
}

impl Checks {
    fn tell(&mut self, check: &'static str, answer: CheckAnswer) {
        self.rows.push(CheckRow { environment: self.environment.clone(), check, answer });
    }

    /// The answer of a call; an error is a row.
    ///
    /// # Errors
    /// Every further call would fail as this one.
    fn answered<T>(&mut self, check: &'static str, result: Result<T, CloudError>) -> Result<Option<T>, CloudError> {
        match result {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.kind == CloudErrorKind::Unauthenticated => Err(error),
            Err(error) => {
                self.tell(check, decide::refused(&error));
                if error.kind.may_pass() {
                    self.error.get_or_insert(error.into());
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
    let Some(found) =
        checks.answered("bucket", data.find_bucket(bucket, target.manifest.target.account.as_deref()).await)?
    else {
        return Ok(());
    };
    let answer = decide::bucket(&found);
    let is_here = matches!(answer, CheckAnswer::Ok { .. }) || found == InputPrefix::Unreadable;
    checks.tell("bucket", answer);
    if is_here {
        let prefix = if target.access.prefix.is_empty() { String::new() } else { format!("{}/", target.access.prefix) };
        let may = decide::may(data.find(bucket, &prefix).await, "objects may be listed");
        let listed = checks.answered("list the bucket", may)?;
        let may_list = matches!(listed, Some(CheckAnswer::Ok { .. }));
        if let Some(answer) = listed {
            checks.tell("list the bucket", answer);
        }
        let objects = inputs.connect.objects(&target.access).await?;
        let may = decide::may(objects.size(NO_OBJECT).await, "objects may be read");
        match checks.answered("read the bucket", may)? {
            Some(CheckAnswer::Failed { .. }) if !may_list => {
                checks.tell("read the bucket", decide::read_without_list());
            }
            Some(answer) => checks.tell("read the bucket", answer),
            None => {}
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
    let region = target.manifest.target.region.as_deref();
    let region = region.or_else(|| REGION_VARIABLES.iter().find_map(|name| inputs.env.get(name)));
    if let Some(region) = region.filter(|region| *region != image.region) {
        checks.tell("image", decide::image_of_region(&image, region));
        return Ok(());
    }
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

async fn check_alarms(inputs: &CommandInputs, target: &ProjectTarget, checks: &mut Checks) -> anyhow::Result<()> {
    let names = target.manifest.endpoint.as_ref().map(|endpoint| &endpoint.alarms.names);
    let Some(names) = names.filter(|names| !names.is_empty()) else { return Ok(()) };
    let alarms = inputs.connect.alarms(&target.access).await?;
    if let Some(found) = checks.answered("alarms", alarms.alarms(names).await)? {
        checks.tell("alarms", decide::alarms(names, &found));
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

/// The checks as test cases, in classes by environment.
pub(super) fn test_cases(rows: &[CheckRow]) -> Vec<TestCase> {
    let case = |row: &CheckRow| {
        let (_, found, change) = row.answer.texts();
        let text = format!("{found}; {change}");
        let mut status = match row.answer {
            CheckAnswer::Ok { .. } => return TestCase::new(row.check, TestCaseStatus::success()),
            CheckAnswer::Failed { .. } => TestCaseStatus::non_success(NonSuccessKind::Failure),
            CheckAnswer::Unknown { .. } => TestCaseStatus::skipped(),
        };
        // GitLab shows the description, and not the message.
        status.set_message(text.as_str()).set_description(text);
        TestCase::new(row.check, status)
    };
    let named = |row: &CheckRow| {
        let mut case = case(row);
        case.set_classname(row.environment.as_str());
        case
    };
    rows.iter().map(named).collect()
}
