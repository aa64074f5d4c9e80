//! An image's settings beside its files: user, environment, and size of the root. Pure.

use std::collections::BTreeMap;

use super::isolation::{Isolation, Namespace};
use crate::error::SetupError;

/// The defaults are those of most images: root, no variables, a root without a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// `USER`.
    pub user: Option<User>,
    /// `ENV`.
    pub environment: BTreeMap<String, String>,
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `WORKDIR`; `/` when absent.
    pub directory: Option<String>,
    /// Bytes that can be written outside `/tmp` and `/opt/ml`.
    pub root_size: Option<u64>,
    /// All capabilities, with which the container can change the machine: a build of images mounts file systems.
    pub is_privileged: bool,
}

/// A numeric user with its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl std::str::FromStr for User {
    type Err = String;

    /// `1000` or `1000:100`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text} is not a numeric id"));
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        Ok(Self { uid: number(uid)?, gid: number(gid)? })
    }
}

impl Profile {
    /// The isolation for a container of this image, or the reason why this machine cannot run it.
    pub(super) fn fit(&self, id: &str, isolation: Isolation) -> anyhow::Result<Isolation> {
        if self.root_size.is_some() && isolation.overlay.is_none() {
            return Err(SetupError::new(format!(
                "failed to start container {id}: a limited root needs an overlay file system"
            ))
            .hint("run the emulator as root, or leave out `--root-size`")
            .into());
        }
        if self.user.is_none_or(|user| user.uid == 0) {
            return Ok(isolation);
        }
        if isolation.unshare != Some(Namespace::Mount) {
            return Err(SetupError::new(format!(
                "failed to start container {id}: only root can start it as another user"
            ))
            .hint("run the emulator as root, or leave out `--image-user`")
            .into());
        }
        Ok(Isolation { bubblewrap: false, ..isolation })
    }
}

/// `64M`, `1G`, or bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text} is not a size: give bytes, or a number with K, M or G");
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (text.trim_end_matches('K'), 10),
        Some(b'M') => (text.trim_end_matches('M'), 20),
        Some(b'G') => (text.trim_end_matches('G'), 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).filter(|size| *size > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_group() {
        assert_eq!("1000".parse(), Ok(User { uid: 1000, gid: 1000 }));
        assert_eq!("1000:0".parse(), Ok(User { uid: 1000, gid: 0 }));
        assert!("app".parse::<User>().is_err());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert!(["", "M", "0", "-1", "99999999999G"].into_iter().all(|text| parse_size(text).is_err()));
    }

    #[test]
    fn a_machine_that_cannot_says_so() {
        let user = Profile { user: Some(User { uid: 1000, gid: 1000 }), ..Profile::default() };
        let small = Profile { root_size: Some(1 << 20), ..Profile::default() };
        let ordinary = Isolation { bubblewrap: true, overlay: None, unshare: Some(Namespace::UserAndMount) };
        assert!(user.fit("x", ordinary).is_err() && small.fit("x", ordinary).is_err());
        assert_eq!(Profile::default().fit("x", ordinary).unwrap(), ordinary);
        let root = Isolation { bubblewrap: true, overlay: Some(Namespace::Mount), unshare: Some(Namespace::Mount) };
        assert!(!user.fit("x", root).unwrap().bubblewrap);
    }
}
