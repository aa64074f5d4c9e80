//! `credentials publish-issuer`: copies GitLab's public keys into a bucket that AWS can read.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;

use super::issuer_keys::{self, KeySet, Retired, check_issuer};
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::human::human_duration;
use crate::base::plain;
use crate::cloud::{Access, ObjectStore, SettingsFile};
use crate::gitlab::api::{GitLabError, GitLabErrorKind, ServerAccess};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::identity::IdentityArgs;
use crate::lifecycle::output::{Data, OutputArgs};
use crate::lifecycle::target::ConnectionArgs;

/// Places below the issuer's address, and below GitLab's.
const DISCOVERY: &str = ".well-known/openid-configuration";
const KEYS: &str = "oauth/discovery/keys";
/// The times at which dropped keys were seen first. Nobody but this command reads it.
const RECORD: &str = "sagemaker-executor/retired-keys.json";
/// Most bytes of a document of GitLab.
const MOST_BYTES: usize = 256 << 10;
/// AWS asks for the keys again when it does not know one; others may keep them for five minutes.
const CACHE_CONTROL: &str = "public, max-age=300";

#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// Bucket and prefix for the documents: `s3://BUCKET`, or `s3://BUCKET/PREFIX`
    #[arg(long, value_name = "URI")]
    bucket: String,
    /// Public address of that place, without a slash at its end, as GitLab's setting `ci_id_tokens_issuer_url` has it. The `iss` of this job's
    /// id token when absent
    #[arg(long, value_name = "URL")]
    issuer_url: Option<String>,
    /// Time for which keys stay that GitLab has dropped: as long as jobs run whose tokens they have signed
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = humantime::parse_duration)]
    keep: Duration,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The result of the command.
#[derive(Debug, Serialize)]
struct Published {
    issuer: String,
    /// Ids of the keys that GitLab has.
    keys: Vec<String>,
    /// Ids of the keys that it had.
    kept: Vec<String>,
    /// Objects that were written.
    written: Vec<String>,
}

impl Data for Published {
    fn text(&self) -> String {
        let written = if self.written.is_empty() {
            "nothing has changed".to_owned()
        } else {
            format!("wrote {}", self.written.join(", "))
        };
        let kept = if self.kept.is_empty() { String::new() } else { format!(", and keeps {}", self.kept.join(", ")) };
        format!("{} has the keys {}{kept}: {written}", self.issuer, self.keys.join(", "))
    }

    fn variables(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::new()
    }
}

/// Refuses a server that cannot prove to be GitLab: the keys that it shows would open every role that trusts the issuer.
///
/// # Errors
/// The address is not of HTTPS, nor of HTTP on this host's loopback.
fn check_server(url: &str) -> Result<(), Failure> {
    let begins = |begin: &str| url.get(..begin.len()).filter(|text| text.eq_ignore_ascii_case(begin));
    let of_http = begins("http://").and_then(|begin| url.get(begin.len()..)).unwrap_or_default();
    let host = of_http.split(['/', ':']).next().unwrap_or_default();
    let is_loopback = host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    if begins("https://").is_some() || is_loopback && !of_http.contains('@') {
        return Ok(());
    }
    let failure = Failure::user(format!(
        "`CI_SERVER_URL` does not begin with `https://`: {}. Without TLS another server could show its keys in place of GitLab's",
        plain::line(url, 200)
    ));
    Err(failure.hint("set it to an address with `https://` at which GitLab answers; `CI_SERVER_TLS_CA_FILE` names an authority of your own"))
}

/// GitLab's current keys, after all checks of its documents.
async fn current(inputs: &CommandInputs, issuer: &str) -> anyhow::Result<KeySet> {
    let variable = |name: &str| inputs.env.get(name).map(|value| value.trim().trim_end_matches('/').to_owned());
    let Some(url) = variable("CI_SERVER_URL") else {
        let failure = Failure::user("GitLab's address is not known: `CI_SERVER_URL` is not set");
        return Err(failure.hint("run the command in a job of GitLab CI, or set it to the address of GitLab").into());
    };
    check_server(&url)?;
    let access = ServerAccess { url: url.clone(), ca_file: inputs.env.get("CI_SERVER_TLS_CA_FILE").map(PathBuf::from) };
    let server = inputs.gitlab.server(&access)?;
    let odd = |path: &str, what: &str| {
        let failure = Failure::system(format!("GitLab's document {path} cannot be published: {what}"));
        failure
            .hint("check that `CI_SERVER_URL` is the address of GitLab, and that no other server answers in its place")
    };
    let document = server.document(DISCOVERY, MOST_BYTES).await.map_err(|error| unread(&error))?;
    let named = issuer_keys::issuer_of(&document).map_err(|what| odd(DISCOVERY, &what))?;
    if named != url && named != issuer {
        let named = plain::line(&named, 300);
        return Err(odd(DISCOVERY, &format!("its issuer is {named}, not {}", plain::line(&url, 300))).into());
    }
    let document = server.document(KEYS, MOST_BYTES).await.map_err(|error| unread(&error))?;
    let (keys, others) = issuer_keys::keys_of(&document).map_err(|what| odd(KEYS, &what))?;
    if others > 0 {
        inputs.printer.warn(format!(
            "{others} of GitLab's keys are not for RS256, with which it signs id tokens, and are left out"
        ));
    }
    Ok(keys)
}

fn unread(error: &GitLabError) -> Failure {
    match error.kind {
        GitLabErrorKind::Throttled => Failure::verdict(exit_codes::TRY_LATER, error.to_string())
            .hint("run the same command again later, as `retry: {exit_codes: [75]}` in the job does"),
        _ => Failure::system(error.to_string())
            .hint("check `CI_SERVER_URL`, and that this host reaches it: a route, DNS, or the proxy in `HTTPS_PROXY`"),
    }
}

/// Compares the job's own token with what will be published.
///
/// # Errors
/// GitLab signs with another issuer than the published one, or the key of that id is absent or did not sign the token.
fn check_token(args: &PublishArgs, inputs: &CommandInputs, issuer: &str, keys: &KeySet) -> Result<(), Failure> {
    let Some(token) = args.identity.claims(&inputs.env) else { return Ok(()) };
    let of_token = token.issuer().unwrap_or_default();
    if of_token.trim_end_matches('/') != issuer {
        let of_token = plain::line(&of_token, 300);
        let failure = Failure::user(format!("GitLab's id tokens have the issuer {of_token}, and not {issuer}"));
        return Err(failure.hint(format!(
            "set `gitlab_rails['ci_id_tokens_issuer_url'] = '{issuer}'` in GitLab's settings (18.1 and later), or change `--issuer-url`; before \
             the first publication run the command without an id token"
        )));
    }
    let why = match token.key_id().and_then(|kid| keys.get(kid)) {
        None => "the server at `CI_SERVER_URL` does not show the key that signed this job's id token",
        Some(key) if args.identity.text(&inputs.env).is_some_and(|text| key.has_signed(text)) => return Ok(()),
        Some(_) => "the server at `CI_SERVER_URL` shows another key than the one that signed this job's id token",
    };
    Err(Failure::system(format!("nothing is published: {why}"))
        .hint("check that `CI_SERVER_URL` is the GitLab of this job, that no other server answers in its place, and run a new job"))
}

/// Refuses another key under an id that is published.
///
/// # Errors
/// A key of that id is published, and is another one.
fn check_published(keys: &KeySet, before: &KeySet, place: &str) -> Result<(), Failure> {
    let Some(kid) = issuer_keys::changed(keys, before) else { return Ok(()) };
    let kid = plain::line(kid, 100);
    let failure = Failure::system(format!(
        "nothing is published: the server at `CI_SERVER_URL` shows another key {kid} than the published one, and GitLab gives no id twice"
    ));
    Err(failure
        .hint("check that `CI_SERVER_URL` is the address of GitLab, and that no other server answers in its place")
        .hint(format!(
            "if the published key is the wrong one, find out who wrote it, delete {place}, and publish again"
        )))
}

fn place(uri: &str) -> Result<(String, String), Failure> {
    let rest = uri.strip_prefix("s3://").unwrap_or_default().trim_end_matches('/');
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let is_bucket = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || b"-.".contains(&one));
    if is_bucket && prefix.bytes().all(|one| one.is_ascii_graphic()) {
        return Ok((bucket.to_owned(), prefix.to_owned()));
    }
    let failure = Failure::user(format!("`--bucket` names no place in S3: {}", plain::line(uri, 200)));
    Err(failure.hint("write `s3://BUCKET`, or `s3://BUCKET/PREFIX`"))
}

/// Writes the text unless the object has it.
async fn write(store: &dyn ObjectStore, key: &str, text: String, written: &mut Vec<String>) -> anyhow::Result<()> {
    if store.get(key).await?.as_deref() == Some(text.as_bytes()) {
        return Ok(());
    }
    store.put_document(key, text.into_bytes(), CACHE_CONTROL).await?;
    written.push(store.uri(key));
    Ok(())
}

/// The keys that are published now. What cannot be read as such is replaced.
async fn published(store: &dyn ObjectStore) -> anyhow::Result<(KeySet, Retired)> {
    let keys = store.get(KEYS).await?.and_then(|text| issuer_keys::keys_of(&text).ok());
    let record = store.get(RECORD).await?.and_then(|text| serde_json::from_slice(&text).ok());
    Ok((keys.map(|(keys, _)| keys).unwrap_or_default(), record.unwrap_or_default()))
}

pub(super) async fn run(inputs: &CommandInputs, args: PublishArgs) -> anyhow::Result<()> {
    args.output.check(&[])?;
    let of_token = args.identity.claims(&inputs.env).and_then(|token| token.issuer());
    let issuer = args.issuer_url.clone().or(of_token).ok_or_else(|| {
        Failure::user("the public address of the bucket is not known")
            .hint("give `--issuer-url URL`, the value of GitLab's setting `ci_id_tokens_issuer_url`")
    })?;
    let issuer = check_issuer(&issuer)?.to_owned();
    let (bucket, prefix) = place(&args.bucket)?;
    let keys = current(inputs, &issuer).await?;
    check_token(&args, inputs, &issuer, &keys)?;
    let access = Access { bucket, prefix, settings: SettingsFile::Manifest, ..args.connection.access(inputs) };
    let store = inputs.connect.objects(&access).await?;
    let (before, record) = published(&*store).await?;
    check_published(&keys, &before, &store.uri(KEYS))?;
    let now = inputs.clock.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (all, record) = issuer_keys::with_retired(&keys, &before, &record, now, args.keep.as_secs());
    let mut written = Vec::new();
    // The keys come first: a document must not lead to keys that are not there.
    write(&*store, KEYS, issuer_keys::jwks(&all), &mut written).await?;
    write(&*store, DISCOVERY, issuer_keys::discovery(&issuer, KEYS), &mut written).await?;
    if !record.retired.is_empty() || store.size(RECORD).await?.is_some() {
        write(&*store, RECORD, format!("{}\n", serde_json::to_string(&record)?), &mut written).await?;
    }
    let kept: Vec<_> = record.retired.keys().cloned().collect();
    if !kept.is_empty() {
        inputs.printer.line(format!("Keys that GitLab has dropped stay for {}", human_duration(args.keep)));
    }
    let published = Published { issuer, keys: keys.keys().cloned().collect(), kept, written };
    args.output.leave(&published, &inputs.printer)
}
