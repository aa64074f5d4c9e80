//! JSON merge patches (RFC 7386). Pure.

use serde_json::{Map, Value};

/// Changes `target` as the patch says: objects are merged, `null` removes a key, everything else replaces.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        patch.clone_into(target);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(entries) = target else { return };
    for (name, change) in changes {
        if change.is_null() {
            entries.remove(name);
        } else {
            merge(entries.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_pass_by_value, reason = "each row makes its values")]

    use serde_json::json;
    use test_case::test_case;

    use super::*;

    // The examples of the RFC.
    #[test_case(json!({"a": "b"}), json!({"a": "c"}) => json!({"a": "c"}); "replaces")]
    #[test_case(json!({"a": "b"}), json!({"b": "c"}) => json!({"a": "b", "b": "c"}); "adds")]
    #[test_case(json!({"a": "b", "b": "c"}), json!({"a": null}) => json!({"b": "c"}); "removes")]
    #[test_case(json!({"a": ["b"]}), json!({"a": "c"}) => json!({"a": "c"}); "list by text")]
    #[test_case(json!({"a": "c"}), json!({"a": ["b"]}) => json!({"a": ["b"]}); "text by list")]
    #[test_case(json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}) => json!({"a": {"b": "d"}}); "inner")]
    #[test_case(json!({"a": [{"b": "c"}]}), json!({"a": [1]}) => json!({"a": [1]}); "lists are not merged")]
    #[test_case(json!({"e": null}), json!({"a": 1}) => json!({"e": null, "a": 1}); "null of the target stays")]
    #[test_case(json!([1, 2]), json!({"a": "b", "c": null}) => json!({"a": "b"}); "object by list")]
    #[test_case(json!({}), json!({"a": {"bb": {"ccc": null}}}) => json!({"a": {"bb": {}}}); "null of a new object")]
    fn a_patch_changes(mut target: Value, patch: Value) -> Value {
        merge(&mut target, &patch);
        target
    }
}
