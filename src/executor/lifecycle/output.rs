//! Output of a command: data on stdout as text or JSON, and files for GitLab and for later jobs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::base::failure::Failure;
use crate::base::files;
use crate::ui::Printer;

/// Limits of GitLab for a dotenv file: those of the smallest plan, and of instances that set none.
const MOST_DOTENV_BYTES: usize = 5 << 10;
const MOST_DOTENV_VARIABLES: usize = 20;

#[derive(Debug, Clone, Args)]
pub struct OutputArgs {
    /// Form of the data on stdout
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) output: OutputForm,
    /// Write variables for later jobs into this file, for `artifacts:reports:dotenv`
    #[arg(long, value_name = "FILE")]
    pub(crate) dotenv: Option<PathBuf>,
}

/// Files about tests and values, for GitLab's merge request.
#[derive(Debug, Clone, Default, Args)]
pub struct ReportFileArgs {
    /// Write each check as a test case into this file, for `artifacts:reports:junit`
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Write the values into this file in OpenMetrics format, for `artifacts:reports:metrics`
    #[arg(long, value_name = "FILE")]
    pub(crate) openmetrics: Option<PathBuf>,
}

/// Form of the data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    /// Lines and tables for people
    Text,
    /// One JSON object
    Json,
}

/// The data of a command: JSON by `Serialize`, and its text.
pub(crate) trait Data: Serialize {
    fn text(&self) -> String;
    /// Variables for later jobs.
    fn variables(&self) -> BTreeMap<&'static str, String>;
}

impl OutputArgs {
    /// Refuses a file that cannot be written or that is one of those the command reads, before anything is done.
    ///
    /// # Errors
    /// Failures of the user that name the flag.
    pub(crate) fn check(&self, inputs: &[PathBuf]) -> Result<(), Failure> {
        self.check_with(&ReportFileArgs::default(), inputs)
    }

    /// See [`OutputArgs::check`].
    pub(crate) fn check_with(&self, reports: &ReportFileArgs, inputs: &[PathBuf]) -> Result<(), Failure> {
        let files = [("--junit", reports.junit.as_deref()), ("--openmetrics", reports.openmetrics.as_deref())];
        self.check_files(&files, inputs)
    }

    /// See [`OutputArgs::check`]; `files` are those of other flags.
    pub(crate) fn check_files(&self, files: &[(&str, Option<&Path>)], inputs: &[PathBuf]) -> Result<(), Failure> {
        let files = [("--dotenv", self.dotenv.as_deref())].into_iter().chain(files.iter().copied());
        let inputs: Vec<_> = inputs.iter().filter_map(|input| input.canonicalize().ok()).collect();
        let mut places = Vec::<(&str, PathBuf)>::new();
        for (flag, file) in files {
            let Some(file) = file else { continue };
            let place = check(flag, file)?;
            let refused = |why: String| {
                Failure::user(format!("the file of `{flag}` cannot be written: {} {why}", file.display()))
                    .hint(format!("change `{flag}`"))
            };
            if inputs.iter().any(|input| place.starts_with(input)) {
                return Err(refused("is read by this command, or is in a folder that it reads".to_owned()));
            }
            if let Some((other, _)) = places.iter().find(|(_, other)| *other == place) {
                return Err(refused(format!("is also the file of `{other}`")));
            }
            places.push((flag, place));
        }
        Ok(())
    }

    /// Prints the data, and writes the dotenv file.
    pub(crate) fn leave(&self, data: &impl Data, printer: &Printer) -> anyhow::Result<()> {
        if let Some(file) = &self.dotenv {
            write("--dotenv", file, &dotenv(&data.variables())?)?;
        }
        let mut text = match self.output {
            OutputForm::Text => data.text(),
            OutputForm::Json => serde_json::to_string_pretty(data).context("failed to write the data as JSON")?,
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        printer.write_data(text.as_bytes()).context("failed to write to stdout")
    }
}

impl ReportFileArgs {
    /// Writes the files that are wanted.
    pub(crate) fn leave(
        &self,
        junit: impl FnOnce() -> String,
        openmetrics: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        if let Some(file) = &self.junit {
            write("--junit", file, &junit())?;
        }
        if let Some(file) = &self.openmetrics {
            write("--openmetrics", file, &openmetrics())?;
        }
        Ok(())
    }
}

/// The file's place, without links. Only a regular file is replaced: a link such as `/dev/stdout` would be lost.
pub(crate) fn check(flag: &str, file: &Path) -> Result<PathBuf, Failure> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = folder.canonicalize().ok().filter(|folder| folder.is_dir());
    let why = match (file.file_name(), place) {
        (None, _) => "is no name of a file",
        (_, None) => "is in a folder that does not exist",
        (Some(name), Some(folder)) => match std::fs::symlink_metadata(file) {
            Ok(metadata) if metadata.is_symlink() => "is a symbolic link",
            Ok(metadata) if !metadata.is_file() => "exists, and is no regular file",
            _ => return Ok(folder.join(name)),
        },
    };
    Err(Failure::user(format!("the file of `{flag}` cannot be written: {} {why}", file.display()))
        .hint(format!("change `{flag}`, or make the folder before")))
}

/// Writes the file of a flag, whole or not at all.
pub(crate) fn write(flag: &str, file: &Path, text: &str) -> anyhow::Result<()> {
    check(flag, file)?;
    files::replace_shared(file, text.as_bytes()).map_err(|error| {
        Failure::user(format!("failed to write {}", file.display()))
            .hint(format!("change `{flag}`"))
            .caused_by(error)
            .into()
    })
}

/// `NAME=VALUE` lines as GitLab reads them: values without quotes, which it would keep.
fn dotenv(variables: &BTreeMap<&'static str, String>) -> anyhow::Result<String> {
    let wrong =
        |what: &str| anyhow::anyhow!("the variables for later jobs make no dotenv file that GitLab takes: {what}");
    let mut text = String::new();
    for (name, value) in variables {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(wrong(&format!("`{name}` is no name of a variable")));
        }
        if value.contains(char::is_control) {
            return Err(wrong(&format!("`{name}` has a line break or another control character")));
        }
        text.extend([name, "=", value, "\n"]);
    }
    if variables.len() > MOST_DOTENV_VARIABLES || text.len() > MOST_DOTENV_BYTES {
        return Err(wrong(&format!(
            "{} variables in {} bytes; {MOST_DOTENV_VARIABLES} variables and {MOST_DOTENV_BYTES} bytes fit",
            variables.len(),
            text.len()
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Example {
        name: &'static str,
    }

    impl Data for Example {
        fn text(&self) -> String {
            format!("name {}", self.name)
        }

        fn variables(&self) -> BTreeMap<&'static str, String> {
            BTreeMap::from([("B", self.name.to_owned()), ("A_1", String::new())])
        }
    }

    fn args(output: OutputForm, dotenv: Option<PathBuf>) -> OutputArgs {
        OutputArgs { output, dotenv }
    }

    #[test]
    fn data_goes_to_stdout_and_variables_into_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("build.env");
        let (printer, captured) = Printer::captured();
        let data = Example { name: "arn:aws:x \"quoted\"" };
        args(OutputForm::Text, Some(file.clone())).leave(&data, &printer).unwrap();
        args(OutputForm::Json, None).leave(&data, &printer).unwrap();
        let expected = "name arn:aws:x \"quoted\"\n{\n  \"name\": \"arn:aws:x \\\"quoted\\\"\"\n}\n";
        assert_eq!(String::from_utf8(captured.data()).unwrap(), expected);
        assert_eq!(captured.text(), "");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "A_1=\nB=arn:aws:x \"quoted\"\n");
    }

    #[test]
    fn variables_that_gitlab_would_refuse_or_change_are_an_error() {
        let long = "x".repeat(MOST_DOTENV_BYTES);
        for (name, value) in [("A B", "x"), ("", "x"), ("A", "x\ny"), ("A", "x\r"), ("A", &long)] {
            assert!(dotenv(&BTreeMap::from([(name, value.to_owned())])).is_err(), "{name}");
        }
        let names: Vec<&'static str> =
            (0..21_u8).map(|number| &"AAAAAAAAAAAAAAAAAAAAA"[..=usize::from(number)]).collect();
        let all = |count: usize| dotenv(&names.iter().take(count).map(|name| (*name, String::new())).collect());
        assert!(all(20).is_ok() && all(21).is_err());
    }

    #[test]
    fn a_file_that_cannot_be_written_names_its_flag() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent/build.env");
        let error = args(OutputForm::Text, Some(absent.clone())).check(&[]).unwrap_err();
        let expected = format!(
            "the file of `--dotenv` cannot be written: {} is in a folder that does not exist",
            absent.display()
        );
        assert_eq!(error.message(), expected);
        let of_junit = |file: &Path| {
            let reports = ReportFileArgs { junit: Some(file.to_owned()), openmetrics: None };
            args(OutputForm::Text, None).check_with(&reports, &[])
        };
        assert!(of_junit(folder.path()).unwrap_err().message().ends_with("exists, and is no regular file"));
        assert!(of_junit(Path::new("/dev/null")).unwrap_err().message().starts_with("the file of `--junit`"));
        assert!(of_junit(Path::new("/")).is_err());
        for target in ["new.xml", "/dev/null"] {
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(target, &link).unwrap();
            assert!(of_junit(&link).unwrap_err().message().ends_with("is a symbolic link"));
            let written =
                args(OutputForm::Text, Some(link.clone())).leave(&Example { name: "" }, &Printer::captured().0);
            assert!(written.is_err() && link.is_symlink());
            std::fs::remove_file(&link).unwrap();
        }
        assert!(of_junit(&folder.path().join("new.xml")).is_ok() && of_junit(Path::new("new.xml")).is_ok());
    }

    #[test]
    fn a_file_has_one_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["metrics.json", "link.json", "model"] {
            match name {
                "link.json" => std::os::unix::fs::symlink("metrics.json", path(name)).unwrap(),
                "model" => std::fs::create_dir(path(name)).unwrap(),
                _ => std::fs::write(path(name), "{}").unwrap(),
            }
        }
        let end = |dotenv: &str, junit: &str, input: &str| {
            let reports = ReportFileArgs { junit: Some(path(junit)), openmetrics: None };
            let end = args(OutputForm::Text, Some(path(dotenv))).check_with(&reports, &[path(input)]);
            end.map_err(|failure| failure.message().rsplit('/').next().unwrap().to_owned())
        };
        assert_eq!(end("a", "b", "metrics.json"), Ok(()));
        assert_eq!(end("a", "a", "absent").unwrap_err(), "a is also the file of `--dotenv`");
        assert_eq!(end("a", "model/../a", "absent").unwrap_err(), "a is also the file of `--dotenv`");
        let read = " is read by this command, or is in a folder that it reads";
        assert_eq!(end("a", "metrics.json", "link.json").unwrap_err(), format!("metrics.json{read}"));
        assert_eq!(end("model/a", "b", "model").unwrap_err(), format!("a{read}"));
    }

    #[test]
    fn files_are_written_when_they_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let [junit, openmetrics] = ["junit.xml", "metrics.txt"].map(|name| folder.path().join(name));
        let args = ReportFileArgs { junit: Some(junit.clone()), openmetrics: Some(openmetrics.clone()) };
        args.leave(|| "a".to_owned(), || "b".to_owned()).unwrap();
        assert_eq!([junit, openmetrics].map(|file| std::fs::read_to_string(file).unwrap()), ["a", "b"]);
        ReportFileArgs::default().leave(|| unreachable!(), || unreachable!()).unwrap();
    }
}
