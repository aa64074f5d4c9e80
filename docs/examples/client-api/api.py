"""An API that serves the latest approved version of a model by itself, beside the endpoint or in its place.

    MODEL_GROUP=wine python3 api.py

It loads the version in MODEL_PACKAGE_ARN, which the deployment gives, and then asks the registry every RELOAD_SECONDS for the latest
approved one. A version that cannot be loaded is told in the log and tried again; the one before goes on answering.

GET /health: 200 with the version, or 503 before the first one. POST /predict: as the model's inference_handler.py takes it.
"""

import json
import os
import shutil
import signal
import sys
import tarfile
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

# The model's own code, from its project: model_fn, input_fn, predict_fn and output_fn.
import inference_handler

LARGEST_REQUEST = 6 * 1024 * 1024


def latest_approved(sagemaker, group):
    """The ARN of the newest approved version; None where there is none."""
    found = sagemaker.list_model_packages(
        ModelPackageGroupName=group, ModelApprovalStatus="Approved", SortBy="CreationTime", SortOrder="Descending", MaxResults=1
    )["ModelPackageSummaryList"]
    return found[0]["ModelPackageArn"] if found else None


def load(sagemaker, s3, arn):
    """The model of a version."""
    version = sagemaker.describe_model_package(ModelPackageName=arn)
    if version["ModelApprovalStatus"] != "Approved":
        raise ValueError(f"the version {arn} is {version['ModelApprovalStatus']}")
    address = urlparse(version["InferenceSpecification"]["Containers"][0]["ModelDataUrl"])
    folder = tempfile.mkdtemp()
    try:
        archive = os.path.join(folder, "model.tar.gz")
        s3.download_file(address.netloc, address.path.lstrip("/"), archive)
        with tarfile.open(archive) as files:
            # No links, devices and paths that lead out of the folder.
            files.extractall(folder, filter="data")
        return inference_handler.model_fn(folder)
    finally:
        shutil.rmtree(folder)


class Current:
    """The version that answers. A request takes it once, so that a reload in between changes nothing for it."""

    def __init__(self, sagemaker, s3, group):
        self.sagemaker, self.s3, self.group = sagemaker, s3, group
        self.serving = (None, None)

    def reload(self, wanted=None):
        """Loads the wanted version, else the latest approved one where it is another than that which answers."""
        try:
            arn = wanted or latest_approved(self.sagemaker, self.group)
            if arn and arn != self.serving[0]:
                self.serving = (arn, load(self.sagemaker, self.s3, arn))
                print(f"serving {arn}", flush=True)
        except Exception as error:
            print(f"the version is not loaded, and {self.serving[0] or 'none'} goes on: {error!r}", file=sys.stderr, flush=True)


class Handler(BaseHTTPRequestHandler):
    current = None

    def do_GET(self):
        arn, model = self.current.serving
        if self.path != "/health":
            return self.answer(404, {"error": "not found"})
        return self.answer(200 if model is not None else 503, {"model_package": arn})

    def do_POST(self):
        _, model = self.current.serving
        length = self.headers.get("Content-Length", "")
        if self.path != "/predict":
            return self.answer(404, {"error": "not found"})
        if model is None:
            return self.answer(503, {"error": "no version is approved yet"})
        if not (length.isascii() and length.isdigit()) or int(length) > LARGEST_REQUEST:
            self.close_connection = True
            return self.answer(413, {"error": f"a request has a length of at most {LARGEST_REQUEST} bytes"})
        try:
            kind = self.headers.get("Content-Type", "").split(";")[0].strip()
            request = inference_handler.input_fn(self.rfile.read(int(length)), kind)
        except ValueError as error:
            return self.answer(400, {"error": str(error)})
        body, kind = inference_handler.output_fn(inference_handler.predict_fn(request, model))
        return self.send(200, body, kind)

    def answer(self, status, value):
        self.send(status, json.dumps(value).encode(), "application/json")

    def send(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass  # a line for each request would fill the log


def main():
    import boto3

    current = Handler.current = Current(boto3.client("sagemaker"), boto3.client("s3"), os.environ["MODEL_GROUP"])
    current.reload(os.environ.get("MODEL_PACKAGE_ARN"))
    stopped = threading.Event()

    def reload_for_good():
        while not stopped.wait(float(os.environ.get("RELOAD_SECONDS", "300"))):
            current.reload()

    threading.Thread(target=reload_for_good, daemon=True).start()
    server = ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"port {server.server_port}", flush=True)
    server.serve_forever()
    stopped.set()


if __name__ == "__main__":
    main()
