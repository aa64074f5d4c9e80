//! Requests and replies in CBOR, as Smithy's RPC v2 writes them.

use minicbor::data::{IanaTag, Type};
use minicbor::decode::Error;
use minicbor::{Decoder, Encoder};
use serde_json::{Map, Number, Value, json};

use crate::model::{Model, Shape};

/// Depth of lists and maps in one another that a request may have.
const DEEPEST: usize = 32;

/// Reads a request. A time becomes its seconds.
pub(super) fn decode(body: &[u8]) -> Result<Value, Error> {
    value(&mut Decoder::new(body), 0)
}

fn value(decoder: &mut Decoder, depth: usize) -> Result<Value, Error> {
    if depth > DEEPEST {
        return Err(Error::message("it is nested too deeply"));
    }
    Ok(match decoder.datatype()? {
        Type::Bool => Value::Bool(decoder.bool()?),
        Type::Null | Type::Undefined => {
            decoder.skip()?;
            Value::Null
        }
        Type::F16 | Type::F32 | Type::F64 => {
            let number = Number::from_f64(decoder.f64()?);
            Value::Number(number.ok_or_else(|| Error::message("a number is not finite"))?)
        }
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => json!(decoder.u64()?),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => json!(decoder.i64()?),
        Type::String | Type::StringIndef => {
            let parts: Result<Vec<&str>, Error> = decoder.str_iter()?.collect();
            Value::String(parts?.concat())
        }
        Type::Array | Type::ArrayIndef => {
            let mut items = Vec::new();
            let length = decoder.array()?;
            while more(decoder, length, items.len())? {
                items.push(value(decoder, depth + 1)?);
            }
            Value::Array(items)
        }
        Type::Map | Type::MapIndef => {
            let mut entries = Map::new();
            let length = decoder.map()?;
            let mut seen = 0;
            while more(decoder, length, seen)? {
                let name: Result<Vec<&str>, Error> = decoder.str_iter()?.collect();
                entries.insert(name?.concat(), value(decoder, depth + 1)?);
                seen += 1;
            }
            Value::Object(entries)
        }
        Type::Tag if decoder.tag()? == IanaTag::Timestamp.tag() => value(decoder, depth + 1)?,
        other => return Err(Error::message(format!("a value has the type {other}"))),
    })
}

/// Whether another item follows; the end of an indefinite list is read.
fn more(decoder: &mut Decoder, length: Option<u64>, seen: usize) -> Result<bool, Error> {
    if let Some(length) = length {
        return Ok(u64::try_from(seen).is_ok_and(|seen| seen < length));
    }
    let is_end = decoder.datatype()? == Type::Break;
    if is_end {
        decoder.skip()?;
    }
    Ok(!is_end)
}

/// Writes a reply; its shape tells which numbers are times and which have fractions. Without a shape it is text.
pub(super) fn encode(reply: &Value, model: &Model, shape: Option<&Shape>) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    write(&mut encoder, reply, model, shape).expect("writing to memory succeeds");
    encoder.into_writer()
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn write(encoder: &mut Encoder<Vec<u8>>, value: &Value, model: &Model, shape: Option<&Shape>) -> Written {
    match (value, shape) {
        (Value::Object(entries), shape) => {
            let shape_of = |name: &str| match shape {
                Some(Shape::Structure { members }) => {
                    let member = members.iter().find(|member| member.name == name)?;
                    Some(Some(model.shape(&member.shape)))
                }
                Some(Shape::Map { value, .. }) => Some(Some(model.shape(value))),
                _ => Some(None),
            };
            let known = entries.iter().filter(|(_, entry)| !entry.is_null());
            let known: Vec<_> = known.filter_map(|(name, entry)| Some((name, entry, shape_of(name)?))).collect();
            encoder.map(u64::try_from(known.len()).unwrap_or(u64::MAX))?;
            for (name, entry, shape) in known {
                encoder.str(name)?;
                write(encoder, entry, model, shape)?;
            }
        }
        (Value::Array(items), shape) => {
            let each = match shape {
                Some(Shape::List { member, .. }) => Some(model.shape(member)),
                _ => None,
            };
            encoder.array(u64::try_from(items.len()).unwrap_or(u64::MAX))?;
            for item in items {
                write(encoder, item, model, each)?;
            }
        }
        (Value::Number(number), Some(Shape::Timestamp)) => {
            encoder.tag(IanaTag::Timestamp)?.f64(number.as_f64().unwrap_or_default())?;
        }
        (Value::Number(number), Some(Shape::Integer { .. })) => {
            encoder.i64(number.as_i64().unwrap_or_default())?;
        }
        (Value::Number(number), _) => {
            encoder.f64(number.as_f64().unwrap_or_default())?;
        }
        (Value::String(text), _) => {
            encoder.str(text)?;
        }
        (Value::Bool(flag), _) => {
            encoder.bool(*flag)?;
        }
        (Value::Null, _) => {
            encoder.null()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        Model::parse(
            r#"{"target": "T", "operations": {}, "shapes": {
                "Out": {"type": "structure", "members": [
                    ["At", "Time", false], ["Whole", "Whole", false], ["Real", "Real", false], ["All", "Reals", false]]},
                "Time": {"type": "timestamp"}, "Whole": {"type": "integer"}, "Real": {"type": "double"},
                "Reals": {"type": "list", "member": "Real"}
            }}"#,
        )
    }

    #[test]
    fn numbers_are_written_by_their_shape_and_read_again() {
        let (model, reply) =
            (model(), json!({"At": 1.5, "Whole": 2, "Real": 3, "All": [1, 2.5], "Other": 1, "None": null}));
        let bytes = encode(&reply, &model, Some(model.shape("Out")));
        assert_eq!(decode(&bytes).unwrap(), json!({"At": 1.5, "Whole": 2, "Real": 3.0, "All": [1.0, 2.5]}));
        // `At` comes second: a tag of a time before a double.
        let at = bytes.windows(3).position(|part| part == b"bAt").unwrap();
        assert_eq!(bytes.get(at + 3..at + 5), Some(&[0xc1, 0xfb][..]));
    }

    #[test]
    fn lists_and_maps_without_a_length_are_read() {
        let body = [0xbf, 0x61, b'a', 0x9f, 0x01, 0x20, 0xf6, 0xff, 0x61, b'b', 0xf9, 0x3c, 0x00, 0xff];
        assert_eq!(decode(&body).unwrap(), json!({"a": [1, -1, null], "b": 1.0}));
    }

    #[test]
    fn a_broken_body_is_an_error() {
        let deep = [0x81; 100];
        for body in [&[][..], &[0xbf, 0x61], &[0xfb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0], &[0x41, 0], &deep] {
            assert!(decode(body).is_err(), "{body:?}");
        }
    }
}
