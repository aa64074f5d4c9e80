//! Jobs under each fault of `docs/RELIABILITY.md`: a job succeeds exactly, or fails once with one clear cause and the right class.
//!
//! The ordinary suite plays the rows that are marked so. `FAULTS=all` plays all, and `FAULTS="<fault>"` one.

mod play;
mod table;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::play::{Bench, Played};
use self::table::{Expected, FaultRow, How, TABLE};
use crate::support::waiting::tell;

/// An emulator is asked about all its jobs at the end of each.
const JOBS_PER_BENCH: u64 = 10;
const PAGE: &str = include_str!("../../../docs/RELIABILITY.md");

/// `all`, or the name of one fault; without it those of the ordinary suite.
#[expect(clippy::disallowed_methods, reason = "the size of the test")]
pub(super) fn asked() -> Option<String> {
    std::env::var("FAULTS").ok()
}

/// Plays the rows one after the other, and fails with the names of those that failed.
fn play_all<'r>(rows: impl Iterator<Item = &'r FaultRow>) {
    let (mut bench, mut failed) = (None::<Bench>, String::new());
    for row in rows {
        let How::Played { emulator, tail, act, .. } = row.how else { continue };
        // Gives its place at the gate back before another one is made.
        bench = bench.filter(|bench| bench.serves(emulator, tail) && bench.jobs < JOBS_PER_BENCH);
        let now = bench.get_or_insert_with(|| Bench::new(emulator, tail));
        println!("FAULTS={:?}", row.fault);
        match catch_unwind(AssertUnwindSafe(|| now.play(row.expected, act))) {
            Ok(Played { told, took }) if asked().is_some() => tell(&format!("{}: {told} ({took:.0?})", row.fault)),
            Ok(_) => {}
            Err(_) => {
                let _ = writeln!(failed, "FAULTS={:?}", row.fault);
                bench = None;
            }
        }
    }
    assert!(failed.is_empty(), "what happened stands above; to play one again:\n{failed}");
}

/// The rows of the ordinary suite, in two halves that run beside each other.
fn play_half(half: usize) {
    let is_of_suite = |row: &&FaultRow| matches!(row.how, How::Played { in_suite: true, .. });
    match asked().as_deref() {
        None => play_all(TABLE.iter().filter(is_of_suite).skip(half).step_by(2)),
        Some("all") => play_all(TABLE.iter().filter(|row| matches!(row.how, How::Played { .. })).skip(half).step_by(2)),
        Some(name) if half == 0 => {
            let row = TABLE.iter().find(|row| row.fault == name);
            play_all(std::iter::once(row.unwrap_or_else(|| panic!("{name:?} is no fault of the table"))));
        }
        Some(_) => {}
    }
}

#[test]
fn each_job_succeeds_exactly_or_fails_once() {
    play_half(0);
}

#[test]
fn each_other_job_succeeds_exactly_or_fails_once() {
    play_half(1);
}

/// The rows of the page, as cells without their code marks.
fn documented() -> Vec<Vec<String>> {
    let (_, table) = PAGE.split_once("| Fault | Expected |").expect("the page has the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn the_page_has_the_rows_of_the_table() {
    let expected: Vec<[String; 2]> = TABLE.iter().map(|row| [row.fault.to_owned(), row.expected.to_string()]).collect();
    let rows = documented();
    let found: Vec<[String; 2]> = rows.iter().map(|row| [row[0].clone(), row[1].clone()]).collect();
    pretty(&expected, &found);
    for (row, cells) in TABLE.iter().zip(&rows) {
        let [_, _, seen, how] = &cells[..] else { panic!("{cells:?} has not four cells") };
        match row.expected {
            Expected::Exact | Expected::Again => assert!(seen.contains("exact"), "{seen:?} of {:?}", row.fault),
            Expected::Fails { words, .. } => {
                assert!(seen.contains(words), "{seen:?} of {:?} lacks {words:?}", row.fault);
            }
        }
        match row.how {
            How::Played { in_suite, .. } => {
                assert_eq!(how == "suite", in_suite, "{:?}", row.fault);
                assert!(in_suite || how == "`FAULTS`", "{how:?} of {:?}", row.fault);
            }
            How::Test { name, file } => {
                assert_eq!(how, &format!("`{name}`"), "{:?}", row.fault);
                let source = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
                assert!(source.contains(&format!("fn {name}(")), "{file} has no test {name}");
            }
        }
    }
}

#[track_caller]
fn pretty(expected: &[[String; 2]], found: &[[String; 2]]) {
    for (one, other) in expected.iter().zip(found) {
        assert_eq!(one, other, "the page's row has other words than the table");
    }
    assert_eq!(expected.len(), found.len(), "the page and the table have different numbers of rows");
}
