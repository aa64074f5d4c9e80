#!/usr/bin/env python3
"""What it costs the agent to measure a job: metrics in the output, and the use of the machine.

Runs a script that prints a line a second for a minute, once without metrics and once with one, on the emulator without delays. Prints
the CPU time of the agent, with its `nvidia-smi` if there is one, as a share of one core, and the agent's largest resident set.

    cargo build --release
    python3 tests/bench/sampling.py [--driver PATH] [--seconds N]

Needs Python 3.8 or newer, bash and bubblewrap; nothing from PyPI.
"""

import argparse
import os
import pathlib
import shutil
import tempfile
import threading
import time

from overhead import ROOT, Bench

TICKS = os.sysconf("SC_CLK_TCK")


def is_below(folder, ancestor):
    """Whether a process descends from another one."""
    while (pid := int(folder.name)) > 1:
        if pid == ancestor:
            return True
        folder = folder.parent / (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
    return False


def agents(emulator):
    """The agents' processes of an emulator, by their arguments."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            is_ours = is_below(folder, emulator)
        except OSError:
            continue
        if is_ours and len(words) > 1 and words[0].endswith(b"sagemaker-executor") and words[1] == b"agent":
            yield folder


def cpu(folder):
    """CPU seconds so far, without those of children."""
    fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / TICKS


def meters(agent):
    """The `nvidia-smi` of an agent, by its arguments."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == int(agent.name) and any(word.endswith(b"nvidia-smi") for word in words[:2]):
            yield folder


def look(folder):
    """CPU seconds so far, and the peak of the memory in MiB."""
    status = (folder / "status").read_text().splitlines()
    peak = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
    return cpu(folder) + sum(map(cpu, meters(folder))), int(peak) / 1024


class Measured(Bench):
    """Jobs with variables of their own."""

    variables = {}

    def start(self, words, session, stdout, stderr):
        # What `Bench` adds to the environment of each call.
        self.credentials.update({f"CUSTOM_ENV_{name}": value for name, value in self.variables.items()})
        return super().start(words, session, stdout, stderr)

    def watched(self, number, variables, seconds):
        """CPU of the agent as a share of a core within `seconds` of the script, and its peak memory."""
        self.variables = variables
        job = threading.Thread(target=self.job, args=(number,))
        job.start()
        while not (found := list(agents(self.emulator.pid))):
            time.sleep(0.05)
        # The transfer of the project is over.
        time.sleep(3)
        first, began = look(found[0])[0], time.monotonic()
        time.sleep(seconds)
        (last, peak), lasted = look(found[0]), time.monotonic() - began
        job.join()
        return (last - first) / lasted, peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    built = sorted(ROOT.glob("target/*/release/sagemaker-executor")) + [ROOT / "target/release/sagemaker-executor"]
    parser.add_argument("--driver", type=pathlib.Path, default=built[0])
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="sampling-")
    bench = Measured(options.driver.resolve(), folder, False)
    script = bench.scripts["build_script"]
    script.write_text(script.read_text().replace("\ntrue\n", f"\nfor n in $(seq {options.seconds + 8}); do echo \"loss: 0.$n\"; sleep 1; done\n"))
    try:
        rows = [("without", *bench.watched(2, {}, options.seconds)),
                ("with a metric and samples", *bench.watched(3, {"SAGEMAKER_METRICS": r"loss=loss: ([-+.\w]+)"}, options.seconds))]
    finally:
        bench.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print("| agent | CPU, of one core | peak memory |\n| --- | --- | --- |")
    for name, share, peak in rows:
        print(f"| {name} | {share * 100:.2f} % | {peak:.1f} MiB |")


if __name__ == "__main__":
    main()
