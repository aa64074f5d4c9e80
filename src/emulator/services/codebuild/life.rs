//! The life of one build: its phases, its container, and what it writes to its log.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::buildspec::Buildspec;
use super::marks::{MarkReader, PhaseMark};
use super::mask::Mask;
use super::records::{BuildRecord, CodeBuild, ProjectKey};
use super::script::script;
use super::source::unpack;
use super::variables::secret_values;
use crate::authorization::{Identity, NeededAction};
use crate::caller::Caller;
use crate::clock;
use crate::host::{
    self, BindMount, ContainerExit, ContainerImage, ContainerNetwork, ContainerSpec, ImageSetup, Leftovers,
    StopSignals, discard,
};
use crate::partition::partition;
use crate::protocol::text;
use crate::services::training::{LogPlace, PlatformStore, S3Location, ship};

/// Where the source is in the container, and the folder with the script that runs its commands.
const SOURCE: &str = "/codebuild/output/src";
const SCRIPTS: &str = "/codebuild/scripts";
const SCRIPT: &str = "build.sh";
/// Name of the buildspec in the source, unless the project names one.
const BUILDSPEC: &str = "buildspec.yml";
/// The actions that a role needs for an image in ECR.
const PULL: [&str; 3] = ["BatchCheckLayerAvailability", "GetDownloadUrlForLayer", "BatchGetImage"];

/// The end of a phase that ends the build.
struct Trouble {
    status: &'static str,
    code: &'static str,
    message: String,
}

impl Trouble {
    fn failed(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: "FAILED", code, message: message.into() }
    }

    /// An error of the platform.
    fn fault(error: &anyhow::Error) -> Self {
        Self { status: "FAULT", code: "INTERNAL_SERVICE_ERROR", message: format!("{error:#}") }
    }
}

/// Runs a build to its end.
pub(super) async fn run(service: &Arc<CodeBuild>, build: &BuildRecord) {
    let number = service.shared.next_number();
    let folder = service.shared.config.jobs_folder().join(format!("b{number}"));
    let ended = attempt(service, build, &folder).await;
    service.change(&build.id, |record| {
        let (status, context) = match ended {
            Ok(status) => (status, None),
            Err(Trouble { status, code, message }) => (status, Some((code.to_owned(), message))),
        };
        if context.is_some() && record.phases.last().is_none_or(|phase| phase.ended.is_some()) {
            record.begin("INSTALL");
        }
        record.end(status, context);
        for phase in ["UPLOAD_ARTIFACTS", "FINALIZING"] {
            record.begin(phase);
            record.end("SUCCEEDED", None);
        }
        record.begin("COMPLETED");
        record.status = status;
        record.ended_ms = Some(clock::now_ms());
    });
    let removed = tokio::task::spawn_blocking(move || discard(&folder)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(error = format!("{error:#}"), "failed to remove the files of a build");
    }
}

/// The status of the build; an error ends the phase that runs.
async fn attempt(service: &Arc<CodeBuild>, build: &BuildRecord, folder: &Path) -> Result<&'static str, Trouble> {
    let enter = |phase: &str| {
        service.change(&build.id, |record| {
            record.end("SUCCEEDED", None);
            record.begin(phase);
        });
    };
    enter("PROVISIONING");
    let image = provision(service, build).await?;
    enter("DOWNLOAD_SOURCE");
    let source = folder.join("source/src");
    download(service, build, &source, folder).await?;
    let secrets = secret_values(service, build, &role_caller(build));
    let secrets = secrets.map_err(|message| Trouble::failed("CLIENT_ERROR", message))?;
    let spec = buildspec(build, &source).map_err(|message| Trouble::failed("YAML_FILE_ERROR", message))?;
    service.change(&build.id, |record| record.end("SUCCEEDED", None));
    let container = BuildContainer { service, build, folder, source, secrets };
    container.run(image, &spec).await.unwrap_or_else(|error| Err(Trouble::fault(&error)))
}

/// The files of the environment's image.
async fn provision(service: &Arc<CodeBuild>, build: &BuildRecord) -> Result<ImageSetup, Trouble> {
    const CODE: &str = "BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE";
    let environment = &build.definition["environment"];
    let image = text(environment, "image").unwrap_or_default();
    may_pull(service, build, image).map_err(|error| Trouble::failed(CODE, error))?;
    let found = service.images.find(image).await.map_err(|error| Trouble::failed(CODE, format!("{error:#}")))?;
    let setup = found.ok_or_else(|| {
        Trouble::failed(
            CODE,
            format!("Unable to pull customer's container image. CannotPullContainerError: {image} not found"),
        )
    })?;
    if matches!(setup.root, ContainerImage::Engine(_)) {
        return Err(Trouble::failed(CODE, "images of podman and docker cannot build here"));
    }
    let mut profile = setup.profile;
    profile.is_privileged = environment["privilegedMode"] == true;
    Ok(ImageSetup { profile, ..setup })
}

/// Tells whether the service role may pull the image; one that is not in ECR needs no permission.
fn may_pull(service: &CodeBuild, build: &BuildRecord, image: &str) -> Result<(), String> {
    let Some((registry, image)) = image.split_once('/') else { return Ok(()) };
    let [account, "dkr", "ecr", region, ..] = registry.split('.').collect::<Vec<_>>()[..] else { return Ok(()) };
    let repository = image.split(['@', ':']).next().unwrap_or_default();
    let arn = format!("arn:{}:ecr:{region}:{account}:repository/{repository}", partition(region));
    let caller = role_caller(build);
    let check = |needed: &NeededAction| service.shared.authority.allows(&caller, needed, None);
    check(&NeededAction::new("ecr:GetAuthorizationToken", "*"))?;
    PULL.iter().try_for_each(|action| check(&NeededAction::new(format!("ecr:{action}"), &arn)))
}

/// The service role's session as a caller.
fn role_caller(build: &BuildRecord) -> Caller {
    Caller {
        identity: Arc::new(Identity::Session(build.role.clone())),
        account: build.project.account.clone(),
        region: build.project.region.clone(),
    }
}

async fn download(service: &Arc<CodeBuild>, build: &BuildRecord, to: &Path, folder: &Path) -> Result<(), Trouble> {
    const CODE: &str = "CLIENT_ERROR";
    let failed = |error: &anyhow::Error| Trouble::failed(CODE, format!("{error:#} for primary source"));
    std::fs::create_dir_all(to).map_err(|error| Trouble::fault(&error.into()))?;
    let source = &build.definition["source"];
    if text(source, "type") != Some("S3") {
        return Ok(());
    }
    let place = text(source, "location").unwrap_or_default();
    let place = S3Location::parse(&format!("s3://{}", place.rsplit(":::").next().unwrap_or_default()));
    let place = place.ok_or_else(|| Trouble::failed(CODE, "the source has no place in S3"))?;
    let key = format!("arn:{}:s3:::{}/{}", partition(&role_caller(build).region), place.bucket, place.key);
    let needed = NeededAction::new("s3:GetObjectVersion", key);
    let allowed = service.shared.authority.allows(&role_caller(build), &needed, None);
    allowed.map_err(|message| Trouble::failed(CODE, format!("AccessDenied: {message} for primary source")))?;
    let store = PlatformStore::new(&service.store, &service.shared, &build.role, &build.project.region);
    let stored = store.object(&place.bucket, &place.key).map_err(|error| failed(&error))?;
    let (to, archive) = (to.to_owned(), folder.join("source.zip"));
    let unpacked = tokio::task::spawn_blocking(move || {
        let mut whole = std::fs::File::create(&archive)?;
        for (file, bytes) in stored.files() {
            let part = std::fs::File::open(&file)?;
            std::io::copy(&mut std::io::Read::take(part, bytes), &mut whole)?;
        }
        unpack(&archive, &to)
    });
    let unpacked = unpacked.await.context("failed to unpack the source").and_then(|result| result);
    unpacked.map_err(|error| failed(&error))
}

/// The buildspec: its text in the project, or its file in the source.
fn buildspec(build: &BuildRecord, source: &Path) -> Result<Buildspec, String> {
    let given = text(&build.definition["source"], "buildspec").filter(|given| !given.is_empty());
    if let Some(inline) = given.filter(|given| given.contains('\n')) {
        return Buildspec::parse(inline);
    }
    let name = given.unwrap_or(BUILDSPEC);
    let is_below = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let read = std::fs::read_to_string(source.join(name)).ok().filter(|_| is_below);
    let text = read.ok_or_else(|| format!("YAML file does not exist: {name}"))?;
    Buildspec::parse(&text)
}

/// A build whose source is there.
struct BuildContainer<'a> {
    service: &'a Arc<CodeBuild>,
    build: &'a BuildRecord,
    folder: &'a Path,
    source: PathBuf,
    /// Values of variables, by name.
    secrets: BTreeMap<String, String>,
}

impl BuildContainer<'_> {
    /// Runs the commands; an error is one of the platform.
    async fn run(&self, image: ImageSetup, spec: &Buildspec) -> anyhow::Result<Result<&'static str, Trouble>> {
        let shared = &self.service.shared;
        let mark = format!("\u{1e}{} ", shared.next_id());
        let scripts = self.folder.join("scripts");
        std::fs::create_dir_all(&scripts).with_context(|| format!("failed to create {}", scripts.display()))?;
        std::fs::write(scripts.join(SCRIPT), script(spec, &mark)).context("failed to write the script of a build")?;
        let role = shared.keys.place(self.build.role.clone())?;
        let exit = self.contain(image, spec, (&role, &mark), &scripts).await;
        shared.keys.revoke(&role);
        let exit = exit?;
        if self.build.stop.is_cancelled() {
            return Ok(Ok("STOPPED"));
        }
        let Some(ContainerExit { code, started }) = exit else {
            let message = format!("Build has timed out. Reason: the build took longer than {} minutes", self.minutes());
            return Ok(Err(Trouble { status: "TIMED_OUT", code: "BUILD_TIMED_OUT", message }));
        };
        if !started {
            return Ok(Err(Trouble::failed("BUILD_CONTAINER_START_ERROR", "the image has no shell")));
        }
        let mut has_failed = code != 0;
        self.service.change(&self.build.id, |record| {
            has_failed |= record.phases.iter().any(|phase| phase.ended.is_some_and(|(status, _)| status == "FAILED"));
        });
        Ok(Ok(if has_failed { "FAILED" } else { "SUCCEEDED" }))
    }

    fn minutes(&self) -> u64 {
        self.build.definition["timeoutInMinutes"].as_u64().unwrap_or(60)
    }

    /// Runs the container to its end; `None` when its time was over.
    async fn contain(
        &self,
        image: ImageSetup,
        spec: &Buildspec,
        (role, mark): (&str, &str),
        scripts: &Path,
    ) -> anyhow::Result<Option<ContainerExit>> {
        let (service, shared) = (self.service, &self.service.shared);
        let container = self.spec(image, spec, role, scripts)?;
        let isolation = service.isolation(&container.scratch).await?;
        let (output, receiver) = mpsc::channel(64);
        let (onward, log) = mpsc::channel(64);
        let place = self.log_place();
        let (ship_shared, logs) = (Arc::clone(shared), Arc::clone(&service.logs));
        let shipping = shared.tasks.spawn(async move { ship(ship_shared, logs, place, log, |_| ()).await });
        let kill = self.build.stop.child_token();
        let signals = StopSignals { stop: CancellationToken::new(), kill: kill.clone(), grace: Duration::ZERO };
        let limit = tokio::time::sleep(shared.faults.build_limit(self.minutes()));
        let running = host::run_with(container, isolation, output, signals);
        let reading = self.follow(receiver, onward, mark, spec);
        tokio::pin!(running, limit, reading);
        let (mut exit, mut is_over, mut has_read) = (None, false, false);
        while exit.is_none() || !has_read {
            tokio::select! {
                ended = &mut running, if exit.is_none() => exit = Some(ended),
                () = &mut reading, if !has_read => has_read = true,
                () = &mut limit, if !is_over => {
                    is_over = true;
                    kill.cancel();
                }
            }
        }
        // The last lines are in the log before the build is complete.
        drop(shipping.await);
        let exit = exit.transpose()?;
        Ok(exit.filter(|_| !is_over))
    }

    /// Passes the output on to the log, and the phases into the record.
    async fn follow(
        &self,
        mut output: mpsc::Receiver<Vec<u8>>,
        log: mpsc::Sender<Vec<u8>>,
        mark: &str,
        spec: &Buildspec,
    ) {
        let (mut reader, mut hidden) = (MarkReader::new(mark), Mask::of(self.secrets.values()));
        for part in &spec.ignored {
            drop(
                log.send(format!("[Container] The part {part} of the buildspec is not done here\n").into_bytes()).await,
            );
        }
        while let Some(chunk) = output.recv().await {
            let (text, marks) = reader.push(&chunk);
            for mark in marks {
                self.service.change(&self.build.id, |record| enter(record, mark, spec));
            }
            let text = hidden.push(&text);
            if !text.is_empty() {
                drop(log.send(text).await);
            }
        }
        let mut rest = hidden.push(&reader.finish());
        rest.extend(hidden.finish());
        if !rest.is_empty() {
            drop(log.send(rest).await);
        }
    }

    /// The build's log, when the service role may write one.
    fn log_place(&self) -> Option<LogPlace> {
        let (group, stream) = self.build.log_place();
        if text(&self.build.definition["logsConfig"]["cloudWatchLogs"], "status") == Some("DISABLED") {
            return None;
        }
        let ProjectKey { account, region, .. } = &self.build.project;
        let arn = format!("arn:{}:logs:{region}:{account}:log-group:{group}:log-stream:", partition(region));
        let caller = role_caller(self.build);
        let allows = |action: &str, resource: String| {
            self.service.shared.authority.allows(&caller, &NeededAction::new(action, resource), None).is_ok()
        };
        // A group that is there needs no creation.
        allows("logs:CreateLogGroup", arn.clone());
        let may_write = ["logs:CreateLogStream", "logs:PutLogEvents"];
        may_write
            .into_iter()
            .all(|action| allows(action, format!("{arn}{stream}")))
            .then_some(LogPlace { group, stream })
    }

    fn spec(&self, image: ImageSetup, spec: &Buildspec, role: &str, scripts: &Path) -> anyhow::Result<ContainerSpec> {
        let (scratch, opt_ml) = (self.folder.join("scratch"), self.folder.join("opt-ml"));
        for folder in [&scratch, &opt_ml] {
            std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        }
        let ImageSetup { root, mut profile } = image;
        profile.directory = Some(format!("{SOURCE}/src"));
        let outer = self.source.parent().unwrap_or(&self.source).to_owned();
        let shell = if spec.bash { "/bin/bash" } else { "/bin/sh" };
        Ok(ContainerSpec {
            id: format!("build-{}", self.build.unique()),
            root,
            profile,
            entrypoint: vec![shell.to_owned(), format!("{SCRIPTS}/{SCRIPT}")],
            arguments: Vec::new(),
            environment: self.environment(spec, role),
            hostname: "build".to_owned(),
            hosts: vec![("build".to_owned(), Ipv4Addr::LOCALHOST)],
            network: ContainerNetwork::Host,
            opt_ml,
            mounts: vec![
                BindMount { from: outer, at: PathBuf::from(SOURCE), writable: true },
                BindMount { from: scripts.to_owned(), at: PathBuf::from(SCRIPTS), writable: false },
            ],
            scratch,
            leftovers: Leftovers::None,
        })
    }

    /// The variables of the platform, then those of the buildspec, and over them those of the project and the request.
    fn environment(&self, spec: &Buildspec, role: &str) -> BTreeMap<String, String> {
        let build = self.build;
        let (endpoint, region) = (&self.service.shared.endpoint, &build.project.region);
        let source = &build.definition["source"];
        let (group, stream) = build.log_place();
        let mut all = spec.variables.clone();
        let own = build.definition["environment"]["environmentVariables"].as_array().into_iter().flatten();
        let own = own.filter(|one| text(one, "type") == Some("PLAINTEXT"));
        all.extend(own.filter_map(|one| Some((text(one, "name")?.to_owned(), text(one, "value")?.to_owned()))));
        all.extend(self.secrets.clone());
        for (name, value) in [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{endpoint}{role}")),
            ("AWS_DEFAULT_REGION", region.clone()),
            // The real platform needs no such hint: its services are where the region says.
            ("AWS_ENDPOINT_URL", endpoint.clone()),
            ("AWS_EXECUTION_ENV", "AWS_ECS_EC2".to_owned()),
            ("AWS_REGION", region.clone()),
            ("CODEBUILD_BUILD_ARN", build.project.resource("build", &build.id)),
            ("CODEBUILD_BUILD_ID", build.id.clone()),
            ("CODEBUILD_BUILD_IMAGE", text(&build.definition["environment"], "image").unwrap_or_default().to_owned()),
            ("CODEBUILD_BUILD_NUMBER", build.number.to_string()),
            ("CODEBUILD_CI", "true".to_owned()),
            ("CODEBUILD_INITIATOR", build.initiator.clone()),
            ("CODEBUILD_LOG_PATH", stream),
            ("CODEBUILD_LOG_GROUP", group),
            ("CODEBUILD_PROJECT_ARN", build.project.arn()),
            ("CODEBUILD_SOURCE_REPO_URL", text(source, "location").unwrap_or_default().to_owned()),
            ("CODEBUILD_SOURCE_VERSION", text(&build.definition, "sourceVersion").unwrap_or_default().to_owned()),
            ("CODEBUILD_SRC_DIR", format!("{SOURCE}/src")),
            ("CODEBUILD_START_TIME", build.begun_ms.to_string()),
        ] {
            all.insert(name.to_owned(), value);
        }
        all
    }
}

/// Enters the begin or the end of a phase into the record.
fn enter(record: &mut BuildRecord, mark: PhaseMark, spec: &Buildspec) {
    match mark {
        PhaseMark::Begin(phase) => record.begin(&phase),
        PhaseMark::End { code: 0, .. } => record.end("SUCCEEDED", None),
        PhaseMark::End { phase, code, command } => {
            let commands = spec.phases.iter().find(|known| known.name.eq_ignore_ascii_case(&phase));
            let command = commands.and_then(|known| known.commands.get(command)).map_or("", |text| text.trim_end());
            let message = format!("Error while executing command: {command}. Reason: exit status {code}");
            record.end("FAILED", Some(("COMMAND_EXECUTION_ERROR".to_owned(), message)));
        }
    }
}
