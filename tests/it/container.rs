//! The emulator's containers, and the start of the agent from `/bin/sh` in images of every kind.
//!
//! The images are made here from what this machine has: busybox alone, dash with its libraries, and the host itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use emulator::SetupError;
use emulator::host::{
    self, BindMount, ContainerExit, ContainerImage, ContainerSpec, Isolation, Leftovers, Profile, StopSignals,
};
use executor::protocol::bootstrap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

mod agent_start;
mod ending;
mod profile;

/// Time limit of each wait; a test that reaches it fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// One container with its own directories.
struct Bench {
    directory: tempfile::TempDir,
    spec: ContainerSpec,
    isolation: Option<Isolation>,
    stop: CancellationToken,
    kill: CancellationToken,
    grace: Duration,
}

struct Ended {
    code: i32,
    started: bool,
    output: String,
}

impl Bench {
    fn new(root: ContainerImage, script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let opt_ml = directory.path().join("ml");
        fs::create_dir_all(opt_ml.join("output")).unwrap();
        let spec = ContainerSpec {
            id: "test".into(),
            root,
            profile: Profile::default(),
            entrypoint: vec!["/bin/sh".into()],
            arguments: vec!["-c".into(), script.into()],
            environment: BTreeMap::new(),
            hostname: "algo-1".into(),
            network: emulator::host::ContainerNetwork::Host,
            hosts: vec![("algo-1".into(), std::net::Ipv4Addr::LOCALHOST)],
            opt_ml,
            mounts: Vec::new(),
            scratch: directory.path().join("scratch"),
            leftovers: Leftovers::None,
        };
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        Self { directory, spec, isolation: None, stop, kill, grace: PATIENCE }
    }

    fn ml(&self) -> PathBuf {
        self.spec.opt_ml.clone()
    }

    /// The channel with a start script and an agent without an execute bit, and the entrypoint that uses them.
    fn with_channel(mut self, agent: &[u8]) -> Self {
        let channel = self.ml().join("input/data/agent");
        fs::create_dir_all(&channel).unwrap();
        for (name, content) in
            [(bootstrap::START, bootstrap::start_script().into_bytes()), (bootstrap::BINARY, agent.to_vec())]
        {
            fs::write(channel.join(name), content).unwrap();
            fs::set_permissions(channel.join(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        self.spec.arguments = vec![format!("/opt/ml/input/data/agent/{}", bootstrap::START)];
        self
    }

    /// Starts the container; the output arrives at the receiver.
    async fn start(
        &self,
    ) -> (impl Future<Output = anyhow::Result<ContainerExit>> + Send + 'static, mpsc::Receiver<Vec<u8>>) {
        fs::create_dir_all(&self.spec.scratch).unwrap();
        let (sender, receiver) = mpsc::channel(16);
        let signals = StopSignals { stop: self.stop.clone(), kill: self.kill.clone(), grace: self.grace };
        let isolation = match self.isolation {
            Some(isolation) => isolation,
            None => Isolation::detect(&self.spec.scratch).await.unwrap(),
        };
        (host::run_with(self.spec.clone(), isolation, sender, signals), receiver)
    }

    async fn run(&self) -> Ended {
        let (container, mut receiver) = self.start().await;
        let collect = async {
            let mut output = Vec::new();
            while let Some(chunk) = receiver.recv().await {
                output.extend(chunk);
            }
            String::from_utf8_lossy(&output).into_owned()
        };
        let both = async { tokio::join!(container, collect) };
        let (exit, output) = tokio::time::timeout(PATIENCE, both).await.expect("the container ends in time");
        let exit = exit.unwrap_or_else(|error| panic!("{error:#}; output: {output}"));
        Ended { code: exit.code, started: exit.started, output }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        host::discard(&self.spec.scratch).unwrap();
        assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(self.directory.path().to_str().unwrap()));
    }
}

/// Whether containers can run here; prints `SKIPPED` if not.
async fn available() -> bool {
    let scratch = tempfile::tempdir().unwrap();
    let isolation = Isolation::detect(scratch.path()).await.unwrap();
    if !isolation.bubblewrap {
        eprintln!("SKIPPED: `bwrap` is missing, so no container can be run (package bubblewrap)");
    }
    isolation.bubblewrap
}

/// Runs the async body when containers can run here.
fn in_containers(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        if available().await {
            body.await;
        }
    });
}

async fn read_until(receiver: &mut mpsc::Receiver<Vec<u8>>, marker: &str) -> String {
    let mut text = String::new();
    while !text.contains(marker) {
        let chunk = tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("output in time");
        let Some(chunk) = chunk else { panic!("the output ended before {marker:?}: {text}") };
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    text
}

/// These programs and the libraries they are linked to, or `None`, loudly.
pub(crate) fn with_libraries(programs: &[&str]) -> Option<Vec<String>> {
    let mut files: Vec<String> = programs.iter().map(ToString::to_string).collect();
    let output = Command::new("ldd").args(programs).output().ok();
    let Some(output) = output.filter(|output| output.status.success()) else {
        eprintln!("SKIPPED: `ldd` does not work on this machine for {programs:?}");
        return None;
    };
    let listed = String::from_utf8(output.stdout).unwrap();
    files.extend(
        listed.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')).map(str::to_owned),
    );
    files.sort();
    files.dedup();
    Some(files)
}

/// A root directory with these executables (source on this machine, path inside), or `None`, loudly.
pub(crate) fn root_of(files: &[(&str, &str)]) -> Option<tempfile::TempDir> {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (source, inside) in files {
        if !Path::new(source).exists() {
            eprintln!("SKIPPED: {source} is missing on this machine");
            return None;
        }
        let target = root.path().join(inside);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(source, target).unwrap();
    }
    Some(root)
}

/// busybox, static, as `/bin/busybox` with a link `/bin/sh`.
pub(crate) fn busybox_root() -> Option<tempfile::TempDir> {
    let root = root_of(&[("/usr/bin/busybox", "bin/busybox")])?;
    symlink("busybox", root.path().join("bin/sh")).unwrap();
    Some(root)
}

/// dash with the libraries it is linked to, and nothing else.
pub(crate) fn dash_root() -> Option<tempfile::TempDir> {
    let output = Command::new("ldd").arg("/bin/dash").output().ok();
    let Some(output) = output.filter(|output| output.status.success()) else {
        eprintln!("SKIPPED: `ldd /bin/dash` does not work on this machine");
        return None;
    };
    let listed = String::from_utf8(output.stdout).unwrap();
    let libraries: Vec<&str> = listed.split_whitespace().filter(|word| word.starts_with('/')).collect();
    let mut files = vec![("/bin/dash", "bin/sh")];
    files.extend(libraries.iter().map(|library| (*library, library.trim_start_matches('/'))));
    root_of(&files)
}

/// A static program in the agent's place: prints its first argument (5 bytes) and exits with 40 + its process id.
fn fake_agent() -> Vec<u8> {
    const CODE: &[u8] = &[
        0xb8, 39, 0, 0, 0, 0x0f, 0x05, //    getpid
        0x89, 0xc3, //                       mov ebx, eax
        0x48, 0x8b, 0x74, 0x24, 0x10, //     mov rsi, [rsp+16]    argv[1]
        0xba, 5, 0, 0, 0, //                 mov edx, 5
        0xbf, 1, 0, 0, 0, //                 mov edi, 1
        0xb8, 1, 0, 0, 0, 0x0f, 0x05, //     write
        0x8d, 0x7b, 40, //                   lea edi, [rbx+40]
        0xb8, 231, 0, 0, 0, 0x0f, 0x05, //   exit_group
    ];
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    let size = 120 + CODE.len() as u64;
    file.extend([0x0040_0078, 64, 0u64].iter().flat_map(|long| long.to_le_bytes()));
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    file.extend([0, 0x0040_0000, 0x0040_0000, size, size, 0x1000u64].iter().flat_map(|long| long.to_le_bytes()));
    file.extend_from_slice(CODE);
    file
}

#[test]
fn a_container_has_its_own_names_processes_and_environment() {
    in_containers(async {
        let mut bench = Bench::new(
            ContainerImage::Host,
            "echo $$ $(hostname) $(id -u) $PWD; env; ls -d /proc/[0-9]* | wc -l; read x || echo eof",
        );
        bench.spec.environment.insert("SM_NAME".into(), "a 'quoted'\nvalue".into());
        let ended = bench.run().await;
        let mut lines: Vec<&str> = ended.output.lines().collect();
        assert_eq!(lines.remove(0), "1 algo-1 0 /", "{}", ended.output);
        assert_eq!(lines.pop(), Some("eof"));
        assert!(lines.pop().unwrap().trim().parse::<u32>().unwrap() < 5, "{}", ended.output);
        lines.retain(|line| !line.starts_with("PWD=") && !line.starts_with("_=") && !line.starts_with("SHLVL="));
        lines.sort_unstable();
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        assert_eq!(lines, ["HOME=/root", path, "SM_NAME=a 'quoted'", "value"]);
    });
}

/// A script that writes to the directories of builds, programs and temporary files.
const WRITES: &str = "set -e; mkdir -p /builds/group/project /home/u/proj /var/lib/some-ci/builds /srv/x /opt/tool; \
    for d in /builds/group/project /home/u/proj /var/lib/some-ci/builds /srv/x /opt/tool /tmp /var/tmp /root /run /opt/ml/output; do \
    echo written >$d/container-was-here; done; cat /builds/group/project/container-was-here; ls /tmp; \
    getent hosts algo-1 >/dev/null || grep -q algo-1 /etc/hosts";

async fn writes_stay_inside(bench: Bench) {
    let beside = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let ended = bench.run().await;
    assert_eq!(
        (ended.code, ended.output.as_str()),
        (0, "written\ncontainer-was-here\n"),
        "{}",
        beside.path().display()
    );
    assert_eq!(fs::read_to_string(bench.ml().join("output/container-was-here")).unwrap(), "written\n");
    for directory in [
        "/builds/group/project",
        "/home/u/proj",
        "/var/lib/some-ci",
        "/srv/x",
        "/opt/tool",
        "/tmp",
        "/var/tmp",
        "/root",
        "/run",
    ] {
        let leaked = Path::new(directory).join("container-was-here");
        assert!(!leaked.exists(), "{} reached the host", leaked.display());
    }
}

#[test]
fn writes_to_the_host_image_stay_in_the_container() {
    in_containers(writes_stay_inside(Bench::new(ContainerImage::Host, WRITES)));
}

#[test]
fn writes_stay_in_the_container_without_overlays() {
    in_containers(async {
        let mut bench = Bench::new(ContainerImage::Host, WRITES);
        bench.isolation = Some(Isolation { bubblewrap: true, overlay: None, unshare: None });
        writes_stay_inside(bench).await;
    });
}

#[test]
fn files_of_the_host_image_can_be_changed_in_the_container() {
    in_containers(async {
        let bench = Bench::new(
            ContainerImage::Host,
            "set -e; mkdir /usr/local/made-by-container; echo more >>/etc/hosts; tail -n1 /etc/hosts",
        );
        let scratch = tempfile::tempdir().unwrap();
        if Isolation::detect(scratch.path()).await.unwrap().overlay.is_none() {
            eprintln!("SKIPPED: overlay file systems cannot be mounted here");
            return;
        }
        let before = fs::read("/etc/hosts").unwrap();
        let ended = bench.run().await;
        assert_eq!((ended.code, ended.output.as_str()), (0, "more\n"));
        assert_eq!(fs::read("/etc/hosts").unwrap(), before);
        assert!(!Path::new("/usr/local/made-by-container").exists());
    });
}

#[test]
fn a_root_directory_stays_as_it_was() {
    let Some(root) = busybox_root() else { return };
    in_containers(async {
        for overlay in [true, false] {
            let script =
                "echo new >/new; rm /bin/busybox; [ -d /opt/ml ] && [ -c /dev/null ] && echo >/tmp/x && [ -d /proc/1 ]";
            let mut bench = Bench::new(ContainerImage::Root(root.path().to_owned()), script);
            if !overlay {
                bench.isolation = Some(Isolation { bubblewrap: true, overlay: None, unshare: None });
            }
            let ended = bench.run().await;
            assert_eq!((ended.code, ended.output.as_str()), (0, ""));
            let mut left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            left.sort();
            assert_eq!(left, ["bin"]);
            assert!(root.path().join("bin/busybox").exists());
        }
    });
}

#[test]
fn exit_codes_are_those_of_the_entrypoint() {
    in_containers(async {
        assert_eq!(Bench::new(ContainerImage::Host, "exit 0").run().await.code, 0);
        assert_eq!(Bench::new(ContainerImage::Host, "exit 43").run().await.code, 43);
        let mut missing = Bench::new(ContainerImage::Host, "");
        missing.spec.entrypoint = vec!["/no/such/program".into()];
        assert_eq!(missing.run().await.code, 127);
        let mut forbidden = Bench::new(ContainerImage::Host, "");
        forbidden.spec.entrypoint = vec!["/etc/passwd".into()];
        assert_eq!(forbidden.run().await.code, 126);
    });
}

#[test]
fn a_script_that_ends_like_a_missing_entrypoint_did_start() {
    in_containers(async {
        let scratch = tempfile::tempdir().unwrap();
        let isolation = Isolation::detect(scratch.path()).await.unwrap();
        let mut ways = vec![isolation];
        if isolation.unshare.is_some() {
            ways.push(Isolation { bubblewrap: false, ..isolation });
        }
        for isolation in ways {
            let mut bench = Bench::new(ContainerImage::Host, "exit 127");
            bench.isolation = Some(isolation);
            assert!(bench.run().await.started, "{isolation:?}");
            // `docker run image train`, without an entrypoint.
            (bench.spec.entrypoint, bench.spec.arguments) = (Vec::new(), vec!["train".into()]);
            let ended = bench.run().await;
            assert_eq!((ended.started, ended.code), (false, 127), "{isolation:?}: {}", ended.output);
        }
    });
}

#[test]
fn a_container_that_cannot_be_set_up_is_an_error() {
    in_containers(async {
        let bench = Bench::new(ContainerImage::Root("/no/such/root".into()), "exit 0");
        let (container, _receiver) = bench.start().await;
        let error = container.await.unwrap_err();
        assert!(error.to_string().contains("/no/such/root"), "{error:#}");
    });
}

#[test]
fn ten_megabytes_arrive_complete() {
    in_containers(async {
        let bench = Bench::new(ContainerImage::Host, "yes 0123456789abcdef | head -c 10000000; echo; echo end >&2");
        let ended = bench.run().await;
        assert_eq!(ended.output.len(), 10_000_000 + 5);
        assert!(ended.output.ends_with("\nend\n"));
    });
}

#[test]
fn a_lost_receiver_does_not_stop_the_container() {
    in_containers(async {
        let bench = Bench::new(ContainerImage::Host, "yes | head -c 1000000; echo kept >/opt/ml/output/file");
        let (container, receiver) = bench.start().await;
        drop(receiver);
        assert_eq!(container.await.unwrap().code, 0);
        assert_eq!(fs::read_to_string(bench.ml().join("output/file")).unwrap(), "kept\n");
    });
}

/// Without bubblewrap, by util-linux alone.
#[test]
fn unshare_alone_runs_a_container_too() {
    in_containers(async {
        let scratch = tempfile::tempdir().unwrap();
        let isolation = Isolation::detect(scratch.path()).await.unwrap();
        if isolation.unshare.is_none() {
            eprintln!("SKIPPED: `unshare` does not work here");
            return;
        }
        let script = "trap 'exit 3' TERM; echo x >/opt/ml/output/file; echo $$ $(hostname) $(env | grep -c SM_); while :; do sleep 0.05; done";
        let mut bench = Bench::new(ContainerImage::Host, script);
        bench.isolation = Some(Isolation { bubblewrap: false, ..isolation });
        bench.spec.environment.insert("SM_A".into(), "it's".into());
        let (container, mut receiver) = bench.start().await;
        let container = tokio::task::spawn(container);
        let said = read_until(&mut receiver, "\n").await;
        assert_eq!(said, "1 algo-1 1\n");
        bench.stop.cancel();
        assert_eq!(container.await.unwrap().unwrap().code, 3);
        assert!(bench.ml().join("output/file").exists());
    });
}

#[test]
fn a_restarted_container_finds_nothing_of_the_one_before() {
    in_containers(async {
        let bench = Bench::new(
            ContainerImage::Host,
            "[ ! -e /srv/before ] && [ ! -e /tmp/before ] && echo x >/srv/before && echo x >/tmp/before",
        );
        assert_eq!(bench.run().await.code, 0);
        assert_eq!(bench.run().await.code, 0);
    });
}

#[test]
fn a_container_can_find_what_the_one_before_has_left() {
    in_containers(async {
        let mut bench =
            Bench::new(ContainerImage::Host, "echo x >/srv/before && echo x >/tmp/before && echo x >>/etc/hosts");
        assert_eq!(bench.run().await.code, 0);
        let find = "ls /srv/before /tmp/before 2>/dev/null; grep -c '^x$' /etc/hosts; exit 0";
        for (leftovers, found) in [
            (Leftovers::All, "/srv/before\n/tmp/before\n0\n"),
            (Leftovers::Temporary, "/tmp/before\n0\n"),
            (Leftovers::None, "0\n"),
        ] {
            bench.spec.leftovers = leftovers;
            bench.spec.arguments = vec!["-c".into(), find.into()];
            assert_eq!(bench.run().await.output, found, "{leftovers:?}");
        }
    });
}

#[test]
fn a_mounted_directory_is_writable_only_when_it_says_so() {
    in_containers(async {
        let script = "echo x >/mnt/there/new; cat /mnt/there/file /opt/ml/input/data/c/file; echo x 2>/dev/null >/opt/ml/input/data/c/new; exit $?";
        let mut bench = Bench::new(ContainerImage::Host, script);
        let from = bench.directory.path().join("mounted");
        fs::create_dir_all(&from).unwrap();
        fs::create_dir_all(bench.ml().join("input/data/c")).unwrap();
        fs::write(from.join("file"), "content\n").unwrap();
        for (at, writable) in [("/mnt/there", true), ("/opt/ml/input/data/c", false)] {
            bench.spec.mounts.push(BindMount { from: from.clone(), at: at.into(), writable });
        }
        let ended = bench.run().await;
        assert_eq!((ended.code, ended.output.as_str()), (2, "content\ncontent\n"));
        assert!(from.join("new").exists());
    });
}

#[test]
fn the_containers_own_files_on_the_host_are_hidden_from_it() {
    in_containers(async {
        let mut bench = Bench::new(ContainerImage::Host, "");
        // Best not below `/tmp`, which is the container's own anyway: there it is not even a folder.
        let Ok(beside) = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")) else {
            eprintln!("SKIPPED: the build directory is not writable");
            return;
        };
        bench.spec.scratch = beside.path().join("scratch");
        bench.spec.arguments = vec![
            "-c".into(),
            "ls -A \"$0\" 2>/dev/null; echo listed".into(),
            bench.spec.scratch.to_str().unwrap().into(),
        ];
        assert_eq!(bench.run().await.output, "listed\n");
    });
}

#[test]
fn without_any_isolation_the_error_names_the_package() {
    in_containers(async {
        let mut bench = Bench::new(ContainerImage::Host, "exit 0");
        bench.isolation = Some(Isolation { bubblewrap: false, overlay: None, unshare: None });
        let (container, _receiver) = bench.start().await;
        let error = container.await.unwrap_err().downcast::<SetupError>().unwrap();
        assert!(error.hint.contains("install the package `bubblewrap`"), "{error:?}");
    });
}

#[test]
fn run_finds_out_by_itself_what_works_here() {
    in_containers(async {
        let bench = Bench::new(ContainerImage::Host, "echo hello");
        let (sender, mut receiver) = mpsc::channel(16);
        let exit =
            host::run(bench.spec.clone(), sender, bench.stop.clone(), bench.kill.clone(), PATIENCE).await.unwrap();
        assert_eq!(exit, ContainerExit { code: 0, started: true });
        assert_eq!(receiver.recv().await.as_deref(), Some(b"hello\n".as_slice()));
    });
}

#[test]
fn the_hosts_kernel_cannot_be_changed_from_a_container() {
    in_containers(async {
        let scratch = tempfile::tempdir().unwrap();
        let isolation = Isolation::detect(scratch.path()).await.unwrap();
        let mut ways = vec![isolation, Isolation { overlay: None, ..isolation }];
        if isolation.unshare.is_some() {
            ways.push(Isolation { bubblewrap: false, ..isolation });
        }
        for isolation in ways {
            let open = "[ -e /proc/sys/vm/swappiness ] || echo missing; for f in /proc/sys/vm/swappiness /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel; do \
                [ ! -w $f ] || echo $f is writable; done";
            let mut bench = Bench::new(ContainerImage::Host, open);
            bench.isolation = Some(isolation);
            assert_eq!(bench.run().await.output, "", "{isolation:?}");
        }
    });
}
