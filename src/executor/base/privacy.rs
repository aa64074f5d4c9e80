//! Keeps other processes of the same user from this process's environment and memory: they hold AWS credentials and the job's
//! variables, and host stages run the scripts of jobs as that user.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Closes `/proc/<pid>` of this process to all but root, and writes no core file. Child processes write no core file either; their
/// `/proc` is open as usual.
pub fn protect_process() {
    let core = Rlimit { current: Some(0), ..getrlimit(Resource::Core) };
    let done = set_dumpable_behavior(DumpableBehavior::NotDumpable).and_then(|()| setrlimit(Resource::Core, core));
    if let Err(error) = done {
        tracing::warn!(%error, "failed to close this process to others of its user");
    }
}
