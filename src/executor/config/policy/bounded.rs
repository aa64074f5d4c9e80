//! Decides a number or a switch that has a default and bounds.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::bounds::{JobBounds, Limit, Switch};
use super::refusal::asked;
use crate::base::failure::Failure;
use crate::config::rules::Choice;

/// A number that a job may ask for.
pub(super) struct Bounded<T> {
    pub variable: &'static str,
    /// The key in `allow`.
    pub key: &'static str,
    pub limit: Limit<T>,
    /// SageMaker's own limits.
    pub service: RangeInclusive<T>,
    /// A blank and the unit, or nothing.
    pub unit: &'static str,
}

impl<T: Ord + Copy + Display> Bounded<T> {
    pub(super) fn decide(self, wish: Option<T>, bounds: &JobBounds) -> Result<T, Failure> {
        let (variable, unit, least, most) = (self.variable, self.unit, self.service.start(), self.service.end());
        let Some(value) = wish else { return Ok(self.limit.default) };
        if !self.service.contains(&value) {
            return Err(Failure::user(format!("`{variable}` is {value}{unit}; it goes from {least} to {most}{unit}")));
        }
        if value <= self.limit.most {
            return Ok(value);
        }
        let allowed = format!("at most {}{unit}", self.limit.most);
        Err(asked(bounds, variable, &format!("{value}{unit}"), &allowed, self.key))
    }
}

/// The job's choice as far as it has one.
pub(super) fn switched(
    variable: &str,
    key: &str,
    wish: Option<bool>,
    switch: Switch,
    bounds: &JobBounds,
) -> Result<bool, Failure> {
    match (wish, switch.choice) {
        (None, _) => Ok(switch.default),
        (Some(true), Choice::Refuse) => Err(asked(bounds, variable, "`true`", "`false` alone", key)),
        (Some(false), Choice::Only) => Err(asked(bounds, variable, "`false`", "`true` alone", key)),
        (Some(wish), _) => Ok(wish),
    }
}
