//! Commands that are killed at any of their calls, before the call or after it, and are then run again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;
use crate::cloud::testing::{FaultDecision, Watch, When};
use crate::cloud::{ScalableTarget, ScaledQuantity, ScaledVariant};

/// Lets no call pass from the `at`th moment on; counts the moments.
#[derive(Debug)]
struct Kill {
    at: usize,
    seen: AtomicUsize,
    dead: Notify,
}

impl Kill {
    fn at(at: usize) -> Arc<Self> {
        Arc::new(Self { at, seen: AtomicUsize::new(0), dead: Notify::new() })
    }

    fn watch(self: &Arc<Self>, desk: &EndpointDesk) {
        desk.memory.serving.watch(self.clone());
        desk.memory.objects.watch(self.clone());
    }
}

impl Watch for Kill {
    fn look(&self, _: &'static str, _: &str, _: When) -> FaultDecision {
        if self.seen.fetch_add(1, Ordering::Relaxed) < self.at {
            return FaultDecision::Passes;
        }
        self.dead.notify_one();
        FaultDecision::Hangs
    }
}

/// A command, and the desk before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    First,
    Update,
    OtherType,
    AlarmSounds,
    AnswersWrongly,
    Rollback,
}

const ACTS: [Act; 6] = [Act::First, Act::Update, Act::OtherType, Act::AlarmSounds, Act::AnswersWrongly, Act::Rollback];

impl Act {
    fn words(self) -> &'static [&'static str] {
        if self == Self::Rollback { &["rollback", "--reason", "too slow"] } else { &["deploy"] }
    }

    /// How an undisturbed run ends.
    fn end(self) -> Option<Kind> {
        match self {
            Self::AlarmSounds => Some(Kind::Verdict { code: 20 }),
            Self::AnswersWrongly => Some(Kind::Verdict { code: 21 }),
            Self::First | Self::Update | Self::OtherType | Self::Rollback => None,
        }
    }

    async fn desk(self) -> EndpointDesk {
        let desk = EndpointDesk::new().await;
        let scaling = json!({"min": 2, "max": 4, "target": 100});
        let scaled = |manifest: &mut Value| manifest["endpoint"]["autoscaling"] = scaling.clone();
        if self == Self::First {
            desk.manifest(scaled);
            return desk;
        }
        if self == Self::OtherType {
            desk.manifest(scaled);
        }
        desk.deploy().await.good();
        let first = desk.memory.serving.models()[0].name.clone();
        if self == Self::OtherType {
            desk.memory.account.set_quota("ml.m6g.large", 8.0);
            desk.manifest(|manifest| {
                scaled(manifest);
                manifest["endpoint"]["instances"]["type"] = json!("ml.m6g.large");
            });
            return desk;
        }
        desk.version(2).await;
        match self {
            Self::AnswersWrongly => desk.answer(move |model| if model == first { "good" } else { "bad" }),
            Self::AlarmSounds => desk.memory.serving.spoil(&second_model().await, "wine-5xx"),
            Self::Rollback => {
                desk.deploy().await.good();
            }
            Self::First | Self::Update | Self::OtherType => {}
        }
        desk
    }

    async fn run(self, desk: &EndpointDesk) -> Ended {
        desk.run(self.words()).await
    }
}

/// The name of the model of the second version, which is the same on every desk.
async fn second_model() -> String {
    let desk = EndpointDesk::new().await;
    desk.version(2).await;
    desk.deploy().await.good();
    desk.memory.serving.models()[0].name.clone()
}

/// Everything that a command leaves beside the ledger.
#[derive(Debug, PartialEq)]
struct Left {
    kind: Option<Kind>,
    config: Option<String>,
    configs: BTreeSet<String>,
    models: BTreeSet<String>,
    alarms: Vec<String>,
    scaling: Option<ScalableTarget>,
    instances: Option<u32>,
}

impl Left {
    async fn by(desk: &EndpointDesk, ended: Ended) -> Self {
        let serving = &desk.memory.serving;
        let (endpoint, variant) = ("wine".to_owned(), "AllTraffic".to_owned());
        let variant = ScaledVariant { endpoint, variant, quantity: ScaledQuantity::Instances };
        Self {
            kind: ended.kind,
            config: desk.in_service().await,
            configs: serving.all_configs().into_iter().map(|config| config.name).collect(),
            models: serving.models().into_iter().map(|model| model.name).collect(),
            alarms: serving.alarm_names(),
            scaling: serving.scalable_target(&variant),
            instances: serving.instances("wine"),
        }
    }
}

/// Each number has a begin and an end, and the begins name every configuration.
fn assert_whole_ledger(desk: &EndpointDesk, left: &Left, kills: &str) {
    let keys = desk.memory.objects.keys();
    let keys: Vec<_> =
        keys.iter().filter(|key| key.starts_with("deployments/") && !key.ends_with(".back.json")).collect();
    let mut named = BTreeSet::new();
    for number in 1..=keys.len() / 2 {
        let begin = desk.record(&format!("{number:08}.begin"));
        assert_ne!(desk.record(&format!("{number:08}.end")), Value::Null, "{kills}: {keys:?}");
        named.extend(["from_config", "to_config"].iter().filter_map(|key| begin[key].as_str().map(str::to_owned)));
    }
    assert_eq!(keys.len() % 2, 0, "{kills}: {keys:?}");
    assert!(left.configs.is_subset(&named), "{kills}: {left:?}");
}

/// Kills a command at these moments, one run after the other, with a pause after each, and then lets it end.
async fn survives(act: Act, kills: &[(usize, u64)], undisturbed: &Left) {
    let desk = act.desk().await;
    for (at, pause) in kills {
        let kill = Kill::at(*at);
        kill.watch(&desk);
        tokio::select! {
            _ = act.run(&desk) => {}
            () = kill.dead.notified() => {}
        }
        tokio::time::sleep(Duration::from_secs(*pause)).await;
    }
    Kill::at(usize::MAX).watch(&desk);
    let ended = act.run(&desk).await;
    let text = format!("{act:?} {kills:?}: {}{}", ended.lines, ended.error);
    let left = Left::by(&desk, ended).await;
    assert_eq!(&left, undisturbed, "{text}");
    assert_whole_ledger(&desk, &left, &text);
}

/// `KILLS` says how many there are; with it, each command is also killed at each of its moments.
#[tokio::test(start_paused = true)]
async fn a_killed_command_ends_as_an_undisturbed_one_when_it_is_run_again() {
    let wanted = Environment::of_process().get("KILLS").map(|kills| kills.parse::<usize>().unwrap());
    let mut random = fastrand::Rng::with_seed(7);
    let mut pause = move || [0, 1, 30, 300, 7200][random.usize(..5)];
    let mut acts = Vec::new();
    for act in ACTS {
        let desk = act.desk().await;
        let count = Kill::at(usize::MAX);
        count.watch(&desk);
        let ended = act.run(&desk).await;
        let moments = count.seen.load(Ordering::Relaxed);
        let left = Left::by(&desk, ended).await;
        assert_eq!(left.kind, act.end(), "{act:?}");
        assert_whole_ledger(&desk, &left, &format!("{act:?}"));
        for at in (0..moments).filter(|_| wanted.is_some()) {
            survives(act, &[(at, pause())], &left).await;
        }
        acts.push((act, moments, left));
    }
    let mut random = fastrand::Rng::with_seed(8);
    for number in 0..wanted.unwrap_or(20) {
        let (act, moments, left) = &acts[number % acts.len()];
        let kills: Vec<_> = (0..random.usize(1..4)).map(|_| (random.usize(..*moments), pause())).collect();
        survives(*act, &kills, left).await;
    }
}
