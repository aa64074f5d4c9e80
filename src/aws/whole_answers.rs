//! Refuses answers that say nothing where a list or a description was asked for. AWS sends the list also when it is empty; the SDK reads an
//! answer without one, as a broken proxy makes it, as an account that has no such things.

use aws_sdk_s3::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;

/// Begins of the names of operations whose answers say something.
const TELLING: [&str; 2] = ["List", "Describe"];

/// Checks the answers of a client of a JSON service.
#[derive(Debug)]
pub(super) struct WholeAnswers;

impl Intercept for WholeAnswers {
    fn name(&self) -> &'static str {
        "WholeAnswers"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = bag.load::<Metadata>().map(Metadata::name).unwrap_or_default();
        let body = context.response().body().bytes();
        if context.response().status().is_success() && body.is_some_and(|body| is_cut(operation, body)) {
            return Err(format!("the answer of {operation} is empty").into());
        }
        Ok(())
    }
}

/// Tells whether the answer has no member, although one was asked for.
fn is_cut(operation: &str, body: &[u8]) -> bool {
    let letters: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).take(3).collect();
    TELLING.iter().any(|verb| operation.starts_with(verb)) && (letters.is_empty() || letters == b"{}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use executor::cloud::{ModelEndpoints as _, ModelRegistry as _, ServedKind};

    use super::*;
    use crate::endpoints::AwsEndpoints;
    use crate::registry::AwsRegistry;
    use crate::stub::{Stub, reply};

    #[test]
    fn an_answer_without_members_is_cut() {
        for body in ["", " \n", "{}", "{ }\n"] {
            assert!(is_cut("ListModels", body.as_bytes()) && is_cut("DescribeImages", body.as_bytes()), "{body:?}");
            assert!(!is_cut("DeleteModel", body.as_bytes()), "{body:?}");
        }
        assert!(!is_cut("ListModels", br#"{"Models":[]}"#));
    }

    #[tokio::test]
    async fn a_list_without_its_member_is_an_error_and_an_empty_one_is_not() {
        for body in ["", "{}"] {
            let stub = Stub::start().await;
            stub.answer(move |_| Some(reply(200, body)));
            let endpoints = AwsEndpoints::new(Arc::clone(&stub.clients));
            for kind in [ServedKind::Model, ServedKind::Configuration, ServedKind::Endpoint] {
                assert!(endpoints.listing(kind, "").await.is_err(), "{kind:?} {body:?}");
            }
            let registry = AwsRegistry::new(Arc::clone(&stub.clients));
            assert!(registry.versions("wine", None, None).await.is_err());
            assert!(registry.all_versions(None).await.is_err());
        }
        let stub = Stub::start().await;
        stub.push(reply(200, r#"{"Models":[]}"#));
        assert_eq!(AwsEndpoints::new(Arc::clone(&stub.clients)).listing(ServedKind::Model, "").await.unwrap(), []);
        stub.push(reply(200, r#"{"ModelPackageSummaryList":[]}"#));
        assert_eq!(AwsRegistry::new(Arc::clone(&stub.clients)).all_versions(None).await.unwrap(), []);
        let seen = stub.seen();
        let sent = String::from_utf8_lossy(&seen.last().unwrap().body).into_owned();
        assert!(sent.contains(r#""ModelPackageType":"Both""#) && !sent.contains("ModelPackageGroupName"), "{sent}");
    }
}
