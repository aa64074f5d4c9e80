//! `sagemaker-executor endpoint delete`: deletes an endpoint of this program, and everything that its deployments made for it.
//!
//! Every step can be repeated: what is gone is no error. A model goes before its configuration, which names it, so that a run that was
//! killed leaves nothing that the next one does not find.

mod belongings;
mod uses;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use self::belongings::{Belonging, Belongings};
use super::engine::EndpointEngine;
use super::ledger::{LedgerBegin, LedgerEnd, LedgerKind, LedgerOutcome};
use super::ownership;
use super::scaling::ScalingKeeper;
use super::survey::EndpointPorts;
use crate::base::failure::Failure;
use crate::base::plain;
use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::{IdentityArgs, JobUser};
use crate::lifecycle::output::{Data, OutputArgs};
use crate::lifecycle::target::{ProjectTarget, TargetArgs};

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The endpoint's name once more, which an environment of the tiers `production` and `other` needs
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    /// Why the endpoint is deleted, for the ledger
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Limit of the wait for AWS
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The command's result.
#[derive(Debug, Serialize)]
struct DeletionData {
    endpoint: String,
    /// `deleted`, `already gone`, or `would be deleted`.
    outcome: &'static str,
    deployment: Option<u64>,
    /// Those with `used_by` stay.
    belongings: Vec<Belonging>,
}

impl DeletionData {
    fn new(endpoint: &str, outcome: &'static str, deployment: Option<u64>, belongings: Vec<Belonging>) -> Self {
        Self { endpoint: endpoint.to_owned(), outcome, deployment, belongings }
    }
}

impl Data for DeletionData {
    fn text(&self) -> String {
        let mut text = format!("{}: {}\n", self.endpoint, self.outcome);
        for Belonging { kind, name, used_by } in &self.belongings {
            let stays =
                used_by.as_ref().map(|user| format!("  stays: the endpoint {} uses it", plain::line(user, 100)));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {:<20}  {}{}", kind.name(), plain::line(name, 200), stays.unwrap_or_default());
        }
        text
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        let number = self.deployment.map(|number| number.to_string()).unwrap_or_default();
        BTreeMap::from([("ENDPOINT_NAME", self.endpoint.clone()), ("DEPLOYMENT_NUMBER", number)])
    }
}

pub(super) async fn run(inputs: &CommandInputs, args: DeleteArgs) -> anyhow::Result<()> {
    args.output.check(std::slice::from_ref(&args.target.manifest))?;
    let mut target = args.target.load_without_image(inputs)?;
    let name = target.endpoint()?.name.clone();
    target.require_account()?;
    target.require_bucket()?;
    let is_protected = !args.dry_run && target.needs_approval(&inputs.env);
    check_confirmation(&target, &name, args.confirm.as_deref(), is_protected)?;
    let user = args.identity.token(inputs, &target)?.map(|token| target.work_as(token));
    target.check_account(inputs).await?;
    let ports = EndpointPorts::connect(inputs, &target, &name).await?;
    let engine = EndpointEngine {
        endpoints: ports.endpoints.clone(),
        scaling: ScalingKeeper(ports.scaling.clone()),
        printer: &inputs.printer,
        deadline: Instant::now() + args.timeout,
    };
    let own = ownership::tags(&target, &name);
    let belongings = Belongings { endpoint: &name, own: &own, ports: &ports, engine: &engine };
    let deletion = Deletion { inputs, target: &target, belongings, user };
    let data = if args.dry_run { deletion.plan().await? } else { deletion.carry_out(args.reason).await? };
    args.output.leave(&data, &inputs.printer)
}

/// Refuses to delete an endpoint of production whose name was not typed.
fn check_confirmation(
    target: &ProjectTarget,
    name: &str,
    confirm: Option<&str>,
    is_protected: bool,
) -> Result<(), Failure> {
    let environment = plain::line(target.environment.as_deref().unwrap_or_default(), 100);
    match confirm {
        Some(confirm) if confirm != name => {
            let message = format!("the endpoint of {environment} is `{name}`, and not the one of `--confirm`");
            Err(Failure::user(message).hint("check `--environment` and the manifest, then `--confirm`"))
        }
        None if is_protected => {
            let message = format!("`{name}` of {environment} is not deleted without a confirmation");
            Err(Failure::user(message)
                .hint(format!("give `--confirm {name}`; `--dry-run` shows what would be deleted")))
        }
        _ => Ok(()),
    }
}

fn has_work(found: &[Belonging]) -> bool {
    found.iter().any(|one| one.used_by.is_none())
}

struct Deletion<'a> {
    inputs: &'a CommandInputs,
    target: &'a ProjectTarget,
    belongings: Belongings<'a>,
    user: Option<JobUser>,
}

impl Deletion<'_> {
    async fn plan(&self) -> anyhow::Result<DeletionData> {
        let found = self.belongings.find().await?;
        let outcome = if has_work(&found) { "would be deleted" } else { "already gone" };
        Ok(DeletionData::new(self.belongings.endpoint, outcome, None, found))
    }

    async fn carry_out(&self, reason: Option<String>) -> anyhow::Result<DeletionData> {
        let Belongings { endpoint, ports, engine, .. } = self.belongings;
        self.belongings.check_owner().await?;
        let sight = engine.settled(endpoint).await?.sight;
        let found = self.belongings.find().await?;
        let config = sight.map(|sight| sight.config);
        let at = self.inputs.clock.now();
        let is_deletion = |begin: &LedgerBegin| begin.kind == LedgerKind::Delete;
        let number = match ports.ledger.take_up(at, config.as_deref(), is_deletion).await? {
            Some(entry) => Some(entry.number),
            None if !has_work(&found) => None,
            None => {
                let mut begin = LedgerBegin::new(LedgerKind::Delete, at, self.user.as_ref(), self.target, endpoint);
                begin.reason = reason;
                begin.from_config = config;
                Some(ports.ledger.begin(&begin).await?)
            }
        };
        for belonging in found.iter().filter(|one| one.used_by.is_none()) {
            self.belongings.delete(belonging).await?;
            let name = plain::line(&belonging.name, 200);
            self.inputs.printer.line(format!("Deleted {} {name}", belonging.kind.name()));
        }
        if let Some(number) = number {
            let end = LedgerEnd::new(self.inputs.clock.now(), LedgerOutcome::Succeeded);
            ports.ledger.end(number, &end).await?;
        }
        let outcome = if has_work(&found) { "deleted" } else { "already gone" };
        Ok(DeletionData::new(endpoint, outcome, number, found))
    }
}
