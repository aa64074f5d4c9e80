//! A broken manifest for each kind of mistake, with the line that a person reads.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::base::failure;
use crate::config::env::Environment;

const WHOLE: &str = include_str!("tests/manifest.json");

fn environment() -> Environment {
    let pairs = [("TEAM", "risk"), ("COUNT", "3"), ("NO_COUNT", "many"), ("CI_JOB_TOKEN", "s3cret")];
    Environment::from_pairs(pairs.map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

fn read(text: &str, environment: Option<&str>) -> Result<Manifest, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifest.json");
    std::fs::write(&file, text).unwrap();
    load(&file, environment).map_err(|error| shown(&error, &file))
}

fn load(file: &Path, environment: Option<&str>) -> anyhow::Result<Manifest> {
    Ok(ManifestText::read(file)?.manifest(environment, &self::environment())?)
}

fn shown(error: &anyhow::Error, file: &Path) -> String {
    failure::render(error).replace(&file.display().to_string(), "manifest.json")
}

/// The manifest with the first place of `from` replaced.
fn with(from: &str, to: &str) -> String {
    assert!(WHOLE.contains(from), "{from}");
    WHOLE.replacen(from, to, 1)
}

#[test]
fn an_environment_changes_the_rest() {
    let base = read(WHOLE, None).unwrap();
    assert_eq!((base.target.clone(), base.tags.0["Owner"].as_str()), (EnvironmentEntry::default(), "risk"));
    let manifest = read(WHOLE, Some("prod")).unwrap();
    assert_eq!(manifest.target.account.as_deref(), Some("123456789012"));
    let endpoint = manifest.endpoint.unwrap();
    assert_eq!(endpoint.instances.unwrap().count, 3, "a variable for a number");
    assert_eq!((manifest.tags.0.get("Owner"), manifest.tags.0["CostCenter"].as_str()), (None, "42"));
    assert_eq!(manifest.model.unwrap().environment["PRICE"], "5$ ${x}");
    let staging = read(WHOLE, Some("staging")).unwrap();
    assert_eq!(staging.endpoint.unwrap().serverless.unwrap().memory_mb, 2048);
}

#[test]
fn line_ends_of_windows_are_blanks() {
    assert_eq!(read(&WHOLE.replace('\n', "\r\n"), Some("prod")).unwrap(), read(WHOLE, Some("prod")).unwrap());
}

/// Each mistake with the environment that it is seen in.
const MISTAKES: &[(&str, &str, &str, Option<&str>)] = &[
    ("unknown key", "\"content_types\"", "\"content_type\"", None),
    ("unknown key of nothing known", "\"content_types\": [\"text/csv\"]", "\"zzz\": 1", None),
    ("unknown section", "\"package\"", "\"bundle\"", None),
    ("missing key", "\"group\": \"churn\",", "", None),
    ("number for text", "\"churn\"", "5", None),
    ("text for a number", "\"count\": 2", "\"count\": \"2\"", None),
    ("text for a list", "[\"text/csv\"]", "\"text/csv\"", None),
    ("half a number", "\"count\": 2", "\"count\": 1.5", None),
    ("negative number", "\"count\": 2", "\"count\": -1", None),
    ("huge number", "\"count\": 2", "\"count\": 1e12", None),
    ("list for the file", WHOLE, "[]", None),
    (
        "name of 64 characters",
        "\"churn\"",
        "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
        None,
    ),
    ("tag without digest", "@sha256:", ":", None),
    ("image of another region", "\"region\": \"eu-west-1\"", "\"region\": \"eu-west-3\"", Some("prod")),
    (
        "both kinds of endpoint",
        "\"instances\": {",
        "\"serverless\": {\"memory_mb\": 1000, \"max_concurrency\": 5}, \"instances\": {",
        None,
    ),
    ("no kind of endpoint", "\"instances\": {\"type\": \"ml.m5.large\", \"count\": 2},", "", None),
    (
        "canary with one instance",
        "\"count\": 2},\n    \"autoscaling\": {\"min\": 2",
        "\"count\": 1},\n    \"autoscaling\": {\"min\": 1",
        None,
    ),
    ("bounds of scaling", "\"min\": 2", "\"min\": 9", None),
    ("no step", "\"step_percent\": 10,", "", None),
    ("unknown strategy", "\"canary\"", "\"blue\"", None),
    ("watch below the alarms' period", "\"wait_seconds\": 300", "\"wait_seconds\": 59", None),
    ("limit below the waits", "\"wait_seconds\": 300", "\"wait_seconds\": 3000", None),
    ("short limit", "\"timeout_seconds\": 1800", "\"timeout_seconds\": 60", None),
    ("account of eleven digits", "\"123456789012\"", "\"12345678901\"", Some("prod")),
    ("role of another account", ":123456789012:role", ":210987654321:role", Some("prod")),
    ("role of another partition", "arn:aws:iam", "arn:aws-cn:iam", Some("prod")),
    ("region in words", "\"eu-west-1\"", "\"Ireland\"", Some("prod")),
    ("subnets alone", "\"security_groups\": [\"sg-1\"],", "", Some("prod")),
    ("tag of AWS", "\"Project\"", "\"aws:project\"", None),
    ("twice the same key", "\"package\": {", "\"tags\": {}, \"package\": {", None),
    ("no such environment", "{", "{", Some("production")),
    ("no environments", WHOLE, "{}", Some("prod")),
    ("patch of an environment", "\"patch\": {\"tags\"", "\"patch\": {\"environments\": {}, \"tags\"", Some("prod")),
    ("wrong patch", "\"${COUNT}\"", "\"two\"", Some("prod")),
    ("number by a variable that is none", "${COUNT}", "${NO_COUNT}", Some("prod")),
    ("variable without value", "${TEAM}", "${OWNER}", None),
    ("variable with a secret", "${TEAM}", "${CI_JOB_TOKEN}", None),
    ("no entries", WHOLE, "{\"environments\": {}}", Some("prod")),
    ("empty key", "\"package\": {", "\"\": 1, \"package\": {", None),
    ("metric path that is none", "\"require\"", "\"metric_paths\": {\"f1\": \"report.f1\"}, \"require\"", None),
    ("name of a file that is empty", "\"metrics.json\"", "\"\"", None),
    ("three wrong rules", "\"accuracy>=0.8\"", "\"a=1\", \"b>=x\", \"${TEAM}\", \"c>1\"", None),
    ("bucket with two dots", "\"models\"", "\"mod..els\"", Some("prod")),
    ("patch that is no object", "\"patch\": {\"tags\"", "\"patch\": {\"model\": 5, \"tags\"", Some("prod")),
    ("target of nothing", "\"target\": 100", "\"target\": 0", None),
    ("comment", "  \"model\"", "  // the model\n  \"model\"", None),
    ("comma at the end", "\"include\": [\"docs/**\"]", "\"include\": [\"docs/**\"],", None),
    ("no JSON", WHOLE, "model: churn", None),
    ("empty", WHOLE, " \n", None),
    ("byte order mark", "{", "\u{feff}{", None),
    (
        "four mistakes",
        "\"group\": \"churn\",",
        "\"groups\": 5, \"description\": {}, \"approvals\": {\"min\": 0},",
        Some("prod"),
    ),
];

#[test]
fn every_mistake_is_told_with_its_place() {
    let mut text = String::new();
    for (name, from, to, environment) in MISTAKES {
        let error = read(&with(from, to), *environment).expect_err(name);
        let _ = writeln!(text, "# {name}\n{error}\n");
    }
    assert!(!text.contains("s3cret"));
    insta::assert_snapshot!(text);
}

#[test]
fn a_file_that_is_none_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let refused = |name: &str| shown(&load(&file(name), None).unwrap_err(), &file(name));
    std::fs::write(file("manifest"), "{}").unwrap();
    std::os::unix::fs::symlink(file("manifest"), file("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, file("fifo"), rustix::fs::Mode::RUSR).unwrap();
    std::fs::write(file("large"), vec![b' '; 10 << 20]).unwrap();
    std::fs::write(file("deep"), "{\"a\":".repeat(1000)).unwrap();
    std::fs::write(file("bytes"), b"\xff\xfe{}").unwrap();
    let names = ["absent", "link", "fifo", "large", "deep", "bytes", "."];
    let told: Vec<_> = names.map(refused).into();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn many_keys_have_their_places_quickly_enough() {
    let entries: Vec<_> = (0..40_000).map(|number| format!("\"k{number}\": \"v\"")).collect();
    let error = read(&format!("{{\"tags\": {{{}}}}}", entries.join(", ")), None).unwrap_err();
    assert!(error.contains("has 40000 tags"), "{error}");
}

#[test]
fn many_environments_are_one_mistake() {
    let entries: Vec<_> = (0..4_000).map(|number| format!("\"e{number}\": {{}}")).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifest.json");
    std::fs::write(&file, format!("{{\"environments\": {{{}}}}}", entries.join(", "))).unwrap();
    let text = ManifestText::read(&file).unwrap();
    assert!(text.environments().is_empty());
    let findings = text.of(None, &environment()).findings;
    let told: Vec<_> = findings.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(told, ["has 4000 entries; the most are 100"]);
}

/// Manifests that the schema takes, and manifests that it does not: the reader agrees with both.
const TAKEN: &[(&str, &str)] = &[
    ("\"count\": 2}", "\"count\": 2.0}"),
    ("\"wait_seconds\": 300", "\"wait_seconds\": 3e2"),
    ("\"instances\": {", "\"serverless\": null, \"instances\": {"),
    ("\"test\": {\"samples\": [\"samples.jsonl\"]}", "\"test\": null"),
    ("accuracy>=0.8", " acc{split=\\\"a<b\\\"} <= -1.5e-3 "),
    ("\"require\"", "\"max_regression\": [\"higher:f1 = 0.01\"], \"require\""),
    ("\"region\": \"eu-west-1\"", "\"region\": null"),
];
const REFUSED: &[(&str, &str)] = &[
    ("\"count\": 2}", "\"count\": 5e9}"),
    ("\"count\": 2}", "\"count\": 2.5}"),
    ("\"count\": 2}", "\"count\": null}"),
    ("\"target\": 100", "\"target\": 0"),
    ("\"target\": 100", "\"target\": -0.5"),
    ("accuracy>=0.8", "accuracy=0.8"),
    ("accuracy>=0.8", "accuracy>=.8"),
    ("accuracy>=0.8", "a{>=1"),
    ("\"require\"", "\"max_regression\": [\"f1=-1\"], \"require\""),
    ("\"metrics.json\"", "\"\""),
    ("\"models\"", "\"a..b\""),
    ("\"models\"", "\"ab\""),
    ("\"patch\": {\"tags\"", "\"patch\": {\"environments\": {}, \"tags\""),
    ("\"patch\": {\"tags\"", "\"patch\": {\"model\": 5, \"tags\""),
    ("\"package\": {", "\"\": 1, \"package\": {"),
    ("\"deployment\": {", "\"deployment\": null, \"x\": {"),
];

/// `python3` with `jsonschema` is the other reader of the schema.
#[test]
fn the_schema_and_the_reader_agree() {
    let python = |program: &str, arguments: &[&str]| {
        std::process::Command::new("python3")
            .args(["-c", program])
            .args(arguments)
            .output()
            .is_ok_and(|ended| ended.status.success())
    };
    let has_schemas = python("import jsonschema", &[]);
    let judges =
        "import json, sys, jsonschema; jsonschema.validate(json.loads(sys.argv[2]), json.load(open(sys.argv[1])))";
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/manifest.schema.json");
    for (rows, is_taken) in [(TAKEN, true), (REFUSED, false)] {
        for (from, to) in rows {
            // Variables are no numbers for a reader of the schema.
            let text =
                with(from, to).replace("\"${COUNT}\"", "3").replace("${STAGING_ACCOUNT:210987654321}", "210987654321");
            let readings = [None, Some("prod")].map(|environment| read(&text, environment));
            assert_eq!(readings.iter().all(Result::is_ok), is_taken, "{to}: {readings:?}");
            if has_schemas {
                assert_eq!(python(judges, &[schema, &text]), is_taken, "{to}");
            }
        }
    }
}
