//! The actions that operations on models, endpoint configurations and endpoints need.

use serde_json::Value;

use super::context::{NeededAction, SAGEMAKER};
use super::monitoring::alarms_of_deployment;
use crate::caller::Caller;
use crate::package_names::PackageName;
use crate::partition::partition;
use crate::protocol::text;
use crate::tags::{Tags, tag_map};

/// The needed actions; `None` when the operation is not one of these.
pub(super) fn serving_actions(
    operation: &str,
    request: &Value,
    caller: &Caller,
    tags: &Tags,
) -> Option<Vec<NeededAction>> {
    let on = |kind: &str, member: &str| {
        let Caller { account, region, .. } = caller;
        let name = text(request, member).unwrap_or("*");
        let arn = format!("arn:{}:sagemaker:{region}:{account}:{kind}/{name}", partition(region));
        let of_resource = tags.with(&arn, |one| one.tags.clone()).unwrap_or_default();
        NeededAction::new(format!("sagemaker:{operation}"), arn).resource_tags("sagemaker", &of_resource)
    };
    let model = || on("model", "ModelName");
    let config = || on("endpoint-config", "EndpointConfigName");
    let endpoint = || on("endpoint", "EndpointName");
    let everything = || NeededAction::new(format!("sagemaker:{operation}"), "*");
    let mut all = match operation {
        "CreateModel" => {
            let model = model();
            let pass = NeededAction::new("iam:PassRole", text(request, "ExecutionRoleArn").unwrap_or("*"));
            let pass = pass.key("iam:PassedToService", [SAGEMAKER]);
            let pass = pass.key("iam:AssociatedResourceArn", [model.resource.clone()]);
            std::iter::once(model).chain([pass]).chain(others_packages(request, caller)).collect()
        }
        "CreateEndpointConfig" | "DescribeEndpointConfig" | "DeleteEndpointConfig" => vec![config()],
        "DescribeModel" | "DeleteModel" => vec![model()],
        "CreateEndpoint" | "UpdateEndpoint" => {
            [endpoint(), config()].into_iter().chain(alarms_of_deployment(request, caller)).collect()
        }
        "DescribeEndpoint" | "DeleteEndpoint" | "UpdateEndpointWeightsAndCapacities" => vec![endpoint()],
        "ListModels" | "ListEndpointConfigs" | "ListEndpoints" => vec![everything()],
        _ => return None,
    };
    let sent = tag_map(request.get("Tags"));
    if let Some(first) = all.first_mut().filter(|_| !sent.is_empty()) {
        *first = first.clone().request_tags(&sent);
        let tagging = NeededAction::new("sagemaker:AddTags", first.resource.clone()).request_tags(&sent);
        all.push(tagging.key("sagemaker:TaggingAction", [operation]));
    }
    Some(all)
}

/// A model from a package of another account needs the permission on the package too.
fn others_packages(request: &Value, caller: &Caller) -> Vec<NeededAction> {
    let all = request["Containers"].as_array().into_iter().flatten().chain([&request["PrimaryContainer"]]);
    let named = all.filter_map(|one| PackageName::of_arn(text(one, "ModelPackageName")?));
    let others = named.filter(|package| package.of.account != caller.account);
    others.map(|one| NeededAction::new("sagemaker:CreateModel", one.arn()).owned_by(&one.of.account)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn needed(operation: &str, request: &Value) -> Vec<(String, String)> {
        let actions = serving_actions(operation, request, &Caller::administrator(), &Tags::default());
        actions.unwrap().into_iter().map(|one| (one.action, one.resource)).collect()
    }

    fn of(action: &str, resource: &str) -> (String, String) {
        (action.to_owned(), resource.to_owned())
    }

    #[test]
    fn a_model_needs_its_role_its_tags_and_the_packages_of_others() {
        let (role, package) = (
            "arn:aws:iam::000000000000:role/serving",
            "arn:aws:sagemaker:us-east-1:222222222222:model-package/fraud/3",
        );
        let own = "arn:aws:sagemaker:us-east-1:000000000000:model-package/fraud/3";
        let model = "arn:aws:sagemaker:us-east-1:000000000000:model/m";
        let request = json!({
            "ModelName": "m", "ExecutionRoleArn": role, "Tags": [{"Key": "a", "Value": "b"}],
            "Containers": [{"ModelPackageName": package}, {"ModelPackageName": own}],
        });
        let expected = [
            of("sagemaker:CreateModel", model),
            of("iam:PassRole", role),
            of("sagemaker:CreateModel", package),
            of("sagemaker:AddTags", model),
        ];
        assert_eq!(needed("CreateModel", &request), expected);
    }

    #[test]
    fn an_endpoint_needs_its_configuration_too() {
        let request = json!({"EndpointName": "e", "EndpointConfigName": "c"});
        let arn = |what: &str| format!("arn:aws:sagemaker:us-east-1:000000000000:{what}");
        for operation in ["CreateEndpoint", "UpdateEndpoint"] {
            let action = format!("sagemaker:{operation}");
            assert_eq!(
                needed(operation, &request),
                [of(&action, &arn("endpoint/e")), of(&action, &arn("endpoint-config/c"))]
            );
        }
    }
}
