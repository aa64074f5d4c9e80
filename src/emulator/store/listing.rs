//! Makes one page of an object listing. Pure.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::object::Stored;

/// One page of a listing.
#[derive(Debug, Default)]
pub(crate) struct ObjectPage {
    pub(crate) objects: Vec<(String, Arc<Stored>)>,
    pub(crate) prefixes: Vec<String>,
    /// Where the next page begins, when there is one.
    pub(crate) next: Option<String>,
}

impl ObjectPage {
    /// Keys with a prefix behind `after`, in order; with a delimiter, what lies below one is folded into a prefix.
    pub(super) fn of(
        objects: &BTreeMap<String, Arc<Stored>>,
        prefix: &str,
        after: Option<&str>,
        delimiter: Option<&str>,
        limit: usize,
    ) -> Self {
        let mut page = ObjectPage::default();
        let mut from = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after.to_owned()),
            None => Bound::Included(prefix.to_owned()),
        };
        let mut last = None;
        'folds: loop {
            for (key, stored) in objects.range::<String, _>((from.clone(), Bound::Unbounded)) {
                let Some(rest) = key.strip_prefix(prefix) else { break 'folds };
                let fold = delimiter.filter(|delimiter| !delimiter.is_empty()).and_then(|delimiter| {
                    rest.split_once(delimiter).map(|(name, _)| format!("{prefix}{name}{delimiter}"))
                });
                if fold.as_deref().is_some_and(|fold| after.is_some_and(|after| after.starts_with(fold))) {
                    // A page ended with this prefix.
                    from = Bound::Included(successor(&fold.unwrap_or_default()));
                    continue 'folds;
                }
                if page.objects.len() + page.prefixes.len() == limit {
                    page.next = last;
                    break 'folds;
                }
                if let Some(fold) = fold {
                    last = Some(fold.clone());
                    from = Bound::Included(successor(&fold));
                    page.prefixes.push(fold);
                    continue 'folds;
                }
                last = Some(key.clone());
                page.objects.push((key.clone(), Arc::clone(stored)));
            }
            break;
        }
        page
    }
}

/// The smallest key that does not begin with a prefix and is greater than all that do.
fn successor(prefix: &str) -> String {
    let mut letters: Vec<char> = prefix.chars().collect();
    while let Some(last) = letters.pop() {
        if let Some(next) = (u32::from(last) + 1..=0x0010_FFFF).find_map(char::from_u32) {
            letters.push(next);
            return letters.into_iter().collect();
        }
    }
    char::MAX.to_string()
}
