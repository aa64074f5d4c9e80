//! Builds on the fake of CodeBuild, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::clock::HostClock;
use crate::base::failure::{self, Kind};
use crate::cloud::testing::{BuildFate, Memory};
use crate::cloud::{Access, ImageBuilds as _};
use crate::config::env::Environment;
use crate::gitlab::api::testing::MemoryGitLabConnect;
use crate::lifecycle::image::source_zip::SourceLimits;
use crate::lifecycle::manifest::Manifest;
use crate::lifecycle::pipeline::Pipeline;
use crate::ui::Captured;

const ROLE: &str = "arn:aws:iam::123456789012:role/build";

/// A project with a Dockerfile, and an account.
struct Desk {
    folder: tempfile::TempDir,
    memory: Memory,
    entry: CodeBuildEntry,
}

/// How a command ended.
struct Ended {
    result: anyhow::Result<BuildSight>,
    said: String,
}

impl Ended {
    #[track_caller]
    fn refused(&self, kind: Kind, part: &str) {
        let error = self.result.as_ref().unwrap_err();
        let text = failure::render(error);
        assert!(text.contains(part) && text.contains("hint:"), "{text}\n{}", self.said);
        assert_eq!(failure::kind_of(error), kind, "{text}");
    }
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        for arguments in [["init", "--quiet"], ["add", "."]] {
            let mut command = std::process::Command::new("git");
            command.arg("-C").arg(folder.path()).args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null");
            assert!(command.status().unwrap().success());
        }
        let entry = CodeBuildEntry { role: Some(ROLE.to_owned()), ..CodeBuildEntry::default() };
        Self { folder, memory: Memory::new(), entry }
    }

    fn target(&self) -> ProjectTarget {
        let mut manifest = Manifest::default();
        manifest.target.account = Some("123456789012".to_owned());
        manifest.target.bucket = Some("bucket".to_owned());
        ProjectTarget {
            manifest,
            folder: self.folder.path().to_owned(),
            environment: Some("staging".to_owned()),
            pipeline: Pipeline { project: Some("group/wine".to_owned()), ..Pipeline::default() },
            access: Access::default(),
        }
    }

    async fn build(&self, cancellation: &Cancellation) -> Ended {
        let (printer, captured): (Printer, Captured) = Printer::captured();
        let path = Environment::of_process().path().into();
        let env = Environment::from_pairs([("PATH".into(), path)]);
        let limits = SourceLimits { bytes: 1 << 20, files: 100 };
        let source = Arc::new(ProjectSource::read(self.folder.path(), &env, limits).unwrap());
        let inputs = CommandInputs {
            env,
            connect: Arc::new(self.memory.clone()),
            gitlab: Arc::new(MemoryGitLabConnect::default()),
            clock: Arc::new(HostClock),
            printer,
        };
        let args = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let order = BuildOrder {
            repository_uri: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/train",
            tag: "context-1",
            dockerfile: "Dockerfile",
            context: ".",
            target: None,
            args: &args,
        };
        let result = build(&inputs, &self.target(), &self.entry, &source, &order, cancellation).await;
        Ended { result, said: captured.text() }
    }

    fn plan(&self, looks: usize, state: BuildState, reason: &str) {
        let phases = vec![BuildPhase {
            name: "BUILD".to_owned(),
            has_succeeded: Some(state == BuildState::Succeeded),
            seconds: Some(3),
            reasons: Some(reason.to_owned()).filter(|reason| !reason.is_empty()).into_iter().collect(),
        }];
        let lines = vec!["one\n".to_owned(), "\u{1b}[2Jtwo".to_owned()];
        self.memory.builds.plan(BuildFate { looks, state, phases, lines });
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_build_makes_the_project_and_the_second_sends_and_changes_nothing() {
    let desk = Desk::new();
    desk.plan(2, BuildState::Succeeded, "");
    let first = desk.build(&Cancellation::default()).await;
    assert_eq!(first.result.unwrap().id, "group-wine:1");
    assert_eq!(desk.memory.builds.writes(), ["create group-wine", "start group-wine"]);
    assert!(first.said.contains("Sent the source of 1 files") && first.said.contains("one\n"), "{}", first.said);
    assert!(!first.said.contains('\u{1b}') && first.said.contains("Phase BUILD done in 3 s"), "{}", first.said);
    let second = desk.build(&Cancellation::default()).await;
    assert_eq!(second.result.unwrap().id, "group-wine:2");
    assert_eq!(desk.memory.builds.writes()[2..], ["start group-wine"]);
    assert!(second.said.contains("nothing is sent"), "{}", second.said);
}

#[tokio::test(start_paused = true)]
async fn a_project_that_differs_is_changed_and_that_of_another_is_refused() {
    let mut desk = Desk::new();
    desk.build(&Cancellation::default()).await.result.unwrap();
    desk.entry.timeout_minutes = 10;
    desk.build(&Cancellation::default()).await.result.unwrap();
    assert_eq!(desk.memory.builds.writes()[2..], ["update group-wine", "start group-wine"]);
    let mut project = desk.memory.builds.project("group-wine").await.unwrap().unwrap();
    project.tags.clear();
    desk.memory.builds.set_project(project);
    desk.build(&Cancellation::default()).await.refused(Kind::User, "is not of this GitLab project");
    assert_eq!(desk.memory.builds.writes().len(), 4, "nothing is changed");
}

#[tokio::test(start_paused = true)]
async fn each_end_of_a_build_has_its_words_and_its_kind() {
    for (state, kind, part) in [
        (BuildState::Failed, Kind::User, "failed in the phase BUILD: exit status 7"),
        (BuildState::TimedOut, Kind::User, "timeout_minutes"),
        (BuildState::Fault, Kind::System, "could not run"),
        (BuildState::Stopped, Kind::User, "was stopped in AWS"),
    ] {
        let desk = Desk::new();
        desk.plan(0, state, "exit status 7");
        desk.build(&Cancellation::default()).await.refused(kind, part);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_build_is_built_again() {
    let desk = Desk::new();
    desk.plan(0, BuildState::Failed, "");
    desk.build(&Cancellation::default()).await.refused(Kind::User, "failed");
    assert_eq!(desk.build(&Cancellation::default()).await.result.unwrap().id, "group-wine:2");
}

#[tokio::test(start_paused = true)]
async fn a_signal_stops_the_build_and_so_does_a_build_without_an_end() {
    let desk = Desk::new();
    desk.plan(usize::MAX, BuildState::Succeeded, "");
    let cancellation = Cancellation::default();
    let signal = async {
        while desk.memory.builds.writes().len() < 2 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        cancellation.raise();
    };
    let (ended, ()) = tokio::join!(desk.build(&cancellation), signal);
    ended.refused(Kind::Canceled, "the build group-wine:1 is stopped");
    desk.plan(usize::MAX, BuildState::Succeeded, "");
    desk.build(&Cancellation::default()).await.refused(Kind::User, "did not end within 135 minutes");
    assert_eq!(
        desk.memory.builds.writes()[1..],
        ["start group-wine", "stop group-wine:1", "start group-wine", "stop group-wine:2"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_build_of_the_same_content_is_joined_and_never_stopped_by_another_job() {
    let desk = Desk::new();
    desk.plan(5, BuildState::Succeeded, "");
    let (one, other) = (Cancellation::default(), Cancellation::default());
    let (one, other) = tokio::join!(desk.build(&one), desk.build(&other));
    assert_eq!((one.result.unwrap().id, other.result.unwrap().id), ("group-wine:1".into(), "group-wine:1".into()));
    desk.plan(usize::MAX, BuildState::Succeeded, "");
    let (first, second) = (Cancellation::default(), Cancellation::default());
    let late = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        second.raise();
        desk.build(&second).await
    };
    let stopping = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        first.raise();
    };
    let (first, second, ()) = tokio::join!(desk.build(&first), late, stopping);
    second.refused(Kind::Canceled, "which another job started, goes on");
    first.refused(Kind::Canceled, "is stopped");
    let starts = desk.memory.builds.writes().iter().filter(|call| call.starts_with("start")).count();
    assert_eq!(starts, 2);
}

#[tokio::test(start_paused = true)]
async fn what_the_build_lacks_is_told_before_anything_is_made() {
    let mut desk = Desk::new();
    desk.entry.buildspec = Some("ci/build.yml".to_owned());
    desk.build(&Cancellation::default()).await.refused(Kind::User, "git tracks no file ci/build.yml");
    desk.entry = CodeBuildEntry::default();
    desk.build(&Cancellation::default()).await.refused(Kind::User, "no role is named");
    assert_eq!(desk.memory.builds.writes(), Vec::<String>::new());
}
