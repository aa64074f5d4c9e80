//! The warnings of a transfer, limited in number. Files that are left out are grouped by reason, with a count and the first examples.

use std::collections::BTreeMap;

use super::path::shown;

/// Why an entry is not transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LeftOut {
    /// No path of the job matches it.
    Unasked,
    Special,
    /// `.git` of a repository below the project.
    NestedRepository,
    /// A name that some file systems treat as `.git`.
    GitName,
    TooDeep,
    OutsideLink,
    /// A link with `..` after a name: the name may itself be a link, so the target may be outside.
    DotsLink,
    /// A link out of the project on the way of a job's path.
    FollowedLink,
    GitLink,
    UnusableLink,
}

impl LeftOut {
    /// Singular and plural.
    fn noun(self) -> [&'static str; 2] {
        match self {
            LeftOut::Unasked => ["entry that the job does not ask for", "entries that the job does not ask for"],
            LeftOut::Special => ["socket, FIFO or device", "sockets, FIFOs or devices"],
            LeftOut::NestedRepository => ["nested git repository", "nested git repositories"],
            LeftOut::GitName => {
                ["name that some file systems take for `.git`", "names that some file systems take for `.git`"]
            }
            LeftOut::TooDeep => ["entry more than 256 directories deep", "entries more than 256 directories deep"],
            LeftOut::OutsideLink => ["link that leads out of the project", "links that lead out of the project"],
            LeftOut::DotsLink => ["link with `..` after a name", "links with `..` after a name"],
            LeftOut::FollowedLink => [
                "link that leads out of the project and that a path of `artifacts` or `cache` goes through",
                "links that lead out of the project and that a path of `artifacts` or `cache` goes through",
            ],
            LeftOut::GitLink => ["link into a `.git`", "links into a `.git`"],
            LeftOut::UnusableLink => [
                "link with no target, or with one of more than 1023 bytes",
                "links with no target, or with one of more than 1023 bytes",
            ],
        }
    }

    fn hint(self) -> &'static str {
        match self {
            LeftOut::NestedRepository => "; what is in a `.git` never comes back, the files beside it do",
            LeftOut::OutsideLink | LeftOut::DotsLink => {
                "; the operator can keep such links with `results.keep_outside_links`"
            }
            _ => "",
        }
    }

    fn line(self, count: u64, examples: &[String]) -> String {
        let (first, rest) = examples.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
        if self == LeftOut::Unasked {
            let more = match count {
                0 | 1 => String::new(),
                2 => format!("; also {}", listed(rest, 1)),
                _ => format!("; also {} more: {}", count - 1, listed(rest, count - 1)),
            };
            return format!("left out: {first}, which no path of the job's artifacts, reports or cache selects{more}");
        }
        let [one, several] = self.noun();
        format!(
            "left out: {count} {}: {}{}",
            if count == 1 { one } else { several },
            listed(examples, count),
            self.hint()
        )
    }
}

fn listed(examples: &[String], count: u64) -> String {
    let more = count.saturating_sub(examples.len() as u64);
    let examples = examples.join(", ");
    if more > 0 { format!("{examples} and {more} more") } else { examples }
}

/// The collected warnings.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    lines: Vec<String>,
    more: u64,
    left_out: BTreeMap<LeftOut, (u64, Vec<String>)>,
}

impl Warnings {
    pub(crate) const MOST: usize = 100;
    const EXAMPLES: usize = 3;
    /// Longest path of an example, in characters.
    const EXAMPLE: usize = 200;

    pub(crate) fn add(&mut self, line: String) {
        if self.lines.len() < Self::MOST {
            self.lines.push(line);
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn leave_out(&mut self, why: LeftOut, path: &[u8]) {
        let (count, examples) = self.left_out.entry(why).or_default();
        *count += 1;
        if examples.len() < Self::EXAMPLES {
            let mut example = shown(path);
            if let Some((at, _)) = example.char_indices().nth(Self::EXAMPLE) {
                example.truncate(at);
                example.push_str("...`");
            }
            examples.push(example);
        }
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.more += other.more;
        other.lines.into_iter().for_each(|line| self.add(line));
        for (why, (count, examples)) in other.left_out {
            let own = self.left_out.entry(why).or_default();
            own.0 += count;
            own.1.extend(examples);
            own.1.truncate(Self::EXAMPLES);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.left_out.is_empty()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = self.lines.clone();
        if self.more > 0 {
            lines.push(format!("and {} more", self.more));
        }
        lines.extend(self.left_out.iter().map(|(why, (count, examples))| why.line(*count, examples)));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_one_line_with_its_first_examples() {
        let mut warnings = Warnings::default();
        warnings.add("something else".to_owned());
        let mut more = Warnings::default();
        for number in 0..25 {
            more.leave_out(LeftOut::OutsideLink, format!("venv/{number}").as_bytes());
        }
        more.leave_out(LeftOut::GitName, b"git~1");
        for name in ["a", "b"] {
            warnings.leave_out(LeftOut::Unasked, name.as_bytes());
        }
        warnings.append(more);
        assert_eq!(
            warnings.lines(),
            [
                "something else",
                "left out: `a`, which no path of the job's artifacts, reports or cache selects; also `b`",
                "left out: 1 name that some file systems take for `.git`: `git~1`",
                "left out: 25 links that lead out of the project: `venv/0`, `venv/1`, `venv/2` and 22 more; the operator can keep such links with \
                 `results.keep_outside_links`",
            ]
        );
    }

    #[test]
    fn an_example_has_an_end() {
        let mut warnings = Warnings::default();
        warnings.leave_out(LeftOut::Special, &[b'x'; 16_000]);
        assert!(warnings.lines()[0].len() < 300, "{:?}", warnings.lines());
    }
}
