//! Mounts of a Dockerfile's `RUN` that lead out of the build: to files of the machine, and to passwords and secrets of the build.
//!
//! Builders without the fixes of CVE-2024-1753 and CVE-2024-9675 follow links of the context, of other images and of caches, and `..` in the
//! id of a cache, on the machine. So that it does not depend on the builder, a mount is refused unless its path is known to stay inside.

use std::path::Path;

use crate::base::failure::Failure;
use crate::base::plain;

/// Versions of buildah that follow no link of another image out of it (CVE-2024-1753): this and later ones, and the fixes of an older branch.
const MENDED: (u32, u32, u32) = (1, 35, 1);
const MENDED_BRANCH: (u32, u32, u32) = (1, 33, 7);

/// Parts of paths.
type Parts<'a> = Vec<&'a str>;

/// Refuses options of `RUN` whose mounts may lead out of the build, and gives back one that is safe with a mended builder alone.
/// `context` is the copied context.
///
/// # Errors
/// Failures of the user that name the option.
pub(super) fn check<'a>(options: &'a [String], context: &Path) -> Result<Option<&'a str>, Failure> {
    let (mut caches, mut binds) = (Vec::<Parts<'_>>::new(), Vec::<(Parts<'_>, bool)>::new());
    let mut of_images = None;
    for option in options {
        if option.contains(['$', '"', '\'', '\\', '`']) {
            let why = "has a variable, a quotation mark or a backslash, so that nobody knows what it mounts";
            return Err(refused(option, why, "write the values of the options of `RUN` out, without quotation marks"));
        }
        let Some(text) = option.strip_prefix("--mount=") else { continue };
        let mount = Mount::of(text);
        if mount.all("type").count() > 1 {
            return Err(refused(option, "has several types", "name one `type`"));
        }
        mount.check_words(option)?;
        match mount.one(&["type"]).unwrap_or("bind") {
            "secret" | "ssh" | "tmpfs" => {}
            kind if mount.one(&["from"]).is_some() => {
                if !mount.one(&SOURCES).is_none_or(|source| parts(source).is_empty()) {
                    of_images = Some(option.as_str());
                }
                if kind == "cache" {
                    caches.push(mount.cache(option)?);
                }
            }
            "cache" => caches.push(mount.cache(option)?),
            _ => {
                let source = parts(mount.one(&SOURCES).unwrap_or_default());
                check_in_context(option, &source, context)?;
                binds.push((source, mount.is_writable()));
            }
        }
    }
    // A link that one step makes in a folder leads the next one elsewhere, when this mounts something below that folder.
    let is_inside = |inner: &Parts<'_>, outer: &Parts<'_>| inner.len() > outer.len() && inner.starts_with(outer);
    if let Some(inner) = caches.iter().find(|inner| caches.iter().any(|outer| is_inside(inner, outer))) {
        let why = "is a cache inside of another cache";
        return Err(refused(&inner.join("/"), why, "give each cache of the Dockerfile an `id` without `/`"));
    }
    let is_written = |inner: &Parts<'_>| binds.iter().any(|(outer, is_rw)| *is_rw && is_inside(inner, outer));
    if let Some((inner, _)) = binds.iter().find(|(inner, _)| is_written(inner)) {
        let why = "is mounted from a folder that another mount may write to";
        return Err(refused(&inner.join("/"), why, "remove `rw` from the mounts of the context, or `COPY` the files"));
    }
    Ok(of_images)
}

/// Tells that a builder follows no link of another image, by the answer to `--version`: `buildah version 1.28.2 (image-spec ...)`.
pub(super) fn is_mended(answer: &str) -> bool {
    let number = answer.split_whitespace().nth(2).unwrap_or_default();
    let mut numbers = number.split('.').map(|part| part.split(|one: char| !one.is_ascii_digit()).next()?.parse().ok());
    let mut next = || numbers.next().flatten();
    let (Some(major), Some(minor), Some(patch)) = (next(), next(), next()) else { return false };
    let version = (major, minor, patch);
    version >= MENDED || (version >= MENDED_BRANCH && (major, minor) == (MENDED_BRANCH.0, MENDED_BRANCH.1))
}

/// The failure of a Dockerfile that a builder without the fix would not confine.
pub(super) fn needs_mended(option: &str) -> Failure {
    let why = "mounts a path of another image, which this buildah follows to files of the machine (CVE-2024-1753)";
    refused(option, why, "copy it with `COPY --from=`, or use an image of the job with buildah 1.35.1 or later")
}

const SOURCES: [&str; 2] = ["source", "src"];
const TARGETS: [&str; 3] = ["target", "dst", "destination"];
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// The words of a mount, as `source=data`.
struct Mount<'a>(Vec<(&'a str, Option<&'a str>)>);

impl<'a> Mount<'a> {
    fn of(text: &'a str) -> Self {
        let word = |part: &'a str| part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
        Self(text.split(',').map(word).collect())
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| *name == key).filter_map(|(_, value)| *value)
    }

    /// The last value of one of these keys, as in builders.
    fn one(&self, keys: &[&str]) -> Option<&'a str> {
        self.0.iter().rev().find(|(name, _)| keys.contains(name)).map(|(_, value)| value.unwrap_or_default())
    }

    fn is_writable(&self) -> bool {
        self.0.iter().any(|(key, value)| {
            ["rw", "readwrite"].contains(key) || (["ro", "readonly"].contains(key) && value.is_some())
        })
    }

    /// Refuses `..` wherever a builder makes a path of it, and an option of the mount in the place of its propagation (CVE-2024-9407).
    fn check_words(&self, option: &str) -> Result<(), Failure> {
        let is_path = |key: &str| key == "id" || SOURCES.contains(&key) || TARGETS.contains(&key);
        let climbs = |value: &str| value.split('/').any(|part| part == "..");
        if self.0.iter().any(|(key, value)| is_path(key) && value.is_some_and(climbs)) {
            return Err(refused(option, "has `..`, which leads out of its folder", "remove `..` from the path"));
        }
        let is_known = |value: &str| PROPAGATIONS.contains(&value);
        if !self.all("bind-propagation").all(is_known) {
            return Err(refused(option, "has a propagation that is none", "remove `bind-propagation`"));
        }
        Ok(())
    }

    /// The folder of a cache, below that of all caches.
    fn cache(&self, option: &str) -> Result<Parts<'a>, Failure> {
        let target = self.one(&TARGETS).unwrap_or_default();
        let (name, hint) = match self.one(&["id"]) {
            Some(id) if id.starts_with('/') => {
                return Err(refused(option, "has an id that begins with `/`", "give the cache an `id` without `/`"));
            }
            Some(id) => (id, "give the cache an `id` without `/`"),
            None if target.starts_with('/') => (target, "give the cache an `id`"),
            None => ("", "give the cache an `id`, or a `target` that begins with `/`"),
        };
        if self.one(&["from"]).is_none() && self.one(&SOURCES).is_some() {
            let why = "mounts a part of a cache, which a step may have made a link";
            return Err(refused(option, why, "remove `source`, and give each cache an `id`"));
        }
        let folder = parts(name);
        if folder.is_empty() {
            return Err(refused(option, "is a cache without a name", hint));
        }
        Ok(folder)
    }
}

fn check_in_context(option: &str, source: &Parts<'_>, context: &Path) -> Result<(), Failure> {
    let mut path = context.to_owned();
    for part in source {
        path.push(part);
        let is_link = path.symlink_metadata().map(|data| data.is_symlink());
        let why = match is_link {
            Ok(false) => continue,
            Ok(true) => "follows a link of the context",
            Err(_) => "is not in the context",
        };
        let hint = "name a file or folder of the context itself, or copy the files with `COPY`; `.dockerignore` may leave it out";
        return Err(refused(option, why, hint));
    }
    Ok(())
}

fn parts(path: &str) -> Parts<'_> {
    path.split('/').filter(|part| !["", "."].contains(part)).collect()
}

fn refused(option: &str, why: &str, hint: &str) -> Failure {
    let shown = plain::line(option, 200);
    Failure::user(format!("the Dockerfile's `{shown}` {why}")).hint(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    /// A context with a file, and a link to the root of the machine.
    fn checked(options: &[&str]) -> Result<Option<String>, String> {
        let context = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(context.path().join("src/data")).unwrap();
        std::os::unix::fs::symlink("/", context.path().join("src/root")).unwrap();
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let done = check(&options, context.path());
        done.map(|option| option.map(str::to_owned)).map_err(|failure| failure.message().to_owned())
    }

    #[test_case(&["--mount=type=bind,source=src/root,target=/h,rw"], "follows a link"; "a link")]
    #[test_case(&["--mount=src=src/root/etc,target=/h"], "follows a link"; "behind a link, without a type")]
    #[test_case(&["--mount=type=bind,source=absent,target=/h"], "is not in the context"; "what a step may make")]
    #[test_case(&["--mount=type=bind,source=../auth.json,target=/h"], "`..`"; "above")]
    #[test_case(&["--mount=type=cache,id=../../..//etc,target=/h"], "`..`"; "id above")]
    #[test_case(&["--mount=type=cache,id=/etc,target=/h"], "begins with `/`"; "absolute id")]
    #[test_case(&["--mount=type=cache,target=/a/../../h"], "`..`"; "target above")]
    #[test_case(&["--mount=type=cache,target=h"], "without a name"; "relative target")]
    #[test_case(&["--mount=type=cache,id=a,source=l,target=/h"], "part of a cache"; "a part of a cache")]
    #[test_case(&["--mount=type=cache,target=/a", "--mount=type=cache,id=a/l,target=/h"], "inside of another cache"; "a cache in a cache")]
    #[test_case(&["--mount=type=bind,target=/c,rw", "--mount=type=bind,source=src/data,target=/h"], "may write to"; "a folder that is written")]
    #[test_case(&["--mount=type=bind,target=/c,ro=false", "--mount=source=src,target=/h"], "may write to"; "not read-only")]
    #[test_case(&["--mount=type=bind,source=$A,target=/h"], "a variable"; "variable")]
    #[test_case(&["--m\\ount=type=bind,source=src/root,target=/h"], "a backslash"; "escaped")]
    #[test_case(&["--mount=type=tmpfs,type=bind,source=src/root,target=/h"], "several types"; "types")]
    #[test_case(&["--mount=type=bind,bind-propagation=rbind,target=/h"], "propagation"; "propagation")]
    fn a_mount_that_may_lead_out_is_refused(options: &[&str], said: &str) {
        let error = checked(options).unwrap_err();
        assert!(error.contains(said), "{error}");
    }

    #[test_case(&["--mount=type=secret,id=pip", "--network=none", "--mount=type=tmpfs,target=/t"]; "others")]
    #[test_case(&["--mount=type=bind,source=src/data,target=/d", "--mount=type=bind,target=/c"]; "the context")]
    #[test_case(&["--mount=type=bind,source=./src/data/,target=/d,rw"]; "writable")]
    #[test_case(&["--mount=type=cache,target=/root/.cache/pip", "--mount=type=cache,id=apt,target=/root/.cache"]; "caches")]
    #[test_case(&["--mount=type=bind,from=r.example/a,source=/,target=/a"]; "all of an image")]
    fn other_mounts_are_taken(options: &[&str]) {
        assert_eq!(checked(options), Ok(None));
    }

    #[test]
    fn a_path_of_an_image_needs_a_mended_builder() {
        let option = "--mount=type=bind,from=build,source=/out,target=/out";
        assert_eq!(checked(&[option]), Ok(Some(option.to_owned())));
        for old in ["1.28.2", "1.33.6", "1.34.9", "1.35.0", "x", ""] {
            assert!(!is_mended(&format!("buildah version {old} (image-spec 1.1.0)")), "{old}");
        }
        for new in ["1.33.7", "1.35.1", "1.36.0-dev", "2.0.0"] {
            assert!(is_mended(&format!("buildah version {new} (image-spec 1.1.0)")), "{new}");
        }
    }
}
