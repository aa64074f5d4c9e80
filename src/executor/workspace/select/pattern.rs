//! Matches names against patterns exactly as `doublestar` does, the library of GitLab Runner's helper.
//!
//! Syntax: `**` (a whole component), `*`, `?`, `[..]`, `{a,b}`, and `\` before any of them. As in the library, a pattern is parsed only
//! as far as the name requires, so a malformed end may go unnoticed. Characters are UTF-8; an invalid byte counts as U+FFFD. No I/O.

use std::cell::Cell;

/// The runner would refuse the pattern, or matching it takes too many steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatternError {
    Malformed,
    TooMuch,
}

/// Limit of the remaining work of a selection, in steps of about a character.
#[derive(Debug)]
pub(crate) struct Budget(Cell<u64>);

impl Budget {
    pub(crate) fn new(steps: u64) -> Self {
        Self(Cell::new(steps))
    }

    pub(crate) fn spend(&self, steps: usize) -> Result<(), PatternError> {
        let left = self.0.get().checked_sub(u64::try_from(steps).unwrap_or(u64::MAX));
        // Set to 0 so that smaller steps fail too: the result must not depend on their order.
        self.0.set(left.unwrap_or(0));
        left.map(drop).ok_or(PatternError::TooMuch)
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}

/// Where to continue after a mismatch behind a star or doublestar: positions in the pattern and in the name.
#[derive(Debug, Clone, Copy, Default)]
struct Retry {
    star: Option<(usize, usize)>,
    stars: Option<(usize, usize)>,
}

/// Most braces and components of a pattern; one with more is not evaluated.
const MOST_PARTS: usize = 1024;

/// True when the pattern has too many parts to be evaluated.
pub(crate) fn is_deep(pattern: &[u8]) -> bool {
    pattern.iter().filter(|byte| matches!(byte, b'{' | b'}' | b'/')).count() > MOST_PARTS
}

/// True when the whole pattern matches the whole name. With `thorough`, a name that does not match is an error when the rest of the
/// pattern is malformed.
pub(crate) fn matches(pattern: &[u8], name: &[u8], thorough: bool, budget: &Budget) -> Result<bool, PatternError> {
    if is_deep(pattern) {
        return Err(PatternError::TooMuch);
    }
    let (retry, at, from) = (Retry::default(), 0, 0);
    Matcher { pattern, name, thorough, budget, retry, at, from, starts: true }.fits()
}

/// The state of a match.
#[derive(Clone, Copy)]
struct Matcher<'p> {
    pattern: &'p [u8],
    name: &'p [u8],
    thorough: bool,
    budget: &'p Budget,
    retry: Retry,
    /// Position in the pattern; `from`: in the name.
    at: usize,
    from: usize,
    /// At the start of a component or an alternative, the only place where `**` is a doublestar.
    starts: bool,
}

/// The result of a step.
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

    /// Matches the next element of the pattern with the next character of the name.
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
                // Validation starts at a backslash before the character.
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

    /// Backtracks: the last star takes one more character, or else the last doublestar one more component.
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

/// Matches `letter` with the class whose bracket is before `at`. Returns the position after the class if it matches, else the position
/// where parsing stopped.
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

/// True when the pattern matches the empty rest of a name.
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

/// True when classes and alternatives are closed and the pattern does not end with a backslash.
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

/// The bytes that are not escaped by a backslash, with their positions.
pub(crate) fn unescaped(pattern: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let mut escaped = false;
    pattern.iter().copied().enumerate().filter(move |&(_, byte)| {
        let plain = !escaped && byte != b'\\';
        escaped = !escaped && byte == b'\\';
        plain
    })
}

/// The position of the matching `}` in the text after a `{`.
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

/// The position of the first top-level comma in the text between braces.
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
