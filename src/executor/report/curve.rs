//! What a drawing and a file show of a series.

use crate::base::series::Series;

/// What the numbers of a curve are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Plain,
    /// From 0 to 100.
    Percent,
    BytesPerSecond,
}

/// A series with its name.
#[derive(Debug, Clone, Copy)]
pub struct Curve<'a> {
    pub name: &'a str,
    pub unit: Unit,
    pub series: &'a Series,
}
