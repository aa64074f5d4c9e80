//! The installation that the checks look at: the operator's file, and the ways to the machine and to AWS.

use std::collections::BTreeSet;

use super::machine::HostMachine;
use crate::base::clock::Clock;
use crate::cloud::{Access, Connect};
use crate::config::policy::{self, JobBounds};
use crate::config::settings::Settings;

/// Inputs of the checks that need a usable operator's file.
pub(super) struct Installation<'a> {
    pub(super) settings: &'a Settings,
    pub(super) access: Access,
    /// Bounds of the jobs of each rule.
    pub(super) bounds: Vec<JobBounds>,
    pub(super) connect: &'a dyn Connect,
    pub(super) clock: &'a dyn Clock,
}

impl<'a> Installation<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        (_, connect, clock): (&'a dyn HostMachine, &'a dyn Connect, &'a dyn Clock),
    ) -> Self {
        let mut bounds: Vec<JobBounds> = settings.rules.iter().map(|rule| policy::of_rule(rule, settings)).collect();
        if bounds.is_empty() {
            bounds.push(policy::of_default(settings));
        }
        Self { settings, access: settings.access(), bounds, connect, clock }
    }

    /// Roles of training jobs, in the order of the file.
    pub(super) fn job_roles(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let all = self.bounds.iter().flat_map(|bounds| &bounds.roles);
        all.filter(|role| !role.contains('*') && seen.insert(*role)).cloned().collect()
    }

    /// Roles of training jobs, and the one that creates these.
    pub(super) fn roles(&self) -> Vec<String> {
        let mut roles = self.job_roles();
        roles.extend(self.settings.aws.creator_role_arn.clone());
        roles
    }
}
