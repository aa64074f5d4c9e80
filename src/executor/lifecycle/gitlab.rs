//! The project in GitLab that a job belongs to, from the job's predefined variables, and what to change when GitLab refuses a call.

use std::path::PathBuf;
use std::sync::Arc;

use super::CommandInputs;
use crate::base::exit_codes;
use crate::base::failure::Failure;
use crate::config::env::Environment;
use crate::gitlab::api::{GitLabAccess, GitLabApi, GitLabError, GitLabErrorKind, GitLabToken};

/// Default of `--token-env`: the variable with a project access token.
pub const TOKEN_VARIABLE: &str = "GITLAB_TOKEN";
const JOB_TOKEN_VARIABLE: &str = "CI_JOB_TOKEN";
/// GitLab's message when a rule protects a package of this name.
const PROTECTED_PACKAGE: &str = "Package protected";
const PROTECTION_RULE: &str = "a rule of the project protects packages of this name: let a user start the pipeline who has the \
    rule's minimum access level for push, or change the rule (Settings > Packages and registries > Package registry > Protected \
    packages), or choose another name with `--registry-package`";

/// A part of GitLab's API. The hints differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitLabWork {
    /// Files of the package registry.
    Packages,
    /// Releases, their links, and tags.
    Releases,
    /// Notes of merge requests.
    Notes,
}

/// The project of this job, with one token.
#[derive(Debug, Clone)]
pub struct GitLabProject {
    pub access: GitLabAccess,
    /// Name of the variable with the token.
    token_variable: String,
}

impl GitLabProject {
    /// The project with the job's own token, `CI_JOB_TOKEN`: writes packages and releases, reads tags and notes.
    ///
    /// # Errors
    /// Failures of the user that name the absent variables.
    pub fn with_job_token(env: &Environment) -> Result<Self, Failure> {
        let mut absent = absent(env);
        let token = env.get(JOB_TOKEN_VARIABLE).map(|token| GitLabToken::Job(token.trim().to_owned()));
        let Some(token) = token.filter(|_| absent.is_empty()) else {
            if env.get(JOB_TOKEN_VARIABLE).is_none() {
                absent.push(JOB_TOKEN_VARIABLE);
            }
            return Err(no_job(&absent));
        };
        Ok(Self::new(env, token, JOB_TOKEN_VARIABLE))
    }

    /// The project with an access token of a project, a group or a person. `None` when the variable is absent or empty.
    ///
    /// # Errors
    /// Failures of the user that name the absent variables of the project.
    pub fn with_access_token(env: &Environment, variable: &str) -> Result<Option<Self>, Failure> {
        let Some(token) = env.get(variable).map(str::trim).filter(|token| !token.is_empty()) else { return Ok(None) };
        let absent = absent(env);
        if !absent.is_empty() {
            return Err(no_job(&absent));
        }
        // A job may hand its own token on under another name.
        let token = match env.get(JOB_TOKEN_VARIABLE).map(str::trim) {
            Some(of_job) if of_job == token => GitLabToken::Job(token.to_owned()),
            _ => GitLabToken::Access(token.to_owned()),
        };
        Ok(Some(Self::new(env, token, variable)))
    }

    /// The project with an access token of a secret; errors name `variable`, which names the secret. `ca_file` holds more authorities:
    /// no variable names one.
    ///
    /// # Errors
    /// Failures of the user that name the absent variables of the project.
    pub fn with_secret_token(
        env: &Environment,
        token: String,
        variable: &str,
        ca_file: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let absent = absent(env);
        if !absent.is_empty() {
            return Err(no_job(&absent));
        }
        let project = Self::new(env, GitLabToken::Secret(token), variable);
        Ok(Self { access: GitLabAccess { ca_file, ..project.access }, ..project })
    }

    fn new(env: &Environment, token: GitLabToken, token_variable: &str) -> Self {
        let text = |name: &str| env.get(name).unwrap_or_default().trim().to_owned();
        let access = GitLabAccess {
            api_url: text("CI_API_V4_URL"),
            project: text("CI_PROJECT_ID"),
            token,
            ca_file: env.get("CI_SERVER_TLS_CA_FILE").map(PathBuf::from),
        };
        Self { access, token_variable: token_variable.to_owned() }
    }

    /// The client of GitLab's API. Sends no request.
    pub fn connect(&self, inputs: &CommandInputs) -> anyhow::Result<Arc<dyn GitLabApi>> {
        inputs.gitlab.gitlab(&self.access)
    }

    /// The failure of a call: its text, what to change, and the exit code.
    pub fn failure(&self, work: GitLabWork, error: GitLabError) -> Failure {
        let text = error.to_string();
        let failure = match error.kind {
            GitLabErrorKind::Throttled => Failure::verdict(exit_codes::TRY_LATER, text),
            GitLabErrorKind::TooLarge | GitLabErrorKind::Exists | GitLabErrorKind::Refused => Failure::user(text),
            GitLabErrorKind::Unauthenticated
            | GitLabErrorKind::Denied
            | GitLabErrorKind::NotFound
            | GitLabErrorKind::Invalid
            | GitLabErrorKind::Transient => Failure::system(text),
        };
        let is_job_token = matches!(self.access.token, GitLabToken::Job(_));
        let is_protected = error.kind == GitLabErrorKind::Denied && error.message.contains(PROTECTED_PACKAGE);
        let hint = if is_protected && work == GitLabWork::Packages {
            Some(PROTECTION_RULE.to_owned())
        } else {
            hint(error.kind, work, &self.token_variable, is_job_token)
        };
        let failure = match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        };
        failure.caused_by(error)
    }
}

/// Names of the project's variables that are not set.
fn absent(env: &Environment) -> Vec<&'static str> {
    ["CI_API_V4_URL", "CI_PROJECT_ID"].into_iter().filter(|name| env.get(name).is_none()).collect()
}

fn no_job(absent: &[&str]) -> Failure {
    let names = absent.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ");
    let verb = if absent.len() == 1 { "is" } else { "are" };
    Failure::user(format!("the project in GitLab is not known: {names} {verb} not set"))
        .hint(format!("run the command in a job of GitLab CI, which sets {names}"))
}

/// Says what to change after an error of this kind; `None` when the error's own text says it.
fn hint(kind: GitLabErrorKind, work: GitLabWork, variable: &str, is_job_token: bool) -> Option<String> {
    let text = match kind {
        GitLabErrorKind::Unauthenticated if is_job_token && work == GitLabWork::Notes => format!(
            "a job token cannot write notes: set `{TOKEN_VARIABLE}` to a project access token with the scope `api` and the role Reporter"
        ),
        GitLabErrorKind::Unauthenticated if is_job_token => format!(
            "`{variable}` is valid only while its job runs: run the command in a job of the project, and do not set the variable yourself"
        ),
        GitLabErrorKind::Unauthenticated => format!(
            "check `{variable}`: the token is expired, revoked, or no access token; make a project access token with the scope `api`"
        ),
        GitLabErrorKind::Denied => denied(work, variable, is_job_token),
        GitLabErrorKind::NotFound => not_found(work, variable, is_job_token),
        GitLabErrorKind::TooLarge => "raise the limit of GitLab (Admin > Settings > CI/CD > Package registry, \
            `generic_packages_max_file_size`), or of the proxy before it (`client_max_body_size` of nginx), or make the \
            package smaller with `package --embed-model`"
            .to_owned(),
        GitLabErrorKind::Throttled => {
            "run the same command again later, as `retry: {exit_codes: [75]}` in the job does".to_owned()
        }
        GitLabErrorKind::Transient => {
            "run the same command again: what is done already is not repeated; if it fails again, check \
            `CI_API_V4_URL`, and that this host reaches it: a route, DNS, or the proxy in `HTTPS_PROXY`"
                .to_owned()
        }
        GitLabErrorKind::Refused => refused(work).to_owned(),
        GitLabErrorKind::Invalid => {
            "check that `CI_API_V4_URL` is the address of GitLab's API, and that no other server answers in its place".to_owned()
        }
        GitLabErrorKind::Exists => return None,
    };
    Some(text)
}

fn refused(work: GitLabWork) -> &'static str {
    match work {
        GitLabWork::Packages => {
            "GitLab does not take this file or its name: change the name with `--registry-package`, as GitLab's message says"
        }
        GitLabWork::Releases => {
            "GitLab does not take a value of the release: the package's commit must be one of this project (`CI_PROJECT_ID`), and \
            `--tag` and `--name` must be names that it takes"
        }
        GitLabWork::Notes => "GitLab does not take the note, as its message says",
    }
}

fn denied(work: GitLabWork, variable: &str, is_job_token: bool) -> String {
    let who = if is_job_token {
        "the user who started the pipeline needs the role Developer".to_owned()
    } else {
        format!("the token in `{variable}` needs the scope `api` and the role Developer")
    };
    match work {
        GitLabWork::Packages => format!(
            "{who}, and the project's package registry must be on (Settings > General > Visibility, project features, permissions)"
        ),
        GitLabWork::Releases => format!(
            "{who}, releases must be on (Settings > General > Visibility, project features, permissions), and a \
            protected tag must allow that role to create it (Settings > Repository > Protected tags)"
        ),
        GitLabWork::Notes if is_job_token => denied(work, TOKEN_VARIABLE, false),
        GitLabWork::Notes => format!(
            "the token in `{variable}` needs the scope `api` and the role Reporter; only the author of a note can change it"
        ),
    }
}

fn not_found(work: GitLabWork, variable: &str, is_job_token: bool) -> String {
    let token = if is_job_token {
        format!(
            "that the user who started the pipeline is a member of the project; `{variable}` sees no more than that user"
        )
    } else {
        format!("that the token in `{variable}` is one of this project with the scope `api`")
    };
    let part = match work {
        GitLabWork::Packages => "the project's package registry is on",
        GitLabWork::Releases => {
            "the project's repository and releases are on; a job token lists tags from GitLab 17 on"
        }
        GitLabWork::Notes => "the merge request is one of this project",
    };
    format!("check `CI_API_V4_URL` and `CI_PROJECT_ID`, that {part}, and {token}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::{Kind, render};

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::from_pairs(pairs.iter().map(|(name, value)| (name.into(), value.into())))
    }

    const PROJECT: [(&str, &str); 2] =
        [("CI_API_V4_URL", "https://gitlab.example.com/api/v4"), ("CI_PROJECT_ID", "42")];

    #[test]
    fn a_job_has_its_project_and_its_token() {
        let more = [("CI_JOB_TOKEN", "s3cret\n"), ("CI_SERVER_TLS_CA_FILE", "/builds/ca.pem")];
        let project = GitLabProject::with_job_token(&environment(&[&PROJECT[..], &more].concat())).unwrap();
        let expected = GitLabAccess {
            api_url: "https://gitlab.example.com/api/v4".to_owned(),
            project: "42".to_owned(),
            token: GitLabToken::Job("s3cret".to_owned()),
            ca_file: Some("/builds/ca.pem".into()),
        };
        assert_eq!(project.access, expected);
        assert!(!format!("{project:?}").contains("s3cret"));
    }

    #[test]
    fn all_absent_variables_are_named_at_once() {
        let text = render(&GitLabProject::with_job_token(&environment(&[])).unwrap_err().into());
        for name in ["`CI_API_V4_URL`", "`CI_PROJECT_ID`", "`CI_JOB_TOKEN`"] {
            assert!(text.contains(name), "{text}");
        }
        let text = render(&GitLabProject::with_job_token(&environment(&PROJECT)).unwrap_err().into());
        assert!(text.contains("`CI_JOB_TOKEN` is not set") && !text.contains("CI_PROJECT_ID"), "{text}");
    }

    #[test]
    fn an_access_token_may_be_absent_but_not_its_project() {
        let token = |pairs: &[(&str, &str)]| GitLabProject::with_access_token(&environment(pairs), "NOTE_TOKEN");
        assert!(token(&PROJECT).unwrap().is_none());
        assert!(token(&[("NOTE_TOKEN", " ")]).unwrap().is_none());
        let set = ("NOTE_TOKEN", "s3cret");
        let text = render(&token(&[set]).unwrap_err().into());
        assert!(text.contains("`CI_API_V4_URL` and `CI_PROJECT_ID` are not set") && !text.contains("s3cret"), "{text}");
        let project = token(&[&PROJECT[..], &[set]].concat()).unwrap().unwrap();
        assert_eq!(project.access.token, GitLabToken::Access("s3cret".to_owned()));
        let handed_on = [set, ("CI_JOB_TOKEN", "s3cret")];
        let project = token(&[&PROJECT[..], &handed_on].concat()).unwrap().unwrap();
        assert_eq!(project.access.token, GitLabToken::Job("s3cret".to_owned()), "the header is that of a job token");
    }

    #[test]
    fn no_variable_names_an_authority_for_the_token_of_a_secret() {
        let env = environment(&[&PROJECT[..], &[("CI_SERVER_TLS_CA_FILE", "/evil/ca.pem")]].concat());
        for named in [None, Some(PathBuf::from("/etc/ca.pem"))] {
            let token = "s3cret".to_owned();
            let project = GitLabProject::with_secret_token(&env, token.clone(), "V", named.clone()).unwrap();
            assert_eq!((project.access.token, project.access.ca_file), (GitLabToken::Secret(token), named));
        }
    }

    fn failure(work: GitLabWork, kind: GitLabErrorKind, token: &GitLabToken) -> Failure {
        let env = environment(&[&PROJECT[..], &[("CI_JOB_TOKEN", "j"), ("NOTE_TOKEN", "a")]].concat());
        let project = match token {
            GitLabToken::Job(_) => GitLabProject::with_job_token(&env).unwrap(),
            GitLabToken::Access(_) | GitLabToken::Secret(_) => {
                GitLabProject::with_access_token(&env, "NOTE_TOKEN").unwrap().unwrap()
            }
        };
        project.failure(work, GitLabError { kind, operation: "x".to_owned(), message: "y".to_owned() })
    }

    #[test]
    fn a_failure_says_what_to_change() {
        use GitLabErrorKind::{Denied, Invalid, NotFound, Refused, Throttled, TooLarge, Transient, Unauthenticated};
        let (job, access) = (GitLabToken::Job(String::new()), GitLabToken::Access(String::new()));
        let cases: [(GitLabWork, GitLabErrorKind, &GitLabToken, &[&str]); 13] = [
            (GitLabWork::Packages, Unauthenticated, &job, &["`CI_JOB_TOKEN`", "while its job runs"]),
            (GitLabWork::Notes, Unauthenticated, &job, &["`GITLAB_TOKEN`", "`api`"]),
            (GitLabWork::Notes, Unauthenticated, &access, &["`NOTE_TOKEN`", "expired"]),
            (GitLabWork::Packages, Denied, &job, &["Developer", "package registry"]),
            (GitLabWork::Releases, Denied, &access, &["`NOTE_TOKEN`", "`api`", "Protected tags"]),
            (GitLabWork::Notes, Denied, &job, &["`GITLAB_TOKEN`", "Reporter"]),
            (GitLabWork::Releases, NotFound, &job, &["`CI_PROJECT_ID`", "GitLab 17"]),
            (GitLabWork::Packages, TooLarge, &job, &["generic_packages_max_file_size", "client_max_body_size"]),
            (GitLabWork::Packages, Throttled, &job, &["again later"]),
            (GitLabWork::Packages, Refused, &job, &["`--registry-package`"]),
            (GitLabWork::Releases, Refused, &job, &["commit", "`--tag`"]),
            (GitLabWork::Releases, Invalid, &job, &["`CI_API_V4_URL`"]),
            (GitLabWork::Packages, Transient, &job, &["`CI_API_V4_URL`", "`HTTPS_PROXY`"]),
        ];
        for (work, kind, token, expected) in cases {
            let text = render(&failure(work, kind, token).into());
            assert!(text.starts_with("error: failed to x: y\n  hint: ") && !text.contains("because"), "{text}");
            for part in expected {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }

    #[test]
    fn a_protected_package_names_its_rule() {
        let env = environment(&[&PROJECT[..], &[("CI_JOB_TOKEN", "j")]].concat());
        let message = "HTTP 403: Package protected.".to_owned();
        let error = GitLabError { kind: GitLabErrorKind::Denied, operation: "upload a".to_owned(), message };
        let failure = GitLabProject::with_job_token(&env).unwrap().failure(GitLabWork::Packages, error);
        let text = render(&failure.into());
        assert!(text.contains("> Protected packages") && !text.contains("must be on"), "{text}");
    }

    #[test]
    fn an_error_that_may_pass_has_its_exit_code() {
        let kind = |kind| failure(GitLabWork::Packages, kind, &GitLabToken::Job(String::new())).kind;
        assert_eq!(kind(GitLabErrorKind::Throttled), Kind::Verdict { code: exit_codes::TRY_LATER });
        assert_eq!(kind(GitLabErrorKind::TooLarge), Kind::User);
        assert_eq!(kind(GitLabErrorKind::Refused), Kind::User);
        assert_eq!(kind(GitLabErrorKind::Denied), Kind::System);
    }
}
