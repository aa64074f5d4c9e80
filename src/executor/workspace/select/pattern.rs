//! Patterns and names: the syntax and the matching of `doublestar`, the library that GitLab Runner's helper uses.
//!
//! `**` (a whole component), `*`, `?`, `[..]`, `{a,b}`, `\` before any of them. A pattern is understood only as far as a name
//! makes it necessary, as there, so a malformed end can stay unseen. Characters are UTF-8; a byte that is none counts
//! as U+FFFD. This module does no I/O.

use std::cell::Cell;

/// What the runner would refuse, or what costs too much to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatternError {
    Malformed,
    TooMuch,
}

/// How much work may still be done, in steps of about a character; shared by all that one selection does.
#[derive(Debug)]
pub(crate) struct Budget(Cell<u64>);

impl Budget {
    pub(crate) fn new(steps: u64) -> Self {
        Self(Cell::new(steps))
    }

    pub(crate) fn spend(&self, steps: usize) -> Result<(), PatternError> {
        let left = self.0.get().checked_sub(u64::try_from(steps).unwrap_or(u64::MAX));
        // Once it is spent there is nothing left for smaller steps either: the outcome may not depend on their order.
        self.0.set(left.unwrap_or(0));
        left.map(drop).ok_or(PatternError::TooMuch)
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}

/// Where to go on when what follows a star does not fit: positions in the pattern and in the name.
#[derive(Debug, Clone, Copy, Default)]
struct Retry {
    star: Option<(usize, usize)>,
    stars: Option<(usize, usize)>,
}

/// More braces or components than this in one pattern are not looked at.
const MOST_PARTS: usize = 1024;

/// Whether the pattern has too many parts to be looked at.
pub(crate) fn is_deep(pattern: &[u8]) -> bool {
    pattern.iter().filter(|byte| matches!(byte, b'{' | b'}' | b'/')).count() > MOST_PARTS
}

/// Whether the whole pattern fits the whole name. `thorough`: a name that does not fit is still an error when the rest of
/// the pattern is malformed.
pub(crate) fn matches(pattern: &[u8], name: &[u8], thorough: bool, budget: &Budget) -> Result<bool, PatternError> {
    if is_deep(pattern) {
        return Err(PatternError::TooMuch);
    }
    let (retry, at, from) = (Retry::default(), 0, 0);
    Matcher { pattern, name, thorough, budget, retry, at, from, starts: true }.fits()
}

/// A pattern on its way through a name.
#[derive(Clone, Copy)]
struct Matcher<'p> {
    pattern: &'p [u8],
    name: &'p [u8],
    thorough: bool,
    budget: &'p Budget,
    retry: Retry,
    /// Where in the pattern it is, and where in the name.
    at: usize,
    from: usize,
    /// A doublestar counts as one only at the start of a component, or of an alternative.
    starts: bool,
}

/// What a step has come to.
enum Step {
    Fits,
    Differs,
    Ended(bool),
}

impl Matcher<'_> {
    fn fits(mut self) -> Result<bool, PatternError> {
        while self.from < self.name.len() {
            self.budget.spend(1)?;
            match self.step()? {
                Step::Fits => {}
                Step::Differs if self.go_back() => {}
                Step::Differs => {
                    return match self.pattern.get(self.at..) {
                        Some(rest) if self.thorough && !is_valid(rest) => Err(PatternError::Malformed),
                        _ => Ok(false),
                    };
                }
                Step::Ended(fits) => return Ok(fits),
            }
        }
        is_empty_enough(self.pattern.get(self.at..).unwrap_or_default(), self.thorough, self.budget)
    }

    /// Holds the next of the pattern against the next of the name.
    fn step(&mut self) -> Result<Step, PatternError> {
        let (letter, length) = character(&self.name[self.from..]);
        match self.pattern.get(self.at) {
            Some(b'*') => return Ok(self.star()),
            Some(b'?') => {
                self.starts = false;
                if letter != u32::from(b'/') {
                    self.at += 1;
                    self.from += length;
                    return Ok(Step::Fits);
                }
            }
            Some(b'[') => {
                self.starts = false;
                let (is_in, end) = class(self.pattern, self.at + 1, letter)?;
                self.at = end;
                if is_in {
                    self.from += length;
                    return Ok(Step::Fits);
                }
            }
            Some(b'{') => return self.alternatives().map(Step::Ended),
            Some(&byte) => {
                let literal = if byte == b'\\' { self.at + 1 } else { self.at };
                let Some(rest) = self.pattern.get(literal..).filter(|rest| !rest.is_empty()) else {
                    return Err(PatternError::Malformed);
                };
                let (wanted, width) = character(rest);
                if wanted == letter {
                    self.at = literal + width;
                    self.from += length;
                    self.starts = wanted == u32::from(b'/');
                    return Ok(Step::Fits);
                }
                // A literal backslash may stand before it, too: there the validation starts.
                self.at = if literal > 0 && self.pattern[literal - 1] == b'\\' { literal - 1 } else { literal };
            }
            None => {}
        }
        Ok(Step::Differs)
    }

    fn star(&mut self) -> Step {
        self.at += 1;
        if self.pattern.get(self.at) == Some(&b'*') {
            self.at += 1;
            match self.pattern.get(self.at) {
                None if self.starts => return Step::Ended(true),
                Some(b'/') if self.starts => {
                    self.at += 1;
                    self.retry = Retry { star: None, stars: Some((self.at, self.from)) };
                    return Step::Fits;
                }
                _ => {}
            }
        }
        self.starts = false;
        self.retry.star = Some((self.at, self.from));
        Step::Fits
    }

    fn alternatives(&self) -> Result<bool, PatternError> {
        let (pattern, at) = (self.pattern, self.at);
        let close = at + 1 + closing(&pattern[at + 1..]).ok_or(PatternError::Malformed)?;
        let mut choice = at + 1;
        loop {
            let end = comma(&pattern[choice..close]).map_or(close, |length| choice + length);
            let one = [&pattern[..at], &pattern[choice..end], &pattern[close + 1..]].concat();
            self.budget.spend(one.len())?;
            if (Matcher { pattern: &one, starts: true, ..*self }).fits()? {
                return Ok(true);
            }
            if end == close {
                return Ok(false);
            }
            choice = end + 1;
        }
    }

    /// Lets the last star take one more character, or else the last doublestar one more component.
    fn go_back(&mut self) -> bool {
        if let Some((after, taken)) = self.retry.star
            && self.name[taken] != b'/'
        {
            let taken = taken + character(&self.name[taken..]).1;
            self.retry.star = Some((after, taken));
            (self.at, self.from, self.starts) = (after, taken, false);
            return true;
        }
        if let Some((after, taken)) = self.retry.stars
            && let Some(length) = self.name[taken..].iter().position(|&byte| byte == b'/')
        {
            let taken = taken + length + 1;
            self.retry.stars = Some((after, taken));
            (self.at, self.from, self.starts) = (after, taken, true);
            return true;
        }
        false
    }
}

/// Whether `letter` is in the class whose bracket stands before `at`; if so, where the pattern goes on, else how far it was
/// looked at.
fn class(pattern: &[u8], mut at: usize, letter: u32) -> Result<(bool, usize), PatternError> {
    let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
    at += usize::from(negated);
    if matches!(pattern.get(at), None | Some(b']')) {
        return Err(PatternError::Malformed);
    }
    let next = |at: &mut usize| {
        let (letter, length) = character(pattern.get(*at..).unwrap_or_default());
        *at += length;
        letter
    };
    let mut found = false;
    let mut low = None;
    while pattern.get(at).is_some_and(|&byte| byte != b']') {
        let mut wanted = next(&mut at);
        if let Some(lowest) = low
            && wanted == u32::from(b'-')
            && pattern.get(at).is_some_and(|&byte| byte != b']')
        {
            at += usize::from(pattern[at] == b'\\');
            if (lowest..=next(&mut at)).contains(&letter) {
                found = true;
                break;
            }
            low = None;
            continue;
        }
        if wanted == u32::from(b'\\') {
            wanted = next(&mut at);
        }
        if wanted == letter {
            found = true;
            break;
        }
        low = Some(wanted).filter(|&letter| letter < u32::from(char::MAX));
    }
    let rest = pattern.get(at..).unwrap_or_default();
    if found == negated {
        return if rest.is_empty() { Err(PatternError::Malformed) } else { Ok((false, at)) };
    }
    let end = unescaped(rest).find(|&(_, byte)| byte == b']').ok_or(PatternError::Malformed)?.0;
    Ok((true, at + end + 1))
}

/// Whether the pattern fits a name that has ended.
fn is_empty_enough(pattern: &[u8], thorough: bool, budget: &Budget) -> Result<bool, PatternError> {
    if matches!(pattern, b"" | b"*" | b"**" | b"/**" | b"**/" | b"/**/") {
        return Ok(true);
    }
    if pattern.first() == Some(&b'{') {
        let close = 1 + closing(&pattern[1..]).ok_or(PatternError::Malformed)?;
        let mut choice = 1;
        loop {
            let end = comma(&pattern[choice..close]).map_or(close, |length| choice + length);
            let one = [&pattern[choice..end], &pattern[close + 1..]].concat();
            budget.spend(one.len() + 1)?;
            if is_empty_enough(&one, thorough, budget)? {
                return Ok(true);
            }
            if end == close {
                return Ok(false);
            }
            choice = end + 1;
        }
    }
    if thorough && !is_valid(pattern) { Err(PatternError::Malformed) } else { Ok(false) }
}

/// Whether classes and alternatives are closed and nothing ends in a backslash.
pub(crate) fn is_valid(pattern: &[u8]) -> bool {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = pattern.get(at) {
        at += 1;
        match byte {
            b'\\' if at >= pattern.len() => return false,
            b'\\' => at += 1,
            b'[' => {
                at += usize::from(matches!(pattern.get(at), Some(b'!' | b'^')));
                let Some(rest) = pattern.get(at..).filter(|rest| !rest.starts_with(b"]")) else { return false };
                let Some((end, _)) = unescaped(rest).find(|&(_, byte)| byte == b']') else { return false };
                at += end + 1;
            }
            b'{' => depth += 1,
            b'}' => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            _ => {}
        }
    }
    depth == 0
}

/// The bytes that no backslash precedes, with their places.
pub(crate) fn unescaped(pattern: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let mut escaped = false;
    pattern.iter().copied().enumerate().filter(move |&(_, byte)| {
        let plain = !escaped && byte != b'\\';
        escaped = !escaped && byte == b'\\';
        plain
    })
}

/// In what follows a `{`: the place of its `}`.
fn closing(rest: &[u8]) -> Option<usize> {
    let mut depth = 1usize;
    unescaped(rest)
        .find(|&(_, byte)| {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            depth == 0
        })
        .map(|(at, _)| at)
}

/// In what stands between braces: the place of the first comma of theirs.
pub(crate) fn comma(choices: &[u8]) -> Option<usize> {
    let mut depth = 0isize;
    unescaped(choices)
        .find(|&(_, byte)| {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            byte == b',' && depth == 0
        })
        .map(|(at, _)| at)
}

/// The first character and its length in bytes, 0 at the end.
fn character(bytes: &[u8]) -> (u32, usize) {
    const UNKNOWN: u32 = char::REPLACEMENT_CHARACTER as u32;
    match bytes.first() {
        None => (UNKNOWN, 0),
        Some(&byte) if byte.is_ascii() => (u32::from(byte), 1),
        Some(_) => {
            let chunk = bytes[..bytes.len().min(4)].utf8_chunks().next();
            match chunk.and_then(|chunk| chunk.valid().chars().next()) {
                Some(letter) => (letter.into(), letter.len_utf8()),
                None => (UNKNOWN, 1),
            }
        }
    }
}
