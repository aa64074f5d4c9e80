//! Refuses cache keys that the runner's shell would run.

use crate::base::failure::Failure;
use crate::gitlab::JobContext;

/// Refuses cache keys that would run as commands. The runner writes the key into an unquoted here-document, where the
/// host's shell runs `$(...)` and backquotes, in the key itself or in the value of a variable that it names, such as a
/// branch. `expanded` returns those values.
pub fn refuse_cache_keys(job: &JobContext, expanded: impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
    const DEFAULT: &str = "$CI_JOB_NAME/$CI_COMMIT_REF_NAME";
    for cache in &job.cache {
        let key = if cache.key.is_empty() { DEFAULT } else { &cache.key };
        if runs_in_a_here_document(key) {
            return Err(unsafe_key("the `key` of a cache holds `$(`, a backquote or a line break"));
        }
        for name in names_in(key) {
            if expanded(name).is_some_and(|value| runs_in_a_here_document(&value) || value.contains("${")) {
                return Err(unsafe_key(&format!(
                    "the `key` of a cache names `{name}`, whose value holds `$(`, a backquote or a line break"
                )));
            }
        }
    }
    Ok(())
}

pub fn unsafe_key(what: &str) -> Failure {
    Failure::user(format!("{what}: the runner would run it as a command on its host"))
        .hint("set `cache:key` to plain text or to variables such as `$CI_COMMIT_REF_SLUG`")
}

fn runs_in_a_here_document(text: &str) -> bool {
    ["`", "$(", "$[", "\n"].iter().any(|sign| text.contains(sign))
}

/// Names of variables in a text, `$NAME` or `${NAME}`.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    text.split('$').skip(1).map(|part| {
        let part = part.strip_prefix('{').unwrap_or(part);
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
        part.split_at(end).0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_key_that_would_run_on_the_host_is_refused() {
        let judge = |key: &str, value: &str| {
            let job: JobContext = serde_json::from_value(serde_json::json!({
                "id": 1, "job_info": {"project_id": 2}, "cache": [{"key": key, "paths": ["c"]}]
            }))
            .unwrap();
            refuse_cache_keys(&job, |name| ["X", "CI_COMMIT_REF_NAME"].contains(&name).then(|| value.to_owned()))
        };
        for (key, value) in [("", "main"), ("a-$X-${X}_$Y", "a$b"), ("plain", "$(id)"), ("$XY", "`id`"), ("5$", "x")] {
            assert!(judge(key, value).is_ok(), "{key} {value}");
        }
        for (key, value) in
            [("", "$(id)"), ("$X", "`id`"), ("a${X}b", "a\nid"), ("$X", "${x}"), ("$(id)", ""), ("`id`", "")]
        {
            let text = crate::base::failure::render(&judge(key, value).unwrap_err().into());
            assert!(text.contains("`cache:key`") && !text.contains("id)"), "{text}");
        }
    }
}
