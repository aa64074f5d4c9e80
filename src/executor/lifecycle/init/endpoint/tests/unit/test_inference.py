"""python3 -m unittest discover --start-directory tests/unit"""

import json
import sys
import tempfile
import threading
import unittest
from http.client import HTTPConnection
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

import inference_handler  # noqa: E402
import sample_model  # noqa: E402


class Inference(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            sample_model.write_model(Path(folder))
            cls.server = inference_handler.make_server(Path(folder), ("127.0.0.1", 0))
        thread = threading.Thread(target=cls.server.serve_forever)
        thread.start()
        cls.addClassCleanup(thread.join)
        cls.addClassCleanup(cls.server.server_close)
        cls.addClassCleanup(cls.server.shutdown)

    def setUp(self):
        self.connection = HTTPConnection("127.0.0.1", self.server.server_port)
        self.addCleanup(self.connection.close)

    def send(self, body, content_type="text/csv", path="/invocations"):
        self.connection.request("POST", path, body, {"Content-Type": content_type})
        answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read())

    def test_ping(self):
        self.connection.request("GET", "/ping")
        answer = self.connection.getresponse()
        answer.read()
        self.assertEqual(answer.status, 200)

    def test_the_samples_of_the_endpoint(self):
        for line in (PROJECT / "samples.jsonl").read_text(encoding="utf-8").splitlines():
            sample = json.loads(line)
            body = sample["body"] if isinstance(sample["body"], str) else json.dumps(sample["body"])
            with self.subTest(sample["name"]):
                status, answer = self.send(body, sample["content_type"])
                expected = sample["expect"]
                self.assertEqual(status, expected.get("status", 200), answer)
                self.assertIn(expected.get("contains", ""), json.dumps(answer))
                for rule in expected.get("json", []):
                    if "equals" in rule:
                        self.assertIn(rule["equals"], answer["predictions"])

    def test_what_cannot_be_read_is_told(self):
        for body, kind in [
            ("", "text/csv"),
            ("a,b", "text/csv"),
            ("nan," * 12 + "1", "text/csv"),
            ("1e308," * 12 + "1", "text/csv"),
            ('{"instances": [[' + "9" * 401 + "]]}", "application/json"),
            ("[" * 100000, "application/json"),
            ("{", "application/json"),
            ("{}", "application/json"),
            ('{"instances": 1}', "application/json"),
            ("1", "text/plain"),
        ]:
            with self.subTest(body):
                status, answer = self.send(body, kind)
                self.assertEqual(status, 400)
                self.assertIn("error", answer)

    def test_other_paths_are_unknown(self):
        self.assertEqual(self.send("1", path="/other")[0], 404)


if __name__ == "__main__":
    unittest.main()
