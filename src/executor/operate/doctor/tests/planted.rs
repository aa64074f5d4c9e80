//! The planted mistakes, each by its name, with the words that must be told.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::world::{
    CREATOR, HOST_ROLE, JOB_ROLE, OPERATOR_FILE, PROGRAM, RUNNER_CONFIG, TRUST, World, directory, file,
};
use crate::cloud::testing::{Fault, When};
use crate::cloud::{BucketEncryption, CloudErrorKind, DenialReason, KeySight, Retention};
use crate::operate::doctor::machine::DiskSight;
use crate::operate::doctor::report::CheckVerdict::{self, Failure, Warning};

/// One mistake.
pub(super) struct Planted {
    pub(super) name: &'static str,
    pub(super) id: &'static str,
    pub(super) verdict: CheckVerdict,
    /// All of them stand in the finding.
    pub(super) words: &'static [&'static str],
    pub(super) plant: fn(&mut World),
}

macro_rules! planted {
    ($($name:literal, $id:literal, $verdict:ident, [$($word:expr),*], $plant:expr;)*) => {
        pub(super) const PLANTED: &[Planted] = &[$(Planted {
            name: $name, id: $id, verdict: $verdict, words: &[$($word),*], plant: $plant,
        }),*];
    };
}

planted! {
    // GitLab Runner's config.toml.
    "no config.toml", "config.file", Failure, [RUNNER_CONFIG, "--runner-config"], |world| world.runner = None;
    "config.toml of root alone", "config.file", Warning, ["may not read", "as root"], |world| world.is_private = true;
    "config.toml that everybody reads", "config.mode", Failure, ["token", "chmod 600"], |world| { world.modes.insert(RUNNER_CONFIG, 0o644); };
    "config.toml that others write", "config.mode", Failure, ["write", "chmod 600"], |world| { world.modes.insert(RUNNER_CONFIG, 0o620); };
    "config.toml that is not TOML", "config.syntax", Failure, ["line 2"], |world| world.runner = Some("concurrent = 1\n[[runners\n".to_owned());
    "another custom executor", "config.runners", Failure, ["sagemaker-executor", "runner-config/config.toml"], |world| world.in_runner(PROGRAM, "/usr/bin/other");
    "program with a typing error in all stages", "config.program", Failure, ["sagemaker-exectuor", "install"], |world| world.in_runner(PROGRAM, "/usr/local/bin/sagemaker-exectuor");
    "one pair of brackets", "config.runners", Failure, ["`[runners]`", "`[[runners]]`"], |world| world.runner = Some("concurrent = 1\n[runners]\nname = \"a\"\n".to_owned());
    "number in quotes", "config.syntax", Failure, ["config_exec_timeout", "without quotes"], |world| world.in_runner("config_exec_timeout = 60", "config_exec_timeout = \"60\"");
    "feature flag in quotes", "config.syntax", Failure, ["FF_X", "true"], |world| world.in_runner("    FF_POSIX", "    FF_X = \"true\"\n    FF_POSIX");
    "environment in one text", "config.syntax", Failure, ["environment", "list"], |world| world.in_runner("  executor = ", "  environment = \"A=b\"\n  executor = ");
    "executor shell", "config.executor", Failure, ["executor = \"shell\"", "custom"], |world| world.in_runner("executor = \"custom\"", "executor = \"shell\"");
    "no cleanup_exec", "config.stages", Failure, ["`cleanup_exec`"], |world| world.in_runner("    cleanup_exec = ", "    # cleanup_exec = ");
    "program that is not there", "config.program", Failure, [PROGRAM, "install"], |world| { world.files.remove(&PathBuf::from(PROGRAM)); };
    "program that is not executable", "config.program", Failure, ["not executable", "chmod 755"], |world| { world.files.insert(PROGRAM.into(), file("", 0o644)); };
    "program that others write", "config.program", Failure, ["others", "0777"], |world| { world.files.insert(PROGRAM.into(), file("", 0o777)); };
    "program of the runner's user", "config.program", Failure, [PROGRAM, "belongs to gitlab-runner", "chown root:"], |world| {
        let (text, mut sight) = file("", 0o755);
        sight.owner = 998;
        world.files.insert(PROGRAM.into(), (text, sight));
    };
    "program that root alone may start", "config.program", Failure, ["not executable for this user", "0744"], |world| { world.files.insert(PROGRAM.into(), file("", 0o744)); };
    "program by its name alone", "config.program", Failure, ["absolute path"], |world| world.in_runner("run_exec = \"/usr/local/bin/", "run_exec = \"");
    "stage of another program", "config.program", Failure, ["/usr/bin/true", "_exec"], |world| {
        world.in_runner("run_exec = \"/usr/local/bin/sagemaker-executor\"", "run_exec = \"/usr/bin/true\"");
        let (text, mut sight) = file("", 0o755);
        sight.file = (0, 3);
        world.files.insert("/usr/bin/true".into(), (text, sight));
    };
    "another program of a user", "config.program", Failure, ["/usr/bin/true", "jobs pass that stage"], |world| {
        world.in_runner("run_exec = \"/usr/local/bin/sagemaker-executor\"", "run_exec = \"/usr/bin/true\"");
        let (text, mut sight) = file("", 0o755);
        (sight.file, sight.owner) = ((0, 3), 1001);
        world.files.insert("/usr/bin/true".into(), (text, sight));
    };
    "another installation of the program", "config.program", Warning, ["/opt/sagemaker-executor", "another file"], |world| {
        world.in_runner(PROGRAM, "/opt/sagemaker-executor");
        let (text, mut sight) = file("", 0o755);
        sight.file = (0, 3);
        world.files.insert("/opt/sagemaker-executor".into(), (text, sight));
    };
    "misspelt option", "config.arguments", Failure, ["`--confg`", "does not know"], |world| world.in_runner("[\"--config\", \"/etc/sagemaker-executor/sagemaker-executor.toml\", \"prepare\"]", "[\"--confg\", \"/etc/sagemaker-executor/sagemaker-executor.toml\", \"prepare\"]");
    "option beside --config", "config.arguments", Failure, ["`--nonsense`"], |world| world.in_runner("\"prepare\"]", "\"--nonsense\", \"prepare\"]");
    "number among the arguments", "config.arguments", Failure, ["`prepare_args` is no list of texts"], |world| world.in_runner("\"prepare\"]", "\"prepare\", 5]");
    "swapped arguments", "config.arguments", Failure, ["`prepare_args` calls `cleanup`"], |world| world.in_runner("\"prepare\"]", "\"cleanup\"]");
    "arguments in one text", "config.arguments", Failure, ["`run_args`", "one text"], |world| world.in_runner("[\"--config\", \"/etc/sagemaker-executor/sagemaker-executor.toml\", \"run\"]", "[\"--config /etc/sagemaker-executor/sagemaker-executor.toml run\"]");
    "no config_args", "config.arguments", Failure, ["no `config_args`", "config_args = ["], |world| world.in_runner("    config_args = ", "    # config_args = ");
    "relative --config", "config.operator_file", Failure, ["absolute path"], |world| world.in_runner("\"/etc/sagemaker-executor/sagemaker-executor.toml\"", "\"sagemaker-executor.toml\"");
    "password in the address", "config.url", Failure, ["password", "https://gitlab.company.org"], |world| world.in_runner("https://gitlab", "https://root:hunter2@gitlab");
    "--config of one stage differs", "config.operator_file", Failure, ["different files", "/etc/other.toml"], |world| world.in_runner("\"/etc/sagemaker-executor/sagemaker-executor.toml\", \"run\"", "\"/etc/other.toml\", \"run\"");
    "--config of another file than doctor's", "config.operator_file", Warning, ["/etc/other.toml", "--config"], |world| world.in_runner("\"/etc/sagemaker-executor/sagemaker-executor.toml\"", "\"/etc/other.toml\"");
    "short prepare_exec_timeout", "config.prepare_timeout", Failure, ["60 s", "300"], |world| world.in_runner("prepare_exec_timeout = 300", "prepare_exec_timeout = 60");
    "short cleanup_exec_timeout", "config.cleanup_timeout", Failure, ["30 s", "200"], |world| world.in_runner("cleanup_exec_timeout = 600", "cleanup_exec_timeout = 30");
    "short graceful_kill_timeout", "config.kill_timeout", Failure, ["20 s", "killed"], |world| world.in_runner("graceful_kill_timeout = 240", "graceful_kill_timeout = 20");
    "long graceful_kill_timeout", "config.kill_timeout", Warning, ["280 s", "cleanup"], |world| world.in_runner("graceful_kill_timeout = 240", "graceful_kill_timeout = 280");
    "no shutdown_timeout", "config.shutdown_timeout", Warning, ["30 s", "shutdown_timeout"], |world| world.in_runner("\nshutdown_timeout = 300", "\n");
    "concurrent 0", "config.concurrent", Failure, ["takes no job"], |world| world.in_runner("concurrent = 20", "concurrent = 0");
    "token of the sample", "config.token", Failure, ["sample", "glrt-"], |world| world.in_runner("glrt-abc", "glrt-REPLACE_ME");
    "one token for two runners", "config.shared_token", Failure, ["runner `b`", "token"], |world| {
        world.runner.as_mut().unwrap().push_str("\n[[runners]]\n  name = \"b\"\n  url = \"https://gitlab.company.org\"\n  token = \"glrt-abc\"\n  executor = \"docker\"\n");
    };
    "address of the sample", "config.url", Failure, ["gitlab.example.com", "url"], |world| world.in_runner("gitlab.company.org", "gitlab.example.com");
    "address without TLS", "config.url", Warning, ["http://", "clear"], |world| world.in_runner("https://gitlab.company.org", "http://gitlab.company.org");
    "tls-ca-file that is not there", "config.tls_ca", Failure, ["/etc/ca.pem", "tls-ca-file"], |world| world.in_runner("  executor = ", "  tls-ca-file = \"/etc/ca.pem\"\n  executor = ");
    "shell pwsh", "config.shell", Warning, ["pwsh", "runner.shell"], |world| world.in_runner("shell = \"bash\"", "shell = \"pwsh\"");
    "secret in environment", "config.environment", Failure, ["AWS_SECRET_ACCESS_KEY", "every job"], |world| world.in_runner("  executor = ", "  environment = [\"AWS_SECRET_ACCESS_KEY=x\"]\n  executor = ");
    "LD_PRELOAD in environment", "config.environment", Warning, ["LD_PRELOAD"], |world| world.in_runner("  executor = ", "  environment = [\"LD_PRELOAD=/x.so\"]\n  executor = ");
    "settings in environment", "config.environment", Warning, ["SAGEMAKER_INSTANCE_TYPE", "override"], |world| world.in_runner("  executor = ", "  environment = [\"SAGEMAKER_INSTANCE_TYPE=ml.m5.large\"]\n  executor = ");
    "dangerous feature flag", "config.feature_flag", Failure, ["FF_POSIXLY_CORRECT_ESCAPES"], |world| world.in_runner("ESCAPES = false", "ESCAPES = true");
    "CI_DEBUG_TRACE allowed", "config.debug_trace", Warning, ["debug_trace_disabled = true"], |world| world.in_runner("  debug_trace_disabled = true\n", "");
    "builds_dir in config.toml", "config.directories", Warning, ["builds_dir", "runner.builds_dir"], |world| world.in_runner("  executor = ", "  builds_dir = \"/builds\"\n  executor = ");
    "misspelt key", "config.unknown_key", Warning, ["prepare_exec_timout", "did you mean `prepare_exec_timeout`?"], |world| world.in_runner("prepare_exec_timeout", "prepare_exec_timout");
    // Runner and host.
    "gitlab-runner not in PATH", "runner.program", Failure, ["PATH"], |world| { world.programs.remove("gitlab-runner"); };
    "PATH of the service without gitlab-runner", "runner.program", Failure, ["PATH of gitlab-runner.service, `/opt/bin`"], |world| {
        let unit = "User=gitlab-runner\nLoadState=loaded\nEnvironment=PATH=/opt/bin\n";
        world.outputs.insert("systemctl show", unit.to_owned());
        world.programs_elsewhere = BTreeSet::from(["bash", "bwrap", "git", "git-lfs"]);
    };
    "old GitLab Runner", "runner.version", Failure, ["15.11", "16.9"], |world| { world.outputs.insert("gitlab-runner --version", "Version:      15.11.1\n".to_owned()); };
    "other GitLab Runner", "runner.version", Warning, ["18.2", "19"], |world| { world.outputs.insert("gitlab-runner --version", "Version: 18.2.0\n".to_owned()); };
    "doctor as another user", "runner.user", Warning, ["gitlab-runner", "sudo -u"], |world| world.user = 0;
    "no bash", "host.shell", Failure, ["bash", "runner.shell"], |world| { world.programs.remove("bash"); };
    "bash that does not run", "host.shell", Failure, ["/usr/bin/bash", "runs no command", "again"], |world| { world.outputs.insert("bash -c", String::new()); };
    "git that does not run", "host.git", Failure, ["/usr/bin/git", "does not run", "again"], |world| { world.outputs.remove("git --version"); };
    "no git", "host.git", Failure, ["git", "PATH"], |world| { world.programs.remove("git"); };
    "no git-lfs", "host.git", Warning, ["git-lfs"], |world| { world.programs.remove("git-lfs"); };
    "no bubblewrap", "host.bubblewrap", Failure, ["bubblewrap"], |world| { world.programs.remove("bwrap"); };
    "old bubblewrap", "host.bubblewrap", Failure, ["0.4", "0.7"], |world| { world.outputs.insert("bwrap --version", "bubblewrap 0.4.1".to_owned()); };
    "AppArmor forbids user namespaces", "host.sandbox", Failure, ["setting up uid map", "AppArmor", "/usr/bin/bwrap"], |world| {
        world.sandbox = Err("error: failed to make the sandbox of the host stages: bwrap: setting up uid map: Permission denied".to_owned());
        world.files.insert("/proc/sys/kernel/apparmor_restrict_unprivileged_userns".into(), file("1\n", 0o644));
    };
    "no user namespaces", "host.sandbox", Failure, ["user.max_user_namespaces"], |world| {
        world.sandbox = Err("bwrap: No permissions to create new namespace".to_owned());
        world.files.insert("/proc/sys/user/max_user_namespaces".into(), file("0\n", 0o644));
    };
    "sandbox switched off", "host.sandbox", Warning, ["sandbox.enabled", "THREAT-MODEL"], |world| world.operator.as_mut().unwrap().push_str("[sandbox]\nenabled = false\n");
    "metadata within reach", "host.metadata", Failure, ["169.254.169.254", "credentials"], |world| world.reaches_metadata = true;
    "no timer of the sweep", "host.sweep_timer", Warning, ["systemctl enable --now"], |world| { world.outputs.insert("systemctl is-enabled", "disabled\n".to_owned()); };
    // The operator's file, directories, disk.
    "no operator's file", "operator.file", Failure, [OPERATOR_FILE, "--config"], |world| world.operator = None;
    "operator's file that is a folder", "operator.file", Failure, ["name the file in it"], |world| world.operator_error = Some(std::io::ErrorKind::IsADirectory);
    "operator's file in UTF-16", "operator.file", Failure, ["UTF-8"], |world| world.operator_error = Some(std::io::ErrorKind::InvalidData);
    "operator's file of root alone", "operator.file", Failure, ["let the user that GitLab Runner runs as read the file"], |world| world.operator_error = Some(std::io::ErrorKind::PermissionDenied);
    "misspelt key of the operator's file", "operator.file", Failure, ["bukket", "storage.bucket"], |world| world.in_operator("bucket =", "bukket =");
    "bucket of the sample", "operator.file", Failure, ["storage.bucket", "sample"], |world| world.in_operator("\"memory\"", "\"example-ci-sagemaker\"");
    "operator's file that others write", "operator.mode", Failure, ["0666", "chmod 644"], |world| { world.modes.insert(OPERATOR_FILE, 0o666); };
    "operator's file of the runner's user", "operator.mode", Failure, [OPERATOR_FILE, "gitlab-runner", "chown root:"], |world| world.operator_owner = 998;
    "operator's file of another user", "operator.mode", Warning, ["user 1001", "chown root:"], |world| world.operator_owner = 1001;
    "operator's file in a folder for everybody", "operator.mode", Failure, ["/etc/sagemaker-executor", "chmod o-w"], |world| {
        world.files.insert("/etc/sagemaker-executor".into(), (String::new(), crate::operate::doctor::machine::PathSight { owner: 0, ..directory(0o777).1 }));
    };
    "no role", "operator.role", Failure, ["job.role_arn"], |world| world.in_operator("role_arn = \"arn:aws:iam::210987654321:role/train\"\n", "");
    "state directory that cannot be written", "host.state_dir", Failure, ["/srv/state", "install -d"], |world| {
        let at = world.operator.as_ref().unwrap().find("state_dir").unwrap();
        world.operator.as_mut().unwrap().truncate(at);
        world.operator.as_mut().unwrap().push_str("state_dir = \"/srv/state\"\n");
        world.files.insert("/srv".into(), file("", 0o755));
    };
    "builds directory of root", "host.builds_dir", Failure, ["/srv/builds", "cannot write"], |world| {
        world.operator.as_mut().unwrap().push_str("builds_dir = \"/srv/builds\"\n");
        let (text, mut sight) = directory(0o755);
        sight.is_writable = false;
        world.files.insert("/srv/builds".into(), (text, sight));
    };
    "state of root", "host.state_dir", Failure, ["sessions", "chown -R"], |world| {
        let state = world.files.keys().find(|path| world.files[*path].1.is_dir && !path.starts_with("/var/lib")).unwrap().clone();
        let (text, mut sight) = directory(0o700);
        sight.owner = 0;
        world.files.insert(state.join("sessions"), (text, sight));
    };
    "audit file of root", "host.files", Failure, ["audit.file", "every job is refused"], |world| {
        world.operator.as_mut().unwrap().push_str("[audit]\nfile = \"/var/lib/sagemaker-executor/audit.log\"\n");
        world.files.insert("/var/lib/sagemaker-executor/audit.log".into(), file("", 0o600));
    };
    "log file in a folder of root", "host.files", Warning, ["log.file", "/var/log"], |world| {
        world.operator.as_mut().unwrap().push_str("[log]\nfile = \"/var/log/executor.log\"\n");
        let (text, mut sight) = directory(0o755);
        sight.is_writable = false;
        world.files.insert("/var/log".into(), (text, sight));
    };
    "metrics file in no folder", "host.files", Warning, ["metrics.file", "/srv/metrics"], |world| {
        world.operator.as_mut().unwrap().push_str("[metrics]\nfile = \"/srv/metrics/executor.prom\"\n");
    };
    "cache directory for everybody", "host.cache_dir", Failure, ["/srv/cache", "0777"], |world| {
        world.operator.as_mut().unwrap().push_str("cache_dir = \"/srv/cache\"\n");
        world.files.insert("/srv/cache".into(), directory(0o777));
    };
    "full disk", "host.space", Failure, ["free", "runner.builds_dir"], |world| world.disk.free_bytes = 1000;
    "limit above the free space", "host.space", Warning, ["sandbox.max_bytes"], |world| world.disk.free_bytes = 20 << 30;
    "full disk of the state directory", "host.space", Failure, ["`runner.state_dir`", "no job begins"], |world| {
        let state = world.state.clone();
        world.disks.insert(state, DiskSight { free_bytes: 4096, free_inodes: None });
    };
    "no inodes for the state directory", "host.inodes", Failure, ["5 inodes", "`runner.state_dir`"], |world| {
        let state = world.state.clone();
        world.disks.insert(state, DiskSight { free_bytes: 1 << 30, free_inodes: Some(5) });
    };
    "full disk of the caches", "host.space", Failure, ["`runner.cache_dir`", "caches are not stored"], |world| {
        world.operator.as_mut().unwrap().push_str("cache_dir = \"/srv/cache\"\n");
        world.files.insert("/srv/cache".into(), directory(0o700));
        world.disks.insert("/srv/cache".into(), DiskSight { free_bytes: 4096, free_inodes: None });
    };
    "no inodes", "host.inodes", Failure, ["5 inodes"], |world| world.disk.free_inodes = Some(5);
    "proxy before the metadata", "host.proxy", Warning, ["https_proxy", "no_proxy"], |world| { world.variables.insert("https_proxy", "http://proxy:3128"); };
    "proxy of the service", "host.proxy", Warning, ["HTTPS_PROXY", "no_proxy"], |world| {
        let unit = "User=gitlab-runner\nLoadState=loaded\nEnvironment=\"A=b c\" HTTPS_PROXY=http://proxy:3128\n";
        world.outputs.insert("systemctl show", unit.to_owned());
    };
    // Credentials and permissions.
    "credentials that AWS refuses", "aws.credentials", Failure, ["instance profile"], |world| {
        world.memory.account.plan([Fault::new("arn", 1, When::Before, CloudErrorKind::Unauthenticated)]);
    };
    "no way to AWS", "aws.credentials", Failure, ["routes", "endpoints for STS"], |world| {
        world.memory.account.plan([Fault::new("arn", 1, When::Before, CloudErrorKind::Transient)]);
    };
    "another endpoint than AWS's", "aws.credentials", Failure, ["`aws.endpoint_url`", "http://127.0.0.1:4566", "AWS_ENDPOINT_URL"], |world| {
        world.in_operator("[aws]\n", "[aws]\nendpoint_url = \"http://127.0.0.1:4566\"\n");
        world.memory.account.plan([Fault::new("arn", 1, When::Before, CloudErrorKind::Transient)]);
    };
    "keys of a session", "aws.expiry", Warning, ["session", "instance profile"], |world| world.memory.account.change_settings(|settings| settings.credentials.is_session = true);
    "roles of another account", "aws.account", Failure, ["111122223333", "210987654321"], |world| {
        let other = "arn:aws:iam::111122223333:role/train";
        world.in_operator(JOB_ROLE, other);
        world.memory.account.set_role(other, TRUST);
    };
    "credentials of another partition", "aws.partition", Failure, ["aws-us-gov", "eu-west-1"], |world| {
        world.memory.account.set_caller("arn:aws-us-gov:sts::210987654321:assumed-role/host/i-0123");
    };
    "credentials of another role", "aws.host_role", Warning, ["iam.host_role_arn", "runner's service"], |world| {
        world.in_operator(HOST_ROLE, "arn:aws:iam::210987654321:role/hosts");
        world.memory.account.change_settings(|settings| {
            settings.bucket_policy = settings.bucket_policy.take().map(|policy| policy.replace("role/host", "role/hosts"));
        });
    };
    "missing permission", "aws.actions", Failure, ["sagemaker:StopTrainingJob on arn:aws:sagemaker", "add the statement"], |world| {
        world.memory.account.change_settings(|settings| settings.denied.extend(["sagemaker:StopTrainingJob".to_owned()]));
    };
    "permission that a statement denies", "aws.actions", Failure, ["in its policies", "remove or narrow"], |world| {
        world.memory.account.change_settings(|settings| {
            settings.denied.insert("sagemaker:StopTrainingJob".to_owned());
            settings.denied_by = DenialReason::Statement { policies: Vec::new() };
        });
    };
    "permission beyond the boundary", "aws.actions", Failure, ["permissions boundary"], |world| {
        world.memory.account.change_settings(|settings| {
            settings.denied.insert("sagemaker:StopTrainingJob".to_owned());
            settings.denied_by = DenialReason::Boundary;
        });
    };
    "permission that the organization takes", "aws.actions", Failure, ["organization", "SCP"], |world| {
        world.memory.account.change_settings(|settings| {
            settings.denied.insert("sagemaker:StopTrainingJob".to_owned());
            settings.denied_by = DenialReason::Organization;
        });
    };
    "policy of fewer instance types", "aws.actions", Failure, ["sagemaker:InstanceTypes = ml.g5.xlarge", "policy iam"], |world| {
        let rule = "[[rules]]\nname = \"all\"\n[rules.match]\nprojects = [\"**\"]\n[rules.allow]\ninstance_types = [\"ml.m5.large\", \"ml.g5.xlarge\"]\n";
        world.operator.as_mut().unwrap().push_str(rule);
        world.memory.account.set_quota("ml.g5.xlarge for training job usage", 4.0);
        world.memory.account.change_settings(|settings| settings.denied.extend(["ml.g5.xlarge".to_owned()]));
    };
    "creator that may not create", "aws.actions", Failure, ["sagemaker:CreateTrainingJob", CREATOR], |world| {
        world.in_operator("[aws]\n", "[aws]\ncreator_role_arn = \"arn:aws:iam::210987654321:role/creator\"\n");
        world.memory.account.set_role(CREATOR, &TRUST.replace("\"Service\":\"sagemaker.amazonaws.com\"", "\"AWS\":\"210987654321\""));
        world.memory.account.change_settings(|settings| settings.denied.extend(["sagemaker:CreateTrainingJob".to_owned()]));
    };
    "training role that may not log", "role.permissions", Failure, ["logs:PutLogEvents", JOB_ROLE], |world| {
        world.memory.account.change_settings(|settings| settings.denied.extend(["logs:PutLogEvents".to_owned()]));
    };
    "training role without metrics", "role.permissions", Warning, ["cloudwatch:PutMetricData"], |world| {
        world.memory.account.change_settings(|settings| settings.denied.extend(["cloudwatch:PutMetricData".to_owned()]));
    };
    "clock that is wrong", "host.clock", Failure, ["600 s ahead"], |world| world.clock.jump(|now| now + Duration::from_mins(10));
    // The bucket and keys.
    "no bucket", "bucket.exists", Failure, ["does not exist", "storage.bucket"], |world| world.in_operator("\"memory\"", "\"other\"");
    "key of the bucket that the file does not name", "bucket.encryption", Warning, ["storage.kms_key_id"], |world| {
        let key = Some("arn:aws:kms:eu-west-1:210987654321:key/a".to_owned());
        world.memory.account.change_settings(|settings| settings.encryption = BucketEncryption::Kms { key });
    };
    "public bucket", "bucket.public_access", Failure, ["Block public access"], |world| world.memory.account.change_settings(|settings| settings.blocks_public_access = false);
    "versions that stay", "bucket.versioning", Warning, ["bucket-lifecycle.json"], |world| world.memory.objects.set_retention(Retention { is_versioned: true, expirations: Vec::new() });
    "no lifecycle rules", "bucket.lifecycle", Warning, ["sessions/", "bucket-lifecycle.json"], |world| world.memory.account.change_settings(|settings| settings.expiring_prefixes.clear());
    "no policy of the bucket", "bucket.policy", Warning, ["agent", "bucket-policy.json"], |world| world.memory.account.change_settings(|settings| settings.bucket_policy = None);
    "bucket that everybody reads", "bucket.policy", Failure, ["everybody"], |world| {
        let policy = r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"*"}}"#;
        world.memory.account.change_settings(|settings| settings.bucket_policy = Some(policy.to_owned()));
    };
    "bucket policy that denies writes", "bucket.policy", Failure, ["`Stop`", "s3:PutObject", HOST_ROLE], |world| {
        let policy = r#"{"Statement":{"Sid":"Stop","Effect":"Deny","Principal":"*","Action":"s3:Put*","Resource":"arn:aws:s3:::memory/*"}}"#;
        world.memory.account.change_settings(|settings| settings.bucket_policy = Some(policy.to_owned()));
    };
    "bucket policy that does not keep the agent", "bucket.policy", Warning, ["agent", "bucket-policy.json"], |world| {
        world.memory.account.change_settings(|settings| settings.bucket_policy = Some("{\"Statement\":[]}".to_owned()));
    };
    "lifecycle rule that is shorter than a job", "bucket.lifecycle", Warning, ["1 day after", "hours"], |world| {
        world.memory.account.change_settings(|settings| settings.expiring_prefixes[0].days = 1);
    };
    "key that is disabled", "kms.key", Failure, ["`Disabled`", "storage.kms_key_id"], |world| {
        world.in_operator("[storage]\n", "[storage]\nkms_key_id = \"1234abcd-12ab-34cd-56ef-1234567890ab\"\n");
        let key = KeySight { arn: "arn:aws:kms:eu-west-1:210987654321:key/k".to_owned(), state: "Disabled".to_owned(), is_symmetric: true };
        world.memory.account.change_settings(|settings| drop(settings.keys.insert("1234abcd-12ab-34cd-56ef-1234567890ab".to_owned(), key)));
    };
    "alias without its prefix", "kms.key", Failure, ["does not exist", "`alias/ci-key`"], |world| world.in_operator("[storage]\n", "[storage]\nkms_key_id = \"ci-key\"\n");
    "key of another region", "kms.key", Failure, ["us-east-1", "eu-west-1"], |world| {
        world.in_operator("[job]\n", "[job]\nvolume_kms_key_id = \"arn:aws:kms:us-east-1:210987654321:key/1234abcd-12ab-34cd-56ef-1234567890ab\"\n");
    };
    "key whose policy names others", "kms.policy", Failure, [HOST_ROLE, "kms:GenerateDataKey", "policy iam"], |world| {
        plant_key(world, r#"{"Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::210987654321:role/other"},"Action":"kms:*","Resource":"*"}}"#);
    };
    "key whose policy denies", "kms.policy", Failure, ["denies", JOB_ROLE, "kms:Decrypt"], |world| {
        let denial = r#"{"Effect":"Deny","Principal":{"AWS":"arn:aws:iam::210987654321:role/train"},"Action":"kms:Dec*","Resource":"*"}"#;
        plant_key(world, &format!(r#"{{"Statement":[{{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}},{denial}]}}"#));
    };
    // Roles.
    "role that is not there", "role.exists", Failure, ["role/absent", "job.role_arn"], |world| world.in_operator(JOB_ROLE, "arn:aws:iam::210987654321:role/absent");
    "role that SageMaker may not assume", "role.trust", Failure, ["sagemaker.amazonaws.com", "training-job-trust.json"], |world| {
        world.memory.account.set_role(JOB_ROLE, &TRUST.replace("sagemaker.", "ec2."));
    };
    "role that trusts SageMaker of another account", "role.trust", Failure, ["aws:SourceAccount"], |world| {
        let trust = TRUST.replace("\"Action\"", "\"Condition\":{\"StringEquals\":{\"aws:SourceAccount\":\"999999999999\"}},\"Action\"");
        world.memory.account.set_role(JOB_ROLE, &trust);
    };
    "role that trusts SageMaker for another job", "role.trust", Failure, ["aws:SourceArn", "training-job-trust.json"], |world| {
        let trust = TRUST.replace("\"Action\"", "\"Condition\":{\"ArnLike\":{\"aws:SourceArn\":\"arn:aws:sagemaker:us-east-1:210987654321:*\"}},\"Action\"");
        world.memory.account.set_role(JOB_ROLE, &trust);
    };
    "role that cannot be passed", "role.pass", Failure, ["iam:PassRole", HOST_ROLE], |world| world.memory.account.pass_no_role();
    "creator that does not trust the host", "role.creator", Failure, ["sts:AssumeRole", "creator-trust.json"], |world| {
        world.in_operator("[aws]\n", "[aws]\ncreator_role_arn = \"arn:aws:iam::210987654321:role/creator\"\n");
        world.memory.account.set_role(CREATOR, TRUST);
    };
    "role without tags of sessions", "role.tags", Failure, ["sts:TagSession"], |world| {
        world.in_operator("[aws]\n", "[aws]\ncreator_role_arn = \"arn:aws:iam::210987654321:role/creator\"\n");
        world.memory.account.set_role(CREATOR, &TRUST.replace("\"Service\":\"sagemaker.amazonaws.com\"", "\"AWS\":\"210987654321\""));
        world.memory.account.set_role(JOB_ROLE, &TRUST.replace(",\"sts:TagSession\"", ""));
    };
    // The network of the jobs.
    "subnet that is not there", "network.subnet", Failure, ["subnet-1", "job.subnets"], |world| world.memory.account.change_settings(|settings| settings.subnets.clear());
    "subnet that is misspelt, and so in no policy", "network.subnet", Failure, ["subnet-1", "job.subnets"], |world| world.memory.account.change_settings(|settings| {
        settings.subnets.clear();
        settings.denied.insert("subnet-1".to_owned());
    });
    "security group that is not there", "network.security_group", Failure, ["sg-1"], |world| world.memory.account.change_settings(|settings| settings.security_groups.clear());
    "security group that lets nothing out", "network.security_group", Failure, ["443"], |world| world.memory.account.change_settings(|settings| settings.security_groups[0].lets_https_out = false);
    "two VPCs", "network.vpc", Failure, ["vpc-1", "vpc-2"], |world| world.memory.account.change_settings(|settings| settings.security_groups[0].vpc = "vpc-2".to_owned());
    "no way to S3", "network.s3", Failure, ["subnet-1", "gateway endpoint"], |world| world.memory.account.change_settings(|settings| settings.endpoints.clear());
    "internet gateway alone", "network.s3", Failure, ["public address"], |world| world.memory.account.change_settings(|settings| {
        settings.endpoints.clear();
        settings.route_tables[0].default_target = Some("igw-1".to_owned());
    });
    "endpoint of another route table", "network.s3", Failure, ["subnet-1"], |world| world.memory.account.change_settings(|settings| settings.endpoints[0].route_tables = vec!["rtb-2".to_owned()]);
    // Quotas, images, agent.
    "quota of 0", "quota.training", Failure, ["ml.m5.large", "Service Quotas"], |world| world.memory.account.set_quota("ml.m5.large for training job usage", 0.0);
    "instance type that does not exist", "quota.training", Warning, ["ml.m5.lagre"], |world| world.in_operator("[job]\n", "[job]\ninstance_type = \"ml.m5.lagre\"\n");
    "quota of spot instances of 0", "quota.spot", Warning, ["spot"], |world| {
        world.in_operator("[job]\n", "[job]\nspot = true\n");
        world.memory.account.set_quota("ml.m5.large for spot training job usage", 0.0);
    };
    "quota of warm pools of 0", "quota.warm_pool", Warning, ["warm pool"], |world| {
        world.in_operator("[job]\n", "[job]\nkeep_alive_seconds = 600\n");
        world.memory.account.set_quota("ml.m5.large for training warm pool usage", 0.0);
    };
    "image that is not there", "image.exists", Failure, ["/train2@sha256", "push"], |world| world.in_operator("/train@", "/train2@");
    "image of Docker Hub", "image.exists", Failure, ["python:3.11", "ECR"], |world| {
        let text = world.operator.as_mut().unwrap();
        let (start, end) = (text.find("image = ").unwrap(), text.find("subnets").unwrap());
        text.replace_range(start..end, "image = \"python:3.11\"\n");
    };
    "image of another region", "image.region", Failure, ["us-east-1", "eu-west-1"], |world| world.in_operator("dkr.ecr.eu-west-1", "dkr.ecr.us-east-1");
    "image for another processor", "image.platform", Failure, ["linux/arm64", "linux/amd64"], |world| {
        let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        world.memory.account.set_image(&format!("train@{digest}"), &["linux/arm64"]);
    };
    "agent of another writer", "agent.stored", Failure, ["start.sh", "bucket-policy.json"], |world| {
        let key = format!("{}/start.sh", world.agent);
        world.memory.objects.insert(&key, "another's");
    };
}

/// The key of the bucket, with this policy.
fn plant_key(world: &mut World, policy: &str) {
    world.in_operator("[storage]\n", "[storage]\nkms_key_id = \"1234abcd-12ab-34cd-56ef-1234567890ab\"\n");
    let key = KeySight {
        arn: "arn:aws:kms:eu-west-1:210987654321:key/k".to_owned(),
        state: "Enabled".to_owned(),
        is_symmetric: true,
    };
    world.memory.account.change_settings(|settings| {
        settings.keys.insert("1234abcd-12ab-34cd-56ef-1234567890ab".to_owned(), key);
        settings.key_policy = policy.to_owned();
    });
}
