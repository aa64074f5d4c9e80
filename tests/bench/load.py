#!/usr/bin/env python3
"""Load on one emulator: every job exact, nothing left behind, no growth.

Each job has all stages, as the runner calls them, and a short script. The parts:

    together    jobs that all begin at once
    through     many jobs, some at a time
    sequence    jobs one after the other
    old         `prepare` on a host with the records of old sessions, against one without
    hosts       two hosts with one token, which share the jobs; each sweeps while the other works

After each part the processes, threads, descriptors, objects and files are those of before, and the first hundred jobs took as long as
the last hundred. The exit code is 1 when a promise does not hold.

    cargo build --release
    python3 tests/bench/load.py [--driver PATH] [--quick] [PART ...]

Needs Python 3.8 or newer, bash and bubblewrap; nothing from PyPI.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time

import stand

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = "#!/usr/bin/env bash\nset -eo pipefail\ncd '{project}'\nfor n in 1 2 3; do echo \"job {job} line $n\"; done\n"
EXPECTED = "".join(f"job {{job}} line {n}\n" for n in (1, 2, 3))
# (full, quick) sizes.
SIZES = {"together": (500, 40), "through": (10000, 200), "sequence": (1000, 60), "old": (50000, 5000), "hosts": (200, 24)}
AT_ONCE = 20
# The last hundred jobs may take this much longer than the first, on a machine whose other work varies.
SLOWER = 1.3
# Growth of the emulator's memory from one third of a part to its end, in MiB for a thousand jobs: it keeps the names of ended jobs.
GROWTH = 40
# `prepare` beside old records may take this much longer than without, as a factor and in seconds.
OLD_FACTOR, OLD_SECONDS = 1.5, 0.1

problems = []


def promise(holds, text):
    if not holds:
        problems.append(text)
        print(f"BROKEN: {text}", flush=True)


def files(folder):
    """Number of files and of bytes below a folder."""
    count = size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(place, name)).st_size
                count += 1
            except OSError:
                pass
    return count, size


def relatives(pid):
    """Number of processes below a process."""
    below = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = pathlib.Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        below.setdefault(int(parent), []).append(int(entry))
    found, left = [], [pid]
    while left:
        children = below.get(left.pop(), [])
        found += children
        left += children
    return len(found)


class Host(stand.Site):
    """A runner host whose jobs have the directories of the runner's slots."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.free, self.slots, self.guard = [], {}, threading.Lock()

    def take(self, job):
        with self.guard:
            self.slots[job] = self.free.pop() if self.free else len(self.slots)

    def give(self, job):
        with self.guard:
            self.free.append(self.slots.pop(job))

    def project(self, job):
        return self.folder / f"builds/1/token/{self.slots.get(job, 0)}/group/project"


class Shop:
    """An emulator, some hosts, and the jobs that ran on them."""

    def __init__(self, driver, folder, hosts=1, at_once=AT_ONCE, emulator=()):
        self.driver, self.folder = driver, pathlib.Path(folder)
        self.emulator = stand.Emulator(driver, self.folder / "emulator", "--quota", "DescribeTrainingJob=0", *emulator)
        self.hosts = [Host(driver, self.folder / f"host-{number}", self.emulator, True) for number in range(hosts)]
        self.at_once, self.seconds, self.lock = at_once, {}, threading.Lock()
        # The first jobs upload the agent and use each slot; what they leave is no growth.
        for host in self.hosts:
            self.job(1, host)
            with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
                for done in [pool.submit(self.job, 10_000_000 + number, host) for number in range(min(at_once, 40))]:
                    done.result()
        time.sleep(1)
        self.before = self.figures()

    def figures(self):
        pid = self.emulator.process.pid
        return {
            "processes": relatives(pid), "threads": len(os.listdir(f"/proc/{pid}/task")), "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "files": sum(files(host.folder / "state")[0] for host in self.hosts),
            "bytes": sum(files(host.folder / "state")[1] for host in self.hosts),
            "objects": files(self.folder / "emulator/data/s3")[0], "memory": stand.memory_of(pid, "VmRSS"),
        }

    def job(self, number, host):
        """All stages of one job; its seconds."""
        place = host.folder / f"job-{number}"
        place.mkdir(parents=True, exist_ok=True)
        payload = {"id": number, "token": "token", "job_info": {"project_id": 1}, "runner_info": {"timeout": 3600},
                   "steps": [{"name": "script", "script": ["true"]}, {"name": "after_script", "script": ["true"]}]}
        (place / "response.json").write_text(json.dumps(payload))
        host.take(number)
        begun = time.monotonic()
        host.jobs[number] = json.loads(host.call(number, "config"))["job_env"]["SAGEMAKER_EXECUTOR_SESSION"]
        outputs = {}
        try:
            host.call(number, "prepare")
            for stage, text in (("get_sources", stand.GET_SOURCES), ("build_script", SCRIPT), ("after_script", SCRIPT)):
                (place / stage).write_text(text.replace("{project}", str(host.project(number))).replace("{job}", str(number)))
                outputs[stage] = host.call(number, "run", str(place / stage), stage).decode(errors="replace")
        except RuntimeError as error:
            promise(False, str(error)[:2000])
        finally:
            try:
                host.call(number, "cleanup")
            except RuntimeError as error:
                promise(False, str(error)[:2000])
        took = time.monotonic() - begun
        for stage in ("build_script", "after_script"):
            promise(outputs.get(stage) == EXPECTED.replace("{job}", str(number)), f"job {number}, {stage}: {outputs.get(stage)!r}")
        host.jobs.pop(number, None)
        host.give(number)
        shutil.rmtree(place, ignore_errors=True)
        return took

    def run(self, count, at_once):
        """Runs jobs 2 to `count` + 1; their seconds in the order in which they ended, and memory in between."""
        ended, memory = [], []

        def one(number):
            took = self.job(number, self.hosts[number % len(self.hosts)])
            with self.lock:
                ended.append(took)
                if len(ended) % max(1, count // 30) == 0:
                    memory.append((len(ended), stand.memory_of(self.emulator.process.pid, "VmRSS")))

        begun = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            for done in concurrent.futures.as_completed([pool.submit(one, number) for number in range(2, count + 2)]):
                done.result()
        return ended, memory, time.monotonic() - begun

    def sweep(self, host):
        """A pass beside live jobs; it must end none."""
        env = {"PATH": os.environ["PATH"], "HOME": str(host.folder), **self.emulator.credentials}
        words = [str(self.driver), "--config", str(host.folder / "operator.toml"), "sweep"]
        return subprocess.run(words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def settle(self):
        """The `prepare` of the next job and `sweep` remove what a `cleanup` leaves for them."""
        deadline = time.monotonic() + 60
        while True:
            for host in self.hosts:
                self.sweep(host)
            now = self.figures()
            names = ("processes", "threads", "objects", "files", "descriptors")
            if all(now[name] <= self.before[name] for name in names) or time.monotonic() > deadline:
                return now
            time.sleep(2)

    def judge(self, part, count):
        now, before = self.settle(), self.before
        # A cache for each slot that the first jobs did not use.
        for name, more in (("processes", 0), ("threads", 4), ("descriptors", 8), ("objects", 4), ("files", self.at_once + 8)):
            promise(now[name] <= before[name] + more, f"{part}: {name}: {before[name]} before, {now[name]} after {count} jobs")
        promise(now["bytes"] <= before["bytes"] + (1 << 20), f"{part}: the state directories grew from {before['bytes']} to {now['bytes']} bytes")
        return now

    def close(self):
        self.emulator.stop()


def report(part, count, ended, memory, seconds, before, now):
    hundred = min(100, len(ended) // 3)
    first, last = statistics.median(ended[:hundred]), statistics.median(ended[-hundred:])
    half = [size for number, size in memory if number >= count / 3]
    growth = (half[-1] - half[0]) / (count * 2 / 3) * 1000 if len(half) > 1 else 0
    rows.append([part, count, f"{seconds:.0f} s", f"{seconds / count * 1000:.0f} ms", f"{first:.2f} s", f"{last:.2f} s",
                 f"{before['memory']:.0f} to {now['memory']:.0f} MiB", f"{growth:.1f} MiB",
                 "/".join(str(now[name] - before[name]) for name in ("processes", "threads", "descriptors", "objects", "files"))])
    return first, last, growth


rows = []


def jobs(part, driver, folder, count, at_once, hosts=1):
    shop = Shop(driver, folder, hosts, at_once)
    over = threading.Event()

    def sweeps():
        while not over.wait(3):
            for host in shop.hosts:
                done = shop.sweep(host)
                promise(done.returncode == 0, f"{part}: sweep: {done.stdout.decode(errors='replace')[:500]}")

    watcher = threading.Thread(target=sweeps) if hosts > 1 else None
    try:
        if watcher:
            watcher.start()
        ended, memory, seconds = shop.run(count, at_once)
        over.set()
        if watcher:
            watcher.join()
        now = shop.judge(part, count)
        first, last, growth = report(part, count, ended, memory, seconds, shop.before, now)
        if part in ("through", "sequence"):
            promise(last <= first * SLOWER, f"{part}: a job took {first:.2f} s at first and {last:.2f} s at last")
            promise(growth <= GROWTH, f"{part}: the emulator grew by {growth:.1f} MiB a thousand jobs")
    finally:
        over.set()
        shop.close()


def old(driver, folder, count):
    """`prepare` on a host with and without old records, by turns."""
    shop = Shop(driver, folder, 2)
    try:
        full, empty = shop.hosts
        place = full.folder / "job-999999"
        place.mkdir()
        number = 999999
        (place / "response.json").write_text(json.dumps({"id": number, "token": "t", "job_info": {"project_id": 1}, "steps": [
            {"name": "script", "script": ["true"]}]}))
        full.jobs[number] = json.loads(full.call(number, "config"))["job_env"]["SAGEMAKER_EXECUTOR_SESSION"]
        full.call(number, "prepare")
        sessions = full.folder / "state/sessions"
        known = full.jobs[number]
        record = (sessions / f"{known}.json").read_text()
        full.call(number, "cleanup")
        days_ago = time.time() - 3 * 86400
        old = json.loads(record)
        old["created"] = int(days_ago)
        old["requested"] = {"boot": "00000000-0000-4000-8000-000000000000", "uptime": 1000, "unix": int(days_ago)}
        record = json.dumps(old)
        for other in range(count):
            name = re.sub(r"^gitlab-\d+-\d+-", f"gitlab-{other % 50 + 2}-{other + 2000000}-", known)
            path = sessions / f"{name}.json"
            path.write_text(record.replace(known, name))
            os.utime(path, (days_ago, days_ago))
        seconds = {full: [], empty: []}
        for turn in range(12):
            for host in (full, empty):
                seconds[host].append(prepare(host, 3000 + turn * 2 + (host is full)))
        slow, quick = statistics.median(seconds[full]), statistics.median(seconds[empty])
        left = len(list(sessions.glob("*.json")))
        rows.append(["old", count, "", "", f"{quick:.2f} s without", f"{slow:.2f} s with", "", "", f"{left} left after {len(seconds[full])} jobs"])
        promise(slow <= quick * OLD_FACTOR + OLD_SECONDS, f"old: prepare takes {slow:.2f} s beside {count} old records, {quick:.2f} s without")
    finally:
        shop.close()


def prepare(host, number):
    place = host.folder / f"job-{number}"
    place.mkdir()
    (place / "response.json").write_text(json.dumps({"id": number, "token": "t", "job_info": {"project_id": 1}, "steps": [
        {"name": "script", "script": ["true"]}]}))
    begun = time.monotonic()
    host.jobs[number] = json.loads(host.call(number, "config"))["job_env"]["SAGEMAKER_EXECUTOR_SESSION"]
    host.call(number, "prepare")
    took = time.monotonic() - begun
    host.call(number, "cleanup")
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    built = sorted(ROOT.glob("target/*/release/sagemaker-executor")) + [ROOT / "target/release/sagemaker-executor"]
    parser.add_argument("--driver", type=pathlib.Path, default=built[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look")
    parser.add_argument("--jobs", type=int, help="size of each part")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(SIZES))
    options = parser.parse_args()
    unknown = set(options.parts) - set(SIZES)
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    driver = options.driver.resolve()
    for part in options.parts or SIZES:
        count = options.jobs or SIZES[part][options.quick]
        folder = tempfile.mkdtemp(prefix=f"load-{part}-")
        try:
            if part == "old":
                old(driver, folder, count)
            else:
                at_once = {"together": count, "sequence": 1}.get(part, AT_ONCE)
                jobs(part, driver, folder, count, at_once, 2 if part == "hosts" else 1)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    stand.table(["Part", "Jobs", "Time", "A job", "First hundred", "Last hundred", "Emulator's memory", "Growth in 1,000 jobs",
                 "More processes/threads/descriptors/objects/files"], rows)
    print(f"\n{len(problems)} promises were broken")
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    main()
