//! The ways of the documentation from a bare Debian 12 to a green job: the commands of the pages as they stand. With `PACKAGES` they run.

use std::path::Path;

use super::debian::{DOWNLOADS, Debian};
use super::{built, packages};
use crate::conformance::{shown, skipped};
use crate::docs::book::blocks;
use crate::support::gitlab::{GitLab, RUNNER_TOKEN, Repository};
use crate::support::job::{Artifacts, Job};
use crate::support::world::Runner;

/// The words after the fence of a block that begins on a bare Debian 12, as root.
pub(crate) const MARK: &str = "sh debian";
/// Most commands of such a block.
const MOST: usize = 10;
/// Stand for the reader's own GitLab and runner.
const PLACEHOLDERS: [&str; 2] = ["https://gitlab.acme.example", "glrt-YOURS"];

/// The one block of a page with [`MARK`].
fn way(page: &str) -> String {
    let mut marked: Vec<_> = blocks(page).into_iter().filter(|block| block.info == MARK).collect();
    assert_eq!(marked.len(), 1, "{page}");
    marked.remove(0).text
}

/// A command a line; a line that ends with a backslash goes on in the next one.
fn commands(way: &str) -> usize {
    way.replace("\\\n", "").lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count()
}

#[test]
fn the_ways_to_a_green_job_are_short() {
    for page in ["docs/INSTALL.md", "docs/TRY.md"] {
        let way = way(page);
        assert!((4..=MOST).contains(&commands(&way)), "{page}: {}", commands(&way));
    }
    for placeholder in PLACEHOLDERS {
        assert_eq!(way("docs/INSTALL.md").matches(placeholder).count(), 1, "{placeholder}");
    }
    assert_eq!(commands("# two\na \\\n  b\n\nc | d\n"), 2);
}

fn with_downloads(test: &str) -> Option<Debian> {
    let Some(folder) = packages() else {
        skipped(test, "PACKAGES names no folder of `.ci/package`");
        return None;
    };
    let debian = Debian::bare(test)?;
    debian.download(&built(&folder, ".deb"));
    debian.download(&built(&folder, &format!("with-emulator-{}-x86", env!("CARGO_PKG_VERSION"))));
    Some(debian)
}

/// The package, GitLab Runner itself and its configuration as shipped, a job in the sandbox and in a container of the emulator.
#[test]
fn the_page_on_installation_leads_from_a_bare_system_to_a_green_job() {
    let test = "the way of docs/INSTALL.md";
    let Some(debian) = with_downloads(test) else { return };
    let Some(Runner::Real(runner)) = Runner::real() else { return skipped(test, "no gitlab-runner on PATH") };
    debian.download(Path::new(&runner));
    let gitlab = GitLab::start();
    let repository = Repository::create(gitlab.repositories(), "ml/churn");
    let sha = repository.commit("main", &[("README.md", "A project\n")]);
    // The smallest job of docs/FIRST-JOB.md.
    let hello = Job::new().named("hello").image("123456789012.dkr.ecr.eu-west-1.amazonaws.com/train:2.4");
    let hello = hello.sources(&repository, "main", &sha).artifacts(Artifacts::paths(["when.txt"]));
    let id = gitlab.enqueue(&hello.script(["echo \"Hello from $SM_CURRENT_HOST\"", "date > when.txt"]));
    let [address, token] = PLACEHOLDERS;
    let way = way("docs/INSTALL.md").replace(address, gitlab.url()).replace(token, RUNNER_TOKEN);
    let ended = debian.run(&format!("set -eu; cd /{DOWNLOADS}\n{way}"));
    let (trace, result, artifacts) = gitlab.question(id, |record| {
        let artifacts: Vec<_> = record.artifacts.iter().map(|artifact| artifact.kind.clone()).collect();
        (String::from_utf8_lossy(record.trace.bytes()).into_owned(), record.result.clone(), artifacts)
    });
    let all = format!("{}\n--- trace\n{trace}", shown(&ended));
    assert!(ended.status.success(), "{all}");
    assert_eq!(result.map(|update| update.state).as_deref(), Some("success"), "{all}");
    assert!(trace.contains("\nHello from algo-1\n") && artifacts == ["archive"], "{artifacts:?} {all}");
    assert!(debian.ok("sagemaker-executor --version").contains("without emulator"));
}

/// Nothing but the tarball with the emulator.
#[test]
fn the_page_of_five_minutes_leads_from_a_bare_system_to_a_job() {
    let Some(debian) = with_downloads("the way of docs/TRY.md") else { return };
    let told = debian.ok(&format!("set -eu; cd /{DOWNLOADS}\n{}\ncat when.txt", way("docs/TRY.md")));
    assert!(told.contains("\nhello\n") && told.contains("exit code 0"), "{told}");
}
