//! Buildspecs of version 0.2: variables, and the commands of each phase. Pure.

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Map, Value};

use crate::protocol::text;

/// The phases that have commands, in their order.
pub(super) const PHASES: [&str; 4] = ["install", "pre_build", "build", "post_build"];

/// The parts of a buildspec that are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Buildspec {
    /// Runs by `bash`, else by `sh`.
    pub(super) bash: bool,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) phases: Vec<PhaseCommands>,
    /// Parts that are not done here.
    pub(super) ignored: Vec<String>,
}

/// The commands of one phase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PhaseCommands {
    pub(super) name: &'static str,
    pub(super) commands: Vec<String>,
    pub(super) finally: Vec<String>,
    pub(super) on_failure: OnFailure,
}

/// The way on after a phase that failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// The build goes on to `post_build` after `build`, and ends otherwise.
    #[default]
    Usual,
    Abort,
    Continue,
}

impl Buildspec {
    /// Reads a buildspec; an error says what is wrong, as the service does.
    pub(super) fn parse(yaml: &str) -> Result<Self, String> {
        let documents = Yaml::load_from_str(yaml).map_err(|error| format!("Invalid YAML: {error}"))?;
        let spec = documents.first().map_or(Ok(Value::Null), value)?;
        let version = match &spec["version"] {
            Value::Number(number) => number.to_string(),
            Value::String(version) => version.clone(),
            _ => return Err("The buildspec has no version".to_owned()),
        };
        if version != "0.2" {
            return Err(format!("The buildspec has the version {version}; 0.2 is run here"));
        }
        let environment = &spec["env"];
        if ["parameter-store", "secrets-manager"].iter().any(|kind| !environment[*kind].is_null()) {
            return Err(
                "Variables of `parameter-store` and `secrets-manager` in a buildspec are not emulated".to_owned()
            );
        }
        let variables = environment["variables"].as_object().into_iter().flatten();
        let variables = variables.map(|(name, value)| (name.clone(), plain(value))).collect();
        let mut phases = Vec::new();
        for name in PHASES {
            let phase = &spec["phases"][name];
            let on_failure = match text(phase, "on-failure") {
                None => OnFailure::Usual,
                Some("ABORT") => OnFailure::Abort,
                Some("CONTINUE") => OnFailure::Continue,
                Some(other) => return Err(format!("on-failure of {name} is {other}; ABORT and CONTINUE are run here")),
            };
            let (commands, finally) = (commands(&phase["commands"])?, commands(&phase["finally"])?);
            phases.push(PhaseCommands { name, commands, finally, on_failure });
        }
        if phases.iter().all(|phase| phase.commands.is_empty()) {
            return Err("The buildspec has no commands: at least one of the phases must have `commands`".to_owned());
        }
        let others = spec.as_object().into_iter().flatten().map(|(name, _)| name.clone());
        let ignored = others.filter(|name| !["version", "env", "phases"].contains(&name.as_str())).collect();
        Ok(Self { bash: text(environment, "shell") == Some("bash"), variables, phases, ignored })
    }
}

/// A list of commands, or one.
fn commands(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(one) => Ok(vec![one.clone()]),
        Value::Array(all) => all
            .iter()
            .map(|one| one.as_str().map(str::to_owned).ok_or_else(|| "a command is no string".to_owned()))
            .collect(),
        _ => Err("commands are no list".to_owned()),
    }
}

/// A value as a variable has it.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn value(yaml: &Yaml<'_>) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(truth)) => (*truth).into(),
        Yaml::Value(Scalar::Integer(number)) => (*number).into(),
        Yaml::Value(Scalar::FloatingPoint(number)) => number.into_inner().into(),
        Yaml::Value(Scalar::String(text)) => text.clone().into_owned().into(),
        Yaml::Sequence(items) => Value::Array(items.iter().map(value).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let mut map = Map::new();
            for (key, item) in entries {
                let key = value(key)?;
                let key = key.as_str().ok_or_else(|| format!("the key {key} is no text"))?.to_owned();
                map.insert(key, value(item)?);
            }
            Value::Object(map)
        }
        _ => return Err("the buildspec has a form of YAML that is not read here".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_variables_and_policies_are_read() {
        let text = "version: 0.2\nenv:\n  shell: bash\n  variables:\n    A: b\n    N: 3\nphases:\n  build:\n    on-failure: ABORT\n    commands:\n      - echo a\n      - |\n        echo b\n        echo c\n    finally:\n      - echo d\nartifacts:\n  files: ['x']\n";
        let spec = Buildspec::parse(text).unwrap();
        assert!(spec.bash);
        assert_eq!(spec.variables, BTreeMap::from([("A", "b"), ("N", "3")].map(|(a, b)| (a.to_owned(), b.to_owned()))));
        let build = &spec.phases[2];
        assert_eq!(build.commands, ["echo a", "echo b\necho c\n"]);
        assert_eq!((build.finally.as_slice(), build.on_failure), (["echo d".to_owned()].as_slice(), OnFailure::Abort));
        assert_eq!(spec.ignored, ["artifacts"]);
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        for (text, part) in [
            ("version: 0.1\nphases: {build: {commands: [a]}}", "0.2"),
            ("phases: {build: {commands: [a]}}", "no version"),
            ("version: 0.2\nphases: {}", "no commands"),
            ("version: 0.2\nphases: {build: {commands: [1]}}", "no string"),
            ("version: 0.2\nphases: {build: {commands: [a], on-failure: RETRY}}", "RETRY"),
            ("version: 0.2\nenv: {secrets-manager: {A: b}}\nphases: {build: {commands: [a]}}", "secrets-manager"),
            ("a: [", "Invalid YAML"),
        ] {
            let error = Buildspec::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
