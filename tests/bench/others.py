"""The SageMaker Python SDK and the AWS CLI as followers of a training job's log, beside ours.

Each follows a plain training job on the same emulator at the same time, ours the same script through the executor. Installs
the SDK from PyPI into a virtual environment; the CLI of version 2 (PyPI has only version 1, without `logs tail`) must be on
PATH or named. What is missing is skipped, loudly.
"""

import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import urllib.request

from stand import MARK, table
from talker import entry_of, numbered

PACKAGES = ["sagemaker<3"]
SDK = """
import sys, boto3, sagemaker
session = sagemaker.session.Session(boto_session=boto3.Session(region_name="us-east-1"), default_bucket="bench")
print("ready", flush=True)
sys.stdin.readline()
session.logs_for_job(sys.argv[1], wait=True)
"""
# Chances of 1000.
LATE = {"logs": {"late": 150, "late_ms": 8000, "doubled": 20}}
# How long a follower may go on after its job has ended.
PATIENCE = 60


def environment(options):
    """The Python with the SDK, or None."""
    place = options.venv or pathlib.Path(options.folder) / "venv"
    python = place / "bin/python"
    check = [str(python), "-c", "import sagemaker.session, boto3"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if python.exists() and subprocess.run(check, **quiet).returncode == 0:
        return python
    subprocess.run([sys.executable, "-m", "venv", str(place)], **quiet)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], stdout=sys.stderr)
    return python if subprocess.run(check, **quiet).returncode == 0 else None


def command_line(options):
    """The AWS CLI of version 2, or None."""
    found = shutil.which(str(options.aws or "aws"))
    if not found:
        return None
    version = subprocess.run([found, "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return found if version.startswith(b"aws-cli/2.") else None


def ask(endpoint, target, body):
    request = urllib.request.Request(endpoint, json.dumps(body).encode(), {"x-amz-target": target, "content-type": "application/x-amz-json-1.1"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def train(endpoint, name, script):
    """A training job that runs a script and nothing else; the script travels in its environment."""
    code = base64.b64encode(script.encode()).decode()
    pieces = [code[at:at + 500] for at in range(0, len(code), 500)]
    entrypoint = f"s=; for ((i = 0; i < {len(pieces)}; i++)); do v=PART_$i; s+=${{!v}}; done; eval \"$(base64 -d <<<\"$s\")\""
    ask(endpoint, "SageMaker.CreateTrainingJob", {
        "TrainingJobName": name, "RoleArn": "arn:aws:iam::000000000000:role/bench",
        "AlgorithmSpecification": {"TrainingImage": "host", "TrainingInputMode": "File",
                                   "ContainerEntrypoint": ["/bin/bash", "-c"], "ContainerArguments": [entrypoint]},
        "Environment": {f"PART_{number}": piece for number, piece in enumerate(pieces)},
        "OutputDataConfig": {"S3OutputPath": "s3://bench/output"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    })


def judge(output, count, prefix=None):
    """Entries lost, doubled and mangled in what a follower printed."""
    lines = output.split(b"\n")
    if prefix:
        lines = [re.sub(prefix, b"", line, count=1) for line in lines]
    # The SDK puts the first entry behind its own dots.
    number_of = re.compile(rb"(?:^|\.)\s*(?:#011)?L(\d+) ")
    entries = []
    for line in lines:
        found = number_of.search(line)
        if found:
            entries.append((int(found.group(1)), [line]))
        elif entries:
            entries[-1][1].append(line)
    seen = {}
    for number, found in entries:
        seen.setdefault(number, []).append(b"\n".join(found))
    lost = doubled = mangled = 0
    for number in range(1, count + 1):
        texts = seen.get(number, [])
        lost += not texts
        doubled += max(0, len(texts) - 1)
        for text in texts[:1]:
            mark = MARK.search(text)
            wanted = entry_of(number, b".".join(mark.groups())) if mark else None
            # After the last entry a follower may say other things.
            whole = text == wanted or (number == count and wanted and text.startswith(wanted + b"\n"))
            mangled += not whole
    return lost, doubled, mangled


def part(options, make_place, spread):
    """Runs all three and prints their table."""
    python, aws = environment(options), command_line(options)
    for missing, reason in ((python, "the SageMaker SDK could not be installed from PyPI"),
                            (aws, "no AWS CLI of version 2 on PATH; name one with `--aws`")):
        if missing is None:
            print(f"\n**SKIPPED**: {reason}\n", flush=True)
    for name, plan, title in (("others", {}, "events in their order"), ("others-late", LATE, f"some events late or doubled {LATE['logs']}")):
        rows = beside(options, make_place, name, plan, python, aws, spread)
        print(f"\n**Others**, {title}: {int(options.seconds)} entries about one a second (color, tabs, indented and blank lines, "
              "bars, 20 kB lines), side by side\n")
        table(["follower", "write to pipe, p50", "p99", "max", "lost", "doubled", "mangled", "from the last write to its end"], rows)
        sys.stdout.flush()


def beside(options, make_place, name, plan, python, aws, spread):
    """All three at once; a row for each."""
    count = int(options.seconds)
    script = numbered(count)
    with make_place(options, name, "copy") as place:
        place.emulator.plan(plan)
        site, endpoint = place.site, place.emulator.endpoint
        home = pathlib.Path(place.folder)
        env = {"PATH": os.environ["PATH"], "HOME": str(home), **place.emulator.credentials,
               "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint, "SAGEMAKER_TELEMETRY_OPT_OUT": "true",
               "PYTHONUNBUFFERED": "1"}  # in their favor: a pipe would get whole buffers only
        # Ours once before: it brings the agent into the bucket, as on any day but the first.
        warm = place.start(99, "#!/usr/bin/env bash\ntrue\n")
        site.wait([warm], 60)
        followers = {}
        if python:
            # Its start, imports of seconds, is not measured: it waits until its job exists.
            with (home / "sdk-err").open("wb") as errors:
                sdk = subprocess.Popen([str(python), "-c", SDK, "sdk-job"], env=env, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=errors, bufsize=0)
            while sdk.stdout.readline() != b"ready\n":
                if sdk.poll() is not None:
                    raise RuntimeError(f"the SageMaker SDK did not start: {(home / 'sdk-err').read_text()[-1000:]}")
            train(endpoint, "sdk-job", script)
            sdk.stdin.write(b"go\n")
            followers["SageMaker SDK, `logs_for_job`"] = ("sdk-job", site.adopt(sdk), None)
        if aws:
            train(endpoint, "cli-job", script)
            # It ends with an error while the log group is not there, so it begins when there is something to follow.
            waited = time.monotonic()
            while not place.emulator.ingested("cli-job/") and time.monotonic() - waited < 30:
                time.sleep(0.2)
            command = [aws, "logs", "tail", "/aws/sagemaker/TrainingJobs", "--follow", "--log-stream-name-prefix", "cli-job"]
            run = site.follow(command, env, home / "cli-err")
            followers["AWS CLI, `logs tail --follow`"] = ("cli-job", run, rb"^\S+T\S+ cli-job/algo-1-\d+ ")
        ours = place.start(1, f"#!/usr/bin/env bash\n{script}")
        followers["`run` of the executor"] = (None, ours, None)
        site.wait([ours], count + 120)
        rows = []
        for label, (job, run, prefix) in followers.items():
            deadline = time.monotonic() + PATIENCE
            while run.ended_at is None and time.monotonic() < deadline:
                time.sleep(0.2)
            stopped = run.ended_at is None
            if stopped:
                run.process.terminate()
                site.wait([run], 10)
            out = run.output()
            (home / f"{job or 'ours'}-out").write_bytes(out)
            last = max(place.emulator.ingested(f"{job or site.jobs[1]}/"), default=None)
            after = "never" if stopped else f"{run.ended_at - last:.1f} s" if last else "-"
            rows.append([label, *spread([arrived - written for written, arrived in run.marks]), *judge(out, count, prefix), after])
        return rows
