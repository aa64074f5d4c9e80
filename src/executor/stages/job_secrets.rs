//! Reads the secrets of a job from AWS Secrets Manager.
//!
//! `prepare` reads them for their mistakes alone, before an instance is paid for, and keeps no value: a record on the host's disk would
//! hold it for days. Each container stage reads them anew when it orders its script, so a value that was rotated meanwhile is the new one.

use std::collections::BTreeMap;

use crate::base::failure::Failure;
use crate::config::job_variables::JobVariables;
use crate::config::policy::{self, JobSecret};
use crate::protocol::mailbox::{MAX_BYTES, RunOrder};
use crate::secrets::{self, Reader, SecretRequest, SecretValue};
use crate::stages::Context;

/// Room in an order for all but the values of secrets: names, the masks of the job's other variables, definitions of metrics.
const OTHER: usize = 512 << 10;
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

    /// Refuses values that no order to a container can hold, as no container would read it.
    pub(super) fn check_size(&self) -> Result<(), Failure> {
        let order = RunOrder { masks: self.masks().collect(), variables: self.variables(), ..RunOrder::default() };
        let bytes = serde_json::to_vec(&order).map_or(0, |text| text.len());
        if bytes + OTHER <= MAX_BYTES {
            return Ok(());
        }
        let (bytes, most) = (bytes.div_ceil(1024), (MAX_BYTES - OTHER) / 1024);
        let failure = Failure::user(format!(
            "the values of the job's secrets, with all texts that are masked for them, take {bytes} KiB, and the order to a container has \
             {most} KiB for them"
        ));
        Err(failure.hint(
            "let the job ask for fewer or smaller secrets, or for one field of each with `#`; let it fetch large ones itself, by the training \
             job's role",
        ))
    }

    /// Refuses a job that also writes a value into what the API shows, and tells what the script gets.
    pub(super) fn check(&self, context: &Context, wishes: &JobVariables) -> Result<(), Failure> {
        self.check_size()?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::render;
    use crate::cloud::testing::MemorySecrets;
    use crate::secrets::SecretReference;

    /// Control characters take six bytes each in an order.
    #[tokio::test]
    async fn values_that_no_order_holds_are_refused() {
        let store = MemorySecrets::default();
        store.set("large", &"\u{1}".repeat(65_536));
        let request = SecretRequest { set_by: "X".to_owned(), reference: SecretReference::parse("large").unwrap() };
        let values = secrets::read(&store, &vec![request; 5], Reader::RunnerHost).await.unwrap();
        let named = |count: usize| {
            let values = values.iter().take(count).enumerate();
            JobSecrets(values.map(|(at, value)| (format!("S{at}"), value.clone())).collect())
        };
        assert!(named(4).check_size().is_ok());
        let text = render(&named(5).check_size().unwrap_err().into());
        assert!(text.contains("take 3841 KiB") && text.contains("has 3584 KiB"), "{text}");
    }
}
