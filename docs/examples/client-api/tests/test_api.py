"""The latest approved version answers, and goes on when the next one cannot be loaded."""

import io
import json
import os
import sys
import tarfile
import threading
import unittest
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

HANDLER = ModuleType("inference_handler")
HANDLER.model_fn = lambda folder: Path(folder, "model.txt").read_text(encoding="utf-8")
HANDLER.output_fn = lambda text: (text.encode(), "text/plain")
HANDLER.predict_fn = lambda request, model: f"{model}:{request}"


def input_fn(body, kind):
    if kind != "text/csv":
        raise ValueError(f"not {kind}")
    return body.decode()


HANDLER.input_fn = input_fn
sys.modules["inference_handler"] = HANDLER
sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
import api  # noqa: E402


class Registry:
    def __init__(self):
        self.versions = {}

    def list_model_packages(self, ModelPackageGroupName, ModelApprovalStatus, SortBy, SortOrder, MaxResults):
        assert (ModelPackageGroupName, SortBy, SortOrder, MaxResults) == ("wine", "CreationTime", "Descending", 1)
        approved = [arn for arn, status in self.versions.items() if status == ModelApprovalStatus]
        return {"ModelPackageSummaryList": [{"ModelPackageArn": arn} for arn in approved[-1:]]}

    def describe_model_package(self, ModelPackageName):
        containers = [{"ModelDataUrl": f"s3://models/{ModelPackageName}/model.tar.gz"}]
        return {"ModelApprovalStatus": self.versions[ModelPackageName], "InferenceSpecification": {"Containers": containers}}


class Objects:
    def download_file(self, bucket, key, path):
        assert bucket == "models"
        name = key.split("/")[0]
        with tarfile.open(path, "w:gz") as files:
            for place in ["model.txt", "../outside"] if name == "hostile" else ["model.txt"]:
                entry = tarfile.TarInfo(place)
                entry.size = len(name)
                files.addfile(entry, io.BytesIO(name.encode()))


class Answers(unittest.TestCase):
    def setUp(self):
        self.registry = Registry()
        self.current = api.Handler.current = api.Current(self.registry, Objects(), "wine")
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), api.Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def tearDown(self):
        self.server.shutdown()
        self.server.server_close()

    def ask(self, path, body=None, kind="text/csv"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.server.server_port}{path}", body, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def test_the_latest_approved_version_answers(self):
        self.registry.versions = {"first": "PendingManualApproval"}
        self.current.reload()
        self.assertEqual(self.ask("/health")[0], 503)
        self.assertEqual(self.ask("/predict", b"1")[0], 503)
        self.registry.versions["first"] = "Approved"
        self.current.reload()
        self.assertEqual(self.ask("/predict", b"1"), (200, "first:1"))
        self.registry.versions |= {"second": "Approved", "third": "Rejected"}
        self.current.reload()
        self.assertEqual(self.ask("/predict", b"1"), (200, "second:1"))
        self.assertEqual(json.loads(self.ask("/health")[1]), {"model_package": "second"})
        self.assertEqual(self.ask("/predict", b"1", "text/html")[0], 400)

    def test_a_version_that_cannot_be_loaded_leaves_the_one_before(self):
        self.registry.versions = {"first": "Approved", "pending": "PendingManualApproval"}
        self.current.reload()
        for wanted in ["pending", "unknown"]:
            self.current.reload(wanted)
        self.registry.versions["hostile"] = "Approved"
        self.current.reload()
        self.assertEqual(self.ask("/predict", b"1"), (200, "first:1"))


if __name__ == "__main__":
    unittest.main()
