//! Arguments of GitLab Runner that are no call of the driver: which key of `config.toml` is to be changed. Pure.

use std::path::Path;

use crate::base::failure::Failure;
use crate::config::env::Environment;
use crate::config::settings::DEFAULT_PATH;

/// What the runner's calls need, when `arguments` (without the program) cannot be understood. `None` when somebody typed them.
pub fn refused(env: &Environment, arguments: &[String]) -> Option<Failure> {
    let contract = env.contract().ok()?;
    contract.job_response_file.as_ref()?;
    let stages: &[&str] = match arguments {
        // The runner adds the script and the name of the stage.
        [.., script, _] if Path::new(script).is_absolute() && Path::new(script).is_file() => &["run"],
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
