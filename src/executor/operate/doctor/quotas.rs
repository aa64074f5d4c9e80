//! Checks of the account's quotas of training instances.

use std::collections::{BTreeMap, BTreeSet};

use super::account::of_error;
use super::installation::Installation;
use super::report::DoctorFinding;
use crate::config::policy::JobBounds;
use crate::config::rules::Choice;

const TRAINING: &str = "for training job usage";
const SPOT: &str = "for spot training job usage";
const WARM_POOL: &str = "for training warm pool usage";

/// All findings about quotas.
pub(super) async fn check(installation: &Installation<'_>) -> Vec<DoctorFinding> {
    let quotas = match installation.connect.quotas(&installation.access).await {
        Ok(port) => installation.within("Service Quotas", port.all()).await,
        Err(error) => return vec![DoctorFinding::skipped("quota.training", "", format!("{error:#}"))],
    };
    match quotas {
        Ok(quotas) if quotas.is_empty() => {
            vec![DoctorFinding::skipped(
                "quota.training",
                "",
                "Service Quotas lists no quota of SageMaker in this region",
            )]
        }
        Ok(quotas) => of_bounds(&installation.bounds, &quotas),
        Err(error) => vec![of_error("quota.training", "", &error)],
    }
}

fn of_bounds(bounds: &[JobBounds], quotas: &BTreeMap<String, f64>) -> Vec<DoctorFinding> {
    let named = |wanted: fn(&JobBounds) -> bool| -> BTreeSet<&str> {
        let types = bounds.iter().filter(|bounds| wanted(bounds)).flat_map(|bounds| &bounds.instance_types);
        types.map(String::as_str).collect()
    };
    let usual: BTreeSet<&str> = bounds.iter().filter_map(|bounds| bounds.instance_type.as_deref()).collect();
    let mut findings: Vec<DoctorFinding> =
        named(|_| true).into_iter().map(|name| training(name, usual.contains(name), quotas)).collect();
    for name in named(|bounds| bounds.spot.choice != Choice::Refuse) {
        findings.extend(other("quota.spot", name, SPOT, "`spot` of the rules allows spot instances", quotas));
    }
    for name in named(|bounds| bounds.keep_alive.most > 0) {
        findings.extend(other("quota.warm_pool", name, WARM_POOL, "the rules allow a keep-alive", quotas));
    }
    findings
}

/// The largest quota of the types that a name or glob stands for; `None` when no quota is listed.
fn largest(name: &str, usage: &str, quotas: &BTreeMap<String, f64>) -> Option<f64> {
    let glob = globset::Glob::new(name).ok()?.compile_matcher();
    let of_type = |quota: &str| quota.strip_suffix(usage).map(str::trim_end).is_some_and(|found| glob.is_match(found));
    quotas.iter().filter(|(quota, _)| of_type(quota)).map(|(_, value)| *value).reduce(f64::max)
}

fn training(name: &str, is_usual: bool, quotas: &BTreeMap<String, f64>) -> DoctorFinding {
    let change =
        format!("raise `{name} {TRAINING}` in Service Quotas, Amazon SageMaker, or take the type off `instance_types`");
    match largest(name, TRAINING, quotas) {
        None => DoctorFinding::warning(
            "quota.training",
            name,
            "Service Quotas lists no quota for training jobs of this type in this region",
            "correct `instance_types` or `job.instance_type`, if SageMaker has no such type there",
        ),
        Some(quota) if quota < 1.0 && is_usual => {
            let text = "the quota for training jobs is 0, and jobs that name no type get this one: they wait and fail";
            DoctorFinding::failure("quota.training", name, text, change)
        }
        Some(quota) if quota < 1.0 => DoctorFinding::warning(
            "quota.training",
            name,
            "the quota for training jobs is 0: jobs of this type wait and fail",
            change,
        ),
        Some(quota) => {
            DoctorFinding::ok("quota.training", name, format!("the account may have {quota} of them for training jobs"))
        }
    }
}

fn other(
    id: &'static str,
    name: &str,
    usage: &str,
    why: &str,
    quotas: &BTreeMap<String, f64>,
) -> Option<DoctorFinding> {
    let quota = largest(name, usage, quotas)?;
    if quota >= 1.0 {
        return Some(DoctorFinding::ok(id, name, format!("the quota `{usage}` is {quota}")));
    }
    let text = format!("the quota `{usage}` is 0, and {why}");
    let change = format!("raise `{name} {usage}` in Service Quotas, Amazon SageMaker");
    Some(DoctorFinding::warning(id, name, text, change))
}
