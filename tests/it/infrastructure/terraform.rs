//! Terraform or `OpenTofu` with a provider of a local folder, in a copy of the modules. Nothing is downloaded.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::conformance::{shown, skipped};
use crate::support::waiting::search_path;
use executor::config::env::Environment;

/// A copy of `runner-config` that commands run in.
pub(super) struct Terraform {
    program: &'static str,
    settings: PathBuf,
    copy: TempDir,
}

/// Folders in which packages of the system put providers, besides `TERRAFORM_PLUGINS`.
const FOLDERS: [&str; 3] = ["/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins", "/opt/tf-plugins"];
const PROVIDER: &str = "registry.terraform.io/hashicorp/aws";

impl Terraform {
    /// None, and a line that says what is missing, where the machine lacks the program or the provider.
    pub(super) fn new(test: &str) -> Option<Self> {
        let runs =
            |program: &&&str| Command::new(program).arg("version").output().is_ok_and(|ended| ended.status.success());
        let Some(program) = ["terraform", "tofu"].iter().find(runs) else {
            skipped(test, "neither terraform nor tofu is on PATH");
            return None;
        };
        let environment = Environment::of_process();
        let given = environment.get("TERRAFORM_PLUGINS").into_iter().chain(FOLDERS);
        let Some(plugins) = given.map(Path::new).find(|folder| folder.join(PROVIDER).is_dir()) else {
            skipped(test, "no folder has the provider hashicorp/aws: name one in TERRAFORM_PLUGINS");
            return None;
        };
        let copy = tempfile::tempdir().unwrap();
        let settings = copy.path().join("terraform.rc");
        let mirror =
            format!("provider_installation {{\n  filesystem_mirror {{ path = \"{}\" }}\n}}\n", plugins.display());
        std::fs::write(&settings, mirror).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("runner-config");
        let copied = Command::new("cp").arg("-r").arg(source).arg(copy.path()).status().unwrap();
        assert!(copied.success());
        Some(Self { program, settings, copy })
    }

    pub(super) fn module(&self, name: &str) -> PathBuf {
        self.copy.path().join("runner-config/opentofu").join(name)
    }

    pub(super) fn call(&self, module: &str, arguments: &[&str]) -> Output {
        Command::new(self.program)
            .args(arguments)
            .current_dir(self.module(module))
            .env_clear()
            .env("PATH", search_path())
            .env("HOME", self.copy.path())
            .env("TF_CLI_CONFIG_FILE", &self.settings)
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_IN_AUTOMATION", "1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .output()
            .unwrap()
    }

    /// The output on stdout of a command that must succeed.
    #[track_caller]
    pub(super) fn passes(&self, module: &str, arguments: &[&str]) -> String {
        let ended = self.call(module, arguments);
        assert!(ended.status.success(), "{module}: {arguments:?}: {}", shown(&ended));
        String::from_utf8(ended.stdout).unwrap()
    }

    #[track_caller]
    pub(super) fn init(&self, module: &str) {
        self.passes(module, &["init", "-backend=false", "-no-color", "-input=false"]);
    }
}
