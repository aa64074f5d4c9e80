//! A job of 30 hours whose credentials AWS refuses for spans of time, in virtual time.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::StageHarness;
use crate::base::failure::{Kind, kind_of, render};
use crate::cloud::testing::{FaultDecision, Watch, When};
use crate::cloud::{CloudErrorKind, JobStatus, SecondaryStatus};
use crate::config::env::short_or_long;
use crate::stages::{cleanup, prepare, run};

/// Refuses calls while a span lasts, of all methods or of one.
#[derive(Debug)]
struct Spans {
    start: Instant,
    refused: Vec<(Range<Duration>, CloudErrorKind)>,
    method: Option<&'static str>,
}

impl Watch for Spans {
    fn look(&self, method: &'static str, _: &str, when: When) -> FaultDecision {
        let at = self.start.elapsed();
        let span = self.refused.iter().find(|(span, _)| span.contains(&at));
        match span {
            Some((_, kind)) if when == When::Before && self.method.is_none_or(|only| only == method) => {
                FaultDecision::Fails(*kind)
            }
            _ => FaultDecision::Passes,
        }
    }
}

/// The end of a stage, and all that belongs to it.
struct Seen {
    ended: anyhow::Result<()>,
    took: Duration,
    said: String,
    harness: StageHarness,
}

async fn stage(runs: Duration, spans: Vec<(Range<Duration>, CloudErrorKind)>, method: Option<&'static str>) -> Seen {
    let harness = StageHarness::configured();
    prepare::run(harness.context()).await.unwrap();
    let script = harness.script("train\n");
    let start = Instant::now();
    let watch = Arc::new(Spans { start, refused: spans, method });
    harness.memory.jobs.watch(watch.clone());
    harness.memory.objects.watch(watch);
    let agent = tokio::spawn(harness.agent().work(runs, 0));
    let ended = run::run(harness.context(), &script, "build_script").await;
    if ended.is_ok() {
        agent.await.unwrap();
    }
    Seen { ended, took: start.elapsed(), said: harness.captured.text(), harness }
}

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn refusals_of_minutes_are_waited_out() {
    let runs = Duration::from_hours(short_or_long(3, 30));
    let span = |at: Duration, minutes: u32| at..at + MINUTE * minutes;
    let spans = vec![
        (span(runs / 30, 10), CloudErrorKind::Unauthenticated),
        (span(runs / 3, 14), CloudErrorKind::Unauthenticated),
        (span(runs / 2, 10), CloudErrorKind::Denied),
        // The script ends, and the results are ordered and fetched.
        (span(runs.saturating_sub(MINUTE * 5), 10), CloudErrorKind::Unauthenticated),
    ];
    let seen = stage(runs, spans, None).await;
    seen.ended.unwrap();
    assert!(seen.took >= runs + MINUTE * 5 && seen.took < runs + MINUTE * 7, "{:?}", seen.took);
    let told = |text: &str| seen.said.matches(text).count();
    assert!(told("AWS refuses the credentials of the runner host; the job waits 15m for others") >= 4, "{}", seen.said);
    assert!(told("AWS accepts the credentials of the runner host again") >= 4, "{}", seen.said);
    assert!(seen.harness.captured.data().ends_with(b"trained\n"), "{}", seen.said);
    assert_eq!(std::fs::read_to_string(seen.harness.host().project.join("model")).unwrap(), "weights");
    cleanup::run(seen.harness.context()).await.unwrap();
    assert!(seen.harness.records().sessions().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn credentials_that_end_for_good_are_one_clear_cause_after_a_lease() {
    let ends = Duration::from_hours(1);
    for (kind, advice) in [
        (CloudErrorKind::Unauthenticated, "`limits.lease_seconds`"),
        (CloudErrorKind::Denied, "allow the runner host's role `fake:Action` again"),
    ] {
        let seen = stage(Duration::from_hours(30), vec![(ends..Duration::MAX, kind)], None).await;
        let error = seen.ended.unwrap_err();
        let text = render(&error);
        assert_eq!(kind_of(&error), Kind::System);
        assert!(text.contains("AWS has refused the credentials of the runner host for 15m"), "{text}");
        assert!(text.contains(advice) && text.matches("because:").count() <= 2, "{text}");
        let lease = MINUTE * 15;
        assert!(seen.took >= ends + lease && seen.took < ends + lease + MINUTE, "{:?}", seen.took);
    }
}

#[tokio::test(start_paused = true)]
async fn a_permission_that_is_missing_from_the_beginning_is_told_at_once() {
    let spans = vec![(Duration::ZERO..Duration::MAX, CloudErrorKind::Denied)];
    let seen = stage(Duration::from_hours(30), spans, Some("get")).await;
    assert_eq!(kind_of(&seen.ended.unwrap_err()), Kind::System);
    assert!(seen.took < MINUTE, "{:?}", seen.took);
}

/// Its end counts only when the last reports were read; all jobs of the account share the rate of looks.
#[tokio::test(start_paused = true)]
async fn a_job_that_ended_while_its_mailbox_is_refused_is_looked_at_at_the_usual_interval() {
    let harness = StageHarness::configured();
    prepare::run(harness.context()).await.unwrap();
    let (script, jobs) = (harness.script("train\n"), harness.memory.jobs.clone());
    let refused = vec![(MINUTE..MINUTE * 11, CloudErrorKind::Unauthenticated)];
    harness.memory.objects.watch(Arc::new(Spans { start: Instant::now(), refused, method: None }));
    let agent = tokio::spawn(harness.agent().work(Duration::from_hours(30), 0));
    let killer = tokio::spawn(async move {
        tokio::time::sleep(MINUTE * 2).await;
        agent.abort();
        jobs.names().iter().for_each(|name| jobs.set_status(name, JobStatus::Failed, SecondaryStatus::Failed));
    });
    let start = Instant::now();
    let error = run::run(harness.context(), &script, "build_script").await.unwrap_err();
    killer.await.unwrap();
    assert!((MINUTE * 11..MINUTE * 12).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert!(render(&error).contains("the training job failed"), "{}", render(&error));
    let looks = harness.memory.jobs.count("describe");
    assert!((40..80).contains(&looks), "{looks} looks");
}
