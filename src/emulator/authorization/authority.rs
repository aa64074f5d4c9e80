//! The policies of all accounts, and whether a caller may do what a request needs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::account::{IamAccount, IamEntity};
use super::context::{NeededAction, with_caller};
use super::identity::{Identity, account_of, role_name};
use crate::caller::Caller;
use crate::config::EmulatorConfig;
use crate::error::SetupError;
use crate::iam::{Document, Policies, PolicyKind, Principal, Question, Verdict, assumes, evaluate, trusts};
use crate::tags::TagMap;

/// The policy that roles of training jobs have without `--iam`.
const TRAINING_JOB: &str = include_str!("../../../runner-config/iam/training-job.json");

/// Number of requests by action.
type Counts = BTreeMap<String, u64>;

/// Actions by the number of the policy in a role and the `Sid` of the statement that allowed them.
type Statements = BTreeMap<(usize, String), BTreeSet<String>>;

/// All policies of the accounts, and what was decided by them so far.
#[derive(Debug)]
pub(crate) struct Authority {
    /// Users and roles by account. None when no account was given: then every role exists.
    accounts: BTreeMap<String, IamAccount>,
    everything: Vec<Document>,
    training: Vec<Document>,
    /// Allowed and denied actions, by principal.
    decided: Mutex<BTreeMap<String, [Counts; 2]>>,
    /// The statements that allowed something, by principal.
    used: Mutex<BTreeMap<String, Statements>>,
}

impl Authority {
    /// Reads the accounts of the configuration.
    pub(crate) fn new(config: &EmulatorConfig) -> anyhow::Result<Self> {
        let everything =
            json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]});
        let document = |policy: &Value| Document::parse(PolicyKind::Identity, policy).map_err(anyhow::Error::msg);
        Ok(Self {
            accounts: read(&config.iam, &config.account)?,
            everything: vec![document(&everything).context("failed to read the administrator's policy")?],
            training: vec![document(&training_policy()?).context("failed to read the training jobs' policy")?],
            decided: Mutex::default(),
            used: Mutex::default(),
        })
    }

    /// Users and roles by account, when accounts were given.
    pub(crate) fn accounts(&self) -> &BTreeMap<String, IamAccount> {
        &self.accounts
    }

    /// The role of an ARN, in any account.
    pub(crate) fn role(&self, arn: &str) -> Option<&IamEntity> {
        self.accounts.get(account_of(arn)?)?.role(arn)
    }

    /// Decides on one action; the error is the message of AWS.
    pub(crate) fn allows(
        &self,
        caller: &Caller,
        needed: &NeededAction,
        resource_policy: Option<&Document>,
    ) -> Result<(), String> {
        let verdict = self.decide(caller, needed, resource_policy);
        self.count(caller, needed, verdict.is_ok());
        verdict
    }

    /// The same decision, which is not counted: the caller did not ask for the action. Statements that allow it are noted.
    pub(crate) fn decide(
        &self,
        caller: &Caller,
        needed: &NeededAction,
        resource_policy: Option<&Document>,
    ) -> Result<(), String> {
        match self.ask(caller, needed, resource_policy, evaluate) {
            Verdict::Allowed => {
                self.note_statements(caller, needed);
                Ok(())
            }
            Verdict::Denied(denial) => Err(format!(
                "User: {} is not authorized to perform: {} on resource: {} {}",
                caller.arn(),
                needed.action,
                needed.shown_resource(),
                denial.words()
            )),
        }
    }

    /// Decides on an action that begins a session of a role. The administrator may begin one of any role; without an account,
    /// there is no trust policy.
    pub(crate) fn assumes(&self, caller: &Caller, role: Option<&IamEntity>, needed: &NeededAction) -> bool {
        let trust = role.and_then(|role| role.trust.as_ref());
        let ask = if role.is_some() { assumes } else { evaluate };
        let allowed = caller.is_administrator() || self.ask(caller, needed, trust, ask) == Verdict::Allowed;
        self.count(caller, needed, allowed);
        if allowed {
            self.note_statements(caller, needed);
        }
        allowed
    }

    /// Whether the trust policy of a role admits a token of an identity provider.
    pub(crate) fn admits(&self, caller: &Caller, provider: &str, role: &IamEntity, needed: &NeededAction) -> bool {
        let keys = with_caller(needed, caller, &TagMap::new());
        let principal = Principal { arn: provider, role_arn: None, account: &caller.account, service: None };
        let question = Question { action: &needed.action, resource: &needed.resource, keys: &keys };
        let allowed = role.trust.as_ref().is_some_and(|trust| trusts(trust, &principal, &question) == Verdict::Allowed);
        self.count(caller, needed, allowed);
        allowed
    }

    fn ask(
        &self,
        caller: &Caller,
        needed: &NeededAction,
        resource: Option<&Document>,
        decide: fn(&Principal, &Question, &Policies) -> Verdict,
    ) -> Verdict {
        let identity = &caller.identity;
        let keys = with_caller(needed, caller, &self.principal_tags(identity));
        let (arn, principal) = (caller.arn(), identity.principal_arn(&caller.account, &caller.region));
        let session = identity.session();
        let role_arn = session.map(|_| principal.as_str());
        let principal = Principal { arn: &arn, role_arn, account: &caller.account, service: None };
        let question = Question { action: &needed.action, resource: &needed.resource, keys: &keys };
        let policies = Policies {
            identity: self.policies(identity),
            resource,
            session: session.and_then(|session| session.policy.as_deref()),
            boundary: self.entity(identity).and_then(|entity| entity.boundary.as_ref()),
            across: needed.owner.as_ref().is_some_and(|owner| *owner != caller.account),
        };
        decide(&principal, &question, &policies)
    }

    /// Notes which statements of the caller's own policies allow an action.
    fn note_statements(&self, caller: &Caller, needed: &NeededAction) {
        let identity = &caller.identity;
        if self.entity(identity).is_none() {
            return;
        }
        let keys = with_caller(needed, caller, &self.principal_tags(identity));
        let (arn, principal_arn) = (caller.arn(), identity.principal_arn(&caller.account, &caller.region));
        let role_arn = identity.session().map(|_| principal_arn.as_str());
        let principal = Principal { arn: &arn, role_arn, account: &caller.account, service: None };
        let question = Question { action: &needed.action, resource: &needed.resource, keys: &keys };
        let mut used = self.used.lock();
        let used = used.entry(principal_arn.clone()).or_default();
        for (number, policy) in self.policies(identity).iter().enumerate() {
            for sid in policy.allowing(&principal, &question) {
                used.entry((number, sid.to_owned())).or_default().insert(needed.action.clone());
            }
        }
    }

    /// The statements that allowed something so far, by principal.
    pub(crate) fn statements(&self) -> Value {
        let of = |((policy, sid), actions): (&(usize, String), &BTreeSet<String>)| json!({"policy": policy, "statement": sid, "actions": actions});
        let used = self.used.lock();
        let of_principal =
            used.iter().map(|(principal, all)| (principal.clone(), all.iter().map(of).collect::<Value>()));
        Value::Object(of_principal.collect())
    }

    fn count(&self, caller: &Caller, needed: &NeededAction, allowed: bool) {
        let mut decided = self.decided.lock();
        let [of_allowed, of_denied] =
            decided.entry(caller.identity.principal_arn(&caller.account, &caller.region)).or_default();
        *(if allowed { of_allowed } else { of_denied }).entry(needed.action.clone()).or_default() += 1;
    }

    /// Tags of the user or role, and above them those of the session.
    pub(crate) fn principal_tags(&self, identity: &Identity) -> TagMap {
        let mut tags = self.entity(identity).map(|entity| entity.tags.clone()).unwrap_or_default();
        tags.extend(identity.session().into_iter().flat_map(|session| session.tags.clone()));
        tags
    }

    /// Actions that each principal was allowed and denied so far.
    pub(crate) fn decided(&self) -> Value {
        let decided = self.decided.lock();
        let shown = |(principal, [allowed, denied]): (&String, &[Counts; 2])| {
            (principal.clone(), json!({"allowed": allowed, "denied": denied}))
        };
        Value::Object(decided.iter().map(shown).collect())
    }

    fn entity(&self, identity: &Identity) -> Option<&IamEntity> {
        let account = self.accounts.get(identity.account()?)?;
        match identity {
            Identity::Administrator | Identity::Anonymous => None,
            Identity::User { name, .. } => account.users.get(name),
            Identity::Session(session) => account.roles.get(role_name(&session.role_arn)),
        }
    }

    fn policies(&self, identity: &Identity) -> &[Document] {
        match identity {
            Identity::Administrator => &self.everything,
            Identity::Anonymous => &[],
            _ if !self.accounts.is_empty() => self.entity(identity).map_or(&[], |entity| &entity.policies),
            // Only the administrator can assume a role of an account that was not given.
            _ if identity.job().is_none() => &self.everything,
            _ => &self.training,
        }
    }
}

/// Reads the files of `--iam`, each of one account; one of them is the emulator's own.
fn read(files: &[Value], own: &str) -> anyhow::Result<BTreeMap<String, IamAccount>> {
    let mut accounts = BTreeMap::new();
    for details in files {
        let account = IamAccount::parse(details)
            .map_err(|error| SetupError::new(format!("failed to understand the users and roles of `--iam`: {error}")))
            .map_err(|error| error.hint("give the output of `aws iam get-account-authorization-details`"))?;
        let id = account.ids().next().unwrap_or(own).to_owned();
        let refused =
            |problem: String| SetupError::new(format!("failed to use the users and roles of `--iam`: {problem}"));
        if let Some(other) = account.ids().find(|other| *other != id) {
            let error = refused(format!("one file has entries of the accounts {id} and {other}"));
            return Err(error.hint("give each account a file and an `--iam` of its own").into());
        }
        if accounts.insert(id.clone(), account).is_some() {
            let error = refused(format!("two files are of account {id}"));
            return Err(error.hint(format!("put the entries of account {id} into one file")).into());
        }
    }
    if let Some(other) = accounts.keys().next().filter(|_| !accounts.contains_key(own)) {
        let error = SetupError::new(format!(
            "failed to use the users and roles of `--iam`: they are of account {other}, not {own}"
        ));
        return Err(error.hint(format!("add `--account {other}`")).into());
    }
    Ok(accounts)
}

/// The actions of the shipped policy, on any resource and without conditions.
fn training_policy() -> anyhow::Result<Value> {
    let mut policy: Value = serde_json::from_str(TRAINING_JOB).context("failed to read the shipped policy")?;
    for statement in policy["Statement"].as_array_mut().into_iter().flatten() {
        if let Some(members) = statement.as_object_mut() {
            members.remove("Condition");
            members.insert("Resource".to_owned(), json!("*"));
        }
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accounts: &[&str]) -> Value {
        let user = |id: &&str| json!({"UserName": format!("of-{id}"), "Arn": format!("arn:aws:iam::{id}:user/one")});
        json!({"UserDetailList": accounts.iter().map(user).collect::<Vec<_>>()})
    }

    fn refusal(files: &[Value]) -> String {
        let error = read(files, "1").expect_err("the files are refused");
        let SetupError { message, hint } = error.downcast().expect("it has a hint");
        format!("{message}; {hint}")
    }

    #[test]
    fn each_account_has_a_file_and_the_own_one_is_among_them() {
        assert_eq!(
            read(&[of(&["2"]), of(&["1"]), of(&["3"])], "1").unwrap().keys().collect::<Vec<_>>(),
            ["1", "2", "3"]
        );
        assert_eq!(
            read(&[of(&[])], "1").unwrap().keys().collect::<Vec<_>>(),
            ["1"],
            "one without entries is the own one"
        );
        assert!(read(&[], "1").unwrap().is_empty());
        assert!(refusal(&[of(&["2"])]).ends_with("they are of account 2, not 1; add `--account 2`"));
        assert!(
            refusal(&[of(&["1", "2"])])
                .contains("one file has entries of the accounts 1 and 2; give each account a file")
        );
        assert!(refusal(&[of(&["1"]), of(&["1"])]).contains("two files are of account 1; put the entries"));
        assert!(refusal(&[json!({})]).contains("neither `UserDetailList` nor"));
    }
}
