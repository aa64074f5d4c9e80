//! CodeBuild: projects whose source is in S3, and builds that run shell buildspecs in containers of this machine.
//!
//! `records.rs` holds what exists; `projects.rs` and `builds.rs` are the operations. `life.rs` runs a build: `source.rs` unpacks its source,
//! `buildspec.rs` reads its commands, `script.rs` makes one script of them, `marks.rs` finds in the output where its phases begin and end, and
//! `mask.rs` hides secrets in it.

mod builds;
mod buildspec;
mod life;
mod marks;
mod mask;
mod projects;
mod records;
mod role;
mod script;
mod source;
mod variables;

pub(crate) use self::records::CodeBuild;
use crate::model::Model;
use crate::service::{JsonService, Operation};

impl JsonService for CodeBuild {
    const SIGNING_NAME: &'static str = "codebuild";
    const OPERATIONS: &'static [(&'static str, Operation<Self>)] = &[
        ("BatchGetBuilds", builds::get),
        ("BatchGetProjects", projects::get),
        ("CreateProject", projects::create),
        ("DeleteProject", projects::delete),
        ("ListBuildsForProject", builds::list),
        ("StartBuild", builds::start),
        ("StopBuild", builds::stop),
        ("UpdateProject", projects::update),
    ];
    const INVALID: &'static str = "InvalidInputException";

    fn model() -> &'static Model {
        Model::codebuild()
    }
}
