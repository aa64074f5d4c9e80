//! Environments of one manifest that have the same endpoint, where each deployment would replace that of the other one. Pure.

use serde_json::Value;

use super::places::join;
use super::shape::Mistake;

/// A mistake for each of these environments that has its endpoint in the place of another one. Of two that are both looked at, the later
/// one has it.
pub(super) fn check(manifest: &Value, looked_at: &[String]) -> Vec<Mistake> {
    let all: Vec<_> = manifest["environments"].as_object().into_iter().flat_map(|entries| entries.keys()).collect();
    let mut mistakes = Vec::new();
    for (number, name) in looked_at.iter().enumerate() {
        let Some(place) = place(manifest, name) else { continue };
        let later = looked_at.get(number..).unwrap_or_default();
        let other = all.iter().find(|other| !later.contains(**other) && self::place(manifest, other) == Some(place));
        if let Some(other) = other {
            let message = format!(
                "has the account, the region and the `endpoint.name` of `{other}`: each deployment to one would replace that to the other. Give \
                 one of them another name in its `patch`"
            );
            mistakes.push((join("environments", name), message));
        }
    }
    mistakes
}

/// Account, region and name of an environment's endpoint. `None` with a variable, which has other values in the jobs of others.
fn place<'a>(manifest: &'a Value, environment: &str) -> Option<[&'a str; 3]> {
    let entry = &manifest["environments"][environment];
    let endpoint = match entry["patch"].get("endpoint") {
        Some(Value::Null) => return None,
        Some(patch) if patch.get("name").is_some() => patch,
        _ => &manifest["endpoint"],
    };
    let text = |value: &'a Value| value.as_str().filter(|text| !text.contains("${"));
    Some([text(&entry["account"])?, text(&entry["region"])?, text(&endpoint["name"])?])
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use test_case::test_case;

    use super::*;

    fn manifest() -> Value {
        let place = json!({"account": "123456789012", "region": "eu-west-1"});
        json!({"endpoint": {"name": "wine"}, "environments": {"prod": place, "test": place}})
    }

    #[test_case(&["prod", "test"] => vec!["environments.test"]; "both")]
    #[test_case(&["prod"] => vec!["environments.prod"]; "the first alone")]
    #[test_case(&["test"] => vec!["environments.test"]; "the last alone")]
    #[test_case(&["absent"] => Vec::<String>::new(); "another one")]
    fn one_endpoint_of_two_environments_is_a_mistake(looked_at: &[&str]) -> Vec<String> {
        let looked_at: Vec<_> = looked_at.iter().map(|name| (*name).to_owned()).collect();
        check(&manifest(), &looked_at).into_iter().map(|(path, _)| path).collect()
    }

    #[test_case("/environments/test/region", "eu-west-2"; "region")]
    #[test_case("/environments/test/account", "210987654321"; "account")]
    #[test_case("/environments/test/account", "${ACCOUNT:123456789012}"; "account of the job")]
    #[test_case("/endpoint/name", "wine-${CI_ENVIRONMENT_SLUG}"; "name of the job")]
    fn each_place_of_its_own_is_none(key: &str, value: &str) {
        let mut manifest = manifest();
        *manifest.pointer_mut(key).unwrap() = json!(value);
        assert_eq!(check(&manifest, &["prod", "test"].map(str::to_owned)), []);
    }

    #[test_case(json!({"endpoint": {"name": "wine-test"}}); "own name")]
    #[test_case(json!({"endpoint": null}); "no endpoint")]
    fn a_patch_tells_them_apart(patch: Value) {
        let mut manifest = manifest();
        manifest["environments"]["test"]["patch"] = patch;
        assert_eq!(check(&manifest, &["prod", "test"].map(str::to_owned)), []);
    }
}
