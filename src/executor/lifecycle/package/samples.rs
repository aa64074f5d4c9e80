//! The samples of an endpoint's test, as a deployment reads them: files and folders beside the manifest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::entry_name;
use crate::base::failure::Failure;
use crate::base::plain;

/// Largest file that is looked through for the files of bodies.
const LARGEST_READ: u64 = 16 << 20;
/// Most files of samples.
const MOST_FILES: usize = 10_000;

/// Finds the files of samples. Keys are their names relative to the manifest's folder.
///
/// # Errors
/// Failures of the user: a file cannot be read, or lies outside of the manifest's folder.
pub(super) fn find(folder: &Path, samples: impl Iterator<Item = String>) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut search = SampleSearch { folder, found: BTreeMap::new() };
    for sample in samples {
        search.add(&sample)?;
    }
    Ok(search.found)
}

struct SampleSearch<'a> {
    folder: &'a Path,
    found: BTreeMap<String, PathBuf>,
}

impl SampleSearch<'_> {
    fn add(&mut self, name: &str) -> Result<(), Failure> {
        let refused = |why: String| {
            Failure::user(format!("the samples {} cannot be packed: {why}", plain::line(name, 300)))
                .hint("name files below the manifest's folder in `endpoint.test.samples` of the manifest")
        };
        let name = name.trim_start_matches("./").trim_end_matches('/');
        if let Some(mistake) = entry_name::mistake(name) {
            return Err(refused(format!("it {mistake}")));
        }
        let path = self.folder.join(name);
        let metadata = path.symlink_metadata().map_err(|error| refused(error.to_string()))?;
        if metadata.is_dir() {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&path).map_err(|error| refused(error.to_string()))? {
                let entry = entry.map_err(|error| refused(error.to_string()))?.file_name();
                names.push(entry.into_string().map_err(|_| refused("it has a name that is not UTF-8".to_owned()))?);
            }
            let visible = names.iter().filter(|entry| !entry.starts_with('.'));
            return visible.into_iter().try_for_each(|entry| {
                let inner = format!("{name}/{entry}");
                if self.folder.join(&inner).is_dir() { Ok(()) } else { self.add(&inner) }
            });
        }
        if !metadata.is_file() {
            return Err(refused("it is no regular file".to_owned()));
        }
        if self.found.insert(name.to_owned(), path.clone()).is_some() {
            return Ok(());
        }
        if self.found.len() > MOST_FILES {
            return Err(refused(format!("there are more than {MOST_FILES} files")));
        }
        let beside = format!("{name}.expect.json");
        if self.folder.join(&beside).is_file() {
            self.add(&beside)?;
        }
        let is_read = [".json", ".jsonl", ".ndjson"].iter().any(|end| name.ends_with(end));
        if !is_read || metadata.len() > LARGEST_READ {
            return Ok(());
        }
        let text = std::fs::read_to_string(&path).map_err(|error| refused(error.to_string()))?;
        let parent = name.rsplit_once('/').map_or(String::new(), |(parent, _)| format!("{parent}/"));
        body_files(&text).into_iter().try_for_each(|file| self.add(&format!("{parent}{file}")))
    }
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
    fn samples_bring_the_files_that_they_name() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("s/a.jsonl", "{\"body_file\": \"image.bin\"}\n{\"body\": {\"body_file\": \"data\"}}\n");
        put("s/image.bin", "x");
        put("s/image.bin.expect.json", "{}");
        put("s/.hidden", "");
        put("one.json", "[{\"body_file\": \"s/image.bin\"}]");
        let named = |names: &[&str]| find(folder.path(), names.iter().map(|name| (*name).to_owned()));
        let found: Vec<_> = named(&["s/", "./one.json"]).unwrap().into_keys().collect();
        assert_eq!(found, ["one.json", "s/a.jsonl", "s/image.bin", "s/image.bin.expect.json"]);
        for (name, why) in [("../x", "`..`"), ("/etc/passwd", "empty part"), ("absent", "No such file")] {
            let failure = named(&[name]).unwrap_err();
            assert!(failure.message().contains(why), "{failure}");
        }
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        assert!(named(&["link"]).unwrap_err().message().ends_with("it is no regular file"));
    }
}
