//! Hides the values of secret variables in a build's log, as CodeBuild does. Pure.

/// The text that stands for a value.
const MASK: &[u8] = b"***";
/// Shortest line of a value that is hidden; a shorter one is in too many words.
const SHORTEST: usize = 4;

/// Output on its way. Has no `Debug`, since it holds the values.
pub(super) struct Mask {
    /// Lines of the values, the longest first: a shorter one may be a part of it.
    values: Vec<Vec<u8>>,
    /// The last bytes, which may be the begin of a value.
    held: Vec<u8>,
}

impl Mask {
    /// Hides each line of these values.
    pub(super) fn of<'a>(secrets: impl IntoIterator<Item = &'a String>) -> Self {
        let lines = secrets.into_iter().flat_map(|value| value.lines()).map(str::trim);
        let mut values: Vec<_> =
            lines.filter(|line| line.len() >= SHORTEST).map(|line| line.as_bytes().to_vec()).collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self { values, held: Vec::new() }
    }

    /// Takes a chunk of output, and gives back what can go on.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(chunk);
        self.pass(false)
    }

    /// The rest of the output.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.pass(true)
    }

    fn pass(&mut self, is_end: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.held.len());
        let mut rest = self.held.as_slice();
        while !rest.is_empty() {
            // A longer value may still come of a shorter one that is here whole.
            if !is_end && self.values.iter().any(|value| value.len() > rest.len() && value.starts_with(rest)) {
                break;
            }
            let hidden = self.values.iter().find(|value| rest.starts_with(value));
            let length = hidden.map_or(1, Vec::len);
            out.extend(hidden.map_or(rest.get(..1).unwrap_or_default(), |_| MASK));
            rest = rest.get(length..).unwrap_or_default();
        }
        self.held = rest.to_vec();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_hidden_at_any_border() {
        let secrets = ["s3cret-value\n\n  second line\nx".to_owned(), "s3cret".to_owned()];
        let output = b"a s3cret-value b s3cret c\nsecond line x\ns3cret-val";
        for at in 0..output.len() {
            let (head, tail) = output.split_at(at);
            let mut mask = Mask::of(&secrets);
            let mut out = mask.push(head);
            out.extend(mask.push(tail));
            out.extend(mask.finish());
            assert_eq!(String::from_utf8(out).unwrap(), "a *** b *** c\n*** x\n***-val", "{at}");
        }
    }

    #[test]
    fn without_secrets_all_goes_on_at_once() {
        let mut mask = Mask::of(&[String::new(), "abc".to_owned()]);
        assert_eq!(mask.push(b"abc "), b"abc ");
        assert!(mask.finish().is_empty());
    }
}
