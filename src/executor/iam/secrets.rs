//! Permissions on the secrets that `secrets.allow` grants to jobs; the runner host reads them.

use super::account::Account;
use super::document::PolicyStatement;
use crate::config::iam_patterns::{arn_of_secrets, as_patterns};

/// The characters that AWS adds to the name of a secret in its ARN.
const SUFFIX: &str = "-??????";

pub(super) fn of_the_host(account: &Account<'_>) -> Vec<PolicyStatement> {
    let mut secrets: Vec<String> = account
        .settings
        .secrets
        .allow
        .iter()
        .flat_map(|grant| &grant.ids)
        .flat_map(|id| resources(account, id))
        .collect();
    secrets.sort();
    secrets.dedup();
    if secrets.is_empty() {
        return Vec::new();
    }
    let mut statements = vec![PolicyStatement::allow("SecretsOfJobs", "secretsmanager:GetSecretValue").on(secrets)];
    if !account.secret_keys.is_empty() {
        statements.push(PolicyStatement::allow("KeysOfSecrets", "kms:Decrypt").on(account.secret_keys.clone()).when(
            "StringEquals",
            "kms:ViaService",
            account.via(&["secretsmanager"]),
        ));
    }
    statements
}

/// The ARNs of the secrets that a pattern of the operator's file stands for.
fn resources(account: &Account<'_>, id: &str) -> Vec<String> {
    let name = |name: &str| format!("{}{name}{SUFFIX}", account.secrets());
    let Some((place, names)) = arn_of_secrets(id) else {
        return as_patterns(id).iter().map(|pattern| name(pattern)).collect();
    };
    // A job may leave the suffix out of an ARN.
    let both = |pattern: String| {
        let whole = format!("{place}{pattern}");
        if whole.ends_with('*') { vec![whole] } else { vec![format!("{whole}{SUFFIX}"), whole] }
    };
    as_patterns(names).into_iter().flat_map(both).collect()
}
