//! Reads the secrets of a job or a command, all at once, and says what to change when one cannot be had.
//!
//! Each secret is one `GetSecretValue`. `BatchGetSecretValue` would need a permission of its own on all secrets of the account.

use std::collections::BTreeMap;

use futures::future::join_all;

use super::reference::SecretReference;
use super::selection::{SecretValue, Unfit, select};
use crate::base::failure::Failure;
use crate::base::plain;
use crate::cloud::{CloudError, CloudErrorKind, SecretStore, StoredSecret};

/// Longest name of a field in an error.
const FIELD_BYTES: usize = 100;

/// A secret, and the variable that asks for it.
#[derive(Debug, Clone)]
pub struct SecretRequest {
    /// `SAGEMAKER_SECRET_DB`: errors name it.
    pub set_by: String,
    pub reference: SecretReference,
}

/// The owner of the credentials that read the secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    RunnerHost,
    /// An ordinary CI job.
    Job,
}

/// The values, in the order of the requests. A secret that is asked for several times is read once.
///
/// # Errors
/// The first failure in the order of the requests, with the key, variable or permission to change.
pub async fn read(
    store: &dyn SecretStore,
    requests: &[SecretRequest],
    reader: Reader,
) -> anyhow::Result<Vec<SecretValue>> {
    let of = |request: &SecretRequest| (request.reference.id.clone(), request.reference.version_stage.clone());
    let mut distinct: Vec<_> = requests.iter().map(of).collect();
    distinct.sort();
    distinct.dedup();
    let answers = join_all(distinct.iter().map(|(id, label)| store.value(id, label.as_deref()))).await;
    let answers: BTreeMap<_, _> = distinct.iter().cloned().zip(answers).collect();
    requests.iter().map(|request| value(request, answers.get(&of(request)), reader)).collect()
}

fn value(
    request: &SecretRequest,
    answer: Option<&Result<StoredSecret, CloudError>>,
    reader: Reader,
) -> anyhow::Result<SecretValue> {
    let SecretRequest { set_by, reference } = request;
    let id = &reference.id;
    let stored = match answer {
        Some(Ok(stored)) => stored,
        Some(Err(error)) => return Err(unreadable(request, error, reader)),
        None => anyhow::bail!("the secret `{id}` was not asked for"),
    };
    if !reference.is_of(&stored.arn, &stored.name) {
        let (arn, name) = (plain::line(&stored.arn, 200), plain::line(&stored.name, 200));
        let text = format!("AWS answered with the secret `{name}` (`{arn}`), and `{set_by}` asks for `{id}`");
        return Err(Failure::system(text).hint(format!("write the whole ARN of the secret into `{set_by}`")).into());
    }
    select(&stored.content, reference).map_err(|unfit| unusable(request, unfit).into())
}

/// The failure of a secret whose content has no such value.
fn unusable(request: &SecretRequest, unfit: Unfit) -> Failure {
    let SecretRequest { set_by, reference: SecretReference { id, field, .. } } = request;
    let field = plain::line(field.as_deref().unwrap_or_default(), FIELD_BYTES);
    let (what, hint) = match unfit {
        Unfit::TooLarge => (
            "is larger than 65,536 bytes".to_owned(),
            "AWS keeps no larger secret: check what answers at the endpoint".to_owned(),
        ),
        Unfit::Binary => (
            format!("is binary, and has no field `{field}`"),
            format!("remove `#{field}` from `{set_by}`: its value is then the whole secret, in base64"),
        ),
        Unfit::NoObject => (
            format!("is no JSON object, and has no field `{field}`"),
            format!("remove `#{field}` from `{set_by}` for the whole text, or store a JSON object in the secret"),
        ),
        Unfit::NoField(names) => {
            (format!("has no field `{field}`: {names}"), format!("change the part after `#` in `{set_by}`"))
        }
        Unfit::NoText(kind) => (
            format!("has {kind} in its field `{field}`"),
            format!("store a text, a whole number, true or false in the field, or remove `#{field}` from `{set_by}`"),
        ),
        Unfit::Fraction => (
            format!("has a number in its field `{field}` that is not whole"),
            format!("store the value of `{field}` as a text: JSON does not keep how a number is written"),
        ),
        Unfit::Empty => (
            if field.is_empty() { "is empty".to_owned() } else { format!("has nothing in its field `{field}`") },
            "store a value in the secret".to_owned(),
        ),
        Unfit::ManyParts(count) => (
            format!("has {count} lines, texts and numbers, which are more than can be masked"),
            "ask for one field of it with `#`, divide it into several secrets, or store it in base64: its decoded lines are not masked then"
                .to_owned(),
        ),
        Unfit::HasNull => (
            "has a null character, which no environment variable holds".to_owned(),
            "store the value in base64".to_owned(),
        ),
    };
    Failure::user(format!("the secret `{id}`, which `{set_by}` asks for, {what}")).hint(hint)
}

/// The failure of a secret that AWS does not give.
fn unreadable(request: &SecretRequest, error: &CloudError, reader: Reader) -> anyhow::Error {
    let SecretRequest { set_by, reference } = request;
    let id = &reference.id;
    let CloudError { kind, operation, message, action } = error;
    let cause = CloudError { kind: *kind, operation: operation.clone(), message: message.clone(), action };
    let failed = format!("failed to read the secret `{id}`, which `{set_by}` asks for");
    let (who, policy) = match reader {
        Reader::RunnerHost => (
            "the runner host's role",
            ", as `sagemaker-executor policy iam` writes it from `secrets.allow` in the operator's file",
        ),
        Reader::Job => ("the role of this job's credentials", ""),
    };
    let failure = match error.kind {
        CloudErrorKind::NotFound => {
            let label = reference.version_stage.as_ref().map(|label| format!(", and that it has the label `{label}`"));
            Failure::user(format!("there is no secret `{id}`, which `{set_by}` asks for")).hint(format!(
                "check the name in `{set_by}`, and that the secret is in the region and account of {who}{}",
                label.unwrap_or_default()
            ))
        }
        CloudErrorKind::Denied if error.action.starts_with("kms:") => Failure::system(failed).hint(format!(
            "allow {who} `kms:Decrypt` on the secret's key, in the role's policy and in the key's{}",
            if reader == Reader::RunnerHost {
                ": name the key in `iam.secret_kms_key_ids` and write the policies anew with `sagemaker-executor policy iam`"
            } else {
                ""
            }
        )),
        CloudErrorKind::Denied => {
            let failure = Failure::system(failed).hint(format!("allow {who} `{}` on it{policy}", error.action));
            if reference.arn().is_some() {
                failure.hint(
                    "a secret of another account also needs a policy of its own that names the role, and a key that is not \
                     `aws/secretsmanager`",
                )
            } else {
                failure
            }
        }
        CloudErrorKind::Invalid if error.message.contains("deletion") => Failure::user(failed)
            .hint("the secret waits for its deletion: name another one, or restore it with `aws secretsmanager restore-secret`"),
        // The caller may try again later.
        _ => return anyhow::Error::from(cause).context(failed),
    };
    failure.caused_by(cause).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::{Kind, kind_of, render};
    use crate::cloud::SecretContent;
    use crate::cloud::testing::{Fault, MemorySecrets, When};

    const ARN: &str = "arn:aws:secretsmanager:eu-west-1:000000000000:secret:ci/db-AbCdEf";

    fn stored(content: &str) -> MemorySecrets {
        let secrets = MemorySecrets::default();
        secrets.set("ci/db", content);
        secrets
    }

    async fn of(secrets: &MemorySecrets, wanted: &[&str], reader: Reader) -> anyhow::Result<Vec<String>> {
        let request = |(at, text): (usize, &&str)| SecretRequest {
            set_by: format!("SAGEMAKER_SECRET_{at}"),
            reference: SecretReference::parse(text).unwrap(),
        };
        let requests: Vec<_> = wanted.iter().enumerate().map(request).collect();
        let values = read(secrets, &requests, reader).await?;
        Ok(values.iter().map(|value| value.text().to_owned()).collect())
    }

    #[tokio::test]
    async fn a_secret_is_read_once_for_all_of_its_fields() {
        let secrets = stored(r#"{"user": "ci", "password": "s3cret"}"#);
        secrets.set("other", "x");
        let wanted = ["ci/db#password", "other", "ci/db#user", "ci/db#user"];
        assert_eq!(of(&secrets, &wanted, Reader::RunnerHost).await.unwrap(), ["s3cret", "x", "ci", "ci"]);
        assert_eq!(secrets.count("value"), 2);
        // An ARN is another id of the same secret.
        assert_eq!(of(&secrets, &[&format!("{ARN}#user")], Reader::Job).await.unwrap(), ["ci"]);
    }

    #[tokio::test]
    async fn each_failure_names_secret_variable_and_change_but_no_content() {
        let secrets = stored(r#"{"user": "s3cret"}"#);
        let rows: [(&str, Kind, &[&str]); 3] = [
            (
                "ci/db#pass",
                Kind::User,
                &["`ci/db`", "`SAGEMAKER_SECRET_0`", "no field `pass`", "it has `user`", "after `#`"],
            ),
            ("absent", Kind::User, &["there is no secret `absent`", "region and account of the runner host's role"]),
            ("ci/db?version_stage=NONE", Kind::User, &["the label `NONE`"]),
        ];
        for (wanted, kind, expected) in rows {
            let error = of(&secrets, &[wanted], Reader::RunnerHost).await.unwrap_err();
            let text = render(&error);
            assert_eq!(kind_of(&error), kind, "{text}");
            assert!(expected.iter().all(|part| text.contains(part)) && !text.contains("s3cret"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_refusal_names_the_permission_and_whose_it_is() {
        let secrets = stored("x");
        let refused = async |action: &'static str, wanted: &str, reader| {
            secrets.refuse_with(action);
            secrets.plan([Fault::new("value", 1, When::Before, CloudErrorKind::Denied)]);
            render(&of(&secrets, &[wanted], reader).await.unwrap_err())
        };
        let text = refused("secretsmanager:GetSecretValue", "ci/db", Reader::RunnerHost).await;
        assert!(
            text.contains("the runner host's role `secretsmanager:GetSecretValue`") && text.contains("`secrets.allow`"),
            "{text}"
        );
        assert!(!text.contains("another account"), "{text}");
        let text = refused("secretsmanager:GetSecretValue", ARN, Reader::Job).await;
        assert!(text.contains("the role of this job's credentials") && text.contains("another account"), "{text}");
        let text = refused("kms:Decrypt", "ci/db", Reader::RunnerHost).await;
        assert!(text.contains("`kms:Decrypt`") && text.contains("`iam.secret_kms_key_ids`"), "{text}");
    }

    #[tokio::test]
    async fn an_answer_of_another_secret_is_refused() {
        let secrets = stored("s3cret");
        secrets.answer_with("other");
        let text = render(&of(&secrets, &["ci/db"], Reader::RunnerHost).await.unwrap_err());
        assert!(text.contains("answered with the secret `other`") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn the_content_has_no_debug() {
        let content = SecretContent::Text("s3cret".to_owned());
        assert_eq!(format!("{content:?}"), "Text(..)");
    }
}
