//! The program that makes the sandbox: bubblewrap, from the `PATH`, or the copy that packages of this program keep for it.

use rustix::fs::{Access, access};

/// The name to look for in the `PATH`.
pub(super) const BUBBLEWRAP: &str = "bwrap";
/// A copy of it, which only root and the group of GitLab Runner may execute, and which a profile lets make user namespaces:
/// `runner-config/package/apparmor`. The profile is not for the program that all users have.
const COPY: &str = "/usr/lib/sagemaker-executor/bwrap";

/// The program to start: the copy where this user may execute it.
pub(super) fn program() -> &'static str {
    chosen(COPY)
}

fn chosen(copy: &'static str) -> &'static str {
    if access(copy, Access::EXEC_OK).is_ok() { copy } else { BUBBLEWRAP }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_can_be_executed_is_taken() {
        assert_eq!(chosen("/bin/sh"), "/bin/sh");
        for other in ["/nonexistent/bwrap", "/etc/passwd"] {
            assert_eq!(chosen(other), BUBBLEWRAP);
        }
    }
}
