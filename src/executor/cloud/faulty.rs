//! Any port with a plan of faults: the nth call of a method fails before it reaches the service, or after.
//!
//! It never invents results and never waits; a call without a fault in the plan goes through unchanged.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    CloudError, CloudErrorKind, FilterPage, JobLogs, Listed, ObjectStore, StreamPage, TrainingJob, TrainingJobSpec,
    TrainingJobSummary, TrainingJobs,
};

/// Whether the service has seen the call that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The request is lost or refused: the fault takes the place of the call.
    Before,
    /// The reply is lost: the call has its effect, the caller sees the fault.
    After,
}

/// Calls `first` to `last` of `method`, counted from 1, fail with `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    method: &'static str,
    first: usize,
    last: usize,
    when: When,
    kind: CloudErrorKind,
}

impl Fault {
    /// Call number `call` (from 1) of `method`, named as in the port: `put_if_absent`.
    pub fn new(method: &'static str, call: usize, when: When, kind: CloudErrorKind) -> Self {
        Self { method, first: call, last: call, when, kind }
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

/// A port with a plan. Wraps `Arc<MemoryJobs>` as well as `Arc<dyn ObjectStore>`.
#[derive(Debug)]
pub struct Faulty<T: ?Sized> {
    state: Mutex<State>,
    inner: Arc<T>,
}

#[derive(Debug, Default)]
struct State {
    plan: Vec<Fault>,
    calls: BTreeMap<&'static str, usize>,
}

impl<T: ?Sized> Faulty<T> {
    pub fn new(inner: Arc<T>, plan: impl IntoIterator<Item = Fault>) -> Self {
        Self { state: Mutex::new(State { plan: plan.into_iter().collect(), calls: BTreeMap::new() }), inner }
    }

    /// How often `method` was called, faults included.
    pub fn calls(&self, method: &str) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).calls.get(method).copied().unwrap_or(0)
    }

    /// Counts the call and looks up its fault.
    fn fault(&self, method: &'static str, thing: &str) -> Option<(When, CloudError)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let count = state.calls.entry(method).or_insert(0);
        *count += 1;
        let call = *count;
        let fault =
            state.plan.iter().find(|fault| fault.method == method && (fault.first..=fault.last).contains(&call))?;
        let error = CloudError {
            kind: fault.kind,
            operation: format!("{method} {thing}"),
            message: format!("planned fault in call {call}"),
            action: "",
        };
        Some((fault.when, error))
    }

    /// The call, or the fault before or after it.
    async fn around<R>(
        &self,
        method: &'static str,
        thing: &str,
        call: impl Future<Output = Result<R, CloudError>> + Send,
    ) -> Result<R, CloudError> {
        match self.fault(method, thing) {
            None => call.await,
            Some((When::Before, error)) => Err(error),
            Some((When::After, error)) => call.await.and(Err(error)),
        }
    }
}

#[async_trait]
impl<T: TrainingJobs + ?Sized> TrainingJobs for Faulty<T> {
    async fn create(&self, spec: &TrainingJobSpec) -> Result<String, CloudError> {
        self.around("create", &spec.name, self.inner.create(spec)).await
    }

    async fn describe(&self, name: &str) -> Result<Option<TrainingJob>, CloudError> {
        self.around("describe", name, self.inner.describe(name)).await
    }

    async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, CloudError> {
        self.around("tags", arn, self.inner.tags(arn)).await
    }

    async fn stop(&self, name: &str) -> Result<(), CloudError> {
        self.around("stop", name, self.inner.stop(name)).await
    }

    async fn list(&self, name_contains: &str) -> Result<Vec<TrainingJobSummary>, CloudError> {
        self.around("list", name_contains, self.inner.list(name_contains)).await
    }
}

#[async_trait]
impl<T: ObjectStore + ?Sized> ObjectStore for Faulty<T> {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CloudError> {
        self.around("get", key, self.inner.get(key)).await
    }

    async fn get_range(&self, key: &str, start: u64, length: u64) -> Result<Option<Bytes>, CloudError> {
        self.around("get_range", key, self.inner.get_range(key, start, length)).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, CloudError> {
        self.around("size", key, self.inner.size(key)).await
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), CloudError> {
        self.around("put", key, self.inner.put(key, body)).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<(), CloudError> {
        self.around("put_file", key, self.inner.put_file(key, path)).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<bool, CloudError> {
        self.around("put_if_absent", key, self.inner.put_if_absent(key, body)).await
    }

    async fn inventory(&self, prefix: &str) -> Result<Vec<Listed>, CloudError> {
        self.around("list", prefix, self.inner.inventory(prefix)).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), CloudError> {
        let thing = keys.first().map_or("", String::as_str);
        self.around("delete", thing, self.inner.delete(keys)).await
    }

    fn uri(&self, key: &str) -> String {
        self.inner.uri(key)
    }
}

#[async_trait]
impl<T: JobLogs + ?Sized> JobLogs for Faulty<T> {
    async fn streams(&self, job_name: &str) -> Result<Vec<String>, CloudError> {
        self.around("streams", job_name, self.inner.streams(job_name)).await
    }

    async fn filter(&self, streams: &[String], since_ms: u64, token: Option<&str>) -> Result<FilterPage, CloudError> {
        let thing = streams.first().map_or("", String::as_str);
        self.around("filter", thing, self.inner.filter(streams, since_ms, token)).await
    }

    async fn newest_streams(&self, token: Option<&str>) -> Result<StreamPage, CloudError> {
        self.around("newest_streams", "", self.inner.newest_streams(token)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::memory::{Memory, MemoryObjects, example_spec};

    #[tokio::test]
    async fn a_fault_before_the_call_has_no_effect() {
        let memory = Memory::new();
        let faulty =
            Faulty::new(Arc::clone(&memory.jobs), [Fault::new("create", 1, When::Before, CloudErrorKind::Throttled)]);
        let error = faulty.create(&example_spec("a")).await.unwrap_err();
        assert_eq!(error.kind, CloudErrorKind::Throttled);
        assert_eq!(memory.jobs.names(), Vec::<String>::new());
        faulty.create(&example_spec("a")).await.unwrap();
        assert_eq!(memory.jobs.names(), ["a"]);
    }

    #[tokio::test]
    async fn a_fault_after_the_call_keeps_its_effect() {
        let memory = Memory::new();
        let store: Arc<dyn ObjectStore> = memory.objects.clone();
        let faulty = Faulty::new(store, [Fault::new("put", 2, When::After, CloudErrorKind::Transient)]);
        faulty.put("a", b"1".to_vec()).await.unwrap();
        assert_eq!(faulty.put("b", b"2".to_vec()).await.unwrap_err().kind, CloudErrorKind::Transient);
        assert_eq!(memory.objects.keys(), ["a", "b"]);
        assert_eq!(faulty.calls("put"), 2);
    }

    #[tokio::test]
    async fn a_fault_repeats_as_planned_and_for_its_method_alone() {
        let faulty = Faulty::new(
            Arc::new(MemoryObjects::default()),
            [
                Fault::new("get", 2, When::Before, CloudErrorKind::Denied).times(2),
                Fault::new("size", 2, When::Before, CloudErrorKind::Other).forever(),
            ],
        );
        let mut failed = Vec::new();
        for _ in 0..4 {
            failed.push((faulty.get("a").await.is_err(), faulty.size("a").await.is_err()));
        }
        assert_eq!(failed, [(false, false), (true, true), (true, true), (false, true)]);
        faulty.list("").await.unwrap();
    }

    #[tokio::test]
    async fn an_error_of_the_service_itself_wins_over_a_fault_after_it() {
        let memory = Memory::new();
        memory.jobs.create(&example_spec("a")).await.unwrap();
        let faulty =
            Faulty::new(memory.jobs.clone(), [Fault::new("create", 1, When::After, CloudErrorKind::Transient)]);
        assert_eq!(faulty.create(&example_spec("a")).await.unwrap_err().kind, CloudErrorKind::Exists);
    }
}
