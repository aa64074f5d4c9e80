//! The masks of all scripts that this container has run.
//!
//! Each stage reads the job's secrets anew. A value that was rotated meanwhile may still be in a file, which a later script prints.

use std::collections::BTreeSet;

#[derive(Default)]
pub(super) struct KnownMasks(BTreeSet<String>);

impl KnownMasks {
    /// Adds those of the next script; returns all.
    pub(super) fn with(&mut self, masks: Vec<String>) -> Vec<Vec<u8>> {
        self.0.extend(masks);
        self.0.iter().map(|mask| mask.clone().into_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_script_has_the_masks_of_earlier_ones() {
        let mut known = KnownMasks::default();
        assert_eq!(known.with(vec!["old".to_owned()]), [b"old"]);
        assert_eq!(known.with(vec!["new".to_owned()]), [b"new", b"old"]);
    }
}
