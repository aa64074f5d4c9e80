//! Identifies callers, finds the actions that a request needs, and asks the policies of the accounts for them.
//!
//! `account.rs` reads users and roles, `actions.rs` says which actions a request needs, `context.rs` fills the condition keys,
//! `authority.rs` holds the policies and asks the `iam` module to decide.

mod account;
mod actions;
mod authority;
mod building;
mod context;
pub(crate) mod identity;
mod monitoring;
mod packages;
mod secrets;
mod serving;

pub(crate) use self::account::{IamAccount, IamEntity};
pub(crate) use self::actions::{json_actions, s3_action, s3_actions};
pub(crate) use self::authority::Authority;
pub(crate) use self::building::sent_tags;
pub(crate) use self::context::{NeededAction, SAGEMAKER};
pub(crate) use self::identity::{Identity, RoleSession, account_of};
pub(crate) use self::secrets::secret_action;
