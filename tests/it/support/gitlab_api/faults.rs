//! Planned failures of the double: the nth request of a kind is refused, or its connection ends before or after the effect.

/// What happens to the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultEffect {
    /// The connection ends; the request has no effect.
    DropBefore,
    /// The request takes effect, and the connection ends without a reply.
    DropAfter,
    /// A page of the server before GitLab with this status: 502, 503, 504.
    Page(u16),
    /// 504 of the server before GitLab. The request takes effect after this many lists of packages.
    Late(usize),
    /// 429 with `Retry-After` in seconds.
    RateLimit(u64),
}

/// Requests `first` to `last`, counted from 1, of a method whose path contains a text.
#[derive(Debug, Clone)]
pub(crate) struct ApiFault {
    method: &'static str,
    part: &'static str,
    first: usize,
    last: usize,
    effect: FaultEffect,
    met: usize,
}

impl ApiFault {
    pub(crate) fn new(method: &'static str, part: &'static str, call: usize, effect: FaultEffect) -> Self {
        Self { method, part, first: call, last: call, effect, met: 0 }
    }

    /// Applies to this many requests in a row, instead of one.
    pub(crate) fn times(mut self, calls: usize) -> Self {
        self.last = self.first.saturating_add(calls.saturating_sub(1));
        self
    }

    /// Counts a request, and returns its fate.
    pub(super) fn meet(&mut self, method: &str, path: &str) -> Option<FaultEffect> {
        if method != self.method || !path.contains(self.part) {
            return None;
        }
        self.met += 1;
        (self.first..=self.last).contains(&self.met).then_some(self.effect)
    }
}
