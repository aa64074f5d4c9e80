//! Reads in buildah's last lines why a step failed: whose fault it is, and what to change. Pure.

use crate::base::failure::Failure;

/// A step of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BuilderStep {
    Pull,
    Build,
    Push,
}

impl BuilderStep {
    /// `build the image`
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Pull => "pull a base image",
            Self::Build => "build the image",
            Self::Push => "push the image",
        }
    }
}

/// Why a step failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// A registry, or the way to it, does not answer.
    Network,
    /// The registry does not take the credentials, or they lack a permission.
    Denied,
    /// There is no such repository or image.
    Absent,
    /// The tag is of another image, and cannot be moved.
    Taken,
    /// The certificate of a registry is of an authority that nobody named.
    Untrusted,
    /// The folder of the build has no room.
    Full,
    Other,
}

/// Words of errors of buildah and of registries, in the order in which they are looked for.
const WORDS: [(Cause, &[&str]); 6] = [
    (Cause::Taken, &["tag invalid", "tag is immutable", "ImageTagAlreadyExists"]),
    (Cause::Full, &["no space left on device", "disk quota exceeded"]),
    (Cause::Untrusted, &["x509:"]),
    (Cause::Denied, &["denied", "unauthorized", "Not Authorized", "authentication required", "403 Forbidden"]),
    (Cause::Absent, &["name unknown", "manifest unknown", "RepositoryNotFound", "repository does not exist"]),
    (
        Cause::Network,
        &[
            "dial tcp",
            "i/o timeout",
            "TLS handshake",
            "connection refused",
            "connection reset",
            "no such host",
            "toomanyrequests",
            "unexpected EOF",
            "received unexpected HTTP status: 5",
            "500 Internal Server Error",
            "502 Bad Gateway",
            "503 Service Unavailable",
        ],
    ),
];

/// The cause in the last error. Lines of the Dockerfile's own programs come before it, and say nothing about registries.
fn cause(step: BuilderStep, last: &[String]) -> Cause {
    let Some(error) = last.iter().rev().find(|line| line.starts_with("Error: ")) else { return Cause::Other };
    // A failed `RUN` may tell anything.
    if step == BuilderStep::Build && error.starts_with("Error: building at STEP \"RUN ") {
        return Cause::Other;
    }
    let has = |words: &[&str]| words.iter().any(|word| error.contains(word));
    WORDS.iter().find(|(_, words)| has(words)).map_or(Cause::Other, |(cause, _)| *cause)
}

/// Tells that a push failed because another image has the tag.
pub(super) fn is_taken(error: &anyhow::Error) -> bool {
    error.chain().any(<dyn std::error::Error>::is::<TagTaken>)
}

/// The tag of a push is of another image.
#[derive(Debug, thiserror::Error)]
#[error("the tag is of another image, and cannot be moved")]
struct TagTaken;

/// The error of a step; it quotes the last lines, unless they were shown.
pub(super) fn failure(step: BuilderStep, repository: &str, last: &[String], is_shown: bool) -> anyhow::Error {
    let verb = step.verb();
    let failure = match (cause(step, last), step) {
        (Cause::Network, _) => Failure::system(format!("failed to {verb}: a registry did not answer"))
            .hint("run the job again; if it stays so, check the runner's way to the registry that the lines name, `HTTPS_PROXY` and `SSL_CERT_FILE`"),
        (Cause::Denied, BuilderStep::Push) => Failure::user(format!("failed to {verb}: the registry refused it"))
            .hint(format!("let the job's role have the actions of `runner-config/iam/lifecycle/image-build.json` on the repository {repository}; its repository policy must allow them too")),
        (Cause::Denied, _) => Failure::user(format!("failed to {verb}: the registry of a base image refused it"))
            .hint("let the job's role have `ecr:BatchGetImage` and `ecr:GetDownloadUrlForLayer` on the repository of the base image; for a registry elsewhere set `DOCKER_AUTH_CONFIG`"),
        (Cause::Absent, BuilderStep::Push) => Failure::user(format!("failed to {verb}: the registry has no repository {repository}"))
            .hint("create the repository, or change `image.repository` in the manifest"),
        (Cause::Absent, _) => Failure::user(format!("failed to {verb}: there is no such base image, or no repository for `image.cache`"))
            .hint("change `image.args.BASE_IMAGE` in the manifest, or the `FROM` that the lines name, to an image that is there; `image.cache` to a repository that is there"),
        (Cause::Taken, _) => Failure::user(format!("failed to {verb}: the tag is of another image, and {repository} keeps its tags"))
            .caused_by(TagTaken),
        (Cause::Untrusted, _) => Failure::user(format!("failed to {verb}: the certificate of a registry is not trusted"))
            .hint("set `SSL_CERT_FILE` to a file with the certificate of the authority: `--ca-bundle` is for AWS alone"),
        (Cause::Full, _) => Failure::system(format!("failed to {verb}: there is no room for it"))
            .hint("set `TMPDIR` to a folder with more room, outside of the context: it needs several times the size of the image"),
        (Cause::Other, BuilderStep::Build) => Failure::user("the image does not build")
            .hint("the lines above end with the step of the Dockerfile that failed"),
        (Cause::Other, _) => Failure::system(format!("failed to {verb}")).hint("see what buildah says"),
    };
    let quote = (!is_shown && !last.is_empty()).then(|| last.join("\n"));
    failure.quoting(quote).into()
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::base::failure::{self, Kind};

    // Lines of buildah 1.28.
    #[test_case(BuilderStep::Build, "Error: building at STEP \"RUN exit 7\": exit status 7", Cause::Other; "step")]
    #[test_case(BuilderStep::Build, "Error: building at STEP \"RUN echo denied: dial tcp\": exit status 1", Cause::Other; "step with words")]
    #[test_case(BuilderStep::Build, "Error: no FROM statement found", Cause::Other; "no dockerfile")]
    #[test_case(BuilderStep::Build, "Error: creating build container: initializing source docker://r.example/base:1: reading manifest 1 in 127.0.0.1:1/base: manifest unknown: Requested image not found", Cause::Absent; "no base")]
    #[test_case(BuilderStep::Build, "Error: failed pushing cache to r: writing blob: initiating layer upload to /v2/a/blobs/uploads/ in r: name unknown: The repository with name 'a' does not exist", Cause::Absent; "no cache")]
    #[test_case(BuilderStep::Pull, "Error: initializing source docker://127.0.0.1:9/a:1: pinging container registry 127.0.0.1:9: Get \"https://127.0.0.1:9/v2/\": dial tcp 127.0.0.1:9: connect: connection refused", Cause::Network; "no answer")]
    #[test_case(BuilderStep::Push, "Error: pushing image \"sha256:0\" to \"docker://r/a:1\": writing manifest: uploading manifest 1 to r/a: denied: User is not authorized to perform: ecr:PutImage", Cause::Denied; "denied")]
    #[test_case(BuilderStep::Push, "Error: pushing image \"sha256:0\" to \"docker://r/a:1\": writing manifest: uploading manifest 1 to r/a: tag invalid: The image tag '1' already exists in the 'a' repository and cannot be overwritten because the tag is immutable.", Cause::Taken; "taken")]
    #[test_case(BuilderStep::Pull, "Error: initializing source docker://r.example/a:1: pinging container registry r.example: Get \"https://r.example/v2/\": x509: certificate signed by unknown authority", Cause::Untrusted; "authority")]
    #[test_case(BuilderStep::Build, "Error: writing blob: storing blob to file \"/t/storage/1\": write /t/storage/1: no space left on device", Cause::Full; "no room")]
    #[test_case(BuilderStep::Push, "nothing", Cause::Other; "no error")]
    fn the_last_error_has_a_cause(step: BuilderStep, line: &str, expected: Cause) {
        let last = ["denied: dial tcp".to_owned(), line.to_owned()];
        assert_eq!(cause(step, &last), expected);
    }

    #[test]
    fn only_what_may_pass_is_a_failure_of_the_system() {
        let of = |step, line: &str| failure(step, "train", &[format!("Error: {line}")], false);
        assert_eq!(failure::kind_of(&of(BuilderStep::Pull, "i/o timeout")), Kind::System);
        assert_eq!(failure::kind_of(&of(BuilderStep::Build, "no space left on device")), Kind::System);
        for line in ["denied", "x509: no", "name unknown", "tag invalid"] {
            assert_eq!(failure::kind_of(&of(BuilderStep::Push, line)), Kind::User, "{line}");
        }
        assert!(is_taken(&of(BuilderStep::Push, "tag invalid")) && !is_taken(&of(BuilderStep::Push, "denied")));
        assert!(failure::render(&of(BuilderStep::Push, "denied")).ends_with("\nError: denied"));
    }
}
