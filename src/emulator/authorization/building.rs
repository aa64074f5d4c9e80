//! The actions that operations of CodeBuild need.

use std::collections::BTreeSet;

use serde_json::Value;

use super::context::NeededAction;
use crate::caller::Caller;
use crate::partition::partition;
use crate::protocol::text;
use crate::tags::{TagMap, Tags};

/// The service to which a project's role is passed.
const CODEBUILD: &str = "codebuild.amazonaws.com";

/// Every operation is on projects; one that names a role hands it to the service too.
pub(super) fn build_actions(operation: &str, request: &Value, caller: &Caller, tags: &Tags) -> Vec<NeededAction> {
    let Caller { account, region, .. } = caller;
    let arn = |name: &str| format!("arn:{}:codebuild:{region}:{account}:project/{name}", partition(region));
    let names = names(operation, request);
    let sent = sent_tags(request);
    let mut needed: Vec<_> = names
        .into_iter()
        .map(|name| {
            let arn = arn(name);
            let of_project = tags.with(&arn, |one| one.tags.clone()).unwrap_or_default();
            let needed = NeededAction::new(format!("codebuild:{operation}"), arn).request_tags(&sent);
            needed.resource_tags("codebuild", &of_project)
        })
        .collect();
    let role = text(request, "serviceRole").or_else(|| text(request, "serviceRoleOverride"));
    needed.extend(role.map(|role| NeededAction::new("iam:PassRole", role).key("iam:PassedToService", [CODEBUILD])));
    needed
}

/// The projects of a request. The id of a build begins with its project.
fn names<'a>(operation: &str, request: &'a Value) -> BTreeSet<&'a str> {
    let list = |member: &str| request[member].as_array().into_iter().flatten().filter_map(Value::as_str);
    let of_build = |id: &'a str| id.rsplit('/').next().unwrap_or(id).split(':').next().unwrap_or_default();
    match operation {
        "BatchGetProjects" => list("names").collect(),
        "BatchGetBuilds" => list("ids").map(of_build).collect(),
        "StopBuild" => text(request, "id").map(of_build).into_iter().collect(),
        "StartBuild" | "ListBuildsForProject" => text(request, "projectName").into_iter().collect(),
        _ => text(request, "name").into_iter().collect(),
    }
}

/// The tags of a request; their members begin with a small letter.
pub(crate) fn sent_tags(request: &Value) -> TagMap {
    let tags = request["tags"].as_array().into_iter().flatten();
    tags.filter_map(|tag| Some((text(tag, "key")?.to_owned(), text(tag, "value").unwrap_or_default().to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_build_is_of_its_project_and_a_role_is_passed() {
        let needed = |operation: &str, request: Value| {
            let all = build_actions(operation, &request, &Caller::administrator(), &Tags::default());
            all.into_iter().map(|one| (one.action, one.resource)).collect::<Vec<_>>()
        };
        let of = |action: &str, resource: &str| (action.to_owned(), resource.to_owned());
        let project = "arn:aws:codebuild:us-east-1:000000000000:project/p";
        assert_eq!(needed("StopBuild", json!({"id": "p:1"})), [of("codebuild:StopBuild", project)]);
        let builds = json!({"ids": ["p:1", "arn:aws:codebuild:us-east-1:000000000000:build/p:2"]});
        assert_eq!(needed("BatchGetBuilds", builds), [of("codebuild:BatchGetBuilds", project)]);
        let role = "arn:aws:iam::000000000000:role/r";
        let create = json!({"name": "p", "serviceRole": role});
        assert_eq!(needed("CreateProject", create), [of("codebuild:CreateProject", project), of("iam:PassRole", role)]);
    }
}
