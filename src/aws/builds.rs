//! Builds of images in CodeBuild, and their logs, over the SDK.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_codebuild::types::{
    ArtifactsType, Build, CloudWatchLogsConfig, ComputeType, EnvironmentType, EnvironmentVariable,
    EnvironmentVariableType, ImagePullCredentialsType, LogsConfig, LogsConfigStatusType, Project, ProjectArtifacts,
    ProjectEnvironment, ProjectSource, SortOrderType, SourceType, StatusType, Tag, VpcConfig,
};
use executor::cloud::{
    BuildLog, BuildLogPage, BuildNetwork, BuildPhase, BuildProject, BuildRequest, BuildSight, BuildState,
    BuildVariable, CloudError, CloudErrorKind, ImageBuilds,
};

use super::clients::Clients;
use super::errors::AwsCall;

#[derive(Debug)]
pub(super) struct AwsBuilds {
    clients: Arc<Clients>,
}

impl AwsBuilds {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }

    fn project_call(&self, verb: &str, name: &str, action: &'static str) -> AwsCall {
        self.clients.call(verb, format!("CodeBuild project {name}"), action)
    }

    async fn described(&self, ids: Vec<String>) -> Result<Vec<BuildSight>, CloudError> {
        let call = self.clients.call("look at", "CodeBuild builds", "codebuild:BatchGetBuilds");
        let request = self.clients.codebuild().batch_get_builds().set_ids(Some(ids));
        let reply = request.send().await.map_err(|error| call.failed(&error))?;
        Ok(reply.builds.unwrap_or_default().into_iter().filter_map(seen).collect())
    }
}

/// The parts of a project that both requests take.
struct Parts {
    source: ProjectSource,
    artifacts: ProjectArtifacts,
    environment: ProjectEnvironment,
    logs: LogsConfig,
    network: VpcConfig,
    tags: Vec<Tag>,
}

fn parts(call: &AwsCall, project: &BuildProject) -> Result<Parts, CloudError> {
    let incomplete = |error: aws_sdk_codebuild::error::BuildError| call.error(CloudErrorKind::Other, error.to_string());
    let source =
        ProjectSource::builder().r#type(SourceType::S3).location(&project.source).buildspec(&project.buildspec);
    let variables = project.variables.iter().map(|(name, value)| variable(name, value));
    let environment = ProjectEnvironment::builder()
        .r#type(EnvironmentType::from(project.environment_type.as_str()))
        .image(&project.image)
        .compute_type(ComputeType::from(project.compute_type.as_str()))
        .privileged_mode(project.is_privileged)
        .image_pull_credentials_type(if project.pulls_by_role {
            ImagePullCredentialsType::ServiceRole
        } else {
            ImagePullCredentialsType::Codebuild
        })
        .set_environment_variables(Some(variables.collect::<Result<_, _>>().map_err(incomplete)?));
    let logs = CloudWatchLogsConfig::builder().status(LogsConfigStatusType::Enabled);
    let logs = logs.set_group_name(project.log_group.clone()).build().map_err(incomplete)?;
    // Without members it removes the network that a project has.
    let mut network = VpcConfig::builder();
    if let Some(BuildNetwork { vpc, subnets, security_groups }) = &project.network {
        network = network.vpc_id(vpc).set_subnets(Some(subnets.clone()));
        network = network.set_security_group_ids(Some(security_groups.clone()));
    }
    Ok(Parts {
        source: source.build().map_err(incomplete)?,
        artifacts: ProjectArtifacts::builder().r#type(ArtifactsType::NoArtifacts).build().map_err(incomplete)?,
        environment: environment.build().map_err(incomplete)?,
        logs: LogsConfig::builder().cloud_watch_logs(logs).build(),
        network: network.build(),
        tags: project.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect(),
    })
}

fn variable(name: &str, value: &BuildVariable) -> Result<EnvironmentVariable, aws_sdk_codebuild::error::BuildError> {
    let (kind, value) = match value {
        BuildVariable::Plain(value) => (EnvironmentVariableType::Plaintext, value),
        BuildVariable::Secret(id) => (EnvironmentVariableType::SecretsManager, id),
    };
    EnvironmentVariable::builder().name(name).value(value).r#type(kind).build()
}

#[async_trait]
impl ImageBuilds for AwsBuilds {
    async fn project(&self, name: &str) -> Result<Option<BuildProject>, CloudError> {
        let call = self.project_call("look at", name, "codebuild:BatchGetProjects");
        let reply = self.clients.codebuild().batch_get_projects().names(name).send().await;
        let reply = reply.map_err(|error| call.failed(&error))?;
        Ok(reply.projects.unwrap_or_default().into_iter().next().map(found))
    }

    async fn create_project(&self, project: &BuildProject) -> Result<(), CloudError> {
        let call = self.project_call("create", &project.name, "codebuild:CreateProject");
        let Parts { source, artifacts, environment, logs, network, tags } = parts(&call, project)?;
        self.clients
            .codebuild()
            .create_project()
            .name(&project.name)
            .description(&project.description)
            .source(source)
            .artifacts(artifacts)
            .environment(environment)
            .service_role(&project.service_role)
            .timeout_in_minutes(minutes(project.timeout_minutes))
            .queued_timeout_in_minutes(minutes(project.queued_timeout_minutes))
            .set_encryption_key(project.kms_key.clone())
            .set_vpc_config(project.network.as_ref().map(|_| network))
            .logs_config(logs)
            .set_tags(Some(tags))
            .send()
            .await
            .map(|_| ())
            .map_err(|error| call.failed(&error))
    }

    async fn update_project(&self, project: &BuildProject) -> Result<(), CloudError> {
        let call = self.project_call("change", &project.name, "codebuild:UpdateProject");
        let Parts { source, artifacts, environment, logs, network, tags } = parts(&call, project)?;
        self.clients
            .codebuild()
            .update_project()
            .name(&project.name)
            .description(&project.description)
            .source(source)
            .artifacts(artifacts)
            .environment(environment)
            .service_role(&project.service_role)
            .timeout_in_minutes(minutes(project.timeout_minutes))
            .queued_timeout_in_minutes(minutes(project.queued_timeout_minutes))
            .set_encryption_key(project.kms_key.clone())
            .vpc_config(network)
            .logs_config(logs)
            .set_tags(Some(tags))
            .send()
            .await
            .map(|_| ())
            .map_err(|error| call.failed(&error))
    }

    async fn start(&self, request: &BuildRequest) -> Result<String, CloudError> {
        let call = self.clients.call(
            "start a build of",
            format!("CodeBuild project {}", request.project),
            "codebuild:StartBuild",
        );
        let variables = request.variables.iter().map(|(name, value)| {
            variable(name, &BuildVariable::Plain(value.clone()))
                .map_err(|error| call.error(CloudErrorKind::Other, error.to_string()))
        });
        let variables = variables.collect::<Result<Vec<_>, _>>()?;
        let reply = self
            .clients
            .codebuild()
            .start_build()
            .project_name(&request.project)
            .idempotency_token(&request.token)
            .source_type_override(SourceType::S3)
            .source_location_override(&request.source)
            .set_environment_variables_override(Some(variables))
            .send()
            .await
            .map_err(|error| call.failed(&error))?;
        let id = reply.build_value.and_then(|build| build.id);
        id.ok_or_else(|| call.error(CloudErrorKind::Other, "the reply names no build"))
    }

    async fn newest(&self, project: &str, most: usize) -> Result<Vec<BuildSight>, CloudError> {
        let call = self.project_call("list the builds of", project, "codebuild:ListBuildsForProject");
        let request = self.clients.codebuild().list_builds_for_project().project_name(project);
        let reply = request.sort_order(SortOrderType::Descending).send().await.map_err(|error| call.failed(&error))?;
        let ids: Vec<_> = reply.ids.unwrap_or_default().into_iter().take(most).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut all = self.described(ids).await?;
        all.sort_by_key(|build| std::cmp::Reverse(build.number));
        Ok(all)
    }

    async fn sight(&self, id: &str) -> Result<Option<BuildSight>, CloudError> {
        Ok(self.described(vec![id.to_owned()]).await?.into_iter().next())
    }

    async fn stop(&self, id: &str) -> Result<(), CloudError> {
        let call = self.clients.call("stop", format!("CodeBuild build {id}"), "codebuild:StopBuild");
        self.clients.codebuild().stop_build().id(id).send().await.map(|_| ()).map_err(|error| call.failed(&error))
    }

    async fn log(&self, place: &BuildLog, token: Option<&str>) -> Result<BuildLogPage, CloudError> {
        let BuildLog { group, stream } = place;
        let call = self.clients.call("read", format!("log stream {stream} of {group}"), "logs:GetLogEvents");
        let request = self.clients.logs().get_log_events().log_group_name(group).log_stream_name(stream);
        let request = request.start_from_head(true).set_next_token(token.map(str::to_owned));
        match request.send().await {
            Ok(page) => Ok(BuildLogPage {
                messages: page.events.unwrap_or_default().into_iter().filter_map(|event| event.message).collect(),
                token: page.next_forward_token,
            }),
            Err(error) => {
                let error = call.failed(&error);
                if error.kind == CloudErrorKind::NotFound { Ok(BuildLogPage::default()) } else { Err(error) }
            }
        }
    }
}

fn minutes(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn number(minutes: Option<i32>) -> u32 {
    minutes.and_then(|minutes| u32::try_from(minutes).ok()).unwrap_or_default()
}

/// A project as AWS shows it.
fn found(project: Project) -> BuildProject {
    let source = project.source;
    let environment = project.environment;
    let variables = environment.iter().flat_map(ProjectEnvironment::environment_variables).map(|one| {
        let value = one.value().to_owned();
        let value = match one.r#type() {
            None | Some(EnvironmentVariableType::Plaintext) => BuildVariable::Plain(value),
            _ => BuildVariable::Secret(value),
        };
        (one.name().to_owned(), value)
    });
    let variables = variables.collect();
    let tags = project.tags.unwrap_or_default().into_iter();
    let logs = project.logs_config.and_then(|logs| logs.cloud_watch_logs);
    let network = project.vpc_config.and_then(|network| {
        Some(BuildNetwork {
            vpc: network.vpc_id.filter(|vpc| !vpc.is_empty())?,
            subnets: network.subnets.unwrap_or_default(),
            security_groups: network.security_group_ids.unwrap_or_default(),
        })
    });
    BuildProject {
        name: project.name.unwrap_or_default(),
        description: project.description.unwrap_or_default(),
        source: source.as_ref().and_then(|source| source.location.clone()).unwrap_or_default(),
        buildspec: source.and_then(|source| source.buildspec).unwrap_or_default(),
        image: environment.as_ref().map(|one| one.image.clone()).unwrap_or_default(),
        pulls_by_role: environment
            .as_ref()
            .is_some_and(|one| one.image_pull_credentials_type == Some(ImagePullCredentialsType::ServiceRole)),
        environment_type: environment.as_ref().map(|one| one.r#type.as_str().to_owned()).unwrap_or_default(),
        compute_type: environment.as_ref().map(|one| one.compute_type.as_str().to_owned()).unwrap_or_default(),
        is_privileged: environment.is_some_and(|one| one.privileged_mode == Some(true)),
        variables,
        service_role: project.service_role.unwrap_or_default(),
        timeout_minutes: number(project.timeout_in_minutes),
        queued_timeout_minutes: number(project.queued_timeout_in_minutes),
        kms_key: project.encryption_key,
        network,
        log_group: logs.and_then(|logs| logs.group_name),
        tags: tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect(),
    }
}

/// A build as AWS shows it; `None` when it has no id.
fn seen(build: Build) -> Option<BuildSight> {
    let state = match build.build_status {
        Some(StatusType::Succeeded) => BuildState::Succeeded,
        Some(StatusType::Failed) => BuildState::Failed,
        Some(StatusType::Fault) => BuildState::Fault,
        Some(StatusType::TimedOut) => BuildState::TimedOut,
        Some(StatusType::Stopped) => BuildState::Stopped,
        // A status that is not known yet ends when the build is complete.
        _ if build.build_complete => BuildState::Fault,
        _ => BuildState::Running,
    };
    let variables = build.environment.iter().flat_map(ProjectEnvironment::environment_variables);
    let plain =
        variables.filter(|one| !matches!(one.r#type(), Some(kind) if *kind != EnvironmentVariableType::Plaintext));
    let variables: BTreeMap<_, _> = plain.map(|one| (one.name().to_owned(), one.value().to_owned())).collect();
    let logs = build.logs;
    Some(BuildSight {
        id: build.id?,
        number: build.build_number.and_then(|number| u64::try_from(number).ok()),
        state,
        phases: build.phases.unwrap_or_default().into_iter().filter_map(phase).collect(),
        source: build.source.and_then(|source| source.location).unwrap_or_default(),
        variables,
        log: logs.and_then(|logs| Some(BuildLog { group: logs.group_name?, stream: logs.stream_name? })),
    })
}

fn phase(phase: aws_sdk_codebuild::types::BuildPhase) -> Option<BuildPhase> {
    let reasons = phase.contexts.unwrap_or_default().into_iter().filter_map(|context| {
        let parts: Vec<_> = [context.status_code, context.message].into_iter().flatten().collect();
        let text = parts.join(": ");
        (!text.trim().is_empty()).then_some(text)
    });
    Some(BuildPhase {
        reasons: reasons.collect(),
        name: phase.phase_type?.as_str().to_owned(),
        has_succeeded: phase.phase_status.map(|status| status == StatusType::Succeeded),
        seconds: phase.duration_in_seconds.and_then(|seconds| u64::try_from(seconds).ok()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::stub::{Stub, refusal, reply};

    fn project() -> BuildProject {
        BuildProject {
            name: "fraud-v2".to_owned(),
            description: "Builds images".to_owned(),
            source: "bucket/p/a.zip".to_owned(),
            buildspec: "buildspec.yml".to_owned(),
            image: "aws/codebuild/standard:7.0".to_owned(),
            environment_type: "LINUX_CONTAINER".to_owned(),
            compute_type: "BUILD_GENERAL1_SMALL".to_owned(),
            is_privileged: true,
            variables: BTreeMap::from([("TOKEN".to_owned(), BuildVariable::Secret("pypi:token".to_owned()))]),
            service_role: "arn:aws:iam::000000000000:role/build".to_owned(),
            timeout_minutes: 30,
            queued_timeout_minutes: 60,
            tags: BTreeMap::from([("client".to_owned(), "acme".to_owned())]),
            ..BuildProject::default()
        }
    }

    #[tokio::test]
    async fn a_project_that_was_created_is_found_the_same() {
        let stub = Stub::start().await;
        let port = AwsBuilds::new(Arc::clone(&stub.clients));
        stub.push(reply(200, "{}"));
        port.create_project(&project()).await.unwrap();
        let seen = stub.seen();
        let sent: Value = serde_json::from_slice(&seen[0].body).unwrap();
        assert_eq!(seen[0].target.as_deref(), Some("CodeBuild_20161006.CreateProject"));
        assert_eq!(sent["environment"]["environmentVariables"][0]["type"], "SECRETS_MANAGER");
        assert_eq!(sent["vpcConfig"], Value::Null);
        stub.push(reply(200, json!({"projects": [sent]}).to_string()));
        assert_eq!(port.project("fraud-v2").await.unwrap(), Some(project()));
        stub.push(reply(200, json!({"projectsNotFound": ["fraud-v2"]}).to_string()));
        assert_eq!(port.project("fraud-v2").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_build_is_seen_with_its_phases_and_reasons() {
        let stub = Stub::start().await;
        let port = AwsBuilds::new(Arc::clone(&stub.clients));
        let build = json!({
            "id": "fraud-v2:1", "buildNumber": 3, "buildStatus": "FAILED", "buildComplete": true,
            "source": {"type": "S3", "location": "bucket/a.zip"},
            "environment": {"type": "LINUX_CONTAINER", "image": "i", "computeType": "BUILD_GENERAL1_SMALL",
                "environmentVariables": [{"name": "A", "value": "1", "type": "PLAINTEXT"}, {"name": "B", "value": "s", "type": "SECRETS_MANAGER"}]},
            "phases": [{"phaseType": "BUILD", "phaseStatus": "FAILED", "durationInSeconds": 4,
                "contexts": [{"statusCode": "COMMAND_EXECUTION_ERROR", "message": "exit status 7"}]}, {"phaseType": "COMPLETED"}],
            "logs": {"groupName": "g", "streamName": "s"},
        });
        stub.push(reply(200, json!({"builds": [build]}).to_string()));
        let sight = port.sight("fraud-v2:1").await.unwrap().unwrap();
        assert_eq!((sight.state, sight.number, sight.source.as_str()), (BuildState::Failed, Some(3), "bucket/a.zip"));
        assert_eq!(sight.phases[0].reasons, ["COMMAND_EXECUTION_ERROR: exit status 7"]);
        assert_eq!(sight.phases[1].has_succeeded, None);
        assert_eq!(sight.variables, BTreeMap::from([("A".to_owned(), "1".to_owned())]));
    }

    #[tokio::test]
    async fn a_log_that_is_not_there_yet_is_empty() {
        let stub = Stub::start().await;
        let port = AwsBuilds::new(Arc::clone(&stub.clients));
        let place = BuildLog { group: "g".to_owned(), stream: "s".to_owned() };
        stub.push(refusal(400, "ResourceNotFoundException", "The specified log stream does not exist."));
        assert_eq!(port.log(&place, None).await.unwrap(), BuildLogPage::default());
        stub.push(reply(
            200,
            json!({"events": [{"message": "a", "timestamp": 1}], "nextForwardToken": "t"}).to_string(),
        ));
        let page = port.log(&place, Some("s")).await.unwrap();
        assert_eq!((page.messages, page.token.as_deref()), (vec!["a".to_owned()], Some("t")));
    }
}
