//! The events of one log stream in order, with the pages and tokens to read them.
//!
//! Pure: reads take the time as a parameter, and their cost depends on the events they return, not on the stream's length.
//! `reading.rs` decides what a request may ask for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

/// Size limit of a page, and of a batch of new events: bytes, with [`EVENT_BYTES`] more for each event.
pub(crate) const PAGE_BYTES: usize = 1_048_576;
const EVENT_BYTES: usize = 26;

/// The sort key of an event: time, then ingestion (both epoch ms), then arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EventPosition {
    pub(crate) timestamp: u64,
    /// Readers see the event from this time on.
    pub(crate) ingested: u64,
    /// Counted from 1 over all streams.
    pub(crate) arrival: u64,
}

impl EventPosition {
    /// Before every event.
    pub(crate) const START: Self = Self { timestamp: 0, ingested: 0, arrival: 0 };

    fn parse(digits: &str) -> Option<Self> {
        let (timestamp, rest) = digits.split_at_checked(20)?;
        let (ingested, arrival) = rest.split_at_checked(20)?;
        let exact = arrival.len() == 16;
        exact.then_some(Self {
            timestamp: timestamp.parse().ok()?,
            ingested: ingested.parse().ok()?,
            arrival: arrival.parse().ok()?,
        })
    }
}

impl fmt::Display for EventPosition {
    /// 56 digits, like the service's event ids and tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}{:020}{:016}", self.timestamp, self.ingested, self.arrival)
    }
}

#[derive(Debug)]
pub(crate) struct LogEvent {
    pub(crate) place: EventPosition,
    pub(crate) message: String,
}

/// The events of one writer in the order of their positions.
#[derive(Debug)]
pub(crate) struct LogStream {
    pub(crate) created: u64,
    events: Vec<LogEvent>,
}

impl LogStream {
    pub(crate) fn new(created: u64) -> Self {
        Self { created, events: Vec::new() }
    }

    /// Adds an event; almost always at the end.
    pub(crate) fn insert(&mut self, place: EventPosition, message: String) {
        let at = self.events.partition_point(|other| other.place < place);
        self.events.insert(at, LogEvent { place, message });
    }

    /// All events, including those not yet visible.
    pub(crate) fn events(&self) -> &[LogEvent] {
        &self.events
    }

    /// Events with a timestamp from `start` to `end`, both inclusive.
    pub(crate) fn between(&self, start: u64, end: u64) -> &[LogEvent] {
        let to = self.events.partition_point(|event| event.place.timestamp <= end);
        let from = self.events.partition_point(|event| event.place.timestamp < start).min(to);
        self.events.get(from..to).unwrap_or_default()
    }

    /// Those of [`between`](Self::between) that come after `place` and are visible at `now`.
    pub(crate) fn after(
        &self,
        place: Option<EventPosition>,
        start: u64,
        end: u64,
        now: u64,
    ) -> impl Iterator<Item = &LogEvent> {
        let events = self.between(start, end);
        let from = place.map_or(0, |place| events.partition_point(|event| event.place <= place));
        events.iter().skip(from).filter(move |event| event.place.ingested <= now)
    }
}

/// One page of an answer.
#[derive(Debug, Default)]
pub(crate) struct EventPage<'a> {
    pub(crate) events: Vec<&'a LogEvent>,
    /// For each event of [`merged`] the number of its stream.
    pub(crate) sources: Vec<usize>,
    /// Whether events are left.
    pub(crate) more: bool,
}

impl<'a> EventPage<'a> {
    /// As many events as one page holds.
    pub(crate) fn of(events: impl Iterator<Item = &'a LogEvent>, limit: usize) -> Self {
        merged(std::iter::once(events), limit)
    }

    pub(crate) fn reversed(mut self) -> Self {
        self.events.reverse();
        self
    }
}

/// A page of several streams, merged by place; a single stream keeps its own order.
pub(crate) fn merged<'a, I>(streams: impl Iterator<Item = I>, limit: usize) -> EventPage<'a>
where
    I: Iterator<Item = &'a LogEvent>,
{
    let mut streams: Vec<I> = streams.collect();
    let mut heads = vec![None; streams.len()];
    let mut queue = BinaryHeap::new();
    for (source, (stream, head)) in streams.iter_mut().zip(&mut heads).enumerate() {
        *head = stream.next();
        queue.extend(head.map(|event| Reverse((event.place, source))));
    }
    let mut page = EventPage::default();
    let mut bytes = 0;
    while let Some(Reverse((_, source))) = queue.pop() {
        let (Some(stream), Some(head)) = (streams.get_mut(source), heads.get_mut(source)) else { continue };
        let Some(event) = *head else { continue };
        bytes += event.message.len() + EVENT_BYTES;
        if page.events.len() == limit || (bytes > PAGE_BYTES && !page.events.is_empty()) {
            page.more = true;
            break;
        }
        page.events.push(event);
        page.sources.push(source);
        *head = stream.next();
        queue.extend(head.map(|event| Reverse((event.place, source))));
    }
    page
}

/// A position in a stream or group; `rested` after an empty page, so that two never follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageToken {
    pub(crate) forward: bool,
    pub(crate) place: EventPosition,
    pub(crate) rested: bool,
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.forward { 'f' } else { 'b' };
        write!(f, "{direction}/{}{}", self.place, if self.rested { "/s" } else { "" })
    }
}

impl PageToken {
    pub(crate) fn parse(token: &str) -> Option<Self> {
        let (direction, rest) = token.split_once('/')?;
        let (digits, rested) = match rest.strip_suffix("/s") {
            Some(digits) => (digits, true),
            None => (rest, false),
        };
        let forward = match direction {
            "f" => true,
            "b" => false,
            _ => return None,
        };
        Some(Self { forward, place: EventPosition::parse(digits)?, rested })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(places: &[(u64, u64)]) -> LogStream {
        let mut stream = LogStream::new(0);
        for ((timestamp, ingested), arrival) in places.iter().copied().zip(1..) {
            stream.insert(EventPosition { timestamp, ingested, arrival }, format!("{timestamp}/{ingested}"));
        }
        stream
    }

    fn texts(page: &EventPage<'_>) -> Vec<String> {
        page.events.iter().map(|event| event.message.clone()).collect()
    }

    #[test]
    fn events_stand_by_time_then_by_ingestion_then_by_arrival() {
        let stream = stream(&[(5, 9), (5, 7), (4, 10), (5, 7)]);
        let order: Vec<u64> = stream.events().iter().map(|event| event.place.arrival).collect();
        assert_eq!(order, [3, 2, 4, 1]);
    }

    #[test]
    fn a_look_is_bounded_by_times_place_and_visibility() {
        let stream = stream(&[(1, 1), (2, 2), (3, 30), (4, 4), (5, 5)]);
        let page = EventPage::of(stream.after(None, 2, 4, 10), 100);
        assert_eq!(texts(&page), ["2/2", "4/4"]);
        let second = stream.events()[1].place;
        assert_eq!(texts(&EventPage::of(stream.after(Some(second), 0, u64::MAX, 50), 100)), ["3/30", "4/4", "5/5"]);
        assert_eq!(stream.between(4, 2).len(), 0);
    }

    #[test]
    fn streams_are_merged_and_the_page_tells_whether_more_follow() {
        let (odd, even) = (stream(&[(1, 1), (3, 3), (5, 5)]), stream(&[(2, 2), (4, 4)]));
        let looks = || [&odd, &even].into_iter().map(|stream| stream.after(None, 0, u64::MAX, 9));
        let page = merged(looks(), 3);
        assert_eq!(
            (texts(&page), page.sources.clone(), page.more),
            (vec!["1/1".into(), "2/2".into(), "3/3".into()], vec![0, 1, 0], true)
        );
        assert!(!merged(looks(), 5).more);
    }

    #[test]
    fn a_token_survives_its_text() {
        let place = EventPosition { timestamp: 1_700_000_000_000, ingested: 1_700_000_005_000, arrival: 7 };
        for (forward, rested) in [(true, false), (true, true), (false, false)] {
            let token = PageToken { forward, place, rested };
            assert_eq!(PageToken::parse(&token.to_string()), Some(token));
        }
        assert_eq!(place.to_string().len(), 56);
        for text in ["f/12", "x/0", "f", "f/ä0000000000000000000000000000000000000000000000000000000"] {
            assert_eq!(PageToken::parse(text), None, "{text}");
        }
    }
}
