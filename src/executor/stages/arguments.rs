//! Explains wrong arguments of GitLab Runner: names the key of `config.toml` to change. Pure.

use std::path::Path;

use crate::base::failure::Failure;
use crate::config::env::Environment;
use crate::config::settings::DEFAULT_PATH;

const CALLS: [&str; 4] = ["config", "prepare", "run", "cleanup"];

/// `/tmp/custom-executor1/script2/script`, or with the file extension of another shell.
fn is_script(argument: &str) -> bool {
    let path = Path::new(argument);
    path.is_absolute() && path.file_stem().is_some_and(|name| name == "script")
}

/// Returns the failure for arguments (without the program's name) that cannot be parsed; `None` when a person typed
/// them.
pub fn refused(env: &Environment, arguments: &[String]) -> Option<Failure> {
    let contract = env.contract().ok()?;
    contract.job_response_file.as_ref()?;
    let stages: &[&str] = match arguments {
        // The runner appends the script and the stage's name.
        [.., script, stage] if is_script(script) && !CALLS.contains(&stage.as_str()) => &["run"],
        _ if contract.session.is_none() => &["config"],
        _ => &["prepare", "cleanup"],
    };
    let keys: Vec<_> = stages.iter().map(|stage| format!("`{stage}_args`")).collect();
    let lines: Vec<_> = stages
        .iter()
        .map(|stage| format!("`{stage}_args = [\"--config\", \"{DEFAULT_PATH}\", \"{stage}\"]`"))
        .collect();
    let given = if arguments.is_empty() { "there are none".to_owned() } else { format!("`{}`", arguments.join("` `")) };
    let text = format!("{} in the runner's `config.toml` is no call of the driver: {given}", keys.join(" or "));
    Some(Failure::system(text).hint(format!("set {} in `[runners.custom]`", lines.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::{Kind, render};

    fn told(session: &str, arguments: &[&str]) -> Option<String> {
        let pairs = [("JOB_RESPONSE_FILE", "/x"), ("SAGEMAKER_EXECUTOR_SESSION", session)];
        let env = Environment::from_pairs(pairs.map(|(name, value)| (name.into(), value.into())));
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let failure = refused(&env, &arguments)?;
        assert_eq!(failure.kind, Kind::System);
        Some(render(&failure.into()))
    }

    #[test]
    fn the_key_to_change_is_named() {
        let script = "/tmp/custom-executor1/script2/script";
        for (session, arguments, keys) in [
            ("", &[][..], &["`config_args`"][..]),
            ("", &["--config /x config"], &["`config_args`"]),
            ("s", &[script, "get_sources"], &["`run_args`"]),
            ("s", &["--config", "/x", script, "step_release"], &["`run_args`"]),
            ("s", &["--config", "/x", "prepare", "/tmp/a/script.ps1", "build_script"], &["`run_args`"]),
            ("s", &["--config", "/x", "run"], &["`prepare_args`", "`cleanup_args`"]),
            ("s", &["--config", "/script", "--config", "/script", "prepare"], &["`prepare_args`", "`cleanup_args`"]),
        ] {
            let text = told(session, arguments).unwrap();
            assert!(keys.iter().all(|key| text.contains(key)) && text.contains("`[runners.custom]`"), "{text}");
        }
        assert!(refused(&Environment::default(), &[]).is_none(), "somebody typed it");
    }
}
