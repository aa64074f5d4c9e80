//! Deletions that were sent and are not answered yet: when a signal ends the command, nobody knows whether they were done. Pure.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::things::ThingKind;

/// Kinds and names of things whose deletion is under way.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<BTreeSet<(ThingKind, String)>>>);

impl UnderWay {
    fn things(&self) -> MutexGuard<'_, BTreeSet<(ThingKind, String)>> {
        // A panic elsewhere leaves the set whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, kind: ThingKind, name: &str) {
        self.things().insert((kind, name.to_owned()));
    }

    pub(super) fn end(&self, kind: ThingKind, name: &str) {
        self.things().remove(&(kind, name.to_owned()));
    }

    /// As [`UnderWay::begin`], for things that one call deletes.
    pub(super) fn begin_all(&self, kind: ThingKind, names: &[String]) {
        self.things().extend(names.iter().map(|name| (kind, name.clone())));
    }

    pub(super) fn end_all(&self, kind: ThingKind, names: &[String]) {
        for name in names {
            self.end(kind, name);
        }
    }

    /// The things that are left, in order.
    pub(super) fn take(&self) -> BTreeSet<(ThingKind, String)> {
        std::mem::take(&mut *self.things())
    }
}
