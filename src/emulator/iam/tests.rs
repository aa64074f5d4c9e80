//! The decisions of `tests/fixtures/iam-decisions.json`.
