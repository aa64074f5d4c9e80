//! The tags of all resources, by ARN.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::clock;
use super::protocol::{ApiError, text};

/// Key and value of each tag.
pub(crate) type TagMap = BTreeMap<String, String>;

/// The tags of one resource.
#[derive(Debug, Clone)]
pub(crate) struct Tagged {
    pub(crate) tags: TagMap,
    pub(crate) created_ms: u64,
}

/// The tags of each existing resource that can have some.
#[derive(Debug, Default)]
pub(crate) struct Tags(Mutex<BTreeMap<String, Tagged>>);

impl Tags {
    /// Adds a new resource with the tags of the request that creates it.
    pub(crate) fn create(&self, arn: &str, tags: TagMap) {
        self.0.lock().insert(arn.to_owned(), Tagged { tags, created_ms: clock::now_ms() });
    }

    /// Removes a deleted resource.
    pub(crate) fn remove(&self, arn: &str) {
        self.0.lock().remove(arn);
    }

    /// Reads or changes the tags of a resource; `None` when there is none of this ARN.
    pub(crate) fn with<T>(&self, arn: &str, act: impl FnOnce(&mut Tagged) -> T) -> Option<T> {
        self.0.lock().get_mut(arn).map(act)
    }
}

/// A tag list of a request as a map; the last value of a key counts.
pub(crate) fn tag_map(tags: Option<&Value>) -> TagMap {
    let tags = tags.and_then(Value::as_array).into_iter().flatten();
    tags.map(|tag| {
        let part = |name| text(tag, name).unwrap_or_default().to_owned();
        (part("Key"), part("Value"))
    })
    .collect()
}

/// Tags as replies list them.
pub(crate) fn tag_list(tags: &TagMap) -> Vec<Value> {
    tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
}

/// Keys of a tag list must differ and must not begin with `aws:`.
pub(crate) fn check_tags(tags: Option<&Value>) -> Result<(), ApiError> {
    let mut seen = BTreeSet::new();
    for tag in tags.and_then(Value::as_array).into_iter().flatten() {
        let key = text(tag, "Key").unwrap_or_default();
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(ApiError::validation("Tag keys with the prefix aws: are reserved for system use."));
        }
        if !seen.insert(key) {
            return Err(ApiError::validation(format!("Tag keys must be unique. Duplicate key: {key}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_live_as_long_as_their_resource() {
        let tags = Tags::default();
        let read = |arn: &str| tags.with(arn, |one| one.tags.clone());
        tags.create("one", tag_map(Some(&json!([{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]))));
        tags.create("bare", tag_map(None));
        assert_eq!(read("one"), Some(TagMap::from([("a".to_owned(), "2".to_owned())])));
        assert_eq!(read("bare"), Some(TagMap::new()), "a resource without tags can get some");
        tags.remove("one");
        assert_eq!(read("one"), None);
    }
}
