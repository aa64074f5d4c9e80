"""Makes training data of the raw data of the landing zone: leaves incomplete rows out, and replaces each customer's number by a pseudonym.

    python3 process.py

In a training job the raw data are the channel `raw`, and what is written to /opt/ml/model goes to the bucket. The key of the pseudonyms is in
the variable PSEUDONYM_KEY: the same customer has the same pseudonym, and nobody without the key finds the number.
"""

import csv
import hashlib
import hmac
import os
import sys
from pathlib import Path

RAW = Path(os.environ.get("SM_CHANNEL_RAW", "raw")) / "input_data.csv"
PROCESSED = Path("/opt/ml/model/customers.csv")


def pseudonym(key, customer):
    return hmac.new(key.encode(), customer.encode(), hashlib.sha256).hexdigest()[:16]


def process(raw, processed, key):
    """Copies the complete rows; the numbers of rows that were read and written."""
    with open(raw, newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        header, rows = reader.fieldnames, list(reader)
    complete = [row for row in rows if all(row.values())]
    with open(processed, "w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "customer": pseudonym(key, row["customer"])} for row in complete)
    return len(rows), len(complete)


def main():
    key = os.environ.get("PSEUDONYM_KEY")
    if not key:
        sys.exit("The variable PSEUDONYM_KEY is missing: SAGEMAKER_SECRET_PSEUDONYM_KEY of .gitlab-ci.yml names the secret")
    read, written = process(RAW, PROCESSED, key)
    print(f"{written} of {read} customers are complete")


if __name__ == "__main__":
    main()
