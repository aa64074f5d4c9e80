//! Plan of one simulated session, drawn from its seed before it begins.

use std::time::Duration;

/// A linear congruential generator: the same numbers everywhere.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        dice.below(2);
        dice
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    pub(super) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    /// A duration from zero to `most` milliseconds.
    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) code: i32,
    pub(super) has_after_script: bool,
    /// The script's output: the pause before each piece, and the piece.
    pub(super) pieces: Vec<(Duration, String)>,
    /// Time between the creation of a training job and its container.
    pub(super) provisioning: Duration,
    /// Number of describes that do not show the new job yet.
    pub(super) hidden: u32,
    /// Number of training jobs that end without capacity.
    pub(super) without_capacity: u32,
    /// The container ends this long after its start.
    pub(super) leaves: Option<(Duration, Leaving)>,
    pub(super) kills: Vec<Kill>,
    pub(super) cancel: Option<Cancel>,
    pub(super) trouble: Option<Trouble>,
    /// When the host's clock jumps, and by how many hours.
    pub(super) jump: Option<(Duration, i64)>,
    /// Time between two calls of the runner.
    pub(super) gap: Duration,
    /// Each ends one start of the containers.
    pub(super) interruptions: Vec<Interruption>,
    /// The job says that its script may run again after one.
    pub(super) may_rerun: bool,
}

/// SageMaker takes the instances away, and starts the containers on others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interruption {
    /// Time since the start of the containers.
    pub(super) after: Duration,
    /// The agents are told before.
    pub(super) is_told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Killed, for instance by the kernel: no last report.
    Killed,
    /// Lost with its instance: SageMaker reports an internal error.
    InstanceLost,
    /// Stopped by SageMaker at its time limit: the agent ends the script and sends the results.
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Prepare,
    Container,
    AfterScript,
    Host,
    Cleanup,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Kill {
    pub(super) stage: Stage,
    pub(super) at: Moment,
    pub(super) then: Then,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Moment {
    /// At a call of a port. Each call has two moments: before and after it takes effect.
    Call(u64),
    /// The same, counting only calls that change something.
    Write(u64),
    /// This long after this many reports of the agents.
    Report(u64, Duration),
    Time(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The same stage again.
    Again,
    /// The stages of a failed job.
    Next,
    Cleanup,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Cancel {
    pub(super) stage: Stage,
    pub(super) after: Duration,
    /// A second signal follows.
    pub(super) twice: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Trouble {
    /// The store is unreachable from this time on, for this long.
    pub(super) away: Option<(Duration, Duration)>,
    /// One call in `one_in` is throttled, or its answer is lost.
    pub(super) one_in: u64,
}

impl Plan {
    pub(super) fn drawn(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let nodes = if dice.one_in(4) { 2 } else { 1 };
        let pieces = pieces(&mut dice, nodes > 1);
        let length = pieces.iter().map(|(pause, _)| *pause).sum::<Duration>();
        let longest = if dice.one_in(8) { 120_000 } else { 30_000 };
        let provisioning = dice.millis(longest);
        let session = u64::try_from((length + provisioning).as_millis()).unwrap() + 20_000;
        let trouble = dice.one_in(4).then(|| Trouble {
            away: dice.one_in(2).then(|| (dice.millis(session), dice.millis(40_000))),
            one_in: 10 + dice.below(60),
        });
        let leaving = if dice.one_in(2) { Leaving::Killed } else { Leaving::Stopped };
        Self {
            seed,
            nodes,
            code: if dice.one_in(3) { 1 + i32::try_from(dice.below(100)).unwrap() } else { 0 },
            has_after_script: dice.one_in(2),
            pieces,
            provisioning,
            hidden: if dice.one_in(4) { u32::try_from(dice.below(3)).unwrap() } else { 0 },
            without_capacity: if dice.one_in(6) { 1 + u32::try_from(dice.below(2)).unwrap() } else { 0 },
            leaves: dice.one_in(6).then(|| (dice.millis(session), leaving)),
            kills: kills(&mut dice, session),
            cancel: dice.one_in(6).then(|| Cancel {
                stage: [Stage::Prepare, Stage::Container, Stage::Container, Stage::AfterScript]
                    [usize::try_from(dice.below(4)).unwrap()],
                after: dice.millis(session),
                twice: dice.one_in(3),
            }),
            trouble,
            jump: dice
                .one_in(4)
                .then(|| (dice.millis(session), [-96, -1, 1, 48][usize::try_from(dice.below(4)).unwrap()])),
            gap: if dice.one_in(20) { Duration::from_mins(20) } else { dice.millis(5000) },
            interruptions: interruptions(&mut dice, u64::try_from(length.as_millis()).unwrap() + 5000),
            may_rerun: !dice.one_in(4),
        }
    }

    /// `true` for a plan with nothing but kills and events that no job notices.
    pub(super) fn is_calm(&self) -> bool {
        self.leaves.is_none()
            && self.cancel.is_none()
            && self.trouble.is_none()
            && self.without_capacity < 2
            && self.gap < Duration::from_mins(1)
            // An interruption in or before `after_script` takes the files of the script.
            && (self.interruptions.is_empty() || self.may_rerun && !self.has_after_script)
    }
}

/// Mostly while the script runs, which takes `most` milliseconds with the agent's own work.
fn interruptions(dice: &mut Dice, most: u64) -> Vec<Interruption> {
    if dice.one_in(2) {
        return Vec::new();
    }
    (0..=dice.below(4)).map(|_| Interruption { after: dice.millis(most), is_told: dice.one_in(2) }).collect()
}

/// Output pieces, numbered so that all differ. With several nodes each is a whole line: half a line waits only a second
/// for the rest.
fn pieces(dice: &mut Dice, whole: bool) -> Vec<(Duration, String)> {
    let mut pieces = Vec::new();
    for number in 0..dice.below(12) {
        let pause = if dice.one_in(16) { dice.millis(90_000) } else { dice.millis(3000) };
        let size = if dice.one_in(6) { usize::try_from(dice.below(9000)).unwrap() } else { 10 };
        let end = if whole || !dice.one_in(4) { "\n" } else { "" };
        pieces.push((pause, format!("<{number}>{}{end}", "-".repeat(size))));
    }
    pieces
}

fn kills(dice: &mut Dice, session: u64) -> Vec<Kill> {
    let stages = [
        Stage::Prepare,
        Stage::Container,
        Stage::Container,
        Stage::Container,
        Stage::Container,
        Stage::AfterScript,
        Stage::Host,
        Stage::Cleanup,
    ];
    let mut kills = Vec::new();
    for _ in 0..2 + dice.below(3) {
        let stage = stages[usize::try_from(dice.below(8)).unwrap()];
        // The usual numbers of calls.
        let (calls, writes) = match stage {
            Stage::Prepare => (4, 2),
            Stage::Container => (110, 16),
            Stage::AfterScript => (40, 8),
            Stage::Host => (12, 2),
            Stage::Cleanup => (10, 4),
        };
        let at = match dice.below(6) {
            0 if stage == Stage::Container => Moment::Time(dice.millis(session)),
            1 if stage == Stage::Container => Moment::Report(1 + dice.below(6), dice.millis(3000)),
            2 | 3 => Moment::Write(1 + dice.below(writes)),
            _ => Moment::Call(1 + dice.below(calls)),
        };
        let then =
            [Then::Again, Then::Again, Then::Next, Then::Next, Then::Cleanup][usize::try_from(dice.below(5)).unwrap()];
        kills.push(Kill { stage, at, then });
    }
    kills
}
