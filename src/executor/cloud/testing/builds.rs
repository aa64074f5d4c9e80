//! Fake of builds of images: projects and builds in maps, which end as a test plans.

use std::collections::{BTreeMap, VecDeque};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::cloud::{
    BuildLog, BuildLogPage, BuildPhase, BuildProject, BuildRequest, BuildSight, BuildState, CloudError, CloudErrorKind,
    ImageBuilds,
};

/// Builds in memory.
#[derive(Debug, Default)]
pub struct MemoryBuilds(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    projects: BTreeMap<String, BuildProject>,
    /// In the order of their starts, each with what is left to happen.
    builds: Vec<(BuildSight, BuildFate)>,
    tokens: BTreeMap<String, String>,
    fates: VecDeque<BuildFate>,
    calls: Vec<String>,
}

/// The course of a build.
#[derive(Debug, Clone)]
pub struct BuildFate {
    /// Looks until it has ended; `usize::MAX` for never.
    pub looks: usize,
    pub state: BuildState,
    pub phases: Vec<BuildPhase>,
    /// Lines of its log.
    pub lines: Vec<String>,
}

impl Default for BuildFate {
    fn default() -> Self {
        Self { looks: 1, state: BuildState::Succeeded, phases: Vec::new(), lines: Vec::new() }
    }
}

impl MemoryBuilds {
    /// Plans the next build that has no plan yet.
    pub fn plan(&self, fate: BuildFate) {
        self.0.lock().fates.push_back(fate);
    }

    pub fn set_project(&self, project: BuildProject) {
        self.0.lock().projects.insert(project.name.clone(), project);
    }

    /// The calls that write, in their order.
    pub fn writes(&self) -> Vec<String> {
        self.0.lock().calls.clone()
    }
}

fn absent(operation: &str) -> CloudError {
    CloudError {
        kind: CloudErrorKind::NotFound,
        operation: operation.to_owned(),
        message: "ResourceNotFoundException".to_owned(),
        action: "",
    }
}

#[async_trait]
impl ImageBuilds for MemoryBuilds {
    async fn project(&self, name: &str) -> Result<Option<BuildProject>, CloudError> {
        Ok(self.0.lock().projects.get(name).cloned())
    }

    async fn create_project(&self, project: &BuildProject) -> Result<(), CloudError> {
        let mut state = self.0.lock();
        state.calls.push(format!("create {}", project.name));
        state.projects.insert(project.name.clone(), project.clone());
        Ok(())
    }

    async fn update_project(&self, project: &BuildProject) -> Result<(), CloudError> {
        let mut state = self.0.lock();
        state.calls.push(format!("update {}", project.name));
        state.projects.insert(project.name.clone(), project.clone());
        Ok(())
    }

    async fn start(&self, request: &BuildRequest) -> Result<String, CloudError> {
        let mut state = self.0.lock();
        if !state.projects.contains_key(&request.project) {
            return Err(absent("start a build"));
        }
        if let Some(id) = state.tokens.get(&request.token) {
            return Ok(id.clone());
        }
        state.calls.push(format!("start {}", request.project));
        let number = state.builds.len() + 1;
        let id = format!("{}:{number}", request.project);
        let sight = BuildSight {
            id: id.clone(),
            number: u64::try_from(number).ok(),
            state: BuildState::Running,
            phases: Vec::new(),
            source: request.source.clone(),
            variables: request.variables.clone(),
            log: Some(BuildLog { group: "builds".to_owned(), stream: id.clone() }),
        };
        let fate = state.fates.pop_front().unwrap_or_default();
        state.builds.push((sight, fate));
        state.tokens.insert(request.token.clone(), id.clone());
        Ok(id)
    }

    async fn newest(&self, project: &str, most: usize) -> Result<Vec<BuildSight>, CloudError> {
        let state = self.0.lock();
        let of_project = state.builds.iter().rev().filter(|(sight, _)| sight.id.starts_with(&format!("{project}:")));
        Ok(of_project.take(most).map(|(sight, _)| sight.clone()).collect())
    }

    async fn sight(&self, id: &str) -> Result<Option<BuildSight>, CloudError> {
        let mut state = self.0.lock();
        let Some((sight, fate)) = state.builds.iter_mut().find(|(sight, _)| sight.id == id) else { return Ok(None) };
        if sight.state == BuildState::Running {
            if fate.looks == 0 {
                sight.state = fate.state;
                sight.phases.clone_from(&fate.phases);
            } else if fate.looks != usize::MAX {
                fate.looks -= 1;
            }
        }
        Ok(Some(sight.clone()))
    }

    async fn stop(&self, id: &str) -> Result<(), CloudError> {
        let mut state = self.0.lock();
        state.calls.push(format!("stop {id}"));
        let found = state.builds.iter_mut().find(|(sight, _)| sight.id == id).ok_or_else(|| absent("stop a build"))?;
        if found.0.state == BuildState::Running {
            found.0.state = BuildState::Stopped;
        }
        Ok(())
    }

    /// All lines are on the first page.
    async fn log(&self, place: &BuildLog, token: Option<&str>) -> Result<BuildLogPage, CloudError> {
        let state = self.0.lock();
        let found = state.builds.iter().find(|(sight, _)| sight.id == place.stream);
        let lines = found.map(|(_, fate)| fate.lines.clone()).filter(|_| token.is_none()).unwrap_or_default();
        Ok(BuildLogPage { messages: lines, token: Some("end".to_owned()) })
    }
}
