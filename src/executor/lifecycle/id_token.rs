//! The claims of a job's id token. Pure: AWS checks the signature, and nothing here proves a claim.

use base64_simd::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::hex::hex;
use crate::base::plain;
use crate::cloud::{Access, TokenClaims, WebIdentity};

/// Most bytes of a token that is read: GitLab's have about 2 KiB, and AWS takes 20,000 characters.
const MOST_BYTES: usize = 20_000;
/// Longest name of a session (STS).
const MOST_SESSION_NAME: usize = 64;
/// Longest claim in a message.
const MOST_SHOWN: usize = 300;

/// A token with the claims that it makes.
pub(crate) struct JobToken {
    identity: WebIdentity,
    user: JobUser,
}

impl JobToken {
    pub(crate) fn new(identity: WebIdentity, user: JobUser) -> Self {
        Self { identity, user }
    }

    /// Makes `access` use the token. The user is proven as soon as a port was made with it.
    pub(crate) fn work_as(self, access: &mut Access) -> JobUser {
        access.web_identity = Some(self.identity);
        self.user
    }

    /// The identity that is exchanged with AWS.
    pub(crate) fn exchanged(&self) -> &WebIdentity {
        &self.identity
    }
}

/// The user of a job, as GitLab says in its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobUser {
    /// Digits. Names can be changed, and taken by others.
    pub(crate) id: String,
    /// The begin of the hash of the token's issuer: users of two GitLab servers can have one id.
    pub(crate) issuer: String,
    pub(crate) login: String,
    pub(crate) project: String,
    pub(crate) pipeline: String,
    pub(crate) job: String,
}

impl JobUser {
    /// Tells the user from every other one.
    pub(crate) fn key(&self) -> String {
        format!("{}@{}", self.id, self.issuer)
    }
}

/// The header and the claims of a token.
pub(crate) struct JobIdToken {
    header: Value,
    claims: Value,
}

impl JobIdToken {
    /// Takes a token apart; `None` when it is none.
    pub(crate) fn parse(token: &str) -> Option<Self> {
        let mut parts = token.trim().split('.').filter(|_| token.len() <= MOST_BYTES);
        let (header, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
            return None;
        };
        let json = |part: &str| {
            let bytes = URL_SAFE_NO_PAD.decode_to_vec(part.trim_end_matches('=')).ok()?;
            serde_json::from_slice::<Value>(&bytes).ok().filter(Value::is_object)
        };
        Some(Self { header: json(header)?, claims: json(claims)? })
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.claims.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The number of the job's project in GitLab.
    pub(crate) fn project_number(&self) -> Option<String> {
        self.text("project_id")
    }

    /// The id of the key that signed it.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.header.get("kid")?.as_str()
    }

    /// The issuer as the token names it.
    pub(crate) fn issuer(&self) -> Option<String> {
        self.text("iss")
    }

    /// The user whose job it is; `None` for a token of another kind than GitLab's.
    pub(crate) fn user(&self) -> Option<JobUser> {
        // They become parts of names.
        let id = |name: &str| {
            let is_id = |id: &String| !id.is_empty() && id.len() <= 20 && id.bytes().all(|one| one.is_ascii_digit());
            self.text(name).filter(is_id)
        };
        Some(JobUser {
            id: id("user_id")?,
            issuer: hex(&Sha256::digest(self.issuer()?)[..4]),
            login: self.text("user_login")?,
            project: self.text("project_path").unwrap_or_default(),
            pipeline: id("pipeline_id")?,
            job: id("job_id")?,
        })
    }

    /// The claims for messages: printable, of bounded length.
    pub(crate) fn shown(&self) -> TokenClaims {
        let shown = |name: &str| plain::line(&self.text(name).unwrap_or_default(), MOST_SHOWN);
        let audience = match self.claims.get("aud") {
            Some(Value::Array(all)) => {
                let all: Vec<_> = all.iter().filter_map(Value::as_str).collect();
                plain::line(&all.join(", "), MOST_SHOWN)
            }
            _ => shown("aud"),
        };
        let expires = self.claims.get("exp").and_then(Value::as_u64);
        TokenClaims { issuer: shown("iss"), subject: shown("sub"), audience, expires }
    }
}

/// Name of the session in AWS's logs: project, pipeline, job and user. Of a long path the end is kept.
pub(crate) fn session_name(user: &JobUser) -> String {
    let tail = format!("-p{}-j{}-u{}", user.pipeline, user.job, user.id);
    let letter = |one: char| if one.is_ascii_alphanumeric() || "_-.".contains(one) { one } else { '.' };
    let project: Vec<_> = user.project.chars().map(letter).collect();
    let begin = "gitlab-";
    let room = MOST_SESSION_NAME.saturating_sub(begin.len() + tail.len());
    let kept: String = project.iter().skip(project.len().saturating_sub(room)).collect();
    let name = format!("{begin}{kept}{tail}");
    name.get(..MOST_SESSION_NAME).map_or(name.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode_to_string(claims.to_string()))
    }

    fn user_of(text: &str) -> Option<JobUser> {
        JobIdToken::parse(text)?.user()
    }

    #[test]
    fn the_user_is_that_of_the_claims() {
        let claims = json!({"iss": "https://gitlab.com", "user_id": "42", "user_login": "jane", "project_path": "g/p", "pipeline_id": "7", "job_id": 8});
        let user = user_of(&token(&claims)).unwrap();
        assert_eq!((user.key().as_str(), user.login.as_str(), user.job.as_str()), ("42@e7be96a5", "jane", "8"));
        assert_eq!(session_name(&user), "gitlab-g.p-p7-j8-u42");
    }

    #[test]
    fn other_texts_have_no_user() {
        let base = json!({"iss": "https://gitlab.com", "user_id": "42", "user_login": "jane", "pipeline_id": "7", "job_id": "8"});
        let with = |name: &str, value: Value| {
            let mut claims = base.clone();
            claims[name] = value;
            token(&claims)
        };
        for text in [
            String::new(),
            "glpat-abc".to_owned(),
            "a.b.c".to_owned(),
            "e30.W10.c2ln".to_owned(),
            format!("{}.more", token(&base)),
            with("user_id", json!("42 user=other")),
            with("user_id", Value::Null),
            with("iss", Value::Null),
            with("job_id", json!([1])),
            with("pipeline_id", json!("")),
            with("user_login", json!("x".repeat(MOST_BYTES))),
        ] {
            assert_eq!(user_of(&text), None, "{text}");
        }
    }

    #[test]
    fn a_session_has_a_name_that_aws_takes() {
        let long = "1".repeat(20);
        for project in ["", "group/with+odd letters\u{e9}\n/project", &"deep/".repeat(100)] {
            for id in ["7", &long] {
                let user = JobUser {
                    id: id.to_owned(),
                    issuer: String::new(),
                    login: String::new(),
                    project: project.to_owned(),
                    pipeline: id.to_owned(),
                    job: id.to_owned(),
                };
                let name = session_name(&user);
                let is_name = |one: u8| one.is_ascii_alphanumeric() || b"_+=,.@-".contains(&one);
                assert!(name.len() <= 64 && name.bytes().all(is_name), "{name}");
            }
        }
    }

    #[test]
    fn claims_are_shown_without_control_characters() {
        let claims =
            json!({"iss": "https://g.example", "sub": "project_path:g/p\u{1b}[2J\n", "aud": ["a", "b"], "exp": 100});
        let shown = JobIdToken::parse(&token(&claims)).unwrap().shown();
        assert_eq!((shown.audience.as_str(), shown.expires), ("a, b", Some(100)));
        assert!(!shown.subject.contains(['\u{1b}', '\n']), "{:?}", shown.subject);
    }
}
