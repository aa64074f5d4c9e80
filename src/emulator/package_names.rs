//! Names and ARNs of model package groups and model packages, for their service and its authorization.

use super::caller::Caller;
use super::partition::partition;

const GROUP: &str = "model-package-group";
const PACKAGE: &str = "model-package";

/// A model package group, or a model package without a group: its name within an account and a region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RegistryName {
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) name: String,
}

/// A model package: a version of a group, or a package without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackageName {
    /// Of the group when there is a version.
    pub(crate) of: RegistryName,
    pub(crate) version: Option<u64>,
}

impl RegistryName {
    fn own(name: &str, caller: &Caller) -> Self {
        Self { account: caller.account.clone(), region: caller.region.clone(), name: name.to_owned() }
    }

    /// Reads the name or the ARN of a group; a name is one of the caller's account and region.
    pub(crate) fn group(text: &str, caller: &Caller) -> Self {
        Self::of_arn(text, GROUP).unwrap_or_else(|| Self::own(text, caller))
    }

    /// The group's ARN.
    pub(crate) fn group_arn(&self) -> String {
        self.arn(GROUP, &self.name)
    }

    /// Reads the ARN of a group, or that of its versions or one of them; `None` for another text.
    pub(crate) fn governed(arn: &str) -> Option<Self> {
        let version = || Self::of_arn(arn, PACKAGE).filter(|of| of.name.contains('/'));
        let mut name = Self::of_arn(arn, GROUP).or_else(version)?;
        name.name = name.name.split('/').next().unwrap_or_default().to_owned();
        Some(name)
    }

    /// The ARN of all versions of the group.
    pub(crate) fn versions_arn(&self) -> String {
        self.arn(PACKAGE, &format!("{}/*", self.name))
    }

    /// The name after `kind/` in an ARN; `None` for another text.
    fn of_arn(text: &str, kind: &str) -> Option<Self> {
        let ["arn", _, "sagemaker", region, account, rest] = text.splitn(6, ':').collect::<Vec<_>>()[..] else {
            return None;
        };
        let name = rest.strip_prefix(kind)?.strip_prefix('/')?;
        Some(Self { account: account.to_owned(), region: region.to_owned(), name: name.to_owned() })
    }

    fn arn(&self, kind: &str, id: &str) -> String {
        format!("arn:{}:sagemaker:{}:{}:{kind}/{id}", partition(&self.region), self.region, self.account)
    }
}

impl PackageName {
    /// Reads the name or the ARN of a package; a name is one of the caller's account and region.
    pub(crate) fn parse(text: &str, caller: &Caller) -> Self {
        Self::split(RegistryName::of_arn(text, PACKAGE).unwrap_or_else(|| RegistryName::own(text, caller)))
    }

    /// Reads the ARN of a package; `None` for another text.
    pub(crate) fn of_arn(text: &str) -> Option<Self> {
        RegistryName::of_arn(text, PACKAGE).map(Self::split)
    }

    /// Takes the version off the name.
    fn split(mut of: RegistryName) -> Self {
        let parts = of.name.split_once('/').and_then(|(name, number)| Some((name.to_owned(), number.parse().ok()?)));
        let version = parts.map(|(name, version)| {
            of.name = name;
            version
        });
        Self { of, version }
    }

    pub(crate) fn arn(&self) -> String {
        let name = &self.of.name;
        let id = self.version.map_or_else(|| name.clone(), |version| format!("{name}/{version}"));
        self.of.arn(PACKAGE, &id)
    }

    /// The ARN of the resource whose tags the package has: versions have those of their group.
    pub(crate) fn tagged_arn(&self) -> String {
        if self.version.is_some() { self.of.group_arn() } else { self.arn() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_callers_account_and_region() {
        let caller = Caller { region: "us-gov-west-1".to_owned(), ..Caller::administrator() };
        let group = RegistryName::group("fraud", &caller);
        assert_eq!(group.group_arn(), "arn:aws-us-gov:sagemaker:us-gov-west-1:000000000000:model-package-group/fraud");
        assert_eq!(RegistryName::group(&group.group_arn(), &Caller::administrator()), group);
        assert_eq!(group.versions_arn(), "arn:aws-us-gov:sagemaker:us-gov-west-1:000000000000:model-package/fraud/*");
        let version = PackageName { of: group.clone(), version: Some(3) };
        assert_eq!(PackageName::parse(&version.arn(), &Caller::administrator()), version);
        assert_eq!(PackageName::parse("fraud/3", &caller), version);
        assert_eq!(version.tagged_arn(), group.group_arn());
        let alone = PackageName::parse("fraud", &caller);
        assert_eq!((alone.version, alone.tagged_arn()), (None, alone.arn()));
    }

    #[test]
    fn an_arn_of_another_kind_is_no_name_of_a_package() {
        let arn = "arn:aws:sagemaker:eu-west-1:000000000000:model/fraud";
        assert_eq!(PackageName::of_arn(arn), None);
        assert_eq!(PackageName::parse(arn, &Caller::administrator()).of.name, arn, "so it is not found");
    }
}
