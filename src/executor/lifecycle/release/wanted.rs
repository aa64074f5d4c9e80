//! The place of a package in GitLab: a file of a generic package, and of a stable one a release. Pure.

use crate::base::failure::Failure;
use crate::base::plain;
use crate::gitlab::api::{NewRelease, PackageFilePlace, Release, ReleaseLink};
use crate::lifecycle::package::{PackageKind, PackageMetadata};

/// Longest name in GitLab's columns.
const LONGEST_NAME: usize = 255;
/// Characters that Git refuses in the name of a tag.
const REFUSED_IN_TAGS: [char; 8] = [' ', '~', '^', ':', '?', '*', '[', '\\'];

/// The options of the command that choose names.
#[derive(Debug, Clone, Default)]
pub(super) struct ChosenNames {
    pub(super) tag: Option<String>,
    pub(super) name: Option<String>,
    pub(super) registry_package: Option<String>,
}

/// The file and the release that GitLab must have in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publication {
    pub(super) place: PackageFilePlace,
    /// Of the file, 64 lower-case digits.
    pub(super) sha256: String,
    pub(super) bytes: u64,
    /// Where GitLab's API serves the file.
    pub(super) url: String,
    /// Absent for a candidate.
    pub(super) release: Option<NewRelease>,
}

/// A package that was opened and verified.
#[derive(Debug, Clone, Copy)]
pub(super) struct VerifiedFile<'a> {
    pub(super) metadata: &'a PackageMetadata,
    pub(super) sha256: &'a str,
    pub(super) bytes: u64,
    /// Text of its release, Markdown.
    pub(super) description: &'a str,
}

impl Publication {
    /// # Errors
    /// Failures of the user that name the option to change.
    pub(super) fn of(
        file: VerifiedFile<'_>,
        names: &ChosenNames,
        url: impl Fn(&PackageFilePlace) -> String,
    ) -> Result<Self, Failure> {
        let metadata = file.metadata;
        let place = place(&package_name(metadata, names)?, &metadata.name);
        let url = url(&place);
        let release = match metadata.kind {
            PackageKind::Candidate => {
                check_candidate(names)?;
                None
            }
            PackageKind::Stable => {
                let tag = names.tag.clone().unwrap_or_else(|| place.version.clone());
                check_tag(&tag)?;
                let name = names.name.clone().unwrap_or_else(|| tag.clone());
                check_name(&name)?;
                let links = vec![ReleaseLink { name: place.file.clone(), url: url.clone() }];
                let commit = metadata.commit.id.to_ascii_lowercase();
                Some(NewRelease { tag, commit, name, description: file.description.to_owned(), links })
            }
        };
        Ok(Self { place, sha256: file.sha256.to_owned(), bytes: file.bytes, url, release })
    }

    /// Refuses to make another tag in the pipeline of a tag: the pipeline of the new one would make the next.
    pub(super) fn check_pipeline_of_tag(&self, pipeline: &str) -> Result<(), Failure> {
        let Some(release) = self.release.as_ref().filter(|release| release.tag != pipeline) else { return Ok(()) };
        let [shown, tag] = [pipeline, release.tag.as_str()].map(|tag| plain::line(tag, LONGEST_NAME));
        Err(Failure::user(format!("the pipeline of the tag {shown} would make another tag, {tag}, whose pipeline would make the next"))
            .hint("release on the default branch alone (`if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH` in the job's `rules`), or set `--tag \"$CI_COMMIT_TAG\"`"))
    }
}

/// The name of the generic package.
///
/// # Errors
/// GitLab takes no package of this name.
pub(super) fn package_name(metadata: &PackageMetadata, names: &ChosenNames) -> Result<String, Failure> {
    let name = names.registry_package.as_ref().unwrap_or(&metadata.model.group);
    let is_taken = |letter: char| letter.is_ascii_alphanumeric() || "._+-".contains(letter);
    let has_form = (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(is_taken);
    if has_form && !name.contains("..") && name != "." {
        return Ok(name.clone());
    }
    let shown = plain::line(name, LONGEST_NAME);
    Err(Failure::user(format!("`{shown}` cannot be the name of a package in GitLab's package registry")).hint(
        "set `--registry-package` to letters, digits, `.`, `_`, `+` and `-`, at most 255, without two dots in a row",
    ))
}

/// The link by which a release carries an earlier package of this name in the registry. `None` when it carries none.
pub(super) fn carried<'a>(
    release: &'a Release,
    package: &str,
    url: impl Fn(&PackageFilePlace) -> String,
) -> Option<(PackageFilePlace, &'a ReleaseLink)> {
    release.links.iter().find_map(|link| {
        let place = place(package, &link.name);
        (url(&place) == link.url).then_some((place, link))
    })
}

fn place(package: &str, file: &str) -> PackageFilePlace {
    let version = file.strip_suffix(".zip").unwrap_or(file);
    PackageFilePlace { package: package.to_owned(), version: version.to_owned(), file: file.to_owned() }
}

/// Refuses a package that another project made: its commit is not one of this project.
///
/// # Errors
/// Both projects are known, and they differ.
pub(super) fn check_project(metadata: &PackageMetadata, project: Option<&str>) -> Result<(), Failure> {
    let (Some(made_in), Some(project)) = (metadata.project.as_deref(), project) else { return Ok(()) };
    if made_in == project {
        return Ok(());
    }
    let [made_in, project] = [made_in, project].map(|path| plain::line(path, LONGEST_NAME));
    Err(Failure::user(format!("{} is a package of the project {made_in}, not of {project}", metadata.name))
        .hint("release it in a job of the project that made it; `CI_PROJECT_PATH` names the job's own"))
}

fn check_candidate(names: &ChosenNames) -> Result<(), Failure> {
    let options = [("--tag", &names.tag), ("--name", &names.name)];
    let Some((option, _)) = options.into_iter().find(|(_, value)| value.is_some()) else { return Ok(()) };
    Err(Failure::user(format!("a candidate has no release, so that `{option}` is for nothing"))
        .hint(format!("leave out `{option}`, or make a stable package with `package --kind stable`")))
}

/// The rules of `git check-ref-format`, and of GitLab.
fn check_tag(tag: &str) -> Result<(), Failure> {
    let is_part = |part: &str| {
        let is_lock = part.strip_suffix(".lock").is_some();
        !part.is_empty() && !part.starts_with('.') && !is_lock
    };
    let has_form = (1..=LONGEST_NAME).contains(&tag.len())
        && !tag.contains(REFUSED_IN_TAGS)
        && !tag.contains(char::is_control)
        && !["..", "@{"].into_iter().any(|text| tag.contains(text))
        && !["refs/heads/", "refs/tags/", "refs/remotes/", "-"].into_iter().any(|start| tag.starts_with(start))
        && !["@", "HEAD"].contains(&tag)
        && !tag.ends_with('.')
        && tag.split('/').all(is_part);
    if has_form {
        return Ok(());
    }
    Err(Failure::user(format!("`{}` cannot be the name of a tag", plain::line(tag, LONGEST_NAME)))
        .hint("set `--tag` to a name that `git check-ref-format --allow-onelevel NAME` takes, of at most 255 bytes"))
}

fn check_name(name: &str) -> Result<(), Failure> {
    if (1..=LONGEST_NAME).contains(&name.len()) && !name.contains(char::is_control) && !name.trim().is_empty() {
        return Ok(());
    }
    Err(Failure::user(format!("`{}` cannot be the name of a release", plain::line(name, LONGEST_NAME)))
        .hint("set `--name` to one line of at most 255 bytes"))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::super::tests::{metadata, url};
    use super::*;
    use crate::base::failure::render;

    fn names(tag: Option<&str>, name: Option<&str>, registry_package: Option<&str>) -> ChosenNames {
        let text = |value: Option<&str>| value.map(str::to_owned);
        ChosenNames { tag: text(tag), name: text(name), registry_package: text(registry_package) }
    }

    fn publication(kind: PackageKind, names: &ChosenNames) -> Result<Publication, Failure> {
        let metadata = metadata(kind);
        let sha256 = "5".repeat(64);
        Publication::of(
            VerifiedFile { metadata: &metadata, sha256: &sha256, bytes: 7, description: "notes" },
            names,
            url,
        )
    }

    #[test]
    fn a_stable_package_is_a_file_and_a_release() {
        let wanted = publication(PackageKind::Stable, &ChosenNames::default()).unwrap();
        assert_eq!(wanted.place.to_string(), "wine/stable-20261129T045233Z/stable-20261129T045233Z.zip");
        let release = wanted.release.unwrap();
        assert_eq!([&release.tag, &release.name], ["stable-20261129T045233Z"; 2]);
        assert_eq!(release.links, [ReleaseLink { name: wanted.place.file.clone(), url: url(&wanted.place) }]);
        let chosen = publication(PackageKind::Stable, &names(Some("v1.0"), Some("One"), Some("w.i_n+e"))).unwrap();
        let release = chosen.release.unwrap();
        assert_eq!([&*release.tag, &*release.name, &*chosen.place.package], ["v1.0", "One", "w.i_n+e"]);
    }

    #[test]
    fn a_candidate_is_a_file_alone() {
        assert_eq!(publication(PackageKind::Candidate, &ChosenNames::default()).unwrap().release, None);
        for chosen in [names(Some("v1"), None, None), names(None, Some("One"), None)] {
            let text = render(&publication(PackageKind::Candidate, &chosen).unwrap_err().into());
            assert!(text.contains("a candidate has no release"), "{text}");
        }
    }

    #[test_case("v1.0" => true)]
    #[test_case("release/1.0" => true)]
    #[test_case("ü" => true)]
    #[test_case("" => false)]
    #[test_case("a b" => false)]
    #[test_case("-a" => false)]
    #[test_case("a..b" => false)]
    #[test_case("a." => false)]
    #[test_case(".a" => false)]
    #[test_case("a/.b" => false)]
    #[test_case("a//b" => false)]
    #[test_case("/a" => false)]
    #[test_case("a/" => false)]
    #[test_case("a.lock" => false)]
    #[test_case("a@{1}" => false)]
    #[test_case("@" => false)]
    #[test_case("HEAD" => false)]
    #[test_case("refs/tags/a" => false)]
    #[test_case("a\u{1b}[2K" => false)]
    fn a_tag_has_the_form(tag: &str) -> bool {
        publication(PackageKind::Stable, &names(Some(tag), None, None)).is_ok()
    }

    #[test_case("wine" => true)]
    #[test_case("" => false)]
    #[test_case("." => false)]
    #[test_case("a..b" => false)]
    #[test_case("a/b" => false)]
    #[test_case("a%2fb" => false)]
    #[test_case("wine\n" => false)]
    fn a_package_has_the_form(name: &str) -> bool {
        let end = publication(PackageKind::Candidate, &names(None, None, Some(name)));
        end.map_err(|failure| assert!(render(&failure.into()).contains("`--registry-package`"))).is_ok()
    }

    #[test]
    fn a_package_of_another_project_is_refused() {
        let metadata = metadata(PackageKind::Stable);
        assert!(check_project(&metadata, Some("group/project")).is_ok() && check_project(&metadata, None).is_ok());
        assert!(check_project(&metadata, Some("group/fork")).is_err());
    }

    #[test]
    fn the_pipeline_of_a_tag_makes_no_other_tag() {
        let stable = publication(PackageKind::Stable, &names(Some("v1.0"), None, None)).unwrap();
        assert!(stable.check_pipeline_of_tag("v1.0").is_ok());
        let text = render(&stable.check_pipeline_of_tag("v0.9").unwrap_err().into());
        assert!(text.contains("`--tag \"$CI_COMMIT_TAG\"`"), "{text}");
        let candidate = publication(PackageKind::Candidate, &ChosenNames::default()).unwrap();
        assert!(candidate.check_pipeline_of_tag("v0.9").is_ok());
    }

    #[test]
    fn a_release_carries_packages_of_the_same_name_alone() {
        let made = publication(PackageKind::Stable, &ChosenNames::default()).unwrap().release.unwrap();
        let mut release = Release {
            tag: made.tag,
            name: made.name,
            commit: made.commit,
            description: String::new(),
            links: made.links,
            url: None,
        };
        let (place, _) = carried(&release, "wine", url).unwrap();
        assert_eq!(place.version, "stable-20261129T045233Z");
        assert_eq!(carried(&release, "beer", url), None);
        release.links[0].url.push('x');
        assert_eq!(carried(&release, "wine", url), None);
    }
}
