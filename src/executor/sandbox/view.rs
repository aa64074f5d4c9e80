//! The host as a sandboxed stage sees it, as arguments of bubblewrap. Pure: looks at no file.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::config::settings::SandboxSettings;
use crate::sandbox::privileges;

/// Where this program lies in the sandbox.
pub(super) const INIT: &str = "/sandbox-init";
/// A directory of the sandbox that is empty at the start of each stage.
pub(super) const HOME: &str = "/tmp/home";

/// Size of the private `/tmp`, which is in memory.
const TMP_BYTES: &str = "1073741824";
/// Size of `/dev/shm`, likewise.
const SHM_BYTES: &str = "268435456";
/// Entries of `/proc` that change the kernel, and that root of the host may write even without any capability.
const PROC_READ_ONLY: [&str; 8] = [
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/proc/bus",
    "/proc/fs",
    "/proc/scsi",
    "/proc/acpi",
    "/proc/mtrr",
];
/// Entries of `/proc` with the kernel's memory, keys and timers, which root of the host may read.
const PROC_HIDDEN: [&str; 9] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/slabinfo",
    "/proc/timer_list",
    "/proc/vmallocinfo",
    "/proc/pagetypeinfo",
];
/// Directories of the system that exist below `/usr` as well, where they are links.
const SYSTEM_LINKS: [&str; 5] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64"];
/// Files of `/etc` that programs of a host stage read. None of it is secret, and of `/etc/ssl` it leaves out the private keys.
const ETC: [&str; 23] = [
    "/etc/alternatives",
    "/etc/bash.bashrc",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/gitconfig",
    "/etc/group",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/openssl.cnf",
    "/etc/profile",
    "/etc/ssh/ssh_known_hosts",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
];

/// Paths of one stage's view, besides the system's own.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// Entries of [`SYSTEM_LINKS`] of this host, each with the target of the link, or none for a directory.
    pub(super) links: Vec<(PathBuf, Option<PathBuf>)>,
    /// The program of this process.
    pub(super) init: PathBuf,
    /// Of this host.
    pub(super) is_root: bool,
    /// Those of [`PROC_READ_ONLY`] and [`PROC_HIDDEN`] that this host has.
    pub(super) proc: Vec<PathBuf>,
    /// Files and directories under their own paths, to read. Those that do not exist are left out.
    pub(super) readable: Vec<PathBuf>,
    /// Files under another path.
    pub(super) placed: Vec<(PathBuf, PathBuf)>,
    /// Directories of the job, each with its path in the sandbox.
    pub(super) writable: Vec<(PathBuf, PathBuf)>,
}

/// The possible [`View::links`].
pub(super) fn system_links() -> impl Iterator<Item = &'static Path> {
    SYSTEM_LINKS.iter().map(Path::new)
}

/// The possible [`View::proc`].
pub(super) fn proc_entries() -> impl Iterator<Item = &'static Path> {
    PROC_READ_ONLY.iter().chain(&PROC_HIDDEN).map(Path::new)
}

/// The arguments up to the program that runs inside.
pub(super) fn arguments(view: &View) -> Vec<OsString> {
    let mut list = List::default();
    for namespace in ["user", "ipc", "pid", "net", "uts"] {
        list.word(&format!("--unshare-{namespace}"));
    }
    list.words(&["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]);
    for capability in privileges::NEEDED.iter().filter(|_| view.is_root) {
        list.words(&["--cap-add", capability]);
    }
    list.path("--ro-bind", Path::new("/usr"));
    for (path, target) in &view.links {
        match target {
            Some(target) => list.pair("--symlink", target.as_os_str(), path),
            None => list.path("--ro-bind", path),
        }
    }
    list.words(&["--proc", "/proc"]);
    for path in &view.proc {
        let is_hidden = PROC_HIDDEN.iter().any(|hidden| Path::new(hidden) == path);
        list.pair("--ro-bind", if is_hidden { OsStr::new("/dev/null") } else { path.as_os_str() }, path);
    }
    list.words(&[
        "--dev",
        "/dev",
        "--perms",
        "1777",
        "--size",
        SHM_BYTES,
        "--tmpfs",
        "/dev/shm",
        "--remount-ro",
        "/dev",
    ]);
    list.words(&["--perms", "1777", "--size", TMP_BYTES, "--tmpfs", "/tmp"]);
    for path in ETC {
        list.path("--ro-bind-try", Path::new(path));
    }
    list.pair("--ro-bind", view.init.as_os_str(), Path::new(INIT));
    // After the private `/tmp`, because many of them lie below it.
    for path in &view.readable {
        list.path("--ro-bind-try", path);
    }
    for (from, to) in &view.placed {
        list.pair("--ro-bind", from.as_os_str(), to);
    }
    for (from, to) in &view.writable {
        list.pair("--bind", from.as_os_str(), to);
    }
    list.words(&["--dir", HOME, "--remount-ro", "/", "--chdir", "/tmp", "--"]);
    list.0
}

/// The arguments of the first process, without the command.
pub(super) fn init_arguments(
    settings: &SandboxSettings,
    forward: &[std::net::SocketAddr],
    shares_directory: bool,
) -> Vec<OsString> {
    let mut list = List::default();
    list.words(&[INIT, "sandbox-init"]);
    for (option, value) in [
        ("--processes", settings.max_processes),
        ("--memory", settings.max_memory_bytes),
        ("--file", settings.max_file_bytes),
    ] {
        list.words(&[option, &value.to_string()]);
    }
    if shares_directory {
        list.word("--no-unix-sockets");
    }
    for address in forward {
        list.words(&["--forward", &address.to_string()]);
    }
    list.word("--");
    list.0
}

/// The variables of the driver's own environment that a stage sees, with the sandbox's own values of some.
pub(super) fn environment<'a>(all: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<(String, String)> {
    let passes = |name: &str| {
        PASSED.iter().any(|pattern| pattern.strip_suffix('*').map_or(name == *pattern, |start| name.starts_with(start)))
    };
    let own = [("HOME", HOME), ("TMPDIR", "/tmp")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    all.filter(|(name, _)| passes(name)).map(|(name, value)| (name.clone(), value.clone())).chain(own).collect()
}

/// Names of the driver's environment that reach a sandboxed stage; `*` at the end stands for any characters.
const PASSED: [&str; 15] = [
    "PATH",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "TZ",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "GIT_*",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "BASH_ENV",
    "COLUMNS",
];

/// Files that variables of the operator name.
pub(super) const NAMED_FILES: [&str; 6] =
    ["SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "BASH_ENV"];

#[derive(Default)]
struct List(Vec<OsString>);

impl List {
    fn word(&mut self, word: &str) {
        self.0.push(word.into());
    }

    fn words(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(OsString::from));
    }

    fn path(&mut self, option: &str, path: &Path) {
        self.pair(option, path.as_os_str(), path);
    }

    fn pair(&mut self, option: &str, from: &OsStr, to: &Path) {
        self.0.extend([option.into(), from.to_owned(), to.into()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(view: &View) -> String {
        let words: Vec<_> = arguments(view).into_iter().map(|word| word.into_string().unwrap()).collect();
        words.join(" ")
    }

    fn view() -> View {
        View {
            links: vec![("/bin".into(), Some("usr/bin".into())), ("/lib64".into(), None)],
            init: "/opt/driver".into(),
            is_root: false,
            proc: vec!["/proc/sys".into(), "/proc/kcore".into()],
            readable: vec!["/srv/hooks".into()],
            placed: vec![("/opt/gl/runner".into(), "/opt/bin/gitlab-runner".into())],
            writable: vec![("/b/7/0".into(), "/tmp/builds".into())],
        }
    }

    #[test]
    fn nothing_is_writable_but_the_jobs_directories() {
        let text = text(&view());
        assert_eq!(text.matches(" --bind ").count(), 1, "{text}");
        assert!(text.contains("--bind /b/7/0 /tmp/builds "), "{text}");
        assert!(text.contains("--remount-ro / "), "{text}");
        assert!(!text.contains("--share-net") && !text.contains("--dev-bind") && !text.contains("--cap-add"), "{text}");
        for namespace in ["user", "ipc", "pid", "net", "uts"] {
            assert!(text.contains(&format!("--unshare-{namespace} ")), "{namespace}");
        }
    }

    #[test]
    fn the_jobs_directories_come_after_the_private_tmp() {
        let text = text(&view());
        assert!(text.find("--tmpfs /tmp").unwrap() < text.find("--bind /b/7/0").unwrap());
    }

    #[test]
    fn the_kernels_settings_can_only_be_read_and_its_memory_not_at_all() {
        let text = text(&view());
        let proc = text.find("--proc /proc").unwrap();
        for covered in ["--ro-bind /proc/sys /proc/sys", "--ro-bind /dev/null /proc/kcore"] {
            assert!(text.find(covered).is_some_and(|at| at > proc), "{covered}: {text}");
        }
        assert!(text.contains("--remount-ro /dev "), "{text}");
    }

    #[test]
    fn no_secret_directory_is_shown() {
        let text = text(&View::default());
        for path in
            [" /etc ", " /etc/ssl ", " /run", " /home", " /root", " /var", " /etc/shadow", " /etc/ssh ", " / / "]
        {
            assert!(!text.contains(path), "{path}: {text}");
        }
    }

    #[test]
    fn the_environment_is_a_list_of_names() {
        let all = [
            ("PATH", "/bin"),
            ("VAULT_TOKEN", "x"),
            ("HOME", "/root"),
            ("LC_ALL", "C"),
            ("SSH_AUTH_SOCK", "/run/x"),
            ("http_proxy", "p"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let seen = environment(all.iter().map(|(name, value)| (name, value)));
        let seen: Vec<_> = seen.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(seen, ["PATH=/bin", "LC_ALL=C", "HOME=/tmp/home", "TMPDIR=/tmp"]);
    }
}
