//! Evaluates a selection: the artifact, report and cache paths that later host stages read, with the semantics of GitLab Runner's helper.
//!
//! Each definition of the job is a [`Rule`]. The helper's search is repeated on the tree (see `glob`); wanted are the entries it would
//! archive and the links it would follow on the way. Where the result cannot be known here, more is wanted than the helper takes,
//! never less.

use std::collections::{BTreeSet, HashSet};

use super::expansion::{expanded, with_values};
use super::glob;
use super::link::stray_link;
use super::pattern::{Budget, PatternError, matches};
use super::tree_view::{Node, TreeView};
use crate::protocol::project::{Rule, Selection};
use crate::workspace::path::{enters_git, enters_own_git};
use crate::workspace::warnings::LeftOut;

/// Limit of a selection's steps of some nanoseconds each: a minimum, and an addition for each path. A selection that exceeds it wants
/// everything.
const LEAST_STEPS: u64 = 4_000_000;
const STEPS_PER_PATH: u64 = 2000;

impl Rule {
    /// Replaces plain variables, `$NAME` and `${NAME}`, in the rule's paths by their values, escaped against the later expansion.
    #[must_use]
    pub fn with_values(mut self, value: &dyn Fn(&str) -> Option<String>) -> Self {
        let variables = &mut self.variables;
        for path in self.include.iter_mut().chain(&mut self.exclude) {
            *path = with_values(path, value, variables);
        }
        self
    }
}

/// The paths of a tree that a selection wants.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    everything: bool,
    paths: HashSet<Vec<u8>>,
    /// Links that a path follows or may follow.
    followed: HashSet<Vec<u8>>,
    /// The target of a path is unknown.
    is_unsure: bool,
}

/// Limit of the work of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    Container,
    /// Half of the container's limit, so that the host's search ends early whenever the container's does.
    Host,
}

impl Wanted {
    pub(crate) fn wants(&self, path: &[u8]) -> bool {
        self.everything || self.paths.contains(path)
    }

    /// The result is unknown, so everything is wanted.
    fn give_up(&mut self) {
        self.everything = true;
        self.is_unsure = true;
    }
}

impl Selection {
    /// The wanted paths of a tree. `assigned` is the content of `gitlab_runner_env`.
    pub(crate) fn wanted(&self, view: TreeView<'_>, assigned: &[u8], effort: Effort) -> Wanted {
        let view = &self.folder.iter().fold(view, |view, folder| view.within(folder));
        let mut wanted = Wanted { everything: self.everything, ..Wanted::default() };
        let paths = u64::try_from(view.paths().count()).unwrap_or(u64::MAX);
        let steps = paths.saturating_mul(STEPS_PER_PATH).saturating_add(LEAST_STEPS);
        let budget = Budget::new(if effort == Effort::Host { steps / 2 } else { steps });
        for rule in &self.rules {
            // The followed links matter only where links out of the project are kept.
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

    /// Tells paths in a `.git` that never come back.
    pub(crate) fn stays_with_git(&self) -> fn(&[u8]) -> bool {
        if self.nested_repositories { enters_own_git } else { enters_git }
    }

    /// Returns why a wanted link is left out, if so. A link out of the project is sent back when the operator keeps such links and no path
    /// of the job goes through it; otherwise the runner's helper would read its target.
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
        // The helper stops at the first pattern that leads out of the project.
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
                self.archive(&self.view.named(path), path, wanted);
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
            // The helper warns and skips it.
            Err(PatternError::Malformed) => return Ok(()),
            other => other?,
        };
        for name in found {
            self.walk(name, wanted)?;
        }
        Ok(())
    }

    /// Archives the entry and, for a directory, everything in it. Does not follow a link at the end of the name.
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

    /// `path` is the real path of the entry, `name` the helper's name for it.
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
