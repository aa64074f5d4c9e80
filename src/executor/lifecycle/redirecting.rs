//! Variables that decide who answers in the place of AWS. Who starts a pipeline can set them: another server would accept every token
//! and read every secret.

use crate::base::failure::Failure;
use crate::base::plain;
use crate::config::env::Environment;

/// The begins of their names.
const REDIRECTING: [&str; 2] = ["AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"];

/// Refuses an environment that has one; `does` is what the server would do, as `reads the secret`.
///
/// # Errors
/// One is set.
pub(super) fn refuse(env: &Environment, does: &str) -> Result<(), Failure> {
    let mut names = env.all().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name);
    let Some(name) = names.find(|name| REDIRECTING.iter().any(|begin| name.starts_with(begin))) else {
        return Ok(());
    };
    let name = plain::line(&name, 100);
    let failure = Failure::user(format!("`{name}` is set: a variable must not choose the server that {does}"));
    Err(failure.hint(format!(
        "remove `{name}`; for an emulator or a private network give `--endpoint-url URL` and `--ca-bundle FILE`"
    )))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::base::failure::render;

    fn refused(name: &str, value: &str) -> Option<String> {
        let env = Environment::from_pairs([(OsString::from(name), OsString::from(value))]);
        refuse(&env, "reads the secret").err().map(|failure| render(&failure.into()))
    }

    #[test]
    fn no_variable_chooses_who_answers() {
        assert_eq!([refused("AWS_ENDPOINT_URL", ""), refused("AWS_REGION", "x")], [None, None]);
        for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_CA_BUNDLE"] {
            let text = refused(name, "x").unwrap();
            assert!(text.contains(&format!("`{name}` is set")) && text.contains("`--endpoint-url URL`"), "{text}");
        }
    }
}
