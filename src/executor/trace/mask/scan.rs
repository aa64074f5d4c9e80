//! A quick look ahead: where in a piece of output may anything begin that the masker would change?

/// Finds the first place where one of several byte strings begins.
pub(super) struct Scanner {
    needles: Vec<Vec<u8>>,
    /// For each byte the needles that begin with it, as indexes.
    by_first: Vec<Vec<usize>>,
    /// For each first byte and each second one whether a needle begins with them, one bit each.
    pairs: Box<[u64; 1024]>,
}

impl Scanner {
    pub(super) fn new(needles: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let needles: Vec<Vec<u8>> = needles.into_iter().collect();
        let mut by_first = vec![Vec::new(); 256];
        let mut pairs = Box::new([0; 1024]);
        for (index, needle) in needles.iter().enumerate() {
            let Some(&first) = needle.first() else { continue };
            by_first[usize::from(first)].push(index);
            let seconds = needle.get(1).map_or(0..=u8::MAX, |&second| second..=second);
            for second in seconds {
                let (word, bit) = place(first, second);
                pairs[word] |= 1 << bit;
            }
        }
        Self { needles, by_first, pairs }
    }

    /// The first index at which a needle stands, or begins and is cut off by the end; the length when there is none.
    pub(super) fn find(&self, bytes: &[u8]) -> usize {
        let is_possible = |pair: &[u8]| {
            let (word, bit) = place(pair[0], pair[1]);
            self.pairs[word] >> bit & 1 == 1
        };
        let mut pairs = bytes.windows(2).enumerate().filter(|(_, pair)| is_possible(pair)).map(|(at, _)| at);
        let last = bytes.len().checked_sub(1);
        pairs
            .find(|at| self.begins(&bytes[*at..]))
            .or_else(|| last.filter(|at| self.begins(&bytes[*at..])))
            .unwrap_or(bytes.len())
    }

    fn begins(&self, bytes: &[u8]) -> bool {
        let candidates = bytes.first().map(|first| &self.by_first[usize::from(*first)]);
        candidates.into_iter().flatten().map(|index| &self.needles[*index]).any(|needle| {
            let length = needle.len().min(bytes.len());
            needle[..length] == bytes[..length]
        })
    }
}

/// Word and bit of a pair: below 1024 and 64.
fn place(first: u8, second: u8) -> (usize, u32) {
    (usize::from(first) << 2 | usize::from(second >> 6), u32::from(second & 63))
}
