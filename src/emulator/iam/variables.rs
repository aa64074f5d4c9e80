//! Variables of policies: `${aws:username}`, `${aws:PrincipalTag/team, 'none'}`, and `${*}`, `${?}`, `${$}` for the characters.

use super::keys::{ConditionKeys, takes_many};

/// The name between `${` and `}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PolicyVariable {
    /// A character that stands for itself.
    Character(char),
    Key {
        name: String,
        /// The value where the request has no such key.
        default: Option<String>,
    },
}

impl PolicyVariable {
    /// Reads the text between the braces.
    pub(super) fn parse(inner: &str) -> Result<Self, String> {
        if let "*" | "?" | "$" = inner {
            return Ok(Self::Character(inner.chars().next().unwrap_or_default()));
        }
        let (name, default) = match inner.split_once(',') {
            None => (inner.trim(), None),
            Some((name, default)) => {
                let quoted = default.trim().strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
                let default = quoted.ok_or_else(|| format!("the default value in ${{{inner}}} needs single quotes"))?;
                (name.trim(), Some(default.to_owned()))
            }
        };
        match takes_many(name) {
            Some(false) => Ok(Self::Key { name: name.to_owned(), default }),
            Some(true) => Err(format!("the variable ${{{name}}} can have several values, which a variable may not")),
            None => Err(format!("the emulator does not know the variable ${{{name}}}")),
        }
    }

    /// The text that a request gives the variable; `None` when it has no value.
    pub(super) fn value(&self, keys: &ConditionKeys) -> Option<String> {
        match self {
            Self::Character(character) => Some(character.to_string()),
            Self::Key { name, default } => match keys.values(name) {
                [value] => Some(value.clone()),
                [] => default.clone(),
                _ => None,
            },
        }
    }
}
