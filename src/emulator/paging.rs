//! Pages of lists, with tokens that count the entries before the page.

use serde_json::{Value, json};

use super::protocol::{Answer, ApiError, text};

/// Entries of a page when the request does not say how many.
const DEFAULT: usize = 10;

/// Answers with the page that the request asks for. `kind` begins the tokens, so that those of another list are refused.
pub(crate) fn page(request: &Value, member: &str, kind: &str, all: Vec<Value>) -> Answer {
    let limit = request.get("MaxResults").and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(DEFAULT);
    let offset = match text(request, "NextToken") {
        None => 0,
        Some(token) => token
            .strip_prefix(kind)
            .and_then(|rest| rest.strip_prefix('-')?.parse::<usize>().ok())
            .ok_or_else(|| ApiError::validation("Invalid pagination token."))?,
    };
    let more = offset.saturating_add(limit) < all.len();
    let shown: Vec<Value> = all.into_iter().skip(offset).take(limit).collect();
    let mut answer = json!({member: shown});
    if more {
        answer["NextToken"] = json!(format!("{kind}-{}", offset + limit));
    }
    Ok(Some(answer))
}
