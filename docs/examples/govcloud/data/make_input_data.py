"""Writes input_data.csv, the raw data of a shop that does not exist, the same in each run. Every fortieth customer has no basket.

    python3 data/make_input_data.py
"""

from pathlib import Path

import make_customers

INCOMPLETE = 40


def make_file(file):
    lines = [f"customer,{make_customers.HEADER}"]
    for number, row in enumerate(make_customers.make_rows()):
        values = row.split(",")
        if number % INCOMPLETE == 0:
            values[1] = ""
        lines.append(f"C{number:05},{','.join(values)}")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make_file(Path("input_data.csv"))
