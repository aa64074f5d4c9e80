"""Trains as training_script.py does, on the processed data of the landing zone. Writes model/ and metrics.json.

    python3 train_processed.py

In a training job the data are the channel `train`.
"""

import csv
import json
import os
from pathlib import Path

import training_script
from sklearn.model_selection import train_test_split

DATA = Path(os.environ.get("SM_CHANNEL_TRAIN", "processed")) / "customers.csv"


def read_customers(file=DATA):
    """Rows of numbers without the pseudonyms, and for each row 1 for a customer who leaves, else 0."""
    with open(file, newline="", encoding="utf-8") as lines:
        customers = list(csv.DictReader(lines))
    leaves = [int(customer.pop("next") == "leaves") for customer in customers]
    return [[float(value) for name, value in customer.items() if name != "customer"] for customer in customers], leaves


def main():
    rows, leaves = read_customers()
    train_rows, test_rows, train_leaves, test_leaves = train_test_split(
        rows, leaves, test_size=training_script.TEST_SHARE, random_state=training_script.SEED, stratify=leaves
    )
    model = training_script.train(train_rows, train_leaves)
    metrics = training_script.measure(model, test_rows, test_leaves)
    training_script.write_model(Path("model"), model, len(rows[0]))
    Path("metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(f"Trained on {len(train_rows)} customers, measured on {len(test_rows)}")
    print(f"accuracy: {metrics['accuracy']:.4f}")
    print(f"f1: {metrics['f1']:.4f}")


if __name__ == "__main__":
    main()
