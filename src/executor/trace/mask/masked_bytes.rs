//! The data that one level of the masker passes to the next.

/// Output of a level: bytes, and the positions of the masks.
#[derive(Default)]
pub(super) struct MaskedBytes {
    pub(super) bytes: Vec<u8>,
    /// Indexes into `bytes`, ascending; a mask is before the byte at its index.
    pub(super) masks: Vec<usize>,
}
