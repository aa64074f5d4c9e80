//! Reads the secrets of a job from AWS Secrets Manager.
//!
//! `prepare` reads them for their mistakes alone, before an instance is paid for, and keeps no value: a record on the host's disk would
//! hold it for days. Each container stage reads them anew when it orders its script, so a value that was rotated meanwhile is the new one.

use std::collections::BTreeMap;

use crate::base::failure::Failure;
use crate::config::job_variables::JobVariables;
use crate::config::policy::{self, JobSecret};
use crate::secrets::{self, Reader, SecretRequest, SecretValue};
use crate::stages::Context;

/// A shorter value occurs in other text as well.
const SHORT: usize = 8;

/// The values of a job's secrets.
#[derive(Debug, Default)]
pub(super) struct JobSecrets(Vec<(String, SecretValue)>);

impl JobSecrets {
    /// Reads all of them; asks nothing when there is none.
    pub(super) async fn read(context: &Context, wanted: &[JobSecret]) -> anyhow::Result<Self> {
        if wanted.is_empty() {
            return Ok(Self::default());
        }
        let store = context.connect.secrets(&context.settings.access()).await?;
        let request =
            |secret: &JobSecret| SecretRequest { set_by: secret.set_by(), reference: secret.reference.clone() };
        let requests: Vec<_> = wanted.iter().map(request).collect();
        let values = tokio::select! {
            values = secrets::read(&*store, &requests, Reader::RunnerHost) => values?,
            () = context.cancellation.token().cancelled() => {
                return Err(Failure::canceled("canceled while the job's secrets were read").into());
            }
        };
        Ok(Self(wanted.iter().map(|secret| secret.name.clone()).zip(values).collect()))
    }

    /// Texts to replace in all output.
    pub(super) fn masks(&self) -> impl Iterator<Item = String> {
        self.0.iter().flat_map(|(_, value)| value.masks().iter().cloned())
    }

    /// The script's variables.
    pub(super) fn variables(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(name, value)| (name.clone(), value.text().to_owned())).collect()
    }

    /// Refuses a job that also writes a value into what the API shows, and tells what the script gets.
    pub(super) fn check(&self, context: &Context, wishes: &JobVariables) -> Result<(), Failure> {
        let long: Vec<_> = self.masks().filter(|mask| mask.len() >= SHORT).collect();
        policy::refuse_secrets(wishes, &long)?;
        for (name, _) in self.0.iter().filter(|(_, value)| value.text().len() < SHORT) {
            context.printer.warn(format!(
                "the value of the secret for `{name}` has fewer than {SHORT} characters; its masking may hide other text of the log"
            ));
        }
        Ok(())
    }
}

/// Names the variables in the job's log.
pub(super) fn tell(context: &Context, secrets: &[JobSecret]) {
    if !secrets.is_empty() {
        let names: Vec<_> = secrets.iter().map(|secret| format!("{} ({})", secret.name, secret.reference.id)).collect();
        context.printer.line(format!("Secrets for the script: {}", names.join(", ")));
    }
}
