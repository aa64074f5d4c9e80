#!/usr/bin/env python3
"""What the driver adds to a job of `script: [true]`.

All stages run on the emulator without delays, against the same scripts run by plain bash. Prints two tables: wall
clock of all calls together (median and range over the rounds), and what each driver process costs: CPU is its user and
system time, memory its peak resident set, wall its time from start to end. `--sandbox` turns the sandbox of the host stages on. The measuring Python's own size is the floor of the memory figures.

    cargo build --release
    python3 tests/bench/overhead.py [--driver PATH] [--rounds N] [--sandbox]

Needs Python 3.8 or newer, bash and bubblewrap; nothing from PyPI.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
STAGES = {
    "prepare_script": '#!/usr/bin/env bash\necho "Running on $(hostname)..."\n',
    "get_sources": "#!/usr/bin/env bash\nset -eo pipefail\nmkdir -p '{project}' '{project}.tmp'\ntouch '{project}/file'\n",
    "build_script": "#!/usr/bin/env bash\nset -eo pipefail\ncd '{project}'\ntrue\n",
    "after_script": "#!/usr/bin/env bash\nset -eo pipefail\ncd '{project}'\ntrue\n",
    "cleanup_file_variables": "#!/usr/bin/env bash\nrm -rf '{project}.tmp'\n",
}


class Bench:
    def __init__(self, driver, folder, sandbox, emulator=("--no-delays",), job=""):
        self.driver, self.folder = str(driver), pathlib.Path(folder)
        self.project = self.folder / "builds/1/token/0/group/project"
        ready = self.folder / "ready"
        self.emulator = subprocess.Popen(
            [self.driver, "emulator", "--bucket", "bench", "--ready-file", ready,
             "--data-dir", self.folder / "emulator", "--quota", "CreateTrainingJob=0", "--quota", "DescribeTrainingJob=0", *emulator],
            stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert self.emulator.poll() is None and time.monotonic() < deadline, "the emulator did not get ready"
            time.sleep(0.01)
        # Read here: what `stand` imports would raise the floor of the memory figures.
        lines = (self.folder / "emulator/credentials").read_text().splitlines()
        self.credentials = {name.upper(): value for name, found, value in (line.partition(" = ") for line in lines) if found}
        (self.folder / "operator.toml").write_text(
            f'[aws]\nregion = "us-east-1"\nendpoint_url = "{ready.read_text().strip()}"\n[storage]\nbucket = "bench"\n'
            f'[job]\nrole_arn = "arn:aws:iam::000000000000:role/bench"\nimage = "host"\n{job}'
            f'[runner]\nbuilds_dir = "{folder}/builds"\ncache_dir = "{folder}/cache"\nstate_dir = "{folder}/state"\n'
            f"[sandbox]\nenabled = {'true' if sandbox else 'false'}\n")
        self.scripts = {}
        for stage, body in STAGES.items():
            self.scripts[stage] = self.folder / stage
            self.scripts[stage].write_text(body.replace("{project}", str(self.project)))

    def stop(self):
        self.emulator.send_signal(signal.SIGTERM)
        self.emulator.wait(30)

    def start(self, words, session, stdout, stderr):
        env = {
            "PATH": os.environ["PATH"], "HOME": str(self.folder),
            **self.credentials,
            "JOB_RESPONSE_FILE": str(self.folder / "response.json"), "BUILD_EXIT_CODE_FILE": str(self.folder / "code"),
            "CUSTOM_ENV_RUNNER_TEMP_PROJECT_DIR": f"{self.project}.tmp", "SAGEMAKER_EXECUTOR_SESSION": session,
        }
        return subprocess.Popen([self.driver, "--config", self.folder / "operator.toml", *words], env=env,
                                stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)

    def call(self, words, session):
        """One driver process: its output, CPU seconds, peak memory in MiB and seconds."""
        out = self.folder / "out"
        start = time.monotonic()
        with out.open("wb") as stdout, (self.folder / "err").open("wb") as stderr:
            child = self.start(words, session, stdout, stderr)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0, (words, child.returncode, (self.folder / "err").read_text())
        return out.read_text(), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, time.monotonic() - start

    def payload(self, number):
        payload = {"id": number, "token": f"token-{number}", "job_info": {"project_id": 1}, "runner_info": {"timeout": 3600},
                   "steps": [{"name": "script", "script": ["true"]}, {"name": "after_script", "script": ["true"]}]}
        (self.folder / "response.json").write_text(json.dumps(payload))

    def job(self, number):
        """All calls of one job: seconds of all together, cost of each."""
        self.payload(number)
        start = time.monotonic()
        answer, *cost = self.call(["config"], "")
        session = json.loads(answer)["job_env"]["SAGEMAKER_EXECUTOR_SESSION"]
        costs = {"config": cost, "prepare": self.call(["prepare"], session)[1:]}
        for stage, script in self.scripts.items():
            costs[f"run {stage}"] = self.call(["run", script, stage], session)[1:]
        costs["cleanup"] = self.call(["cleanup"], session)[1:]
        return time.monotonic() - start, costs

    def bash(self):
        start = time.monotonic()
        for script in self.scripts.values():
            subprocess.run(["bash", script], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        return time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    built = sorted(ROOT.glob("target/*/release/sagemaker-executor")) + [ROOT / "target/release/sagemaker-executor"]
    parser.add_argument("--driver", type=pathlib.Path, default=built[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--sandbox", action="store_true")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="overhead-")
    bench = Bench(options.driver.resolve(), folder, options.sandbox)
    try:
        bench.job(1)  # uploads the agent; every later job finds it
        driver, bash, costs = [], [], {}
        for round_number in range(options.rounds):
            seconds, cost = bench.job(round_number + 2)
            driver.append(seconds)
            bash.append(bench.bash())
            for name, figures in cost.items():
                costs.setdefault(name, []).append(figures)
    finally:
        bench.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{options.rounds} jobs of `script: [true]` with `after_script: [true]`, all stages, emulator without delays\n")
    print("| | median | range |\n| --- | --- | --- |")
    for name, values in (("driver", driver), ("plain bash", bash)):
        print(f"| {name} | {statistics.median(values):.3f} s | {min(values):.3f} to {max(values):.3f} s |")
    added = [a - b for a, b in zip(driver, bash)]
    ratio = statistics.median(a / b for a, b in zip(driver, bash))
    print(f"| added | {statistics.median(added):.3f} s | {min(added):.3f} to {max(added):.3f} s |")
    print(f"| ratio | {ratio:.1f} | |\n\n| process | CPU, median | CPU, maximum | peak memory | wall, median |\n| --- | --- | --- | --- | --- |")
    for name, figures in costs.items():
        cpu, memory = [figure[0] * 1000 for figure in figures], max(figure[1] for figure in figures)
        wall = statistics.median(figure[2] for figure in figures) * 1000
        print(f"| {name} | {statistics.median(cpu):.1f} ms | {max(cpu):.1f} ms | {memory:.1f} MiB | {wall:.1f} ms |")


if __name__ == "__main__":
    main()
