//! A test that is ready to run: its samples, its load and its limits, from the manifest and the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::assertions::LONGEST;
use super::asynchronous::AsynchronousWay;
use super::load::{LoadShape, send_load};
use super::sample::EndpointSample;
use super::sample_files;
use super::sending::Sender;
use super::verdict::{TestLimits, TestVerdict, TestedEndpoint};
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::base::human::human_bytes;
use crate::base::plain;
use crate::cloud::{EndpointConfiguration, EndpointSight, EndpointState};
use crate::lifecycle::CommandInputs;
use crate::lifecycle::manifest::{Endpoint, EndpointTest};
use crate::lifecycle::target::ProjectTarget;

/// Most bytes of a request (`InvokeEndpoint`, `Body`).
const MOST_BODY: usize = 6_291_456;
/// Most requests, and most at once: their times are in memory, and each at once is a connection.
const MOST_REQUESTS: u32 = 1_000_000;
const MOST_AT_ONCE: u32 = 1_000;

/// Changes of the command line to what the manifest says.
#[derive(Debug, Default)]
pub(crate) struct TestChanges {
    /// In place of the manifest's.
    pub(crate) samples: Vec<PathBuf>,
    /// Folder that no file of samples may be outside of; `None` for the project's own, which may be anywhere.
    pub(crate) within: Option<PathBuf>,
    pub(crate) requests: Option<u32>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) warm_up: Option<u32>,
    pub(crate) request_timeout: Option<Duration>,
    /// Besides the manifest's limits: the lower one holds.
    pub(crate) max_p95_ms: Option<f64>,
    pub(crate) max_error_rate: Option<f64>,
    /// The configuration that must answer all requests.
    pub(crate) configuration: Option<String>,
}

/// A test that is ready to run.
#[derive(Debug)]
pub(crate) struct TestPlan {
    endpoint: String,
    samples: Vec<EndpointSample>,
    shape: LoadShape,
    request_timeout: Option<Duration>,
    limits: TestLimits,
    configuration: Option<String>,
}

impl TestChanges {
    /// The files and folders with samples.
    pub(crate) fn paths(&self, test: &EndpointTest, folder: &Path) -> Vec<PathBuf> {
        if self.samples.is_empty() {
            test.samples.iter().map(|path| folder.join(path)).collect()
        } else {
            self.samples.clone()
        }
    }
}

impl TestPlan {
    /// The test of the manifest with changes.
    ///
    /// # Errors
    /// Failures of the user about a file with samples, also when there is no sample; about a number that is out of its range.
    pub(crate) fn new(target: &ProjectTarget, changes: &TestChanges) -> Result<Self, Failure> {
        let endpoint = endpoint(target)?;
        let test = endpoint.test.clone().unwrap_or_default();
        // Asked for before a deployment begins too.
        let is_asynchronous = endpoint.asynchronous.is_some();
        let types = target.manifest.model.as_ref().map(|model| model.content_types.as_slice()).unwrap_or_default();
        let paths = changes.paths(&test, &target.folder);
        let samples = sample_files::read(&paths, types.first().map(String::as_str), changes.within.as_deref())?;
        if is_asynchronous {
            refuse_rules_of_replies(&samples)?;
        }
        let within = |name: &str, number: u32, most: u32| {
            if number > most {
                return Err(Failure::user(format!("{number} {name} are more than {most}"))
                    .hint(format!("change `--{name}`, or `endpoint.test.{name}` in the manifest")));
            }
            Ok(number as usize)
        };
        let requests = changes.requests.or(test.requests).unwrap_or_default();
        let concurrency = changes.concurrency.or(test.concurrency).unwrap_or(1);
        let shape = LoadShape {
            warm_up: within("warm-up", changes.warm_up.unwrap_or(1), MOST_REQUESTS)?,
            // Each sample at least once.
            requests: within("requests", requests, MOST_REQUESTS)?.max(samples.len()),
            concurrency: within("concurrency", concurrency, MOST_AT_ONCE)?.max(1),
        };
        let lower = |one: Option<f64>, other: Option<f64>| one.into_iter().chain(other).reduce(f64::min);
        let limits = TestLimits {
            max_p95_ms: lower(changes.max_p95_ms, test.max_p95_ms),
            max_error_rate: lower(changes.max_error_rate, test.max_error_rate).unwrap_or_default(),
        };
        let request_timeout = changes.request_timeout;
        let configuration = changes.configuration.clone().filter(|name| !name.is_empty());
        Ok(Self { endpoint: endpoint.name.clone(), samples, shape, request_timeout, limits, configuration })
    }

    /// Sends the samples to the endpoint, which must be in service. `known` is a configuration that need not be read.
    ///
    /// # Errors
    /// Failures of AWS that are no answer of the endpoint, and of the user: there is no such endpoint, a body is too large, or another
    /// configuration than the wanted one may have answered.
    pub(crate) async fn run(
        &self,
        inputs: &CommandInputs,
        target: &ProjectTarget,
        known: Option<&EndpointConfiguration>,
    ) -> anyhow::Result<TestVerdict> {
        let (tested, sender) = self.connect(inputs, target, known).await?;
        self.check_configuration(&tested.config, tested.pending.as_deref())?;
        let LoadShape { requests, concurrency, .. } = self.shape;
        inputs
            .printer
            .line(format!("Sending {requests} requests to the endpoint {}, {concurrency} at once", self.endpoint));
        let tell = |finished| inputs.printer.line(format!("{finished} of {requests} requests are answered"));
        let load = send_load(&sender, &self.samples, self.shape, tell).await?;
        if self.configuration.is_some() {
            let sight = inputs.connect.endpoints(&target.access).await?.endpoint(&self.endpoint).await?;
            let sight = sight.as_ref();
            let pending = sight.and_then(|sight| sight.pending_config.as_deref());
            self.check_configuration(sight.map_or("no configuration", |sight| &sight.config), pending)?;
        }
        Ok(TestVerdict::new(tested, &self.samples, load, concurrency, self.limits))
    }

    fn check_configuration(&self, serving: &str, pending: Option<&str>) -> Result<(), Failure> {
        let wanted = self.configuration.as_deref();
        wanted.map_or(Ok(()), |wanted| refuse_other_configuration(&self.endpoint, wanted, serving, pending))
    }

    /// The endpoint, and the way of requests to it.
    async fn connect(
        &self,
        inputs: &CommandInputs,
        target: &ProjectTarget,
        known: Option<&EndpointConfiguration>,
    ) -> anyhow::Result<(TestedEndpoint, Sender)> {
        let (connect, access) = (&*inputs.connect, &target.access);
        let endpoints = connect.endpoints(access).await?;
        let sight = endpoints.endpoint(&self.endpoint).await?;
        let sight = sight.ok_or_else(|| {
            Failure::user(format!("the endpoint {} does not exist", self.endpoint)).hint(
                "run `endpoint deploy` before, or change `endpoint.name` or the environment's `region` and `account`",
            )
        })?;
        match sight.state {
            EndpointState::Creating => {
                let failure = Failure::verdict(
                    exit_codes::TRY_LATER,
                    format!("the endpoint {} is Creating, and takes no requests yet", self.endpoint),
                );
                return Err(failure.hint("run the same command again when it is InService").into());
            }
            EndpointState::Failed | EndpointState::Deleting | EndpointState::OutOfService => {
                let failure = Failure::user(format!(
                    "the endpoint {} is {}, and takes no requests",
                    self.endpoint,
                    sight.state.name()
                ));
                return Err(failure.hint("bring it into service with `endpoint deploy`").into());
            }
            _ => {}
        }
        let configuration = match known.filter(|known| known.name == sight.config) {
            Some(known) => Some(known.clone()),
            None => endpoints.config(&sight.config).await?,
        };
        let places = configuration.and_then(|configuration| configuration.asynchronous);
        let asynchronous = match &places {
            Some(places) => Some(AsynchronousWay::connect(connect, access, places).await?),
            None => None,
        };
        if asynchronous.is_some() {
            refuse_rules_of_replies(&self.samples)?;
        }
        let large = self.samples.iter().find(|sample| sample.body.len() > MOST_BODY);
        if let Some(sample) = large.filter(|_| asynchronous.is_none()) {
            let failure = Failure::user(format!(
                "the sample `{}` has {}, and SageMaker takes at most {}",
                sample.name,
                human_bytes(sample.body.len() as u64),
                human_bytes(MOST_BODY as u64)
            ));
            return Err(failure.hint("send less in one request, or make the endpoint asynchronous").into());
        }
        let inference = connect.inference(access).await?;
        let sender = Sender::new(inference, self.endpoint.clone(), asynchronous, self.request_timeout);
        let EndpointSight { name, state, config, pending_config: pending, .. } = sight;
        Ok((TestedEndpoint { name, state, config, pending }, sender))
    }
}

/// Refuses the configuration in service, and that of an update that is under way, when one of them is not the wanted one.
fn refuse_other_configuration(
    endpoint: &str,
    wanted: &str,
    serving: &str,
    pending: Option<&str>,
) -> Result<(), Failure> {
    let Some(other) = [Some(serving), pending].into_iter().flatten().find(|name| *name != wanted) else {
        return Ok(());
    };
    let (wanted, other) = (plain::line(wanted, LONGEST), plain::line(other, LONGEST));
    let failure = Failure::user(format!("the endpoint {endpoint} has {other}, and not {wanted} alone"));
    Err(failure.hint("another deployment came between: run the job of the deployment once more, then the test"))
}

/// Rules that no answer of an asynchronous endpoint can satisfy.
fn refuse_rules_of_replies(samples: &[EndpointSample]) -> Result<(), Failure> {
    let mistake = samples.iter().find_map(|sample| Some((&sample.name, sample.expect.mistake_on_asynchronous()?)));
    let Some((name, rule)) = mistake else { return Ok(()) };
    let failure = Failure::user(format!(
        "the sample `{}` has the rule `{rule}`, and answers of an asynchronous endpoint have no status and no type",
        plain::line(name, LONGEST)
    ));
    Err(failure.hint(format!("remove `{rule}`; a sample that the model must refuse cannot be judged there")))
}

fn endpoint(target: &ProjectTarget) -> Result<&Endpoint, Failure> {
    target.manifest.endpoint.as_ref().ok_or_else(|| {
        Failure::user("the manifest has no `endpoint`").hint("add `endpoint` with `name` to the manifest")
    })
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("wine-1", None => None; "in service")]
    #[test_case("wine-1", Some("wine-1") => None; "an update keeps it")]
    #[test_case("wine-2", None => Some("the endpoint wine has wine-2, and not wine-1 alone".to_owned()); "another one")]
    #[test_case("wine-1", Some("wine-2") => Some("the endpoint wine has wine-2, and not wine-1 alone".to_owned()); "on its way out")]
    #[test_case("wine-2", Some("wine-1") => Some("the endpoint wine has wine-2, and not wine-1 alone".to_owned()); "on its way in")]
    fn the_wanted_configuration_answers_alone(serving: &str, pending: Option<&str>) -> Option<String> {
        refuse_other_configuration("wine", "wine-1", serving, pending).err().map(|failure| failure.to_string())
    }
}
