#!/usr/bin/env python3
"""How the job's output reaches the runner: latency, tail, exactness, throughput, idle cost, requests and dollars.

Everything runs on one emulator with the log delays and request quotas of the service. The scripts of N jobs print with
their own clock's time in each piece; this program holds the pipe that GitLab Runner would hold, and takes the time at
which the bytes arrive. Beside it, in the same run, the SageMaker Python SDK and the AWS CLI follow training jobs that print
the same.

    cargo build --release --locked
    python3 tests/bench/trace.py [--jobs 1,100,500] [--seconds 60] [--mode copy,cloudwatch] [--parts latency,idle,...]

Needs Python 3.8 or newer, bash and bubblewrap. The part `others` installs the SDK from PyPI into a virtual environment and
looks for `aws` on PATH; what it cannot have it names and skips. 500 jobs need about 6 GB of memory. Prints Markdown.
"""

import argparse
import concurrent.futures
import hashlib
import os
import pathlib
import random
import shutil
import statistics
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # the folder stays as it is

import others
from stand import MARK, Emulator, Peaks, Site, Usage, agents, machine_busy, memory_of, percentile, table
from talker import EXACT, IDLE, TALKER, THROUGHPUT, expected_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODES = ("copy", "cloudwatch")
PARTS = ("latency", "idle", "throughput", "exact", "others")
# US East (N. Virginia), list price, in dollars. Requests that read CloudWatch Logs are free of charge; what is written
# there costs by the gigabyte, for every job of SageMaker alike.
PRICES = {
    "PutObject": 0.005 / 1000, "ListObjectsV2": 0.005 / 1000, "GetObject": 0.0004 / 1000, "HeadObject": 0.0004 / 1000,
}
PRICE_INGESTED_GB = 0.50
# Gathered for 5 s, ingested up to 10 s later.
DELAYS = ["--log-delay", "5s", "--log-lag", "10s"]
# One file of the agent for all containers: hundreds of copies on one machine would share no cache, which instances of their
# own have for themselves.
SHARED = ["--share-channels"]
# Chances of 1000: events lost and doubled, batches shuffled and late.
FAULTS = {"logs": {"lost": 20, "doubled": 50, "shuffled": 200, "late": 100, "late_ms": 8000}}


def spread(values):
    if not values:
        return ["-", "-", "-"]
    return [f"{percentile(values, 0.5):.2f} s", f"{percentile(values, 0.99):.2f} s", f"{max(values):.2f} s"]


class Place:
    """An emulator and a runner host for one part."""

    def __init__(self, options, name, mode, *emulator):
        self.options, self.folder, self.runs = options, pathlib.Path(options.folder) / name, {}
        self.emulator = Emulator(options.driver, self.folder / "emulator", *DELAYS, *SHARED, *emulator, *options.emulator)
        self.site = Site(options.driver, self.folder, self.emulator, mode == "copy", options.trace)

    def __enter__(self):
        return self

    def start(self, job, script, **reading):
        self.runs[job] = self.site.start(job, script, **reading)
        return self.runs[job]

    def check(self):
        for job, run in self.runs.items():
            if run.ended_at is not None:
                raise RuntimeError(f"job {job} ended early with {run.status}: {self.site.errors(job)}")

    def __exit__(self, *_):
        for run in self.runs.values():
            if run.ended_at is None:
                run.process.kill()
        if self.options.clean:
            self.site.clean(list(self.runs), self.options.ramp)
        self.emulator.stop()
        if not self.options.keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def note(text):
    print(f"<!-- {text} -->", flush=True)


def latency(options, mode, count):
    """N talkers on one emulator."""
    with Place(options, f"latency-{mode}-{count}", mode) as place:
        site, emulator, numbers = place.site, place.emulator, range(1, count + 1)
        ramp = time.monotonic()
        place.start(1, TALKER)  # alone: it brings the agent into the bucket
        with concurrent.futures.ThreadPoolExecutor(options.ramp) as pool:
            list(pool.map(lambda job: place.start(job, TALKER), numbers[1:]))
        ready = sorted(site.control.wait(numbers, 120 + count, place.check))
        note(f"{mode}, {count} jobs: {len(ready)} scripts run after {time.monotonic() - ramp:.0f} s")
        time.sleep(options.settle)
        usage = Usage(emulator, list(place.runs.values()))
        requests, busy, begin = emulator.requests(), machine_busy(), time.time()
        time.sleep(options.seconds)
        after, busy_after, end = emulator.requests(), machine_busy(), time.time()
        cpu = usage.since()
        memory = {"emulator": memory_of(emulator.process.pid, "VmRSS"), "agent": max([memory_of(pid) for pid in agents(emulator.endpoint)] or [0]),
                  "driver": max(memory_of(run.process.pid) for run in place.runs.values())}
        # Over some seconds, as jobs end: the tail is not that of one stampede.
        for job in ready:
            site.control.end(job)
            time.sleep(min(0.05, 10 / len(ready)))
        site.wait(list(place.runs.values()), 180)
        answer = {"mode": mode, "jobs": count, "ready": len(ready), "span": end - begin, "cpu": cpu, "memory": memory,
                  "busy": (busy_after[0] - busy[0]) / (busy_after[1] - busy[1]),
                  "requests": {name: after[name] - requests.get(name, 0) for name in after if after[name] != requests.get(name, 0)},
                  "lags": [], "ingested": [], "tails": [], "wrong": 0, "failed": 0}
        last = end - (3 if mode == "copy" else min(20, options.seconds / 2))
        for job, run in place.runs.items():
            inside = [(written, arrived) for written, arrived in run.marks if begin <= written < last]
            answer["lags"] += [arrived - written for written, arrived in inside]
            known = emulator.ingested(f"{site.jobs[job]}/") if mode != "copy" else {}
            answer["ingested"] += [arrived - known[written] for written, arrived in inside if written in known]
            out = run.output()
            if run.status != 0:
                answer["failed"] += 1
                note(f"job {job} ended with {run.status}: {site.errors(job)[-300:]}")
            elif out != expected_of(job, [b".".join(found) for found in MARK.findall(out)]) or b"\nend " not in out:
                answer["wrong"] += 1
                (pathlib.Path(options.folder) / f"wrong-{mode}-{count}-{job}").write_bytes(out)
            if run.marks and run.ended_at:
                answer["tails"].append(run.ended_at - run.marks[-1][0])
        return answer


def report_latency(answers):
    print("\n**Latency**: from the script's write to the runner's pipe, and from the ingestion of the event that carries it; "
          "**tail**: from the last write to the end of `run`\n")
    table(["mode", "jobs", "write, p50", "p99", "max", "ingestion, p50", "p99", "max", "tail, p50", "p99", "max", "wrong", "failed"],
          [[one["mode"], f"{one['ready']} of {one['jobs']}", *spread(one["lags"]), *spread(one["ingested"]), *spread(one["tails"]),
            one["wrong"], one["failed"]] for one in answers])
    print("\n**Cost** in the steady interval: cores used; memory (emulator: resident, others: largest peak)\n")
    table(["mode", "jobs", "emulator", "all drivers", "all agents", "a driver, mean", "largest", "an agent, mean", "machine busy",
           "emulator", "driver", "agent"],
          [[one["mode"], one["ready"], f"{one['cpu']['emulator']:.2f}", f"{one['cpu']['driver']:.2f}", f"{one['cpu']['agent']:.2f}",
            f"{100 * one['cpu']['driver'] / one['ready']:.2f} %", f"{100 * one['cpu']['largest driver']:.2f} %",
            f"{100 * one['cpu']['agent'] / one['ready']:.2f} %", f"{100 * one['busy']:.0f} %",
            *(f"{one['memory'][kind]:.1f} MiB" for kind in ("emulator", "driver", "agent"))] for one in answers])
    report_requests(answers)


def report_requests(answers):
    print("\n**Requests** per job-hour in the steady interval, and dollars by list price\n")
    names = sorted({name for one in answers for name in one["requests"]})
    rows = []
    for one in answers:
        hours = one["span"] / 3600 * one["ready"]
        rates = [one["requests"].get(name, 0) / hours for name in names]
        dollars = sum(rate * PRICES.get(name, 0) for name, rate in zip(names, rates))
        rows.append([one["mode"], one["ready"], *(f"{rate:.0f}" for rate in rates),
                     f"{sum(one['requests'].values()) / one['span']:.1f}", f"{dollars:.4f}"])
    table(["mode", "jobs", *names, "all jobs, a second", "dollars"], rows)


def idle(options, mode):
    """A few jobs that print nothing."""
    count = options.idle_jobs
    with Place(options, f"idle-{mode}", mode) as place:
        for job in range(1, count + 1):
            place.start(job, IDLE)
        ready = place.site.control.wait(range(1, count + 1), 60, place.check)
        time.sleep(options.settle)
        usage, requests, begin = Usage(place.emulator, list(place.runs.values())), place.emulator.requests(), time.time()
        time.sleep(options.seconds)
        cpu, after, span = usage.since(), place.emulator.requests(), time.time() - begin
        for job in ready:
            place.site.control.end(job)
        place.site.wait(list(place.runs.values()), 60)
        changed = {name: after[name] - requests.get(name, 0) for name in after if after[name] != requests.get(name, 0)}
        return {"mode": mode, "jobs": count, "ready": len(ready), "span": span, "cpu": cpu, "requests": changed}


def report_idle(answers):
    print("\n**Idle**: a script that prints nothing, share of one core\n")
    table(["mode", "jobs", "driver, mean", "largest", "agent, mean"],
          [[one["mode"], one["jobs"], f"{100 * one['cpu']['driver'] / one['jobs']:.3f} %", f"{100 * one['cpu']['largest driver']:.3f} %",
            f"{100 * one['cpu']['agent'] / one['jobs']:.3f} %"] for one in answers])
    report_requests(answers)


def throughput(options, mode):
    """`seq 1 10000000` against the same piped to `cat`, in the same container, in turns."""
    rows = []
    with Place(options, f"throughput-{mode}", mode) as place:
        for job in range(1, options.rounds + 1):
            run = place.start(job, THROUGHPUT, marks=False, keep=False)
            peaks = Peaks(place.emulator, run)
            place.site.control.wait([job], 60, place.check)
            plain, ours, exited = [[float(one) for one in words.split()] for words in place.site.control.said(job, 300).decode().split("\n")[:3]]
            place.site.wait([run], 300)
            agent, driver = peaks.stop()
            if run.status != 0:
                note(f"job {job} ended with {run.status}: {place.site.errors(job)[-300:]}")
            rows.append({"plain": statistics.median(plain), "ours": ours[0], "total": run.ended_at - (exited[0] - ours[0]),
                         "tail": run.ended_at - exited[0], "bytes": run.total, "agent": agent, "driver": driver,
                         "exact": run.hash.hexdigest() == options.seq_hash})
            place.site.clean([job])
            del place.runs[job]
    middle = lambda name: statistics.median(row[name] for row in rows)
    return [mode, f"{middle('plain'):.3f} s", f"{middle('ours'):.3f} s", f"{statistics.median(row['ours'] / row['plain'] for row in rows):.2f}",
            f"{middle('total'):.2f} s", f"{middle('tail'):.2f} s", f"{middle('bytes') / middle('total') / 1e6:.0f} MB/s",
            f"{max(row['agent'] for row in rows):.1f} MiB", f"{max(row['driver'] for row in rows):.1f} MiB",
            f"{sum(row['exact'] for row in rows)} of {len(rows)}"]


def seq_hash():
    whole = hashlib.sha256()
    for start in range(1, 10_000_001, 100_000):
        whole.update(b"".join(b"%d\n" % number for number in range(start, start + 100_000)))
    return whole.hexdigest()


def payload(size):
    """All byte values, lines of 1 MB, ordinary, blank and indented lines, look-alikes of escapes; no newline at the end."""
    luck = random.Random(1)
    noise = luck.getrandbits(8 << 20).to_bytes(1 << 20, "little")
    text = b"".join(b"%d ordinary line \xc3\xa4 #033 \\n \x1b[31mred\x1b[0m\r\t%s\n" % (number, b"\n    indented\n\n" * (number % 3))
                    for number in range(10_000))
    long = bytes(luck.randrange(33, 127) for _ in range(1000)) * 1048 + b"\n"
    pieces, length = [], 0
    while length < size:
        cut = luck.randrange(len(noise))
        pieces += [noise[cut:], noise[:cut], long, text, b"7:0:00000000|no frame\n"]
        length = sum(map(len, pieces))
    return b"".join(pieces)[:size - 1] + b"."


def differences(wanted, got):
    """Lines that are lost, doubled and changed, roughly."""
    from collections import Counter
    wanted, got = Counter(wanted.split(b"\n")), Counter(got.split(b"\n"))
    lost, more = sum((wanted - got).values()), got - wanted
    return lost, sum(count for line, count in more.items() if line in wanted), sum(count for line, count in more.items() if line not in wanted)


def exact(options, mode):
    """One large output through every fault of the log."""
    with Place(options, f"exact-{mode}", mode) as place:
        place.emulator.plan(FAULTS)
        wanted = payload(options.exact_mb << 20)
        source = place.folder / "payload"
        source.write_bytes(wanted)
        sources = f"#!/usr/bin/env bash\nset -eo pipefail\nmkdir -p '{{project}}' '{{project}}.tmp'\ncp '{source}' '{{project}}/payload'\n"
        begin = time.time()
        run = place.start(1, EXACT, sources=sources, marks=False)
        peaks = Peaks(place.emulator, run)
        place.site.wait([run], 900)
        agent, driver = peaks.stop()
        got = run.output()
        if run.status != 0:
            note(f"ended with {run.status}: {place.site.errors(1)[-1000:]}")
        same = hashlib.sha256(got).digest() == hashlib.sha256(wanted).digest()
        lost, doubled, other = (0, 0, 0) if same else differences(wanted, got)
        if not same:
            (pathlib.Path(options.folder) / f"wrong-exact-{mode}").write_bytes(got)
        return [mode, f"{len(wanted) >> 20} MiB", "yes" if same else "NO", lost, doubled, other, f"{(run.ended_at or time.time()) - begin:.1f} s",
                f"{agent:.1f} MiB", f"{driver:.1f} MiB"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    built = sorted(ROOT.glob("target/*/release/sagemaker-executor")) + [ROOT / "target/release/sagemaker-executor"]
    numbers = lambda text: [int(one) for one in text.split(",")]
    words = lambda text: text.split(",")
    parser.add_argument("--driver", type=pathlib.Path, default=built[0])
    parser.add_argument("--jobs", type=numbers, default=[1, 100, 500])
    parser.add_argument("--seconds", type=float, default=60, help="length of the steady interval")
    parser.add_argument("--settle", type=float, default=20, help="between the last script's start and the steady interval")
    parser.add_argument("--mode", type=words, default=list(MODES))
    parser.add_argument("--parts", type=words, default=list(PARTS))
    parser.add_argument("--ramp", type=int, default=4, help="jobs that are prepared at the same time")
    parser.add_argument("--idle-jobs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3, help="of the throughput part")
    parser.add_argument("--exact-mb", type=int, default=100)
    parser.add_argument("--folder", help="where to work; a temporary one is made and removed otherwise")
    parser.add_argument("--venv", type=pathlib.Path, help="where the SageMaker SDK's virtual environment is or will be")
    parser.add_argument("--aws", type=pathlib.Path, help="an AWS CLI of version 2, when the one on PATH is none")
    parser.add_argument("--keep", action="store_true", help="leave the files of each part")
    parser.add_argument("--no-clean", dest="clean", action="store_false", help="end without `cleanup` of each job")
    parser.add_argument("--emulator", type=lambda text: text.split(), default=[], help="more options for the emulator")
    parser.add_argument("--trace", default="", help="more lines for the table `trace` of the operator's file")
    options = parser.parse_args()
    unknown = set(options.mode) - set(MODES) | set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    options.driver = options.driver.resolve()
    made = None
    if options.folder:
        pathlib.Path(options.folder).mkdir(parents=True, exist_ok=True)
    else:
        options.folder = made = tempfile.mkdtemp(prefix="trace-", dir=os.environ.get("TMPDIR", "/var/tmp"))
    try:
        if "latency" in options.parts:
            answers = []
            for mode in options.mode:
                for count in options.jobs:
                    answers.append(latency(options, mode, count))
                    note(f"done: {spread(answers[-1]['lags'])}")
            report_latency(answers)
        if "idle" in options.parts:
            report_idle([idle(options, mode) for mode in options.mode])
        if "throughput" in options.parts:
            options.seq_hash = seq_hash()
            rows = [throughput(options, mode) for mode in options.mode]
            print("\n**Throughput**: `seq 1 10000000`, 79 MB\n")
            table(["mode", "script into `cat`", "script", "ratio", "until `run` has ended", "of it after the script", "rate", "agent", "driver", "exact"], rows)
        if "exact" in options.parts:
            rows = [exact(options, mode) for mode in options.mode]
            print(f"\n**Exactness** under lost, doubled, shuffled and late events {FAULTS['logs']}\n")
            table(["mode", "output", "same bytes", "lines lost", "doubled", "changed", "from `config` to the end of `run`", "agent", "driver"], rows)
        if "others" in options.parts:
            others.part(options, Place, spread)
        sys.stdout.flush()
    finally:
        if made and not options.keep and not any(pathlib.Path(made).glob("wrong-*")):
            shutil.rmtree(made, ignore_errors=True)


if __name__ == "__main__":
    main()
