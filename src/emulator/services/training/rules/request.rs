//! A request of `CreateTrainingJob` as the rules read it.

use serde_json::Value;

use crate::protocol::text;

/// The request; members that are null count as absent.
pub(super) struct CreateRequest<'a>(pub(super) &'a Value);

impl<'a> CreateRequest<'a> {
    pub(super) fn at(&self, pointer: &str) -> Option<&'a Value> {
        self.0.pointer(pointer).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, pointer: &str) -> bool {
        self.at(pointer).is_some()
    }

    pub(super) fn is_on(&self, pointer: &str) -> bool {
        self.at(pointer).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(super) fn text(&self, pointer: &str) -> Option<&'a str> {
        self.at(pointer).and_then(Value::as_str)
    }

    pub(super) fn number(&self, pointer: &str) -> Option<i64> {
        self.at(pointer).and_then(Value::as_i64)
    }

    /// The members of a list; none for one that is absent.
    pub(super) fn list(&self, pointer: &str) -> &'a [Value] {
        self.at(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    pub(super) fn channels(&self) -> &'a [Value] {
        self.list("/InputDataConfig")
    }

    /// The input mode of a channel.
    pub(super) fn mode(&self, channel: &'a Value) -> &'a str {
        text(channel, "InputMode").or(self.text("/AlgorithmSpecification/TrainingInputMode")).unwrap_or_default()
    }
}

/// The name of the first channel for which something holds.
pub(super) fn first_channel<'a>(request: &CreateRequest<'a>, holds: impl Fn(&'a Value) -> bool) -> Option<String> {
    let found = request.channels().iter().find(|channel| holds(channel))?;
    Some(text(found, "ChannelName").unwrap_or_default().to_owned())
}

/// The first value of a text member that two members of a list share.
pub(super) fn twice(list: &[Value], name: &str) -> Option<String> {
    let mut seen = std::collections::BTreeSet::new();
    list.iter().filter_map(|one| text(one, name)).find(|one| !seen.insert(*one)).map(str::to_owned)
}

/// For a rule whose text names nothing of the request.
pub(super) fn breach(broken: bool) -> Option<String> {
    broken.then(String::new)
}
