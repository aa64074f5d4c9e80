//! Names that `package` gives to its files. Pure.

/// Digits of day and time of day in names of candidates.
const DAY_DIGITS: usize = 8;
const CLOCK_DIGITS: usize = 6;
/// Begin of the names of candidates.
const CANDIDATE: &str = "candidate-PR-";
/// Begin of the names of packages of releases.
const STABLE: &str = "stable-";
/// Digits of a commit in names.
const COMMIT_DIGITS: usize = 8;

/// Tells whether the name is one that `package` gives a candidate: `candidate-PR-12-0123abcd-20261129T045233Z`, or with `none` as the number.
pub(super) fn is_candidate(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(CANDIDATE) else { return false };
    let parts: Vec<_> = rest.split('-').collect();
    let [request, commit, time] = parts[..] else { return false };
    let is_commit = commit.len() == COMMIT_DIGITS && is_hex(commit);
    (request == "none" || is_digits(request)) && is_commit && is_stamp(time)
}

/// Tells whether the name is that of a file that `package` makes: of a candidate, or `stable-20261129T045233Z.zip`.
pub(super) fn is_packaged(file: &str) -> bool {
    let Some(name) = file.strip_suffix(".zip") else { return false };
    is_candidate(name) || name.strip_prefix(STABLE).is_some_and(is_stamp)
}

pub(super) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A time like `20261129T045233Z`.
fn is_stamp(time: &str) -> bool {
    time.strip_suffix('Z').and_then(|time| time.split_once('T')).is_some_and(|(day, clock)| {
        day.len() == DAY_DIGITS && clock.len() == CLOCK_DIGITS && is_digits(day) && is_digits(clock)
    })
}
