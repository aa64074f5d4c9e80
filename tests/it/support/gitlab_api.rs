//! A double of GitLab's API: packages, tags, releases and notes of one project, as GitLab 17 answers them.
//!
//! It listens on a loopback port inside the test process and keeps everything in memory. Tokens have the rights that GitLab gives
//! them ([`TokenKind`]), [`ProjectSettings`] are those of the project and its server, and [`ApiFault`] plans failures. It records the
//! requests, without tokens.

mod faults;
mod http;
mod notes;
mod packages;
mod releases;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

pub(crate) use faults::{ApiFault, FaultEffect};
pub(crate) use notes::StoredNote;
pub(crate) use packages::StoredFile;
pub(crate) use releases::StoredRelease;

/// The project's number and path.
pub(crate) const PROJECT: u64 = 42;
pub(crate) const PROJECT_PATH: &str = "group/project";
/// Tokens that the double knows from the start.
pub(crate) const JOB_TOKEN: &str = "glcbt-64_a1b2c3d4e5f6";
pub(crate) const ACCESS_TOKEN: &str = "glpat-a1b2c3d4e5f6";
pub(crate) const READ_TOKEN: &str = "glpat-read-a1b2c3d4";
pub(crate) const EXPIRED_TOKEN: &str = "glpat-old-a1b2c3d4";

/// The rights of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// In `JOB-TOKEN`: packages, releases and the list of tags; notes can be read.
    Job,
    /// In `PRIVATE-TOKEN`, with the scope `api`, of this user.
    Access {
        user: u64,
    },
    /// In `PRIVATE-TOKEN`, with the scope `read_api`.
    ReadOnly,
    Expired,
}

/// Settings of the project, and limits of its server.
#[derive(Debug, Clone)]
pub(crate) struct ProjectSettings {
    /// A package may have several files of one name.
    pub(crate) allows_duplicates: bool,
    /// GitLab's limit of a file: `generic_packages_max_file_size`.
    pub(crate) most_bytes: u64,
    /// The limit of the server before GitLab, which answers with a page.
    pub(crate) most_bytes_of_proxy: u64,
    /// Starts of the names of protected tags, which no token here may create.
    pub(crate) protected_tags: Vec<String>,
    pub(crate) has_packages: bool,
    /// Names of packages that a rule protects, which no token here may publish.
    pub(crate) protected_packages: Vec<String>,
    /// Commits that the project does not have.
    pub(crate) absent_commits: Vec<String>,
    /// Downloads are redirected to a store of objects, which takes no token.
    pub(crate) has_object_storage: bool,
    /// Requests until all are refused with 429 and this pause in seconds.
    pub(crate) rate_limit: Option<(usize, u64)>,
}

impl Default for ProjectSettings {
    fn default() -> Self {
        Self {
            allows_duplicates: true,
            most_bytes: 5 << 30,
            most_bytes_of_proxy: u64::MAX,
            protected_tags: Vec::new(),
            has_packages: true,
            protected_packages: Vec::new(),
            absent_commits: Vec::new(),
            has_object_storage: false,
            rate_limit: None,
        }
    }
}

/// A request as the double saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiRequest {
    pub(crate) method: String,
    /// Below the project, with the query: `/releases/v1`.
    pub(crate) path: String,
    /// The header of the token: `JOB-TOKEN`, `PRIVATE-TOKEN` or nothing.
    pub(crate) token_header: &'static str,
    pub(crate) status: u16,
}

#[derive(Debug, Default)]
pub(crate) struct ProjectState {
    tokens: BTreeMap<String, TokenKind>,
    settings: ProjectSettings,
    packages: Vec<packages::StoredPackage>,
    /// Commits by the names of tags.
    tags: BTreeMap<String, String>,
    releases: Vec<StoredRelease>,
    /// Notes by the numbers of merge requests.
    notes: BTreeMap<u64, Vec<StoredNote>>,
    next_id: u64,
    faults: Vec<ApiFault>,
    seen: Vec<ApiRequest>,
    /// Requests whose effect waits for this many lists of packages.
    late: Vec<(usize, tokio::sync::oneshot::Sender<()>)>,
}

impl ProjectState {
    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

#[derive(Debug)]
struct ApiShared {
    state: Mutex<ProjectState>,
    /// `http://127.0.0.1:<port>`.
    origin: String,
}

impl ApiShared {
    fn lock(&self) -> MutexGuard<'_, ProjectState> {
        self.state.lock().expect("no handler panics while it holds the state")
    }
}

/// The running double; it stops when dropped.
pub(crate) struct GitLabDouble {
    shared: Arc<ApiShared>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl GitLabDouble {
    /// Starts the double on a port that the system chooses.
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("gitlab-api-double")
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let user = 7;
        let tokens = [
            (JOB_TOKEN, TokenKind::Job),
            (ACCESS_TOKEN, TokenKind::Access { user }),
            (READ_TOKEN, TokenKind::ReadOnly),
            (EXPIRED_TOKEN, TokenKind::Expired),
        ];
        let tokens = tokens.into_iter().map(|(token, kind)| (token.to_owned(), kind)).collect();
        let state = Mutex::new(ProjectState { tokens, ..ProjectState::default() });
        let shared = Arc::new(ApiShared { state, origin });
        let router = http::router(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { shared, runtime: Some(runtime) }
    }

    /// `CI_API_V4_URL`.
    pub(crate) fn api_url(&self) -> String {
        format!("{}/api/v4", self.shared.origin)
    }

    /// The variables of a job of the project, without a token.
    pub(crate) fn variables(&self) -> [(&'static str, String); 2] {
        [("CI_API_V4_URL", self.api_url()), ("CI_PROJECT_ID", PROJECT.to_string())]
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut ProjectSettings)) {
        change(&mut self.shared.lock().settings);
    }

    pub(crate) fn plan(&self, fault: ApiFault) {
        self.shared.lock().faults.push(fault);
    }

    /// Makes a token known.
    pub(crate) fn token(&self, token: &str, kind: TokenKind) {
        self.shared.lock().tokens.insert(token.to_owned(), kind);
    }

    /// Makes a tag by hand.
    pub(crate) fn tag(&self, name: &str, commit: &str) {
        self.shared.lock().tags.insert(name.to_owned(), commit.to_owned());
    }

    /// Puts a file into the package registry by hand.
    pub(crate) fn file(&self, package: &str, version: &str, name: &str, content: &[u8]) {
        packages::put(&mut self.shared.lock(), package, version, name, content);
    }

    /// Opens a merge request with this number, without notes.
    pub(crate) fn merge_request(&self, number: u64) {
        self.shared.lock().notes.entry(number).or_default();
    }

    /// Writes a note by hand.
    pub(crate) fn note(&self, merge_request: u64, author: u64, body: &str, is_system: bool) {
        let mut state = self.shared.lock();
        let id = state.id();
        let note = StoredNote { id, author, body: body.to_owned(), is_system };
        state.notes.entry(merge_request).or_default().push(note);
    }

    /// All files of the package registry, in the order of their uploads.
    pub(crate) fn files(&self) -> Vec<StoredFile> {
        let mut files: Vec<_> = self.shared.lock().packages.iter().flat_map(|package| package.files.clone()).collect();
        files.sort_by_key(|file| file.id);
        files
    }

    pub(crate) fn releases(&self) -> Vec<StoredRelease> {
        self.shared.lock().releases.clone()
    }

    pub(crate) fn tags(&self) -> BTreeMap<String, String> {
        self.shared.lock().tags.clone()
    }

    pub(crate) fn notes(&self, merge_request: u64) -> Vec<StoredNote> {
        self.shared.lock().notes.get(&merge_request).cloned().unwrap_or_default()
    }

    pub(crate) fn requests(&self) -> Vec<ApiRequest> {
        self.shared.lock().seen.clone()
    }
}

impl Drop for GitLabDouble {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
