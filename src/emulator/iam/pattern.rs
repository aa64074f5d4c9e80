//! Texts of policies that a value is compared with: wildcards and variables.

use super::keys::ConditionKeys;
use super::variables::PolicyVariable;

/// Syntax of a pattern's text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Syntax {
    /// `*` stands for any text and `?` for any character.
    pub(super) wildcards: bool,
    /// `${..}` stands for a value of the request: since version 2012-10-17 of the policy language.
    pub(super) variables: bool,
}

/// One place of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Exact(char),
    AnyCharacter,
    AnyText,
    Variable(PolicyVariable),
}

/// A text that values are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextPattern(Vec<Token>);

impl TextPattern {
    pub(super) fn parse(text: &str, syntax: Syntax) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            if let Some(variable) = rest.strip_prefix("${").filter(|_| syntax.variables) {
                let (inner, after) =
                    variable.split_once('}').ok_or_else(|| format!("`{text}` has a `${{` without its `}}`"))?;
                tokens.push(Token::Variable(PolicyVariable::parse(inner)?));
                rest = after;
                continue;
            }
            tokens.push(match character {
                '*' if syntax.wildcards => Token::AnyText,
                '?' if syntax.wildcards => Token::AnyCharacter,
                _ => Token::Exact(character),
            });
            rest = &rest[character.len_utf8()..];
        }
        Ok(Self(tokens))
    }

    /// Whether a value has this form. A pattern with a variable that has no value matches nothing.
    pub(super) fn matches(&self, value: &str, keys: &ConditionKeys) -> bool {
        self.resolve(keys).is_some_and(|tokens| glob(&tokens, &value.chars().collect::<Vec<_>>()))
    }

    /// As [`Self::matches`], for letters of either case.
    pub(super) fn matches_any_case(&self, value: &str, keys: &ConditionKeys) -> bool {
        let Some(tokens) = self.resolve(keys) else { return false };
        let lower = |token| match token {
            Token::Exact(character) => character.to_lowercase().map(Token::Exact).collect(),
            other => vec![other],
        };
        let tokens: Vec<_> = tokens.into_iter().flat_map(lower).collect();
        glob(&tokens, &value.to_lowercase().chars().collect::<Vec<_>>())
    }

    /// Whether a value is an ARN whose six parts have the form of this pattern's, each by itself.
    pub(super) fn matches_arn(&self, value: &str, keys: &ConditionKeys) -> bool {
        let Some(tokens) = self.resolve(keys) else { return false };
        let value: Vec<char> = value.chars().collect();
        let patterns: Vec<_> = tokens.splitn(ARN_PARTS, |token| *token == Token::Exact(':')).collect();
        let parts: Vec<_> = value.splitn(ARN_PARTS, |character| *character == ':').collect();
        patterns.len() == ARN_PARTS
            && parts.len() == ARN_PARTS
            && patterns.iter().zip(parts).all(|(pattern, part)| glob(pattern, part))
    }

    /// The pattern with the request's values in place of its variables; the characters of a value stand for themselves.
    fn resolve(&self, keys: &ConditionKeys) -> Option<Vec<Token>> {
        let mut tokens = Vec::with_capacity(self.0.len());
        for token in &self.0 {
            match token {
                Token::Variable(variable) => tokens.extend(variable.value(keys)?.chars().map(Token::Exact)),
                other => tokens.push(other.clone()),
            }
        }
        Some(tokens)
    }
}

/// Parts of an ARN; the last one may have colons of its own.
pub(super) const ARN_PARTS: usize = 6;

/// Compares from the left. After a mismatch, the last `*` takes one character more.
fn glob(pattern: &[Token], text: &[char]) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while position < text.len() {
        match pattern.get(at) {
            Some(Token::AnyText) => {
                star = Some((at, position));
                at += 1;
            }
            Some(Token::AnyCharacter) => (at, position) = (at + 1, position + 1),
            Some(Token::Exact(character)) if *character == text[position] => (at, position) = (at + 1, position + 1),
            _ => match &mut star {
                None => return false,
                Some((star, taken)) => {
                    *taken += 1;
                    (at, position) = (*star + 1, *taken);
                }
            },
        }
    }
    pattern[at..].iter().all(|token| *token == Token::AnyText)
}
