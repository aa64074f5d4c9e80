//! Commands under the policies that the module `oidc-roles` makes for an environment, beside things of others in the account: a policy
//! that is bounded to the environment's names must still let a command see what it looks for elsewhere.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::operated::of_emulator;
use crate::lifecycle::prune::{PruneDesk, ROLE, going};
use crate::support::emulator::BUCKET;
use crate::support::images::push_empty;
use crate::support::shipped_roles::shipped_role;

/// The environment of `complete/tests` whose names are those of the desk.
const ENVIRONMENT: &str = "dev/";

/// A role with all policies of the environment.
fn role(outputs: &BTreeMap<String, Value>) -> Value {
    let policies = outputs["command_policies"].as_object().unwrap().iter();
    let of_environment = policies.filter_map(|(key, text)| Some((key.strip_prefix(ENVIRONMENT)?, text)));
    // The names of `complete/tests` that no job under the operator's file has.
    let read = |text: &Value| -> Value {
        let text = of_emulator(text.as_str().unwrap()).replace("ci-models-7", BUCKET);
        serde_json::from_str(&text.replace("role/ml-serving", "role/serving")).unwrap()
    };
    let policies: Vec<_> =
        of_environment.map(|(command, text)| json!({"PolicyName": command, "PolicyDocument": read(text)})).collect();
    assert!(policies.len() > 5, "{policies:?}");
    let mut role = shipped_role((ROLE, "{}"));
    role["RolePolicyList"] = policies.into();
    role
}

/// A version, and an endpoint with its configuration and model, of somebody else.
fn make_others(desk: &PruneDesk) {
    let call = |operation: &str, body: &Value| desk.emulator.call(&format!("SageMaker.{operation}"), body);
    call("CreateModelPackageGroup", &json!({"ModelPackageGroupName": "beer"}));
    let containers = json!([{"Image": desk.image, "ModelDataUrl": "s3://others/model.tar.gz"}]);
    call(
        "CreateModelPackage",
        &json!({"ModelPackageGroupName": "beer", "InferenceSpecification": {
            "Containers": containers, "SupportedContentTypes": ["text/plain"], "SupportedResponseMIMETypes": ["text/plain"],
        }}),
    );
    let role = "arn:aws:iam::000000000000:role/serving";
    call(
        "CreateModel",
        &json!({"ModelName": "ale", "ExecutionRoleArn": role, "PrimaryContainer": {"Image": desk.image}}),
    );
    let variant = json!({
        "VariantName": "AllTraffic", "ModelName": "ale", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1,
    });
    call("CreateEndpointConfig", &json!({"EndpointConfigName": "ale", "ProductionVariants": [variant]}));
    call("CreateEndpoint", &json!({"EndpointName": "ale", "EndpointConfigName": "ale"}));
}

/// Registers, deploys, rolls back, cleans up and deletes.
#[track_caller]
pub(super) fn assert_commands_run(outputs: &BTreeMap<String, Value>) {
    let Some(desk) = PruneDesk::with_role("commands under the policies of the module", &role(outputs)) else { return };
    make_others(&desk);
    for model in ["model one", "model two", "model three"] {
        desk.write_model(model);
        for words in [&["model", "register"][..], &["endpoint", "deploy"]] {
            desk.run_with_role("push", words);
        }
    }
    desk.run_with_role("push", &["endpoint", "status"]);
    desk.run_with_role("push", &["endpoint", "rollback", "--reason", "a test"]);
    for number in 0..2 {
        push_empty(&desk.emulator, "serve", &format!("context-{number:040x}"));
    }
    let ended = desk.prune("schedule", &[]);
    assert_eq!((&ended["failed"], &ended["unread"]), (&json!(0), &json!([])), "{ended}");
    let gone = going(&ended, "deleted");
    assert!(["configuration ", "image "].iter().all(|kind| gone.iter().any(|one| one.starts_with(kind))), "{gone:?}");
    desk.run_with_role("push", &["endpoint", "delete", "--confirm", "wine"]);
    assert_eq!(desk.names("ListEndpoints", "Endpoints", "EndpointName"), ["ale"]);
    let decided = desk.emulator.decided(ROLE);
    assert_eq!(decided["denied"], json!({}), "{decided}");
}
