#!/usr/bin/env python3
"""The time from `prepare` to the first line of the script, with instances of a warm pool and without.

The emulator has no delays but one, for new instances; a job that gets a warm pool does not have it. Prints a table. The new instances are those of
jobs without a warm pool, on a host whose bucket has the agent; what their time exceeds the delay by is the executor's and the container's start.

    cargo build --release
    python3 tests/bench/pool.py [--driver PATH] [--rounds N] [--new N]

Needs Python 3.8 or newer, bash and bubblewrap; nothing from PyPI.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

from overhead import ROOT, Bench

# Seconds of the emulator for new instances.
STARTING = 20


def first_line(bench, number):
    """Seconds from the start of `prepare` to the first line of the script, and the job's log."""
    bench.payload(number)
    bench.scripts["build_script"].write_text(f"#!/usr/bin/env bash\ncd '{bench.project}'\necho first line\n")
    session = json.loads(bench.call(["config"], "")[0])["job_env"]["SAGEMAKER_EXECUTOR_SESSION"]
    start = time.monotonic()
    for words in (["prepare"], ["run", bench.scripts["prepare_script"], "prepare_script"],
                  ["run", bench.scripts["get_sources"], "get_sources"]):
        bench.call(words, session)
    err = bench.folder / "err"
    with err.open("wb") as stderr:
        child = bench.start(["run", bench.scripts["build_script"], "build_script"], session, subprocess.PIPE, stderr)
        line = child.stdout.readline()
        seconds = time.monotonic() - start
        child.stdout.read()
        assert child.wait() == 0 and line == b"first line\n", (line, err.read_text())
    log = err.read_text()
    for words in (["run", bench.scripts["after_script"], "after_script"], ["cleanup"]):
        bench.call(words, session)
    time.sleep(2)  # until the training job has ended, and its instances are in the pool
    return seconds, log


def new_instances(driver, rounds, delays):
    """Seconds to the first line of each job whose instances are new."""
    folder = tempfile.mkdtemp(prefix="new-")
    bench = Bench(driver, folder, False, delays)
    try:
        first_line(bench, 1)  # uploads the agent; every later job finds it
        return [first_line(bench, number + 2)[0] for number in range(rounds)]
    finally:
        bench.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    built = sorted(ROOT.glob("target/*/release/sagemaker-executor")) + [ROOT / "target/release/sagemaker-executor"]
    parser.add_argument("--driver", type=pathlib.Path, default=built[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--new", type=int, default=5)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="pool-")
    delays = [word for phase in ("downloading", "training", "uploading") for word in (f"--{phase}-delay", "0s")]
    delays += ["--starting-delay", f"{STARTING}s"]
    new = new_instances(options.driver.resolve(), options.new, delays)
    bench = Bench(options.driver.resolve(), folder, False, delays, "keep_alive_seconds = 600\n")
    try:
        _, log = first_line(bench, 1)
        assert "had no warm pool" in log, log
        hits = []
        for number in range(options.rounds):
            hit, log = first_line(bench, number + 2)
            assert "Warm pool of " in log, log
            hits.append(hit)
    finally:
        bench.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print("| instances | median | range |\n| --- | --- | --- |")
    more = [seconds - STARTING for seconds in new]
    for name, values in ((f"new, {options.new} jobs", new), (f"the same without the {STARTING} s of the emulator", more),
                         (f"of a warm pool, {options.rounds} jobs", hits)):
        print(f"| {name} | {statistics.median(values):.2f} s | {min(values):.2f} to {max(values):.2f} s |")


if __name__ == "__main__":
    main()
