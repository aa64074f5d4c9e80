//! Mistakes of components that neither GitLab's schema nor a compiler of pipelines finds. Each finding begins with the name of its
//! rule. Reads parsed YAML and text alone.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::component::{Component, Components, GLOBAL, includes};
use super::shell::calls;
use super::yaml::{all_texts, documents, texts};

/// Commands that need credentials of AWS, by their first words; `release` has the job's token.
const WITH_CREDENTIALS: [&str; 6] = ["image", "model", "endpoint", "package", "prune", "report"];
/// Variables that the `--dotenv` of a command has, and that scripts of later jobs name. `docs/LIFECYCLE.md` lists them.
const WRITTEN: [(&str, &[&str]); 8] = [
    ("image build", &["IMAGE_URI", "IMAGE_DIGEST", "IMAGE_TAG", "TRAINING_IMAGE", "SERVING_IMAGE"]),
    ("image scan", &["IMAGE_SCAN_RESULT"]),
    ("model register", &["MODEL_PACKAGE_ARN", "MODEL_DATA_URL", "IMAGE"]),
    ("model latest", &["MODEL_PACKAGE_ARN", "MODEL_DATA_URL", "IMAGE"]),
    ("package", &["PACKAGE_FILE", "PACKAGE_NAME", "PACKAGE_SHA256", "PACKAGE_URI", "SERVING_IMAGE"]),
    ("endpoint deploy", &["ENDPOINT_NAME", "ENDPOINT_CONFIG_NAME", "MODEL_PACKAGE_ARN", "ENDPOINT_URL"]),
    ("gate", &["GATE_RESULT", "GATE_METRICS_SHA256"]),
    ("release", &["RELEASE_TAG", "RELEASE_URL"]),
];
/// Commands that read a variable without naming it.
const READ: [(&str, &str); 3] =
    [("image scan", "IMAGE_URI"), ("model approve", "MODEL_PACKAGE_ARN"), ("model reject", "MODEL_PACKAGE_ARN")];
/// Options that write a file, and the report of the job that takes it.
const REPORTS: [(&str, &str); 3] = [("--dotenv", "dotenv"), ("--junit", "junit"), ("--openmetrics", "metrics")];

/// Texts that no component has, by their rules.
static PATTERNS: LazyLock<[(&str, Regex); 5]> = LazyLock::new(|| {
    [
        ("literal-arn", r"\barn:aws"),
        ("literal-account", r"\b[0-9]{12}\b"),
        ("latest", r"[:@~]latest\b"),
        ("literal-host", r"\b[a-z0-9-]+\.(com|org|net|io|dev|cloud)\b"),
        ("input-in-flow-mapping", r#"\{[^{}"']*\$\[\["#),
    ]
    .map(|(rule, pattern)| (rule, Regex::new(pattern).unwrap()))
});

pub(super) fn written() -> impl Iterator<Item = &'static str> {
    WRITTEN.iter().flat_map(|(_, names)| names.iter().copied())
}

/// All findings about one component.
pub(super) fn findings(component: &Component, all: &Components) -> Vec<String> {
    let mut found = inputs(component);
    found.extend(text(component));
    // Such a text cannot be read as YAML.
    if found.iter().any(|finding| finding.starts_with("input-in-flow-mapping")) {
        return found;
    }
    let raw = documents(&component.body, &component.name).remove(0);
    found.extend(raw_jobs(&raw));
    found.extend(included(component, all));
    found.extend(super::variables::findings(component, all));
    // The rules below need whole jobs: those of a component with a mistake in its inputs may not even be read.
    if found.is_empty() {
        let pipeline = component.expanded(&Map::new(), all);
        found.extend(keywords(component, &pipeline));
        for (name, job) in jobs(&pipeline) {
            let of_job = [deployment(name, job, &pipeline), quiet(job), commands(job), dotenv(name, job, &pipeline)];
            found.extend(of_job.concat().into_iter().map(|finding| format!("{finding}, job {name}")));
        }
    }
    found
}

/// The jobs of a pipeline.
pub(super) fn jobs(pipeline: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    pipeline.iter().map(|(name, job)| (name.as_str(), job)).filter(|(name, _)| !GLOBAL.contains(name))
}

fn inputs(component: &Component) -> Vec<String> {
    let mut found = Vec::new();
    let used: BTreeSet<_> = component.used().into_iter().collect();
    for (name, entry) in &component.inputs {
        for key in ["type", "description"] {
            if entry[key].as_str().is_none_or(str::is_empty) {
                found.push(format!("input-without-{key}: {name}"));
            }
        }
        if !used.contains(name) {
            found.push(format!("unused-input: {name}"));
        }
        let fits = |value: &Value| match entry["type"].as_str() {
            Some("array") => value.is_array(),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            _ => value.is_string(),
        };
        if entry.get("default").is_some_and(|default| !fits(default)) {
            found.push(format!("default-of-another-type: {name}"));
        }
        let regex = entry["regex"].as_str().map(|form| Regex::new(form).unwrap());
        if let (Some(form), Some(default)) = (regex, entry["default"].as_str())
            && !form.is_match(default)
        {
            found.push(format!("default-without-its-form: {name}"));
        }
    }
    found.extend(
        used.iter().filter(|name| !component.inputs.contains_key(*name)).map(|name| format!("unknown-input: {name}")),
    );
    found
}

fn text(component: &Component) -> Vec<String> {
    let mut found = Vec::new();
    let defaults = component.inputs.iter().filter(|(name, _)| *name != "id_token_audience");
    let defaults = defaults.flat_map(|(_, entry)| all_texts(&entry["default"])).map(str::to_owned);
    let content = component.body.lines().filter(|line| !line.trim_start().starts_with('#')).map(str::to_owned);
    for line in content.chain(defaults) {
        for (rule, pattern) in &*PATTERNS {
            if pattern.is_match(&line) {
                found.push(format!("{rule}: {}", line.trim()));
            }
        }
    }
    found
}

/// Scripts before values are put in.
fn raw_jobs(raw: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (name, job) in jobs(raw.as_object().unwrap()) {
        for key in ["before_script", "script", "after_script"] {
            if texts(&job[key]).iter().any(|line| line.contains("$[[")) {
                found.push(format!("input-in-script: {key} of {name}"));
            }
        }
    }
    found
}

/// What a component passes to the files that it includes: all their inputs, and no other.
fn included(component: &Component, all: &Components) -> Vec<String> {
    let mut found = Vec::new();
    let raw = documents(&component.body, &component.name).remove(0);
    for (name, passed) in includes(&raw) {
        let Some(part) = all.get(&name) else {
            found.push(format!("unknown-include: {name}"));
            continue;
        };
        let (known, passed): (BTreeSet<_>, BTreeSet<_>) = (part.inputs.keys().collect(), passed.keys().collect());
        found.extend(passed.difference(&known).map(|input| format!("unknown-input-passed: {input} of {name}")));
        found.extend(known.difference(&passed).map(|input| format!("input-not-passed: {input} of {name}")));
    }
    found
}

/// A part sets no keyword that holds for all jobs; a flow sets its stages, and `rules` of its workflow.
fn keywords(component: &Component, pipeline: &Map<String, Value>) -> Vec<String> {
    let set = pipeline.keys().filter(|key| GLOBAL.contains(&key.as_str()));
    let allowed = |key: &str| component.is_flow() && (key == "stages" || key == "workflow");
    let mut found: Vec<_> = set.filter(|key| !allowed(key)).map(|key| format!("global-keyword: {key}")).collect();
    let workflow = pipeline.get("workflow").and_then(Value::as_object);
    found.extend(
        workflow
            .into_iter()
            .flat_map(Map::keys)
            .filter(|key| *key != "rules")
            .map(|key| format!("global-keyword: workflow:{key}")),
    );
    found
}

/// What a job that changes an endpoint must have, and the job that stops its environment.
fn deployment(name: &str, job: &Value, pipeline: &Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    let changes = |words: &Vec<String>| {
        let is_change = ["deploy", "rollback", "delete"].contains(&words.get(1).map_or("", String::as_str));
        words.first().is_some_and(|word| word == "endpoint") && is_change && !words.iter().any(|word| word == "--plan")
    };
    let environment = &job["environment"];
    if script(job).iter().any(changes) {
        let has = |rule: &str, is: bool| (!is).then(|| rule.to_owned());
        found.extend(has("deployment-without-environment", environment["name"].is_string()));
        found.extend(has("deployment-without-resource-group", job["resource_group"] == environment["name"]));
        found.extend(has("deployment-interruptible", job["interruptible"] == Value::Bool(false)));
    }
    if let Some(stop) = environment["on_stop"].as_str() {
        let stopping = pipeline.get(stop).map_or(&Value::Null, |job| &job["environment"]);
        if stopping["action"] != "stop" || stopping["name"] != environment["name"] {
            found.push(format!("on-stop-without-its-job: {stop}"));
        }
    }
    if environment["action"] == "stop" && pipeline.get(name).is_some_and(|job| job["needs"].is_null()) {
        // Without `needs` it waits for the stages before, and is not there when one of them failed.
        found.push("stop-that-waits".to_owned());
    }
    found
}

/// A job that may fail without anybody noticing, other than in a merge request. A plan may say that an approval is missing.
fn quiet(job: &Value) -> Vec<String> {
    let calls = script(job);
    let is_plan = !calls.is_empty() && calls.iter().all(|words| words.iter().any(|word| word == "--plan"));
    let is_refusal = |value: &Value| is_plan && *value == json!({"exit_codes": [30]});
    let is_quiet = |value: &Value| !matches!(value, Value::Null | Value::Bool(false)) && !is_refusal(value);
    let mut found = Vec::new();
    if is_quiet(&job["allow_failure"]) && job["when"] != "manual" {
        found.push("quiet-failure".to_owned());
    }
    for rule in job["rules"].as_array().into_iter().flatten() {
        // Such a comparison holds in a merge request alone; one with `null` holds in all other pipelines.
        let is_request =
            rule["if"].as_str().is_some_and(|condition| condition.starts_with("$CI_MERGE_REQUEST_TITLE =~ "));
        if is_quiet(&rule["allow_failure"]) && rule["when"] != "manual" && !is_request {
            found.push(format!("quiet-failure: {rule}"));
        }
    }
    // A plan is made once for machines, and once for people: the second one fails the job.
    if script_lines(job).iter().any(|line| HIDES.is_match(line) && !(is_plan && line.contains(" --plan "))) {
        found.push("quiet-failure in the script".to_owned());
    }
    found
}

/// Forms in which a shell goes on after a command that failed, or loses its exit code.
static HIDES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\|\|\s*(true|:|echo|printf|exit 0)(\s|;|$)|;\s*(true|:|exit 0)\s*(;|$)|\bset \+e\b|\|\s*tee\b|\bif !")
        .unwrap()
});

#[test]
fn a_line_that_hides_a_failure_is_known() {
    for end in ["|| true", "||true", "|| :", "|| echo failed", "|| exit 0", "; true", "| tee log", "; :"] {
        assert!(HIDES.is_match(&format!("python3 -m pytest {end}")), "{end}");
    }
    assert!(HIDES.is_match("if ! python3 -m pytest; then echo failed; fi") && HIDES.is_match("set +e"));
    for line in
        ["[ -n \"$A\" ] || { echo no >&2; exit 1; }", "for file in $A; do set -- \"$@\" \"$file\"; done", "a || exit 1"]
    {
        assert!(!HIDES.is_match(line), "{line}");
    }
}

/// GitLab refuses a pipeline whose exposed artifacts are named by a pattern.
pub(super) fn exposed_pattern(job: &Value) -> Option<String> {
    let artifacts = &job["artifacts"];
    let is_pattern =
        !artifacts["expose_as"].is_null() && texts(&artifacts["paths"]).iter().any(|path| path.contains('*'));
    is_pattern.then(|| format!("exposed-pattern: {}", artifacts["paths"]))
}

fn commands(job: &Value) -> Vec<String> {
    let mut found: Vec<_> = exposed_pattern(job).into_iter().collect();
    for words in script(job) {
        let first = words.first().map_or("", String::as_str);
        if WITH_CREDENTIALS.contains(&first)
            && job["id_tokens"]["SAGEMAKER_ID_TOKEN"]["aud"].as_str().is_none_or(str::is_empty)
        {
            found.push(format!("no-id-token: {first}"));
        }
        for (option, report) in REPORTS {
            let file = words.iter().skip_while(|word| *word != option).nth(1);
            if let Some(file) = file
                && !texts(&job["artifacts"]["reports"][report]).contains(&file.as_str())
            {
                found.push(format!("report-not-taken: {report} {file}"));
            }
        }
    }
    found
}

/// A variable of another job's dotenv report comes from a job in `needs`, with its artifacts.
fn dotenv(name: &str, job: &Value, pipeline: &Map<String, Value>) -> Vec<String> {
    let lines = script_lines(job).join("\n");
    let mut read: BTreeSet<&str> = written().filter(|variable| names(&lines, variable)).collect();
    for words in script(job) {
        read.extend(READ.iter().filter(|(command, _)| is_command(&words, command)).map(|(_, variable)| *variable));
    }
    // Jobs of other components are not known to a part.
    let needs: Vec<_> =
        job["needs"].as_array().into_iter().flatten().filter(|need| need["artifacts"] != false).collect();
    let needed: Vec<_> =
        needs.iter().filter_map(|need| pipeline.get(need["job"].as_str().or(need.as_str())?)).collect();
    if needed.len() < needs.len() {
        return Vec::new();
    }
    let gives = |variable: &str| {
        needed.iter().flat_map(|job| script(job)).any(|words| {
            WRITTEN.iter().any(|(command, names)| is_command(&words, command) && names.contains(&variable))
                && words.iter().any(|word| word == "--dotenv")
        })
    };
    let own = |variable: &str| job["variables"].get(variable).is_some();
    let lacks = read.into_iter().filter(|variable| !gives(variable) && !own(variable));
    lacks.map(|variable| format!("variable-of-no-job: {variable} in {name}")).collect()
}

/// Whether a script has `$VARIABLE` or `${VARIABLE`.
fn names(script: &str, variable: &str) -> bool {
    let is_end = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_');
    script.split('$').skip(1).any(|text| {
        let text = text.strip_prefix('{').unwrap_or(text);
        text.strip_prefix(variable).is_some_and(is_end)
    })
}

fn is_command(words: &[String], command: &str) -> bool {
    command.split(' ').enumerate().all(|(at, word)| words.get(at).is_some_and(|found| found == word))
}

/// The calls of the program in a job.
pub(super) fn script(job: &Value) -> Vec<Vec<String>> {
    calls(&script_lines(job).join("\n"), &|name| sample(name, job))
}

fn script_lines(job: &Value) -> Vec<&str> {
    ["before_script", "script", "after_script"].iter().flat_map(|key| texts(&job[key])).collect()
}

/// A value of a variable: the job's own, else one of the form that its users want.
fn sample(name: &str, job: &Value) -> String {
    let own = &job["variables"][name];
    let own = own.as_str().map(str::to_owned).or_else(|| own.as_i64().map(|number| number.to_string()));
    if let Some(own) = own.filter(|own| !own.is_empty() && !own.starts_with('$')) {
        return own;
    }
    let form = match name {
        "PACKAGE_FILE" => "stable-20261129T045233Z.zip",
        "DEPLOY_VERSION" => "1",
        "ROLLBACK_TO" => "previous",
        name if name.ends_with("ROLE_ARN") => "arn:aws:iam::123456789012:role/example",
        _ => "value",
    };
    form.to_owned()
}
