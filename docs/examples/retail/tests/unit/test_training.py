"""python3 -m unittest discover --start-directory tests/unit"""

import sys
import tempfile
import unittest
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "data")]

import make_customers  # noqa: E402
import training_script  # noqa: E402


class Training(unittest.TestCase):
    def test_the_data_are_those_of_the_program(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "customers.csv"
            make_customers.make_file(file)
            self.assertEqual(file.read_text(encoding="utf-8"), training_script.DATA.read_text(encoding="utf-8"))

    def test_both_kinds_of_customers_are_read(self):
        rows, leaves = training_script.read_customers()
        self.assertEqual((len(rows), len(leaves)), (make_customers.CUSTOMERS, make_customers.CUSTOMERS))
        self.assertEqual((len(rows[0]), set(leaves)), (5, {0, 1}))

    def test_the_same_data_give_the_same_model(self):
        rows, leaves = training_script.read_customers()
        first, second = (training_script.train(rows, leaves) for _ in range(2))
        self.assertEqual(first.predict_proba(rows).tolist(), second.predict_proba(rows).tolist())


if __name__ == "__main__":
    unittest.main()
