"""Time and memory of `package`, and what is left when it is killed.

    cargo build --release --locked && python3 tests/bench/package.py

Makes a project in git with a model of random bytes, which do not get smaller, and measures `package`, `package verify` and `endpoint
deploy --package` until the approval that is missing, against the emulator. `--large` makes a package above 4 GiB too, and opens it with
unzip and Python. `--kills` ends `package` at random moments. Standard library only.
"""

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import zipfile

import stand

ROOT = pathlib.Path(__file__).resolve().parents[2]
GIT = {"GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent", "PATH": os.environ["PATH"]}
for who in ("AUTHOR", "COMMITTER"):
    GIT |= {f"GIT_{who}_NAME": "n", f"GIT_{who}_EMAIL": "n@example.com", f"GIT_{who}_DATE": "2026-11-28T12:00:00Z"}
PIPELINE = {
    "CI_PIPELINE_CREATED_AT": "2026-11-29T04:52:33Z",
    "CI_PIPELINE_ID": "7",
    "CI_PROJECT_PATH": "g/p",
    "CI_COMMIT_REF_NAME": "main",
    "PATH": os.environ["PATH"],
}
DIGEST = "sha256:" + "0123456789abcdef" * 4
ACCOUNT = "000000000000"
MIB = 1 << 20


def project(folder, files):
    """A commit with so many sources, besides manifest and samples."""
    image = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/serve@{DIGEST}"
    place = {"region": "us-east-1", "account": ACCOUNT, "bucket": "models", "role": f"arn:aws:iam::{ACCOUNT}:role/serve"}
    manifest = {
        "model": {"group": "wine", "image": image},
        "endpoint": {"name": "wine", "instances": {"type": "ml.m5.large"}, "test": {"samples": ["samples.json"]}},
        "environments": {"prod": place},
    }
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "samples.json").write_text('[{"body": "x", "content_type": "text/plain"}]')
    (folder / ".gitignore").write_text("/model/\n/out/\n")
    for number in range(files):
        (folder / f"source_{number}.py").write_text(f"# {number}\n" * 100)
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "Begin"]):
        subprocess.run(["git", *words], cwd=folder, env=GIT, check=True)
    return folder


def model(folder, size):
    """A model whose parts repeat at a distance that gzip does not see."""
    shutil.rmtree(folder / "model", ignore_errors=True)
    (folder / "model").mkdir()
    # No larger: the memory of a new process counts with that of this one.
    part = random.Random(1).randbytes(MIB)
    with open(folder / "model/weights.bin", "wb") as file:
        for _ in range(size // MIB):
            file.write(part)


def run(words, folder, env):
    """Seconds, peak memory in MiB, exit code and both outputs."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        child = subprocess.Popen([EXECUTOR, *words], cwd=folder, env=env, stdout=out, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        return seconds, usage.ru_maxrss / 1024, child.returncode, out.read().decode(), errors.read().decode()


def good(words, folder, env, code=0):
    ended = run(words, folder, env)
    assert ended[2] == code, ended
    return ended


def hashed(file):
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def small(work, rounds):
    folder = project(work / "small", 100)
    model(folder, MIB)
    rows = [good(["package", "--output-dir", "out"], folder, PIPELINE) for _ in range(rounds)]
    seconds, memory = [row[0] for row in rows], max(row[1] for row in rows)
    stand.table(
        ["package of 100 sources and 1 MiB of model", "seconds, median", "range", "peak memory"],
        [["`package`", f"{statistics.median(seconds):.3f}", f"{min(seconds):.3f} to {max(seconds):.3f}", f"{memory:.0f} MiB"]],
    )
    return folder


def large(work, size, name):
    """Packs, verifies and deploys a model of this size."""
    folder = project(work / f"model-{size}", 10)
    model(folder, size)
    env = PIPELINE | {"TMPDIR": str(work)}
    embed = ["--embed-model", str(size // MIB + 64)]
    rows = [("`package`", good(["package", "--output-dir", "out", *embed, "--output", "json"], folder, env))]
    made = json.loads(rows[0][1][3])
    package = folder / made["file"]
    assert hashed(package) == made["sha256"]
    rows.append(("`package verify`", good(["package", "verify", str(package)], folder, env)))
    if package.stat().st_size <= 5 << 30:
        emulator = stand.Emulator(EXECUTOR, work / f"emulator-{size}", "--bucket", "models", "--ecr", f"serve@{DIGEST}=linux/amd64")
        try:
            env |= {"AWS_ENDPOINT_URL": emulator.endpoint} | emulator.credentials
            words = ["endpoint", "deploy", "--package", str(package), "--environment", "prod"]
            rows.append(("`endpoint deploy --package`, until the approval", good(words, folder, env, 30)))
            rows.append(("the same again", good(words, folder, env, 30)))
        finally:
            emulator.stop()
    print()
    stand.table(
        [f"model of {name}, package of {package.stat().st_size:,} bytes", "seconds", "peak memory"],
        [[what, f"{row[0]:.2f}", f"{row[1]:.0f} MiB"] for what, row in rows],
    )
    return package


def opened_by_others(package):
    subprocess.run(["unzip", "-tq", package], check=True)
    with zipfile.ZipFile(package) as archive:
        assert archive.testzip() is None
    print(f"\nunzip -t and Python's zipfile read {package.name}")


def kills(folder, number):
    """Ends `package` at random moments: what is there is whole, and a last run makes the same bytes."""
    out = folder / "killed"
    words = [EXECUTOR, "package", "--output-dir", str(out)]
    longest = good(words[1:], folder, PIPELINE)[0]
    (package,) = out.iterdir()
    whole = hashed(package)
    package.unlink()
    moments, left, placed = random.Random(7), 0, 0
    for _ in range(number):
        child = subprocess.Popen(words, cwd=folder, env=PIPELINE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0, longest))
        child.send_signal(signal.SIGKILL)
        child.wait()
        for file in out.iterdir():
            if file.name == package.name:
                assert hashed(file) == whole, "half a package has the package's name"
                placed += 1
            else:
                left += 1
            file.unlink()
    good(words[1:], folder, PIPELINE)
    assert [file.name for file in out.iterdir()] == [package.name] and hashed(package) == whole
    print(f"\n{number} kills: {placed} left the whole package, {left} another file; the last run made the same bytes")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--executor", type=pathlib.Path, help="another program than that of the release build")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--model-mib", type=int, default=1024)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--work", type=pathlib.Path, help="folder with room: thrice the largest model")
    args = parser.parse_args()
    global EXECUTOR
    found = sorted(ROOT.glob("target/*/release/sagemaker-executor"))
    EXECUTOR = str((args.executor or found[0]).resolve())
    print(f"{EXECUTOR}, {datetime.date.today()}, load {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        work = pathlib.Path(work)
        folder = small(work, args.rounds)
        if args.kills:
            kills(folder, args.kills)
        large(work, args.model_mib * MIB, f"{args.model_mib} MiB")
        if args.large:
            opened_by_others(large(work, 4288 * MIB, "4,288 MiB"))


if __name__ == "__main__":
    main()
