//! Names of metrics as paths of keys, whose beginnings are shared: a file has as many names as it has values, and each may be long.
//! No I/O.

use std::sync::Arc;

/// Longest name that is made as a whole, in bytes.
pub(super) const LONGEST_NAME: usize = 256;

/// A key, below the keys of the objects that it is in.
#[derive(Debug)]
pub(super) struct KeyPath {
    parent: Option<Arc<KeyPath>>,
    key: String,
}

impl KeyPath {
    pub(super) fn new(parent: Option<&Arc<Self>>, key: &str) -> Arc<Self> {
        Arc::new(Self { parent: parent.cloned(), key: key.to_owned() })
    }

    /// Whether the metric has this name: its path with dots. The values of a model quality file also have their path without `value`,
    /// and their own name.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.is_path(name) || self.quality().is_some_and(|quality| quality.key == name || quality.is_path(name))
    }

    /// The shortest name; `None` when it is too long.
    pub(super) fn name(&self) -> Option<String> {
        match self.quality() {
            Some(quality) => (quality.key.len() <= LONGEST_NAME).then(|| quality.key.clone()),
            None => (self.length() <= LONGEST_NAME).then(|| self.path()),
        }
    }

    #[cfg(test)]
    pub(super) fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    fn is_path(&self, path: &str) -> bool {
        match (&self.parent, path.strip_suffix(self.key.as_str())) {
            (None, Some(rest)) => rest.is_empty(),
            (Some(parent), Some(rest)) => rest.strip_suffix('.').is_some_and(|rest| parent.is_path(rest)),
            (_, None) => false,
        }
    }

    /// The metric of which this is the `value` in a model quality file.
    fn quality(&self) -> Option<&Self> {
        let metric = self.parent.as_deref().filter(|_| self.key == "value")?;
        let group = metric.parent.as_deref().filter(|group| group.parent.is_none())?;
        let is_group = group.key == "regression_metrics" || group.key.ends_with("_classification_metrics");
        is_group.then_some(metric)
    }

    fn length(&self) -> usize {
        self.parent.as_ref().map_or(0, |parent| parent.length() + 1) + self.key.len()
    }

    fn path(&self) -> String {
        self.parent.as_ref().map_or(String::new(), |parent| parent.path() + ".") + &self.key
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(keys: &[String]) -> Arc<KeyPath> {
        keys.iter().fold(None, |parent, key| Some(KeyPath::new(parent.as_ref(), key))).unwrap()
    }

    proptest! {
        #[test]
        fn a_path_has_the_name_of_its_keys_with_dots(keys in prop::collection::vec("[ab.]{0,3}", 1..5), other in "[ab.]{0,9}") {
            let (path, name) = (path(&keys), keys.join("."));
            prop_assert!(path.is_named(&name));
            prop_assert_eq!(path.is_named(&other), other == name);
            prop_assert_eq!(path.name(), Some(name));
        }
    }

    #[test]
    fn values_of_a_model_quality_file_have_three_names() {
        let keys = ["regression_metrics", "mse", "value"].map(str::to_owned);
        for name in ["regression_metrics.mse.value", "regression_metrics.mse", "mse"] {
            assert!(path(&keys).is_named(name), "{name}");
        }
        assert_eq!(path(&keys).name().as_deref(), Some("mse"));
        for other in [["x", "mse", "value"], ["regression_metrics", "mse", "x"]] {
            assert!(!path(&other.map(str::to_owned)).is_named("mse"), "{other:?}");
        }
    }

    #[test]
    fn a_long_name_is_found_and_not_made() {
        let keys = ["a".repeat(LONGEST_NAME), "b".to_owned()];
        assert!(path(&keys).is_named(&keys.join(".")));
        assert_eq!(path(&keys).name(), None);
    }
}
