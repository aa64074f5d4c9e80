//! Sessions with records of this host: what its files say, beside what the bucket shows.

use super::*;
use crate::cloud::testing::{FaultDecision, Watch};

/// The note of a stage that was killed.
fn note(host: &RunnerHost, name: &str, boot: &str, unix: SystemTime) {
    let unix = unix.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let text = serde_json::json!({"boot": boot, "uptime": 1000, "unix": unix, "paused": false});
    let path = host.dir.path().join(format!("state/sessions/{name}.alive"));
    std::fs::write(path, text.to_string()).unwrap();
}

/// A record as the host's `prepare` left it, and the job in the account.
async fn recorded<'a>(account: &'a Account, host: &RunnerHost, name: &str) -> SessionKeeper<'a> {
    let keeper = account.session(name, LEASE).await;
    let record =
        SessionRecord { arn: Some("arn".into()), place: Some(keeper.place.clone()), ..SessionRecord::default() };
    host.records().save(&id(name), &record).unwrap();
    keeper
}

fn boot(host: &RunnerHost) -> String {
    host.clock.since_boot().0
}

/// As on a copy of another host's disk, or after the clock was wrong at the last boot.
#[tokio::test(start_paused = true)]
async fn a_record_of_another_boot_ends_no_session_that_the_bucket_shows_alive() {
    for ahead in [false, true] {
        let account = Account::new();
        let host = account.host(Duration::ZERO);
        let keeper = recorded(&account, &host, DEAD).await;
        let start = account.clock.now();
        note(&host, DEAD, "another", if ahead { start + HOUR * 9000 } else { start });
        keeper.work(HOUR * 3).await;
        assert!(host.sweep(Some(HOUR), false).await.0.contains("Nothing"), "ahead: {ahead}");
        // Nor when S3 cannot be asked.
        account.memory.objects.plan([Fault::new("now", 1, When::Before, CloudErrorKind::Denied)]);
        assert!(!host.sweep(Some(HOUR), false).await.1 && !account.is_stopped(DEAD));
        tokio::time::sleep(HOUR).await;
        let ended = host.sweep(Some(HOUR), false).await.0;
        assert!(ended.contains("Ended gitlab-1-2-abcdef12, untouched for"), "ahead: {ahead}: {ended}");
        assert!(account.is_stopped(DEAD) && account.objects(DEAD) == 0);
    }
}

/// The copy of a whole machine has the boot of the original, too.
#[tokio::test(start_paused = true)]
async fn a_lease_that_another_host_renews_keeps_a_session_of_this_boot() {
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    let keeper = recorded(&account, &host, DEAD).await;
    note(&host, DEAD, &boot(&host), account.clock.now());
    keeper.work(HOUR * 3).await;
    assert!(host.sweep(Some(Duration::ZERO), false).await.0.contains("Nothing") && !account.is_stopped(DEAD));
    // A container that still writes is no host.
    tokio::time::sleep(HOUR).await;
    account.memory.objects.put(&keeper.keys.report(crate::base::node::NodeId::LEADER, 1), b"x".to_vec()).await.unwrap();
    assert!(host.sweep(Some(Duration::ZERO), false).await.0.contains("Ended") && account.is_stopped(DEAD));
}

/// Files of root in the directory of another user would stop that user's stages.
#[test]
fn root_does_not_sweep_for_another_user() {
    assert!(is_foreign(0, Some(993), None) && is_foreign(0, Some(993), Some(993)));
    assert!(!is_foreign(0, Some(0), Some(0)) && !is_foreign(0, None, None), "the stages run as root, or none has run");
    assert!(!is_foreign(0, Some(993), Some(0)), "a runner that is root, in the directory that a package made");
    assert!(!is_foreign(993, Some(993), Some(993)) && !is_foreign(993, Some(0), None));
    let folder = tempfile::tempdir().unwrap();
    let owner = std::os::unix::fs::MetadataExt::uid(&folder.path().metadata().unwrap());
    assert_eq!(check_user(folder.path(), 0).is_err(), owner != 0);
}

/// A note that a power failure damaged is counted once its job is over.
#[tokio::test(start_paused = true)]
async fn a_note_that_cannot_be_read_does_not_stay() {
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    let jobs = host.dir.path().join("state/jobs");
    std::fs::create_dir_all(&jobs).unwrap();
    let note = jobs.join(format!("{DEAD}.json"));
    std::fs::write(&note, "").unwrap();
    host.sweep(Some(HOUR), true).await;
    assert!(note.exists());
    host.sweep(Some(Duration::ZERO), false).await;
    assert!(!note.exists());
}

/// Without S3 the locks and the time since boot are enough.
#[tokio::test(start_paused = true)]
async fn a_session_of_this_boot_is_ended_without_the_time_of_s3() {
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    let _keeper = recorded(&account, &host, DEAD).await;
    note(&host, DEAD, &boot(&host), account.clock.now());
    tokio::time::sleep(HOUR * 2).await;
    account.memory.objects.plan([Fault::new("now", 1, When::Before, CloudErrorKind::Denied)]);
    let (told, is_whole) = host.sweep(Some(HOUR), false).await;
    assert!(!is_whole && told.contains("Ended gitlab-1-2-abcdef12") && account.is_stopped(DEAD), "{told}");
}

/// As when the process may open no more files: that says nothing of the session.
#[tokio::test(start_paused = true)]
async fn files_that_cannot_be_opened_end_no_session() {
    for extension in ["alive", "lock"] {
        let account = Account::new();
        let host = account.host(Duration::ZERO);
        let _keeper = recorded(&account, &host, DEAD).await;
        let path = host.dir.path().join(format!("state/sessions/{DEAD}.{extension}"));
        std::os::unix::fs::symlink(&path, &path).unwrap();
        tokio::time::sleep(HOUR * 25).await;
        let (told, is_whole) = host.sweep(Some(HOUR), false).await;
        assert!(!is_whole && told.contains("failed to open"), "{told}");
        assert!(!account.is_stopped(DEAD) && account.objects(DEAD) == 1);
    }
}

/// More left-over records than the process may open files.
#[tokio::test(start_paused = true)]
async fn a_sweep_holds_few_files_open() {
    const RECORDS: u32 = 100;
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    for number in 0..RECORDS {
        let name = format!("gitlab-2-{number}-abcdef12");
        host.records().save(&id(&name), &SessionRecord { creating: true, ..SessionRecord::default() }).unwrap();
        host.records().mark_closing(&id(&name)).unwrap();
        note(&host, &name, &boot(&host), account.clock.now());
    }
    let watch = Arc::new(OpenFiles { dir: host.dir.path().to_owned(), most: Mutex::default() });
    account.memory.jobs.watch(watch.clone());
    tokio::time::sleep(HOUR * 2).await;
    host.sweep(Some(HOUR), false).await;
    let most = *watch.most.lock();
    assert!(most > 0 && most <= AT_ONCE * 3, "{most} files");
}

/// The most files below a directory that this process had open at a call.
#[derive(Debug)]
struct OpenFiles {
    dir: std::path::PathBuf,
    most: Mutex<usize>,
}

impl Watch for OpenFiles {
    fn look(&self, _: &'static str, _: &str, _: When) -> FaultDecision {
        let files = std::fs::read_dir("/proc/self/fd").unwrap();
        let paths = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        let open = paths.filter(|path| path.starts_with(&self.dir)).count();
        let mut most = self.most.lock();
        *most = open.max(*most);
        FaultDecision::Passes
    }
}

/// A job that takes long to stop holds up neither the others nor what other hosts left.
#[tokio::test(start_paused = true)]
async fn slow_sessions_are_ended_beside_each_other() {
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    let lost = account.session(LIVE, LEASE).await;
    for number in 0..AT_ONCE {
        let name = format!("gitlab-2-{number}-abcdef12");
        recorded(&account, &host, &name).await;
        note(&host, &name, &boot(&host), account.clock.now());
    }
    tokio::time::sleep(HOUR * 2).await;
    account.memory.jobs.plan([Fault::slow("stop", Duration::from_mins(1))]);
    let start = tokio::time::Instant::now();
    let told = host.sweep(Some(HOUR), false).await.0;
    assert_eq!(told.matches("Ended gitlab-").count(), AT_ONCE + 1, "{told}");
    assert!(start.elapsed() < Duration::from_mins(3) && account.is_stopped(lost.id.as_str()), "{:?}", start.elapsed());
}

/// The directory may be missing where no job ever ran.
#[tokio::test(start_paused = true)]
async fn a_stop_that_failed_is_tried_again_by_the_next_sweep() {
    let account = Account::new();
    let (host, other) = (account.host(Duration::ZERO), account.host(Duration::ZERO));
    let _dead = account.session(DEAD, LEASE).await;
    tokio::time::sleep(HOUR * 4).await;
    let denied = Fault::new("stop", 1, When::Before, CloudErrorKind::Denied).forever();
    account.memory.jobs.plan([denied]);
    assert!(!host.sweep(Some(HOUR), false).await.1);
    account.memory.jobs.plan([]);
    // The order to leave is a young object for another host, but not for a day.
    let folder = keys::session_folder(DEAD);
    let kept: Vec<_> = account.memory.objects.keys().into_iter().filter(|key| key.starts_with(&folder)).collect();
    assert!(kept.iter().any(|key| key.ends_with("/open")), "{kept:?}");
    assert!(other.swept().await.contains("Nothing"));
    tokio::time::sleep(HOUR).await;
    assert!(other.sweep(None, true).await.0.contains("Would end gitlab-1-2-abcdef12, found by its objects"));
    assert!(host.sweep(Some(HOUR), false).await.0.contains("Ended gitlab-1-2-abcdef12"));
    assert!(account.objects(DEAD) == 0);
}
