//! Checks the modules of `runner-config/opentofu`: their text, what they make of a mocked provider and of moto, a job and commands under what they make, the script that sets a runner
//! host up, and the components whose jobs call kubectl and the AWS CLI.

mod applied;
mod clients;
mod commands;
mod host;
mod modules;
mod operated;
mod planned;
mod real_clients;
mod terraform;

use std::path::{Path, PathBuf};

/// The modules, of which `complete` joins the others.
const MODULES: [&str; 7] = ["alarms", "approval-events", "complete", "oidc-roles", "registry", "runner", "storage"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("runner-config/opentofu")
}
