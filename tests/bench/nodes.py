#!/usr/bin/env python3
"""How long the lines of a job on several nodes take to the runner: with one node and with ten.

    cargo build --release --locked
    python3 tests/bench/nodes.py [--nodes 1,10] [--seconds 60] [--driver PATH]

Each node prints two lines a second with its own clock's time. Prints Markdown. Needs Python 3.8 or newer, bash and bubblewrap.
"""

import argparse
import pathlib
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # the folder stays as it is

from stand import Emulator, Site, Usage, percentile, table

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Delays of the service: gathered for 5 s, ingested up to 10 s later.
DELAYS = ["--log-delay", "5s", "--log-lag", "10s", "--share-channels"]
SCRIPT = """#!/usr/bin/env bash
export LC_ALL=C
until=$((SECONDS + %d))
while [ $SECONDS -lt $until ]; do
    echo "$NODE_RANK: the quick brown fox @$EPOCHREALTIME@"
    sleep 0.$((RANDOM %% 400 + 300))
done
"""


def measure(options, nodes):
    with tempfile.TemporaryDirectory(prefix="nodes") as folder:
        emulator = Emulator(options.driver, f"{folder}/emulator", *DELAYS)
        try:
            site = Site(options.driver, folder, emulator, True)
            operator = pathlib.Path(folder) / "operator.toml"
            operator.write_text(operator.read_text().replace('image = "host"', f'image = "host"\ninstance_count = {nodes}'))
            run = site.start(1, SCRIPT % options.seconds)
            deadline = time.monotonic() + 120
            while not run.marks and time.monotonic() < deadline:
                time.sleep(0.1)
            usage = Usage(emulator, [run])
            time.sleep(options.seconds / 2)
            cpu = usage.since()
            in_time = site.wait([run], options.seconds + 120)
            lags = [arrived - written for written, arrived in run.marks]
            ranks = {line.split(b": ")[0].split(b" ")[-1] for line in run.output().splitlines() if b"fox" in line}
            site.clean([1])
        finally:
            emulator.stop()
    whole = in_time and run.status == 0 and len(ranks) == nodes
    spread = [f"{percentile(lags, share):.2f} s" for share in (0.5, 0.99, 1)]
    return [nodes, len(lags), *spread, f"{100 * cpu['driver']:.1f} %", "yes" if whole else "no"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="1,10", type=lambda text: [int(one) for one in text.split(",")])
    parser.add_argument("--seconds", default=60, type=int)
    release = ROOT / "target/x86_64-unknown-linux-gnu/release/sagemaker-executor"
    parser.add_argument("--driver", default=release, type=pathlib.Path)
    options = parser.parse_args()
    table(["nodes", "lines", "write to runner, p50", "p99", "max", "driver, of a core", "whole"],
          [measure(options, nodes) for nodes in options.nodes])


if __name__ == "__main__":
    main()
