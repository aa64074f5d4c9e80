//! Metrics of a model, from files of several forms, found by the names that rules have. No I/O.

mod listing;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json_path::{JsonPath, PathElement};
use sha2::{Digest as _, Sha256};

use super::decimal::{Decimal, NoDecimal};
use super::json::Json;
use super::key_path::{KeyPath, LONGEST_NAME};
use super::labels::Selector;
use super::open_metrics;
use crate::base::failure::Failure;
use crate::lifecycle::hex::hex;

/// How the `schema` of this program's own files begins; `docs/JOBS.md` has the form.
const OWN_SCHEMA: &str = "sagemaker-executor/metrics/";
/// Most names that a hint lists.
const MOST_NAMES: usize = 5;
/// Most names that are compared for it.
const MOST_COMPARED: usize = 10_000;

/// A file of metrics that was read.
#[derive(Debug, Clone)]
pub(crate) struct MetricsSource {
    /// As the user named it.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// A metric that `--metric` finds by a JSONPath.
#[derive(Debug, Clone)]
pub(crate) struct MetricPath {
    name: Arc<KeyPath>,
    path: JsonPath,
}

impl MetricPath {
    /// Reads `f1=$.report.f1`.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let (name, path) = text.split_once('=').ok_or_else(|| unusable_path(text, "`--metric`", "it has no `=`"))?;
        Self::new(name, path, "`--metric`")
    }

    /// `place` is the flag or key that both are from.
    pub(super) fn new(name: &str, path: &str, place: &str) -> Result<Self, Failure> {
        let selector = Selector::parse(name).filter(|selector| selector.labels.is_empty());
        let name = selector.ok_or_else(|| unusable_path(name, place, "the name cannot be read"))?.name;
        let path = JsonPath::parse(path.trim()).map_err(|error| unusable_path(path, place, &error.to_string()))?;
        Ok(Self { name: KeyPath::new(None, &name), path })
    }
}

fn unusable_path(text: &str, place: &str, why: &str) -> Failure {
    Failure::user(format!("`{text}` of {place} cannot be used: {why}"))
        .hint("write a name and a JSONPath, as in `f1=$.report.f1`")
}

/// The value of a metric as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reading {
    Number(Decimal),
    /// Kind of a value that is no number; continues `it is`.
    NoNumber(&'static str),
}

#[derive(Debug, Clone)]
struct Metric {
    path: Arc<KeyPath>,
    labels: BTreeMap<String, String>,
    value: Reading,
    file: Arc<str>,
    /// A key on its path is there twice; of one that is found by JSONPath, any key of the file.
    is_repeated: bool,
}

/// Why a rule has no value to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoValue {
    /// A clause, such as `it is NaN`.
    pub(super) why: String,
    /// The most similar names, where there is no such metric.
    pub(super) similar: Vec<String>,
}

/// All metrics of some files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    all: Vec<Metric>,
    hashes: Vec<(String, String)>,
}

impl Metrics {
    /// Reads files of each form; `paths` are looked for in those of JSON.
    ///
    /// # Errors
    /// Failures of the user: a file has none of the forms.
    pub(crate) fn parse(sources: &[MetricsSource], paths: &[MetricPath]) -> Result<Self, Failure> {
        let mut metrics = Self::default();
        for source in sources {
            metrics.add(source, paths)?;
        }
        Ok(metrics)
    }

    fn add(&mut self, source: &MetricsSource, paths: &[MetricPath]) -> Result<(), Failure> {
        let MetricsSource { name, bytes } = source;
        let form = "use JSON or OpenMetrics, in UTF-8; docs/LIFECYCLE.md has the forms";
        let wrong = |why: String| Failure::user(format!("{name} has no metrics that can be read: {why}")).hint(form);
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
        if text.starts_with('\u{feff}') {
            return Err(wrong("it begins with a byte order mark (BOM)".to_owned()));
        }
        if text.trim().is_empty() {
            return Err(wrong("it is empty".to_owned()));
        }
        let is_json = text.trim_start().starts_with(['{', '[']);
        let has_name_of_json =
            std::path::Path::new(name).extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
        if is_json || has_name_of_json {
            let json = Json::parse(text).map_err(|error| wrong(error.to_string()))?;
            self.add_json(name, &json, paths).map_err(|why| wrong(why.to_owned()))?;
        } else {
            let file = Arc::from(name.as_str());
            let samples = open_metrics::parse(text).map_err(|error| wrong(error.to_string()))?;
            self.all.extend(samples.into_iter().map(|sample| Metric {
                path: KeyPath::new(None, &sample.name),
                labels: sample.labels,
                value: sample_value(&sample.value),
                file: Arc::clone(&file),
                is_repeated: false,
            }));
        }
        self.hashes.push((hex(&Sha256::digest(bytes)), name.clone()));
        Ok(())
    }

    fn add_json(&mut self, file: &str, json: &Json, paths: &[MetricPath]) -> Result<(), &'static str> {
        let Json::Object(members) = json else { return Err("it is no object of JSON") };
        let schemas = || members.iter().filter(|(key, _)| key == "schema");
        let schema = schemas().find_map(|(_, value)| match value {
            Json::Text(text) => text.strip_prefix(OWN_SCHEMA),
            _ => None,
        });
        let file: Arc<str> = Arc::from(file);
        let mut flat = Flat { file: &file, all: &mut self.all };
        match schema {
            None => flat.add(members, None, false),
            Some(_) if schemas().count() > 1 => return Err("it has the key `schema` twice"),
            Some("1") => {
                let own = members.iter().filter(|(key, _)| key == "metrics");
                let is_repeated = own.clone().count() > 1;
                for (_, value) in own {
                    if let Json::Object(members) = value {
                        flat.add(members, None, is_repeated);
                    }
                }
            }
            Some(_) => return Err("its `schema` is of another version of sagemaker-executor"),
        }
        if !paths.is_empty() {
            // Of equal keys JSONPath sees one, and a filter may look at any key of the file.
            let (approximate, is_repeated) = (json.approximate(), json.has_repeated_key());
            for MetricPath { name, path } in paths {
                let nodes = path.query_located(&approximate);
                let is_one = nodes.iter().nth(1).is_none();
                self.all.extend(nodes.iter().map(|node| Metric {
                    path: Arc::clone(name),
                    labels: BTreeMap::new(),
                    value: if is_one {
                        reading(at(json, node.location().iter()))
                    } else {
                        Reading::NoNumber("one of several")
                    },
                    file: Arc::clone(&file),
                    is_repeated,
                }));
            }
        }
        Ok(())
    }

    /// The one value of a metric.
    pub(super) fn value(&self, selector: &Selector) -> Result<Decimal, NoValue> {
        let is_wanted = |metric: &&Metric| {
            metric.path.is_named(&selector.name)
                && selector.labels.iter().all(|(name, value)| metric.labels.get(name) == Some(value))
        };
        let found: Vec<&Metric> = self.all.iter().filter(is_wanted).collect();
        let no_value = |why: String| NoValue { why, similar: Vec::new() };
        match found.as_slice() {
            [] => Err(NoValue { why: "no file has this metric".to_owned(), similar: self.similar(&selector.name) }),
            [metric] if metric.is_repeated => Err(no_value(format!("{} has its key twice", metric.file))),
            [metric] => match metric.value {
                Reading::Number(value) => Ok(value),
                Reading::NoNumber(what) => Err(no_value(format!("it is {what}"))),
            },
            several => {
                let files: BTreeSet<&str> = several.iter().map(|metric| &*metric.file).collect();
                let files: Vec<&str> = files.into_iter().collect();
                let has_labels = several.iter().any(|metric| !metric.labels.is_empty());
                let which = if has_labels { "; name its labels, as in `accuracy{split=\"test\"}>=0.8`" } else { "" };
                Err(no_value(format!("it is there {} times, in {}{which}", several.len(), files.join(" and "))))
            }
        }
    }

    /// The names that are most like this one.
    fn similar(&self, wanted: &str) -> Vec<String> {
        if wanted.len() > LONGEST_NAME {
            return Vec::new();
        }
        let names: BTreeSet<String> =
            self.all.iter().filter_map(|metric| metric.path.name()).take(MOST_COMPARED).collect();
        let mut names: Vec<(f64, String)> =
            names.into_iter().map(|name| (strsim::jaro_winkler(wanted, &name), name)).collect();
        names.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        names.into_iter().take(MOST_NAMES).map(|(_, name)| name).collect()
    }

    /// Names of the files.
    pub(super) fn files(&self) -> Vec<String> {
        self.hashes.iter().map(|(_, name)| name.clone()).collect()
    }

    /// Of one file its SHA-256; of several, that of the lines that `sha256sum` prints of them.
    pub(super) fn sha256(&self) -> String {
        if let [(hash, _)] = self.hashes.as_slice() {
            return hash.clone();
        }
        let mut lines = String::new();
        for (hash, name) in &self.hashes {
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "{hash}  {name}");
        }
        hex(&Sha256::digest(lines))
    }
}

/// Collects the values of an object and those of the objects in it, with their paths.
struct Flat<'a> {
    file: &'a Arc<str>,
    all: &'a mut Vec<Metric>,
}

impl Flat<'_> {
    fn add(&mut self, members: &[(String, Json)], parent: Option<&Arc<KeyPath>>, is_repeated: bool) {
        let mut counts = BTreeMap::<&str, u32>::new();
        for (key, _) in members {
            *counts.entry(key).or_default() += 1;
        }
        for (key, value) in members {
            let is_repeated = is_repeated || counts.get(key.as_str()).is_some_and(|count| *count > 1);
            let path = KeyPath::new(parent, key);
            match value {
                Json::Object(members) => self.add(members, Some(&path), is_repeated),
                value => self.all.push(Metric {
                    path,
                    labels: BTreeMap::new(),
                    value: reading(value),
                    file: Arc::clone(self.file),
                    is_repeated,
                }),
            }
        }
    }
}

/// The value at a location of JSONPath, in a file without repeated keys.
fn at<'j, 'p>(json: &'j Json, location: impl Iterator<Item = &'p PathElement<'p>>) -> &'j Json {
    location.fold(json, |place, element| match (place, element) {
        (Json::Object(members), PathElement::Name(name)) => {
            members.iter().find(|(key, _)| key == name).map_or(&Json::Null, |(_, value)| value)
        }
        (Json::List(values), PathElement::Index(index)) => values.get(*index).unwrap_or(&Json::Null),
        _ => &Json::Null,
    })
}

fn reading(value: &Json) -> Reading {
    Reading::NoNumber(match value {
        Json::Number(text) => return number(text),
        Json::NoNumber(text) if text == "NaN" => "NaN",
        Json::NoNumber(_) => "infinite",
        Json::Null => "null",
        Json::Bool(_) => "true or false, and no number",
        Json::Text(_) => "text, and no number",
        Json::List(_) => "a list",
        Json::Object(_) => "an object",
    })
}

fn number(text: &str) -> Reading {
    match Decimal::parse(text) {
        Ok(number) => Reading::Number(number),
        Err(NoDecimal::Form) => Reading::NoNumber("no number"),
        Err(NoDecimal::Size) => Reading::NoNumber("larger than any double"),
        Err(NoDecimal::Digits) => Reading::NoNumber("a number of more than 38 digits"),
    }
}

/// A number of OpenMetrics, whose forms are a few more than those of JSON.
fn sample_value(text: &str) -> Reading {
    let sign = if text.starts_with('-') { "-" } else { "" };
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned.to_ascii_lowercase().as_str() {
        "nan" => return Reading::NoNumber("NaN"),
        "inf" | "infinity" => return Reading::NoNumber("infinite"),
        _ => {}
    }
    if !unsigned.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit()) {
        return Reading::NoNumber("no number");
    }
    let whole = if unsigned.starts_with('.') { "0" } else { "" };
    number(&format!("{sign}{whole}{}", unsigned.strip_suffix('.').unwrap_or(unsigned)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use test_case::test_case;

    use super::*;

    fn source(name: &str, text: &str) -> MetricsSource {
        MetricsSource { name: name.to_owned(), bytes: text.as_bytes().to_vec() }
    }

    fn value_in(files: &[(&str, &str)], paths: &[&str], wanted: &str) -> String {
        let sources: Vec<_> = files.iter().map(|(name, text)| source(name, text)).collect();
        let paths: Vec<_> = paths.iter().map(|text| MetricPath::parse(text).unwrap()).collect();
        match Metrics::parse(&sources, &paths) {
            Err(failure) => failure.message().to_owned(),
            Ok(metrics) => match metrics.value(&Selector::parse(wanted).unwrap()) {
                Ok(value) => value.to_string(),
                Err(no_value) if no_value.similar.is_empty() => no_value.why,
                Err(no_value) => format!("{}; like {}", no_value.why, no_value.similar.join(", ")),
            },
        }
    }

    const QUALITY: &str = r#"{"version": 1.0, "dataset": {"item_count": 36},
        "multiclass_classification_metrics": {
          "confusion_matrix": {"0": {"0": 12, "1": 0}},
          "accuracy": {"value": 0.9722, "standard_deviation": 0.01},
          "weighted_f1": {"value": 0.97, "standard_deviation": "NaN"}}}"#;
    const OWN: &str = r#"{"schema": "sagemaker-executor/metrics/1", "training_job": "x",
        "metrics": {"val:acc": 0.5, "loss": "NaN", "a.b": 2}, "details": {"val:acc": {"last": 1}}}"#;
    const TEXT: &str = "signs +-0.9\nminus -+0.9\ndot .\ndots ..5\n# TYPE acc gauge\nacc{split=\"test\",n=\"1\"} +.5\nacc{split=\"train\"} 1.\nloss NaN\nup +Inf\nhex 0x1p3\n# EOF\n";

    #[test_case(r#"{"accuracy": 0.80}"#, "accuracy" => "0.8"; "plain")]
    #[test_case(r#"{"test": {"f1": 1e-1}}"#, "test.f1" => "0.1"; "nested")]
    #[test_case(r#"{"weighted avg": {"f1-score": 0.7}}"#, "weighted avg.f1-score" => "0.7"; "names of scikit-learn")]
    #[test_case(r#"{"acc": 0.9, "f1": 1}"#, "accuracy" => "no file has this metric; like acc, f1"; "missing")]
    #[test_case(r#"{"a": NaN}"#, "a" => "it is NaN"; "NaN")]
    #[test_case(r#"{"a": -Infinity}"#, "a" => "it is infinite"; "infinite")]
    #[test_case(r#"{"a": null}"#, "a" => "it is null"; "null")]
    #[test_case(r#"{"a": "0.9"}"#, "a" => "it is text, and no number"; "text")]
    #[test_case(r#"{"a": true}"#, "a" => "it is true or false, and no number"; "a truth value")]
    #[test_case(r#"{"a": [0.9]}"#, "a" => "it is a list"; "a list")]
    #[test_case(r#"{"a": 1e999}"#, "a" => "it is larger than any double"; "too large")]
    #[test_case(r#"{"a": 1, "a": 1}"#, "a" => "it is there 2 times, in m.json"; "a key twice")]
    #[test_case(r#"{"t": {"a": 1}, "t": {"b": 1}}"#, "t.a" => "m.json has its key twice"; "an object twice")]
    #[test_case(r#"{"t": {"a": 1}, "t.a": 1}"#, "t.a" => "it is there 2 times, in m.json"; "a key with a dot")]
    #[test_case(QUALITY, "accuracy" => "0.9722"; "model quality")]
    #[test_case(QUALITY, "multiclass_classification_metrics.weighted_f1" => "0.97"; "model quality by path")]
    #[test_case(QUALITY, "multiclass_classification_metrics.weighted_f1.value" => "0.97"; "model quality by whole path")]
    #[test_case(QUALITY, "multiclass_classification_metrics.accuracy.standard_deviation" => "0.01"; "deviation")]
    #[test_case(OWN, "val:acc" => "0.5"; "own file")]
    #[test_case(OWN, "a.b" => "2"; "own file, name with a dot")]
    #[test_case(OWN, "loss" => "it is text, and no number"; "own file, NaN")]
    #[test_case(&OWN.replace("/1", "/2"), "a" => "m.json has no metrics that can be read: its `schema` is of another version of sagemaker-executor"; "own file of another version")]
    #[test_case("[1]", "a" => "m.json has no metrics that can be read: it is no object of JSON"; "no object")]
    #[test_case("{\n  \"a\": 1,\n}", "a" => "m.json has no metrics that can be read: line 3, column 1: a key in double quotes is expected"; "no json")]
    #[test_case("accuracy 0.9", "a" => "m.json has no metrics that can be read: line 1, column 9: no value of JSON ends here"; "text in a file of json")]
    #[test_case(r#"{"schema": "sagemaker-executor/metrics/1", "schema": "x", "metrics": {"a": 1}}"#, "a" => "m.json has no metrics that can be read: it has the key `schema` twice"; "own file, schema twice")]
    #[test_case(r#"{"schema": 1, "schema": "sagemaker-executor/metrics/2", "a": 1}"#, "a" => "m.json has no metrics that can be read: it has the key `schema` twice"; "own file, schema twice turned around")]
    #[test_case("\u{feff}{}", "a" => "m.json has no metrics that can be read: it begins with a byte order mark (BOM)"; "a byte order mark")]
    #[test_case(" \n", "a" => "m.json has no metrics that can be read: it is empty"; "empty")]
    fn metrics_of_json_are_found(text: &str, wanted: &str) -> String {
        value_in(&[("m.json", text)], &[], wanted)
    }

    #[test_case("acc{split=\"test\"}" => "0.5"; "by a label")]
    #[test_case("acc{split=\"train\"}" => "1"; "by another label")]
    #[test_case("acc" => "it is there 2 times, in m.txt; name its labels, as in `accuracy{split=\"test\"}>=0.8`"; "without labels")]
    #[test_case("acc{split=\"x\"}" => "no file has this metric; like acc, dot, dots, hex, loss"; "an unknown label")]
    #[test_case("loss" => "it is NaN"; "NaN")]
    #[test_case("up" => "it is infinite"; "infinite")]
    #[test_case("signs" => "it is no number"; "two signs")]
    #[test_case("minus" => "it is no number"; "two signs turned around")]
    #[test_case("dot" => "it is no number"; "a dot")]
    #[test_case("dots" => "it is no number"; "two dots")]
    #[test_case("hex" => "it is no number"; "hexadecimal")]
    fn metrics_of_open_metrics_are_found(wanted: &str) -> String {
        value_in(&[("m.txt", TEXT)], &[], wanted)
    }

    #[test]
    fn a_metric_of_two_files_is_doubled() {
        let files = [("a.json", r#"{"a": 1, "b": 2}"#), ("b.txt", "a 1\n")];
        assert_eq!(value_in(&files, &[], "a"), "it is there 2 times, in a.json and b.txt");
        assert_eq!(value_in(&files, &[], "b"), "2");
    }

    #[test_case("f1=$.report.f1" => "0.123456789012345678901234567"; "one value, as written")]
    #[test_case("f1=$.runs[?@.best == true].f1" => "0.7"; "by a filter")]
    #[test_case("f1=$.runs[*].f1" => "it is there 2 times, in m.json"; "several values")]
    #[test_case("f1=$.none" => "no file has this metric"; "no value")]
    #[test_case("f1=$.report" => "it is an object"; "an object")]
    #[test_case("accuracy=$.report.f1" => "it is there 2 times, in m.json"; "the name of another metric")]
    fn a_metric_is_found_by_json_path(path: &str) -> String {
        let text = r#"{"accuracy": 1, "report": {"f1": 0.123456789012345678901234567},
            "runs": [{"f1": 0.5, "best": false}, {"f1": 0.7, "best": true}]}"#;
        let wanted = path.split('=').next().unwrap();
        let found = value_in(&[("m.json", text)], &[path], wanted);
        found.split("; like").next().unwrap().to_owned()
    }

    #[test_case(r#"{"runs": [{"id": 1, "id": 2, "f1": 0.9}]}"#, "f1=$.runs[?@.id == 2].f1"; "in a filter")]
    #[test_case(r#"{"runs": [{"f1": 0.1}], "runs": [{"f1": 0.9}]}"#, "f1=$..f1"; "on the way of a search")]
    #[test_case(r#"{"a": [[{"b": 1, "b": 1}]], "report": {"f1": 0.9}}"#, "f1=$.report.f1"; "elsewhere")]
    #[test_case(r#"{"report": 1, "report": 1}"#, "f1=$.report"; "the key itself")]
    fn a_key_that_is_twice_in_the_file_makes_each_path_uncertain(text: &str, path: &str) {
        assert_eq!(value_in(&[("m.json", text)], &[path], "f1"), "m.json has its key twice");
    }

    /// Each name is the long key with a short one.
    #[test]
    fn long_names_of_many_values_are_not_kept() {
        let members: Vec<_> = (0..20_000).map(|number| format!("\"{number}\": 1")).collect();
        let text = format!("{{\"{}\": {{{}}}, \"acc\": 1}}", "k".repeat(1 << 20), members.join(","));
        let metrics = Metrics::parse(&[source("m.json", &text)], &[]).unwrap();
        let [first, last] = [0, 1].map(|at| metrics.all[at].path.clone());
        assert!(Arc::ptr_eq(first.parent().unwrap(), last.parent().unwrap()));
        assert_eq!(metrics.similar("accuracy"), ["acc"]);
        assert_eq!(metrics.similar(&"a".repeat(400_000)), [""; 0]);
    }

    #[test]
    fn a_wrong_path_is_told() {
        for (text, why) in [("f1", "it has no `=`"), ("=$.a", "the name cannot be read"), ("a{b=\"c\"}=$.a", "")] {
            let failure = MetricPath::parse(text).unwrap_err();
            assert!(failure.message().contains(why), "{}", failure.message());
        }
        assert!(MetricPath::parse("f1=report.f1").unwrap_err().message().starts_with("`report.f1` of `--metric`"));
    }

    #[test]
    fn bytes_that_are_no_text_are_told() {
        let source = MetricsSource { name: "m".to_owned(), bytes: vec![b'a', 0xff] };
        let failure = Metrics::parse(&[source], &[]).unwrap_err();
        assert_eq!(failure.message(), "m has no metrics that can be read: it is not UTF-8");
    }

    #[test]
    fn the_hash_is_that_of_the_file_or_of_the_list() {
        let hash = |files: &[MetricsSource]| Metrics::parse(files, &[]).unwrap().sha256();
        let one = hash(&[source("a.json", "{}")]);
        assert_eq!(one, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
        let list = format!("{one}  a.json\n{one}  b.json\n");
        assert_eq!(hash(&[source("a.json", "{}"), source("b.json", "{}")]), hex(&Sha256::digest(list)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), text in r#"[{}\[\]",:a0.e\-NaI ]{0,40}"#) {
            let paths = [MetricPath::parse("x=$..a").unwrap()];
            for bytes in [bytes, text.into_bytes()] {
                for name in ["m.json", "m.txt"] {
                    let source = MetricsSource { name: name.to_owned(), bytes: bytes.clone() };
                    if let Ok(metrics) = Metrics::parse(&[source], &paths) {
                        let _ = metrics.value(&Selector::parse("a").unwrap());
                    }
                }
            }
        }
    }
}
