//! Drawings of files with metrics in a report: a confusion matrix and learning curves. No I/O.

use std::collections::BTreeMap;

use super::json::Json;
use super::metrics::MetricsSource;
use crate::base::series::Series;
use crate::report::{Across, ConfusionMatrix, LearningCurve};

/// Keys of a matrix, of the names of its classes, and of curves by name.
const MATRIX: &str = "confusion_matrix";
const CLASSES: [&str; 4] = ["classes", "labels", "class_names", "target_names"];
const CURVES: [&str; 3] = ["learning_curve", "learning_curves", "history"];
/// Most classes of a matrix that is kept.
const MOST_CLASSES: usize = 1000;

/// The things to draw.
#[derive(Debug, Default)]
pub(crate) struct Drawn {
    /// The first that is found.
    pub(crate) matrix: Option<ConfusionMatrix>,
    pub(crate) curves: Vec<LearningCurve>,
}

impl Drawn {
    /// Looks into the files that are JSON. What has another form is left out: a gate does not judge it.
    pub(crate) fn find(sources: &[MetricsSource]) -> Self {
        let mut drawn = Self::default();
        for source in sources {
            let text = std::str::from_utf8(&source.bytes).unwrap_or_default();
            if !text.trim_start().starts_with('{') {
                continue;
            }
            let Ok(Json::Object(members)) = Json::parse(text) else { continue };
            drawn.matrix = drawn.matrix.or_else(|| matrix(&members));
            drawn.curves.extend(curves(&members));
        }
        drawn
    }
}

fn member<'a>(members: &'a [(String, Json)], key: &str) -> Option<&'a Json> {
    members.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

/// The matrix at the top, or in a group of SageMaker's model quality.
fn matrix(members: &[(String, Json)]) -> Option<ConfusionMatrix> {
    let groups = members.iter().filter(|(key, _)| key.ends_with("_classification_metrics"));
    let in_groups = groups.filter_map(|(_, group)| match group {
        Json::Object(group) => member(group, MATRIX),
        _ => None,
    });
    let found = member(members, MATRIX).into_iter().chain(in_groups).next()?;
    match found {
        Json::List(rows) => {
            let counts = rows.iter().map(numbers).collect::<Option<Vec<_>>>()?;
            let named = CLASSES.iter().filter_map(|key| member(members, key)).filter_map(names);
            let named = named.into_iter().find(|names| names.len() == counts.len());
            let classes = named.unwrap_or_else(|| (0..counts.len()).map(|number| number.to_string()).collect());
            (counts.len() <= MOST_CLASSES).then(|| ConfusionMatrix::new(&classes, counts))?
        }
        Json::Object(rows) if rows.len() <= MOST_CLASSES => {
            let classes: Vec<String> = rows.iter().map(|(class, _)| class.clone()).collect();
            let counts = rows.iter().map(|(_, row)| of_classes(row, &classes)).collect::<Option<Vec<_>>>()?;
            ConfusionMatrix::new(&classes, counts)
        }
        _ => None,
    }
}

/// The counts of an object by classes; a class that is absent was never predicted.
fn of_classes(row: &Json, classes: &[String]) -> Option<Vec<f64>> {
    let Json::Object(row) = row else { return None };
    let by_name: BTreeMap<&str, &Json> = row.iter().map(|(class, count)| (class.as_str(), count)).collect();
    classes.iter().map(|class| by_name.get(class.as_str()).map_or(Some(0.0), |count| number(count))).collect()
}

fn names(value: &Json) -> Option<Vec<String>> {
    let Json::List(values) = value else { return None };
    let name = |value: &Json| match value {
        Json::Text(text) | Json::Number(text) => Some(text.clone()),
        _ => None,
    };
    values.iter().map(name).collect()
}

fn numbers(value: &Json) -> Option<Vec<f64>> {
    let Json::List(values) = value else { return None };
    values.iter().map(number).collect()
}

fn number(value: &Json) -> Option<f64> {
    match value {
        Json::Number(text) => text.parse().ok(),
        _ => None,
    }
}

/// The lists of numbers of an object, each a value a step.
fn curves(members: &[(String, Json)]) -> Vec<LearningCurve> {
    let objects = CURVES.iter().filter_map(|key| match member(members, key)? {
        Json::Object(lists) => Some(lists),
        _ => None,
    });
    let curve = |(name, values): &(String, Json)| {
        let Json::List(values) = values else { return None };
        let mut series = Series::default();
        for (step, value) in (1..).zip(values) {
            series.push(step, number(value).unwrap_or(f64::NAN));
        }
        (series.count() > 0).then(|| LearningCurve { name: name.clone(), across: Across::Steps, series })
    };
    objects.flatten().filter_map(curve).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str) -> Drawn {
        Drawn::find(&[MetricsSource { name: "m.json".to_owned(), bytes: text.as_bytes().to_vec() }])
    }

    #[test]
    fn a_matrix_has_two_forms() {
        let list = find(r#"{"confusion_matrix": [[5, 1], [0, 4]], "labels": ["cat", "dog"]}"#).matrix.unwrap();
        assert_eq!((list.classes.join(","), list.counts), ("cat,dog".to_owned(), vec![vec![5.0, 1.0], vec![0.0, 4.0]]));
        let unnamed = find(r#"{"confusion_matrix": [[5, 1], [0, 4]], "labels": ["cat"]}"#).matrix.unwrap();
        assert_eq!(unnamed.classes, ["0", "1"]);
        let quality =
            r#"{"multiclass_classification_metrics": {"confusion_matrix": {"a": {"a": 3}, "b": {"a": 1, "b": 2}}}}"#;
        let object = find(quality).matrix.unwrap();
        assert_eq!((object.classes.join(","), object.counts), ("a,b".to_owned(), vec![vec![3.0, 0.0], vec![1.0, 2.0]]));
    }

    #[test]
    fn other_forms_are_left_out() {
        let rows: Vec<_> = (0..=MOST_CLASSES).map(|number| format!("\"{number}\": {{}}")).collect();
        let many = format!("{{{}}}", rows.join(","));
        for odd in [
            "[1, 2]",
            "[[1], [2]]",
            "[[1, -1], [0, 0]]",
            "[[1, NaN], [0, 0]]",
            "[[\"1\"]]",
            "{\"a\": 1}",
            "[]",
            "7",
            &many,
        ] {
            let drawn = find(&format!("{{\"confusion_matrix\": {odd}, \"history\": {odd}}}"));
            assert!(drawn.matrix.is_none() && drawn.curves.is_empty(), "{odd}");
        }
        for text in ["", "accuracy 1\n", "{", "[]"] {
            assert!(find(text).matrix.is_none());
        }
    }

    #[test]
    fn lists_of_numbers_are_curves_in_bounded_memory() {
        let many = "1.5,".repeat(400_000);
        let drawn =
            find(&format!(r#"{{"history": {{"loss": [1, NaN, 0.5], "note": "x", "many": [{many}2], "no": [null]}}}}"#));
        let names: Vec<_> = drawn.curves.iter().map(|curve| curve.name.as_str()).collect();
        assert_eq!(names, ["loss", "many"]);
        assert_eq!((drawn.curves[0].series.count(), drawn.curves[0].series.last()), (2, Some(0.5)));
        assert!(drawn.curves[1].series.points().len() <= crate::base::series::MOST_POINTS);
    }
}
