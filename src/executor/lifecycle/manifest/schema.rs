//! The JSON schema of the manifest, made from its types.

use std::sync::LazyLock;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use super::types::Manifest;

/// The schema; `docs/manifest.schema.json` is its text.
pub(super) static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut settings = SchemaSettings::draft2020_12();
    settings.transforms.push(Box::new(RecursiveTransform(limit_number)));
    settings.into_generator().into_root_schema_for::<Manifest>().into()
});

/// `format` is a note for most readers of a schema; `maximum` holds.
fn limit_number(schema: &mut Schema) {
    if schema.get("format").is_some_and(|format| format == "uint32") && schema.get("maximum").is_none() {
        schema.insert("maximum".to_owned(), u32::MAX.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::env::Environment;

    /// `INSTA_UPDATE=always` writes the file, as for the snapshots.
    #[test]
    fn the_committed_schema_is_that_of_the_types() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/manifest.schema.json");
        let text = serde_json::to_string_pretty(&*SCHEMA).unwrap() + "\n";
        if Environment::of_process().get("INSTA_UPDATE") == Some("always") {
            std::fs::write(file, &text).unwrap();
        }
        assert!(std::fs::read_to_string(file).unwrap_or_default() == text, "run this test with `INSTA_UPDATE=always`");
    }
}
