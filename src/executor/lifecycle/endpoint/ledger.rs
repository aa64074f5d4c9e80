//! The ledger: the record of an endpoint's deployments in the environment's bucket. Each deployment has two objects, for its begin and
//! its end, and a third one when it goes back to the old configuration. They are written once, and never changed or deleted.
//!
//! A number belongs to the writer whose begin lies under it, so two writers at once get different ones. Jobs with a role for the bucket
//! can write there too: objects are read within limits, and refused with their key when they are none of this program.

mod back;
mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::back::LedgerBack;
#[cfg(test)]
pub(crate) use self::record::LedgerCapacity;
pub(crate) use self::record::{
    LedgerBefore, LedgerBegin, LedgerEnd, LedgerKind, LedgerOutcome, LedgerScaling, LedgerServing, LedgerTest,
};
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::ObjectStore;

const FOLDER: &str = "deployments";
/// Digits of a number in a key.
const DIGITS: usize = 8;
const LAST: u64 = 99_999_999;
/// Largest object that is read or written.
const MOST_BYTES: usize = 64 << 10;
/// Objects that are read at once.
const READS: usize = 8;
/// Looks for the end of another command's deployment, and the pause before each.
const ENDS: usize = 12;
const END_PAUSE: Duration = Duration::from_secs(5);
/// Numbers that are tried until one is free.
const ATTEMPTS: usize = 100;

/// A deployment, as its record says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LedgerEntry {
    pub(crate) number: u64,
    pub(crate) begin: LedgerBegin,
    /// `None` while it is under way, and when it was interrupted.
    pub(crate) end: Option<LedgerEnd>,
}

impl LedgerEntry {
    /// `true` when it brought its configuration into service.
    pub(crate) fn has_succeeded(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.outcome == LedgerOutcome::Succeeded)
    }
}

/// The record of one endpoint.
pub(crate) struct Ledger {
    store: Arc<dyn ObjectStore>,
    endpoint: String,
}

/// Numbers with their objects in the bucket.
#[derive(Debug, Default)]
struct LedgerIndex {
    /// Whether there is an end, by the number of each begin.
    entries: BTreeMap<u64, bool>,
    /// The highest number of any object.
    last: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Begin,
    /// Of the way back to the old configuration.
    Back,
    End,
}

impl Half {
    fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Back => "back",
            Self::End => "end",
        }
    }
}

impl Ledger {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, endpoint: &str) -> Self {
        Self { store, endpoint: endpoint.to_owned() }
    }

    /// The newest deployments, at most so many, newest first.
    ///
    /// # Errors
    /// An object is none of this program.
    pub(crate) async fn history(&self, most: usize) -> anyhow::Result<Vec<LedgerEntry>> {
        let numbers = self.index().await?.entries;
        let reads = numbers.into_iter().rev().take(most).map(|(number, has_end)| self.read(number, has_end));
        stream::iter(reads).buffered(READS).try_collect().await
    }

    /// The newest deployment, after the endpoint was waited for: the command that changed it meanwhile gets time to write the end.
    /// `newest` was read before.
    pub(crate) async fn after(
        &self,
        newest: Option<LedgerEntry>,
        has_changed: bool,
    ) -> anyhow::Result<Option<LedgerEntry>> {
        let is_open = |entry: &Option<LedgerEntry>| entry.as_ref().is_some_and(|entry| entry.end.is_none());
        if !has_changed && !is_open(&newest) {
            return Ok(newest);
        }
        let mut newest = self.history(1).await?.pop();
        for _ in 0..ENDS {
            if !has_changed || !is_open(&newest) {
                break;
            }
            tokio::time::sleep(END_PAUSE).await;
            newest = self.history(1).await?.pop();
        }
        Ok(newest)
    }

    /// The deployment with this number; `None` when there is none.
    pub(crate) async fn entry(&self, number: u64) -> anyhow::Result<Option<LedgerEntry>> {
        match self.index().await?.entries.get(&number) {
            Some(has_end) => Ok(Some(self.read(number, *has_end).await?)),
            None => Ok(None),
        }
    }

    /// The newest deployment without an end: under way, or interrupted.
    pub(crate) async fn open(&self) -> anyhow::Result<Option<LedgerEntry>> {
        match self.index().await?.entries.into_iter().rfind(|(_, has_end)| !has_end) {
            Some((number, has_end)) => Ok(Some(self.read(number, has_end).await?)),
            None => Ok(None),
        }
    }

    /// Writes the begin of a deployment under the next free number, and returns it.
    pub(crate) async fn begin(&self, begin: &LedgerBegin) -> anyhow::Result<u64> {
        let body = bytes_of(begin)?;
        let next = self.index().await?.last + 1;
        for number in (next..=LAST).take(ATTEMPTS) {
            if self.put(number, Half::Begin, &body).await? {
                return Ok(number);
            }
        }
        let failure = Failure::user(format!(
            "no number is free for a deployment of `{}`: the last one is {}",
            self.endpoint,
            next - 1
        ));
        Err(failure.hint(format!("look for objects that do not belong in {}", self.uri_of_folder())).into())
    }

    /// Writes the end of a deployment. One that has the same outcome is as good.
    ///
    /// # Errors
    /// Another command ended the deployment otherwise.
    pub(crate) async fn end(&self, number: u64, end: &LedgerEnd) -> anyhow::Result<()> {
        if self.put(number, Half::End, &bytes_of(end)?).await? {
            return Ok(());
        }
        let there: LedgerEnd = self.object(number, Half::End).await?;
        if (there.outcome, &there.config) == (end.outcome, &end.config) {
            return Ok(());
        }
        let (there, outcome) = (there.outcome.name(), end.outcome.name());
        let failure =
            Failure::system(format!("another command ended deployment {number} as {there}, and this one as {outcome}"));
        Err(failure.hint("let one job at a time change the endpoint: set `resource_group` in the jobs").into())
    }

    /// The newest deployment, when it has no end and is the one that is meant: the command goes on with it. Every other one without an
    /// end is ended as one that was interrupted, and that another deployment comes after. `config` is in service now.
    pub(crate) async fn take_up(
        &self,
        at: SystemTime,
        config: Option<&str>,
        is_meant: impl Fn(&LedgerBegin) -> bool,
    ) -> anyhow::Result<Option<LedgerEntry>> {
        let index = self.index().await?;
        let newest = index.entries.last_key_value().map(|(number, _)| *number);
        let mut taken_up = None;
        for (number, _) in index.entries.into_iter().filter(|(_, has_end)| !has_end) {
            let entry = self.read(number, false).await?;
            if Some(number) == newest && is_meant(&entry.begin) {
                taken_up = Some(entry);
            } else {
                let reason = Some("interrupted, and another deployment came after it".to_owned());
                let config = config.map(str::to_owned);
                let end = LedgerEnd { reason, config, ..LedgerEnd::new(at, LedgerOutcome::DetachedSuperseded) };
                self.put(number, Half::End, &bytes_of(&end)?).await?;
            }
        }
        Ok(taken_up)
    }

    /// Writes that a deployment goes back. What another run wrote is as good.
    pub(crate) async fn begin_back(&self, number: u64, back: &LedgerBack) -> anyhow::Result<()> {
        self.put(number, Half::Back, &bytes_of(back)?).await.map(drop)
    }

    /// Whether a deployment goes back.
    ///
    /// # Errors
    /// The object is none of this program.
    pub(crate) async fn back(&self, number: u64) -> anyhow::Result<Option<LedgerBack>> {
        if self.store.get_range(&self.key(number, Half::Back), 0, 1).await?.is_none() {
            return Ok(None);
        }
        self.object(number, Half::Back).await.map(Some)
    }

    async fn index(&self) -> anyhow::Result<LedgerIndex> {
        let folder = self.folder();
        let mut index = LedgerIndex::default();
        let (mut begins, mut ends) = (Vec::new(), Vec::new());
        for key in self.store.list(&folder).await? {
            let Some((number, half)) = key.strip_prefix(&folder).and_then(parse) else { continue };
            index.last = index.last.max(number);
            match half {
                Half::Begin => begins.push(number),
                Half::End => ends.push(number),
                Half::Back => {}
            }
        }
        index.entries = begins.into_iter().map(|number| (number, ends.binary_search(&number).is_ok())).collect();
        Ok(index)
    }

    async fn read(&self, number: u64, has_end: bool) -> anyhow::Result<LedgerEntry> {
        let begin: LedgerBegin = self.object(number, Half::Begin).await?;
        if begin.endpoint != self.endpoint {
            let endpoint = plain::line(&begin.endpoint, 100);
            return Err(self.refused(number, Half::Begin, &format!("it is of the endpoint `{endpoint}`")));
        }
        begin.check_scaling().map_err(|why| self.refused(number, Half::Begin, why))?;
        let end = if has_end { Some(self.object(number, Half::End).await?) } else { None };
        Ok(LedgerEntry { number, begin, end })
    }

    async fn object<T: DeserializeOwned>(&self, number: u64, half: Half) -> anyhow::Result<T> {
        #[derive(serde::Deserialize)]
        struct Format {
            format: u32,
        }
        let refused = |why: &str| self.refused(number, half, why);
        let body = self.store.get_range(&self.key(number, half), 0, MOST_BYTES as u64 + 1).await?;
        let body = body.ok_or_else(|| refused("it was deleted"))?;
        if body.len() > MOST_BYTES {
            return Err(refused(&format!("it has more than {MOST_BYTES} bytes")));
        }
        let format = serde_json::from_slice::<Format>(&body).map_err(|_| refused("it is no record of this program"))?;
        if format.format > record::FORMAT {
            return Err(refused(
                "a newer version of this program wrote it: update `sagemaker-executor` in the job's image",
            ));
        }
        serde_json::from_slice(&body).map_err(|error| refused(&plain::line(&error.to_string(), 200)))
    }

    /// The failure for a begin that does not agree with what AWS shows.
    pub(crate) fn refused_begin(&self, number: u64, why: &str) -> anyhow::Error {
        self.refused(number, Half::Begin, why)
    }

    fn refused(&self, number: u64, half: Half, why: &str) -> anyhow::Error {
        let key = self.store.uri(&self.key(number, half));
        Failure::user(format!("the record of deployment {number} cannot be used: {why}"))
            .hint(format!("look at {key}, and at who may write there; only what this program wrote belongs there"))
            .into()
    }

    /// Writes unless another content is there; `false` when it is.
    async fn put(&self, number: u64, half: Half, body: &Bytes) -> anyhow::Result<bool> {
        let key = self.key(number, half);
        if self.store.put_if_absent(&key, body.clone()).await? {
            return Ok(true);
        }
        // A write whose answer was lost was repeated.
        let there = self.store.get_range(&key, 0, body.len() as u64 + 1).await?;
        Ok(there.as_ref() == Some(body))
    }

    fn key(&self, number: u64, half: Half) -> String {
        format!("{}{number:0DIGITS$}.{}.json", self.folder(), half.name())
    }

    fn folder(&self) -> String {
        format!("{FOLDER}/{}/", self.endpoint)
    }

    fn uri_of_folder(&self) -> String {
        self.store.uri(&self.folder())
    }
}

/// Number and half of an object, by its name.
fn parse(name: &str) -> Option<(u64, Half)> {
    let (digits, half) = name.strip_suffix(".json")?.split_once('.')?;
    let half = [Half::Begin, Half::Back, Half::End].into_iter().find(|known| known.name() == half)?;
    let is_number = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((digits.parse().ok().filter(|number| is_number && *number > 0)?, half))
}

fn bytes_of(record: &impl Serialize) -> anyhow::Result<Bytes> {
    let body = serde_json::to_vec_pretty(record).context("failed to write the record of the deployment as JSON")?;
    if body.len() > MOST_BYTES {
        let failure =
            Failure::user(format!("the record of the deployment has {} bytes, more than {MOST_BYTES}", body.len()));
        return Err(failure.hint("give a shorter `--reason`").into());
    }
    Ok(body.into())
}
