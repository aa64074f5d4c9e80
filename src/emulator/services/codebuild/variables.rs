//! The variables of a build whose values are in Secrets Manager: read in the session of the service role, and never in a record.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::records::{BuildRecord, CodeBuild};
use crate::caller::Caller;
use crate::protocol::text;
use crate::service::{answer, authorize};

/// The values of the variables of the kind `SECRETS_MANAGER`, by the names of these.
///
/// # Errors
/// The role may not read one, there is no such secret or field, or a variable is of another kind.
pub(super) fn secret_values(
    service: &Arc<CodeBuild>,
    build: &BuildRecord,
    caller: &Caller,
) -> Result<BTreeMap<String, String>, String> {
    let all = build.definition["environment"]["environmentVariables"].as_array().into_iter().flatten();
    let mut values = BTreeMap::new();
    for one in all.into_iter().filter(|one| text(one, "type").is_some_and(|kind| kind != "PLAINTEXT")) {
        let name = text(one, "name").unwrap_or_default();
        if text(one, "type") != Some("SECRETS_MANAGER") {
            return Err(format!("the variable {name} is of a kind that is not emulated"));
        }
        let (id, field) = reference(text(one, "value").unwrap_or_default());
        let value = read(service, id, caller).map_err(|error| format!("Secrets Manager Error Message: {error}"))?;
        let value = match field {
            None => value,
            Some(field) => {
                let fields: Value = serde_json::from_str(&value).unwrap_or_default();
                let found = text(&fields, field).map(str::to_owned);
                found.ok_or_else(|| format!("the secret of the variable {name} has no key {field}"))?
            }
        };
        values.insert(name.to_owned(), value);
    }
    Ok(values)
}

/// `ID`, `ID:FIELD`; the id may be an ARN, which has six colons.
fn reference(value: &str) -> (&str, Option<&str>) {
    let colons = if value.starts_with("arn:") { 6 } else { 0 };
    let end = value.match_indices(':').nth(colons).map(|(at, _)| at);
    let Some((id, rest)) = end.and_then(|at| value.split_at_checked(at)) else { return (value, None) };
    let field = rest.trim_start_matches(':').split(':').next().filter(|field| !field.is_empty());
    (id, field)
}

fn read(service: &Arc<CodeBuild>, id: &str, caller: &Caller) -> Result<String, String> {
    let request = json!({"SecretId": id});
    let secrets = &service.secrets;
    let allowed = authorize(&**secrets, &service.shared, "GetSecretValue", &request, caller);
    let reply = allowed.and_then(|()| answer(secrets, "GetSecretValue", &request, caller));
    let reply = reply.map_err(|error| format!("{}: {}", error.code, error.message))?.unwrap_or_default();
    text(&reply, "SecretString").map(str::to_owned).ok_or_else(|| format!("the secret {id} is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_named_by_id_or_arn_and_perhaps_a_field() {
        let arn = "arn:aws:secretsmanager:us-east-1:000000000000:secret:pip-abcdef";
        assert_eq!(reference("pip"), ("pip", None));
        assert_eq!(reference("team/pip:token"), ("team/pip", Some("token")));
        assert_eq!(reference("pip:token:AWSCURRENT:"), ("pip", Some("token")));
        assert_eq!(reference(arn), (arn, None));
        assert_eq!(reference(&format!("{arn}:token")), (arn, Some("token")));
    }
}
