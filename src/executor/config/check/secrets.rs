//! Checks of `secrets.allow`. Each refusal names the entry, the key and what to change. Pure.

use super::rules::{check_globs, check_match};
use super::values::{Checked, need};
use crate::config::iam_patterns::arn_of_secrets;
use crate::config::settings::Settings;

pub(super) fn check_secrets(settings: &Settings) -> Checked {
    for (index, grant) in settings.secrets.allow.iter().enumerate() {
        let place = format!("secrets.allow[{index}]");
        need(
            !grant.jobs.projects.is_empty() || !grant.jobs.namespaces.is_empty(),
            &format!("{place}.match"),
            "names no project, so it would be for the jobs of all",
            "write `match = { projects = [\"group/project\"] }`, or `namespaces`",
        )?;
        check_match(&place, &grant.jobs)?;
        let key = format!("{place}.ids");
        check_globs(&key, &grant.ids)?;
        for id in &grant.ids {
            let is_name = !id.contains(':') && !id.chars().any(char::is_whitespace);
            let change = "write names of secrets such as `ci/churn/*`, or ARNs such as \
                          `arn:aws:secretsmanager:<region>:<account>:secret:ci/churn/*`; wildcards may stand for the name";
            need(is_name || arn_of_secrets(id).is_some(), &key, &format!("has `{id}`, which names no secret"), change)?;
        }
    }
    Ok(())
}
