//! `credentials export`: the job's id token in a file, and the variables by which programs of AWS find it.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::base::failure::Failure;
use crate::base::files::{Durability, replace};
use crate::cloud::WebIdentity;
use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::IdentityArgs;
use crate::lifecycle::output::{Data, OutputArgs, OutputForm, check};
use crate::lifecycle::target::TargetArgs;

/// Files of settings: an `endpoint_url` or `ca_bundle` in one sends the id token to another server. The command reads neither of them, and
/// neither do the programs then. Also those of the home folder are not read.
const SETTINGS: [&str; 2] = ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"];
/// A file without settings.
const NO_FILE: &str = "/dev/null";

/// Variables that AWS's programs prefer to an id token.
const STRONGER: [&str; 5] =
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"];

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    /// File for the token. When absent, one in `CI_PROJECT_DIR.tmp`, the folder of GitLab Runner for files of variables, which no artifact
    /// or cache takes
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Form of the data on stdout: text is lines for a shell
    #[arg(long, value_name = "FORM", default_value = "text")]
    output: OutputForm,
}

/// The variables; none is a secret.
#[derive(Debug, Serialize)]
struct Exported {
    variables: BTreeMap<&'static str, String>,
    unset: Vec<&'static str>,
}

impl Data for Exported {
    fn text(&self) -> String {
        let set = self.variables.iter().map(|(name, value)| format!("export {name}={}", quoted(value)));
        set.chain([format!("unset {}", self.unset.join(" "))]).collect::<Vec<_>>().join("\n")
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::new()
    }
}

/// A text for `sh`, whatever it holds.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn exported(identity: &WebIdentity, file: &Path, region: Option<&str>) -> Exported {
    let own = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_string_lossy().into_owned()),
        ("AWS_ROLE_ARN", identity.role_arn.clone()),
        ("AWS_ROLE_SESSION_NAME", identity.session_name.clone()),
    ];
    let without_files = SETTINGS.map(|name| (name, NO_FILE.to_owned()));
    let of_region = region
        .into_iter()
        .flat_map(|region| ["AWS_REGION", "AWS_DEFAULT_REGION"].map(|name| (name, region.to_owned())));
    Exported { variables: own.into_iter().chain(without_files).chain(of_region).collect(), unset: STRONGER.to_vec() }
}

/// The file for the token, whose folder exists then.
fn token_file(inputs: &CommandInputs, named: Option<PathBuf>, job: &str) -> anyhow::Result<PathBuf> {
    if let Some(file) = named {
        return Ok(check("--token-file", &file)?);
    }
    let Some(project) = inputs.env.get("CI_PROJECT_DIR").filter(|folder| folder.starts_with('/')) else {
        let failure = Failure::user("there is no place for the id token: `CI_PROJECT_DIR` is not set");
        return Err(failure
            .hint("give `--token-file FILE`, outside of what the job keeps as artifact or cache")
            .into());
    };
    let folder = PathBuf::from(format!("{}.tmp", project.trim_end_matches('/')));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(|error| unwritten(&folder, error))?;
    Ok(folder.join(format!("sagemaker-executor-id-token-{job}")))
}

fn unwritten(path: &Path, error: std::io::Error) -> Failure {
    Failure::user(format!("failed to write {}", path.display()))
        .hint("give `--token-file` a file in a folder that exists and that this user may write")
        .caused_by(error)
}

pub(super) async fn run(inputs: &CommandInputs, args: ExportArgs) -> anyhow::Result<()> {
    let mut target = args.target.load_or_empty(inputs)?;
    let token = args.identity.token(inputs, &target)?;
    let token =
        token.ok_or_else(|| args.identity.absent(&inputs.env, "the job has no id token to give to its programs"))?;
    let identity = token.exchanged().clone();
    let user = token.work_as(&mut target.access);
    // AWS refuses a token here, where the words are clear, and not in the programs.
    let caller = inputs.connect.identity(&target.access).await?.arn().await?;
    let file = token_file(inputs, args.token_file, &user.job)?;
    replace(&file, identity.token.as_bytes(), Durability::Eventual).map_err(|error| unwritten(&file, error))?;
    let exported = exported(&identity, &file, target.access.region.as_deref());
    inputs.printer.line(format!("Programs of AWS work as {caller} with the id token in {}", file.display()));
    OutputArgs { output: args.output, dotenv: None }.leave(&exported, &inputs.printer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::TokenClaims;

    #[test]
    fn a_shell_reads_any_value_as_it_is() {
        let identity = WebIdentity {
            role_arn: "arn:aws:iam::123456789012:role/a'$(id)".to_owned(),
            token: "h.c.s".to_owned(),
            session_name: "gitlab-g.p-p7-j8-u42".to_owned(),
            claims: TokenClaims::default(),
        };
        let text = exported(&identity, Path::new("/builds/my project.tmp/token"), Some("eu-west-1")).text();
        let script = format!(
            "AWS_PROFILE=other; AWS_CONFIG_FILE=other\n{text}\nprintf '%s|' \"$AWS_ROLE_ARN\" \"$AWS_WEB_IDENTITY_TOKEN_FILE\" \"$AWS_DEFAULT_REGION\" \"${{AWS_PROFILE-none}}\" \"$AWS_CONFIG_FILE\" \"$AWS_SHARED_CREDENTIALS_FILE\""
        );
        let output = std::process::Command::new("/bin/sh").args(["-ec", &script]).output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        let expected =
            "arn:aws:iam::123456789012:role/a'$(id)|/builds/my project.tmp/token|eu-west-1|none|/dev/null|/dev/null|";
        assert_eq!(shown, expected);
        assert!(!text.contains("h.c.s"));
    }
}
