//! The installation that the checks look at: the operator's file, and the ways to the machine and to AWS.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::clock::Clock;
use crate::cloud::{Access, CloudError, CloudErrorKind, Connect};
use crate::config::policy::{self, JobBounds};
use crate::config::settings::Settings;

/// Longest time of one call, with its repeats.
const ANSWERED_WITHIN: Duration = Duration::from_secs(4);
/// Longest time of all calls to AWS together; each check tells when its own ended without an answer.
const ALL_WITHIN: Duration = Duration::from_secs(8);

/// Attempts of one call. With the usual number a way that is closed would look like a service that does not answer in time, without its reason.
const ATTEMPTS: u32 = 3;

/// Inputs of the checks that need a usable operator's file.
pub(super) struct Installation<'a> {
    pub(super) settings: &'a Settings,
    pub(super) access: Access,
    /// Bounds of the jobs of each rule.
    pub(super) bounds: Vec<JobBounds>,
    pub(super) connect: &'a dyn Connect,
    pub(super) clock: &'a dyn Clock,
    /// No call to AWS lasts longer.
    until: Instant,
}

impl<'a> Installation<'a> {
    pub(super) fn new(settings: &'a Settings, (connect, clock): (&'a dyn Connect, &'a dyn Clock)) -> Self {
        let mut bounds: Vec<JobBounds> = settings.rules.iter().map(|rule| policy::of_rule(rule, settings)).collect();
        if bounds.is_empty() {
            bounds.push(policy::of_default(settings));
        }
        let access = Access { attempts: Some(ATTEMPTS), ..settings.access() };
        Self { settings, access, bounds, connect, clock, until: Instant::now() + ALL_WITHIN }
    }

    /// The answer of a service, or an error that says that it did not answer in time. One service that is out of reach keeps no other
    /// check from its end.
    pub(super) async fn within<T, E: From<CloudError>>(
        &self,
        service: &str,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let until = self.until.min(Instant::now() + ANSWERED_WITHIN);
        let late = || CloudError {
            kind: CloudErrorKind::Transient,
            operation: format!("reach {service}"),
            message: "no answer in time; look at the host's way to it: a route, a proxy, a VPC endpoint".to_owned(),
            action: "",
        };
        tokio::time::timeout_at(until, call).await.unwrap_or_else(|_| Err(late().into()))
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
