//! Refuses instance types whose processors cannot execute the agent. Pure.

use std::env::consts::ARCH;

use crate::base::failure::Failure;

/// Families of training instances with Arm processors (the Grace processors of `TrainingInstanceType`).
const ARM: &[&str] = &["p6e-gb200"];

/// The agent is this program, so the instances need the processors of the runner host.
pub(super) fn check(instance_types: &[String]) -> Result<(), Failure> {
    let family = |name: &str| name.strip_prefix("ml.").and_then(|rest| Some(rest.split_once('.')?.0.to_owned()));
    let is_arm = |name: &str| family(name).is_some_and(|family| ARM.contains(&family.as_str()));
    match instance_types.iter().find(|name| is_arm(name) != (ARCH == "aarch64")) {
        None => Ok(()),
        Some(name) => {
            let theirs = if is_arm(name) { "Arm" } else { "x86_64" };
            let why = format!("`{name}` has {theirs} processors, and this runner's agent is a program for {ARCH}");
            Err(Failure::user(why).hint(format!(
                "choose an instance type with {ARCH} processors in `SAGEMAKER_INSTANCE_TYPE` or `SAGEMAKER_INSTANCE_GROUPS`"
            )))
        }
    }
}
