//! A machine and an account in memory, in which all is well.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::base::clock::TestClock;
use crate::cloud::testing::Memory;
use crate::cloud::{RouteTableSight, SecurityGroupSight, SubnetSight, VpcEndpointSight};
use crate::config::env::Environment;
use crate::operate::doctor::inspect;
use crate::operate::doctor::machine::{ANSWERED_WITHIN, DiskSight, HostMachine, MADE_WITHIN, PathSight};
use crate::operate::doctor::report::DoctorFinding;
use crate::session::agent_delivery;
use crate::ui::Printer;

pub(super) const RUNNER_CONFIG: &str = "/etc/gitlab-runner/config.toml";
pub(super) const OPERATOR_FILE: &str = "/etc/sagemaker-executor/sagemaker-executor.toml";
pub(super) const PROGRAM: &str = "/usr/local/bin/sagemaker-executor";
pub(super) const HOST_ROLE: &str = "arn:aws:iam::210987654321:role/host";
pub(super) const JOB_ROLE: &str = "arn:aws:iam::210987654321:role/train";
pub(super) const CREATOR: &str = "arn:aws:iam::210987654321:role/creator";
pub(super) const TRUST: &str = r#"{"Statement":{"Effect":"Allow","Principal":{"Service":"sagemaker.amazonaws.com"},"Action":["sts:AssumeRole","sts:TagSession"]}}"#;
const SAMPLE: &str = include_str!("../../../../../runner-config/config.toml");
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The machine, and the account behind its ports.
pub(super) struct World {
    pub(super) runner: Option<String>,
    pub(super) operator: Option<String>,
    /// The runner's configuration is another user's alone.
    pub(super) is_private: bool,
    /// Files that this user may not read, whatever they hold.
    pub(super) unreadable: BTreeSet<PathBuf>,
    /// Programs and sandbox answer at the end of their time.
    pub(super) is_slow: bool,
    /// All but the two files above.
    pub(super) files: BTreeMap<PathBuf, (String, PathSight)>,
    pub(super) modes: BTreeMap<&'static str, u32>,
    pub(super) programs: BTreeSet<&'static str>,
    /// Those of a service's own `PATH`.
    pub(super) programs_elsewhere: BTreeSet<&'static str>,
    /// By the program's name and its first argument.
    pub(super) outputs: BTreeMap<&'static str, String>,
    pub(super) sandbox: Result<(), String>,
    pub(super) reaches_metadata: bool,
    pub(super) variables: BTreeMap<&'static str, &'static str>,
    pub(super) disk: DiskSight,
    /// `runner.state_dir`.
    pub(super) state: PathBuf,
    /// Of these paths, in place of `disk`.
    pub(super) disks: BTreeMap<PathBuf, DiskSight>,
    /// The operator's file cannot be read, for this reason.
    pub(super) operator_error: Option<io::ErrorKind>,
    pub(super) user: u32,
    /// User id of the owner of the operator's file.
    pub(super) operator_owner: u32,
    pub(super) clock: Arc<TestClock>,
    pub(super) memory: Memory,
    /// Key prefix of the agent.
    pub(super) agent: String,
}

pub(super) fn directory(mode: u32) -> (String, PathSight) {
    (String::new(), PathSight { is_dir: true, mode, owner: 998, file: (0, 1), is_writable: true, is_executable: false })
}

pub(super) fn file(text: &str, mode: u32) -> (String, PathSight) {
    let is_executable = mode & 0o001 != 0;
    (text.to_owned(), PathSight { is_dir: false, mode, owner: 0, file: (0, 2), is_writable: false, is_executable })
}

impl World {
    /// `state` is a directory for the notes of the agent's hashes.
    pub(super) fn sound(state: &Path) -> Self {
        let runner = SAMPLE
            .replace("https://gitlab.example.com", "https://gitlab.company.org")
            .replace("glrt-REPLACE_ME", "glrt-abc");
        let operator = format!(
            "[aws]\nregion = \"eu-west-1\"\n[storage]\nbucket = \"memory\"\n[job]\nrole_arn = \"{JOB_ROLE}\"\n\
             image = \"210987654321.dkr.ecr.eu-west-1.amazonaws.com/train@{DIGEST}\"\nsubnets = [\"subnet-1\"]\n\
             security_group_ids = [\"sg-1\"]\n[iam]\nhost_role_arn = \"{HOST_ROLE}\"\n[runner]\nstate_dir = {state:?}\n"
        );
        let outputs = [
            ("gitlab-runner --version", "Version:      19.4.0\n"),
            ("git --version", "git version 2.39.5\n"),
            ("bash -c", "it runs\n"),
            ("bwrap --version", "bubblewrap 0.8.0\n"),
            ("systemctl show", "User=gitlab-runner\nLoadState=loaded\n"),
            ("systemctl is-enabled", "enabled\n"),
        ];
        let day = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let clock = Arc::new(TestClock::at(day));
        let memory = Memory::new();
        // S3 has a clock of its own.
        memory.objects.set_clock(Arc::new(TestClock::at(day)));
        Self::fill(&memory);
        Self {
            runner: Some(runner),
            operator: Some(operator),
            is_private: false,
            unreadable: BTreeSet::new(),
            is_slow: false,
            files: BTreeMap::from([
                (PathBuf::from(PROGRAM), file("", 0o755)),
                (state.to_owned(), directory(0o700)),
                (PathBuf::from("/var/lib/sagemaker-executor"), directory(0o700)),
                (
                    PathBuf::from("/etc/passwd"),
                    file("root:x:0:0::/root:/bin/sh\ngitlab-runner:x:998:998::/:/bin/sh\n", 0o644),
                ),
            ]),
            modes: BTreeMap::from([(RUNNER_CONFIG, 0o600), (OPERATOR_FILE, 0o644)]),
            programs: BTreeSet::from(["bash", "bwrap", "git", "git-lfs", "gitlab-runner"]),
            programs_elsewhere: BTreeSet::new(),
            outputs: outputs.map(|(call, text)| (call, text.to_owned())).into(),
            sandbox: Ok(()),
            reaches_metadata: false,
            variables: BTreeMap::new(),
            state: state.to_owned(),
            disks: BTreeMap::new(),
            operator_error: None,
            disk: DiskSight { free_bytes: 200 << 30, free_inodes: Some(10_000_000) },
            user: 998,
            operator_owner: 0,
            clock,
            memory,
            agent: String::new(),
        }
    }

    fn fill(memory: &Memory) {
        let account = &memory.account;
        account.set_caller("arn:aws:sts::210987654321:assumed-role/host/i-0123");
        account.set_role(HOST_ROLE, "{}");
        account.set_role(JOB_ROLE, TRUST);
        account.set_quota("ml.m5.large for training job usage", 4.0);
        account.set_image(&format!("train@{DIGEST}"), &["linux/amd64"]);
        account.change_settings(|settings| {
            let owned = str::to_owned;
            settings.subnets = vec![SubnetSight { id: owned("subnet-1"), vpc: owned("vpc-1") }];
            settings.security_groups =
                vec![SecurityGroupSight { id: owned("sg-1"), vpc: owned("vpc-1"), lets_https_out: true }];
            settings.route_tables =
                vec![RouteTableSight { id: owned("rtb-1"), is_main: true, ..RouteTableSight::default() }];
            settings.endpoints = vec![VpcEndpointSight {
                id: owned("vpce-1"),
                service: owned("s3"),
                is_gateway: true,
                is_available: true,
                route_tables: vec![owned("rtb-1")],
                has_private_names: false,
            }];
        });
    }

    /// Stores the agent, whose hashes later calls take from a note: hashing a large program takes its time.
    pub(super) async fn note_the_agent(&self) -> String {
        let settings = crate::config::operator_file::parse(self.operator.as_ref().unwrap()).unwrap();
        let (printer, _) = Printer::captured();
        let until = Instant::now() + Duration::from_mins(1);
        agent_delivery::deliver_until(&*self.memory.objects, &settings, &printer, until).await.unwrap()
    }

    async fn wait(&self, longest: Duration) {
        if self.is_slow {
            tokio::time::sleep(longest).await;
        }
    }

    pub(super) async fn inspect(&self) -> Vec<DoctorFinding> {
        let env = Environment::default();
        inspect(None, Path::new(OPERATOR_FILE), &env, (self, &self.memory, &*self.clock)).await
    }

    /// Replaces a part of the runner's configuration, which has it.
    pub(super) fn in_runner(&mut self, from: &str, to: &str) {
        let text = self.runner.as_mut().unwrap();
        assert!(text.contains(from), "{from}");
        *text = text.replace(from, to);
    }

    /// The same of the operator's file.
    pub(super) fn in_operator(&mut self, from: &str, to: &str) {
        let text = self.operator.as_mut().unwrap();
        assert!(text.contains(from), "{from}");
        *text = text.replace(from, to);
    }
}

#[async_trait]
impl HostMachine for World {
    fn read(&self, path: &Path) -> io::Result<String> {
        let absent = || io::Error::from(io::ErrorKind::NotFound);
        match path.to_str() {
            Some(RUNNER_CONFIG) if self.is_private => Err(io::ErrorKind::PermissionDenied.into()),
            Some(RUNNER_CONFIG) => self.runner.clone().ok_or_else(absent),
            Some(OPERATOR_FILE) if self.operator_error.is_some() => {
                Err(self.operator_error.map(io::Error::from).unwrap())
            }
            Some(OPERATOR_FILE) => self.operator.clone().ok_or_else(absent),
            _ if self.unreadable.contains(path) => Err(io::ErrorKind::PermissionDenied.into()),
            _ => self.files.get(path).map(|(text, _)| text.clone()).ok_or_else(absent),
        }
    }

    fn look(&self, path: &Path) -> io::Result<PathSight> {
        if let Some(mode) = path.to_str().and_then(|path| self.modes.get(path)) {
            self.read(path)?;
            let owner = if path == Path::new(OPERATOR_FILE) { self.operator_owner } else { 0 };
            return Ok(PathSight { owner, ..file("", *mode).1 });
        }
        self.files.get(path).map(|(_, sight)| sight.clone()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn entries(&self, path: &Path) -> Vec<(PathBuf, PathSight)> {
        let within = self.files.iter().filter(|(file, _)| file.parent() == Some(path));
        within.map(|(file, (_, sight))| (file.clone(), sight.clone())).collect()
    }

    fn disk(&self, path: &Path) -> io::Result<DiskSight> {
        Ok(self.disks.get(path).copied().unwrap_or(self.disk))
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    fn find(&self, program: &str, path: Option<&str>) -> Option<PathBuf> {
        let folder = path.unwrap_or("/usr/bin");
        let programs = if folder == "/usr/bin" { &self.programs } else { &self.programs_elsewhere };
        programs.contains(program).then(|| Path::new(folder).join(program))
    }

    async fn output(&self, program: &str, arguments: &[&str]) -> io::Result<String> {
        self.wait(ANSWERED_WITHIN).await;
        let name = program.rsplit('/').next().unwrap_or_default();
        let call = format!("{name} {}", arguments.first().unwrap_or(&""));
        self.outputs.get(call.as_str()).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    async fn try_sandbox(&self) -> Result<(), String> {
        self.wait(MADE_WITHIN).await;
        self.sandbox.clone()
    }

    async fn reaches_metadata(&self) -> Result<bool, String> {
        self.wait(ANSWERED_WITHIN).await;
        Ok(self.reaches_metadata)
    }

    fn user(&self) -> u32 {
        self.user
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|&value| value.to_owned())
    }

    fn own_program(&self) -> PathBuf {
        PathBuf::from(PROGRAM)
    }
}
