//! What every fake has in common: it remembers its calls, and a plan of faults that makes the nth call of a method fail before
//! it reaches the service, fail after it, or take long. It never invents results.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cloud::{CloudError, CloudErrorKind};

/// Whether the service has seen the call that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The request is lost or refused: the fault takes the place of the call.
    Before,
    /// The reply is lost: the call has its effect, the caller sees the fault.
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
    /// Call number `call` (from 1) of `method`, named as in the port, fails: `put_if_absent`.
    pub fn new(method: &'static str, call: usize, when: When, kind: CloudErrorKind) -> Self {
        Self { method, first: call, last: call, effect: Effect::Fails(when, kind) }
    }

    /// Each call of `method` reaches the service after this time.
    pub fn slow(method: &'static str, takes: Duration) -> Self {
        Self { method, first: 1, last: usize::MAX, effect: Effect::Takes(takes) }
    }

    /// As many calls in a row, instead of one.
    #[must_use]
    pub fn times(mut self, calls: usize) -> Self {
        self.last = self.first.saturating_add(calls.saturating_sub(1));
        self
    }

    /// All calls from the first on.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.last = usize::MAX;
        self
    }
}

/// Decides about each call as it comes: for a test that plays faults by the time, or ends the caller in a call.
pub trait Watch: Debug + Send + Sync {
    /// Asked before the call has its effect, and after.
    fn look(&self, method: &'static str, thing: &str, when: When) -> Verdict;
}

/// What a [`Watch`] says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Passes,
    Fails(CloudErrorKind),
    /// The caller gets no answer: its process is dead, or about to be.
    Hangs,
}

/// A port in memory: the state `S` of its service, the calls so far, and a plan of faults.
#[derive(Debug, Default)]
pub struct Fake<S> {
    inner: Mutex<Inner<S>>,
}

#[derive(Debug, Default)]
pub(super) struct Inner<S> {
    pub(super) service: S,
    seen: Vec<String>,
    plan: Vec<Fault>,
    watch: Option<Arc<dyn Watch>>,
    /// By method, since the plan was made.
    counts: BTreeMap<&'static str, usize>,
}

impl<S> Fake<S> {
    /// The calls that reached the service so far: method and thing.
    pub fn calls(&self) -> Vec<String> {
        self.inner().seen.clone()
    }

    /// How often `method` was called since the plan was made, faults included.
    pub fn count(&self, method: &str) -> usize {
        self.inner().counts.get(method).copied().unwrap_or(0)
    }

    /// What happens to the calls from now on, in place of an earlier plan.
    pub fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut inner = self.inner();
        inner.plan = faults.into_iter().collect();
        inner.counts.clear();
    }

    /// Asks `watch` about each call from now on, beside the plan.
    pub fn watch(&self, watch: Arc<dyn Watch>) {
        self.inner().watch = Some(watch);
    }

    async fn watched(&self, method: &'static str, thing: &str, when: When) -> Result<(), CloudErrorKind> {
        let watch = self.inner().watch.clone();
        match watch.map_or(Verdict::Passes, |watch| watch.look(method, thing, when)) {
            Verdict::Passes => Ok(()),
            Verdict::Fails(kind) => Err(kind),
            Verdict::Hangs => std::future::pending().await,
        }
    }

    /// A test that failed while it held the lock has said so already.
    pub(super) fn inner(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The call, or the fault before or after it.
    pub(super) async fn call<R>(
        &self,
        method: &'static str,
        thing: &str,
        act: impl FnOnce(&mut S) -> Result<R, CloudError> + Send,
    ) -> Result<R, CloudError> {
        let (call, effect) = self.inner().count(method);
        let fault = |kind| {
            let thing = thing.split([' ', ',']).next().unwrap_or_default();
            let (operation, message) = (format!("{method} {thing}"), format!("planned fault in call {call}"));
            CloudError { kind, operation, message, action: "" }
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
