"""Times of answers as `endpoint test` measures them, beside those that a second client measures in the same run.

    cargo build --release --locked && python3 tests/bench/endpoint.py

An endpoint of the emulator serves docs/examples/serve with a model that needs some milliseconds. In turns, both clients send as many
requests, as many at once. The second client is http.client with a connection for each thread; its time includes the signature, as
`endpoint test`'s does. Standard library only.
"""

import argparse
import datetime
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import threading
import time

import stand

ROOT = pathlib.Path(__file__).resolve().parents[2]
HANDLER = """
import time

def model_fn(folder):
    return None

def input_fn(body, content_type):
    return body

def predict_fn(request, model):
    time.sleep({seconds})
    return request

def output_fn(prediction):
    return prediction, "text/csv"
"""


class Client:
    """One connection to the emulator, with signatures."""

    def __init__(self, emulator):
        self.host = emulator.endpoint.split("//")[1]
        self.credentials = emulator.credentials
        self.connection = http.client.HTTPConnection(self.host)

    def post(self, path, body, target=None):
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": self.host, "x-amz-date": now}
        if target:
            headers |= {"x-amz-target": "SageMaker." + target, "content-type": "application/x-amz-json-1.1"}
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = f"POST\n{path}\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
        scope = f"{now[:8]}/us-east-1/sagemaker/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = ("AWS4" + self.credentials["AWS_SECRET_ACCESS_KEY"]).encode()
        for part in [*scope.split("/"), text]:
            key = hmac.digest(key, part.encode(), "sha256")
        access = self.credentials["AWS_ACCESS_KEY_ID"]
        headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        self.connection.request("POST", path, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{target or path}: {answer.status} {content[:300]}")
        return content

    def call(self, operation, **request):
        return json.loads(self.post("/", json.dumps(request).encode(), operation) or b"{}")


def serve(emulator):
    """Creates the endpoint, and waits until it is in service."""
    client = Client(emulator)
    client.call("CreateModel", ModelName="m", PrimaryContainer={"Image": "serving"}, ExecutionRoleArn="arn:aws:iam::000000000000:role/serving")
    variant = {"VariantName": "AllTraffic", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    client.call("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[variant])
    client.call("CreateEndpoint", EndpointName="bench", EndpointConfigName="c")
    while (status := client.call("DescribeEndpoint", EndpointName="bench")["EndpointStatus"]) != "InService":
        if status != "Creating":
            raise RuntimeError(f"the endpoint is {status}")
        time.sleep(0.1)


def second_client(emulator, requests, concurrency):
    """Times of all answers in milliseconds."""
    numbers, times, lock = iter(range(requests)), [], threading.Lock()

    def work():
        client = Client(emulator)
        while True:
            with lock:
                if next(numbers, None) is None:
                    return
            started = time.perf_counter()
            client.post("/endpoints/bench/invocations", b"1,2,3")
            took = (time.perf_counter() - started) * 1000
            with lock:
                times.append(took)

    threads = [threading.Thread(target=work) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def endpoint_test(driver, folder, emulator, requests, concurrency):
    """The figures that the command prints."""
    environment = {**os.environ, **emulator.credentials, "AWS_EC2_METADATA_DISABLED": "true"}
    words = [driver, "endpoint", "test", "--environment", "bench", "--endpoint-url", emulator.endpoint, "--output", "json"]
    words += ["--requests", str(requests), "--concurrency", str(concurrency)]
    ended = subprocess.run(words, cwd=folder, env=environment, capture_output=True)
    if ended.returncode != 0:
        raise RuntimeError(ended.stderr.decode())
    return json.loads(ended.stdout)["latency_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    built = sorted(ROOT.glob("target/*/release/sagemaker-executor")) + [ROOT / "target/release/sagemaker-executor"]
    parser.add_argument("--driver", default=built[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--model-ms", type=float, default=20)
    arguments = parser.parse_args()
    driver = pathlib.Path(arguments.driver).absolute()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        programs = folder / "image/usr/local/bin"
        programs.mkdir(parents=True)
        shutil.copy(ROOT / "docs/examples/serve", programs)
        (programs / "inference_handler.py").write_text(HANDLER.format(seconds=arguments.model_ms / 1000))
        (folder / "samples.csv").write_text("1,2,3\n")
        manifest = {
            "endpoint": {"name": "bench", "instances": {"type": "ml.m5.large"}, "test": {"samples": ["samples.csv"]}},
            "environments": {"bench": {"region": "us-east-1", "account": "000000000000", "bucket": "bench"}},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        emulator = stand.Emulator(driver, folder / "emulator", "--image", f"serving=overlay:{folder}/image")
        try:
            serve(emulator)
            rounds = []
            for _ in range(arguments.rounds):
                figures = endpoint_test(driver, folder, emulator, arguments.requests, arguments.concurrency)
                times = second_client(emulator, arguments.requests, arguments.concurrency)
                rounds.append((figures, {"p50": stand.percentile(times, 0.50), "p95": stand.percentile(times, 0.95)}))
        finally:
            emulator.stop()
    shown = lambda value: f"{value:.2f} ms"
    rows = []
    for name, at in (("`endpoint test`", 0), ("second client", 1)):
        p50, p95 = ([one[at][key] for one in rounds] for key in ("p50", "p95"))
        rows.append([name, shown(statistics.median(p50)), shown(statistics.median(p95)), f"{min(p95):.2f} to {shown(max(p95))}"])
    ratio = statistics.median(one[0]["p95"] / one[1]["p95"] for one in rounds)
    stand.table(["client", "p50, median", "p95, median", "p95, range"], rows)
    print(f"\np95 of `endpoint test` over that of the second client, median of {len(rounds)} rounds: {ratio:.3f}")


main()
