//! The JSON schema of the operator's file, for editors: made from the types of the settings, with the words of `docs/CONFIG.md`.

/// The schema as it is shipped.
pub const SCHEMA: &str = include_str!("../../../docs/operator.schema.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemars::generate::SchemaSettings;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::env::Environment;
    use crate::config::settings::Settings;

    fn file(path: &str) -> String {
        let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The meaning of each key in the table of `docs/CONFIG.md`.
    fn meanings() -> BTreeMap<String, String> {
        let text = file("docs/CONFIG.md");
        let rows = text.lines().filter_map(|line| {
            let cells: Vec<_> = line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ").collect();
            let key = cells.first()?.strip_suffix('`')?;
            let is_key =
                key.contains('.') && key.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte));
            (is_key && cells.len() == 4).then(|| (key.to_owned(), (*cells.get(3)?).to_owned()).into())
        });
        let rows: Vec<Option<(String, String)>> = rows.collect();
        rows.into_iter().flatten().collect()
    }

    fn generated() -> Value {
        let mut schema: Value =
            SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Settings>().into();
        bound(&mut schema);
        schema["title"] = json!("The operator's file of sagemaker-executor");
        let meanings = meanings();
        assert!(meanings.len() > 60, "{}", meanings.len());
        for (key, meaning) in &meanings {
            let place = place_of(&mut schema, key)
                .unwrap_or_else(|| panic!("`{key}` of docs/CONFIG.md is no key of the schema"));
            place["description"] = json!(meaning);
        }
        schema
    }

    /// Adds the largest number of each `u32`, which schemars leaves to its format.
    fn bound(schema: &mut Value) {
        if schema["format"] == "uint32" {
            schema["maximum"] = json!(u32::MAX);
        }
        match schema {
            Value::Object(members) => members.values_mut().for_each(bound),
            Value::Array(items) => items.iter_mut().for_each(bound),
            _ => {}
        }
    }

    /// The schema of a key, through the definitions of the tables above it.
    fn place_of<'v>(schema: &'v mut Value, key: &str) -> Option<&'v mut Value> {
        let mut at = String::new();
        let mut names = key.split('.').peekable();
        while let Some(name) = names.next() {
            at = format!("{at}/properties/{name}");
            let found = schema.pointer(&at)?;
            if names.peek().is_some() {
                let of_items = found.get("items").unwrap_or(found);
                let reference = of_items.get("$ref").or_else(|| of_items.pointer("/allOf/0/$ref"))?.as_str()?;
                at = reference.strip_prefix('#')?.to_owned();
            }
        }
        schema.pointer_mut(&at)
    }

    /// `INSTA_UPDATE=always` writes the file, as for the snapshots.
    #[test]
    fn the_committed_schema_is_that_of_the_types() {
        let text = serde_json::to_string_pretty(&generated()).unwrap() + "\n";
        if Environment::of_process().get("INSTA_UPDATE") == Some("always") {
            std::fs::write(format!("{}/../../docs/operator.schema.json", env!("CARGO_MANIFEST_DIR")), &text).unwrap();
        }
        assert!(file("docs/operator.schema.json") == text, "run this test with `INSTA_UPDATE=always`");
        assert!(SCHEMA.starts_with('{'));
    }
}
