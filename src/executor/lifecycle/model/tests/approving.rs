//! Approvals and rejections, by several users.

use test_case::test_case;

use super::*;
use crate::base::exit_codes;
use crate::cloud::testing::{Fault, FaultDecision, Watch, When};
use crate::cloud::{Approval, CloudErrorKind, ModelVersion};

const NOT_YET: Option<Kind> = Some(Kind::Verdict { code: exit_codes::NOT_YET });

async fn registered() -> Desk {
    let desk = Desk::new();
    let ended = desk.run_as(Some("1"), &["register"]).await;
    assert_eq!(ended.kind, None, "{}", ended.error);
    desk
}

fn version(desk: &Desk) -> ModelVersion {
    desk.memory.registry.all().remove(0)
}

#[tokio::test]
async fn an_approval_is_recorded_with_its_user() {
    let desk = registered().await;
    let ended = desk.run_as(Some("2"), &["approve", "--latest", "--reason", "fine: see \"report\""]).await;
    assert!(ended.out.starts_with("churn version 1: approved\n"), "{}{}", ended.out, ended.error);
    let version = version(&desk);
    assert_eq!(version.approval, Approval::Approved);
    assert_eq!(
        version.metadata["approval-2@bf08810b"],
        "round=1 user=user2 pipeline=7 job=8 at=1970-01-01T12:00:00Z reason=fine: see _report_"
    );
    assert_eq!(
        version.approval_description,
        "Approved by user2 (user 2) in job 8 of pipeline 7 of group/project: fine: see \"report\""
    );
    let writes = desk.writes();
    let again = desk.run_as(Some("3"), &["approve", "--latest"]).await;
    assert!(again.out.starts_with("churn version 1: unchanged\n"), "{}{}", again.out, again.error);
    assert_eq!(desk.writes(), writes);
}

#[tokio::test]
async fn an_approved_version_counts_only_under_the_rule() {
    let desk = registered().await;
    let arn = version(&desk).arn;
    desk.memory.registry.change(&arn, |version| version.approval = Approval::Approved);
    let two = ["approve", "--latest", "--min-approvals", "2", "--no-self"];
    let first = desk.run_as(Some("2"), &two).await;
    assert_eq!(first.kind, NOT_YET, "{}", first.error);
    assert!(first.error.contains("1 of 2 approvals are there (user2): 1 missing"), "{}", first.error);
    assert!(first.error.contains("approved outside of this program, or under a weaker rule"), "{}", first.error);
    let second = desk.run_as(Some("3"), &two).await;
    assert!(second.out.starts_with("churn version 1: recorded\n"), "{}{}", second.out, second.error);
    assert_eq!((second.kind, version(&desk).approval), (None, Approval::Approved));
    let again = desk.run_as(Some("3"), &two).await;
    assert!(again.out.starts_with("churn version 1: unchanged\n"), "{}{}", again.out, again.error);
}

/// Approvals from before a rejection in the console, which leaves no record, do not count after it.
#[tokio::test]
async fn a_rejection_outside_of_the_program_ends_the_round() {
    let desk = registered().await;
    let two = ["approve", "--latest", "--min-approvals", "2"];
    desk.run_as(Some("2"), &two).await;
    let arn = version(&desk).arn;
    desk.memory.registry.change(&arn, |version| version.approval = Approval::Rejected);
    let forced = desk.run_as(Some("3"), &[&two[..], &["--force"]].concat()).await;
    assert!(forced.error.contains("1 of 2 approvals are there (user3): 1 missing"), "{}", forced.error);
    assert_eq!(version(&desk).approval, Approval::Pending);
    assert!(version(&desk).metadata["rejection-1"].starts_with("outside=true id=3@bf08810b "));
    assert_eq!(desk.run_as(Some("2"), &two).await.kind, None);
}

#[tokio::test]
async fn a_full_version_is_rejected_without_a_record() {
    let desk = registered().await;
    let arn = version(&desk).arn;
    desk.run_as(Some("2"), &["approve", "--latest"]).await;
    desk.memory.registry.change(&arn, |version| {
        let free = 50 - version.metadata.len();
        version.metadata.extend((0..free).map(|at| (format!("own-{at}"), String::new())));
    });
    for outcome in ["rejected", "unchanged"] {
        let ended = desk.run_as(Some("4"), &["reject", "--latest", "--reason", "drifts"]).await;
        assert!(ended.out.starts_with(&format!("churn version 1: {outcome}\n")), "{}{}", ended.out, ended.error);
        assert_eq!(version(&desk).approval, Approval::Rejected);
        assert!(version(&desk).approval_description.ends_with(": drifts"));
    }
    let forced = desk.run_as(Some("2"), &["approve", "--latest", "--force"]).await;
    assert!(forced.error.contains("no room for another approval"), "{}", forced.error);
}

#[tokio::test]
async fn enough_different_users_approve() {
    let desk = registered().await;
    let approve = ["approve", "--version", "1", "--min-approvals", "2", "--no-self"];
    let own = desk.run_as(Some("1"), &approve).await;
    assert!(own.kind == NOT_YET && own.error.contains("user1 registered this version"), "{}", own.error);
    for _ in 0..2 {
        let first = desk.run_as(Some("2"), &approve).await;
        assert!(
            first.kind == NOT_YET && first.error.contains("1 of 2 approvals are there (user2): 1 missing"),
            "{}",
            first.error
        );
        assert!(first.out.starts_with("churn version 1: recorded\n"), "{}", first.out);
        assert_eq!(version(&desk).approval, Approval::Pending);
    }
    assert_eq!(desk.memory.registry.count("update_version"), 1);
    let second = desk.run_as(Some("3"), &approve).await;
    assert_eq!((second.kind, version(&desk).approval), (None, Approval::Approved), "{}", second.error);
}

#[tokio::test(start_paused = true)]
async fn two_users_at_once_lose_no_record() {
    let desk = registered().await;
    for slow in ["update_version", "version"] {
        desk.memory.registry.plan([Fault::slow(slow, Duration::from_secs(1))]);
        let arn = desk.memory.registry.all().last().unwrap().arn.clone();
        let approve = ["approve", "--model-package", &arn, "--min-approvals", "2"];
        let (one, other) = tokio::join!(desk.run_as(Some("2"), &approve), desk.run_as(Some("3"), &approve));
        assert!(one.kind.is_none() || other.kind.is_none(), "{}{}", one.error, other.error);
        assert_eq!(desk.memory.registry.all().last().unwrap().approval, Approval::Approved);
        desk.memory.registry.plan([]);
        let next = Desk {
            env: BTreeMap::from([("CI_PIPELINE_ID".to_owned(), "99".to_owned())]),
            memory: desk.memory.clone(),
            ..Desk::new()
        };
        next.registers().await;
    }
}

#[tokio::test]
async fn the_manifest_cannot_be_undercut() {
    let desk = registered().await;
    desk.manifest(|manifest| manifest["model"]["approvals"] = json!({"min": 2, "no_self": true}));
    let ended = desk.run_as(Some("2"), &["approve", "--latest", "--min-approvals", "1"]).await;
    assert_eq!(ended.kind, NOT_YET, "{}", ended.error);
    let own = desk.run_as(Some("1"), &["approve", "--latest"]).await;
    assert_eq!(own.kind, NOT_YET, "{}", own.error);
}

#[tokio::test]
async fn a_rejection_holds_until_it_is_forced_open() {
    let desk = registered().await;
    let two = ["approve", "--latest", "--min-approvals", "2"];
    desk.run_as(Some("2"), &two).await;
    let ended = desk.run_as(Some("4"), &["reject", "--latest", "--reason", "drifts"]).await;
    assert!(ended.out.starts_with("churn version 1: rejected\n"), "{}{}", ended.out, ended.error);
    assert_eq!(
        version(&desk).metadata["rejection-1"],
        "id=4@bf08810b user=user4 pipeline=7 job=8 at=1970-01-01T12:00:00Z reason=drifts"
    );
    let again = desk.run_as(Some("5"), &["reject", "--latest", "--reason", "too"]).await;
    assert!(again.out.starts_with("churn version 1: unchanged\n"), "{}{}", again.out, again.error);
    let refused = desk.run_as(Some("3"), &two).await;
    assert!(refused.kind == Some(Kind::User) && refused.error.contains("`--force`"), "{}", refused.error);
    assert!(refused.error.contains("the version is rejected: Rejected by user4 (user 4)"), "{}", refused.error);
    // The approval of the first round counts no more.
    let forced = desk.run_as(Some("3"), &[&two[..], &["--force"]].concat()).await;
    assert_eq!((forced.kind, version(&desk).approval), (NOT_YET, Approval::Pending), "{}", forced.error);
    assert_eq!(desk.run_as(Some("2"), &two).await.kind, None);
    assert_eq!(version(&desk).approval, Approval::Approved);
}

#[tokio::test]
async fn a_registry_that_replaces_records_loses_none() {
    let desk = registered().await;
    desk.memory.registry.replace_metadata();
    let before = version(&desk).metadata;
    let two = ["approve", "--latest", "--min-approvals", "2"];
    assert_eq!(desk.run_as(Some("2"), &two).await.kind, NOT_YET);
    assert_eq!(desk.run_as(Some("3"), &two).await.kind, None);
    let after = version(&desk).metadata;
    assert!(before.iter().all(|(name, value)| after.get(name) == Some(value)), "{after:?}");
    assert_eq!(after.len(), before.len() + 2, "{after:?}");
}

/// Loses a record right after the first update.
#[derive(Debug)]
struct Loses(Memory, String);
impl Watch for Loses {
    fn look(&self, method: &'static str, _: &str, when: When) -> FaultDecision {
        if method == "update_version" && when == When::After && self.0.registry.count("update_version") == 1 {
            self.0.registry.change(&self.1, |version| {
                version.metadata.remove("commit");
            });
        }
        FaultDecision::Passes
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_lost_is_written_again() {
    let desk = registered().await;
    let arn = version(&desk).arn;
    desk.memory.registry.watch(Arc::new(Loses(desk.memory.clone(), arn)));
    let ended = desk.run_as(Some("2"), &["approve", "--latest"]).await;
    assert_eq!((ended.kind, version(&desk).metadata["commit"].as_str()), (None, "c0ffee"), "{}", ended.error);
}

/// Puts a rejection between an approval and its reading back.
#[derive(Debug)]
struct RejectsThen(Memory, String);
impl Watch for RejectsThen {
    fn look(&self, method: &'static str, _: &str, when: When) -> FaultDecision {
        if method == "update_version" && when == When::After && self.0.registry.count("update_version") == 2 {
            self.0.registry.change(&self.1, |version| {
                version.metadata.insert("rejection-1".to_owned(), "id=4 user=user4".to_owned());
            });
        }
        FaultDecision::Passes
    }
}

#[tokio::test]
async fn a_rejection_at_the_same_time_wins() {
    let desk = registered().await;
    let arn = version(&desk).arn;
    desk.memory.registry.watch(Arc::new(RejectsThen(desk.memory.clone(), arn)));
    let ended = desk.run_as(Some("2"), &["approve", "--latest"]).await;
    assert!(ended.error.contains("the version was rejected meanwhile"), "{}", ended.error);
    assert_eq!(version(&desk).approval, Approval::Rejected);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_another_one_prevents_is_tried_again() {
    let desk = registered().await;
    desk.memory.registry.plan([Fault::new("update_version", 1, When::Before, CloudErrorKind::Exists).times(2)]);
    assert_eq!(desk.run_as(Some("2"), &["approve", "--latest"]).await.kind, None);
    desk.memory.registry.plan([Fault::new("update_version", 1, When::Before, CloudErrorKind::Exists).forever()]);
    let ended = desk.run_as(Some("2"), &["reject", "--latest", "--reason", "x"]).await;
    assert_eq!(ended.kind, Some(Kind::Verdict { code: exit_codes::TRY_LATER }), "{}", ended.error);
}

#[test_case(None, &["approve", "--latest"], "the job has no id token, which says who approves: `SAGEMAKER_ID_TOKEN` is not set"; "no token")]
#[test_case(Some("2"), &["approve"], "no version is named"; "no version")]
#[test_case(Some("2"), &["approve", "--version", "9"], "the registry has no version arn:aws:sagemaker:eu-west-1:123456789012:model-package/churn/9"; "absent")]
#[test_case(Some("2"), &["approve", "--model-package", "arn:aws:sagemaker:us-east-1:123456789012:model-package/churn/1"], "whose region is not that of the manifest, `eu-west-1`"; "another region")]
#[test_case(Some("2"), &["approve", "--model-package", "arn:aws:sagemaker:eu-west-1:000000000000:model-package/churn/1"], "whose account is not"; "another account")]
#[test_case(Some("2"), &["approve", "--model-package", "arn:aws:sagemaker:eu-west-1:123456789012:model-package/other/1"], "whose group is not"; "another group")]
#[test_case(Some("2"), &["approve", "--model-package", "arn:aws-cn:sagemaker:eu-west-1:123456789012:model-package/churn/1"], "whose partition is not that of the manifest, `aws`"; "another partition")]
#[test_case(Some("2"), &["approve", "--model-package", "arn:aws:sagemaker:eu-west-1:123456789012:model-package/churn/+1"], "which is no ARN of a version"; "a sign")]
#[test_case(Some("2"), &["approve", "--model-package", "arn:aws:sagemaker:eu-west-1:123456789012:model-package/churn/01"], "which is no ARN of a version"; "a leading zero")]
#[test_case(Some("2"), &["approve", "--model-package", "churn"], "which is no ARN of a version"; "no arn")]
#[test_case(Some("2"), &["reject", "--latest", "--reason", " "], "a rejection needs a reason"; "no reason")]
#[test_case(Some("x"), &["approve", "--latest"], "`SAGEMAKER_ID_TOKEN` holds no id token of GitLab"; "no user")]
fn a_wrong_request_changes_nothing(user: Option<&str>, words: &[&str], expected: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let desk = registered().await;
        let ended = desk.run_as(user, words).await;
        assert_eq!(ended.kind, Some(Kind::User), "{}", ended.error);
        assert!(ended.error.contains(expected), "{}", ended.error);
        assert_eq!(desk.memory.registry.count("update_version"), 0);
    });
}

/// A person who starts a pipeline can set each of them.
#[test_case("AWS_ENDPOINT_URL", "http://127.0.0.1:1"; "all services")]
#[test_case("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1"; "sts")]
#[test_case("AWS_ENDPOINT_URL_SAGEMAKER", "http://127.0.0.1:1"; "sagemaker")]
#[test_case("AWS_CA_BUNDLE", "own.pem"; "roots")]
fn no_variable_chooses_the_server_that_accepts_a_token(name: &str, value: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let desk = registered().await.with([(name, value)]);
        let calls = desk.memory.registry.calls();
        for words in
            [&["approve", "--latest"][..], &["reject", "--latest", "--reason", "x"], &["register"], &["latest"]]
        {
            let ended = desk.run_as(Some("2"), words).await;
            assert_eq!(ended.kind, Some(Kind::User), "{}", ended.error);
            assert!(
                ended.error.contains(&format!("`{name}` is set")) && ended.error.contains("--endpoint-url"),
                "{}",
                ended.error
            );
        }
        assert_eq!(desk.memory.registry.calls(), calls);
    });
}

#[tokio::test]
async fn the_account_must_be_known() {
    let desk = registered().await;
    desk.manifest(|manifest| drop(manifest["environments"]["prod"].as_object_mut().unwrap().remove("account")));
    for words in [&["approve", "--latest"][..], &["reject", "--latest", "--reason", "x"]] {
        let ended = desk.run_as(Some("2"), words).await;
        assert!(ended.error.contains("the environment prod has no `account`"), "{}", ended.error);
        let ended = desk.run_in(None, Some("2"), words).await;
        assert!(ended.error.contains("no environment is named"), "{}", ended.error);
    }
    assert_eq!(desk.memory.registry.count("update_version"), 0);
}

#[tokio::test]
async fn an_unknown_author_cannot_be_excluded() {
    let desk = Desk::new();
    desk.registers().await;
    let ended = desk.run_as(Some("2"), &["approve", "--latest", "--no-self"]).await;
    assert!(ended.kind == Some(Kind::User) && ended.error.contains("nobody knows who registered"), "{}", ended.error);
}
