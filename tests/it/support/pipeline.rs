//! Jobs of a `.gitlab-ci.yml`, with the keywords that the documents use.

use saphyr::{LoadableYamlNode as _, Yaml};

/// One job, with what `default` and the pipeline's `variables` give it.
#[derive(Debug)]
pub(crate) struct PipelineJob {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) script: Vec<String>,
    /// The file of its dotenv report.
    pub(crate) dotenv: Option<String>,
}

/// Keywords at the top that are no jobs.
const GLOBAL: [&str; 6] = ["default", "include", "spec", "stages", "variables", "workflow"];

/// The jobs, in the order of the text.
#[track_caller]
pub(crate) fn jobs(text: &str) -> Vec<PipelineJob> {
    let documents = Yaml::load_from_str(text).unwrap_or_else(|error| panic!("{error} in:\n{text}"));
    let [pipeline] = documents.as_slice() else { panic!("not one pipeline:\n{text}") };
    let default = pipeline.as_mapping_get("default");
    let variables_of_all = variables(pipeline);
    let entries = pipeline.as_mapping().expect("a pipeline has keys");
    let entries = entries.iter().map(|(name, job)| (name.as_str().expect("a name is a text"), job));
    let job = |(name, job): (&str, &Yaml<'_>)| PipelineJob {
        name: name.to_owned(),
        image: job
            .as_mapping_get("image")
            .or_else(|| default?.as_mapping_get("image"))
            .map(texts)
            .and_then(|texts| texts.into_iter().next())
            .unwrap_or_default(),
        variables: variables_of_all.iter().cloned().chain(variables(job)).collect(),
        script: job.as_mapping_get("script").map_or_else(|| panic!("{name} has no script"), texts),
        dotenv: ["artifacts", "reports", "dotenv"]
            .iter()
            .try_fold(job, |at, key| at.as_mapping_get(key))
            .map(|file| texts(file).concat()),
    };
    entries.filter(|(name, _)| !GLOBAL.contains(name)).map(job).collect()
}

/// A text, or a list of texts.
fn texts(value: &Yaml<'_>) -> Vec<String> {
    let text = |value: &Yaml<'_>| value.as_str().unwrap_or_else(|| panic!("{value:?} is no text")).to_owned();
    value.as_sequence().map_or_else(|| vec![text(value)], |values| values.iter().map(text).collect())
}

/// Values that are no texts are refused, because YAML and older versions of GitLab read `true` and `1` in their own ways.
fn variables(of: &Yaml<'_>) -> Vec<(String, String)> {
    let Some(variables) = of.as_mapping_get("variables").and_then(Yaml::as_mapping) else { return Vec::new() };
    let text = |value: &Yaml<'_>| texts(value).concat();
    variables.iter().map(|(name, value)| (text(name), text(value))).collect()
}
