//! The only integration binary: every file of this folder is listed here.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::allow_attributes, reason = "tests")]

mod conformance;
mod container;
mod docs;
mod doctor;
mod flows;
mod fuzz;
mod infrastructure;
mod layering;
mod lifecycle;
mod scenarios;
mod selection;
mod support;
mod templates;
mod words;
