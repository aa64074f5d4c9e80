"""Time from a context of many files to its zip in S3: `image build --via codebuild` beside `zip -r` and `aws s3 cp`.

    cargo build --release --locked && python3 tests/bench/source_zip.py

Makes a project in git, and lets the emulator refuse the project in CodeBuild, so that the command ends when its source is sent. A second run
must send nothing. Needs git, zip, and the AWS CLI, on PATH or of `.ci/python`. Standard library only.
"""

import argparse
import datetime
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import tempfile
import time

import stand

ROOT = pathlib.Path(__file__).resolve().parents[2]
ACCOUNT = "000000000000"
REFUSED = {"calls": [{"operation": "CreateProject", "error": "InvalidInputException", "message": "this is a measurement"}]}


def project(folder, files, lines):
    """A commit with so many sources, a Dockerfile and a manifest."""
    role = f"arn:aws:iam::{ACCOUNT}:role/build"
    manifest = {
        "image": {"repository": "bench", "builder": "codebuild", "tags": ["bench"], "context_limit_files": 1_000_000,
                  "codebuild": {"role": role, "project": "bench"}},
        "environments": {"dev": {"region": "us-east-1", "account": ACCOUNT, "bucket": "bench", "prefix": "p"}},
    }
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    words = random.Random(1)
    vocabulary = [f"word{number}" for number in range(5000)]
    for number in range(files):
        part = folder / f"part_{number // 200}"
        part.mkdir(exist_ok=True)
        text = "\n".join(" ".join(words.choices(vocabulary, k=8)) for _ in range(words.randint(1, 2 * lines)))
        (part / f"source_{number}.py").write_text(text)
    git = {"GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent", "PATH": os.environ["PATH"]}
    for command in (["init", "-q", "-b", "main"], ["add", "."]):
        subprocess.run(["git", *command], cwd=folder, env=git, check=True)
    return folder


def timed(command, **options):
    began = time.monotonic()
    ended = subprocess.run(command, capture_output=True, **options)
    return time.monotonic() - began, ended


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--executor", type=pathlib.Path, help="another program than that of the release build")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--lines", type=int, default=60, help="lines of a file, at the median")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    found = sorted(ROOT.glob("target/*/release/sagemaker-executor"))
    executor = str((args.executor or found[0]).resolve())
    aws = ROOT / "target/tools/python/bin/aws"
    aws = str(aws) if aws.exists() else shutil.which("aws")
    print(f"{executor}, {datetime.date.today()}, load {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        folder = project(work / "project", args.files, args.lines)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and ".git" not in file.parts)
        emulator = stand.Emulator(executor, work / "emulator")
        env = {"PATH": os.environ["PATH"], "HOME": str(work), "TMPDIR": str(work), "AWS_REGION": "us-east-1",
               "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": emulator.endpoint, "CI_PROJECT_PATH": "g/p"} | emulator.credentials
        build = [executor, "image", "build", "--environment", "dev"]
        try:
            subprocess.run([aws, "ecr", "create-repository", "--repository-name", "bench"], env=env, check=True, capture_output=True)
            emulator.plan(REFUSED)
            ours, others, again = [], [], []
            for number in range(args.rounds):
                seconds, ended = timed(["zip", "-q", "-r", work / f"{number}.zip", ".", "-x", ".git/*"], cwd=folder, env=env)
                assert ended.returncode == 0, ended
                copied, ended = timed([aws, "s3", "cp", "--quiet", work / f"{number}.zip", f"s3://bench/other/{number}.zip"], env=env)
                assert ended.returncode == 0, ended
                others.append(seconds + copied)
                # Another content each time, so that it is sent.
                (folder / "Dockerfile").write_text(f"FROM scratch\nCOPY . /\n# {number}\n")
                seconds, ended = timed(build, cwd=folder, env=env)
                assert ended.returncode != 0 and b"Sent the source" in ended.stderr and b"a measurement" in ended.stderr, ended
                ours.append(seconds)
                before = emulator.requests().get("PutObject", 0)
                seconds, ended = timed(build, cwd=folder, env=env)
                assert b"nothing is sent" in ended.stderr and emulator.requests().get("PutObject", 0) == before, ended
                again.append(seconds)
        finally:
            emulator.stop()
        ratio = statistics.median(ours) / statistics.median(others)
        rows = [("`zip -r` and `aws s3 cp`", others), ("`image build --via codebuild` until the source is sent", ours),
                ("the same again: 0 bytes sent", again)]
        stand.table(
            [f"{args.files:,} files, {size / (1 << 20):.0f} MiB", "seconds, median", "range"],
            [[what, f"{statistics.median(row):.2f}", f"{min(row):.2f} to {max(row):.2f}"] for what, row in rows],
        )
        print(f"\nratio {ratio:.2f}; the bar is 1.2")


if __name__ == "__main__":
    main()
