//! Print position of each node's output, on disk, so that it survives a kill of the process.
//!
//! Written after each write to stdout. A process that takes over prints on from here: nothing twice and nothing
//! missing, except after a kill in the instant between the two writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::base::node::NodeId;

/// Bytes per node: the run (u32), the number of the next foreign line (u32), the offset of the next byte to print (u64),
/// little endian.
const SLOT: usize = 16;

/// How far a node's output was printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Offset of the first byte that was not printed.
    pub offset: u64,
    /// Number of the first line of other writers that was not printed.
    pub foreign_lines: u32,
}

/// The positions of one session's current run.
#[derive(Debug)]
pub struct Cursor {
    file: File,
    run: u32,
}

impl Cursor {
    /// Opens or creates the file; positions of other runs count as zero.
    pub fn open(path: &Path, run: u32) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, run })
    }

    /// Takes the room of so many nodes' positions, before anything is printed: on a disk that is full later, they are written in
    /// place. Without it each process that takes over would print the same again.
    pub fn reserve(&self, nodes: usize) -> io::Result<()> {
        let (taken, needed) = (self.file.metadata()?.len(), nodes * SLOT);
        let missing = needed.saturating_sub(usize::try_from(taken).unwrap_or(usize::MAX));
        self.file.write_all_at(&vec![0; missing], taken)
    }

    pub fn get(&self, node: NodeId) -> Position {
        let mut slot = [0; SLOT];
        if self.file.read_exact_at(&mut slot, place(node)).is_err() {
            return Position::default();
        }
        let (run, rest) = slot.split_at(4);
        let (foreign_lines, offset) = rest.split_at(4);
        if run != self.run.to_le_bytes() {
            return Position::default();
        }
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        Position { offset: number(offset), foreign_lines: u32::try_from(number(foreign_lines)).unwrap_or(u32::MAX) }
    }

    pub fn set(&self, node: NodeId, position: Position) -> io::Result<()> {
        let mut slot = Vec::with_capacity(SLOT);
        slot.extend_from_slice(&self.run.to_le_bytes());
        slot.extend_from_slice(&position.foreign_lines.to_le_bytes());
        slot.extend_from_slice(&position.offset.to_le_bytes());
        self.file.write_all_at(&slot, place(node))
    }
}

fn place(node: NodeId) -> u64 {
    (node.index() * SLOT) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_outlive_the_process_and_belong_to_one_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursor");
        let cursor = Cursor::open(&path, 3).unwrap();
        let [first, second, last] = [0, 1, 7].map(NodeId::at);
        let (start, far) = (Position::default(), Position { offset: u64::MAX - 1, foreign_lines: 9 });
        assert_eq!((cursor.get(first), cursor.get(last)), (start, start));
        cursor.set(last, far).unwrap();
        let near = Position { offset: 12, foreign_lines: 0 };
        cursor.set(first, near).unwrap();
        let cursor = Cursor::open(&path, 3).unwrap();
        assert_eq!((cursor.get(first), cursor.get(second), cursor.get(last)), (near, start, far));
        assert_eq!(Cursor::open(&path, 4).unwrap().get(first), start, "another run begins at its start");
    }

    #[test]
    fn room_is_taken_once_and_keeps_the_positions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursor");
        let cursor = Cursor::open(&path, 3).unwrap();
        cursor.reserve(2).unwrap();
        assert_eq!(path.metadata().unwrap().len(), 32);
        let position = Position { offset: 12, foreign_lines: 1 };
        cursor.set(NodeId::at(1), position).unwrap();
        for nodes in [1, 2, 4] {
            cursor.reserve(nodes).unwrap();
            assert_eq!([0, 1].map(|index| cursor.get(NodeId::at(index))), [Position::default(), position]);
        }
        assert_eq!(path.metadata().unwrap().len(), 64);
        let full = Cursor { file: File::options().write(true).open("/dev/full").unwrap(), run: 1 };
        assert_eq!(full.reserve(1).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
