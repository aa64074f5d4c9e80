"""python3 -m unittest discover --start-directory tests/unit"""

import sys
import tempfile
import unittest
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "data")]

import make_customers  # noqa: E402
import make_input_data  # noqa: E402
import process  # noqa: E402
import train_processed  # noqa: E402


class Processing(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.raw, self.processed = (Path(folder.name) / name for name in ("input_data.csv", "customers.csv"))
        make_input_data.make_file(self.raw)

    def test_incomplete_rows_are_left_out(self):
        read, written = process.process(self.raw, self.processed, "key")
        self.assertEqual(read, make_customers.CUSTOMERS)
        self.assertEqual(written, read - read // make_input_data.INCOMPLETE)
        rows, leaves = train_processed.read_customers(self.processed)
        self.assertEqual((len(rows), len(rows[0]), set(leaves)), (written, 5, {0, 1}))

    def test_the_numbers_of_customers_are_replaced(self):
        process.process(self.raw, self.processed, "key")
        first = self.processed.read_text(encoding="utf-8")
        self.assertNotIn("C00001", first)
        process.process(self.raw, self.processed, "key")
        self.assertEqual(self.processed.read_text(encoding="utf-8"), first)
        process.process(self.raw, self.processed, "another key")
        self.assertNotEqual(self.processed.read_text(encoding="utf-8"), first)


if __name__ == "__main__":
    unittest.main()
