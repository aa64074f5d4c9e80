//! Reads samples from the text of a file: JSON, JSON lines, or CSV. No I/O.

use serde_json::Value;
use serde_json_path::JsonPath;

use super::sample::{SampleEntry, SampleExpectation, ValueRule};

/// Name of the column of a CSV file that says what the answer must be; with `:` and a JSONPath, what the value there must be.
const EXPECT: &str = "expect";

/// The form of a file with samples, by its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SampleForm {
    /// A list of samples.
    Json,
    /// A sample in each line.
    JsonLines,
    /// The body of a request in each line.
    Csv,
    /// The file is the body of one request.
    Body,
}

impl SampleForm {
    pub(super) fn of(name: &str) -> Self {
        match name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).as_deref() {
            Some("json") => Self::Json,
            Some("jsonl" | "ndjson") => Self::JsonLines,
            Some("csv") => Self::Csv,
            _ => Self::Body,
        }
    }
}

/// The samples of a JSON file, with their numbers from 1 on.
///
/// # Errors
/// Why the text is no list of samples.
pub(super) fn json(text: &str) -> Result<Vec<(usize, SampleEntry)>, String> {
    let list: Vec<SampleEntry> =
        serde_json::from_str(text).map_err(|error| format!("it is no list of samples: {error}"))?;
    Ok((1..).zip(list).collect())
}

/// The samples of a file with JSON lines, with the numbers of their lines.
///
/// # Errors
/// The first line that is no sample, and why.
pub(super) fn json_lines(text: &str) -> Result<Vec<(usize, SampleEntry)>, String> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let parse = |(number, line): (usize, &str)| {
        let entry = serde_json::from_str(line).map_err(|error| {
            // The error's own line is always the first.
            format!("line {number} is no sample: {}", error.to_string().replace("line 1 column", "column"))
        })?;
        Ok((number, entry))
    };
    lines.map(parse).collect()
}

/// The samples of a CSV file, with the numbers of their lines. Every line is a request, unless the first one names a column `expect`.
///
/// # Errors
/// The first line that cannot be used, and why.
pub(super) fn csv(text: &str) -> Result<Vec<(usize, SampleEntry)>, String> {
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).peekable();
    let header = lines.peek().map(|(_, line)| fields(line)).unwrap_or_default();
    let column = Column::of(&header)?;
    if column.is_some() {
        lines.next();
    }
    let parse = |(number, line): (usize, &str)| {
        let (body, expect) = match &column {
            None => (line.to_owned(), SampleExpectation::default()),
            Some(column) => column.split(line, header.len()).map_err(|why| format!("line {number} {why}"))?,
        };
        Ok((number, csv_entry(body, expect)))
    };
    lines.map(parse).collect()
}

fn csv_entry(body: String, expect: SampleExpectation) -> SampleEntry {
    SampleEntry {
        name: None,
        content_type: Some("text/csv".to_owned()),
        accept: None,
        body: Some(Value::String(body)),
        body_file: None,
        body_base64: None,
        expect,
    }
}

/// The column that says what the answer must be.
struct Column {
    at: usize,
    /// Where in the answer; the whole answer when absent.
    path: Option<JsonPath>,
}

impl Column {
    fn of(header: &[&str]) -> Result<Option<Self>, String> {
        let is_own = |name: &str| name == EXPECT || name.starts_with("expect:");
        let mut found = header.iter().map(|field| unquoted(field)).enumerate().filter(|(_, name)| is_own(name));
        let Some((at, name)) = found.next() else { return Ok(None) };
        if found.next().is_some() {
            return Err("two columns are named `expect`: write rules for several values as JSON lines".to_owned());
        }
        let path = name.strip_prefix("expect:").map(|path| {
            JsonPath::parse(path.trim()).map_err(|error| format!("the column `{name}` has no JSONPath: {error}"))
        });
        Ok(Some(Self { at, path: path.transpose()? }))
    }

    /// The other fields of a line, and what the answer must be.
    fn split(&self, line: &str, columns: usize) -> Result<(String, SampleExpectation), String> {
        let mut fields = fields(line);
        if fields.len() != columns {
            return Err(format!("has {} fields, and the first line has {columns}", fields.len()));
        }
        let value = unquoted(fields.remove(self.at));
        if value.is_empty() {
            return Err(format!("has nothing in the column `{EXPECT}`"));
        }
        // A number is compared as one; anything else is text.
        let number = serde_json::from_str::<Value>(&value).ok().filter(Value::is_number);
        let value = number.unwrap_or(Value::String(value));
        let expect = match &self.path {
            None => SampleExpectation { equals: Some(value), ..SampleExpectation::default() },
            Some(path) => SampleExpectation { json: vec![equal(path, value)], ..SampleExpectation::default() },
        };
        Ok((fields.join(","), expect))
    }
}

fn equal(path: &JsonPath, value: Value) -> ValueRule {
    ValueRule {
        path: path.clone(),
        equals: Some(value),
        min: None,
        max: None,
        near: None,
        tolerance: None,
        relative_tolerance: None,
    }
}

/// The fields of a line as written. A comma within double quotes separates none.
fn fields(line: &str) -> Vec<&str> {
    let mut is_quoted = false;
    let separates = |c: char| {
        is_quoted ^= c == '"';
        c == ',' && !is_quoted
    };
    line.split(separates).collect()
}

/// A field without its double quotes and the blanks around it.
fn unquoted(field: &str) -> String {
    let field = field.trim();
    let inner = field.strip_prefix('"').and_then(|field| field.strip_suffix('"'));
    inner.map_or_else(|| field.to_owned(), |inner| inner.replace("\"\"", "\""))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("samples.JSONL" => SampleForm::JsonLines)]
    #[test_case("samples.ndjson" => SampleForm::JsonLines)]
    #[test_case("a.b.json" => SampleForm::Json)]
    #[test_case("rows.csv" => SampleForm::Csv)]
    #[test_case("cat.jpg" => SampleForm::Body)]
    #[test_case("json" => SampleForm::Body)]
    fn the_extension_says_the_form(name: &str) -> SampleForm {
        SampleForm::of(name)
    }

    fn shown(samples: Result<Vec<(usize, SampleEntry)>, String>) -> Vec<String> {
        let show = |(number, entry): (usize, SampleEntry)| {
            let SampleEntry { body, expect, .. } = entry;
            let rules: Vec<_> =
                expect.json.iter().map(|rule| format!("{}={}", rule.path, rule.equals.as_ref().unwrap())).collect();
            let equals = expect.equals.map(|value| value.to_string()).unwrap_or_default();
            format!("{number}: {} -> {equals}{}", body.unwrap(), rules.join(" "))
        };
        samples.map_or_else(|why| vec![why], |samples| samples.into_iter().map(show).collect())
    }

    #[test]
    fn every_line_of_csv_is_a_request_without_a_column_for_the_answer() {
        assert_eq!(shown(csv("1,2\r\n\n\"a,b\",3\n")), ["1: \"1,2\" -> ", "3: \"\\\"a,b\\\",3\" -> "]);
        assert_eq!(shown(csv("")), [""; 0]);
    }

    #[test]
    fn a_column_says_what_the_answer_must_be() {
        let text = "x,expect,y\n1,0.5,\"a,b\"\n2,\"say \"\"no\"\"\",c\n";
        assert_eq!(shown(csv(text)), ["2: \"1,\\\"a,b\\\"\" -> 0.5", "3: \"2,c\" -> \"say \\\"no\\\"\""]);
        assert_eq!(shown(csv("x, expect:$.predictions[0]\n1,007\n")), ["2: \"1\" -> $.predictions[0]=\"007\""]);
    }

    #[test_case("expect,expect\n" => "two columns are named `expect`: write rules for several values as JSON lines"; "two columns")]
    #[test_case("x,expect\n1,2\n1\n" => "line 3 has 1 fields, and the first line has 2"; "a field too few")]
    #[test_case("x,expect\n1,\n" => "line 2 has nothing in the column `expect`"; "no value")]
    fn csv_that_cannot_be_used_is_told(text: &str) -> String {
        csv(text).unwrap_err()
    }

    #[test]
    fn samples_of_json_have_their_numbers() {
        assert_eq!(shown(json(r#"[{"body": null}, {"body": [1]}]"#)), ["1: null -> ", "2: [1] -> "]);
        let lines = "{\"body\": \"a\"}\n\n{\"body\": 1, \"expect\": {\"equals\": null}}\n";
        assert_eq!(shown(json_lines(lines)), ["1: \"a\" -> ", "3: 1 -> null"]);
    }

    #[test_case("{}" => "it is no list of samples: invalid type: map, expected a sequence at line 1 column 0"; "no list")]
    #[test_case("[{\"bodi\": 1}]" => "it is no list of samples: unknown field `bodi`, expected one of `name`, `content_type`, `accept`, `body`, `body_file`, `body_base64`, `expect` at line 1 column 8"; "a misspelt key")]
    fn json_that_is_no_sample_is_told(text: &str) -> String {
        json(text).unwrap_err()
    }

    #[test]
    fn a_key_twice_in_a_body_is_told() {
        let why = json_lines("{\"body\": {\"a\": 1, \"a\": 2}}\n").unwrap_err();
        assert!(why.starts_with("line 1 is no sample: the key `a` is there twice"), "{why}");
    }

    #[test]
    fn a_line_that_is_no_sample_is_told() {
        let why = json_lines("{\"body\": 1}\n{\"body\": }\n").unwrap_err();
        assert_eq!(why, "line 2 is no sample: expected value at column 10");
    }

    /// The samples of the page can be used.
    #[test]
    fn the_examples_of_the_page_are_samples() {
        let page = include_str!("../../../../../docs/LIFECYCLE.md");
        let block = page.split("```jsonl\n").nth(1).unwrap().split("```").next().unwrap();
        let samples = json_lines(block).unwrap();
        assert_eq!(samples.len(), 3);
        assert!(samples.iter().all(|(_, sample)| sample.expect.mistake().is_none()));
    }
}
