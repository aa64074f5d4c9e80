//! The samples of an endpoint's test, as a deployment reads them: files and folders beside the manifest, as in the commit.

use std::collections::BTreeMap;

use serde_json::Value;

use super::entry_name;
use crate::base::failure::Failure;
use crate::base::plain;

/// Largest file that is looked through for the files of bodies.
pub(super) const LARGEST_READ: u64 = 16 << 20;
/// Most files of samples.
const MOST_FILES: usize = 10_000;

/// Reads the content of a file by its id; `None` of one above [`LARGEST_READ`].
pub(super) type ReadFile<'a> = dyn FnMut(&str) -> anyhow::Result<Option<Vec<u8>>> + 'a;

/// Finds the files of samples among the commit's regular files. Keys are their names relative to the manifest's folder, values their ids.
///
/// # Errors
/// Failures of the user: a file is not in the commit, or lies outside of the manifest's folder.
pub(super) fn find(
    files: &BTreeMap<String, String>,
    samples: impl Iterator<Item = String>,
    read: &mut ReadFile<'_>,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut search = SampleSearch { files, read, found: BTreeMap::new() };
    for sample in samples {
        search.add(&sample)?;
    }
    Ok(search.found)
}

struct SampleSearch<'a, 'b> {
    files: &'a BTreeMap<String, String>,
    read: &'a mut ReadFile<'b>,
    found: BTreeMap<String, String>,
}

impl SampleSearch<'_, '_> {
    fn add(&mut self, name: &str) -> anyhow::Result<()> {
        let refused = |why: String| {
            Failure::user(format!("the samples {} cannot be packed: {why}", plain::line(name, 300))).hint(
                "name files below the manifest's folder in `endpoint.test.samples` of the manifest, and commit them",
            )
        };
        let name = name.trim_start_matches("./").trim_end_matches('/');
        if let Some(mistake) = entry_name::mistake(name) {
            return Err(refused(format!("it {mistake}")).into());
        }
        let Some(id) = self.files.get(name) else {
            let inner = visible_files(self.files, name);
            if inner.is_empty() {
                return Err(refused("it is no regular file of the commit".to_owned()).into());
            }
            return inner.into_iter().try_for_each(|inner| self.add(inner));
        };
        if self.found.insert(name.to_owned(), id.clone()).is_some() {
            return Ok(());
        }
        if self.found.len() > MOST_FILES {
            return Err(refused(format!("there are more than {MOST_FILES} files")).into());
        }
        let beside = format!("{name}.expect.json");
        if self.files.contains_key(&beside) {
            self.add(&beside)?;
        }
        if ![".json", ".jsonl", ".ndjson"].iter().any(|end| name.ends_with(end)) {
            return Ok(());
        }
        let Some(text) = (self.read)(id)? else { return Ok(()) };
        let text = String::from_utf8(text).map_err(|_| refused("it is not UTF-8 text".to_owned()))?;
        let parent = name.rsplit_once('/').map_or(String::new(), |(parent, _)| format!("{parent}/"));
        body_files(&text).into_iter().try_for_each(|file| self.add(&format!("{parent}{file}")))
    }
}

/// The files of a folder itself, but for hidden ones.
fn visible_files<'a>(files: &'a BTreeMap<String, String>, folder: &str) -> Vec<&'a str> {
    let start = format!("{folder}/");
    let below = files.range(start.clone()..).map(|(name, _)| name.as_str());
    let below = below.map_while(|name| Some((name, name.strip_prefix(&start)?)));
    below.filter(|(_, name)| !name.starts_with('.') && !name.contains('/')).map(|(name, _)| name).collect()
}

/// The values of `body_file` in a document, or in the documents of its lines.
fn body_files(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    match serde_json::from_str(text) {
        Ok(value) => collect(&value, &mut found),
        Err(_) => {
            for line in text.lines() {
                if let Ok(value) = serde_json::from_str(line) {
                    collect(&value, &mut found);
                }
            }
        }
    }
    found
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::String(text) if key == "body_file" => found.push(text.clone()),
                    // The body itself is data.
                    _ if key == "body" => {}
                    value => collect(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_bring_the_files_of_the_commit_that_they_name() {
        let texts = [
            ("s/a.jsonl", "{\"body_file\": \"image.bin\"}\n{\"body\": {\"body_file\": \"data\"}}\n"),
            ("s/image.bin", "x"),
            ("s/image.bin.expect.json", "{}"),
            ("s/.hidden", ""),
            ("s/inner/x", ""),
            ("s-other", ""),
            ("one.json", "[{\"body_file\": \"s/image.bin\"}]"),
            ("bad.json", "[{\"body_file\": \"absent\"}]"),
        ];
        // A file's id is its content here.
        let files = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let named = |names: &[&str]| {
            find(&files, names.iter().map(|name| (*name).to_owned()), &mut |id| Ok(Some(id.as_bytes().to_owned())))
        };
        let found: Vec<_> = named(&["s/", "./one.json"]).unwrap().into_keys().collect();
        assert_eq!(found, ["one.json", "s/a.jsonl", "s/image.bin", "s/image.bin.expect.json"]);
        for (name, why) in [
            ("../x", "`..`"),
            ("/etc/passwd", "empty part"),
            ("untracked", "no regular file of the commit"),
            ("bad.json", "the samples absent cannot be packed: it is no regular file of the commit"),
        ] {
            let failure = named(&[name]).unwrap_err().to_string();
            assert!(failure.contains(why), "{failure}");
        }
    }
}
