//! Reads the files with samples, and the files with bodies that they name.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64_simd::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::forms::{self, SampleForm};
use super::sample::{EndpointSample, SampleEntry};
use crate::base::failure::Failure;
use crate::base::human::human_bytes;

/// Most bytes of all samples together: they are in memory.
const MOST_BYTES: u64 = 256 << 20;
const MOST_SAMPLES: usize = 10_000;
/// Begin of the name of a file beside a body, which says what the answer must be.
const BESIDE: &str = ".expect.json";
pub(super) const HINT: &str =
    "name files or folders with samples in `--samples`, else in `endpoint.test.samples` of the manifest";

/// Reads the samples of files, and of all files in folders.
///
/// # Errors
/// Failures of the user that name the file; also when there is no sample, or one is not `within` the folder.
pub(super) fn read(
    paths: &[PathBuf],
    default_type: Option<&str>,
    within: Option<&Path>,
) -> Result<Vec<EndpointSample>, Failure> {
    let mut reader = Reader { default_type, within, left: MOST_BYTES, samples: Vec::new() };
    for path in paths {
        reader.check_place(path)?;
        if path.is_dir() {
            for file in files_of(path)? {
                reader.file(&file)?;
            }
        } else {
            reader.file(path)?;
        }
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = reader.samples.iter().find(|sample| !names.insert(sample.name.as_str())) {
        return Err(Failure::user(format!("two samples have the name `{}`", twice.name)).hint("change one `name`"));
    }
    if reader.samples.is_empty() {
        let shown: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        let place = if shown.is_empty() { "no file is named".to_owned() } else { shown.join(", ") };
        return Err(Failure::user(format!("there is no sample to send: {place}")).hint(HINT));
    }
    Ok(reader.samples)
}

/// The files of a folder by name: without hidden ones, and without those that say what an answer must be.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| unusable(folder, &error.to_string());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with('.') && !name.ends_with(BESIDE) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn unusable(file: &Path, why: &str) -> Failure {
    Failure::user(format!("the samples in {} cannot be used: {why}", file.display())).hint(HINT)
}

struct Reader<'a> {
    /// MIME type of requests that say none.
    default_type: Option<&'a str>,
    /// Folder that no file may be outside of.
    within: Option<&'a Path>,
    /// Bytes that may still be read.
    left: u64,
    samples: Vec<EndpointSample>,
}

impl Reader<'_> {
    fn file(&mut self, file: &Path) -> Result<(), Failure> {
        let bytes = self.bytes(file)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let form = SampleForm::of(&name);
        if form == SampleForm::Body {
            let entry = self.entry_beside(file)?;
            return self.add(file, name, entry, Some(bytes.into()));
        }
        let text = String::from_utf8(bytes).map_err(|_| unusable(file, "it is no text in UTF-8"))?;
        let text = text.trim_start_matches('\u{feff}');
        let parse = match form {
            SampleForm::Json => forms::json,
            SampleForm::JsonLines => forms::json_lines,
            SampleForm::Csv | SampleForm::Body => forms::csv,
        };
        for (number, entry) in parse(text).map_err(|why| unusable(file, &why))? {
            self.add(file, format!("{name}:{number}"), entry, None)?;
        }
        Ok(())
    }

    /// The expectation beside a file that is the body itself.
    fn entry_beside(&mut self, file: &Path) -> Result<SampleEntry, Failure> {
        let mut beside = file.as_os_str().to_owned();
        beside.push(BESIDE);
        let beside = PathBuf::from(beside);
        let bytes = if beside.exists() { self.bytes(&beside)? } else { b"{}".to_vec() };
        let entry: SampleEntry = serde_json::from_slice(&bytes)
            .map_err(|error| unusable(&beside, &format!("it is no sample without a body: {error}")))?;
        let has_body = entry.body.is_some() || entry.body_file.is_some() || entry.body_base64.is_some();
        if has_body {
            return Err(unusable(&beside, "it has a body, and the file beside it is the body"));
        }
        Ok(entry)
    }

    fn add(
        &mut self,
        file: &Path,
        default_name: String,
        entry: SampleEntry,
        body: Option<Bytes>,
    ) -> Result<(), Failure> {
        let name = entry.name.filter(|name| !name.is_empty()).unwrap_or(default_name);
        let wrong = |why: &str| unusable(file, &format!("`{name}` {why}"));
        if let Some(mistake) = entry.expect.mistake() {
            return Err(wrong(&format!("has a wrong rule: {mistake}")));
        }
        let mut form_type = None;
        let body = match (body, entry.body, entry.body_file, entry.body_base64) {
            (Some(body), None, None, None) => body,
            (None, Some(Value::String(text)), None, None) => text.into(),
            (None, Some(value), None, None) => {
                form_type = Some("application/json");
                value.to_string().into()
            }
            (None, None, Some(path), None) => self.bytes(&file.parent().unwrap_or(Path::new("")).join(path))?.into(),
            (None, None, None, Some(text)) => {
                STANDARD.decode_to_vec(text.as_bytes()).map_err(|_| wrong("has no Base64 in `body_base64`"))?.into()
            }
            _ => return Err(wrong("needs one of `body`, `body_file` and `body_base64`")),
        };
        if self.samples.len() == MOST_SAMPLES {
            return Err(unusable(file, &format!("there are more than {MOST_SAMPLES} samples")));
        }
        let content_type = entry.content_type.or(form_type.map(str::to_owned));
        let content_type = content_type.or(self.default_type.map(str::to_owned));
        self.samples.push(EndpointSample {
            name,
            content_type: content_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
            accept: entry.accept,
            body,
            expect: entry.expect,
        });
        Ok(())
    }

    /// Refuses what is outside of the folder that everything must be in.
    fn check_place(&self, file: &Path) -> Result<(), Failure> {
        let Some(within) = self.within else { return Ok(()) };
        let whole = |path: &Path| path.canonicalize().map_err(|error| unusable(file, &error.to_string()));
        if whole(file)?.starts_with(whole(within)?) {
            return Ok(());
        }
        Err(unusable(file, "it is no file of the package"))
    }

    fn bytes(&mut self, file: &Path) -> Result<Vec<u8>, Failure> {
        self.check_place(file)?;
        // Before it is opened, which waits for a writer of a pipe.
        let metadata = std::fs::metadata(file).map_err(|error| unusable(file, &error.to_string()))?;
        if !metadata.is_file() {
            return Err(unusable(file, "it is no regular file"));
        }
        let mut bytes = Vec::new();
        let read = File::open(file).and_then(|opened| opened.take(self.left + 1).read_to_end(&mut bytes));
        read.map_err(|error| unusable(file, &error.to_string()))?;
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            unusable(file, &format!("all samples together are larger than {}", human_bytes(MOST_BYTES)))
        })?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn all_files_of_a_folder_are_samples() {
        let folder = folder(&[
            (
                "b.jsonl",
                "{\"body\": {\"x\": 1}, \"name\": \"own\"}\n{\"body_file\": \"a.bin\"}\n{\"body_base64\": \"AP8=\"}\n",
            ),
            ("a.bin", "bytes"),
            ("a.bin.expect.json", "{\"content_type\": \"image/x\", \"expect\": {\"equals\": 1}}"),
            ("c.csv", "1,2\n"),
            (".hidden.csv", "no"),
        ]);
        std::fs::create_dir(folder.path().join("below")).unwrap();
        let samples = read(&[folder.path().to_owned()], Some("text/x"), None).unwrap();
        let shown: Vec<_> =
            samples.iter().map(|sample| (sample.name.as_str(), sample.content_type.as_str(), &*sample.body)).collect();
        let expected: [(&str, &str, &[u8]); 5] = [
            ("a.bin", "image/x", b"bytes"),
            ("own", "application/json", b"{\"x\":1}"),
            ("b.jsonl:2", "text/x", b"bytes"),
            ("b.jsonl:3", "text/x", &[0, 255]),
            ("c.csv:1", "text/csv", b"1,2"),
        ];
        assert_eq!(shown, expected);
        assert_eq!(samples[0].expect.equals, Some(1.into()));
    }

    #[test]
    fn no_sample_is_outside_of_its_package() {
        let secret = folder(&[("token", "secret")]);
        let secret = secret.path().join("token");
        let named = format!("\u{feff}[{{\"body_file\": \"{}\"}}]", secret.display());
        let folder = folder(&[("a.json", &named), ("b.json", r#"[{"body_file": "../b.bin"}]"#), ("good.csv", "1\n")]);
        let within = folder.path().join("deploy");
        std::fs::create_dir(&within).unwrap();
        for name in ["a.json", "b.json", "good.csv"] {
            std::fs::rename(folder.path().join(name), within.join(name)).unwrap();
        }
        std::fs::write(folder.path().join("b.bin"), "x").unwrap();
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        let outside = ["a.json", "b.json", "../b.bin", "../empty", ".."].map(|name| within.join(name));
        for path in outside.into_iter().chain([secret]) {
            let failure = read(&[path], None, Some(&within)).unwrap_err();
            assert!(failure.message().ends_with("it is no file of the package"), "{}", failure.message());
        }
        assert_eq!(read(&["a.json", "b.json", "../b.bin"].map(|name| within.join(name)), None, None).unwrap().len(), 3);
        assert!(read(&[within.join("good.csv")], None, Some(&within)).is_ok());
    }

    #[test]
    fn samples_that_cannot_be_used_are_told() {
        let folder = folder(&[
            ("empty.jsonl", "\n"),
            ("twice.json", r#"[{"body": 1, "name": "a"}, {"body": 1, "name": "a"}]"#),
            ("bodies.json", r#"[{"body": 1, "body_base64": ""}]"#),
            ("none.json", "[{}]"),
            ("base64.json", r#"[{"body_base64": "?"}]"#),
            ("rule.json", r#"[{"body": 1, "expect": {"json": [{"path": "$"}]}}]"#),
            ("x.bin", ""),
            ("x.bin.expect.json", r#"{"body": 1}"#),
            ("gone.json", r#"[{"body_file": "gone.bin"}]"#),
        ]);
        let why = |names: &[&str]| {
            let paths: Vec<_> = names.iter().map(|name| folder.path().join(name)).collect();
            let message = read(&paths, None, None).unwrap_err().message().to_owned();
            message.replace(&format!("{}/", folder.path().display()), "")
        };
        assert_eq!(why(&[]), "there is no sample to send: no file is named");
        assert_eq!(why(&["empty.jsonl"]), "there is no sample to send: empty.jsonl");
        assert_eq!(why(&["twice.json"]), "two samples have the name `a`");
        let bodies = "`bodies.json:1` needs one of `body`, `body_file` and `body_base64`";
        assert_eq!(why(&["bodies.json"]), format!("the samples in bodies.json cannot be used: {bodies}"));
        assert!(why(&["none.json"]).ends_with("`none.json:1` needs one of `body`, `body_file` and `body_base64`"));
        assert!(why(&["base64.json"]).ends_with("`base64.json:1` has no Base64 in `body_base64`"));
        let rule = "`rule.json:1` has a wrong rule: the rule of `$` says nothing: add `equals`, `min`, `max` or `near`";
        assert!(why(&["rule.json"]).ends_with(rule));
        assert!(why(&["x.bin"]).ends_with("it has a body, and the file beside it is the body"));
        let gone = "the samples in gone.bin cannot be used: No such file or directory (os error 2)";
        assert_eq!(why(&["gone.json"]), gone);
        assert!(why(&["absent"]).ends_with("absent cannot be used: No such file or directory (os error 2)"));
    }
}
