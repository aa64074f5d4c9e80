//! Decisions of AWS's access management: policies and a request go in, a verdict comes out.
//!
//! Everything here is pure. The keys, principals and policies of a request come from the callers of [`evaluate()`].

mod conditions;
mod document;
mod evaluate;
mod keys;
mod pattern;
mod principals;
#[cfg(test)]
mod tests;
mod variables;

pub(crate) use self::document::{Document, PolicyKind};
pub(crate) use self::evaluate::{Policies, Verdict, assumes, evaluate, trusts};
pub(crate) use self::keys::{ConditionKeys, Question};
pub(crate) use self::principals::Principal;
