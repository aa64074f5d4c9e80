//! The members of a request in the query protocol.

use hyper::{Request, Uri};
use s3s::Body;

use crate::service::read;
use crate::sigv4::query_pairs;
use crate::tags::TagMap;

/// Names and values, of the query and of the body.
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// A presigned request has everything in its query.
    pub(crate) fn of(uri: &Uri, body: &[u8]) -> Self {
        // In a form a space is a plus.
        let body = String::from_utf8_lossy(body).replace('+', "%20");
        let mut pairs = query_pairs(uri.query().unwrap_or_default());
        pairs.extend(query_pairs(&body));
        Self(pairs)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether there is a member of this name, or of one below it.
    pub(crate) fn has(&self, name: &str) -> bool {
        let is_at_or_below =
            |key: &str| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.0.iter().any(|(key, _)| is_at_or_below(key))
    }

    /// The members of a list of texts.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        (1..).map_while(|number| self.text(&format!("{name}.member.{number}"))).collect()
    }

    /// The tags of the request, in their order.
    pub(crate) fn tags(&self) -> Vec<(&str, &str)> {
        let member = |number, part| self.text(&format!("Tags.member.{number}.{part}"));
        (1..).map_while(|number| Some((member(number, "Key")?, member(number, "Value").unwrap_or_default()))).collect()
    }
}

/// The operation that a request is counted as: one of `known`, else `unknown`. Its body is read and put back.
pub(crate) async fn operation(request: &mut Request<Body>, known: &[&str], unknown: &str) -> anyhow::Result<String> {
    let body = read(std::mem::take(request.body_mut())).await?;
    let form = Form::of(request.uri(), &body);
    *request.body_mut() = Body::from(body);
    let action = form.text("Action").unwrap_or_default();
    Ok(if known.contains(&action) { action } else { unknown }.to_owned())
}

/// Tags as a map.
pub(crate) fn tag_map(tags: &[(&str, &str)]) -> TagMap {
    tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
