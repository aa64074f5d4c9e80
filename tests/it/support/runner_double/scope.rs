//! A scope of running time: it ends when it is canceled, when its time is over, or when its parent ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Canceled,
    TimedOut,
}

#[derive(Debug, Clone)]
pub(super) struct Scope(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    surrounding: Option<Scope>,
    deadline: Option<Instant>,
    canceled: AtomicBool,
}

impl Scope {
    pub(super) fn new(surrounding: Option<&Scope>, limit: Option<Duration>) -> Self {
        Self(Arc::new(Inner {
            surrounding: surrounding.cloned(),
            deadline: limit.map(|limit| Instant::now() + limit),
            canceled: AtomicBool::new(false),
        }))
    }

    pub(super) fn cancel(&self) {
        self.0.canceled.store(true, Ordering::SeqCst);
    }

    /// The reason of its end, or `None` before that.
    pub(super) fn ended(&self) -> Option<End> {
        let surrounding = self.0.surrounding.as_ref().and_then(Scope::ended);
        let canceled = || self.0.canceled.load(Ordering::SeqCst).then_some(End::Canceled);
        let over = || self.0.deadline.is_some_and(|deadline| Instant::now() >= deadline).then_some(End::TimedOut);
        surrounding.or_else(canceled).or_else(over)
    }
}
