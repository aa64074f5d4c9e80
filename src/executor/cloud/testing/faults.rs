//! Base of all fakes: records calls, and injects planned faults: the nth call of a method fails before or after it
//! takes effect, or takes long. Never invents results.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::cloud::{CloudError, CloudErrorKind};

/// When a call fails: before or after it takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The request is lost or refused: the call has no effect.
    Before,
    /// The reply is lost: the call takes effect, and the caller sees the fault.
    After,
}

/// Calls `first` to `last` of `method`, counted from 1, fail or take long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    method: &'static str,
    first: usize,
    last: usize,
    effect: Effect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Fails(When, CloudErrorKind),
    Takes(Duration),
}

impl Fault {
    /// Fails call number `call` (from 1) of `method`, named as in the port: `put_if_absent`.
    pub fn new(method: &'static str, call: usize, when: When, kind: CloudErrorKind) -> Self {
        Self { method, first: call, last: call, effect: Effect::Fails(when, kind) }
    }

    /// Delays the effect of each call of `method` by this time.
    pub fn slow(method: &'static str, takes: Duration) -> Self {
        Self { method, first: 1, last: usize::MAX, effect: Effect::Takes(takes) }
    }

    /// Applies to this many calls in a row, instead of one.
    #[must_use]
    pub fn times(mut self, calls: usize) -> Self {
        self.last = self.first.saturating_add(calls.saturating_sub(1));
        self
    }

    /// Applies to all calls from the first one on.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.last = usize::MAX;
        self
    }
}

/// Decides about each call when it comes: for tests with faults at certain times, or that end the caller within a call.
pub trait Watch: Debug + Send + Sync {
    /// Called before and after the call takes effect.
    fn look(&self, method: &'static str, thing: &str, when: When) -> FaultDecision;
}

/// Decision of a [`Watch`] about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultDecision {
    Passes,
    Fails(CloudErrorKind),
    /// The caller gets no answer: its process is dead, or about to be.
    Hangs,
}

/// An error of a port that a plan can make.
pub trait PlannedError {
    fn planned(kind: CloudErrorKind, operation: String, message: String) -> Self;
}

impl PlannedError for CloudError {
    fn planned(kind: CloudErrorKind, operation: String, message: String) -> Self {
        Self { kind, operation, message, action: "fake:Action" }
    }
}

/// A port in memory: the state `S` of its service, the recorded calls, and a fault plan.
#[derive(Debug, Default)]
pub struct Fake<S> {
    inner: Mutex<Inner<S>>,
}

#[derive(Debug, Default)]
pub(crate) struct Inner<S> {
    pub(crate) service: S,
    seen: Vec<String>,
    plan: Vec<Fault>,
    watch: Option<Arc<dyn Watch>>,
    /// Calls by method, since the plan was set.
    counts: BTreeMap<&'static str, usize>,
}

impl<S> Fake<S> {
    /// The calls that took effect: method and object.
    pub fn calls(&self) -> Vec<String> {
        self.inner().seen.clone()
    }

    /// Number of calls of `method` since the plan was set, with those that failed.
    pub fn count(&self, method: &str) -> usize {
        self.inner().counts.get(method).copied().unwrap_or(0)
    }

    /// Replaces the fault plan.
    pub fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut inner = self.inner();
        inner.plan = faults.into_iter().collect();
        inner.counts.clear();
    }

    /// Passes each call to `watch` from now on, besides the plan.
    pub fn watch(&self, watch: Arc<dyn Watch>) {
        self.inner().watch = Some(watch);
    }

    async fn watched(&self, method: &'static str, thing: &str, when: When) -> Result<(), CloudErrorKind> {
        let watch = self.inner().watch.clone();
        match watch.map_or(FaultDecision::Passes, |watch| watch.look(method, thing, when)) {
            FaultDecision::Passes => Ok(()),
            FaultDecision::Fails(kind) => Err(kind),
            FaultDecision::Hangs => std::future::pending().await,
        }
    }

    /// Ignores poisoning: the test that panicked has failed already.
    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock()
    }

    /// Performs the call, with its fault before or after it.
    pub(crate) async fn call<R, E: PlannedError>(
        &self,
        method: &'static str,
        thing: &str,
        act: impl FnOnce(&mut S) -> Result<R, E> + Send,
    ) -> Result<R, E> {
        let (call, effect) = self.inner().count(method);
        let fault = |kind| {
            let thing = thing.split([' ', ',']).next().unwrap_or_default();
            let (operation, message) = (format!("{method} {thing}"), format!("planned fault in call {call}"));
            E::planned(kind, operation, message)
        };
        match effect {
            Some(Effect::Fails(When::Before, kind)) => return Err(fault(kind)),
            Some(Effect::Takes(time)) => tokio::time::sleep(time).await,
            Some(Effect::Fails(When::After, _)) | None => {}
        }
        self.watched(method, thing, When::Before).await.map_err(fault)?;
        let answer = {
            let mut inner = self.inner();
            inner.seen.push(format!("{method} {thing}").trim_end().to_owned());
            act(&mut inner.service)
        };
        let after = self.watched(method, thing, When::After).await;
        let answer = answer?;
        after.map_err(fault)?;
        match effect {
            Some(Effect::Fails(When::After, kind)) => Err(fault(kind)),
            _ => Ok(answer),
        }
    }
}

impl<S> Inner<S> {
    fn count(&mut self, method: &'static str) -> (usize, Option<Effect>) {
        let count = self.counts.entry(method).or_insert(0);
        *count += 1;
        let call = *count;
        let is_planned = |fault: &&Fault| fault.method == method && (fault.first..=fault.last).contains(&call);
        (call, self.plan.iter().find(is_planned).map(|fault| fault.effect))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::testing::{Memory, MemoryObjects, example_spec};
    use crate::cloud::{ObjectStore as _, TrainingJobs as _};

    #[tokio::test]
    async fn a_fault_before_the_call_has_no_effect() {
        let jobs = Memory::new().jobs;
        jobs.plan([Fault::new("create", 1, When::Before, CloudErrorKind::Throttled)]);
        let error = jobs.create(&example_spec("a")).await.unwrap_err();
        assert_eq!(error.kind, CloudErrorKind::Throttled);
        assert_eq!(jobs.names(), Vec::<String>::new());
        jobs.create(&example_spec("a")).await.unwrap();
        assert_eq!(jobs.names(), ["a"]);
    }

    #[tokio::test]
    async fn a_fault_after_the_call_keeps_its_effect() {
        let objects = Memory::new().objects;
        objects.plan([Fault::new("put", 2, When::After, CloudErrorKind::Transient)]);
        objects.put("a", b"1".to_vec()).await.unwrap();
        assert_eq!(objects.put("b", b"2".to_vec()).await.unwrap_err().kind, CloudErrorKind::Transient);
        assert_eq!(objects.keys(), ["a", "b"]);
        assert_eq!(objects.count("put"), 2);
    }

    #[tokio::test]
    async fn a_fault_repeats_as_planned_and_for_its_method_alone() {
        let objects = MemoryObjects::default();
        objects.plan([
            Fault::new("get", 2, When::Before, CloudErrorKind::Denied).times(2),
            Fault::new("size", 2, When::Before, CloudErrorKind::Other).forever(),
        ]);
        let mut failed = Vec::new();
        for _ in 0..4 {
            failed.push((objects.get("a").await.is_err(), objects.size("a").await.is_err()));
        }
        assert_eq!(failed, [(false, false), (true, true), (true, true), (false, true)]);
        objects.list("").await.unwrap();
    }

    #[tokio::test]
    async fn an_error_of_the_service_itself_wins_over_a_fault_after_it() {
        let jobs = Memory::new().jobs;
        jobs.create(&example_spec("a")).await.unwrap();
        jobs.plan([Fault::new("create", 1, When::After, CloudErrorKind::Transient)]);
        assert_eq!(jobs.create(&example_spec("a")).await.unwrap_err().kind, CloudErrorKind::Exists);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_call_has_its_effect_when_its_time_has_passed() {
        let jobs = Memory::new().jobs;
        jobs.plan([Fault::slow("create", Duration::from_secs(40))]);
        let spec = example_spec("a");
        let created = tokio::time::timeout(Duration::from_secs(39), jobs.create(&spec)).await;
        assert!(created.is_err() && jobs.names().is_empty());
        jobs.create(&spec).await.unwrap();
    }
}
