//! Patterns of the operator's file in the form of IAM's policies, and the place of the executor's own objects in S3. Pure.

/// A glob of the operator's file as patterns of IAM, which have `*` and `?` alone; they match what the glob matches, and
/// more where the glob has a class of characters or keeps to one level.
pub fn as_patterns(glob: &str) -> Vec<String> {
    if let Some((start, choices, end)) = first_choice(glob) {
        return choices.iter().flat_map(|choice| as_patterns(&format!("{start}{choice}{end}"))).collect();
    }
    let (mut pattern, mut chars) = (String::new(), glob.chars().peekable());
    while let Some(char) = chars.next() {
        match char {
            '*' => {
                let mut is_deep = false;
                while chars.next_if_eq(&'*').is_some() {
                    is_deep = true;
                }
                // `**/` also stands for nothing.
                if is_deep {
                    chars.next_if_eq(&'/');
                }
                pattern.push('*');
            }
            '[' => {
                // A bracket at the beginning belongs to the class.
                chars.next_if(|char| matches!(char, '!' | '^'));
                let _ = chars.by_ref().skip(1).find(|char| *char == ']');
                pattern.push('?');
            }
            char => pattern.push(char),
        }
    }
    vec![pattern]
}

/// The text before the first `{a,b}`, its choices, and the text after it.
fn first_choice(glob: &str) -> Option<(&str, Vec<&str>, &str)> {
    let open = glob.find('{')?;
    let (mut depth, mut from, mut choices) = (0, open + 1, Vec::new());
    for (at, char) in glob.char_indices().skip_while(|(at, _)| *at < open) {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => {
                choices.push(&glob[from..at]);
                from = at + 1;
            }
            _ => {}
        }
        if depth == 0 {
            choices.push(&glob[from..at]);
            return Some((&glob[..open], choices, &glob[at + 1..]));
        }
    }
    None
}

/// The pattern of the plans' names in a pattern of their ARNs, `arn:<partition>:sagemaker:<region>:<account>:training-plan/<names>`,
/// where region and account may be `*`. `None` for every other form.
pub fn name_of_plans(pattern: &str) -> Option<&str> {
    let (place, names) = pattern.split_once(":training-plan/")?;
    let [arn, partition, service, region, account] = place.split(':').collect::<Vec<_>>()[..] else { return None };
    let is_word = |word: &str| word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let is_form = (arn, service) == ("arn", "sagemaker") && partition.starts_with("aws") && is_word(partition);
    let is_region = region == "*" || is_word(region) && !region.is_empty();
    let is_account = account == "*" || account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    (is_form && is_region && is_account && !names.is_empty()).then_some(names)
}

/// A pattern of ARNs of secrets, `arn:<partition>:secretsmanager:<region>:<account>:secret:<names>`, as the part before the names, and
/// the pattern of names; the account has no wildcard. `None` for every other form.
pub fn arn_of_secrets(pattern: &str) -> Option<(&str, &str)> {
    let at = pattern.find(":secret:")? + ":secret:".len();
    let (place, names) = pattern.split_at(at);
    let parts: Vec<_> = place.split(':').collect();
    let ["arn", partition, "secretsmanager", region, account, "secret", ""] = parts[..] else { return None };
    let is_word = |word: &str| word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let is_form = partition.starts_with("aws") && is_word(partition) && !region.is_empty() && is_word(region);
    (is_form && is_account && !names.is_empty() && !names.contains(':')).then_some((place, names))
}

/// The folder in which the executor keeps its own objects. No job reads it as data or stores a model there.
#[derive(Debug, Clone, Copy)]
pub struct OwnPlace<'a> {
    pub bucket: &'a str,
    /// Without slashes at its ends.
    pub prefix: &'a str,
}

impl OwnPlace<'_> {
    /// Whether a folder `s3://<bucket>/<folder>` is this one, lies in it or holds it.
    pub fn meets(&self, uri: &str) -> bool {
        let Some(place) = uri.strip_prefix("s3://") else { return false };
        let (own, place) = (format!("{}/{}/", self.bucket, self.prefix), format!("{}/", place.trim_end_matches('/')));
        own.starts_with(&place) || place.starts_with(&own)
    }

    /// Whether a pattern of buckets and keys stands for one of the executor's own objects.
    fn has(&self, pattern: &str) -> bool {
        meet(pattern.as_bytes(), format!("{}/{}/*", self.bucket, self.prefix).as_bytes())
    }

    /// Whether a folder is in the executor's bucket.
    pub fn shares_bucket(&self, uri: &str) -> bool {
        uri.strip_prefix("s3://").is_some_and(|place| place.split('/').next() == Some(self.bucket))
    }

    /// Whether a glob of the operator's file stands for one of the executor's own objects, or may do so in a policy of IAM.
    pub fn is_reached_by(&self, glob: &str) -> bool {
        as_patterns(glob).iter().filter_map(|pattern| S3Pattern::of(pattern)).any(|pattern| pattern.reaches(*self))
    }

    /// Whether a glob names the executor's bucket and stands for one of its own objects.
    pub fn is_named_by(&self, glob: &str) -> bool {
        let named = |pattern: &S3Pattern<'_>| pattern.bucket == self.bucket && pattern.reaches(*self);
        as_patterns(glob).iter().filter_map(|pattern| S3Pattern::of(pattern)).any(|pattern| named(&pattern))
    }
}

/// A pattern of folders in S3, with the wildcards of IAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct S3Pattern<'a> {
    pub bucket: &'a str,
    folder: &'a str,
}

impl<'a> S3Pattern<'a> {
    /// `None` for file systems. A pattern that begins with `*` is for all buckets.
    pub fn of(uri: &'a str) -> Option<Self> {
        if uri.starts_with('*') {
            return Some(Self { bucket: "*", folder: "*" });
        }
        let place = uri.strip_prefix("s3://")?;
        let (bucket, folder) = place.split_once('/').unwrap_or((place, ""));
        Some(Self { bucket, folder })
    }

    /// The keys of what lies in the folders.
    pub fn keys(&self) -> String {
        match self.folder {
            "" => "*".to_owned(),
            folder if folder.ends_with('*') => folder.to_owned(),
            folder => format!("{folder}/*"),
        }
    }

    /// The same and the name itself, which may be that of one object. Without it where the keys that begin with it may be the executor's own:
    /// IAM allows a list of names by the beginning that is asked for.
    pub fn keys_of_input(&self, own: OwnPlace<'_>) -> Vec<String> {
        let begins = format!("{}/{}*", self.bucket, self.folder);
        let is_one = !self.folder.is_empty() && !self.folder.ends_with(['*', '/']) && !own.has(&begins);
        is_one.then(|| self.folder.to_owned()).into_iter().chain([self.keys()]).collect()
    }

    /// Whether the pattern stands for a place in the bucket.
    pub fn is_for_bucket(&self, bucket: &str) -> bool {
        meet(self.bucket.as_bytes(), bucket.as_bytes())
    }

    /// Whether the pattern stands for one of the executor's own objects.
    pub fn reaches(&self, own: OwnPlace<'_>) -> bool {
        own.has(&format!("{}/{}", self.bucket, self.keys()))
    }
}

/// Whether a text exists that two patterns of IAM both stand for.
fn meet(one: &[u8], other: &[u8]) -> bool {
    // `row[at]`: whether the start of `one` that has been read meets the first `at` bytes of `other`.
    let mut row = vec![true];
    for byte in other {
        row.push(row.last() == Some(&true) && *byte == b'*');
    }
    for byte in one {
        let mut next = vec![row.first() == Some(&true) && *byte == b'*'];
        for (at, wanted) in other.iter().enumerate() {
            let is = |row: &[bool], at: usize| row.get(at) == Some(&true);
            let is_star = *byte == b'*' || *wanted == b'*';
            let is_same = byte == wanted || *byte == b'?' || *wanted == b'?';
            next.push(if is_star { is(&next, at) || is(&row, at + 1) } else { is_same && is(&row, at) });
        }
        row = next;
    }
    row.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_becomes_patterns_that_match_no_less() {
        for (glob, patterns) in [
            ("ml.m5.large", vec!["ml.m5.large"]),
            ("ml.g5.*", vec!["ml.g5.*"]),
            ("team/**/train", vec!["team/*train"]),
            ("team/**", vec!["team/*"]),
            ("ml.{g5,g6.{a,b}}.x", vec!["ml.g5.x", "ml.g6.a.x", "ml.g6.b.x"]),
            ("p[34]d", vec!["p?d"]),
            ("p[]]d?", vec!["p?d?"]),
            ("p[!]]d", vec!["p?d"]),
            ("p[^]a]d[!b]", vec!["p?d?"]),
            ("a\\*b", vec!["a\\*b"]),
        ] {
            assert_eq!(as_patterns(glob), patterns, "{glob}");
        }
    }

    #[test]
    fn a_pattern_of_folders_is_one_of_keys() {
        let of = |uri: &'static str| S3Pattern::of(uri).map(|found| (found.bucket, found.keys()));
        assert_eq!(of("s3://data/churn"), Some(("data", "churn/*".to_owned())));
        assert_eq!(of("s3://data/churn/*"), Some(("data", "churn/*".to_owned())));
        assert_eq!(of("s3://data"), Some(("data", "*".to_owned())));
        assert_eq!(of("*"), Some(("*", "*".to_owned())));
        assert_eq!(of("efs://fs-01234567/x"), None);
    }

    #[test]
    fn a_pattern_of_inputs_may_name_one_object() {
        let own = OwnPlace { bucket: "ci", prefix: "team/sme" };
        let of = |uri: &'static str| S3Pattern::of(uri).unwrap().keys_of_input(own);
        assert_eq!(of("s3://data/churn/a.csv"), ["churn/a.csv", "churn/a.csv/*"]);
        assert_eq!(of("s3://ci/data"), ["data", "data/*"]);
        for (uri, keys) in
            [("s3://data", "*"), ("s3://data/x*", "x*"), ("s3://ci/te", "te/*"), ("s3://c?/team/s", "team/s/*")]
        {
            assert_eq!(of(uri), [keys], "{uri}");
        }
    }

    #[test]
    fn a_pattern_of_plans_has_their_names_at_its_end() {
        for (pattern, names) in [
            ("arn:aws:sagemaker:eu-west-1:123456789012:training-plan/may", Some("may")),
            ("arn:aws-cn:sagemaker:*:*:training-plan/{a,b}*", Some("{a,b}*")),
            ("**", None),
            ("*:training-plan/*", None),
            ("arn:aws:sagemaker:**:training-plan/x", None),
            ("arn:aws:sagemaker:{eu-west-1,*}:123456789012:training-plan/x", None),
            ("arn:aws:sagemaker:eu-west-1:123456789012:training-job/x", None),
            ("arn:aws:sagemaker:eu-west-1:123456789012:training-plan/", None),
        ] {
            assert_eq!(name_of_plans(pattern), names, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_of_secrets_names_region_and_account() {
        let place = "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:";
        assert_eq!(arn_of_secrets(&format!("{place}ci/{{a,b}}*")), Some((place, "ci/{a,b}*")));
        for other in [
            "ci/*",
            "arn:aws:secretsmanager:*:123456789012:secret:x",
            "arn:aws:secretsmanager:eu-west-1:*:secret:x",
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:",
            "arn:aws:s3:eu-west-1:123456789012:secret:x",
            "**:secret:x",
        ] {
            assert_eq!(arn_of_secrets(other), None, "{other}");
        }
    }

    #[test]
    fn a_pattern_that_may_stand_for_an_own_object_is_found() {
        let own = OwnPlace { bucket: "ci", prefix: "team/sme" };
        for glob in [
            "**",
            "s3://**",
            "s3://*/**",
            "s3://ci",
            "s3://c?/*",
            "s3://ci/**",
            "s3://ci/team/**",
            "s3://*/te*/sme/x",
            "s3://ci/team/sme",
            "s3://{a,ci}/*",
            "s3://*/x/**",
        ] {
            assert!(own.is_reached_by(glob), "{glob}");
        }
        for glob in [
            "s3://data/**",
            "s3://ci/data/**",
            "s3://ci-*/**",
            "s3://ci/team/smes/**",
            "s3://ci/te",
            "efs://**",
            "s3://[d-e]ata/**",
        ] {
            assert!(!own.is_reached_by(glob), "{glob}");
        }
        assert!(own.is_named_by("s3://ci/**") && !own.is_named_by("s3://*/**") && !own.is_named_by("s3://ci/data/**"));
    }

    #[test]
    fn a_folder_that_is_an_own_one_or_holds_it_meets_it() {
        let own = OwnPlace { bucket: "ci", prefix: "team/sme" };
        for uri in ["s3://ci", "s3://ci/", "s3://ci/team", "s3://ci/team/sme/", "s3://ci/team/sme/hosts"] {
            assert!(own.meets(uri), "{uri}");
        }
        for uri in ["s3://ci/team/sm", "s3://ci/team/sme2/", "s3://ci/data", "s3://cis/team/sme", "efs://fs-1/team"] {
            assert!(!own.meets(uri), "{uri}");
        }
        assert!(
            own.shares_bucket("s3://ci/data") && own.shares_bucket("s3://ci") && !own.shares_bucket("s3://cis/data")
        );
    }
}
