//! Reads a manifest and applies the entry of one environment. Pure, but for the file.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::finding::ManifestFinding;
use super::places::{Places, join};
use super::schema::SCHEMA;
use super::types::{MOST_ENVIRONMENTS, Manifest};
use super::variables::Expanded;
use super::{file, patch, places, rules, shape, shared};
use crate::base::failure::Failure;
use crate::base::plain;
use crate::config::env::Environment;

/// Keys that the patch of an environment may change.
const PATCHED: [&str; 5] = ["model", "endpoint", "image", "package", "tags"];
/// Findings that an error shows; `validate` shows all.
const SHOWN: usize = 20;

/// The text of a manifest, parsed, with the places of its keys.
pub(crate) struct ManifestText {
    name: String,
    parsed: Result<(Value, Places), Vec<ManifestFinding>>,
}

/// A manifest as far as it can be understood, and its mistakes.
#[derive(Debug, Default)]
pub(crate) struct ManifestReading {
    pub(crate) manifest: Manifest,
    pub(crate) findings: Vec<ManifestFinding>,
}

impl ManifestText {
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        Ok(Self { name: plain::line(&file.display().to_string(), 200), parsed: places::parse(&file::read(file)?) })
    }

    /// The manifest of a file whose content is known.
    ///
    /// # Errors
    /// The content is no text, or is too large.
    pub(crate) fn of_file(file: &Path, content: Vec<u8>) -> Result<Self, Failure> {
        let text = file::text(file, content)?;
        Ok(Self { name: plain::line(&file.display().to_string(), 200), parsed: places::parse(&text) })
    }

    /// The manifest with the entry of `environment` applied, if there is one.
    ///
    /// # Errors
    /// Failures of the user: all mistakes with their places.
    pub(crate) fn manifest(&self, environment: Option<&str>, env: &Environment) -> Result<Manifest, Failure> {
        let ManifestReading { manifest, findings } = self.of(environment, env);
        if findings.is_empty() { Ok(manifest) } else { Err(self.failure(&findings)) }
    }

    /// As [`ManifestText::manifest`], for a command that uses no other parts than some: mistakes in these others do not count.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn manifest_without(
        &self,
        unused: &[&str],
        environment: Option<&str>,
        env: &Environment,
    ) -> Result<Manifest, Failure> {
        let ManifestReading { manifest, mut findings } = self.of(environment, env);
        findings.retain(|finding| {
            let patch = finding.key.find(".patch.").and_then(|at| finding.key.get(at + ".patch.".len()..));
            let key = patch.unwrap_or(&finding.key);
            !unused.iter().any(|part| key == *part || key.strip_prefix(part).is_some_and(|rest| rest.starts_with('.')))
        });
        if findings.is_empty() { Ok(manifest) } else { Err(self.failure(&findings)) }
    }

    /// The names of its environments; none where there are more than a manifest may have.
    pub(crate) fn environments(&self) -> Vec<String> {
        let entries = self.parsed.as_ref().ok().and_then(|(value, _)| value["environments"].as_object());
        let entries = entries.filter(|entries| entries.len() <= MOST_ENVIRONMENTS);
        entries.into_iter().flat_map(Map::keys).cloned().collect()
    }

    /// The text of a key of `model` in the entry of this environment, else in the part that all have, with its variables: their values may
    /// be others in that environment's jobs.
    pub(crate) fn model_text(&self, environment: &str, key: &str) -> Option<&str> {
        let (value, _) = self.parsed.as_ref().ok()?;
        let patched = &value["environments"][environment]["patch"]["model"][key];
        let text = if patched.is_null() { &value["model"][key] } else { patched };
        text.as_str()
    }

    /// Reads the manifest with the entry of `environment` applied. Other entries are not looked at: their variables may have no value
    /// here.
    pub(crate) fn of(&self, environment: Option<&str>, env: &Environment) -> ManifestReading {
        let (value, places) = match &self.parsed {
            Ok(parsed) => parsed,
            Err(findings) => return ManifestReading { findings: findings.clone(), ..ManifestReading::default() },
        };
        let mut reading = Reading { places, environment, findings: Vec::new() };
        let manifest = reading.manifest(value.clone(), env);
        let mut findings = reading.findings;
        findings.sort();
        findings.dedup();
        ManifestReading { manifest, findings }
    }

    /// The environments of these whose endpoint is that of another one too.
    pub(crate) fn shared_endpoints(&self, environments: &[String]) -> Vec<ManifestFinding> {
        let Ok((value, places)) = &self.parsed else { return Vec::new() };
        let mistakes = shared::check(value, environments);
        mistakes.into_iter().map(|(path, message)| places.finding(&path, message)).collect()
    }

    /// A mistake that a command found at a key.
    pub(crate) fn finding(&self, key: &str, message: &str) -> Option<ManifestFinding> {
        let (_, places) = self.parsed.as_ref().ok()?;
        Some(places.finding(key, message))
    }

    /// The error of a command that needs the manifest.
    pub(crate) fn failure(&self, findings: &[ManifestFinding]) -> Failure {
        let number = mistakes(findings.len());
        let mut lines: Vec<_> = findings.iter().take(SHOWN).map(|one| self.line(one)).collect();
        if findings.len() > SHOWN {
            lines.push("`sagemaker-executor validate` shows all".to_owned());
        }
        Failure::user(format!("the manifest {} has {number}", self.name))
            .hint("`docs/manifest.schema.json` describes every key; `sagemaker-executor validate` checks every environment")
            .quoting(Some(lines.join("\n")))
    }

    /// One line for a finding: `manifest.json:3:5: ...`.
    pub(crate) fn line(&self, finding: &ManifestFinding) -> String {
        plain::lines(&format!("{}:{finding}", self.name)).into_owned()
    }
}

/// Whether a value that is missing may be the reason for a mistake: it belongs to the key, or lies in the same object.
fn is_near(path: &str, removed: &str) -> bool {
    let parent = |path: &str| path.rfind('.').map(|end| path.get(..end).unwrap_or_default().to_owned());
    removed.starts_with(&format!("{path}.")) || parent(path).is_some_and(|own| parent(removed) == Some(own))
}

/// `a mistake`, `2 mistakes`.
pub(crate) fn mistakes(number: usize) -> String {
    if number == 1 { "a mistake".to_owned() } else { format!("{number} mistakes") }
}

/// One reading of the manifest, for one environment or for none.
struct Reading<'a> {
    places: &'a Places,
    environment: Option<&'a str>,
    findings: Vec<ManifestFinding>,
}

impl Reading<'_> {
    fn manifest(&mut self, mut value: Value, env: &Environment) -> Manifest {
        self.apply(&mut value);
        let mut expanded = Expanded::default();
        expanded.expand(&mut value, "", &|name| env.get(name));
        let mut wrong: BTreeSet<_> = expanded.mistakes.iter().map(|(path, _)| path.clone()).collect();
        self.tell(expanded.mistakes);
        let shape::Broken { mut mistakes, removed } = shape::check(&mut value, &SCHEMA, &expanded.whole);
        // A string with a mistake in its variable has no value to check.
        mistakes.retain(|(path, _)| !wrong.contains(path));
        wrong.extend(mistakes.iter().map(|(path, _)| path.clone()));
        self.tell(mistakes);
        let mut manifest = serde_json::from_value::<Manifest>(value).unwrap_or_else(|error| {
            if self.findings.is_empty() {
                self.tell(vec![(String::new(), error.to_string())]);
            }
            Manifest::default()
        });
        if let Some(name) = self.environment {
            manifest.target = manifest.environments.get(name).cloned().unwrap_or_default();
        }
        let entry = join("environments", self.environment.unwrap_or_default());
        // Nothing is compared with a value that is wrong by itself.
        let comparable = |name: &str, value: Option<String>| value.filter(|_| !wrong.contains(&join(&entry, name)));
        manifest.target.region = comparable("region", manifest.target.region.take());
        manifest.target.account = comparable("account", manifest.target.account.take());
        let mut mistakes = rules::check(&manifest, &entry);
        mistakes.retain(|(path, _)| !wrong.contains(path) && !removed.iter().any(|removed| is_near(path, removed)));
        self.tell(mistakes);
        manifest
    }

    /// Applies the patch of the environment, and leaves the other entries out.
    fn apply(&mut self, value: &mut Value) {
        let Some(environments) = value.get_mut("environments").filter(|value| value.is_object()) else {
            if let Some(name) = self.environment {
                self.tell(vec![("environments".to_owned(), format!("is missing: it needs an entry `{name}`"))]);
            }
            return;
        };
        let entries = environments.as_object_mut().map(std::mem::take).unwrap_or_default();
        if entries.len() > MOST_ENVIRONMENTS {
            let message = format!("has {} entries; the most are {MOST_ENVIRONMENTS}", entries.len());
            self.tell(vec![("environments".to_owned(), message)]);
        }
        let Some(name) = self.environment else { return };
        let Some(entry) = entries.get(name) else {
            let mut known: Vec<_> = entries.keys().take(SHOWN).map(|name| format!("`{name}`")).collect();
            if entries.len() > SHOWN {
                known.push("others".to_owned());
            }
            let message = if known.is_empty() {
                format!("is empty: it needs an entry `{name}`")
            } else {
                format!("has no entry `{name}`; it has {}", known.join(", "))
            };
            return self.tell(vec![("environments".to_owned(), message)]);
        };
        let mut own = entry.clone();
        if let Some(patch) = own.get_mut("patch").and_then(Value::as_object_mut) {
            patch.retain(|key, _| PATCHED.contains(&key.as_str()));
        }
        *environments = Value::Object(Map::from_iter([(name.to_owned(), own)]));
        let Some(patch) = entry.get("patch").and_then(Value::as_object) else { return };
        for (key, change) in patch {
            if PATCHED.contains(&key.as_str()) {
                patch::merge(value, &Value::Object(Map::from_iter([(key.clone(), change.clone())])));
            } else {
                let place = join(&join(&join("environments", name), "patch"), key);
                self.tell(vec![(
                    place,
                    format!("is no key that a patch can change: those are {}", PATCHED.join(", ")),
                )]);
            }
        }
    }

    /// Keeps mistakes with their places. A key that the patch changes has its place there.
    fn tell(&mut self, mistakes: Vec<shape::Mistake>) {
        for (path, message) in mistakes {
            let prefix = self.environment.map(|name| join(&join("environments", name), "patch") + ".");
            let patched = prefix.filter(|prefix| {
                let in_patch = self.places.known_part(&format!("{prefix}{path}"));
                in_patch.checked_sub(prefix.len()).is_some_and(|length| length >= self.places.known_part(&path))
            });
            self.findings.push(self.places.finding(&(patched.unwrap_or_default() + &path), message));
        }
    }
}
