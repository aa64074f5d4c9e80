"""The project directories that the benchmark of the workspace moves: the same bytes from the same seed.

    python3 tests/bench/trees.py make FOLDER W1 [--tenth] [--seed N]     makes what is missing
    python3 tests/bench/trees.py same ONE OTHER [--without-git]          ends with 1 at the first difference

A program of its own, because a child's peak memory begins with its parent's: whoever measures must stay small. Knows nothing of
what is measured. Standard library and git only.
"""

import argparse
import array
import bisect
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

KIB, MIB = 1 << 10, 1 << 20
GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "bench", "GIT_AUTHOR_EMAIL": "bench@localhost",
       "GIT_COMMITTER_NAME": "bench", "GIT_COMMITTER_EMAIL": "bench@localhost", "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
       "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}
SYLLABLES = [a + b for a in "b c d f g h k l m n p r s t v w st tr pl".split() for b in "a e i o u an er in or".split()]
GIT_CONFIG = os.path.join(".git", "config")
# Changes when the generator does: older data is made again.
VERSION = 1


class Pool:
    """Material from which files are cut, in pieces so short and from places so random that no two files share a chunk."""

    def __init__(self, rng):
        self.rng = rng
        self.text = self.make_text(24 * MIB)
        self.table = self.make_table(12 * MIB)
        self.lines = array.array("L", [0])
        at = self.table.find(b"\n")
        while at >= 0:
            self.lines.append(at + 1)
            at = self.table.find(b"\n", at + 1)

    def make_text(self, size):
        """Lines of made-up words, a few of them frequent, as in source code and prose."""
        words = sorted({"".join(self.rng.choices(SYLLABLES, k=self.rng.choice((1, 2, 2, 3)))) for _ in range(12000)})
        self.rng.shuffle(words)
        words += ["(", ") {", "}", "= ", "if", "return", "self."]
        weights = [1 / (rank + 3) for rank in range(len(words))]
        pieces, length = [], 0
        while length < size:
            line = b"    " * self.rng.randrange(4) + " ".join(self.rng.choices(words, weights, k=4000)).encode()
            # A line feed in place of about every eighth space.
            line = b"\n        ".join(b" ".join(part) for part in batches(line.split(b" "), 8))
            pieces.append(line)
            length += len(line)
        return b"".join(pieces)[:size]

    def make_table(self, size):
        """Rows as a data frame writes them."""
        names = ["north", "south", "east", "west", "online", "returned"]
        rows, length, number = [], 0, 0
        while length < size:
            number += self.rng.randrange(1, 9)
            row = f"{number},2026-0{number % 9 + 1}-1{number % 10},{self.rng.choice(names)},{self.rng.gauss(50, 12):.4f},{self.rng.random():.6f}\n".encode()
            rows.append(row)
            length += len(row)
        return b"".join(rows)

    def words(self, size):
        return b"".join(self.cut(self.text, size, 16 * KIB))

    def cut(self, source, size, most):
        while size > 0:
            length = min(size, self.rng.randrange(most // 4, most))
            at = self.rng.randrange(len(source) - length)
            yield source[at:at + length]
            size -= length

    def rows(self, size):
        """Whole lines; the last one is cut."""
        pieces, length = [], 0
        while length < size:
            at = self.lines[self.rng.randrange(len(self.lines) - 400)]
            end = self.lines[bisect.bisect_left(self.lines, at + self.rng.randrange(4 * KIB, 16 * KIB))]
            pieces.append(self.table[at:end])
            length += end - at
        return b"".join(pieces)[:size]

    def weights(self, size):
        """Numbers as a model has them: random mantissas, a few exponents."""
        block = bytearray(self.rng.randbytes(size))
        high = bytes(0x3c + (value > 90) - (value < 25) + 0x80 * (value & 1) for value in range(256))
        block[3::4] = bytes(block[3::4]).translate(high)
        return bytes(block)

    def noise(self, size):
        return self.rng.randbytes(size)

    def small(self, size):
        """A file of a project: nine in ten are text."""
        kind = self.rng.random()
        if kind < 0.90:
            return self.words(size)
        if kind < 0.96:
            return self.rows(size)
        return self.noise(size) if kind < 0.98 else self.weights(size)


def batches(items, count):
    return [items[at:at + count] for at in range(0, len(items), count)]


def write(path, pieces):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)


def name_of(number):
    return f"src/{number % 97:02}/{number % 11}/file-{number:06}.txt"


def git(tree, *words):
    env = {"PATH": os.environ["PATH"], "HOME": str(tree), **GIT}
    subprocess.run(["git", "-c", "gc.auto=0", "-c", "pack.threads=1", *words], cwd=tree, env=env, check=True, stdout=subprocess.DEVNULL)


def mixed(tree, pool, count, large, commits):
    """W1: many small files, five large ones, and what git makes of some."""
    for number in range(count):
        write(tree / name_of(number), [pool.small(int(pool.rng.triangular(1, 64, 19) * KIB))])
    kinds = {"model-a.bin": pool.weights, "model-b.bin": pool.weights, "table.csv": pool.rows, "log.txt": pool.words, "images.zip": pool.noise}
    for name, kind in kinds.items():
        write(tree / "data" / name, (kind(size) for size in pieces(large, 4 * MIB)))
    git(tree, "init", "-q", "--template=", "-b", "main", ".")
    for half in range(2):
        names = [name_of(number) for number in range(half * commits, (half + 1) * commits)]
        for batch in batches(names, 500):
            git(tree, "add", "--", *batch)
        git(tree, "commit", "-q", "-m", f"part {half}")
        if half == 0:
            # The first half becomes a pack, the second stays in loose objects.
            git(tree, "repack", "-q", "-a", "-d")


def pieces(size, most):
    while size > 0:
        yield min(size, most)
        size -= most


def changed(tree, before, pool, count):
    """W2: W1 with other content in a hundredth of its files; the rest are links to the same ones."""
    shutil.copytree(before, tree, copy_function=os.link, symlinks=True)
    names = sorted(str(path.relative_to(tree)) for path in (tree / "src").rglob("*") if path.is_file())
    touched = pool.rng.sample(names, count - 1)
    for name in touched:
        size = (tree / name).stat().st_size
        (tree / name).unlink()
        write(tree / name, [pool.small(size)])
    large = tree / "data/model-a.bin"
    large.unlink()
    shutil.copyfile(before / "data/model-a.bin", large)
    with large.open("r+b") as file:
        file.seek(large.stat().st_size // 2)
        file.write(pool.weights(MIB))
    return touched + ["data/model-a.bin"]


def tiny(tree, pool, count):
    """W3: files of 1 KiB, 200 in a directory."""
    for number in range(count):
        at = pool.rng.randrange(len(pool.text) - KIB)
        write(tree / f"{number // 20000:02}/{number // 200 % 100:02}/{number:06}", [b"%08d" % number + pool.text[at:at + KIB - 8]])


def huge(tree, pool, size):
    """W4: one file; a half numbers of a model, a quarter text, a quarter noise."""
    kinds = [pool.weights, pool.words, pool.weights, pool.noise]
    write(tree / "checkpoint.bin", (kinds[at // 16 % 4](length) for at, length in enumerate(pieces(size, 4 * MIB))))


def make(folder, name, seed, tenth):
    """Makes the tree, and beside it a note of what it is; both stay for the next run."""
    tree, note = folder / name, folder / f"{name}.json"
    wanted = {"version": VERSION, "seed": seed, "tenth": tenth}
    if note.exists() and json.loads(note.read_text())["made"] == wanted:
        return
    if name == "W2":
        make(folder, "W1", seed, tenth)
    note.unlink(missing_ok=True)
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    share = 10 if tenth else 1
    pool = Pool(random.Random(f"{name}-{seed}"))
    touched = []
    if name == "W1":
        mixed(tree, pool, 20000 // share, 100_000_000 // share, 1000 // share)
    elif name == "W2":
        tree.rmdir()
        touched = changed(tree, folder / "W1", pool, 200 // share)
    elif name == "W3":
        tiny(tree, pool, 200000 // share)
    else:
        huge(tree, pool, 4 * 1024 * MIB // share)
    files = [path.stat() for path in tree.rglob("*") if path.is_file()]
    figures = {"files": len(files), "bytes": sum(stat.st_size for stat in files), "changed": touched, "made": wanted}
    note.write_text(json.dumps(figures))


def listing(tree, without_git):
    found = {}
    for folder, folders, files in os.walk(tree):
        if without_git and ".git" in folders:
            folders.remove(".git")
        for name in files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, tree)] = os.lstat(path).st_size
    return found


def same(one, other, without_git):
    """The first difference in names, sizes or content of two trees, or None. Git's configuration of `other` may go on after that of `one`:
    the container's side appends settings to it (src/executor/workspace/receive/git_stat.rs)."""
    first, second = listing(one, without_git), listing(other, without_git)
    longer = {name for name in first if name == GIT_CONFIG and first[name] != second.get(name, first[name])}
    for name in longer:
        with open(os.path.join(one, name), "rb") as a, open(os.path.join(other, name), "rb") as b:
            if not b.read().startswith(a.read()):
                return f"{name} does not begin with what was sent"
        del first[name], second[name]
    if first != second:
        names = [name for name in first.keys() | second.keys() if first.get(name) != second.get(name)]
        return f"{min(names)} and {len(names) - 1} more are not the same in name and size"
    for name in first:
        with open(os.path.join(one, name), "rb") as a, open(os.path.join(other, name), "rb") as b:
            while True:
                left, right = a.read(MIB), b.read(MIB)
                if left != right:
                    return f"{name} has other content"
                if not left:
                    break
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make")
    maker.add_argument("folder", type=pathlib.Path)
    maker.add_argument("name", choices=["W1", "W2", "W3", "W4"])
    maker.add_argument("--seed", type=int, default=1)
    maker.add_argument("--tenth", action="store_true")
    judge = commands.add_parser("same")
    judge.add_argument("trees", nargs=2)
    judge.add_argument("--without-git", action="store_true")
    options = parser.parse_args()
    if options.command == "make":
        make(options.folder, options.name, options.seed, options.tenth)
        return 0
    difference = same(*options.trees, options.without_git)
    if difference:
        print(difference)
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(main())
