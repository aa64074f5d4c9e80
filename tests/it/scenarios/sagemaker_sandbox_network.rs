//! The network of host stages in the sandbox: what git, its LFS and hooks reach there, and redirects and addresses that they do not.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex, OnceLock};

use super::sagemaker_sandbox::{SECRET, as_ordinary_user, give, scenario};
use crate::support::driver::{Driver, sandboxed, sandboxed_as_root, sandboxed_with};
use crate::support::job::Job;
use crate::support::outcome::Outcome;
use crate::support::scenario::{Scenario, With, one, play};
use crate::support::waiting::tell;
use crate::support::world::World;

/// A server of HTTP, and the first lines of the requests that it got.
#[derive(Clone)]
struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `reply` makes status line and headers, and the body, from the first line of a request.
    fn start(reply: impl Fn(&str) -> (String, Vec<u8>) + Send + 'static) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut bytes = vec![0; 16384];
                let count = stream.read(&mut bytes).unwrap_or(0);
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                let Some(first) = text.lines().next() else { continue };
                log.lock().unwrap().push(first.to_owned());
                let (head, body) = reply(first);
                let _ =
                    write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(&body);
            }
        });
        Self { port, seen }
    }

    fn saw(&self, text: &str) -> bool {
        self.seen.lock().unwrap().iter().any(|line| line.contains(text))
    }
}

fn secret_server() -> Server {
    Server::start(|_| ("200 OK".to_owned(), SECRET.into()))
}

fn hook(world: &World, lines: &str) -> Vec<Outcome> {
    let repository = world.repository("ml/churn");
    let sha = repository.commit("main", &[("a.txt", "a")]);
    one(world, &Job::new().sources(&repository, "main", &sha).hook("pre_get_sources_script", [lines]).script(["true"]))
}

fn of_ordinary_user(driver: Driver) -> Driver {
    Driver { adjust: sandboxed().adjust, ..driver }
}

/// The stand-in for the metadata service, and a server that redirects to it.
static SERVERS: Mutex<Option<(Server, Server)>> = Mutex::new(None);

fn follow_redirects(world: &World) -> Vec<Outcome> {
    let port = SERVERS.lock().unwrap().as_ref().unwrap().1.port;
    let lines = format!(
        "if curl -sL http://127.0.0.1:{port}/ | grep -q {SECRET}; then echo curl-has-it; fi
        git -c http.followRedirects=true ls-remote http://127.0.0.1:{port}/x.git || echo git-is-back"
    );
    hook(world, &lines)
}

/// git and curl follow a redirect of a server that the operator allows; the proxy judges where it leads.
#[test]
fn a_redirect_to_the_metadata_service_is_refused() {
    let both = || {
        let stand_in = secret_server();
        let to = stand_in.port;
        let redirect = Server::start(move |first| {
            let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
            (format!("302 Found\r\nLocation: http://127.0.0.1:{to}/latest{path}"), Vec::new())
        });
        *SERVERS.lock().unwrap() = Some((stand_in.clone(), redirect.clone()));
        (stand_in, redirect)
    };
    let open = |_: &World, outcomes: &[Outcome]| {
        outcomes[0].succeeded().shows("\ncurl-has-it");
    };
    let closed = |_: &World, outcomes: &[Outcome]| {
        outcomes[0].succeeded().shows("\ngit-is-back").hides("\ncurl-has-it");
    };
    let (stand_in, _) = both();
    play(&scenario("redirects", follow_redirects, open), With::RealRunner, as_ordinary_user());
    if !stand_in.saw("GET") {
        // Skipped.
        return;
    }
    assert!(stand_in.saw("git-upload-pack"));
    for adjust in [sandboxed().adjust, sandboxed_as_root().adjust] {
        let (stand_in, redirect) = both();
        let driver = Driver { adjust, ..sandboxed_with(&format!("allow = [\"127.0.0.1:{}\"]\n", redirect.port)) };
        play(&scenario("redirects", follow_redirects, closed), With::RealRunner, driver);
        assert!(redirect.saw("GET / ") && redirect.saw("git-upload-pack") && !stand_in.saw(" "));
    }
}

/// An address of an interface of this machine, if it has one besides the loopback.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

fn ask_special_addresses(world: &World) -> Vec<Outcome> {
    static OWN: OnceLock<Server> = OnceLock::new();
    let port = OWN.get_or_init(secret_server).port;
    let own = own_address().map_or_else(String::new, |ip| format!("{ip}:{port}"));
    let lines = format!(
        "for host in 169.254.169.254 169.254.170.2 '[fd00:ec2::254]' '[::ffff:169.254.169.254]' 2852039166 127.0.0.1:{port} localhost:{port}; do
            echo \"asked $host: $(curl -s -m 20 -o /dev/null -w '%{{http_code}}' \"http://$host/\")\"
        done
        own='{own}'; [ -z \"$own\" ] || echo \"asked own: $(curl -s -o /dev/null -w '%{{http_code}}' \"http://$own/\")\""
    );
    hook(world, &lines)
}

/// A name such as `*` in `sandbox.allow` opens neither the metadata service nor this host.
#[test]
fn no_name_opens_an_address_of_the_host() {
    let refused = |_: &World, outcomes: &[Outcome]| {
        outcomes[0].succeeded();
        assert_eq!(outcomes[0].count(": 403\n"), if own_address().is_some() { 8 } else { 7 }, "{}", outcomes[0]);
        outcomes[0].shows("the sandbox refused a connection to fd00:ec2::254:80");
    };
    for driver in [sandboxed(), sandboxed_as_root()] {
        let driver = Driver { adjust: driver.adjust, ..sandboxed_with("allow = [\"*\", \"0.0.0.0/1:1\"]\n") };
        play(&scenario("special addresses", ask_special_addresses, refused), With::RealRunner, driver);
    }
}

#[test]
fn the_hosts_own_address_is_open_without_the_sandbox() {
    if own_address().is_none() {
        tell("SKIPPED: the host's own address: no interface besides the loopback");
        return;
    }
    let open = |_: &World, outcomes: &[Outcome]| {
        outcomes[0].succeeded().shows("\nasked own: 200\n");
    };
    play(&scenario("special addresses", ask_special_addresses, open), With::RealRunner, as_ordinary_user());
}

const LARGE: &str = "a large file of LFS\n";
/// SHA-256 of [`LARGE`].
fn oid() -> String {
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(LARGE.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().split(' ').next().unwrap().to_owned()
}

static LFS: OnceLock<Server> = OnceLock::new();

/// A server of LFS beside GitLab, as an object store is.
fn lfs_server() -> &'static Server {
    LFS.get_or_init(|| {
        let oid = oid();
        Server::start(move |first| {
            if first.starts_with("GET /large ") {
                return ("200 OK".to_owned(), LARGE.into());
            }
            let port = LFS.get().map_or(0, |server| server.port);
            let body = format!(
                "{{\"transfer\": \"basic\", \"objects\": [{{\"oid\": \"{oid}\", \"size\": {}, \"authenticated\": true,
                    \"actions\": {{\"download\": {{\"href\": \"http://127.0.0.1:{port}/large\"}}}}}}]}}",
                LARGE.len()
            );
            ("200 OK\r\nContent-Type: application/vnd.git-lfs+json".to_owned(), body.into_bytes())
        })
    })
}

fn fetch_large(world: &World) -> Vec<Outcome> {
    let port = lfs_server().port;
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n", oid(), LARGE.len());
    let repository = world.repository("ml/churn");
    let sha = repository.commit(
        "main",
        &[
            ("model.bin", pointer.as_str()),
            (".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n"),
            (".lfsconfig", &format!("[lfs]\n\turl = http://127.0.0.1:{port}/lfs\n")),
        ],
    );
    // The operator's `git lfs install --system`.
    let job = Job::new()
        .sources(&repository, "main", &sha)
        .set("GIT_CONFIG_COUNT", "4")
        .set("GIT_CONFIG_KEY_2", "filter.lfs.clean")
        .set("GIT_CONFIG_VALUE_2", "git-lfs clean -- %f")
        .set("GIT_CONFIG_KEY_3", "filter.lfs.smudge")
        .set("GIT_CONFIG_VALUE_3", "git-lfs smudge -- %f")
        .set("GIT_CONFIG_KEY_0", "filter.lfs.process")
        .set("GIT_CONFIG_VALUE_0", "git-lfs filter-process")
        .set("GIT_CONFIG_KEY_1", "filter.lfs.required")
        .set("GIT_CONFIG_VALUE_1", "true");
    one(world, &job.script(["cat model.bin"]))
}

#[test]
fn large_files_come_from_a_store_that_the_operator_allows() {
    let fetched = |_: &World, outcomes: &[Outcome]| {
        outcomes[0].succeeded().shows(LARGE).hides("the sandbox refused");
    };
    let refused = |_: &World, outcomes: &[Outcome]| {
        assert_eq!(outcomes[0].failure_reason.as_deref(), Some("script_failure"), "{}", outcomes[0]);
        outcomes[0].hides(LARGE);
    };
    let row = |expect| Scenario { needs: &["git", "git-lfs", "sha256sum"], ..scenario("LFS", fetch_large, expect) };
    let allow = format!("allow = [\"127.0.0.1:{}\"]\n", lfs_server().port);
    play(&row(fetched), With::RealRunner, of_ordinary_user(sandboxed_with(&allow)));
    play(&row(fetched), With::RealRunner, sandboxed_with(&allow));
    play(&row(refused), With::RealRunner, sandboxed());
}

/// A sparse checkout and the trace of a debugged job, with hooks of git and a file of the shell that are the operator's.
fn with_hooks_of_the_operator(world: &World) -> Vec<Outcome> {
    let hook = world.dirs.root().join("hooks/post-checkout");
    give(world, &hook, "#!/bin/sh\necho the-operators-hook\n");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    give(world, &world.dirs.root().join("first.sh"), "the_operators_word=said\n");
    let repository = world.repository("ml/churn");
    repository.commit("main", &[("a.txt", "a"), ("wanted/b.txt", "b"), ("unwanted/c.txt", "c")]);
    let sha = repository.commit("main", &[("a.txt", "another")]);
    let lines = "git sparse-checkout set wanted; echo here-$(echo *wanted)
        echo word-$the_operators_word";
    let job = Job::new()
        .sources(&repository, "main", &sha)
        .set("CI_DEBUG_TRACE", "true")
        .hook("post_get_sources_script", [lines]);
    one(world, &job.script(["true"]))
}

#[test]
fn hooks_of_the_operator_and_a_sparse_checkout_work() {
    let expect = |_: &World, outcomes: &[Outcome]| {
        outcomes[0].succeeded().shows("\nthe-operators-hook").shows("\nhere-wanted\n").shows("\nword-said\n");
        outcomes[0].shows("+ git sparse-checkout set wanted\n");
    };
    for adjust in [sandboxed().adjust, sandboxed_as_root().adjust] {
        let mut driver = Driver { adjust, ..sandboxed_with("readable = [\"{root}/hooks\"]\n") };
        let env = [
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "core.hooksPath"),
            ("GIT_CONFIG_VALUE_0", "{root}/hooks"),
            ("BASH_ENV", "{root}/first.sh"),
        ];
        driver.env.extend(env.map(|(name, value)| (name.to_owned(), value.to_owned())));
        play(&scenario("operators hooks", with_hooks_of_the_operator, expect), With::RealRunner, driver);
    }
}

/// `sh` has nothing that keeps a job's variable away.
#[test]
fn a_proxy_of_the_job_is_told_where_the_shell_takes_it() {
    let run = |world: &World| one(world, &Job::new().set("https_proxy", "http://proxy.invalid:1").script(["true"]));
    let told = |_: &World, outcomes: &[Outcome]| {
        // Whether the runner's script works in `sh` is another matter.
        outcomes[0].shows("with the job's `https_proxy` host stages have no network");
        assert_eq!(outcomes[0].count("host stages have no network"), 1);
    };
    let untold = |_: &World, outcomes: &[Outcome]| {
        outcomes[0].succeeded().hides("host stages have no network");
    };
    play(&scenario("proxy", run, untold), With::RealRunner, sandboxed());
    let mut driver = sandboxed();
    driver.operator_config = driver.operator_config.replace("[runner]\n", "[runner]\nshell = \"sh\"\n");
    let row = Scenario {
        settings: || crate::support::world::Settings { shell: "sh", ..Default::default() },
        ..scenario("proxy", run, told)
    };
    play(&row, With::RealRunner, driver);
}
