//! Requests and replies in the query protocol: names with dots in a form, and XML.

use serde_json::{Map, Value, json};

use super::alarm::rfc3339;
use crate::model::{Model, Shape};
use crate::protocol::escape_xml;
use crate::services::form::Form;

/// The members of a request, with the types of its shape. A value that is not of its type stays a text, which the model refuses.
pub(super) fn members(form: &Form, model: &Model, shape: &Shape) -> Value {
    member(form, model, shape, "").unwrap_or_else(|| json!({}))
}

fn member(form: &Form, model: &Model, shape: &Shape, path: &str) -> Option<Value> {
    let within = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match shape {
        Shape::Structure { members } => {
            let found = members.iter().filter_map(|one| {
                let path = within(&one.name);
                form.has(&path)
                    .then(|| Some((one.name.clone(), member(form, model, model.shape(&one.shape), &path)?)))?
            });
            let found: Map<String, Value> = found.collect();
            Some(Value::Object(found))
        }
        Shape::List { member: each, .. } => {
            let paths = (1..).map(|number| within(&format!("member.{number}"))).take_while(|path| form.has(path));
            Some(paths.filter_map(|path| member(form, model, model.shape(each), &path)).collect())
        }
        Shape::Map { .. } => None,
        Shape::Boolean => Some(match form.text(path)? {
            "true" => json!(true),
            "false" => json!(false),
            other => json!(other),
        }),
        Shape::Integer { .. } => {
            form.text(path).map(|text| text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)))
        }
        Shape::Float { .. } => {
            form.text(path).map(|text| text.parse::<f64>().map_or_else(|_| json!(text), |number| json!(number)))
        }
        Shape::Timestamp => {
            let text = form.text(path)?;
            let since = humantime::parse_rfc3339_weak(text).ok()?.duration_since(std::time::UNIX_EPOCH);
            Some(since.map_or_else(|_| json!(text), |since| json!(since.as_secs_f64())))
        }
        Shape::String(_) | Shape::Blob => form.text(path).map(|text| json!(text)),
    }
}

fn element(out: &mut String, name: &str, (value, model): (&Value, &Model), shape: &str) {
    out.extend(["<", name, ">"]);
    write(out, value, model, model.shape(shape));
    out.extend(["</", name, ">"]);
}

/// The members of a result.
pub(super) fn xml(value: &Value, model: &Model, shape: &Shape) -> String {
    let mut text = String::new();
    write(&mut text, value, model, shape);
    text
}

fn write(out: &mut String, value: &Value, model: &Model, shape: &Shape) {
    match (value, shape) {
        (Value::Object(entries), Shape::Structure { members }) => {
            for one in members {
                if let Some(value) = entries.get(&one.name).filter(|value| !value.is_null()) {
                    element(out, &one.name, (value, model), &one.shape);
                }
            }
        }
        (Value::Object(entries), Shape::Map { key, value: each, .. }) => {
            for (name, value) in entries {
                out.push_str("<entry>");
                element(out, "key", (&json!(name), model), key);
                element(out, "value", (value, model), each);
                out.push_str("</entry>");
            }
        }
        (Value::Array(items), Shape::List { member, .. }) => {
            for item in items {
                element(out, "member", (item, model), member);
            }
        }
        (Value::Number(seconds), Shape::Timestamp) => {
            out.push_str(&rfc3339(milliseconds(seconds.as_f64().unwrap_or_default())));
        }
        (Value::String(text), _) => out.push_str(&escape_xml(text)),
        (other, _) => out.push_str(&other.to_string()),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time of this emulator")]
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_becomes_members_and_a_result_xml() {
        let model = Model::cloudwatch();
        let form = Form::of(
            &"/".parse().unwrap(),
            b"Action=PutMetricAlarm&AlarmName=a+b&Threshold=1.5&Period=60&ActionsEnabled=false&OKActions=&\
              Dimensions.member.1.Name=EndpointName&Dimensions.member.1.Value=live&EvaluationPeriods=x",
        );
        let read = members(&form, model, model.request("PutMetricAlarm"));
        let dimensions = json!([{"Name": "EndpointName", "Value": "live"}]);
        assert_eq!(
            read,
            json!({
                "AlarmName": "a b", "Threshold": 1.5, "Period": 60, "ActionsEnabled": false, "OKActions": [],
                "Dimensions": dimensions, "EvaluationPeriods": "x",
            })
        );
        let shape = model.result("DescribeAlarms").unwrap();
        let result = json!({"MetricAlarms": [{"AlarmName": "a<b", "StateUpdatedTimestamp": 1.5, "Period": 60}], "NextToken": null});
        assert_eq!(
            xml(&result, model, shape),
            "<MetricAlarms><member><AlarmName>a&lt;b</AlarmName><StateUpdatedTimestamp>1970-01-01T00:00:01.500Z\
             </StateUpdatedTimestamp><Period>60</Period></member></MetricAlarms>"
        );
    }
}
