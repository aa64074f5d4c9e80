//! Reads the text format of OpenMetrics and Prometheus. No I/O.

use std::collections::BTreeMap;

use super::labels::parse_labels;

/// A line with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    /// As written.
    pub(super) value: String,
}

/// The first line that is no sample and no comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub(super) struct NoOpenMetrics {
    line: usize,
    why: &'static str,
}

/// Characters that separate the parts of a line.
const BLANKS: [char; 2] = [' ', '\t'];

/// Reads all samples; time stamps and exemplars are left out.
pub(super) fn parse(text: &str) -> Result<Vec<Sample>, NoOpenMetrics> {
    let (mut samples, mut has_ended) = (Vec::new(), false);
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_matches(BLANKS).is_empty()) {
        let wrong = |why| NoOpenMetrics { line: number + 1, why };
        // Some programs end a line at a carriage return alone.
        if line.contains(|c: char| c.is_control() && c != '\t') {
            return Err(wrong("it has a control character"));
        }
        if has_ended {
            return Err(wrong("something follows `# EOF`"));
        }
        if line.starts_with('#') {
            has_ended = line.trim_end() == "# EOF";
            continue;
        }
        samples.push(sample(line).ok_or_else(|| wrong("no sample of OpenMetrics, such as `accuracy 0.9`"))?);
    }
    Ok(samples)
}

fn sample(line: &str) -> Option<Sample> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let end = line.find(|c| !is_part(c))?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (labels, rest) = if rest.starts_with('{') { parse_labels(rest)? } else { (BTreeMap::new(), rest) };
    let (value, rest) = word(rest.strip_prefix(BLANKS)?);
    let (time, rest) = if rest.starts_with('#') { ("", rest) } else { word(rest) };
    let has_end = (time.is_empty() || is_number(time)) && (rest.is_empty() || is_exemplar(rest));
    (!value.is_empty() && has_end).then(|| Sample { name: name.to_owned(), labels, value: value.to_owned() })
}

/// The first word, and what follows its blanks.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_matches(BLANKS);
    let (word, rest) = text.split_once(BLANKS).unwrap_or((text, ""));
    (word, rest.trim_start_matches(BLANKS))
}

fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok()
}

/// `# {trace="x"} 0.5 1700000000`.
fn is_exemplar(text: &str) -> bool {
    let labels = text.strip_prefix('#').map(|rest| rest.trim_start_matches(BLANKS)).and_then(parse_labels);
    labels.is_some_and(|(_, rest)| {
        let (value, rest) = word(rest);
        let (time, rest) = word(rest);
        is_number(value) && (time.is_empty() || is_number(time)) && rest.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test]
    fn samples_are_read_with_labels_time_stamps_and_exemplars() {
        let text = "# HELP accuracy Of the test set\n# TYPE accuracy gauge\naccuracy 0.91\n\n\
                    f1{split=\"test\",model=\"a b\"}\t0.7 1700000000 # {trace=\"x\"} 1\nloss{} NaN\r\n# EOF\n";
        let samples = parse(text).unwrap();
        let shown: Vec<_> =
            samples.iter().map(|sample| (sample.name.as_str(), sample.labels.len(), sample.value.as_str())).collect();
        assert_eq!(shown, [("accuracy", 0, "0.91"), ("f1", 2, "0.7"), ("loss", 0, "NaN")]);
    }

    #[test_case("a 1\nb" => "line 2: no sample of OpenMetrics, such as `accuracy 0.9`"; "no value")]
    #[test_case("a=1" => "line 1: no sample of OpenMetrics, such as `accuracy 0.9`"; "dotenv")]
    #[test_case("a{b=\"c} 1" => "line 1: no sample of OpenMetrics, such as `accuracy 0.9`"; "open labels")]
    #[test_case("a{b=\"c\"}1" => "line 1: no sample of OpenMetrics, such as `accuracy 0.9`"; "no blank")]
    #[test_case("1a 1" => "line 1: no sample of OpenMetrics, such as `accuracy 0.9`"; "a digit first")]
    #[test_case(" 1" => "line 1: no sample of OpenMetrics, such as `accuracy 0.9`"; "no name")]
    #[test_case("a 0.9 garbage" => "line 1: no sample of OpenMetrics, such as `accuracy 0.9`"; "a word after the value")]
    #[test_case("a 0.9 1 2" => "line 1: no sample of OpenMetrics, such as `accuracy 0.9`"; "two time stamps")]
    #[test_case("a 0.9 # x" => "line 1: no sample of OpenMetrics, such as `accuracy 0.9`"; "a comment after the value")]
    #[test_case("a 0.9\ra 0.1" => "line 1: it has a control character"; "a carriage return in a line")]
    #[test_case("# x\ra 0.1\na 0.9" => "line 1: it has a control character"; "a carriage return in a comment")]
    #[test_case("# EOF\na 1" => "line 2: something follows `# EOF`"; "after the end")]
    fn what_is_no_sample_is_told(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }
}
