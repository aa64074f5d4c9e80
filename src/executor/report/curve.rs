//! The points of a series, as a drawing and a file show them.

use crate::base::series::Series;

/// The unit of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Plain,
    /// From 0 to 100.
    Percent,
    BytesPerSecond,
}

/// The horizontal axis of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Across {
    /// Milliseconds.
    Time,
    /// Numbers of steps, such as epochs.
    Steps,
}

/// A series with its name.
#[derive(Debug, Clone, Copy)]
pub struct Curve<'a> {
    pub name: &'a str,
    pub unit: Unit,
    pub across: Across,
    pub series: &'a Series,
}
