//! Lists that GitLab sends in pages. Only the number of the next page is taken from an answer, never an address.

use executor::gitlab::api::{GitLabError, GitLabErrorKind};
use reqwest::Url;
use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;

use super::connection::{Connection, MOST_ANSWER};
use super::errors::GitLabCall;

/// GitLab's own maximum.
const PAGE: usize = 100;
/// Most pages of a list: ten thousand objects.
const MOST_PAGES: usize = 100;

impl Connection {
    /// All objects of a list.
    ///
    /// # Errors
    /// Those of the calls; a list with too many pages or bytes, or whose pages go in a circle.
    pub(super) async fn list<T: DeserializeOwned>(&self, call: &GitLabCall, url: &Url) -> Result<Vec<T>, GitLabError> {
        match self.begin(call, url).await? {
            (all, None) => Ok(all),
            (_, Some(what)) => Err(call.error(GitLabErrorKind::Invalid, &format!("the list {what}"))),
        }
    }

    /// The objects of a list as far as it may be read, and what is too much of it.
    ///
    /// # Errors
    /// Those of the calls, and pages that go in a circle.
    pub(super) async fn begin<T: DeserializeOwned>(
        &self,
        call: &GitLabCall,
        url: &Url,
    ) -> Result<(Vec<T>, Option<String>), GitLabError> {
        let (mut all, mut bytes, mut page) = (Vec::new(), 0, 1);
        for _ in 0..MOST_PAGES {
            let mut of_page = url.clone();
            of_page.query_pairs_mut().append_pair("per_page", &PAGE.to_string()).append_pair("page", &page.to_string());
            let answer = self.get(call, &of_page).await?;
            bytes += answer.body.len();
            if bytes > MOST_ANSWER {
                return Ok((all, Some(format!("is larger than {} MiB", MOST_ANSWER >> 20))));
            }
            let found: Vec<T> = answer.read(call)?;
            let next = next_page(&answer.headers, page, found.len()).map_err(|what| call.odd(what))?;
            all.extend(found);
            match next {
                Some(next) => page = next,
                None => return Ok((all, None)),
            }
        }
        Ok((all, Some(format!("has more than {MOST_PAGES} pages"))))
    }
}

/// The number of the page after `page`, which had `found` objects. `Err` says what is wrong with the answer.
fn next_page(headers: &HeaderMap, page: u64, found: usize) -> Result<Option<u64>, &'static str> {
    let Some(next) = headers.get("x-next-page") else {
        // A server between that drops the header.
        return Ok((found >= PAGE).then(|| page.saturating_add(1)));
    };
    let next = next.to_str().unwrap_or("?").trim();
    if next.is_empty() {
        return Ok(None);
    }
    let next: u64 = next.parse().map_err(|_| "`X-Next-Page` is no number")?;
    if next > page { Ok(Some(next)) } else { Err("its pages go in a circle") }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(Some("4"), 100 => Ok(Some(4)))]
    #[test_case(Some("4"), 0 => Ok(Some(4)); "a page whose objects the token may not see")]
    #[test_case(Some(""), 100 => Ok(None))]
    #[test_case(None, 100 => Ok(Some(4)))]
    #[test_case(None, 99 => Ok(None))]
    #[test_case(Some("3"), 100 => Err("its pages go in a circle"))]
    #[test_case(Some("1"), 100 => Err("its pages go in a circle"))]
    #[test_case(Some("four"), 100 => Err("`X-Next-Page` is no number"))]
    fn after_page_three_comes(next: Option<&str>, found: usize) -> Result<Option<u64>, &'static str> {
        let headers = next.map(|next| (reqwest::header::HeaderName::from_static("x-next-page"), next.parse().unwrap()));
        next_page(&headers.into_iter().collect(), 3, found)
    }
}
