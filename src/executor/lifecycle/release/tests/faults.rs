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
        assert_eq!(desk.gitlab.count(method), 5, "{method}");
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
