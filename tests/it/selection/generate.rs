//! Generates trees and patterns from few names, so that they match often, with every element of a pattern.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use executor::protocol::project::Rule;

pub(super) use crate::support::random::Random;

impl Random {
    fn name(&mut self) -> OsString {
        const NAMES: &[&[u8]] = &[
            b"a",
            b"a",
            b"b",
            b"b",
            b"c",
            b"ab",
            b"ba",
            b"a.b",
            b".a",
            b"a b",
            b"a\nb",
            b"a\xffb",
            b"*",
            b"[a]",
            b"{a,b}",
            b"\\a",
            b"a\\",
            b"-",
            "\u{e9}".as_bytes(),
            b"}",
            b"a]",
        ];
        OsString::from_vec(self.one(NAMES).to_vec())
    }

    pub(super) fn tree(&mut self, project: &Path, links: bool) {
        let mut directories = vec![PathBuf::new()];
        for _ in 0..30 {
            let path = self.one(&directories).join(self.name());
            let place = project.join(&path);
            if place.symlink_metadata().is_ok() {
                continue;
            }
            match self.below(if links { 5 } else { 4 }) {
                0 | 1 if path.components().count() < 5 => {
                    std::fs::create_dir(place).unwrap();
                    directories.push(path);
                }
                4 => {
                    let target = match self.below(4) {
                        0 => project.join(self.one(&directories)),
                        1 => Path::new("..").join(self.name()),
                        2 => self.name().into(),
                        _ => self.one(&directories).join("."),
                    };
                    symlink(target, place).unwrap();
                }
                _ => std::fs::write(place, "x").unwrap(),
            }
        }
    }

    pub(super) fn rule(&mut self, project: &Path) -> Rule {
        let include = (0..=self.below(2)).map(|_| self.pattern(project)).collect();
        let exclude = (0..self.below(3)).map(|_| self.pattern(project)).collect();
        Rule { include, exclude, ..Rule::default() }
    }

    fn pattern(&mut self, project: &Path) -> String {
        let mut pattern = match self.below(12) {
            0 => "./".to_owned(),
            1 => format!("{}/", project.display()),
            2 => "../p/".to_owned(),
            3 => "**/".to_owned(),
            _ => String::new(),
        };
        let components = self.below(4);
        let mut ups = 0;
        for _ in 0..=components {
            if !pattern.is_empty() && !pattern.ends_with('/') {
                pattern.push('/');
            }
            match self.below(14) {
                0 | 1 => pattern.push_str("**"),
                2 | 3 => pattern.push('*'),
                4 if ups < 2 => {
                    ups += 1;
                    pattern.push_str("..");
                }
                _ => pattern.push_str(&self.component(2)),
            }
        }
        if self.below(12) == 0 {
            pattern.push('/');
        }
        if self.below(10) == 0 {
            // Somewhere in it, something that may break it.
            let places: Vec<usize> = pattern.char_indices().map(|(at, _)| at).collect();
            let (place, letter) =
                (self.one(&places), self.one(&['{', '}', '[', ']', '\\', ',', '/', '*', '-', '!', '$']));
            if !pattern.contains("..") {
                pattern.insert(place, letter);
            }
        }
        pattern
    }

    fn component(&mut self, depth: u64) -> String {
        const PIECES: &[&str] = &[
            "a",
            "a",
            "a",
            "b",
            "b",
            "c",
            ".",
            "*",
            "?",
            "**",
            "[ab]",
            "[a-c]",
            "[!a]",
            "[^b-c]",
            "[\\]a]",
            "\\*",
            "\\a",
            "\\\\",
            "\\[a\\]",
            "\\{a,b\\}",
            "\u{e9}",
            "-",
            " ",
            "a\nb",
            "]",
            "[a-]",
        ];
        let mut component = String::new();
        for _ in 0..=self.below(3) {
            if depth > 0 && self.below(4) == 0 {
                let choices: Vec<String> = (0..=self.below(3)).map(|_| self.alternative(depth - 1)).collect();
                component += &["{", &choices.join(","), "}"].concat();
            } else {
                component.push_str(self.one(PIECES));
            }
        }
        component
    }

    fn alternative(&mut self, depth: u64) -> String {
        match self.below(10) {
            0 => String::new(),
            1 => format!("{}/{}", self.component(depth), self.component(depth)),
            2 => format!("**/{}", self.component(depth)),
            3 => format!("{}/", self.component(depth)),
            _ => self.component(depth),
        }
    }
}
