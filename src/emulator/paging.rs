//! Pages of lists, with tokens that count the entries before the page.

use serde_json::{Value, json};

use super::protocol::{Answer, ApiError, text};

/// Entries of a page when the request does not say how many.
const DEFAULT: usize = 10;

/// Answers with the page that the request asks for. `kind` begins the tokens, so that those of another list are refused.
pub(crate) fn page(request: &Value, member: &str, kind: &str, all: Vec<Value>) -> Answer {
    let limit = request.get("MaxResults").and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(DEFAULT);
    let bad_token = || ApiError::validation("Invalid pagination token.");
    let (shown, next) = cut(text(request, "NextToken"), limit, kind, all).ok_or_else(bad_token)?;
    let mut answer = json!({member: shown});
    if let Some(next) = next {
        answer["NextToken"] = json!(next);
    }
    Ok(Some(answer))
}

/// The entries of one page, and the token of the next; `None` when the token is not one of this list.
pub(crate) fn cut(
    token: Option<&str>,
    limit: usize,
    kind: &str,
    all: Vec<Value>,
) -> Option<(Vec<Value>, Option<String>)> {
    let offset = match token {
        None => 0,
        Some(token) => token.strip_prefix(kind)?.strip_prefix('-')?.parse::<usize>().ok()?,
    };
    let next = offset.saturating_add(limit);
    let next = (next < all.len()).then(|| format!("{kind}-{next}"));
    Some((all.into_iter().skip(offset).take(limit).collect(), next))
}
