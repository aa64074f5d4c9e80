//! Attacks of a job on its runner host: each works without the sandbox and fails inside it. And all that host stages do, inside it.
//!
//! `docs/THREAT-MODEL.md` names these tests.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::support::account::Account;
use crate::support::driver::{Driver, sagemaker, sandboxed, sandboxed_as_root, sandboxed_with};
use crate::support::emulator::{command, processes};
use crate::support::job::{Artifacts, Cache, Job};
use crate::support::outcome::Outcome;
use crate::support::scenario::{Scenario, With, one, play};
use crate::support::world::{Settings, World};

/// The content of files and replies that no job may have.
pub(super) const SECRET: &str = "confidential-4f1c";

/// Attacks of the job's hook, as shell commands that succeed when the attack does. `{port}` is a server on the host's loopback, a stand-in
/// for the metadata service and for services of the host.
const ATTACKS: &[(&str, &str)] = &[
    ("reads-the-runners-configuration", "grep token {root}/config-*.toml"),
    ("reads-the-operators-file", "grep bucket {root}/operator.toml"),
    ("reads-another-projects-build", "grep {secret} {builds_dir}/999/file"),
    ("lists-other-projects", "ls {builds_dir}/999"),
    ("reads-another-projects-cache", "grep {secret} {cache_dir}/999/file"),
    ("reads-the-payload", "grep -rq job_inf[o] {root}/temp"),
    ("reads-the-records-of-sessions", "cat {root}/state/sessions/*.json"),
    ("reads-a-private-key-of-the-home", "grep {secret} {home}/.ssh/id"),
    (
        "adds-an-authorized-key",
        "echo key >> {home}/.ssh/authorized_keys && grep key {home}/.ssh/authorized_keys && [ -e {home}/.ssh/id ]",
    ),
    ("writes-into-the-drivers-state", "echo x > {root}/state/planted && [ -e {root}/state/sessions ]"),
    ("plants-a-program-in-the-path", "echo x > {root}/bin/planted && [ -e {root}/bin/own ]"),
    ("reads-the-environment-of-the-runner", "grep -qa AWS_SECRET_ACCESS_KEY /proc/[0-9]*/environ"),
    ("sees-the-hosts-processes", "grep -qa run-[s]ingle /proc/[0-9]*/cmdline"),
    ("connects-to-a-unix-socket", "perl -MIO::Socket::UNIX -e 'exit !IO::Socket::UNIX->new(\"{root}/socket\")'"),
    ("connects-to-the-loopback", "exec 3<>/dev/tcp/127.0.0.1/{port}"),
    ("asks-the-loopback", "curl -sf http://127.0.0.1:{port}/ | grep {secret}"),
    ("asks-it-without-a-proxy", "curl -sf --noproxy '*' http://127.0.0.1:{port}/ | grep {secret}"),
    ("asks-it-by-name", "curl -sf http://localhost:{port}/ | grep {secret}"),
    ("asks-it-by-a-number", "curl -sf http://2130706433:{port}/ | grep {secret}"),
    ("asks-it-in-octal-digits", "curl -sf http://0177.0.0.1:{port}/ | grep {secret}"),
    ("asks-it-as-a-mapped-address", "curl -sf 'http://[::ffff:127.0.0.1]:{port}/' | grep {secret}"),
    ("asks-it-as-the-unspecified-address", "curl -sf http://0.0.0.0:{port}/ | grep {secret}"),
    ("opens-a-tunnel-to-it", "curl -sf --proxytunnel http://127.0.0.1:{port}/ | grep {secret}"),
    ("makes-a-user-namespace", "unshare --user true"),
    (
        "makes-a-set-user-id-program",
        "mkdir -p $CI_BUILDS_DIR/x; cd $CI_BUILDS_DIR/x; cp /bin/true y; chmod u+s y; [ -u y ]",
    ),
    (
        "creates-a-set-user-id-file",
        "cd $CI_BUILDS_DIR/x; perl -MFcntl -e 'umask 0; sysopen(F, \"z\", O_CREAT, 04755)'; [ -u z ]",
    ),
    ("reaches-keys-of-the-kernel", "[ $(uname -m) != x86_64 ] || perl -e 'exit(syscall(250, 0, -4, 1) < 0)'"),
    ("leaves-a-process", "setsid sleep 86399 > /dev/null 2>&1 & sleep 0.01"),
];

/// Attacks that only root can try.
const ATTACKS_OF_ROOT: &[(&str, &str)] = &[
    // The mode that it has already.
    ("changes-a-device-of-the-host", "chmod 666 /dev/null"),
    ("reads-password-hashes", "cat /etc/shadow"),
    ("reads-private-keys-of-the-system", "ls /etc/ssl/private"),
    ("lists-the-home-of-root", "ls /root"),
    // Asked for and not done: it is a setting of this machine.
    ("writes-the-program-for-core-files", "[ -w /proc/sys/kernel/core_pattern ]"),
];

/// Ends the process that the hook left behind, if there is one.
fn end_left_process(world: &World) -> bool {
    let root = world.dirs.root().to_string_lossy().into_owned();
    let is_ours = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        command(*pid).starts_with("sleep 86399") && String::from_utf8_lossy(&environment).contains(&root)
    };
    let left = processes().find(is_ours).and_then(|pid| Pid::from_raw(pid.cast_signed()));
    left.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

pub(super) fn give(world: &World, path: &Path, content: &str) {
    let folder = path.parent().unwrap();
    if !folder.exists() {
        std::fs::create_dir(folder).unwrap();
        world.account.give(folder);
    }
    std::fs::write(path, content).unwrap();
    world.account.give(path);
}

/// Answers every request with the secret.
fn serve_secret() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{SECRET}",
                SECRET.len()
            );
        }
    });
    port
}

/// Files and sockets of the host that the attacks are after; returns the port of the server.
fn victims(world: &World) -> u16 {
    give(world, &world.dirs.builds().join("999/file"), SECRET);
    give(world, &world.dirs.cache().join("999/file"), SECRET);
    give(world, &world.dirs.home().join(".ssh/id"), SECRET);
    give(world, &world.dirs.bin().join("own"), "");
    let socket = world.dirs.root().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    world.account.give(&socket);
    std::thread::spawn(move || listener.incoming().for_each(drop));
    serve_secret()
}

fn fill(world: &World, port: u16, text: &str) -> String {
    world.dirs.fill(text).replace("{port}", &port.to_string()).replace("{secret}", SECRET)
}

fn attack_by_hook(world: &World) -> Vec<Outcome> {
    let port = victims(world);
    let mut hook = String::new();
    for (name, command) in ATTACKS.iter().chain(ATTACKS_OF_ROOT) {
        let command = fill(world, port, command);
        let _ = writeln!(
            hook,
            "if ( {command}\n) > /dev/null 2>&1; then echo it-{name}; else echo it-fails-that-{name}; fi"
        );
    }
    let repository = world.repository("ml/churn");
    let sha = repository.commit("main", &[("a.txt", "a")]);
    one(
        world,
        &Job::new().sources(&repository, "main", &sha).hook("pre_get_sources_script", [hook.as_str()]).script(["true"]),
    )
}

/// Attacks by what git reads: the job's variables, and a submodule.
fn attack_by_git(world: &World) -> Vec<Outcome> {
    victims(world);
    let steal = world.dirs.fill("cat {home}/.ssh/id >&2; false #");
    let repository = world.repository("ml/churn");
    let sha = repository.commit("main", &[("a.txt", "a"), ("hooks/post-checkout", &format!("#!/bin/sh\n{steal}\n"))]);
    let remote = world.repository("ml/remote");
    remote.commit("main", &[("b.txt", "b")]);
    let with_submodule = repository.add_submodule("other", "sub", "ssh://git@127.0.0.1/ml/remote.git", &remote);
    let job = |branch: &str, sha: &str| Job::new().sources(&repository, branch, sha).script(["true"]);
    let configured = |key: &str, value: &str| {
        job("main", &sha).set("GIT_CONFIG_COUNT", "1").set("GIT_CONFIG_KEY_0", key).set("GIT_CONFIG_VALUE_0", value)
    };
    vec![
        world.run(&configured("core.fsmonitor", &steal)),
        world.run(&configured("credential.helper", &format!("!{steal}"))),
        world.run(
            &configured("core.alternateRefsCommand", &steal)
                .hook("post_get_sources_script", ["sh hooks/post-checkout"]),
        ),
        world
            .run(&job("other", &with_submodule).set("GIT_SUBMODULE_STRATEGY", "normal").set("GIT_SSH_COMMAND", &steal)),
        world.run(&job("main", &sha).hook("pre_get_sources_script", [&format!("LD_PRELOAD=/none true; {steal}")])),
    ]
}

pub(super) fn scenario(
    name: &'static str,
    play: fn(&World) -> Vec<Outcome>,
    expect: fn(&World, &[Outcome]),
) -> Scenario {
    Scenario {
        name,
        needs: &["git", "perl", "curl", "unshare", "unzip", "tar"],
        settings: Settings::default,
        play,
        expect,
    }
}

pub(super) fn as_ordinary_user() -> Driver {
    Driver { adjust: sandboxed().adjust, ..sagemaker() }
}

fn every_attack_works(world: &World, outcomes: &[Outcome]) {
    for (name, _) in ATTACKS {
        outcomes[0].shows(&format!("it-{name}"));
    }
    outcomes[0].succeeded();
    assert!(end_left_process(world));
    if geteuid().is_root() && world.account == Account::own() {
        for (name, _) in ATTACKS_OF_ROOT {
            outcomes[0].shows(&format!("it-{name}"));
        }
    }
}

fn no_attack_works(world: &World, outcomes: &[Outcome]) {
    // A process left behind cannot be told from inside the stage.
    for (name, _) in ATTACKS.iter().chain(ATTACKS_OF_ROOT).filter(|(name, _)| *name != "leaves-a-process") {
        outcomes[0].shows(&format!("it-fails-that-{name}"));
    }
    outcomes[0].succeeded();
    assert!(!end_left_process(world));
    for planted in ["home/.ssh/authorized_keys", "state/planted", "bin/planted"] {
        assert!(!world.dirs.root().join(planted).exists(), "{planted}");
    }
}

#[test]
fn the_attacks_of_a_hook_work_without_the_sandbox() {
    let row = scenario("attacks by hook", attack_by_hook, every_attack_works);
    play(&row, With::RealRunner, sagemaker());
    play(&row, With::RealRunner, as_ordinary_user());
}

#[test]
fn the_attacks_of_a_hook_fail_in_the_sandbox() {
    let row = scenario("attacks by hook", attack_by_hook, no_attack_works);
    play(&row, With::RealRunner, sandboxed());
}

#[test]
fn the_attacks_of_a_hook_fail_in_the_sandbox_of_root() {
    let row = scenario("attacks by hook", attack_by_hook, no_attack_works);
    play(&row, With::RealRunner, sandboxed_as_root());
}

#[test]
fn commands_that_git_runs_read_the_home_without_the_sandbox() {
    let stolen = |_: &World, outcomes: &[Outcome]| {
        for outcome in outcomes {
            outcome.shows(SECRET);
        }
    };
    play(&scenario("attacks by git", attack_by_git, stolen), With::RealRunner, sagemaker());
}

#[test]
fn commands_that_git_runs_find_no_home_in_the_sandbox() {
    let safe = |_: &World, outcomes: &[Outcome]| {
        for outcome in outcomes {
            outcome.hides(SECRET).shows("No such file or directory");
        }
    };
    for driver in [sandboxed(), sandboxed_as_root()] {
        play(&scenario("attacks by git", attack_by_git, safe), With::RealRunner, driver);
    }
}

/// Clone, submodules, hooks, a cache, artifacts up and down, in one project.
fn everything(world: &World) -> Vec<Outcome> {
    let inner = world.repository("ml/inner");
    inner.commit("main", &[("inner.txt", "content of inner")]);
    let repository = world.repository("ml/churn");
    repository.commit("main", &[("a.txt", "content of a")]);
    let sha = repository.add_submodule("main", "sub", "../inner.git", &inner);
    let job = || {
        let job = Job::new().sources(&repository, "main", &sha).set("GIT_SUBMODULE_STRATEGY", "recursive");
        job.hook("post_get_sources_script", ["echo hook-sees-$(cat sub/inner.txt | wc -c)"])
            .cache(Cache::new("k", ["kept/"]))
    };
    let first = job().script(["cat a.txt sub/inner.txt; mkdir kept; date > kept/x; echo made > made.txt"]);
    let first = world.run(&first.artifacts(Artifacts::paths(["made.txt"])));
    let second = job().dependency(first.id, "train").script(["cat made.txt; ls kept/x"]);
    let second = world.run(&second);
    vec![first, second]
}

fn everything_works(_: &World, outcomes: &[Outcome]) {
    outcomes[0]
        .succeeded()
        .shows("content of a")
        .shows("content of inner")
        .shows("hook-sees-16")
        .hides("the sandbox refused");
    assert_eq!(outcomes[0].artifact("archive").files().into_keys().collect::<Vec<_>>(), ["made.txt"]);
    outcomes[1].succeeded().shows("Successfully extracted cache").shows("\nmade").shows("\nkept/x");
}

#[test]
fn everything_works_as_an_ordinary_user() {
    play(&scenario("everything", everything, everything_works), With::RealRunner, sandboxed());
}

#[test]
fn everything_works_as_root() {
    play(&scenario("everything", everything, everything_works), With::RealRunner, sandboxed_as_root());
}

/// A hook that breaks each limit; its own directory is a job's.
fn break_limits(world: &World) -> Vec<Outcome> {
    let repository = world.repository("ml/churn");
    let sha = repository.commit("main", &[("a.txt", "a")]);
    let hook = "(head -c 3000000 /dev/zero > file) 2>/dev/null || echo the-file-is-limited
        (perl -e 'my $x = \"x\" x 400_000_000' 2>/dev/null) || echo memory-is-limited
        perl -e 'for (1..200) { my $p = fork; if (!defined $p) { print \"processes-are-limited\n\"; exit } if (!$p) { sleep 60; exit } }'
        true";
    one(world, &Job::new().sources(&repository, "main", &sha).hook("post_get_sources_script", [hook]).script(["true"]))
}

#[test]
fn limits_of_the_operator_bind_a_stage() {
    let expect = |_: &World, outcomes: &[Outcome]| {
        outcomes[0]
            .succeeded()
            .shows("\nthe-file-is-limited")
            .shows("\nmemory-is-limited")
            .shows("\nprocesses-are-limited");
    };
    let limits = "max_processes = 60\nmax_memory_bytes = 300000000\nmax_file_bytes = 2000000\n";
    let driver = Driver { adjust: sandboxed().adjust, ..sandboxed_with(limits) };
    play(&scenario("limits", break_limits, expect), With::RealRunner, driver);
}

/// ssh has no proxy of its own; here the operator allows a range, which no socket of the sandbox leads to directly.
#[test]
fn ssh_reaches_what_the_operator_allows() {
    let connect = |world: &World| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = world.dirs.root().join("seen");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"SSH-2.0-bench\r\n").unwrap();
            let mut banner = [0; 7];
            stream.read_exact(&mut banner).unwrap();
            std::fs::write(seen, banner).unwrap();
        });
        let repository = world.repository("ml/churn");
        let sha = repository.commit("main", &[("a.txt", "a")]);
        let hook = format!("ssh -o BatchMode=yes -p {port} 127.0.0.1 true || echo ssh-is-back");
        one(
            world,
            &Job::new()
                .sources(&repository, "main", &sha)
                .hook("pre_get_sources_script", [hook.as_str()])
                .script(["true"]),
        )
    };
    let expect = |world: &World, outcomes: &[Outcome]| {
        outcomes[0].succeeded().shows("\nssh-is-back");
        assert_eq!(std::fs::read_to_string(world.dirs.root().join("seen")).unwrap(), "SSH-2.0");
    };
    let driver = sandboxed_with("allow = [\"127.0.0.0/8\"]\n");
    let scenario = Scenario { needs: &["git", "ssh"], ..scenario("ssh", connect, expect) };
    play(&scenario, With::RealRunner, driver);
}

/// ssh refuses an included file of another user. Root's files have no owner in the namespace of an ordinary user.
#[test]
fn the_configuration_of_ssh_belongs_to_an_ordinary_user() {
    let look = |world: &World| {
        let repository = world.repository("ml/churn");
        let sha = repository.commit("main", &[("a.txt", "a")]);
        let hook = "cat /etc/ssh/ssh_config >/dev/null && echo it-is-there
            find /etc/ssh/ssh_config* -type f '(' ! -user \"$(id -u)\" -o -perm /022 ')' | sed 's/^/refused: /'
            grep -ihs '^ *include' /etc/ssh/ssh_config* -r | grep -v 'Include /etc/ssh/ssh_config.host/' | sed 's/^/led out: /' || true";
        let job = Job::new().sources(&repository, "main", &sha);
        one(world, &job.hook("pre_get_sources_script", [hook]).script(["true"]))
    };
    let expect = |_: &World, outcomes: &[Outcome]| {
        outcomes[0].succeeded().shows("\nit-is-there").hides("\nrefused: ").hides("\nled out: ");
    };
    play(&scenario("ssh configuration", look, expect), With::RealRunner, sandboxed());
}

/// A host that cannot make the sandbox runs no job without it.
#[test]
fn a_job_is_refused_where_no_sandbox_can_be_made() {
    let refused = |world: &World| {
        crate::support::driver::write_program(
            &world.dirs.bin().join("bwrap"),
            "#!/bin/sh\necho 'bwrap: no namespaces here' >&2; exit 1\n",
        );
        one(world, &Job::new().script(["echo it-ran"]))
    };
    let expect = |_: &World, outcomes: &[Outcome]| {
        outcomes[0].failed("runner_system_failure", None).hides("it-ran");
        outcomes[0]
            .shows("failed to make the sandbox of the host stages: bwrap: no namespaces here")
            .shows("`sandbox.enabled = false`");
    };
    play(&scenario("refused", refused, expect), With::RealRunner, sandboxed());
}
