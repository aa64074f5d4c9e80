//! Lost replies, refusals, and two jobs at once.

use std::time::Duration;

use super::*;
use crate::base::exit_codes;
use crate::cloud::CloudErrorKind;
use crate::cloud::testing::{Fault, When};

/// The calls that write, or read before them.
const CALLS: [&str; 5] = ["package_files", "tag_commit", "release", "upload", "create_release"];

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_looked_for_and_not_repeated() {
    for method in ["upload", "create_release"] {
        let desk = Desk::stable();
        desk.gitlab.plan([Fault::new(method, 1, When::After, CloudErrorKind::Transient)]);
        assert_eq!(desk.run(&[]).await.good()["status"], "published");
        desk.only();
        assert_eq!(desk.gitlab.count(method), 1, "{method}");
    }
    let desk = Desk::stable();
    desk.release(STABLE, COMMIT, Vec::new()).await;
    desk.gitlab.plan([Fault::new("add_link", 1, When::After, CloudErrorKind::Transient)]);
    desk.run(&[]).await.good();
    assert_eq!((desk.only().links.len(), desk.gitlab.count("add_link")), (1, 1));
}

/// A proxy gives up, and GitLab stores the file or makes the release a minute later.
#[tokio::test(start_paused = true)]
async fn an_effect_that_comes_late_is_waited_for() {
    for kind in [CloudErrorKind::Transient, CloudErrorKind::Exists] {
        for (method, hide) in [("upload", true), ("create_release", false)] {
            let desk = Desk::stable();
            desk.gitlab.plan([Fault::new(method, 1, When::After, kind)]);
            // One look is before the write.
            if hide {
                desk.gitlab.hide_files(7);
            } else {
                desk.gitlab.hide_releases(8);
            }
            let begun = tokio::time::Instant::now();
            assert_eq!(desk.run(&[]).await.good()["status"], "published");
            desk.only();
            assert_eq!(desk.gitlab.count(method), 1, "{method}");
            assert_eq!(begun.elapsed().as_secs(), 63, "{method}");
        }
    }
}

/// A reader that is behind shows first less, then all: nothing is written twice.
#[tokio::test(start_paused = true)]
async fn what_was_seen_once_is_not_written_again() {
    let desk = Desk::stable();
    desk.gitlab.plan([Fault::slow("create_release", Duration::from_secs(10))]);
    let behind = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        desk.gitlab.hide_files(3);
    };
    let (ended, ()) = tokio::join!(desk.run(&[]), behind);
    ended.good();
    desk.only();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_an_upload_ends_the_run() {
    let desk = Desk::stable();
    desk.gitlab.plan([
        Fault::new("upload", 1, When::Before, CloudErrorKind::Transient).forever(),
        Fault::slow("upload", Duration::from_secs(310)),
    ]);
    let begun = tokio::time::Instant::now();
    assert_eq!(desk.run(&[]).await.kind, Some(Kind::System));
    assert!(begun.elapsed() < Duration::from_mins(15), "{:?}", begun.elapsed());
}

/// Nothing is published by half when the release can never be made.
#[tokio::test(start_paused = true)]
async fn a_commit_that_the_project_lacks_is_told_before_any_write() {
    let desk = Desk::stable();
    desk.gitlab.forget_commit(COMMIT);
    desk.run(&[]).await.refused("the project has no commit 0123456789abcdef");
    assert_eq!(desk.writes(), [""; 0]);
    // A token that may not ask: GitLab refuses the release itself.
    let desk = Desk::stable();
    desk.gitlab.plan([Fault::new("create_release", 1, When::Before, CloudErrorKind::Invalid).forever()]);
    let ended = desk.run(&[]).await;
    ended.refused("without its release: the same command fails again until that is changed");
    assert!(ended.error.contains("commit must be one of this project"), "{}", ended.error);
}

#[tokio::test(start_paused = true)]
async fn a_release_without_its_tag_is_not_done() {
    let desk = Desk::stable();
    desk.run(&[]).await.good();
    desk.gitlab.delete_tag(STABLE);
    desk.run(&[]).await.refused("the release stable-20261129T045233Z is there, but its tag was deleted");
    assert_eq!(desk.writes().len(), 2, "those of the first run");
    // The tag of another run's release is seen a little later.
    let come = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        desk.gitlab.tag(STABLE, COMMIT);
    };
    let (ended, ()) = tokio::join!(desk.run(&[]), come);
    assert_eq!(ended.good()["status"], "already_published");
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_is_repeated_a_few_times() {
    for method in ["upload", "create_release"] {
        let desk = Desk::stable();
        desk.gitlab.plan([Fault::new(method, 1, When::Before, CloudErrorKind::Transient).times(2)]);
        desk.run(&[]).await.good();
        desk.only();
        let desk = Desk::stable();
        desk.gitlab.plan([Fault::new(method, 1, When::Before, CloudErrorKind::Transient).forever()]);
        let ended = desk.run(&[]).await;
        assert_eq!(ended.kind, Some(Kind::System), "{}", ended.error);
        assert_eq!(desk.gitlab.count(method), 3, "{method}");
        assert_eq!(ended.error.contains("without its release"), method == "create_release", "{}", ended.error);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_the_command_at_once_with_its_exit_code() {
    let cases = [
        (CloudErrorKind::Throttled, Kind::Verdict { code: exit_codes::TRY_LATER }),
        (CloudErrorKind::Denied, Kind::System),
        (CloudErrorKind::Unauthenticated, Kind::System),
        (CloudErrorKind::Quota, Kind::User),
    ];
    for method in CALLS {
        for (kind, expected) in cases {
            let desk = Desk::stable();
            desk.gitlab.plan([Fault::new(method, 1, When::Before, kind).forever()]);
            let ended = desk.run(&[]).await;
            assert_eq!(ended.kind, Some(expected), "{method}: {}", ended.error);
            assert!(ended.error.contains("\n  hint: "), "{method}: {}", ended.error);
            assert_eq!(desk.gitlab.count(method), 1);
            let files = usize::from(method == "create_release");
            assert_eq!((desk.gitlab.files().len(), desk.gitlab.releases().len()), (files, 0), "{method}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_gitlab_refuses_as_a_duplicate_is_looked_for() {
    let desk = Desk::stable();
    desk.gitlab.plan([Fault::new("upload", 1, When::Before, CloudErrorKind::Exists).forever()]);
    let ended = desk.run(&[]).await;
    assert_eq!(ended.kind, Some(Kind::User));
    assert!(ended.error.contains("GitLab shows no file of this name"), "{}", ended.error);
}

/// Both look, find nothing, and write.
#[tokio::test(start_paused = true)]
async fn two_jobs_at_once_make_one_release() {
    for refuses in [false, true] {
        let desk = Desk::stable();
        desk.gitlab.refuse_duplicates(refuses);
        let slow =
            ["package_files", "upload", "create_release"].map(|method| Fault::slow(method, Duration::from_secs(1)));
        desk.gitlab.plan(slow);
        let (one, other) = tokio::join!(desk.run(&[]), desk.run(&[]));
        assert_eq!(one.good()["release"], other.good()["release"]);
        let files = desk.gitlab.files();
        assert_eq!(files.len(), if refuses { 1 } else { 2 });
        assert!(files.iter().all(|(_, content)| *content == files[0].1));
        assert_eq!(desk.gitlab.releases().len(), 1);
        // Another job of the project finds everything done.
        assert_eq!(desk.run(&[]).await.good()["status"], "already_published");
    }
}

/// A tag that somebody makes elsewhere between the look and the release.
#[tokio::test(start_paused = true)]
async fn a_tag_that_comes_in_between_is_told() {
    let desk = Desk::stable();
    desk.gitlab.plan([Fault::slow("upload", Duration::from_secs(10))]);
    let other = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        desk.gitlab.tag(STABLE, &"1".repeat(40));
    };
    let (ended, ()) = tokio::join!(desk.run(&[]), other);
    ended.refused("the tag stable-20261129T045233Z is of commit 1111");
    assert_eq!(desk.gitlab.releases(), []);
}

/// A tag that comes between the last look and the release: GitLab makes the release at that tag's commit.
#[tokio::test(start_paused = true)]
async fn a_release_at_a_tag_of_somebody_else_is_told_as_this_run_s() {
    let desk = Desk::stable();
    desk.gitlab.plan([Fault::slow("create_release", Duration::from_secs(10))]);
    let other = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        desk.gitlab.tag(STABLE, &"1".repeat(40));
    };
    let (ended, ()) = tokio::join!(desk.run(&[]), other);
    ended.refused("the tag stable-20261129T045233Z is of commit 1111");
    assert!(ended.error.contains("this run has made the release"), "{}", ended.error);
}

/// A file that changes while it is uploaded is seen by its hash in GitLab.
#[tokio::test(start_paused = true)]
async fn a_file_that_changes_meanwhile_is_not_released() {
    let desk = Desk::stable();
    desk.gitlab.plan([Fault::slow("package_files", Duration::from_secs(10))]);
    let change = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        std::fs::write(desk.file(), "changed").unwrap();
    };
    let (ended, ()) = tokio::join!(desk.run(&[]), change);
    ended.refused("the package registry has another file as wine/");
    assert_eq!(desk.gitlab.releases(), []);
}

#[tokio::test(start_paused = true)]
async fn an_old_gitlab_that_tells_no_hash_is_compared_by_size() {
    let desk = Desk::stable();
    desk.gitlab.hide_hashes();
    let ended = desk.run(&[]).await;
    ended.good();
    assert!(ended.lines.contains("GitLab tells no SHA-256 of wine/"), "{}", ended.lines);
    desk.only();
}

/// GitLab answers from a replica that is behind.
#[tokio::test(start_paused = true)]
async fn a_file_that_gitlab_took_is_not_uploaded_again() {
    let desk = Desk::stable();
    desk.gitlab.hide_files(4);
    desk.run(&[]).await.good();
    desk.only();
    let desk = Desk::stable();
    desk.gitlab.hide_files(100);
    let ended = desk.run(&[]).await;
    assert_eq!(ended.kind, Some(Kind::System));
    assert!(
        ended.error.contains("GitLab took the file wine/") && ended.error.contains("does not show it"),
        "{}",
        ended.error
    );
    assert_eq!((desk.gitlab.count("upload"), desk.gitlab.releases().len()), (1, 0));
}
