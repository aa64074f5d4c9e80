#!/usr/bin/env python3
"""The requests and the time of a sweep by objects: sessions of dead hosts, beside sessions of live ones.

Writes an `open` object, a lease and a script for each session into the emulator's bucket, makes those of dead hosts two hours older, sweeps, and prints
a table. No training job exists.

    cargo build --release
    python3 tests/bench/sweep.py [--driver PATH] [--dead N] [--live N]

Needs Python 3.8 or newer and boto3 (`target/tools/python/bin/python3` has it).
"""

import argparse
import collections
import json
import os
import pathlib
import secrets
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.httpsession import URLLib3Session

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUCKET = "ci-bucket"


def own(session, endpoint, method, path):
    """One request to the emulator itself."""
    request = AWSRequest(method=method, url=endpoint + path, data=b"")
    SigV4Auth(session.get_credentials(), "emulator", "us-east-1").add_auth(request)
    reply = URLLib3Session().send(request.prepare())
    assert reply.status_code == 200, reply.text
    return json.loads(reply.text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    built = sorted(ROOT.glob("target/*/release/sagemaker-executor")) + [ROOT / "target/release/sagemaker-executor"]
    parser.add_argument("--driver", type=pathlib.Path, default=built[0])
    parser.add_argument("--dead", type=int, default=5000)
    parser.add_argument("--live", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
        measure(options, pathlib.Path(folder))


def measure(options, folder):
    ready, operator = folder / "ready", folder / "operator.toml"
    emulator = subprocess.Popen(
        [options.driver, "emulator", "--listen", "127.0.0.1:0", "--bucket", BUCKET, "--data-dir", folder / "emulator",
         "--ready-file", ready], stdout=subprocess.DEVNULL)
    try:
        while not ready.exists() or not ready.read_text():
            time.sleep(0.05)
        endpoint = ready.read_text().strip()
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "AWS_REGION": "us-east-1",
                       "AWS_SHARED_CREDENTIALS_FILE": str(folder / "emulator/credentials")}
        os.environ.pop("AWS_ACCESS_KEY_ID", None)
        os.environ.update(environment)
        operator.write_text(f'[aws]\nregion = "us-east-1"\nendpoint_url = "{endpoint}"\n[storage]\nbucket = "{BUCKET}"\n'
                            f'[job]\n[runner]\nstate_dir = "{folder}/state"\n')
        session = boto3.session.Session(region_name="us-east-1")
        s3 = session.client("s3", endpoint_url=endpoint, config=Config(max_pool_connections=8))

        def store(kind, number):
            root = f"sagemaker-executor/sessions/gitlab-{kind}-{number}-abcdef12/{secrets.token_hex(16)}"
            opened = json.dumps({"version": 2, "key": secrets.token_hex(32), "lease_seconds": 900})
            for name, body in (("open", opened), ("lease.json", "x"), ("scripts/000001", "x" * 4000)):
                s3.put_object(Bucket=BUCKET, Key=f"{root}/{name}", Body=body.encode())

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: store(1, number), range(options.dead)))
            aged = own(session, endpoint, "POST", f"/_emulator/age/{BUCKET}/sagemaker-executor/sessions/?seconds=7200")
            assert aged["aged"] == 3 * options.dead, aged
            list(pool.map(lambda number: store(2, number), range(options.live)))
        print("| sweep | seconds | CPU | peak memory | requests |\n| --- | --- | --- | --- | --- |")
        for name, words in (("dry run", ["--dry-run"]), ("ends all", []), ("nothing left", [])):
            before = collections.Counter(own(session, endpoint, "GET", "/_emulator/requests"))
            begun = time.monotonic()
            child = subprocess.Popen([options.driver, "--config", operator, "sweep", "--json", *words], env=environment,
                                     stdout=subprocess.PIPE)
            output = child.stdout.read()
            _, status, usage = os.wait4(child.pid, 0)
            seconds = time.monotonic() - begun
            assert status == 0, output
            requests = collections.Counter(own(session, endpoint, "GET", "/_emulator/requests")) - before
            told = ", ".join(f"{count} {name}" for name, count in requests.most_common())
            cpu = usage.ru_utime + usage.ru_stime
            print(f"| {name}: {len(json.loads(output)['sessions'])} sessions | {seconds:.1f} | {cpu:.1f} s | "
                  f"{usage.ru_maxrss / 1024:.0f} MiB | {told} |")
    finally:
        emulator.terminate()
        emulator.wait()


if __name__ == "__main__":
    main()
