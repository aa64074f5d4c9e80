//! Writes false manifests and indexes: a second implementation of the wire formats, in which every number is free.
//!
//! It follows `docs/WIRE-FORMATS.md` and uses none of the program's own types, so a change of the formats shows here.

use std::sync::LazyLock;

use serde::Serialize;

use super::super::choices::Choices;

const PART: &[u8; 8] = b"SMEXPRT2";
const PACK: &[u8; 8] = b"SMEXPAK2";

pub(super) const PACK_ID: [u8; 16] = *b"a pack of a liar";
pub(super) const EVIL: &[u8] = b"evil";

/// Content that shrinks.
pub(super) fn long() -> Vec<u8> {
    vec![b'z'; 5000]
}

/// Content of which a few exceed the limit.
fn large() -> Vec<u8> {
    vec![b'l'; 300_000]
}

type Hash = [u8; 32];

fn hash(bytes: &[u8]) -> Hash {
    *blake3::hash(bytes).as_bytes()
}

/// Pack (by position), place, length there, length of the content.
#[derive(Serialize, Clone, Copy)]
struct Block(u32, u32, u32, u32);

/// Hash, block (by position), place in its content, length.
#[derive(Serialize, Clone, Copy)]
struct Chunk(Hash, u32, u32, u32);

#[derive(Serialize, Default)]
struct Part {
    /// Names, and for whom they are: 0 for the project.
    packs: Vec<([u8; 16], u8)>,
    blocks: Vec<Block>,
    chunks: Vec<Chunk>,
    records: Vec<Record>,
    end: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Entry {
    place: u8,
    kind: u8,
    path: Vec<u8>,
    mode: u32,
    mtime: (i64, u32),
    size: u64,
    target: Vec<u8>,
}

#[derive(Serialize)]
enum Record {
    Entry(Entry),
    File { entry: Entry, chunks: Vec<u32> },
    Begin { file: u32, entry: Entry },
    Data { file: u32, offset: u64, chunks: Vec<u32> },
    End { file: u32, size: u64, mode: u32, mtime: (i64, u32) },
    Void { file: u32 },
    Gone { file: u32 },
}

#[derive(Serialize)]
struct IndexBlock {
    at: u32,
    stored: u32,
    raw: u32,
    chunks: Vec<(Hash, u32)>,
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("it fits the memory")
}

fn sealed(plain: &[u8]) -> Vec<u8> {
    [&hash(plain)[..], &zstd::bulk::compress(plain, 1).expect("it fits the memory")].concat()
}

/// These bytes, with what any part has around it.
pub(super) fn part(plain: &[u8]) -> Vec<u8> {
    [&PART[..], &sealed(plain)].concat()
}

/// The beginning of a pack with known content, and where its blocks are.
struct Content {
    bytes: Vec<u8>,
    blocks: Vec<Block>,
    /// Each block's content is one chunk.
    hashes: Vec<Hash>,
}

static CONTENT: LazyLock<Content> = LazyLock::new(|| {
    let mut content = Content { bytes: PACK.to_vec(), blocks: Vec::new(), hashes: Vec::new() };
    for raw in &[EVIL.to_vec(), long(), large()] {
        let compressed = zstd::bulk::compress(raw, 1).expect("it fits the memory");
        let stored = if compressed.len() < raw.len() { &compressed } else { raw };
        content.blocks.push(Block(0, count(content.bytes.len()), count(stored.len()), count(raw.len())));
        content.bytes.extend_from_slice(stored);
        content.hashes.push(hash(raw));
    }
    content
});

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("the content is small")
}

/// A pack without an index: who is told where its content is needs none.
pub(super) fn pack() -> Vec<u8> {
    CONTENT.bytes.clone()
}

/// A pack whose index is these bytes, with what any index has around it.
pub(super) fn pack_with_index(plain: &[u8]) -> Vec<u8> {
    let index = sealed(plain);
    pack_with_end(&[&index[..], &count(index.len()).to_le_bytes(), PACK].concat())
}

pub(super) fn pack_with_end(end: &[u8]) -> Vec<u8> {
    [&CONTENT.bytes[..], end].concat()
}

/// An index of such a pack, as chosen. `false`: it is true.
pub(super) fn index(choices: &mut Choices) -> (Vec<u8>, bool) {
    let mut lies = false;
    let mut found = Vec::new();
    for (&Block(_, at, stored, length), &hash_of_all) in CONTENT.blocks.iter().zip(&CONTENT.hashes) {
        let mut chunks = vec![(hash_of_all, length)];
        let mut block = (at, stored, length);
        let lie = choices.byte();
        lies |= lie != 0;
        match lie {
            1 => chunks = vec![(hash(EVIL), length)],
            2 => chunks = vec![(hash(&long()), length)],
            3 => block.0 = block.0.wrapping_add(u32::from(choices.byte())),
            4 => block.1 = number(choices),
            5 => {
                block.2 = number(choices);
                chunks[0].1 = block.2;
            }
            6 => {
                let first = u32::from(choices.byte()).clamp(1, length - 1);
                chunks = vec![(hash(EVIL), first), (hash(&long()), length - first)];
            }
            7 => chunks.push((hash(EVIL), number(choices))),
            8 => continue,
            _ => {}
        }
        found.push(IndexBlock { at: block.0, stored: block.1, raw: block.2, chunks });
    }
    (encoded(&found), lies)
}

const DIRECTORY: u8 = 0;
const FILE: u8 = 1;
const LINK: u8 = 2;
const DELETED: u8 = 3;

const MODES: [u32; 10] = [0o644, 0o755, 0o700, 0o600, 0, 0o111, 0o1777, 0o4755, 0o2755, 0o10644];

const TIMES: [(i64, u32); 6] =
    [(1, 2), (1_800_000_000, 999_999_999), (i64::MAX, 0), (i64::MIN, 999_999_999), (0, 1_000_000_000), (-1, 1)];

/// What is on the host, what is new, and what means harm.
const NAMES: [&[u8]; 24] = [
    b"good",
    b"dir",
    b"inside",
    b"deep",
    b"leaf",
    b"sub",
    b"kept",
    b"out",
    b"precious",
    b"empty",
    b"run.sh",
    b"new",
    b"a",
    b"b",
    b".git",
    b"config",
    b".Git.",
    b"git~1",
    b"..",
    b".",
    b"",
    b"HEAD",
    b"objects",
    b"refs",
];

const PATHS: [&[u8]; 32] = [
    b"good",
    b"dir",
    b"dir/inside",
    b"dir/deep",
    b"dir/deep/leaf",
    b"sub",
    b"sub/kept",
    b"sub/.git",
    b"sub/.git/config",
    b"out",
    b"out/precious",
    b"empty",
    b"run.sh",
    b"new",
    b"new/a",
    b"new/a/b",
    b"a",
    b"b",
    b".git",
    b".git/config",
    b".git/hooks/pre-commit",
    b".GIT/config",
    b"gitlab_runner_env",
    b"../outside/precious",
    b"..",
    b"/etc/hostname",
    b"dir/../../outside/precious",
    b"a\0b",
    b"HEAD",
    b"objects",
    b"refs",
    b"config",
];

fn number(choices: &mut Choices) -> u32 {
    match choices.byte() {
        0 => u32::MAX,
        1 => 1 << 20,
        2 => (1 << 20) + (512 << 10),
        3 => 32 << 20,
        4 => 4999,
        5 => 300_001,
        other => u32::from(other - 6),
    }
}

fn path(choices: &mut Choices) -> Vec<u8> {
    let choice = choices.byte();
    match choice {
        0..128 => PATHS[usize::from(choice) % PATHS.len()].to_vec(),
        128..192 => {
            let names: Vec<&[u8]> =
                (0..=choice % 4).map(|_| NAMES[usize::from(choices.byte()) % NAMES.len()]).collect();
            names.join(&b'/')
        }
        192..208 => [&b"d"[..]].repeat(usize::from(choices.byte()) * 2).join(&b'/'),
        208..216 => b"n".repeat(usize::from(choices.byte()) * 100),
        _ => choices.bytes(60).to_vec(),
    }
}

fn target(choices: &mut Choices, project: &[u8]) -> Vec<u8> {
    let choice = choices.byte();
    let path = path(choices);
    match choice % 8 {
        0 => [project, b"/", &path].concat(),
        1 => [project, b"/../", &path].concat(),
        2 => [project, &path].concat(),
        3 => [&b"../"[..], &path].concat(),
        4 => [&b"../../"[..], &path].concat(),
        _ => path,
    }
}

fn entry(choices: &mut Choices, kind: u8) -> Entry {
    let path = path(choices);
    let odd = choices.byte();
    let mut entry = Entry { place: 0, kind, path, mode: 0o644, mtime: (7, 8), size: 0, target: Vec::new() };
    if odd & 1 != 0 {
        entry.mode = MODES[usize::from(choices.byte()) % MODES.len()];
    }
    if odd & 2 != 0 {
        entry.mtime = TIMES[usize::from(choices.byte()) % TIMES.len()];
    }
    if odd & 4 != 0 {
        entry.place = 1;
    }
    if odd & 8 != 0 {
        entry.kind = choices.byte() % 6;
    }
    if odd & 16 != 0 {
        entry.target = choices.bytes(20).to_vec();
    }
    if odd & 32 != 0 {
        entry.size = u64::from(number(choices));
    }
    entry
}

fn chunks(choices: &mut Choices) -> Vec<u32> {
    (0..choices.byte() % 6).map(|_| u32::from(choices.byte() % 5)).collect()
}

fn offset(choices: &mut Choices) -> u64 {
    match choices.byte() {
        0 => 0,
        1 => u64::MAX,
        2 => u64::MAX / 2,
        other => u64::from(other) * 4,
    }
}

fn true_part() -> Part {
    let blocks = CONTENT.blocks.clone();
    let mut chunks: Vec<Chunk> =
        (0..).zip(&blocks).zip(&CONTENT.hashes).map(|((at, block), hash)| Chunk(*hash, at, 0, block.3)).collect();
    chunks.push(Chunk(hash(&long()[..200]), 1, 100, 200));
    Part { packs: vec![(PACK_ID, 0)], blocks, chunks, ..Part::default() }
}

fn spoil(part: &mut Part, choices: &mut Choices) {
    let (which, lie) = (usize::from(choices.byte()), number(choices));
    let block = which % part.blocks.len();
    let chunk = which % part.chunks.len();
    match choices.byte() % 10 {
        0 => part.blocks[block].0 = lie,
        1 => part.blocks[block].1 = lie,
        2 => part.blocks[block].2 = lie,
        3 => part.blocks[block].3 = lie,
        4 => part.chunks[chunk].0[0] ^= 1,
        5 => part.chunks[chunk].1 = lie,
        6 => part.chunks[chunk].2 = lie,
        7 => part.chunks[chunk].3 = lie,
        8 => part.packs.iter_mut().for_each(|pack| pack.0[0] ^= 1),
        _ => part.packs.clear(),
    }
}

/// The parts of a manifest for the pack without an index, as chosen.
pub(super) fn manifest(choices: &mut Choices, project: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let mut part = true_part();
    for _ in 0..100 {
        if choices.0.is_empty() {
            break;
        }
        let record = match choices.byte() % 16 {
            0 => {
                parts.push(std::mem::replace(&mut part, true_part()));
                continue;
            }
            1 => {
                spoil(&mut part, choices);
                continue;
            }
            2 | 3 => Record::Entry(entry(choices, DIRECTORY)),
            4 | 5 => {
                let mut entry = entry(choices, LINK);
                entry.target = target(choices, project);
                Record::Entry(entry)
            }
            6..=8 => Record::Entry(entry(choices, DELETED)),
            9..=11 => {
                let mut entry = entry(choices, FILE);
                let chunks = chunks(choices);
                if entry.size == 0 {
                    let length = |chunk: &u32| part.chunks.get(*chunk as usize).map_or(0, |chunk| u64::from(chunk.3));
                    entry.size = chunks.iter().map(length).sum();
                }
                Record::File { entry, chunks }
            }
            12 => Record::Begin { file: u32::from(choices.byte() % 3), entry: entry(choices, FILE) },
            13 => {
                Record::Data { file: u32::from(choices.byte() % 3), offset: offset(choices), chunks: chunks(choices) }
            }
            14 => Record::End {
                file: u32::from(choices.byte() % 3),
                size: offset(choices),
                mode: MODES[usize::from(choices.byte()) % MODES.len()],
                mtime: TIMES[usize::from(choices.byte()) % TIMES.len()],
            },
            _ if choices.byte().is_multiple_of(2) => Record::Void { file: u32::from(choices.byte() % 3) },
            _ => Record::Gone { file: u32::from(choices.byte() % 3) },
        };
        part.records.push(record);
    }
    part.end = Some((0..choices.byte() % 4).map(|_| String::from_utf8_lossy(choices.bytes(9)).into_owned()).collect());
    parts.push(part);
    parts.iter().map(|own| self::part(&encoded(own))).collect()
}
