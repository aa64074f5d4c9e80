//! Bytes between two levels of the masker.

/// Output of a level: bytes, and where among them a mask stands.
#[derive(Default)]
pub(super) struct Stretch {
    pub(super) bytes: Vec<u8>,
    /// Indexes into `bytes`, ascending; the mask stands before the byte of this index.
    pub(super) masks: Vec<usize>,
}
