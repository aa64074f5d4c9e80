//! The driver under test, and the recorder in front of it that notes each call and injects faults.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::world::{Dirs, Settings};

/// A custom executor driver. Placeholders such as `{builds_dir}` in all texts are replaced by the world's paths.
#[derive(Debug, Clone)]
pub(crate) struct Driver {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    /// The arguments before the stage name.
    pub(crate) args: Vec<String>,
    /// Environment of the runner process, which the driver inherits, besides the emulator's credentials.
    pub(crate) env: Vec<(String, String)>,
    /// Arguments of the emulator that the driver needs; `None` for a driver that needs none. Its address is `{emulator}`.
    /// Its account has the roles and policies that `policy iam` makes from [`Driver::operator_config`], and the driver calls as
    /// the runner host's role.
    pub(crate) emulator: Option<Vec<String>>,
    /// Further roles of the emulator's account.
    pub(crate) roles: Vec<Value>,
    /// Policies by file name in the place of those that `policy iam` makes.
    pub(crate) policies: Option<Value>,
    /// Content of the operator's file; its path is `{operator_config}`.
    pub(crate) operator_config: String,
    /// Changes the settings of every scenario: more grace or a later deadline for a driver that needs it.
    pub(crate) adjust: fn(&mut Settings),
}

impl Driver {
    /// Whether its host stages run in the sandbox.
    pub(crate) fn is_sandboxed(&self) -> bool {
        !self.operator_config.contains(WITHOUT_SANDBOX)
    }
}

/// The name of the reference driver.
pub(crate) const REFERENCE: &str = "reference driver";
/// The name of [`sandboxed`].
pub(crate) const SANDBOXED: &str = "sagemaker-executor in the sandbox";

/// The driver as a bash script: every stage runs on the host. It shows what the runner does, not what we do.
pub(crate) fn reference() -> Driver {
    Driver {
        name: REFERENCE,
        program: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gitlab/reference-driver.sh"),
        args: vec!["{operator_config}".to_owned()],
        env: Vec::new(),
        emulator: None,
        roles: Vec::new(),
        policies: None,
        operator_config: "builds_dir={builds_dir}\ncache_dir={cache_dir}\n".to_owned(),
        adjust: |_| {},
    }
}

/// Lines of the operator's file of [`sagemaker`]: most rows do not depend on the sandbox, and run without it in places that have no bubblewrap.
const WITHOUT_SANDBOX: &str = "[sandbox]\nenabled = false\n";

/// The driver under test: this package's binary, with the emulator for AWS.
pub(crate) fn sagemaker() -> Driver {
    sagemaker_with(&[], "")
}

/// Rules that allow all jobs all that the tests ask for.
pub(crate) const ALLOW_ALL: &str = "rules = [{ name = \"all\", allow = { instance_types = [\"*\"], max_instance_count = 100, \
     max_volume_size_gb = 16384 } }]\n";

/// [`sagemaker`] with further arguments of the emulator and further lines of the operator's file.
///
/// The file ends within `[limits]`; `tail` may begin with keys of it.
pub(crate) fn sagemaker_with(emulator: &[&str], tail: &str) -> Driver {
    Driver {
        name: "sagemaker-executor",
        program: super::program::executor().to_path_buf(),
        args: vec!["--config".to_owned(), "{operator_config}".to_owned()],
        env: Vec::new(),
        adjust: leave_time_to_prepare,
        emulator: Some(emulator.iter().map(|arg| (*arg).to_owned()).collect()),
        roles: Vec::new(),
        policies: None,
        operator_config: format!(
            "{ALLOW_ALL}[aws]\nregion = \"us-east-1\"\nendpoint_url = \"{{emulator}}\"\n[storage]\nbucket = \"{}\"\n\
             [job]\nrole_arn = \"arn:aws:iam::000000000000:role/train\"\nimage = \"host\"\n\
             [runner]\nbuilds_dir = \"{{builds_dir}}\"\ncache_dir = \"{{cache_dir}}\"\nstate_dir = \"{{root}}/state\"\n\
             [iam]\nhost_role_arn = \"arn:aws:iam::000000000000:role/host\"\n\
             {WITHOUT_SANDBOX}[limits]\ncancel_grace_seconds = 2\n{tail}\n",
            super::emulator::BUCKET
        ),
    }
}

/// The name of [`sagemaker_isolated`].
pub(crate) const ISOLATED: &str = "sagemaker-executor without network";

/// [`sagemaker`] whose containers have no network, so that each container stage is a training job of its own.
pub(crate) fn sagemaker_isolated() -> Driver {
    sagemaker_isolated_with(&[])
}

/// [`sagemaker_isolated`] with further arguments of the emulator.
pub(crate) fn sagemaker_isolated_with(emulator: &[&str]) -> Driver {
    let mut driver = sagemaker_with(emulator, "");
    driver.name = ISOLATED;
    driver.operator_config = driver.operator_config.replace("[job]\n", "[job]\nnetwork_isolation = true\n");
    driver
}

/// [`sagemaker`] whose training jobs a role of their own creates.
pub(crate) fn sagemaker_with_creator() -> Driver {
    let mut driver = sagemaker();
    let role = "creator_role_arn = \"arn:aws:iam::000000000000:role/creator\"\n[storage]";
    driver.operator_config = driver.operator_config.replace("[storage]", role);
    driver
}

/// Preparation sends the agent, and a test build of it is large. A row that prepares nothing in earnest gives it one second.
fn leave_time_to_prepare(settings: &mut Settings) {
    if settings.prepare_exec_timeout > 1 {
        settings.prepare_exec_timeout = settings.prepare_exec_timeout.max(20);
    }
}

/// [`sagemaker`] whose host stages run in the sandbox. Runner and driver have an ordinary user.
pub(crate) fn sandboxed() -> Driver {
    let mut driver = sandboxed_as_root();
    driver.adjust = |settings| {
        leave_time_to_prepare(settings);
        settings.ordinary_user = true;
    };
    driver
}

/// [`sandboxed`], as the suite's own user.
pub(crate) fn sandboxed_as_root() -> Driver {
    sandboxed_with("")
}

/// [`sandboxed_as_root`] with these lines of `[sandbox]`.
pub(crate) fn sandboxed_with(lines: &str) -> Driver {
    let mut driver = sagemaker();
    driver.name = SANDBOXED;
    driver.adjust = |settings| {
        leave_time_to_prepare(settings);
        settings.ordinary_user = false;
    };
    driver.operator_config = driver.operator_config.replace(WITHOUT_SANDBOX, &format!("[sandbox]\n{lines}"));
    driver
}

/// Reservations of project directories in the driver's state directory, besides the lock of each project.
pub(crate) fn taken_slots(state: &Path) -> Vec<PathBuf> {
    let list =
        |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let projects: Vec<PathBuf> = list(&state.join("slots"));
    let files = projects.iter().flat_map(|project| -> Vec<PathBuf> { list(project) });
    files.filter(|path| path.file_name().is_none_or(|name| name != "lock")).collect()
}

/// Trouble at a driver call, instead of the driver.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// `prepare`, `run get_sources`, `cleanup`, ...
    pub(crate) stage: &'static str,
    /// The first calls of that stage in this world meet the fault.
    pub(crate) times: usize,
    pub(crate) act: Act,
}

#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Ends at once with this code.
    Exit(u8),
    /// Sleeps for an hour; ends on SIGTERM.
    Hang,
    /// Sleeps for an hour and ignores SIGTERM.
    HangDeaf,
    /// Runs shell lines (then the driver, unless they exit).
    Shell(&'static str),
}

/// Writes a recorder that runs every stage on the host, as [`reference`] does, below `builds`; returns its path.
pub(crate) fn write_host_recorder(dirs: &Dirs, builds: &Path) -> PathBuf {
    let file = dirs.root().join("host.conf");
    let lines = format!("builds_dir={}\ncache_dir={}\n", builds.display(), dirs.cache().display());
    std::fs::write(&file, lines).unwrap();
    let words = [reference().program.as_path(), &file].map(|path| shell_word(&path.to_string_lossy()));
    let path = dirs.root().join("host-recorder");
    write_program(&path, &format!("#!/usr/bin/env bash\nexec {} \"$@\"\n", words.join(" ")));
    path
}

/// Writes the recorder for a driver and returns its path. It notes the stage and becomes the driver by `exec`.
pub(crate) fn write_recorder(dirs: &Dirs, driver: &Driver, faults: &[Fault], emulator: &str) -> PathBuf {
    let operator_config = dirs.root().join("operator.toml");
    std::fs::write(&operator_config, dirs.fill(&driver.operator_config).replace("{emulator}", emulator)).unwrap();
    let mut command = shell_word(&driver.program.to_string_lossy());
    for arg in &driver.args {
        command.push(' ');
        command.push_str(&shell_word(&dirs.fill(arg)));
    }
    let mut script = String::from("#!/usr/bin/env bash\nstage=$1\n[ \"$1\" != run ] || stage=\"run $3\"\n");
    let log = shell_word(&dirs.stage_log().to_string_lossy());
    let _ = writeln!(script, "printf '%s\\n' \"$stage\" >> {log}");
    for fault in faults {
        let act = match &fault.act {
            Act::Exit(code) => format!("exit {code}"),
            Act::Hang => "exec sleep 3600".to_owned(),
            Act::HangDeaf => "trap '' TERM; exec sleep 3600".to_owned(),
            Act::Shell(lines) => (*lines).to_owned(),
        };
        let (stage, times) = (shell_word(fault.stage), fault.times);
        let _ = writeln!(
            script,
            "if [ \"$stage\" = {stage} ] && [ \"$(grep -cxF {stage} {log})\" -le {times} ]; then\n{act}\nfi"
        );
    }
    let _ = writeln!(script, "exec {command} \"$@\"");
    let path = dirs.root().join("recorder");
    write_program(&path, &script);
    path
}

/// Writes an executable file.
pub(crate) fn write_program(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
