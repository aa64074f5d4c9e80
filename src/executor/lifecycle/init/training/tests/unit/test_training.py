"""python3 -m unittest discover --start-directory tests/unit"""

import json
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import training_script


class Training(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_script(self, *arguments):
        places = ["--model", str(self.folder / "model"), "--metrics", str(self.folder / "metrics.json")]
        with mock.patch.object(sys, "argv", ["training_script.py", *places, *arguments]):
            training_script.main()
        return json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))

    def test_the_metrics_are_those_that_the_manifest_judges(self):
        """`sagemaker-executor gate` says whether they are good enough."""
        metrics = self.run_script()
        manifest = json.loads((Path(training_script.__file__).parent / "manifest.json").read_text(encoding="utf-8"))
        for rule in manifest["model"]["require"]:
            value = metrics[rule.split(">=")[0]]
            self.assertTrue(0 <= value <= 1, f"{rule}: {value}")

    def test_the_report_gets_a_matrix_and_a_curve(self):
        metrics = self.run_script()
        self.assertEqual(len(metrics["confusion_matrix"]), len(metrics["classes"]))
        self.assertEqual(len(metrics["learning_curve"]["test_accuracy"]), 10)
        self.assertAlmostEqual(metrics["learning_curve"]["test_accuracy"][-1], metrics["accuracy"])

    def test_the_same_data_give_the_same_model(self):
        first = self.run_script()
        content = (self.folder / "model" / "model.pkl").read_bytes()
        self.assertEqual(self.run_script(), first)
        self.assertEqual((self.folder / "model" / "model.pkl").read_bytes(), content)

    def test_data_of_a_file_are_taken(self):
        file = self.folder / "data.csv"
        file.write_text("".join(f"{n},{n % 7},{'high' if n >= 20 else 'low'}\n" for n in range(40)), encoding="utf-8")
        metrics = self.run_script("--data", str(file), "--regularization", "1.0")
        description = json.loads((self.folder / "model" / "model.json").read_text(encoding="utf-8"))
        self.assertEqual((description["classes"], description["features"]), (["high", "low"], 2))
        self.assertGreater(metrics["accuracy"], 0.5)


if __name__ == "__main__":
    unittest.main()
