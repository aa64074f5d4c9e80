//! The runner's build stages: their names, where each runs, and which data it needs.

use std::fmt;

/// Where a build stage runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    Host,
    Container,
}

/// A step of the runner's script sequence. Unknown names of a newer runner are kept as text, and run on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildStage {
    /// `build_script`, elsewhere called `step_script`.
    Script,
    /// `step_<name>`, today `step_release`.
    Step(String),
    AfterScript,
    Other(String),
}

impl BuildStage {
    pub fn parse(name: &str) -> Self {
        match name {
            "build_script" | "step_script" => BuildStage::Script,
            "after_script" => BuildStage::AfterScript,
            _ => match name.strip_prefix("step_") {
                Some(step) => BuildStage::Step(step.to_owned()),
                None => BuildStage::Other(name.to_owned()),
            },
        }
    }

    /// The stage of a payload step; the runner lower-cases step names.
    pub(super) fn of_step(name: &str) -> Self {
        match name {
            "script" => BuildStage::Script,
            "after_script" => BuildStage::AfterScript,
            _ => BuildStage::Step(name.to_lowercase()),
        }
    }

    pub fn placement(&self) -> Placement {
        match self {
            BuildStage::Script | BuildStage::Step(_) | BuildStage::AfterScript => Placement::Container,
            BuildStage::Other(_) => Placement::Host,
        }
    }

    /// `true` for host stages that read or write the runner's local cache.
    pub fn uses_cache(&self) -> bool {
        matches!(self, BuildStage::Other(name) if name.contains("cache"))
    }

    /// `true` for host stages that read files of the container, and so need the results first.
    pub fn reads_results(&self) -> bool {
        match self {
            BuildStage::Other(name) => {
                ["archive_cache", "upload_artifacts"].iter().any(|prefix| name.starts_with(prefix))
                    || name == "cleanup_file_variables"
            }
            BuildStage::Script | BuildStage::Step(_) | BuildStage::AfterScript => false,
        }
    }
}

impl fmt::Display for BuildStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildStage::Script => f.write_str("step_script"),
            BuildStage::Step(name) => write!(f, "step_{name}"),
            BuildStage::AfterScript => f.write_str("after_script"),
            BuildStage::Other(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placement_follows_the_name() {
        for name in ["build_script", "step_script", "step_release", "step_new", "after_script"] {
            assert_eq!(BuildStage::parse(name).placement(), Placement::Container, "{name}");
        }
        for name in ["prepare_script", "get_sources", "clear_worktree", "archive_cache_on_failure", "unheard_of"] {
            assert_eq!(BuildStage::parse(name).placement(), Placement::Host, "{name}");
        }
        assert!(BuildStage::parse("upload_artifacts_on_failure").reads_results());
        assert!(!BuildStage::parse("get_sources").reads_results());
    }
}
