//! Sends the samples again and again, some at once, and counts their answers.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::assertions::{Judgement, judge};
use super::sample::EndpointSample;
use super::sending::{SendOutcome, Sender, SentRequest};
use super::statistics::milliseconds;
use crate::cloud::{CloudError, InferenceReply};

/// Time between two lines of a long test.
const HEARTBEAT: Duration = Duration::from_mins(1);

/// Number of requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct LoadShape {
    /// Sent before, one after another, and not counted.
    pub(super) warm_up: usize,
    pub(super) requests: usize,
    /// At once.
    pub(super) concurrency: usize,
}

/// The answers of a load.
#[derive(Debug, Default)]
pub(super) struct LoadResult {
    /// One for each sample.
    pub(super) tallies: Vec<SampleTally>,
    /// Times of the requests that were answered, and of those that were not answered in time.
    pub(super) latencies: Vec<Duration>,
    /// Time of the very first request, if it was answered.
    pub(super) first: Option<Duration>,
    /// How often no container was ready.
    pub(super) not_ready: u32,
    /// From the first counted request to the last answer.
    pub(super) took: Duration,
}

/// The answers to one sample.
#[derive(Debug, Clone, Default)]
pub(super) struct SampleTally {
    pub(super) right: u32,
    pub(super) wrong: u32,
    pub(super) errors: u32,
    /// Why the first wrong answer is wrong.
    pub(super) first_wrong: Option<String>,
    pub(super) first_error: Option<String>,
    /// The last reply that was judged: most replies are the same again.
    last: Option<(InferenceReply, Judgement)>,
}

/// Sends the load. `tell` gets the number of finished requests, once a minute.
///
/// # Errors
/// The first error that is no answer of the endpoint.
pub(super) async fn send_load(
    sender: &Sender,
    samples: &[EndpointSample],
    shape: LoadShape,
    tell: impl Fn(usize),
) -> Result<LoadResult, CloudError> {
    let mut result = LoadResult { tallies: vec![SampleTally::default(); samples.len()], ..LoadResult::default() };
    for number in 0..shape.warm_up {
        let sent = sender.send(&samples[number % samples.len()], number).await?;
        result.not_ready += sent.not_ready;
        if number == 0 && matches!(sent.outcome, SendOutcome::Reply(_)) {
            result.first = Some(sent.took);
        }
    }
    let started = Instant::now();
    let requests = stream::iter(0..shape.requests).map(|number| async move {
        let at = number % samples.len();
        (number, at, sender.send(&samples[at], shape.warm_up + number).await)
    });
    let mut requests = requests.buffer_unordered(shape.concurrency);
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.tick().await;
    let mut finished = 0;
    loop {
        let next = tokio::select! {
            biased;
            next = requests.next() => next,
            _ = heartbeat.tick() => {
                tell(finished);
                continue;
            }
        };
        let Some((number, at, sent)) = next else { break };
        let sent = sent?;
        result.not_ready += sent.not_ready;
        if number == 0 && shape.warm_up == 0 && matches!(sent.outcome, SendOutcome::Reply(_)) {
            result.first = Some(sent.took);
        }
        if result.tallies[at].count(&samples[at], &sent) {
            result.latencies.push(sent.took);
        }
        finished += 1;
    }
    result.took = started.elapsed();
    Ok(result)
}

impl SampleTally {
    pub(super) fn sent(&self) -> u32 {
        self.right + self.wrong + self.errors
    }

    /// Counts a request; whether its time counts.
    fn count(&mut self, sample: &EndpointSample, sent: &SentRequest) -> bool {
        let judgement = match &sent.outcome {
            SendOutcome::Failed(why) | SendOutcome::Late(why) => Judgement::Error(why.clone()),
            SendOutcome::Reply(reply) => self.judge(sample, reply),
        };
        let late = sample.expect.max_ms.filter(|limit| milliseconds(sent.took) > *limit);
        match (judgement, late) {
            (Judgement::Error(why), _) => {
                self.errors += 1;
                self.first_error.get_or_insert(why);
                return sent.is_late();
            }
            (Judgement::Wrong(why), _) => self.count_wrong(why),
            (Judgement::Right, Some(limit)) => {
                self.count_wrong(format!("the answer took {} ms, above {limit} ms", milliseconds(sent.took)));
            }
            (Judgement::Right, None) => self.right += 1,
        }
        true
    }

    fn judge(&mut self, sample: &EndpointSample, reply: &InferenceReply) -> Judgement {
        if let Some((last, judgement)) = &self.last
            && last == reply
        {
            return judgement.clone();
        }
        let judgement = judge(&sample.expect, reply);
        self.last = Some((reply.clone(), judgement.clone()));
        judgement
    }

    fn count_wrong(&mut self, why: String) {
        self.wrong += 1;
        self.first_wrong.get_or_insert(why);
    }
}
