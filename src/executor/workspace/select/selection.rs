//! Which paths later host stages read: artifact, report and cache paths, with the meaning GitLab Runner's helper gives them.
//!
//! Each definition of the job is a [`Rule`] of its own. The helper's search is done over again in what is there (see `glob`):
//! wanted is what it would archive, and the links it would follow on the way. It errs on one side only: where the outcome
//! cannot be known here, more is wanted than the helper takes.

use std::collections::{BTreeSet, HashSet};

use super::expansion::{expanded, with_values};
use super::glob;
use super::link::stray_link;
use super::pattern::{Budget, PatternError, matches};
use super::tree_view::{Node, TreeView};
use crate::protocol::project::{Rule, Selection};
use crate::workspace::warnings::LeftOut;

/// Steps that one selection may take, each of some nanoseconds: at least, and for each path there is. One that would take
/// more wants everything.
const LEAST_STEPS: u64 = 4_000_000;
const STEPS_PER_PATH: u64 = 2000;

impl Rule {
    /// The rule with the values of plain variables, `$NAME` and `${NAME}`, in its paths, so that they stay what they are when
    /// the paths are expanded.
    #[must_use]
    pub fn with_values(mut self, value: &dyn Fn(&str) -> Option<String>) -> Self {
        let variables = &mut self.variables;
        for path in self.include.iter_mut().chain(&mut self.exclude) {
            *path = with_values(path, value, variables);
        }
        self
    }
}

/// What a selection wants of a tree.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    everything: bool,
    paths: HashSet<Vec<u8>>,
    /// Links that are gone through, in truth or for all that is known.
    followed: HashSet<Vec<u8>>,
    /// A path goes nobody knows where.
    is_unsure: bool,
}

/// How much work a search may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    Container,
    /// Half of it: where the container's search ends early, so does the host's.
    Host,
}

impl Wanted {
    pub(crate) fn wants(&self, path: &[u8]) -> bool {
        self.everything || self.paths.contains(path)
    }

    /// What is wanted cannot be known here, so everything is.
    fn give_up(&mut self) {
        self.everything = true;
        self.is_unsure = true;
    }
}

impl Selection {
    /// What is wanted of a tree. `assigned` is the content of `gitlab_runner_env`.
    pub(crate) fn wanted(&self, view: &TreeView<'_>, assigned: &[u8], effort: Effort) -> Wanted {
        let mut wanted = Wanted { everything: self.everything, ..Wanted::default() };
        let paths = u64::try_from(view.paths().count()).unwrap_or(u64::MAX);
        let steps = paths.saturating_mul(STEPS_PER_PATH).saturating_add(LEAST_STEPS);
        let budget = Budget::new(if effort == Effort::Host { steps / 2 } else { steps });
        for rule in &self.rules {
            // Which links are gone through matters where some are kept.
            if wanted.everything && !self.outside_links {
                break;
            }
            Search::new(rule, view, &budget).run(rule, assigned, &mut wanted);
        }
        if budget.is_spent() {
            wanted.give_up();
        }
        wanted
    }

    /// Why a link that is wanted does not come back, if it does not. One that leads out of the project does when the operator keeps those, and no path
    /// of the job goes through it: the runner's helper would read what it leads to.
    pub(crate) fn leaves_out(&self, wanted: &Wanted, project: &[u8], path: &[u8], node: Node<'_>) -> Option<LeftOut> {
        let Node::Link(target) = node else { return None };
        let stray = stray_link(project, path, target)?;
        let leads_out = matches!(stray, LeftOut::OutsideLink | LeftOut::DotsLink);
        if !(leads_out && self.outside_links) {
            return Some(stray);
        }
        (wanted.is_unsure || wanted.followed.contains(path)).then_some(LeftOut::FollowedLink)
    }
}

struct Search<'s, 'a> {
    view: &'s TreeView<'a>,
    budget: &'s Budget,
    exclude: Vec<Vec<u8>>,
    follow: bool,
    links: BTreeSet<Vec<u8>>,
}

impl<'s, 'a> Search<'s, 'a> {
    fn new(rule: &Rule, view: &'s TreeView<'a>, budget: &'s Budget) -> Self {
        // The helper looks no further than a pattern that leads out of the project.
        let relative = |pattern: &String| glob::relative(view.project(), &expanded(pattern)?);
        let exclude = rule.exclude.iter().map_while(relative).collect();
        Self { view, budget, exclude, follow: rule.follow, links: BTreeSet::new() }
    }

    fn run(mut self, rule: &Rule, assigned: &[u8], wanted: &mut Wanted) {
        if rule.variables.iter().any(|name| assigned.windows(name.len().max(1)).any(|part| part == name.as_bytes())) {
            wanted.give_up();
            return;
        }
        if rule.untracked && self.exclude.is_empty() {
            wanted.everything = true;
        }
        for path in &rule.include {
            if self.include(path, wanted).is_err() {
                wanted.give_up();
                return;
            }
        }
        if rule.untracked && !self.exclude.is_empty() {
            for path in self.view.paths() {
                self.archive(path, path, wanted);
            }
        }
        wanted.followed.extend(self.links.iter().cloned());
        wanted.paths.extend(self.links);
    }

    fn include(&mut self, path: &str, wanted: &mut Wanted) -> Result<(), PatternError> {
        let path = expanded(path).ok_or(PatternError::TooMuch)?;
        if path.is_empty() {
            return Ok(());
        }
        let Some(pattern) = glob::relative(self.view.project(), &path) else { return Ok(()) };
        let found = match glob::find(self.view, &pattern, self.budget, &mut self.links) {
            // The helper warns and goes on without it.
            Err(PatternError::Malformed) => return Ok(()),
            other => other?,
        };
        for name in found {
            self.walk(name, wanted)?;
        }
        Ok(())
    }

    /// Archives what is there and, of a directory, all it holds. A link is not followed at the end of the name.
    fn walk(&mut self, name: Vec<u8>, wanted: &mut Wanted) -> Result<(), PatternError> {
        let Some((path, node)) = self.view.resolve(&name, false, &mut self.links) else { return Ok(()) };
        let mut waiting = vec![(name, path, node)];
        while let Some((name, path, node)) = waiting.pop() {
            self.budget.spend(name.len() + path.len())?;
            if node == Node::Directory {
                let below = self.view.list(&path).into_iter();
                waiting.extend(
                    below.map(|(entry, node)| {
                        (glob::joined(&name, entry), [path.as_slice(), b"/", entry].concat(), node)
                    }),
                );
            }
            let Some(name) = glob::below(self.view.project(), &name) else { continue };
            if let Some(path) = self.view.inside(&path) {
                self.archive(&name, path, wanted);
            }
        }
        Ok(())
    }

    /// `path` is where the entry is in truth, `name` what the helper calls it.
    fn archive(&mut self, name: &[u8], path: &[u8], wanted: &mut Wanted) {
        if self.exclude.iter().any(|pattern| matches(pattern, name, true, self.budget) == Ok(true)) {
            return;
        }
        if !wanted.paths.contains(path) {
            wanted.paths.insert(path.to_vec());
        }
        if self.follow
            && let Some((end, _)) = self.view.resolve(name, true, &mut self.links)
        {
            wanted.paths.extend(self.view.inside(&end).map(<[u8]>::to_vec));
        }
    }
}

#[cfg(test)]
mod tests;
