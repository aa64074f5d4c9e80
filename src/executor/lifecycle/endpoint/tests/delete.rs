//! Tests of `endpoint delete` over the fakes.

use test_case::test_case;

use super::*;
use crate::base::exit_codes::TRY_LATER;
use crate::cloud::testing::Fault;
use crate::cloud::{CloudErrorKind, EndpointChange};

const DELETE: [&str; 3] = ["delete", "--environment", "test"];

/// Everything that stands in the account, but for the ledger.
fn account(desk: &ServedDesk) -> Vec<String> {
    let serving = &desk.memory.serving;
    let models = serving.models().into_iter().map(|model| model.name);
    let configs = serving.all_configs().into_iter().map(|config| config.name);
    let mut all: Vec<_> = models.chain(configs).chain(serving.endpoint_names()).chain(serving.alarm_names()).collect();
    all.extend(serving.scalable_target(&variant()).map(|_| "target".to_owned()));
    all
}

const OF_OTHERS: [&str; 4] = ["beer-m-0", "beer-0", "beer", "beer-5xx"];

#[tokio::test(start_paused = true)]
async fn everything_of_the_endpoint_is_deleted_and_nothing_else() {
    let desk = ServedDesk::new().await;
    let before = account(&desk);
    let planned = desk.run(&[&DELETE[..], &["--dry-run"]].concat()).await;
    assert_eq!(planned.kind, None, "{}", planned.error);
    assert_eq!(account(&desk), before);
    assert_eq!(desk.history().await.len(), 2);
    let ended = desk.run(&[&DELETE[..], &["--reason", "no longer used"]].concat()).await;
    assert_eq!(ended.kind, None, "{}", ended.error);
    assert_eq!(account(&desk), OF_OTHERS);
    assert_eq!(ended.out.replace("wine: deleted", "wine: would be deleted"), planned.out);
    insta::assert_snapshot!(ended.out, @r"
    wine: deleted
      scalable target       AllTraffic
      endpoint              wine
      model                 wine-m-1
      configuration         wine-1
      model                 wine-m-0
      configuration         wine-0
      alarm                 wine-5xx
    ");
    let newest = desk.history().await.remove(0);
    assert_eq!((newest.number, newest.begin.kind, newest.has_succeeded()), (3, LedgerKind::Delete, true));
    assert_eq!(newest.begin.reason.as_deref(), Some("no longer used"));
    let again = desk.run(&DELETE).await;
    assert_eq!((again.kind, again.out.as_str()), (None, "wine: already gone\n"), "{}", again.error);
    assert_eq!(desk.history().await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn production_is_deleted_with_its_name_alone() {
    let desk = ServedDesk::new().await;
    let before = account(&desk);
    for (words, told) in [
        (&["--environment", "prod"][..], "give `--confirm wine`"),
        (&["--environment", "prod", "--confirm", "beer"], "is `wine`, and not the one of `--confirm`"),
        (&["--environment", "test", "--confirm", "beer"], "is `wine`, and not the one of `--confirm`"),
    ] {
        let refused = desk.run(&[&["delete"], words].concat()).await;
        assert!(refused.kind == Some(Kind::User) && refused.error.contains(told), "{}", refused.error);
    }
    assert_eq!(account(&desk), before);
    let ended = desk.run(&["delete", "--environment", "prod", "--confirm", "wine"]).await;
    assert_eq!((ended.kind, account(&desk)), (None, OF_OTHERS.map(str::to_owned).to_vec()), "{}", ended.error);
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_of_another_program_stays() {
    let desk = ServedDesk::new().await;
    let serving = &desk.memory.serving;
    serving.create_endpoint(&example_endpoint("water", "wine-1")).await.unwrap();
    let before = account(&desk);
    desk.manifest(|manifest| manifest["endpoint"]["name"] = json!("water"));
    let refused = desk.run(&DELETE).await;
    assert_eq!(refused.kind, Some(Kind::User), "{}", refused.error);
    assert!(refused.error.contains("was not made by this program"), "{}", refused.error);
    assert_eq!(account(&desk), before);
}

/// One name of an endpoint in two projects, in two environments of one manifest, or of GitLab: that of staging for a merge request.
#[test_case("project", "other/project", "it is of the project other/project, not group/project"; "project")]
#[test_case("environment", "production", "it is of the environment production, not test"; "environment")]
#[test_case("gitlab-environment", "staging", "it is of the GitLab environment staging, not review/topic"; "environment of GitLab")]
#[tokio::test(start_paused = true)]
async fn the_endpoint_of_another_owner_stays_and_is_not_waited_for(tag: &str, other: &str, told: &str) {
    let desk = ServedDesk { gitlab_environment: "review/topic", ..ServedDesk::new().await };
    let serving = &desk.memory.serving;
    let mut tags = tags("water");
    let owner = [("project", "group/project"), ("environment", "test"), ("gitlab-environment", "review/topic")];
    let owner = owner.map(|(name, value)| (name, if name == tag { other } else { value }));
    tags.extend(owner.map(|(name, value)| (format!("sagemaker-executor:{name}"), value.to_owned())));
    serving.create_endpoint(&NewEndpoint { tags, ..example_endpoint("water", "wine-1") }).await.unwrap();
    let (before, began) = (account(&desk), tokio::time::Instant::now());
    desk.manifest(|manifest| manifest["endpoint"]["name"] = json!("water"));
    let refused = desk.run(&DELETE).await;
    assert!(refused.kind == Some(Kind::User) && refused.error.contains(told), "{}", refused.error);
    assert_eq!((account(&desk), began), (before, tokio::time::Instant::now()));
}

/// The newest deployments of the ledger had no alarm.
#[tokio::test(start_paused = true)]
async fn alarms_go_whatever_the_ledger_says() {
    let desk = ServedDesk::new().await;
    for key in desk.memory.objects.keys() {
        desk.memory.objects.expire(&key);
    }
    let ended = desk.run(&DELETE).await;
    assert_eq!((ended.kind, account(&desk)), (None, OF_OTHERS.map(str::to_owned).to_vec()), "{}", ended.error);
}

/// A customer's endpoint was made from what a deployment left, or goes there now.
#[test_case(false; "serves it")]
#[test_case(true; "is updated to it")]
#[tokio::test(start_paused = true)]
async fn what_another_endpoint_uses_stays(is_updated: bool) {
    let desk = ServedDesk::new().await;
    let serving = &desk.memory.serving;
    let first = if is_updated { "beer-0" } else { "wine-0" };
    serving.create_endpoint(&example_endpoint("customer", first)).await.unwrap();
    tokio::time::sleep(Duration::from_mins(10)).await;
    if is_updated {
        let [name, config] = ["customer", "wine-0"].map(str::to_owned);
        serving.update_endpoint(&EndpointChange { name, config, keeps_counts: true, rollout: None }).await.unwrap();
    }
    let left = ["beer-m-0", "wine-m-0", "wine-0", "beer-0", "beer", "customer", "beer-5xx"];
    let ended = desk.run(&DELETE).await;
    assert_eq!((ended.kind, account(&desk)), (None, left.map(str::to_owned).to_vec()), "{}", ended.error);
    let stays = "  model                 wine-m-0  stays: the endpoint customer uses it\n  configuration         wine-0  stays: the endpoint customer uses it\n";
    assert!(ended.out.contains(stays), "{}", ended.out);
    let again = desk.run(&DELETE).await;
    assert_eq!((again.kind, again.out), (None, format!("wine: already gone\n{stays}")), "{}", again.error);
    assert_eq!(account(&desk), left);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_while_the_use_is_not_known() {
    let desk = ServedDesk::new().await;
    let before = account(&desk);
    desk.memory.serving.plan([Fault::new("all_endpoints", 1, When::Before, CloudErrorKind::Denied).forever()]);
    assert_eq!(desk.run(&DELETE).await.kind, Some(Kind::System));
    assert_eq!(account(&desk), before);
}

/// The models, configurations and alarms of other owners stay, whatever their names are.
#[tokio::test(start_paused = true)]
async fn nothing_of_another_owner_goes_with_the_endpoint() {
    let desk = ServedDesk::new().await;
    let mut tags = tags("wine");
    tags.insert("sagemaker-executor:environment".to_owned(), "prod".to_owned());
    let serving = &desk.memory.serving;
    serving.create_model(&ServedModel { tags: tags.clone(), ..example_model("wine-m-7") }).await.unwrap();
    let config = EndpointConfiguration { tags, ..example_config("wine-7", "wine-m-7") };
    serving.create_config(&config).await.unwrap();
    let ended = desk.run(&DELETE).await;
    assert_eq!(ended.kind, None, "{}", ended.error);
    assert_eq!(account(&desk), ["beer-m-0", "wine-m-7", "beer-0", "wine-7", "beer", "beer-5xx"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_under_way_is_waited_for_within_the_limit() {
    let desk = ServedDesk::new().await;
    let change =
        EndpointChange { name: "wine".to_owned(), config: "wine-0".to_owned(), keeps_counts: true, rollout: None };
    desk.memory.serving.update_endpoint(&change).await.unwrap();
    let early = desk.run(&[&DELETE[..], &["--timeout", "10s"]].concat()).await;
    assert_eq!(early.kind, Some(Kind::Verdict { code: TRY_LATER }), "{}", early.error);
    desk.memory.serving.show_late(3);
    let ended = desk.run(&DELETE).await;
    assert_eq!(ended.kind, None, "{}", ended.error);
    assert!(ended.told.contains("wine: Updating"), "{}", ended.told);
    assert_eq!(account(&desk), OF_OTHERS);
}

/// A deployment that was interrupted is ended by the deletion.
#[tokio::test(start_paused = true)]
async fn the_ledger_has_no_deployment_without_an_end() {
    let desk = ServedDesk::new().await;
    desk.ledger().begin(&begin(2)).await.unwrap();
    assert_eq!(desk.run(&DELETE).await.kind, None);
    assert_eq!(desk.ledger().open().await.unwrap(), None);
}

/// `SIGKILL` before or after any call: the same command again ends as an undisturbed one.
#[tokio::test(start_paused = true)]
async fn a_killed_deletion_goes_on() {
    let undisturbed = ServedDesk::new().await;
    let count = undisturbed.kill_at(usize::MAX);
    assert_eq!(undisturbed.run(&DELETE).await.kind, None);
    let moments = count.seen.load(Ordering::Relaxed);
    for at in 0..moments {
        let desk = ServedDesk::new().await;
        desk.kill_at(at);
        let killed = tokio::time::timeout(Duration::from_hours(10), desk.run(&DELETE)).await;
        assert!(killed.is_err(), "{at}");
        desk.kill_at(usize::MAX);
        let ended = desk.run(&DELETE).await;
        assert_eq!(ended.kind, None, "{at}: {}", ended.error);
        assert_eq!(account(&desk), account(&undisturbed), "{at}");
        assert_eq!(desk.history().await, undisturbed.history().await, "{at}");
    }
}
